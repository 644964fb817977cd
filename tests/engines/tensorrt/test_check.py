"""The one command for whoever has a Jetson, run here against the double: no check of its own is broken."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from kdeploy.bench.timing import Samples
from tests.engines.tensorrt.world import install

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "tensorrt_check.py"
ONLY_ON_A_MACHINE = {"DLA core 0", "DLA core 1", "trtexec is there"}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    specification = importlib.util.spec_from_file_location("tensorrt_check", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "tensorrt_check", module)
    monkeypatch.syspath_prepend(SCRIPT.parent)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize("version", ["10.3.0", "11.4.0"], scope="session")
def test_every_check_passes_where_tensorrt_does_as_it_should(
    script: ModuleType, surface: dict[str, Any], version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDEPLOY_CACHE", str(tmp_path / "cache"))
    world = install(monkeypatch, surface, version)
    world.profiles = ((1, 1, 250), (1, 16, 16))
    world.double.answers["Builder.num_DLA_cores"] = 0
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(script, "measure_calls", lambda run, inputs, **_: _brief(run, inputs))
    monkeypatch.setattr(sys, "argv", ["tensorrt_check.py", "--out", str(tmp_path / "out.json")])
    status = script.main()
    rows = {row["name"]: row for row in json.loads((tmp_path / "out.json").read_text())["rows"]}
    assert {name: row["why"] for name, row in rows.items() if row["outcome"] == "failed"} == {}
    assert {name for name, row in rows.items() if row["outcome"] == "not here"} == ONLY_ON_A_MACHINE
    assert len(rows) == 16
    assert rows["python float16"]["figures"]["operators"] == {"float16": {"Conv": 5}}
    assert rows["python int8"]["figures"]["latency_ms"]["count"] == 20
    assert status == 0
    assert world.cuda.is_clean


@pytest.mark.parametrize("version", ["10.3.0"], scope="session")
def test_a_wrong_tensorrt_fails_the_checks(
    script: ModuleType, surface: dict[str, Any], version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDEPLOY_CACHE", str(tmp_path / "cache"))
    world = install(monkeypatch, surface, version)
    world.precisions = ("float32",) * 5
    monkeypatch.setenv("PATH", str(tmp_path))
    checks = script.Checks(tmp_path, seconds=0)
    monkeypatch.setattr(script, "measure_calls", lambda run, inputs, **_: _brief(run, inputs))
    checks.each_precision("python")
    assert [row.outcome for row in checks.rows] == ["passed", "failed", "failed"]
    assert "asked for int8, TensorRT built an engine with 0 layers in int8" in checks.rows[2].why


def test_without_tensorrt_it_says_what_installs_it(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(sys, "argv", ["tensorrt_check.py"])
    assert script.main() == 5
    assert "Type: pip install 'kdeploy[tensorrt]'" in capsys.readouterr().err


def _brief(run: Any, inputs: list[Any]) -> Samples:
    """Twenty calls instead of seconds of them."""
    for index in range(20):
        run(inputs[index % len(inputs)])
    return Samples(np.full(20, 1_000_000), warmup_count=0, duration_s=0.02)
