"""What is installed beside kdeploy and what it can do here. Gathers facts for `doctor`; judges nothing.

The heavy packages are imported inside the functions, and only where they are installed.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

_ONNXRUNTIMES = (
    "onnxruntime",
    "onnxruntime-azure",
    "onnxruntime-cann",
    "onnxruntime-directml",
    "onnxruntime-gpu",
    "onnxruntime-migraphx",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-rocm",
    "onnxruntime-silicon",
    "onnxruntime-training",
    "onnxruntime-vitisai",
    "onnxruntime-webgpu",
    "ort-nightly",
    "ort-nightly-gpu",
)
"""By name, because asking each installed distribution for what it brings takes seconds."""


@dataclass(frozen=True)
class OnnxRuntime:
    """ONNX Runtime as imported."""

    version: str
    providers: tuple[str, ...]
    """Execution providers compiled into it; a provider may still find no device or library when it is asked for."""


@dataclass(frozen=True)
class Torch:
    """torch as imported."""

    version: str
    cuda_build: str | None
    """CUDA version that it was built for, None for a CPU-only build."""
    gpus: tuple[str, ...]
    """Name, compute capability and memory of each GPU that it can use."""
    nvidia_driver: bool
    """An NVIDIA kernel driver is loaded on this machine."""
    torchvision: str | None
    torchvision_error: str | None
    """Why torchvision's compiled part does not load; None where it does."""


def onnxruntime_distributions() -> dict[str, str]:
    """Name and version of each installed distribution that brings a package called `onnxruntime`.

    There are many (`onnxruntime-gpu`, `onnxruntime-openvino`, ...), all with the same files: the last one wins.
    """
    found = {}
    for name in _ONNXRUNTIMES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.distribution(name)
    if len(found) > 1:  # some have become providers that are loaded into `onnxruntime`, and bring files of their own
        found = {name: one for name, one in found.items() if _brings(one, "onnxruntime")}
    return {name: one.version for name, one in found.items()}


def onnxruntime_clash(distributions: Mapping[str, str]) -> tuple[str, str] | None:
    """What is wrong where several ONNX Runtimes are installed, and the command that puts it right; None: all is well.

    distributions: what `onnxruntime_distributions` found.
    """
    if len(distributions) < 2:
        return None
    listed = " and ".join(f"{name} {version}" for name, version in distributions.items())
    # The plain one came with kdeploy; whoever installed another wanted that one.
    kept = next(name for name in sorted(distributions, key=lambda name: (name == "onnxruntime", name)))
    return (
        f"{listed} are installed over each other: they bring the same files, and the last one won",
        f"pip uninstall -y {' '.join(distributions)} && pip install --no-deps {kept}=={distributions[kept]}",
    )


def onnxruntime_again(distributions: Mapping[str, str]) -> str:
    """The command that installs ONNX Runtime, or what is installed of it once more."""
    for name, version in distributions.items():
        return f"pip install --force-reinstall --no-deps {name}=={version}"
    return "pip install onnxruntime"


def onnxruntime() -> OnnxRuntime | str:
    """ONNX Runtime's version and execution providers, or the sentence with which its import failed."""
    try:
        import onnxruntime as ort

        return OnnxRuntime(str(ort.__version__), tuple(ort.get_available_providers()))
    except Exception as error:  # a broken native library may raise anything
        return _sentence(error)


def torch() -> Torch | str | None:
    """torch's version and devices; None where it is not installed; the sentence with which its import failed."""
    if importlib.util.find_spec("torch") is None:
        return None
    try:
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        properties = [torch.cuda.get_device_properties(index) for index in range(count)]
    except Exception as error:  # as above
        return _sentence(error)
    version, vision_error = _torchvision()
    return Torch(
        version=str(torch.__version__),
        cuda_build=torch.version.cuda,
        gpus=tuple(
            f"{gpu.name} (compute capability {gpu.major}.{gpu.minor}, {gpu.total_memory / 2**30:.0f} GiB)"
            for gpu in properties
        ),
        nvidia_driver=Path("/proc/driver/nvidia/version").exists(),
        torchvision=version,
        torchvision_error=vision_error,
    )


def _brings(distribution: metadata.Distribution, package: str) -> bool:
    """Whether a distribution has files in this package; one that keeps no list of its files is taken to."""
    files = distribution.files
    return files is None or any(file.parts[0] == package for file in files)


def missing_by_extra(requires: Iterable[str], own_name: str = "kdeploy") -> dict[str, list[str]]:
    """The packages of each extra that are not installed, from a distribution's `Requires-Dist` lines.

    An extra that is part of another (`kdeploy[onnx]` in `train`) is listed under its own name only.
    """
    missing: dict[str, list[str]] = {}
    for line in requires:
        extra = re.search(r"extra == ['\"]([\w.-]+)['\"]", line)
        name = re.match(r"[\w.-]+", line)
        if extra is None or name is None or name.group() == own_name:
            continue
        absent = missing.setdefault(extra.group(1), [])
        try:
            metadata.version(name.group())
        except metadata.PackageNotFoundError:
            absent.append(name.group())
    return missing


def own_requirements() -> list[str]:
    """kdeploy's `Requires-Dist` lines; none where it runs from a folder without being installed."""
    try:
        return metadata.requires("kdeploy") or []
    except metadata.PackageNotFoundError:
        return []


def _torchvision() -> tuple[str | None, str | None]:
    """torchvision's version, and why its compiled part does not load. Called after torch was imported.

    The library is loaded by itself: `import torchvision` fails halfway where it does not fit torch.
    """
    specification = importlib.util.find_spec("torchvision")
    if specification is None or specification.origin is None:
        return None, None
    version = metadata.version("torchvision")
    libraries = sorted(Path(specification.origin).parent.glob("_C*.so"))
    if not libraries:
        return version, "it has no compiled part"
    try:
        ctypes.CDLL(str(libraries[0]))
    except OSError as error:
        return version, _sentence(error)
    return version, None


def _sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
