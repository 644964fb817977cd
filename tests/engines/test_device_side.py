from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_BLOCKED = ("torch", "torchvision", "onnx", "onnxruntime", "openvino", "tensorrt", "safetensors", "sklearn")


@pytest.mark.parametrize(
    "module",
    [
        "kdeploy.engines",
        "kdeploy.engines.onnxruntime",
        "kdeploy.engines.openvino",
        "kdeploy.engines.pytorch",
        "kdeploy.engines.tensorrt",
        "kdeploy.bench.statistics",
        "kdeploy.bench.artifacts",
        "kdeploy.bench.measure",
        "kdeploy.bench.child",
        "kdeploy.bench.profiling_child",
    ],
)
def test_imports_where_only_numpy_is_installed(module: str) -> None:
    program = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {_BLOCKED!r}:
            raise ImportError(name + " is not installed here")
sys.meta_path.insert(0, Refuse())
import {module}
from kdeploy import engines
for name in engines.names():
    found = engines.find(name).available()
    assert not found.ok and found.install, found
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_the_runtime_sends_no_telemetry(tmp_path: Path) -> None:
    """An ONNX Runtime with telemetry leaves the uploader's session file in the temporary folder."""
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "ORT_DISABLE_TELEMETRY")}
    program = "from kdeploy import engines; assert engines.find('onnxruntime').available().ok"
    subprocess.run([sys.executable, "-c", program], check=True, env={**environment, "TMPDIR": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []
