"""Times by layer of a plan: from the double's profiler, and from the profile that `trtexec` writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdeploy import engines
from kdeploy.engines.base import Profile
from kdeploy.engines.tensorrt import TensorRT
from kdeploy.errors import UserError
from tests.engines.tensorrt import fake_trtexec, graphs
from tests.engines.tensorrt import world as imitated
from tests.engines.tensorrt.world import World, build, images, layer, manifest

CALLS = 10


def profile(folder: Path) -> Profile:
    return TensorRT().profile(folder, engines.read_manifest(folder), 1, [images(2), images(2, seed=1)], CALLS)


def test_the_profiler_tells_each_layer_in_each_run(world: World, version: str, tmp_path: Path) -> None:
    found = profile(build(tmp_path / "engine"))
    assert found.profiler == f"TensorRT {version}"
    assert (found.calls, found.grouped, len(found.profiled_us), len(found.plain_us)) == (CALLS, 1, CALLS, CALLS)
    assert [(one.name, one.operator, one.precision) for one in found.layers] == [
        ("cast", "Reformat", None),
        ("stem", "Conv", "float32"),
        ("head", "Conv", "float32"),
    ]
    assert [set(one.times_us) for one in found.layers] == [{1.0}, {250.0}, {50.0}]
    assert all(len(one.times_us) == CALLS for one in found.layers)
    assert world.cuda.is_clean


def test_the_runs_without_the_profiler_come_first(world: World, tmp_path: Path) -> None:
    """A profiler that stays attached would slow what is compared with it."""
    folder = build(tmp_path / "engine")
    before = len(world.double.called("IExecutionContext.execute_async_v3"))
    profile(folder)
    names = [name for name, _ in world.double.calls]
    attached = names.index("IExecutionContext.profiler")
    ran = [place for place, name in enumerate(names) if name == "IExecutionContext.execute_async_v3"][before:]
    assert sum(place < attached for place in ran) == sum(place > attached for place in ran) == 20 + CALLS


def test_the_names_are_the_graphs_where_the_inspector_has_them(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build(tmp_path / "engine")
    described = layer("stem", "float32", kind="gemm") | {
        "Name": "__myl_Conv_myl0_1",
        "Metadata": "[ONNX Layer: network.conv1/Conv]\x1f[ONNX Layer: network/Relu]\x1e[ONNX Layer: network/Relu]",
    }
    monkeypatch.setattr(imitated.World, "layers", lambda _: json.dumps({"Layers": [described]}))
    world.times_ms = {"__myl_Conv_myl0_1": 0.5, "a/Add + a/Relu": 0.1}
    first, second = profile(folder).layers
    assert (first.name, first.operator, first.fused) == ("network.conv1/Conv", "MatMul", ("network/Relu",))
    assert (second.name, second.operator, second.fused) == ("a/Add", "not stated", ("a/Relu",))


def test_a_cuda_graph_is_left_out_and_told(world: World, tmp_path: Path) -> None:
    folder = build(tmp_path / "engine", cuda_graph=True)
    launched = world.cuda.launches
    found = profile(folder)
    assert world.cuda.launches == launched + 20 + CALLS  # without the profiler alone
    assert "launched by itself" in found.notes[0]
    assert world.cuda.is_clean


def test_layers_of_one_name_stay_apart(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build(tmp_path / "engine")

    class Twice(dict[str, float]):
        def items(self) -> Any:
            return [("copy", 0.001), ("stem", 0.25), ("copy", 0.003)]

    world.times_ms = Twice()
    assert [(one.name, one.times_us[0]) for one in profile(folder).layers] == [
        ("copy", 1.0),
        ("stem", 250.0),
        ("copy", 3.0),
    ]


def test_a_profiler_that_is_told_nothing_is_an_error(world: World, tmp_path: Path) -> None:
    world.times_ms = {}
    with pytest.raises(
        UserError, match=r"model\.plan can't be profiled: in 30 runs TensorRT told the times of 0 layers"
    ):
        profile(build(tmp_path / "engine"))


def build_with_trtexec(folder: Path, monkeypatch: pytest.MonkeyPatch, version: str, **options: Any) -> Path:
    """A machine with this `trtexec` alone, and an engine that it built."""
    model = graphs.save(folder / "float32.onnx", opset=17)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}")
    monkeypatch.setenv("KDEPLOY_CACHE", str(folder / "cache"))
    fake_trtexec.install(folder / "bin", version, model=model)
    TensorRT().build(model, folder / "engine", manifest(opset=17, options=options))
    return folder / "engine"


@pytest.fixture
def with_trtexec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return build_with_trtexec(tmp_path, monkeypatch, "8.5.2")


def test_trtexec_profiles_where_only_that_is_there(with_trtexec: Path, tmp_path: Path) -> None:
    found = profile(with_trtexec)
    assert (found.profiler, found.calls, found.grouped) == ("trtexec 8.5.2", 81, 81)
    assert [(one.name, one.operator, one.precision, one.times_us) for one in found.layers] == [
        ("stem", "Conv", "float32", (250.0,)),
        ("head", "MatMul", "float32", (50.0,)),
    ]
    assert (found.plain_us, found.profiled_us) == ((500.0, 250.0), ())
    assert "one median a layer" in found.notes[0]
    arguments = fake_trtexec.calls(tmp_path / "bin")[-1]
    assert {"--separateProfileRun", f"--iterations={CALLS}", "--shapes=image:2x1x8x8"} < set(arguments)


@pytest.mark.parametrize("text", ["", "[]", "[{}]", '[{"count": 3}, {"name": "stem"}]'])
def test_a_profile_that_cannot_be_read_is_an_error(with_trtexec: Path, tmp_path: Path, text: str) -> None:
    fake_trtexec.install(tmp_path / "bin", "8.5.2", model=tmp_path / "float32.onnx", profile=text)
    with pytest.raises(UserError, match=r"model\.plan can't be profiled: trtexec wrote a profile that can't be read"):
        profile(with_trtexec)


@pytest.mark.parametrize("version", ["8.6.1", "10.3.0", "10.16.1", "11.4.0"])
def test_each_trtexec_knows_the_whole_command(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build_with_trtexec(tmp_path, monkeypatch, version, cuda_graph=True)
    found = profile(folder)
    assert found.calls == 81
    assert "launched by itself" in found.notes[1]
