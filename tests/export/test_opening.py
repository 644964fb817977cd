"""Hostile and broken ONNX files, opened in a process of their own."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from kdeploy.errors import UserError
from kdeploy.export.opening import Limits, Opener, require_opens
from tests.export.theirs import network, write

LIMITS = Limits(memory_bytes=2 << 30, seconds=5)


@pytest.fixture(scope="module")
def opener():
    with Opener(LIMITS) as opened:
        yield opened


def graph_of(nodes, outputs, initializers=(), sizes=(1, 3, 8, 8), rank=4):
    return helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank) for name in outputs],
            list(initializers),
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )


def huge_constant():
    shape = numpy_helper.from_array(np.array([1 << 20, 1 << 14], np.int64), "shape")
    return graph_of([helper.make_node("ConstantOfShape", ["shape"], ["y"])], ["y"], [shape], rank=2)


def huge_input():
    return graph_of([helper.make_node("Relu", ["x"], ["y"])], ["y"], sizes=(1, 3, 1 << 20, 1 << 20))


def huge_dimensions():
    model = network()
    model.graph.initializer[0].dims[0] = 1 << 40
    return model


def cycle():
    return graph_of([helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])], ["b"])


def unknown_operator():
    return graph_of([helper.make_node("Frobnicate", ["x"], ["y"])], ["y"])


def unknown_domain():
    model = graph_of([helper.make_node("Frobnicate", ["x"], ["y"], domain="com.example")], ["y"])
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    return model


def endless_loop():
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Identity", ["state"], ["state_on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [1, 3, 8, 8]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_on", TensorProto.FLOAT, [1, 3, 8, 8]),
        ],
    )
    constants = [
        numpy_helper.from_array(np.array(1 << 62, np.int64), "times"),
        numpy_helper.from_array(np.array(True), "yes"),
    ]
    return graph_of([helper.make_node("Loop", ["times", "yes", "x"], ["y"], body=body)], ["y"], constants)


def outside_data():
    model = network()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")
    return model


def outside_data_of_a_constant():
    value = numpy_helper.from_array(np.zeros((1, 3, 8, 8), np.float32), "value")
    value.ClearField("raw_data")
    value.data_location = TensorProto.EXTERNAL
    value.external_data.add(key="location", value="/etc/passwd")
    nodes = [helper.make_node("Constant", [], ["c"], value=value), helper.make_node("Add", ["x", "c"], ["y"])]
    return graph_of(nodes, ["y"])


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (huge_constant, "needs more than 2 GiB of memory to open"),
        (huge_input, "needs more than 2 GiB of memory to open"),
        (huge_dimensions, "is not valid ONNX"),
        (cycle, "is not valid ONNX: .*topological"),
        (unknown_operator, "is not valid ONNX: No Op registered for Frobnicate"),
        (unknown_domain, "can't open .*Frobnicate"),
        (endless_loop, "took more than 5 s to open|crashed the process that opened it"),
        (outside_data, "point outside its folder, to '../../../etc/passwd'; refused"),
        (outside_data_of_a_constant, "point outside its folder|is not valid ONNX"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_hostile_files_are_refused_in_one_sentence(make, why, opener, tmp_path):
    path = tmp_path / "hostile.onnx"
    path.write_bytes(make().SerializeToString())
    refused = opener.refusal(path)
    assert refused is not None
    assert "\n" not in refused
    assert refused.endswith(".")
    assert re.search(why, refused), refused


def test_truncated_empty_and_foreign_files(opener, tmp_path):
    whole = network().SerializeToString()
    for name, content in (("cut", whole[:-200]), ("empty", b""), ("text", b"<html>not found</html>" * 9)):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        refused = opener.refusal(path)
        assert refused is not None
        assert str(path) in refused
    assert "There is no file" in (opener.refusal(tmp_path / "gone.onnx") or "")


def test_what_is_sound_opens_and_the_worker_outlives_what_it_refused(opener, tmp_path):
    assert opener.refusal(write(tmp_path / "good.onnx")) is None
    assert opener.refusal(write(tmp_path / "fixed.onnx", batch=2, opset=12)) is None


def test_the_childs_death_is_a_refusal_with_status_2(tmp_path):
    path = tmp_path / "loop.onnx"
    path.write_bytes(endless_loop().SerializeToString())
    begun = time.monotonic()
    with pytest.raises(UserError) as caught:
        require_opens(path, Limits(memory_bytes=2 << 30, seconds=1))
    assert caught.value.exit_status == 2
    assert time.monotonic() - begun < 60
