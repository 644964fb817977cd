"""The real surface of each version of TensorRT that counts, from its binding wheel on the package index.

The wheels are about 1 MB. They hold one extension module each, which needs `libnvinfer`, `libnvonnxparser` and
`libnvinfer_plugin`: libraries of these names that export the few entry points it imports are compiled here, and that is
enough to load it and look at it. Nothing of TensorRT itself runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from kdeploy import caches
from tests.engines.tensorrt import dump

WHEELS = {
    "10.3.0": ("tensorrt-cu12-bindings", "10.3.0"),  # JetPack 6.1 and 6.2
    "10.16.1": ("tensorrt-cu12-bindings", "10.16.1.11"),
    "11.4.0": ("tensorrt-cu13-bindings", "11.4.0.106"),
}
LAST_PYTHON = {"10.3.0": (3, 12), "10.16.1": (3, 13), "11.4.0": (3, 14)}
"""Up to which Python there are wheels of each."""
CUDA_WHEELS = {"12": ("cuda-bindings", "12.9.4"), "13": ("cuda-bindings", "13.0.3")}
_STUBS = ("nvinfer", "nvonnxparser", "nvinfer_plugin")


def tensorrt_surface(version: str, cache: Path) -> dict[str, Any]:
    """What the extension module of this version offers (`dump.surface`), from the cache where it is there."""
    folder = cache / f"tensorrt-{version}-{sys.implementation.cache_tag}-{_state(dump.__file__, __file__)}"
    caches.keep(folder, lambda empty: _dump(version, empty))
    found: dict[str, Any] = json.loads((folder / "surface.json").read_text())
    assert found["version"].startswith(version)  # where our code reads it: `tensorrt.__version__`
    surface: dict[str, Any] = found["surface"]
    return surface


def why_none(version: str) -> str | None:
    """Why there is no wheel for this interpreter, None where there is one."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return "the wheels are for Linux on x86-64"
    last = LAST_PYTHON[version]
    return None if sys.version_info[:2] <= last else f"TensorRT {version} has no wheel after Python {last[0]}.{last[1]}"


def cuda_package(version: str, cache: Path) -> Path:
    """A folder that holds cuda-python's bindings of this version, to be put on a child's path."""
    folder = cache / f"cuda-{version}-{sys.implementation.cache_tag}"

    def make(empty: Path) -> None:
        for name, number in (CUDA_WHEELS[version], ("cuda-pathfinder", "1.3.2")):
            _unpack(name, number, empty)

    caches.keep(folder, make)
    return folder


def _dump(version: str, folder: Path) -> None:
    _unpack(*WHEELS[version], folder)
    (module,) = folder.rglob("tensorrt.so")
    _compile_stubs(module, folder, version.split(".")[0])
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-W", "error", dump.__file__, str(module)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = re.search(r'^__version__ = "(.+)"', (module.parent / "__init__.py").read_text(), re.MULTILINE)
    assert found is not None, "the package says no version"
    (folder / "surface.json").write_text(json.dumps({"version": found[1], "surface": json.loads(done.stdout)}))


def _unpack(name: str, number: str, folder: Path) -> None:
    """Download a wheel from the package index and unpack it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run([*command, "--dest", str(folder), f"{name}=={number}"], capture_output=True, text=True)
    assert done.returncode == 0, f"{name} {number} can't be had from the package index:\n{done.stderr}"
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    wheel.unlink()


def _compile_stubs(module: Path, folder: Path, major: str) -> None:
    """Compile the three libraries; each exports every entry point that the module leaves undefined."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler, "the contract test needs a C compiler (apt install gcc)"
    listed = subprocess.run(
        ["nm", "-D", "--undefined-only", str(module)], capture_output=True, text=True, check=True
    ).stdout
    symbols = [line.split()[-1].partition("@")[0] for line in listed.splitlines()]
    wanted = [name for name in symbols if name.endswith("_INTERNAL") or "Plugin" in name or "OnnxParser" in name]
    assert "createInferBuilder_INTERNAL" in wanted
    source = folder / "stub.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in wanted))
    for library in _STUBS:
        target = f"lib{library}.so.{major}"
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{target}", "-o", str(folder / target), str(source)]
        subprocess.run(command, check=True)


def _state(*paths: str) -> str:
    return hashlib.sha256(b"".join(Path(path).read_bytes() for path in paths)).hexdigest()[:12]
