"""PyTorch in eager mode: the baseline of the tables, run as most people would run it. The one engine with torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kdeploy.engines._folder import complete, copy_in
from kdeploy.engines.base import Availability, Engine, Manifest, Session


class PyTorch(Engine):
    """PyTorch, eager, on the CPU."""

    name: ClassVar[str] = "pytorch"

    def available(self) -> Availability:
        """Whether `import torch` works. Never raises."""
        try:
            import torch
        except (ImportError, OSError) as error:  # OSError: a shared library of its is missing
            reason = f"Python can't import torch ({error})"
            return Availability(ok=False, reason=reason, install="pip install 'kdeploy[train]'")
        return Availability(ok=True, version=str(torch.__version__))

    def build(self, model: Path, folder: Path, manifest: Manifest) -> Manifest:
        """Copy the network of the folder `model` (`<folder>.safetensors` and `<folder>.json`) into `folder`."""
        stem = model.resolve().name
        files = [f"{stem}.safetensors", f"{stem}.json"]
        for name in files:
            copy_in(model / name, folder, name)
        return complete(folder, manifest, engine=self.name, files=files, details={"torch": self.available().version})

    def open(self, folder: Path, manifest: Manifest, threads: int) -> PyTorchSession:
        """Open the network with this many threads (a setting of the whole process in PyTorch)."""
        import torch

        from kdeploy.models.storage import load_network

        torch.set_num_threads(threads)
        network, _ = load_network(folder, stem=Path(manifest.model).stem)
        return PyTorchSession(network.eval())


class PyTorchSession(Session):
    """A network in evaluation mode."""

    def __init__(self, network: Any) -> None:
        self._network = network

    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """One inference. images: uint8 `[B, H, W, C]`. Returns probabilities, float32 `[B, classes]`."""
        import torch

        with torch.inference_mode():
            batch = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
            probabilities: NDArray[np.float32] = self._network(batch).softmax(dim=1).numpy()
        return probabilities

    def describe(self) -> dict[str, Any]:
        """Version, mode and threads."""
        import torch

        return {"torch": str(torch.__version__), "mode": "eager", "threads": torch.get_num_threads()}

    def close(self) -> None:
        """Release the network."""
        self._network = None
