"""The real thing, wherever TensorRT and a GPU are there. `benchmarks/tensorrt_check.py` does more, and times it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdeploy import engines
from kdeploy.engines.onnxruntime import OnnxRuntime
from kdeploy.engines.tensorrt import TensorRT, cuda, trtexec
from kdeploy.errors import KdeployError
from tests.engines.tensorrt import graphs
from tests.engines.tensorrt.world import manifest

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


@pytest.fixture(autouse=True)
def _needs_a_gpu() -> None:
    pytest.importorskip("tensorrt")
    try:
        cuda.device()
    except KdeployError as error:
        pytest.skip(str(error))


def check(folder: Path, model: Path, tolerance: float) -> None:
    """Batches of several sizes, against ONNX Runtime without optimisations."""
    with engines.open_engine(folder, threads=1) as session, OnnxRuntime().open_reference(model) as reference:
        for count in (1, 4, 1, 7):
            given = np.random.default_rng(count).standard_normal((count, 1, 8, 8)).astype(np.float32)
            expected = reference.run(given)
            assert np.abs(session.run(given) - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("builder", ["python", "trtexec"])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("float16", 2e-2), ("int8", 1e-1)])
def test_each_precision_is_built_proved_and_run(builder: str, precision: str, tolerance: float, tmp_path: Path) -> None:
    if builder == "trtexec" and trtexec.find() is None:
        pytest.skip("there is no trtexec here")
    model = graphs.save(tmp_path / "model.onnx", precision)
    built = TensorRT().build(model, tmp_path / "engine", manifest(precision, options={"builder": builder}))
    assert built.details["operators"][precision]
    check(tmp_path / "engine", model, tolerance)


@pytest.mark.parametrize(
    "options",
    [
        {"cuda_graph": True},
        {"profiles": [{"max": 4}, {"min": 1, "opt": 8, "max": 8}]},
        {"strip_weights": True},
        {"refit": True},
        {"version_compatible": True},
        {"builder_optimization_level": 5, "workspace_mib": 64},
    ],
    ids=lambda options: next(iter(options)),
)
def test_each_option_leaves_the_answers(options: dict[str, Any], tmp_path: Path) -> None:
    model = graphs.save(tmp_path / "model.onnx")
    TensorRT().build(model, tmp_path / "engine", manifest(options=options))
    check(tmp_path / "engine", model, 1e-4)
