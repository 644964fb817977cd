from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdeploy import engines
from kdeploy.engines import onnxruntime as room
from kdeploy.engines._onnxruntime_options import OnnxRuntimeOptions
from kdeploy.engines._onnxruntime_session import Opening
from kdeploy.engines._options import parse
from kdeploy.engines._providers import PROVIDERS, Provider
from kdeploy.engines.onnxruntime import MINIMAL_BUILD, MODEL, ORT_MODEL, OnnxRuntime
from kdeploy.errors import Unavailable, UserError
from tests.engines import models

_CPU = "CPUExecutionProvider"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return models.save_classifier(tmp_path / "source.onnx")


def build(source: Path, folder: Path, **options: Any) -> Path:
    OnnxRuntime().build(source, folder, models.manifest(options=options))
    return folder


def described(folder: Path, threads: int = 1) -> dict[str, Any]:
    with engines.open_engine(folder, threads=threads) as session:
        return session.describe()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"spining": True}, r"The engine onnxruntime has no option 'spining'. Did you mean 'spinning'\?"),
        ({"spinning": "no"}, "The option spinning of the engine onnxruntime: Input should be a valid boolean."),
        ({"graph": "saved"}, "The option graph of the engine onnxruntime: .*'exported', 'optimised' or 'ort'."),
        ({"inter_op_threads": 0}, "inter_op_threads of the engine onnxruntime: .* greater than or equal to 1"),
        ({"affinity": "one"}, "'one' must be processors by worker, such as 2;3 or 2-3;4"),
        ({"affinity": "0"}, "'0' names a processor 0, and they are numbered from 1"),
        ({"provider": "openvno"}, "there is no execution provider 'openvno'. Did you mean 'openvino'"),
        ({"provider_options": {"device_id": 0}}, f"^{_CPU} has no option 'device_id'. It has none.$"),
        ({"provider": "openvino", "graph": "ort"}, "optimised offline for the CPU, not for openvino"),
    ],
)
def test_a_wrong_option_is_named(options: Mapping[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        engines.check("onnxruntime", "float32", options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("provider", "options", "sentence"),
    [
        (
            "cuda",
            {"gpu_mem_limi": 1},
            "CUDAExecutionProvider has no option 'gpu_mem_limi'. Did you mean 'gpu_mem_limit'",
        ),
        ("cuda", {"gpu_mem_limit": "2 GB"}, "takes a number from 0 as gpu_mem_limit, not '2 GB'"),
        ("cuda", {"gpu_mem_limit": True}, "takes a number from 0 as gpu_mem_limit, not True"),
        ("cuda", {"arena_extend_strategy": "x"}, "one of kNextPowerOfTwo, kSameAsRequested as arena_extend_strategy"),
        ("tensorrt", {"trt_dla_enable": 1}, "takes true or false as trt_dla_enable, not 1"),
        ("tensorrt", {"trt_engine_cache_path": ""}, "takes text as trt_engine_cache_path, not ''"),
        ("openvino", {"precision": "FP16"}, "OpenVINOExecutionProvider has no option 'precision'"),
        (
            "xnnpack",
            {"threads": 2},
            "XnnpackExecutionProvider has no option 'threads'. Choose from: intra_op_num_threads",
        ),
        ("acl", {"enable_fast_math": True}, "ACLExecutionProvider has no option 'enable_fast_math'. It has none"),
        ("qnn", {"htp_performance_mode": "fast"}, "takes one of burst, .* as htp_performance_mode, not 'fast'"),
        ("coreml", {"ModelFormat": "mlprogram"}, "takes one of MLProgram, NeuralNetwork as ModelFormat"),
    ],
)
def test_a_wrong_option_of_a_provider_is_named(provider: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        engines.check("onnxruntime", "float32", {"provider": provider, "provider_options": options})


@pytest.mark.parametrize(
    ("provider", "options", "precision", "told"),
    [
        ("cpu", {}, "int8", {}),
        ("cuda", {"prefer_nhwc": True}, "float32", {"prefer_nhwc": "1", "use_tf32": "0"}),
        ("tensorrt", {"device_id": 1}, "float16", {"device_id": "1", "trt_fp16_enable": "1"}),
        ("tensorrt", {}, "float32", {}),
        (
            "openvino",
            {"disable_dynamic_shapes": False},
            "float32",
            {"disable_dynamic_shapes": "false", "num_of_threads": "3", "precision": "ACCURACY"},
        ),
        ("openvino", {"num_of_threads": 2}, "int8", {"num_of_threads": "2", "precision": "ACCURACY"}),
        ("xnnpack", {}, "float32", {"intra_op_num_threads": "3"}),
        ("acl", {}, "float32", {"enable_fast_math": "false"}),
        ("qnn", {"backend_type": "htp"}, "float32", {"backend_type": "htp", "enable_htp_fp16_precision": "0"}),
        ("coreml", {}, "float32", {"AllowLowPrecisionAccumulationOnGPU": "0"}),
    ],
)
def test_a_provider_is_told_its_options_threads_and_precision(
    provider: str, options: dict[str, Any], precision: Any, told: dict[str, str]
) -> None:
    engines.check("onnxruntime", precision, {"provider": provider, "provider_options": options})
    assert PROVIDERS[provider].spell(options, precision, threads=3) == told


def test_options_reach_the_session() -> None:
    import onnxruntime

    given = {"spinning": False, "arena": False, "memory_pattern": False, "inter_op_threads": 2, "affinity": "1"}
    made = parse(OnnxRuntimeOptions, given, "onnxruntime").session_options(2, optimisation="extended")
    assert made.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert made.get_session_config_entry("session.intra_op_thread_affinities") == "1"
    assert (made.enable_cpu_mem_arena, made.enable_mem_pattern) == (False, False)
    assert (made.intra_op_num_threads, made.inter_op_num_threads) == (2, 2)
    assert made.execution_mode == onnxruntime.ExecutionMode.ORT_PARALLEL
    assert made.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED


def test_xnnpack_has_its_threads_to_itself() -> None:
    assert OnnxRuntimeOptions(provider="xnnpack").session_options(4, optimisation="all").intra_op_num_threads == 1


def test_options_are_in_the_manifest_and_in_use(source: Path, tmp_path: Path) -> None:
    folder = build(source, tmp_path / "engine", spinning=False, arena=False)
    assert engines.read_manifest(folder).options == {"spinning": False, "arena": False}
    found = described(folder, threads=2)
    assert (found["spinning"], found["options"]["arena"], found["options"]["graph"]) == (False, False, "exported")


def test_an_affinity_for_other_threads_is_refused(source: Path, tmp_path: Path) -> None:
    folder = build(source, tmp_path / "engine", affinity="1")
    assert described(folder, threads=2)["options"]["affinity"] == "1"
    with pytest.raises(UserError, match="'1' names processors for 1 workers, and 1 threads have 0"):
        engines.open_engine(folder, threads=1)


@pytest.mark.parametrize("graph", ["optimised", "ort"])
@pytest.mark.parametrize("quantised", [False, True])
def test_a_graph_optimised_at_build_answers_as_numpy_does(tmp_path: Path, graph: str, quantised: bool) -> None:
    save = models.save_quantised if quantised else models.save_classifier
    known = models.manifest(options={"graph": graph}, precision="int8" if quantised else "float32")
    manifest = OnnxRuntime().build(save(tmp_path / "source.onnx"), tmp_path / "engine", known)
    assert set(manifest.files) == {ORT_MODEL if graph == "ort" else MODEL}
    with engines.open_engine(tmp_path / "engine", threads=1) as session:
        images = models.images(3)
        tolerance = 0.03 if quantised else 1e-6
        np.testing.assert_allclose(session.run(images), models.probabilities(images), atol=tolerance)


def test_a_minimal_build_is_told_what_the_model_needs(source: Path, tmp_path: Path) -> None:
    folder = build(source, tmp_path / "engine", graph="ort")
    required = (folder / MINIMAL_BUILD).read_text()
    assert all(kind in required for kind in ("Cast", "Div", "Flatten", "MatMul", "Softmax", "uint8_t"))
    assert "Conv" not in required


def test_a_graph_optimised_for_another_processor_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = build(source, tmp_path / "layout", graph="optimised", optimisation="layout")
    extended = build(source, tmp_path / "extended", graph="optimised", optimisation="extended")
    monkeypatch.setattr(room, "_processor", lambda: "aarch64")
    with pytest.raises(UserError, match=r"was optimised for .*, and this is aarch64: build it here, or"):
        engines.open_engine(layout, threads=1)
    engines.open_engine(extended, threads=1).close()


def test_a_graph_optimised_by_another_version_is_a_warning(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = build(source, tmp_path / "engine", graph="optimised")
    manifest = engines.read_manifest(folder)
    engines.write_manifest(
        folder, manifest.model_copy(update={"details": {**manifest.details, "onnxruntime": "1.20.0"}})
    )
    engines.open_engine(folder, threads=1).close()
    assert "was optimised by ONNX Runtime 1.20.0, and this is" in caplog.text


def test_operators_are_those_that_run(source: Path, tmp_path: Path) -> None:
    folder = build(source, tmp_path / "engine")
    assert described(folder)["operators"]["float32"]["MatMul"] == 1
    models.save_quantised(tmp_path / "int8.onnx")
    manifest = OnnxRuntime().build(
        tmp_path / "int8.onnx", tmp_path / "int8", models.manifest(precision="int8", scheme="x86-vnni")
    )
    assert any("MatMul" in kind for kind in manifest.details["operators"]["uint8"])


@pytest.mark.parametrize(
    ("provider", "remedy"),
    [
        ("cuda", r"type: pip uninstall -y onnxruntime && pip install onnxruntime-gpu\.$"),
        ("qnn", r"type: pip uninstall -y onnxruntime && pip install onnxruntime-qnn\.$"),
        ("xnnpack", r"no package brings it; build ONNX Runtime yourself with --use_xnnpack\.$"),
        ("coreml", r"the package onnxruntime brings it on macOS\.$"),
    ],
)
def test_a_provider_that_is_not_installed_names_its_package(
    source: Path, monkeypatch: pytest.MonkeyPatch, provider: str, remedy: str
) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [_CPU])
    monkeypatch.setattr(
        "kdeploy.engines._onnxruntime_session.onnxruntime_distributions", lambda: {"onnxruntime": "1.31.1"}
    )
    with pytest.raises(Unavailable, match=remedy):
        Opening(source, 1, OnnxRuntimeOptions(provider=provider), "all").session()


@pytest.mark.parametrize(
    ("allowed", "told"),
    [
        (True, [("TensorrtExecutionProvider", {}), ("CUDAExecutionProvider", {"use_tf32": "0"})]),
        (False, [("TensorrtExecutionProvider", {})]),
    ],
)
def test_tensorrt_falls_back_to_the_gpu_first(monkeypatch: pytest.MonkeyPatch, allowed: bool, told: list[Any]) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider", _CPU])
    options = OnnxRuntimeOptions(provider="tensorrt", allow_fallback=allowed)
    assert Opening(Path("model.onnx"), 1, options, "all")._providers() == told


class TestFallback:
    """Azure's provider is in every package of ONNX Runtime and takes no node: all that it is given falls back."""

    @pytest.fixture(autouse=True)
    def azure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import onnxruntime

        if "AzureExecutionProvider" not in onnxruntime.get_available_providers():
            pytest.skip("this ONNX Runtime was built without Azure's provider")
        monkeypatch.setattr(
            "kdeploy.engines._onnxruntime_options.PROVIDERS",
            {**PROVIDERS, "azure": Provider("AzureExecutionProvider")},
        )

    def test_to_another_provider_than_the_one_named_is_refused(self, source: Path, tmp_path: Path) -> None:
        with pytest.raises(
            UserError, match=rf"5 of the 5 nodes of .* run on {_CPU}, not on Azure.* \(1 Cast, 1 Div, 1"
        ):
            build(source, tmp_path / "engine", provider="azure")
        assert not (tmp_path / "engine" / "manifest.json").exists()

    def test_is_said_where_it_is_allowed(self, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        folder = build(source, tmp_path / "engine", provider="azure", allow_fallback=True)
        assert "5 of the 5 nodes of" in caplog.text
        assert described(folder)["nodes"] == {_CPU: 5}

    def test_is_left_to_the_runtime_where_it_does_not_tell(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("kdeploy.engines._onnxruntime_session.tells_assignment", lambda: False)
        with pytest.raises(UserError, match="can't open"):
            build(source, tmp_path / "engine", provider="azure")
        build(source, tmp_path / "other", provider="azure", allow_fallback=True)
        assert "does not tell which nodes run on AzureExecutionProvider" in caplog.text


class TestOpenVinoProvider:
    @pytest.fixture(autouse=True)
    def installed(self) -> None:
        import onnxruntime

        if "OpenVINOExecutionProvider" not in onnxruntime.get_available_providers():
            pytest.skip("onnxruntime-openvino is not installed")

    def test_runs_the_whole_graph(self, source: Path, tmp_path: Path) -> None:
        folder = build(source, tmp_path / "engine", provider="openvino", provider_options={"device_type": "CPU"})
        assert described(folder)["nodes"] == {"OpenVINOExecutionProvider": 5}
        assert described(folder)["operators"] == {}
        with engines.open_engine(folder, threads=1) as session:
            images = models.images(2)
            np.testing.assert_allclose(session.run(images), models.probabilities(images), atol=1e-6)

    def test_a_device_that_is_not_there_is_no_silent_cpu(self, source: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=f"run on {_CPU}, not on OpenVINOExecutionProvider"):
            build(source, tmp_path / "engine", provider="openvino", provider_options={"device_type": "NOPE"})
