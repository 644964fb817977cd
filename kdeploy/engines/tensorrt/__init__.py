"""TensorRT: builds on the device that it will run on, from a graph that carries its precision.

One precision path for all versions: the ONNX file says what is float16 and what is int8 (Q/DQ), and the network is
built strongly typed. After each build the engine inspector is read back, because a builder that ignores what it was
asked for says so in a log line at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from kdeploy import events
from kdeploy.engines._checks import match
from kdeploy.engines._profiling import timed_after_warm_up
from kdeploy.engines.base import Availability, Engine, Manifest, Profile, Session
from kdeploy.engines.tensorrt import trtexec, versions
from kdeploy.engines.tensorrt.options import Options, parse
from kdeploy.errors import Unavailable, UserError, install_command

__all__ = ["Options", "TensorRT", "highest_opset"]

_JETSON = Path("/etc/nv_tegra_release")


class TensorRT(Engine):
    """TensorRT 10.3 and later through its Python API; 8.5 and later through `trtexec`, where only that is there."""

    name: ClassVar[str] = "tensorrt"
    # Of 10.0 to 10.14, JetPack 6 among them; `highest_opset` tells it for one version: 17 for TensorRT 8.
    highest_opset: ClassVar[int | None] = 20
    options: ClassVar[type[Options]] = Options

    def available(self) -> Availability:
        """Whether TensorRT can build here: its Python API with cuda-python, else `trtexec`. Never raises."""
        why = _python_lacks()
        if why is None:
            import tensorrt

            return Availability(ok=True, version=str(tensorrt.__version__))
        tool = trtexec.find()
        if tool is not None:
            return Availability(ok=True, version=f"{versions.show(tool.version)} (trtexec)")
        return Availability(ok=False, reason=f"{why}, and there is no trtexec", install=_install())

    def build(self, model: Path, folder: Path, manifest: Manifest) -> Manifest:
        """Compile the ONNX file `model` for this GPU into `folder`, and prove it.

        The folder holds the plan as TensorRT wrote it (`model.plan`), what the engine inspector says of it
        (`layers.json`), and for a plan without weights the ONNX file that they come from. The manifest's details say
        for which TensorRT, GPU and driver it was built.

        Raises UserError for options and graphs that this version does not take, GateFailed where the layers are not
        in the manifest's precision or float32 outputs differ from the graph's by more than 1e-4 of their scale,
        Unavailable where what was asked for is not there. In other precisions a cosine similarity below 0.99 to the
        graph's outputs is a warning.
        """
        from kdeploy.engines.tensorrt import building

        asked = parse(manifest.options)
        tool = _tool(asked)
        return building.build(model, folder, manifest, asked, tool, _version(tool))

    def open(self, folder: Path, manifest: Manifest, threads: int) -> Session:
        """Open a built plan. `threads` changes nothing: the work is the GPU's.

        Raises Unavailable where the Python API is missing: `trtexec` starts a process for each run.
        """
        if why := _python_lacks():
            raise Unavailable(f"{folder}: opening a plan takes TensorRT's Python API: {why}. Type: {_install()}")
        from kdeploy.engines.tensorrt.session import open_plan

        asked = parse(manifest.options)
        session = open_plan(folder, manifest, asked, folder / "model.onnx" if asked.strip_weights else None)
        try:
            match(session.input_name, str(session.input_dtype), manifest, folder / manifest.model)
        except UserError:
            session.close()
            raise
        return session

    def profile(
        self, folder: Path, manifest: Manifest, threads: int, inputs: Sequence[NDArray[Any]], calls: int
    ) -> Profile:
        """Times by layer from TensorRT's profiler, through the Python API, else `trtexec`; see `Engine.profile`."""
        from kdeploy.engines.tensorrt import profiling

        asked = parse(manifest.options)
        if _python_lacks() is None:
            with closing(self.open(folder, manifest, threads)) as session:
                plain = timed_after_warm_up(session.run, inputs, calls)
            weights = folder / "model.onnx" if asked.strip_weights else None
            return profiling.with_python(folder / manifest.model, asked, weights, inputs, calls, plain)
        return profiling.with_trtexec(trtexec.require(), folder, manifest, asked, inputs, calls)


def highest_opset(version: str | None = None) -> int:
    """The highest opset that this version ("8.5.2"), or the TensorRT of this machine, reads.

    Raises Unavailable where neither is known.
    """
    return versions.highest_opset(versions.parse(version) if version else _version(_tool(Options())))


def _tool(options: Options) -> trtexec.Trtexec | None:
    """The `trtexec` to build with, None for the Python API."""
    if options.builder == "trtexec":
        return trtexec.require()
    why = _python_lacks()
    if why is None:
        return None
    found = trtexec.find() if options.builder == "auto" else None
    if found is None:
        raise Unavailable(f"TensorRT can't build here: {why}. Type: {_install()}")
    events.decided("TensorRT's builder", f"trtexec {versions.show(found.version)}", why)
    return found


def _version(tool: trtexec.Trtexec | None) -> versions.Version:
    if tool is not None:
        return tool.version
    import tensorrt

    return versions.parse(tensorrt.__version__)


def _python_lacks() -> str | None:
    """Why the Python API can't be used, None where it can."""
    for module, name in (("tensorrt", "tensorrt"), ("cuda.bindings.runtime", "cuda-python")):
        try:
            __import__(module)
        except (ImportError, OSError) as error:  # OSError: a shared library of its is missing
            return f"Python can't import {name} ({error})"
    return None


def _install() -> str:
    if _JETSON.is_file():
        return (
            "sudo apt install python3-libnvinfer, make the environment with python3 -m venv --system-site-packages, "
            "then pip install 'cuda-python>=12.8,<13'"
        )
    return install_command("tensorrt")
