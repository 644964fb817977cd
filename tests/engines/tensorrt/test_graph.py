from __future__ import annotations

from collections import Counter
from contextlib import suppress
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from kdeploy.engines.tensorrt import graph
from kdeploy.errors import UserError
from tests.engines.tensorrt import graphs


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16", "int8"])
def test_precisions_are_those_of_the_weights(precision: str, tmp_path: Path) -> None:
    found = graph.read(graphs.save(tmp_path / "model.onnx", precision))
    assert graph.precisions(found) == Counter({precision: 2})


def test_the_reader_agrees_with_onnx(tmp_path: Path) -> None:
    path = graphs.save(tmp_path / "model.onnx", "int8", opset=17)
    model, found = onnx.load(path), graph.read(path)
    assert found.opset == 17
    assert found.input == graph.Input("image", TensorProto.FLOAT, (None, 1, 8, 8))
    assert [(node.name, node.operator, list(node.inputs), list(node.outputs)) for node in found.nodes] == [
        (node.name, node.op_type, list(node.input), list(node.output)) for node in model.graph.node
    ]
    assert found.weights == {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def test_a_fixed_batch_is_read(tmp_path: Path) -> None:
    assert graph.read(graphs.save(tmp_path / "model.onnx", batch=2)).input.sizes == (2, 1, 8, 8)


def test_a_product_of_two_activations_has_no_precision_of_its_own(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["a", "a"], ["b"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in "ab"]
    onnx.save(helper.make_model(helper.make_graph([node], "square", values[:1], values[1:])), tmp_path / "a.onnx")
    assert graph.precisions(graph.read(tmp_path / "a.onnx")) == Counter({None: 1})


def test_operators_in_a_circle_end(tmp_path: Path) -> None:
    """No valid graph, and no reason to hang."""
    nodes = [
        helper.make_node("Identity", ["b"], ["a"]),
        helper.make_node("Identity", ["a"], ["b"]),
        helper.make_node("MatMul", ["x", "a"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in "xy"]
    onnx.save(helper.make_model(helper.make_graph(nodes, "circle", values[:1], values[1:])), tmp_path / "a.onnx")
    assert graph.precisions(graph.read(tmp_path / "a.onnx")) == Counter({None: 1})


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7, 0.99])
def test_a_cut_file_is_refused_in_one_sentence(share: float, tmp_path: Path) -> None:
    path = graphs.save(tmp_path / "model.onnx", "int8")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"model\.onnx is not a whole ONNX file\.$"):
        graph.read(path)


def test_changed_bytes_are_read_or_refused(tmp_path: Path) -> None:
    """A file that is not what it was gives a graph or a UserError, and nothing else."""
    path = graphs.save(tmp_path / "model.onnx", "int8")
    content = bytearray(path.read_bytes())
    for place in range(0, len(content), 7):
        changed = content.copy()
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with suppress(UserError):
            graph.precisions(graph.read(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file .*absent\.onnx"):
        graph.read(tmp_path / "absent.onnx")


def test_uint8_images_go_into_a_cast(tmp_path: Path) -> None:
    path = graphs.save_uint8_transposed(tmp_path / "model.onnx")
    with pytest.raises(UserError, match=r"Transpose 'permute' reads the uint8 input 'image'.* only a Cast can"):
        graph.refuse_uint8_before_cast(graph.read(path), path)
