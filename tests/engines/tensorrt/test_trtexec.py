"""Command lines for `trtexec`, checked against the options of each major version, and run against an imitation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdeploy import engines
from kdeploy.engines.tensorrt import TensorRT, graph, highest_opset, latency, trtexec, versions
from kdeploy.engines.tensorrt.options import parse, profiles_for
from kdeploy.errors import GateFailed, Unavailable, UserError
from tests.engines.tensorrt import fake_trtexec, graphs
from tests.engines.tensorrt.world import manifest

VERSIONS = ("8.5.2", "8.6.1", "10.3.0", "10.16.1", "11.1.0", "11.4.0")
JETPACK_5 = "8.5.2"


def command(version: str, precision: str = "float32", folder: Path | None = None, **options: Any) -> list[str]:
    assert folder is not None
    model = graphs.save(folder / "model.onnx", precision)
    parsed, found = parse(options), graph.read(model)
    arguments = trtexec.build_arguments(
        Path("m.onnx"),
        Path("m.plan"),
        found,
        precision,  # type: ignore[arg-type]
        parsed,
        profiles_for(parsed, 8, 8),
        versions.parse(version),
        None,
    )
    return sorted(argument for argument in arguments if "Shapes" not in argument)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_each_version_knows_the_whole_command(version: str, precision: str, tmp_path: Path) -> None:
    known = versions.trtexec_options(versions.parse(version))
    for options in ({}, {"workspace_mib": 64, "refit": True, "profiles": [{"max": 4}]}):
        arguments = command(version, precision, tmp_path, **options)
        assert {argument[2:].split("=")[0] for argument in arguments} <= known


def test_the_commands_are_these(tmp_path: Path) -> None:
    common = ["--noTF32", "--onnx=m.onnx", "--profilingVerbosity=detailed", "--saveEngine=m.plan"]
    assert command("8.5.2", "int8", tmp_path) == ["--buildOnly", "--int8", *common]
    assert command("8.6.1", "float16", tmp_path) == ["--fp16", *common, "--skipInference"]
    assert command("10.3.0", "float16", tmp_path) == [*common, "--skipInference", "--stronglyTyped"]
    assert command("11.4.0", "int8", tmp_path) == [*common, "--skipInference"]


def test_options_reach_the_command(tmp_path: Path) -> None:
    asked = {
        "workspace_mib": 64,
        "builder_optimization_level": 5,
        "refit": True,
        "strip_weights": True,
        "version_compatible": True,
        "exclude_lean_runtime": True,
        "hardware_compatibility": "same-compute-capability",
    }
    arguments = command("10.16.1", "float32", tmp_path, **asked)
    assert set(arguments) > {
        "--memPoolSize=workspace:64",
        "--builderOptimizationLevel=5",
        "--refit",
        "--stripWeights",
        "--versionCompatible",
        "--excludeLeanRuntime",
        "--hardwareCompatibilityLevel=sameComputeCapability",
    }


def test_profiles_become_shapes(tmp_path: Path) -> None:
    found = graph.read(graphs.save(tmp_path / "model.onnx"))
    options = parse({"profiles": [{"opt": 2, "max": 4}, {"min": 5, "opt": 8, "max": 8}]})
    assert options.profiles is not None
    arguments = trtexec.build_arguments(
        Path("m"), Path("p"), found, "float32", options, options.profiles, (10, 3, 0), None
    )
    shapes = [argument for argument in arguments if "Shapes" in argument or "--profile=" in argument]
    assert shapes == [
        "--profile=0",
        "--minShapes=image:1x1x8x8",
        "--optShapes=image:2x1x8x8",
        "--maxShapes=image:4x1x8x8",
        "--profile=1",
        "--minShapes=image:5x1x8x8",
        "--optShapes=image:8x1x8x8",
        "--maxShapes=image:8x1x8x8",
    ]
    with pytest.raises(UserError, match=r"trtexec 8\.6\.1 builds one profile; 2 are asked for"):
        trtexec.build_arguments(Path("m"), Path("p"), found, "float32", options, options.profiles, (8, 6, 1), None)


def test_a_dla_takes_its_flags_where_it_is_not_strongly_typed(tmp_path: Path) -> None:
    assert {"--useDLACore=1", "--allowGPUFallback", "--int8", "--fp16"} < set(
        command("10.3.0", "int8", tmp_path, dla_core=1)
    )
    arguments = command("11.4.1", "float16", tmp_path, dla_core=0, gpu_fallback=False)
    assert "--useDLACore=0" in arguments
    assert not {"--fp16", "--allowGPUFallback", "--stronglyTyped"} & set(arguments)


@pytest.mark.parametrize(
    ("version", "options", "message"),
    [
        ("8.5.2", {"version_compatible": True}, "8.5.2 has no --versionCompatible"),
        ("8.5.2", {"builder_optimization_level": 3}, "8.5.2 has no --builderOptimizationLevel"),
        ("8.6.1", {"strip_weights": True}, "8.6.1 has no --"),
        ("10.3.0", {"strip_weights": True}, "10.3.0 has no --refitFromOnnx"),
        ("8.5.2", {"hardware_compatibility": "ampere+"}, r"8.5.2 has no hardware_compatibility: ampere\+"),
        ("10.3.0", {"hardware_compatibility": "same-compute-capability"}, "10.3.0 has no hardware_compatibility"),
    ],
)
def test_what_a_version_lacks_is_refused(version: str, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        command(version, "float32", tmp_path, **options)


def test_eleven_refuses_the_precision_flags() -> None:
    for flag in ("--fp16", "--int8", "--best"):
        with pytest.raises(UserError, match=f"trtexec 11.4.0 has no {flag}"):
            trtexec.checked([flag], (11, 4, 0))
        assert trtexec.checked([flag], (10, 16, 1)) == [flag]


def test_bfloat16_is_not_for_eight(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"TensorRT 8\.5\.2 can't build bfloat16"):
        command("8.5.2", "bfloat16", tmp_path)
    assert "--stronglyTyped" in command("10.3.0", "bfloat16", tmp_path)


@pytest.mark.parametrize(
    ("banner", "version"),
    [
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v8502] # trtexec", (8, 5, 2)),
        ("[TensorRT v8601]", (8, 6, 1)),
        ("[TensorRT v100300]", (10, 3, 0)),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v101601] [b11] # trtexec", (10, 16, 1)),
        ("[TensorRT v110400] [b106]", (11, 4, 0)),
        ("trtexec: command not found", None),
    ],
)
def test_the_banner_tells_the_version(banner: str, version: versions.Version | None) -> None:
    assert trtexec.parse_banner(banner) == version


@pytest.fixture
def only_trtexec(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with `trtexec` on its PATH, and without TensorRT's Python API."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("KDEPLOY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    return tmp_path / "bin"


@pytest.mark.parametrize("version", [JETPACK_5, "10.3.0", "11.4.0"])
def test_trtexec_alone_builds_and_proves(version: str, only_trtexec: Path, tmp_path: Path) -> None:
    model = graphs.save(tmp_path / "model.onnx", opset=17)
    fake_trtexec.install(only_trtexec, version, model=model)
    TensorRT().build(model, tmp_path / "engine", manifest())
    details = engines.read_manifest(tmp_path / "engine").details
    assert (details["builder"], details["tensorrt"]) == ("trtexec", version)
    assert details["machine"] | {"driver": None} == {
        "tensorrt": version, "compute_capability": "8.7", "gpu": "Orin", "driver": None,
    }  # fmt: skip
    assert details["operators"] == {"float32": {"Conv": 1, "MatMul": 1}}
    assert details["check"]["max_relative_difference"] < 1e-6
    assert (tmp_path / "engine" / "model.plan").read_text() == "a plan"
    built, opened = fake_trtexec.calls(only_trtexec)
    assert any(argument.startswith("--timingCacheFile=") for argument in built)
    assert "--shapes=image:4x1x8x8" in opened


def test_eight_takes_opset_17_and_no_higher(only_trtexec: Path, tmp_path: Path) -> None:
    fake_trtexec.install(only_trtexec, JETPACK_5)
    assert highest_opset() == highest_opset("8.6.1") == 17
    model = graphs.save(tmp_path / "model.onnx", opset=18)
    with pytest.raises(UserError, match=r"opset 18, and TensorRT 8\.5\.2 reads up to 17"):
        TensorRT().build(model, tmp_path / "engine", manifest())
    with pytest.raises(UserError, match=r"8\.2\.5 is too old"):
        highest_opset("8.2.5")


def test_an_engine_that_is_float32_after_all_is_an_error(only_trtexec: Path, tmp_path: Path) -> None:
    model = graphs.save(tmp_path / "model.onnx", "float16", opset=17)
    fake_trtexec.install(only_trtexec, JETPACK_5, precision="float32", model=model)
    with pytest.raises(GateFailed, match="asked for float16, TensorRT built an engine with 0 layers in float16"):
        TensorRT().build(model, tmp_path / "engine", manifest("float16"))
    assert not (tmp_path / "engine" / "model.plan").exists()


def test_a_failed_trtexec_gives_its_first_error(only_trtexec: Path, tmp_path: Path) -> None:
    fake_trtexec.install(only_trtexec, "10.3.0", fail="[graph.cpp::symbolicExecute::539] no implementation.")
    model = graphs.save(tmp_path / "model.onnx")
    with pytest.raises(UserError, match=r"trtexec 10\.3\.0 can't build .*: Error\[4\]: .*no implementation\.$"):
        TensorRT().build(model, tmp_path / "engine", manifest())
    assert list((tmp_path / "engine").iterdir()) == []


def test_answers_that_are_no_numbers_fail_the_gate(only_trtexec: Path, tmp_path: Path) -> None:
    fake_trtexec.install(
        only_trtexec, "10.3.0", text='[{ "name" : "logits", "dimensions" : "1x2", "values" : [ nan, 1 ] }]'
    )
    with pytest.raises(GateFailed, match=r"the answers that trtexec 10\.3\.0 wrote are not numbers"):
        TensorRT().build(graphs.save(tmp_path / "model.onnx"), tmp_path / "engine", manifest())
    assert not (tmp_path / "engine" / "manifest.json").exists()


def test_opening_a_plan_takes_the_python_api(only_trtexec: Path, tmp_path: Path) -> None:
    model = graphs.save(tmp_path / "model.onnx")
    fake_trtexec.install(only_trtexec, "10.3.0", model=model)
    TensorRT().build(model, tmp_path / "engine", manifest())
    with pytest.raises(Unavailable, match=r"opening a plan takes TensorRT's Python API: .* Type: pip install"):
        engines.open_engine(tmp_path / "engine", threads=1)


def test_availability_names_what_is_there(only_trtexec: Path) -> None:
    found = TensorRT().available()
    assert (found.ok, found.install) == (False, "pip install 'kdeploy[tensorrt]'")
    assert "and there is no trtexec" in (found.reason or "")
    fake_trtexec.install(only_trtexec, JETPACK_5)
    assert TensorRT().available().version == "8.5.2 (trtexec)"


def test_a_builder_that_is_not_there_is_named(only_trtexec: Path, tmp_path: Path) -> None:
    model = graphs.save(tmp_path / "model.onnx")
    with pytest.raises(Unavailable, match="There is no trtexec here"):
        TensorRT().build(model, tmp_path / "engine", manifest(options={"builder": "trtexec"}))
    fake_trtexec.install(only_trtexec, "10.3.0")
    with pytest.raises(Unavailable, match="TensorRT can't build here: Python can't import tensorrt"):
        TensorRT().build(model, tmp_path / "engine", manifest(options={"builder": "python"}))


def test_latency_spells_out_what_the_versions_do_by_themselves() -> None:
    ten, eleven = latency.defaults((10, 16, 1)), latency.defaults((11, 1, 0))
    assert ten == latency.Settings(copies=True, cuda_graph=False, spin_wait=False)
    assert eleven == latency.Settings(copies=False, cuda_graph=True, spin_wait=True)
    assert latency.flags(ten, (10, 16, 1)) == latency.flags(eleven, (11, 1, 0)) == []
    assert latency.flags(eleven, (10, 16, 1)) == ["--noDataTransfers", "--useCudaGraph", "--useSpinWait"]
    assert latency.flags(ten, (11, 1, 0)) == ["--includeDataTransfers", "--noCudaGraph", "--noSpinWait"]
    for version in VERSIONS:
        for settings in (ten, eleven):
            trtexec.checked(latency.flags(settings, versions.parse(version)), versions.parse(version))


def test_latency_records_version_and_settings(only_trtexec: Path, tmp_path: Path) -> None:
    fake_trtexec.install(only_trtexec, "11.4.0")
    taken = graph.read(graphs.save(tmp_path / "model.onnx")).input
    measured = latency.measure(trtexec.require(), tmp_path / "model.plan", taken, batch=2, duration_s=1)
    assert measured.tool == "trtexec 11.4.0"
    assert measured.samples_ms == (0.5, 0.25)
    assert measured.machine["gpu"] == "Orin"
    assert {"--includeDataTransfers", "--noCudaGraph", "--noSpinWait", "--shapes=image:2x1x8x8"} <= set(
        fake_trtexec.calls(only_trtexec)[0]
    )
    other = measured.model_copy(update={"tool": "trtexec 10.3.0", "settings": latency.defaults((11,))})
    latency.require_comparable(measured, measured)
    with pytest.raises(
        UserError, match=r"11\.4\.0 \(batch 2, copies\) and trtexec 10\.3\.0 \(batch 2, cuda graph, spin"
    ):
        latency.require_comparable(measured, other)
