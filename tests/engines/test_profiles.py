"""Times by layer: real runtimes on a small network, and what is read from their profiles on made ones."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdeploy import engines
from kdeploy.engines import _openvino_profile as counters
from kdeploy.engines._onnx_file import Node, read
from kdeploy.engines._onnxruntime_trace import Names, layer_times
from kdeploy.engines._profiling import WARM_UP, alternately
from kdeploy.engines.base import Profile
from kdeploy.errors import UserError
from tests.engines import models

CALLS = 20
INPUTS = [np.random.default_rng(seed).standard_normal((1, 1, 8, 8), dtype=np.float32) for seed in range(3)]
CONVOLUTIONS = ("network.conv1/Conv", "network.conv2/Conv")


def profile(folder: Path, engine: str, inputs: list[np.ndarray] = INPUTS, **options: Any) -> Profile:
    """Build the convolutions for this engine, and profile them."""
    folder.mkdir()
    source = models.save_convolutions(folder.parent / "source.onnx")
    known = models.manifest(in_graph=False, options=options)
    built = engines.find(engine).build(source, folder, known)
    return engines.find(engine).profile(folder, built, 1, inputs, CALLS)


@pytest.mark.parametrize("optimisation", ["none", "extended", "all"])
def test_onnxruntime_tells_each_node_in_each_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimisation: str
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    found = profile(tmp_path / "engine", "onnxruntime", optimisation=optimisation)
    assert found.profiler.startswith("ONNX Runtime 1.")
    assert (found.calls, found.grouped, found.resolution_us, found.notes) == (CALLS, 1, 1.0, ())
    assert len(found.plain_us) == len(found.profiled_us) == CALLS
    assert all(len(layer.times_us) == CALLS for layer in found.layers)
    by_name = {layer.name: layer for layer in found.layers}
    for name in (*CONVOLUTIONS, "network.fc/MatMul"):
        assert by_name[name].provider == "CPUExecutionProvider"
        assert by_name[name].precision == "float32"
    assert all("Conv" in by_name[name].operator for name in CONVOLUTIONS)
    assert [name for name in by_name if name in CONVOLUTIONS] == list(CONVOLUTIONS)  # in the order of execution
    assert sum(sum(layer.times_us) for layer in found.layers) < sum(found.profiled_us)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_without_optimisation_the_nodes_are_the_graphs(tmp_path: Path) -> None:
    found = profile(tmp_path / "engine", "onnxruntime", optimisation="none")
    nodes = read(tmp_path / "source.onnx").nodes
    assert [(layer.name, layer.operator) for layer in found.layers] == [(node.name, node.operator) for node in nodes]


def test_a_graph_in_onnxruntimes_own_format_keeps_the_runtimes_names(tmp_path: Path) -> None:
    found = profile(tmp_path / "engine", "onnxruntime", graph="ort", optimisation="basic")
    assert {layer.name for layer in found.layers} >= set(CONVOLUTIONS)


def test_openvino_tells_means_of_ten_calls(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO has no package for this platform")
    # In batches, so that no convolution takes less than a microsecond, which OpenVINO would cut off to 0.
    batches = [np.random.default_rng(0).standard_normal((64, 1, 8, 8), dtype=np.float32)]
    found = profile(tmp_path / "engine", "openvino", batches)
    assert found.profiler.startswith("OpenVINO 20")
    assert (found.calls, found.grouped) == (CALLS, 10)
    assert len(found.plain_us) == len(found.profiled_us) == CALLS
    assert all(len(layer.times_us) == CALLS / 10 for layer in found.layers)
    by_name = {layer.name: layer for layer in found.layers}
    for name in CONVOLUTIONS:
        assert (by_name[name].operator, by_name[name].precision) == ("Convolution", "float32")
    assert "network/Relu" in {*by_name["network.conv1/Conv"].fused, *by_name}
    assert "one" in found.notes[0]


def test_the_whole_number_of_stretches_is_told(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO has no package for this platform")
    folder = tmp_path / "engine"
    profile(folder, "openvino")
    manifest = engines.read_manifest(folder)
    assert engines.find("openvino").profile(folder, manifest, 1, INPUTS, 11).calls == 20


def test_an_engine_that_tells_no_layers_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^.*/engine can't be profiled by layer: the engine pytorch tells no times"):
        engines.find("pytorch").profile(tmp_path / "engine", models.manifest(), 1, INPUTS, CALLS)


def event(name: str, start: int, duration: int, *, index: int = 0, operator: str = "Conv", **more: Any) -> Any:
    arguments = {"node_index": str(index), "op_name": operator, "provider": "CPUExecutionProvider"}
    arguments |= {"input_type_shape": [{"float": [1, 3]}]} | more
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": start, "dur": duration, "args": arguments}


def call(start: int) -> Any:
    return {"cat": "Session", "name": "model_run", "ts": start, "dur": 90, "args": {}}


def test_a_trace_is_split_by_its_calls() -> None:
    """ONNX Runtime writes a call down when it is over, after its nodes."""
    trace = [
        {"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 5},
        *(event("a", 100, 50), event("b", 150, 20, index=1), call(99)),  # the warm-up
        *(event("a", 200, 7), event("b", 210, 3, index=1, operator="Relu"), call(199)),
        {"cat": "Node", "name": "a_fence_before", "ts": 300, "dur": 1000, "args": {}},
        *(event("a", 300, 8), event("a", 310, 2), call(299)),  # twice in a call: a body that is repeated
    ]
    first, second = layer_times(trace, 1, Names(()))
    assert (first.name, first.times_us) == ("a", (7.0, 10.0))
    assert (second.name, second.operator, second.times_us) == ("b", "Relu", (3.0, 0.0))


def test_what_holds_other_nodes_is_not_counted_twice() -> None:
    trace = [call(0), event("if", 1, 80, operator="If"), event("inside", 2, 70, index=4)]
    assert [layer.name for layer in layer_times(trace, 0, Names(()))] == ["inside"]


def test_a_node_without_inputs_has_no_precision() -> None:
    (found,) = layer_times([call(0), event("random", 1, 2, input_type_shape=[])], 0, Names(()))
    assert found.precision is None


NAMES = Names(
    [
        Node("net.conv/Conv", "Conv", ("x", "w"), ("a",), None),
        Node("net/Relu", "Relu", ("a",), ("relu",), None),
        Node("net/Relu_token_1", "Relu", ("relu",), ("b",), None),
        Node("net.fc/MatMul", "MatMul", ("b", "v"), ("c",), None),
        Node("", "Conv", ("c", "w"), ("nameless",), None),
    ]
)


@pytest.mark.parametrize(
    ("name", "operator", "expected"),
    [
        ("net.conv/Conv", "Conv", "net.conv/Conv"),
        ("net.conv/Conv_token_12", "QLinearConv", "net.conv/Conv"),
        ("net/Relu_token_1", "Relu", "net/Relu_token_1"),  # really called so
        ("a_nchwc", "Conv", "net.conv/Conv"),
        ("relu_nchwc_token_3", "Conv", "net.conv/Conv"),  # the activation gave its tensor's name
        ("b_nchwc", "MaxPool", "b_nchwc"),
        ("nameless_nchwc", "Conv", "nameless_nchwc"),
        ("net.fc/MatMul/MatMulAddFusion", "Gemm", "net.fc/MatMul"),
        ("relu", "Relu", "relu"),  # a tensor's name alone tells nothing
        ("ReorderOutput_token_4", "ReorderOutput", "ReorderOutput_token_4"),
    ],
)
def test_the_runtimes_names_lead_to_the_graphs(name: str, operator: str, expected: str) -> None:
    assert NAMES.of(name, operator) == expected


@pytest.mark.parametrize("first_us", [0, 1744, 100_000])
@pytest.mark.parametrize("each_us", [0.7, 3.4, 45.0, 1234.5])
def test_running_means_give_back_the_time_between(first_us: int, each_us: float) -> None:
    """However slow the first call was: what is cut off, of each time and of two means, is less than 2 µs in all."""
    draw = np.random.default_rng(1)
    errors = []
    for _ in range(200):
        times = each_us * draw.uniform(0.8, 1.2, counters.WARM_UP + counters.STRETCH)
        times[0] += first_us
        whole = np.floor(times).astype(int)
        early, late = (int(whole[:count].sum()) // count for count in (counters.WARM_UP, len(times)))
        (found,) = counters.between([("layer", early)], [("layer", late)])
        errors.append(found - times[counters.WARM_UP :].mean())
    assert max(np.abs(errors)) < 2.0
    assert abs(np.median(errors)) < 0.6 or each_us < 1


def test_a_layer_that_rests_takes_no_time() -> None:
    assert counters.between([("a", 0), ("b", 5)], [("a", 0), ("b", 5)])[0] == 0.0


def test_openvinos_names_lead_to_the_graphs() -> None:
    nodes = [
        Node("net.conv/Conv", "Conv", (), ("a",), None),
        Node("net/Relu", "Relu", ("a",), ("b",), None),
        Node("net/Softmax", "Softmax", ("b",), ("probabilities",), None),
    ]
    compiled = [
        counters.Compiled("Reorder_7", "Reorder", "float32", ()),
        counters.Compiled(
            "net.conv/Conv/WithoutBiases",
            "Convolution",
            "int8",
            ("net.conv/Conv/WithoutBiases", "Multiply_9", "net/Relu", "net.conv/Conv"),
        ),
        counters.Compiled("net/Relu", "Relu", "float32", ("net/Relu",)),
        counters.Compiled("probabilities", "Softmax", "float32", ("probabilities",)),
    ]
    names = [layer.name for layer in compiled]
    found = counters.layer_times(names, [[1.0, 2.0, 0.0, 3.0], [1.5, 2.5, 0.0, 0.0]], compiled, nodes)
    assert [(layer.name, layer.fused, layer.times_us) for layer in found] == [
        ("Reorder_7", (), (1.0, 1.5)),
        ("net.conv/Conv", ("net/Relu",), (2.0, 2.5)),
        ("net/Softmax", (), (3.0, 0.0)),
    ]


def test_two_take_turns_on_the_same_inputs() -> None:
    ran: list[tuple[str, int]] = []
    inputs = [np.array(value) for value in range(3)]
    first, second = alternately(
        lambda value: ran.append(("one", int(value))), lambda value: ran.append(("other", int(value))), inputs, 13
    )
    assert len(first) == len(second) == 13
    blocks = [name for name, _ in ran[2 * WARM_UP :]]
    assert blocks == ["one"] * 10 + ["other"] * 10 + ["one"] * 3 + ["other"] * 3
    counted = ran[2 * WARM_UP :]
    assert [value for name, value in counted if name == "one"] == [place % 3 for place in range(13)]
