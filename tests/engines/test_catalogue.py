from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from kdeploy import engines
from kdeploy.engines.base import Availability
from kdeploy.engines.onnxruntime import OnnxRuntime
from kdeploy.errors import Unavailable, UserError
from tests.engines import models


def test_every_engine_is_found_under_its_own_name() -> None:
    assert engines.names() == ["onnxruntime", "openvino", "pytorch", "tensorrt"]
    for name in engines.names():
        assert engines.find(name).name == name


def test_every_engine_of_onnx_states_its_highest_opset_and_its_precisions() -> None:
    for engine in map(engines.find, engines.names()):
        assert (engine.highest_opset is None) == (engine.name == "pytorch")
        assert "float32" in engine.precisions
    assert "bfloat16" in engines.find("openvino").precisions
    assert "bfloat16" not in engines.find("onnxruntime").precisions


def test_an_unknown_engine_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no engine 'onnxruntme'\. Did you mean 'onnxruntime'\?"):
        engines.find("onnxruntme")


def test_base_is_not_an_engine() -> None:
    with pytest.raises(UserError, match="no engine 'base'"):
        engines.find("base")


def test_a_missing_runtime_says_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = models.build(tmp_path / "engine")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # import raises ImportError
    monkeypatch.setattr("kdeploy.machine.installed.onnxruntime_distributions", dict)
    with pytest.raises(Unavailable, match=r"onnxruntime can't be used here: .* Type: pip install onnxruntime$"):
        engines.open_engine(folder, threads=1)


def test_an_emptied_runtime_package_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", ModuleType("onnxruntime"))
    monkeypatch.setattr("kdeploy.machine.installed.onnxruntime_distributions", lambda: {"onnxruntime": "1.31.1"})
    found = OnnxRuntime().available()
    assert not found.ok
    assert found.install == "pip install --force-reinstall --no-deps onnxruntime==1.31.1"


def test_two_packages_of_one_runtime_are_noticed_with_the_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"onnxruntime": "1.31.1", "onnxruntime-openvino": "1.24.1"}
    monkeypatch.setattr("kdeploy.machine.installed.onnxruntime_distributions", lambda: both)
    repair = "pip uninstall -y onnxruntime onnxruntime-openvino && pip install --no-deps onnxruntime-openvino==1.24.1"
    with pytest.raises(Unavailable, match=rf"onnxruntime 1.31.1 and .* installed over each other: .* Type: {repair}$"):
        engines.require(OnnxRuntime())


def test_an_available_engine_gives_its_version() -> None:
    import onnxruntime

    assert OnnxRuntime().available() == Availability(ok=True, version=onnxruntime.__version__)
