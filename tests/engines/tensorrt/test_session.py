"""Opening and running a plan, against the double made from each version's real surface and an imitated CUDA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdeploy import engines
from kdeploy.errors import Unavailable, UserError
from tests.engines.tensorrt import uses
from tests.engines.tensorrt.world import World, build, expected, flags, images


def test_a_built_engine_runs_as_the_graph_says(world: World, version: str, tmp_path: Path) -> None:
    folder = build(tmp_path / "engine")
    assert (folder / "model.plan").read_bytes() == b"a plan"  # as TensorRT wrote it
    with engines.open_engine(folder, threads=1) as session:
        for count in (1, 5, 1, 8):
            given = images(count, seed=count)
            np.testing.assert_allclose(session.run(given), expected(folder, given), atol=1e-6)
        described = session.describe()
    assert described["tensorrt"] == version
    assert described["providers"] == ["TensorRT on Orin (compute capability 8.7)"]
    assert world.cuda.is_clean


def test_everything_recorded_was_derived_from_the_source(world: World, surface: dict[str, Any], tmp_path: Path) -> None:
    """The contract test looks at what the source says; this is what really happened."""
    asked = {"cuda_graph": True, "strip_weights": True, "workspace_mib": 64, "version_compatible": True}
    with engines.open_engine(build(tmp_path / "engine", **asked), threads=1) as session:
        session.run(images(2))
    engines.find("tensorrt").profile(tmp_path / "engine", engines.read_manifest(tmp_path / "engine"), 1, [images(2)], 8)
    derived = {use.name.removeprefix("tensorrt.") for use in uses.of_tensorrt(surface)}
    assert {name for name, _ in world.double.calls} <= derived


def test_a_plan_without_weights_takes_them_from_the_file_beside_it(world: World, tmp_path: Path) -> None:
    folder = build(tmp_path / "engine", strip_weights=True)
    assert flags(world) == {"STRIP_PLAN", "REFIT_IDENTICAL"}
    manifest_ = engines.read_manifest(folder)
    assert set(manifest_.files) == {"model.plan", "model.onnx"}
    world.state.clear()
    engines.open_engine(folder, threads=1).close()
    assert world.state["refitted"] == folder / "model.onnx"


def test_a_cuda_graph_is_recorded_once_a_shape(world: World, tmp_path: Path) -> None:
    folder = build(tmp_path / "engine", cuda_graph=True)
    with engines.open_engine(folder, threads=1) as session:
        for seed in range(3):
            given = images(2, seed)
            np.testing.assert_allclose(session.run(given), expected(folder, given), atol=1e-6)
        launched, copied = world.cuda.launches, world.cuda.copies
        given = images(4, 9)
        np.testing.assert_allclose(session.run(given), expected(folder, given), atol=1e-6)
        assert world.cuda.graphs == 1  # that of the shape before is gone
        session.run(given)
        assert world.cuda.launches == launched + 2
        assert world.cuda.copies == copied + 4  # two for the first run of the shape, two recorded
    assert world.cuda.is_clean


def test_the_profile_nearest_to_the_batch_is_taken(world: World, tmp_path: Path) -> None:
    world.profiles = ((1, 1, 4), (1, 8, 8))
    folder = build(tmp_path / "engine")
    with engines.open_engine(folder, threads=1) as session:
        for count in (1, 8, 4, 2):
            given = images(count)
            np.testing.assert_allclose(session.run(given), expected(folder, given), atol=1e-6)
    chosen = [index for index, _ in world.double.called("IExecutionContext.set_optimization_profile_async")]
    assert chosen == [1, 0]  # batch 4 is nearer to 1 than to 8 by a hair less: 3 against 4


def test_a_batch_outside_of_the_profiles_is_refused(world: World, tmp_path: Path) -> None:
    folder = build(tmp_path / "engine")
    with engines.open_engine(folder, threads=1) as session:
        with pytest.raises(UserError, match=r"input of \[9, 1, 8, 8\]; it takes batches of 1 to 8 of \[1, 8, 8\]"):
            session.run(images(9))
        given = images(3)
        np.testing.assert_allclose(session.run(given), expected(folder, given), atol=1e-6)
        with pytest.raises(ValueError, match="takes float32, not float64"):
            session.run(given[:2].astype(np.float64))


def test_an_answer_is_the_callers_own(world: World, tmp_path: Path) -> None:
    with engines.open_engine(build(tmp_path / "engine"), threads=1) as session:
        first = session.run(images(1))
        kept = first.copy()
        session.run(images(1, seed=1))
        np.testing.assert_array_equal(first, kept)


def test_a_plan_that_does_not_open_elsewhere_says_what_differs(world: World, version: str, tmp_path: Path) -> None:
    folder = build(tmp_path / "engine")
    world.error, world.cuda.name, world.cuda.capability = "Serialization assertion failed", b"Thor", (11, 0)
    with pytest.raises(UserError) as raised:
        engines.open_engine(folder, threads=1)
    text = str(raised.value)
    assert "Serialization assertion failed. It was built for another machine" in text
    assert "compute capability: built with 8.7, here 11.0; GPU: built with Orin, here Thor" in text
    assert "TensorRT: built" not in text
    assert "\n" not in text


def test_a_plan_that_opens_elsewhere_says_what_differs(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = build(tmp_path / "engine")
    world.double.module.__version__ = "99.1"  # type: ignore[attr-defined]
    engines.open_engine(folder, threads=1).close()
    assert "here 99.1); it may run slower than one that is built here" in caplog.text


def test_a_machine_without_a_gpu_is_told_in_cudas_words(world: World, tmp_path: Path) -> None:
    world.cuda.has_device = False
    with pytest.raises(Unavailable, match=r"cudaGetDevice failed: no CUDA-capable device is detected"):
        build(tmp_path / "engine")
