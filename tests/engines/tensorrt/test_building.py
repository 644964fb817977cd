"""Building through TensorRT's Python API, against the double made from each version's real surface."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kdeploy import engines, events
from kdeploy.caches import cache_folder
from kdeploy.engines.tensorrt import TensorRT
from kdeploy.errors import GateFailed, Unavailable, UserError
from tests.engines.tensorrt import graphs
from tests.engines.tensorrt.world import World, build, flags, manifest


def test_the_manifest_says_for_what_it_was_built(world: World, version: str, tmp_path: Path) -> None:
    details = engines.read_manifest(build(tmp_path / "engine")).details
    assert details["tensorrt"] == version
    assert details["builder"] == "python"
    assert details["machine"] | {"driver": None} == {
        "tensorrt": version, "compute_capability": "8.7", "gpu": "Orin", "driver": None,
    }  # fmt: skip
    assert details["layers"] == 3
    assert details["operators"] == {"float32": {"Conv": 2}}
    assert details["check"]["max_relative_difference"] < 1e-6


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_precision_is_the_graphs_and_strongly_typed(precision: str, world: World, version: str, tmp_path: Path) -> None:
    build(tmp_path / "engine", precision)
    ((network_flags,),) = world.double.called("Builder.create_network")
    strongly_typed = world.double.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    assert network_flags == (0 if version.startswith("11.") else 1 << int(strongly_typed))
    assert flags(world) == set()
    cleared = [flag.name for (flag,) in world.double.called("IBuilderConfig.clear_flag")]
    assert cleared == ["TF32"]


def test_options_reach_the_builder(world: World, tmp_path: Path) -> None:
    build(
        tmp_path / "engine",
        workspace_mib=64,
        builder_optimization_level=5,
        refit=True,
        strip_weights=True,
        version_compatible=True,
        exclude_lean_runtime=True,
        hardware_compatibility="ampere+",
        profiles=[{"min": 1, "opt": 2, "max": 4}, {"min": 5, "opt": 8, "max": 8}],
    )
    called = world.double.called
    assert flags(world) == {"REFIT", "STRIP_PLAN", "VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME"}
    assert [size for _, size in called("IBuilderConfig.set_memory_pool_limit")] == [64 << 20]
    assert called("IBuilderConfig.builder_optimization_level") == [(5,)]
    assert called("IBuilderConfig.hardware_compatibility_level")[0][0].name == "AMPERE_PLUS"
    assert called("IBuilderConfig.profiling_verbosity")[0][0].name == "DETAILED"
    shapes = [(name, [shape[0] for shape in batches]) for name, *batches in called("IOptimizationProfile.set_shape")]
    assert shapes == [("image", [1, 2, 4]), ("image", [5, 8, 8])]
    assert len(called("IBuilderConfig.add_optimization_profile")) == 2
    assert called("Runtime.engine_host_code_allowed") == [(True,)]


def test_hardware_compatibility_that_a_version_lacks_is_named(world: World, version: str, tmp_path: Path) -> None:
    if version == "10.3.0":
        with pytest.raises(UserError, match=r"TensorRT 10\.3\.0 has no .*same-compute-capability; it has ampere\+"):
            build(tmp_path / "engine", hardware_compatibility="same-compute-capability")
    else:
        build(tmp_path / "engine", hardware_compatibility="same-compute-capability")
        (level,) = world.double.called("IBuilderConfig.hardware_compatibility_level")
        assert level[0].name == "SAME_COMPUTE_CAPABILITY"


def test_a_layer_in_another_precision_is_an_error(world: World, tmp_path: Path) -> None:
    world.precisions = ("float16", "float32")
    with pytest.raises(
        GateFailed, match=r"asked for float16, .* 1 layers in float16 and 1 in float32 \(such as head\)"
    ):
        build(tmp_path / "engine", "float16")
    assert not (tmp_path / "engine" / "model.plan").exists()
    assert not (tmp_path / "engine" / "manifest.json").exists()
    build(tmp_path / "engine", "float16", precision_share=0.5)


def test_a_float32_engine_is_not_passed_off_as_float16(world: World, tmp_path: Path) -> None:
    world.precisions = ("float32", "float32", "float32")
    with pytest.raises(GateFailed, match="asked for float16, TensorRT built an engine with 0 layers in float16"):
        build(tmp_path / "engine", "float16", precision_share=0.01)


def test_a_graph_without_the_precision_is_refused_before_the_build(world: World, tmp_path: Path) -> None:
    model = graphs.save(tmp_path / "model.onnx", "float32")
    with pytest.raises(UserError, match=r"float16 is asked for, but .* none is float16 \(2 in float32\)"):
        TensorRT().build(model, tmp_path / "engine", manifest("float16"))
    assert world.double.calls == []


def test_outputs_that_differ_from_the_graph_fail_the_gate(world: World, tmp_path: Path) -> None:
    world.factor = 1.01
    with pytest.raises(GateFailed, match="TensorRT's outputs differ from the graph's"):
        build(tmp_path / "engine")
    assert not (tmp_path / "engine" / "manifest.json").exists()


def test_other_precisions_that_differ_are_a_warning(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world.factor = -1
    build(tmp_path / "engine", "int8")
    assert "TensorRT's int8 outputs differ from the graph's (cosine similarity -1.0000" in caplog.text


def test_a_graph_that_tensorrt_cannot_read_gives_its_reason(world: World, tmp_path: Path) -> None:
    world.parses = False
    with pytest.raises(UserError, match=r"can't read .*: Unsupported operator GridSample \(at Conv 'stem'\)\.$"):
        build(tmp_path / "engine")


def test_a_failed_build_gives_tensorrts_first_error(world: World, tmp_path: Path) -> None:
    world.error = "Error Code 2: OutOfMemory\n(no further information)"
    with pytest.raises(UserError, match=r"can't build .*: Error Code 2: OutOfMemory \(no further information\)\.$"):
        build(tmp_path / "engine")
    assert not (tmp_path / "engine" / "model.plan").exists()


def test_timings_are_kept_for_the_next_build(world: World, version: str, tmp_path: Path) -> None:
    build(tmp_path / "first")
    (kept,) = cache_folder("tensorrt-timings").glob(f"{version}-Orin-sm8.7/timing.cache")
    assert kept.read_bytes() == b"timings"
    build(tmp_path / "second")
    assert world.double.called("IBuilderConfig.create_timing_cache") == [(b"",), (b"timings",)]
    kept.unlink()
    build(tmp_path / "third", timing_cache=False)
    assert not kept.exists()


def test_timings_that_are_not_taken_are_said(world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    world.double.answers["IBuilderConfig.set_timing_cache"] = lambda _, cache, ignore: False
    build(tmp_path / "engine")
    assert "TensorRT does not take the timings in" in caplog.text


class Heard:
    """A listener that keeps the bar's steps, and may be interrupted."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.heard: list[tuple[int, dict[str, Any]]] = []
        self.tasks: list[tuple[str, int | None]] = []
        self.fail_at = fail_at

    def decided(self, what: str, value: str, why: str) -> None: ...
    def warned(self, text: str) -> None: ...
    def said(self, text: str) -> None: ...

    @contextmanager
    def task(self, description: str, total: int | None) -> Iterator[Heard]:
        self.tasks.append((description, total))
        yield self

    def advance(self, steps: int = 1, **figures: float | str) -> None:
        if len(self.heard) == self.fail_at:
            raise KeyboardInterrupt
        self.heard.append((steps, figures))


def test_progress_is_one_bar_with_the_phase_under_way(world: World, tmp_path: Path) -> None:
    listener = Heard()
    with events.listening(listener):
        build(tmp_path / "engine")
    assert ("TensorRT builds model.plan", 2) in listener.tasks
    assert (0, {"phase": "Timing graph nodes 2/3"}) in listener.heard
    assert [steps for steps, figures in listener.heard if not figures] == [1, 1]


def test_an_interrupt_ends_the_build(world: World, tmp_path: Path) -> None:
    """An exception cannot pass through the builder: it is told to stop, and the exception comes after."""
    with events.listening(Heard(fail_at=1)), pytest.raises(KeyboardInterrupt):
        build(tmp_path / "engine")
    assert world.state["continued"][0] is False
    assert not (tmp_path / "engine" / "model.plan").exists()


DLA_LOG = (
    "---------- Layers Running on DLA ----------",
    "[DlaLayer] {ForeignNode[stem.../Relu]}",
    "---------- Layers Running on GPU ----------",
    "[GpuLayer] MATRIX_MULTIPLY: head",
)


def test_a_dla_with_fallback_reports_its_coverage(world: World, version: str, tmp_path: Path) -> None:
    world.log, world.precisions = DLA_LOG, ("float16",)
    if version == "10.3.0":
        details = engines.read_manifest(build(tmp_path / "engine", "float16", dla_core=1)).details
        assert details["dla"] == {
            "dla_parts": ["stem.../Relu"], "gpu_layers": ["MATRIX_MULTIPLY: head"], "dla_share": 0.5,
        }  # fmt: skip
        assert flags(world) == {"GPU_FALLBACK", "FP16"}  # in 10 a DLA is not strongly typed
        assert world.double.called("Builder.create_network") == [(0,)]
        assert world.double.called("IBuilderConfig.DLA_core") == [(1,)]
        with pytest.raises(UserError, match="A DLA computes in float16 and int8"):
            build(tmp_path / "other", dla_core=0)
        with pytest.raises(Unavailable, match=r"no DLA core 5 here; TensorRT finds 2"):
            build(tmp_path / "other", "float16", dla_core=5)
    else:
        with pytest.raises(Unavailable, match=rf"TensorRT {version} builds for no DLA; versions up to 10\.7 do"):
            build(tmp_path / "engine", "float16", dla_core=0)


def test_a_dla_that_took_nothing_is_said(
    world: World, version: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if version == "10.3.0":
        world.log = DLA_LOG[2:]
        build(tmp_path / "engine", "int8", dla_core=0)
        assert "a DLA was asked for, and TensorRT put no layer on it" in caplog.text
        assert flags(world) == {"GPU_FALLBACK", "FP16", "INT8"}


def test_open_height_and_width_are_refused(world: World, tmp_path: Path) -> None:
    import onnx

    path = graphs.save(tmp_path / "model.onnx")
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    onnx.save(model, path)
    with pytest.raises(UserError, match=r"open: \[\?, 1, \?, 8\]. Only the batch may be"):
        TensorRT().build(path, tmp_path / "engine", manifest())


def test_an_opset_that_is_too_high_is_refused(world: World, version: str, tmp_path: Path) -> None:
    highest = 20 if version == "10.3.0" else 24
    model = graphs.save(tmp_path / "model.onnx", opset=highest + 1)
    with pytest.raises(UserError, match=rf"is of opset {highest + 1}, and TensorRT {version} reads up to {highest}"):
        TensorRT().build(model, tmp_path / "engine", manifest())
