"""PyTorch: the baseline of the tables, run as most people would run it. The one engine with torch."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kdeploy.engines._checks import compare, seeded_images
from kdeploy.engines._folder import complete, copy_in
from kdeploy.engines._options import Options, parse
from kdeploy.engines.base import Availability, Engine, Manifest, Precision, Session
from kdeploy.errors import Unavailable, install_command

_COMPILERS = ("g++", "clang++", "c++")


class PyTorchOptions(Options):
    """The options of the engine `pytorch`."""

    compile: bool = False
    """Through torch.compile, at its defaults: the first inference of each shape compiles, which takes a while."""


class PyTorch(Engine):
    """PyTorch on the CPU, eager or compiled."""

    name: ClassVar[str] = "pytorch"
    precisions: ClassVar[frozenset[Precision]] = frozenset({"float32"})
    options: ClassVar[type[Options]] = PyTorchOptions

    def available(self) -> Availability:
        """Whether `import torch` works. Never raises."""
        try:
            import torch
        except (ImportError, OSError) as error:  # OSError: a shared library of its is missing
            reason = f"Python can't import torch ({error})"
            return Availability(ok=False, reason=reason, install=install_command("train"))
        return Availability(ok=True, version=str(torch.__version__))

    def build(self, model: Path, folder: Path, manifest: Manifest) -> Manifest:
        """Copy the network of the folder `model` (`<folder>.safetensors` and `<folder>.json`) into `folder`.

        Compiled it is compared with itself in eager mode; that one is compared with ONNX where it is exported.
        """
        options = parse(PyTorchOptions, manifest.options, self.name)
        stem = model.resolve().name
        files = [f"{stem}.safetensors", f"{stem}.json"]
        for name in files:
            copy_in(model / name, folder, name)
        details: dict[str, Any] = {"torch": self.available().version}
        if options.compile:
            images = seeded_images(manifest, None)
            with (
                closing(_open(folder, stem, PyTorchOptions())) as eager,
                closing(_open(folder, stem, options)) as other,
            ):
                reference = "PyTorch in eager mode"
                found = compare("torch.compile", eager.run(images), other.run(images), manifest, model, reference)
            details["check"] = found
        return complete(folder, manifest, engine=self.name, files=files, details=details)

    def open(self, folder: Path, manifest: Manifest, threads: int) -> PyTorchSession:
        """Open the network with this many threads (a setting of the whole process in PyTorch)."""
        import torch

        torch.set_num_threads(threads)
        return _open(folder, Path(manifest.model).stem, parse(PyTorchOptions, manifest.options, self.name))


class PyTorchSession(Session):
    """A network in evaluation mode."""

    def __init__(self, network: Any, *, mode: str, size_bytes: int) -> None:
        self._network = network
        self._mode = mode
        self._size_bytes = size_bytes

    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """One inference. images: uint8 `[B, H, W, C]`. Returns probabilities, float32 `[B, classes]`."""
        import torch

        with torch.inference_mode():
            batch = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
            probabilities: NDArray[np.float32] = self._network(batch).softmax(dim=1).numpy()
        return probabilities

    def describe(self) -> dict[str, Any]:
        """Version, mode, threads, bytes."""
        import torch

        return {
            "torch": str(torch.__version__),
            "mode": self._mode,
            "threads": torch.get_num_threads(),
            "size_bytes": self._size_bytes,
        }

    def close(self) -> None:
        """Release the network."""
        self._network = None


def _open(folder: Path, stem: str, options: PyTorchOptions) -> PyTorchSession:
    """Raises Unavailable where torch.compile has no compiler, which torch would only say at the first inference."""
    import torch

    from kdeploy.models.storage import load_network

    if options.compile and not any(map(shutil.which, (os.environ.get("CXX", ""), *_COMPILERS))):
        raise Unavailable("compile: true needs a C++ compiler, and there is none: install g++, or leave compile out.")
    network, _ = load_network(folder, stem=stem)
    size_bytes = sum((folder / f"{stem}.{kind}").stat().st_size for kind in ("safetensors", "json"))
    mode = "compiled" if options.compile else "eager"
    ready = network.eval()
    return PyTorchSession(torch.compile(ready) if options.compile else ready, mode=mode, size_bytes=size_bytes)
