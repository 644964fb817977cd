"""Weights beside the ONNX file where one file cannot hold them, and only there."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from kdeploy.artifacts import sha256_file
from kdeploy.errors import UserError
from kdeploy.export import saving
from kdeploy.export.opening import require_opens
from kdeploy.quantize.files import load_model
from tests.export.theirs import network


def big():
    """A network of 64 channels, whose weights are above the size from which onnx moves data out of the file."""
    model = network()
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    wide = {name: arrays[name].repeat(8, axis=0) for name in ("w1", "b1", "w2")} | {"flat": np.array([-1, 64])}
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(wide.get(tensor.name, arrays[tensor.name]), tensor.name))
    return model


def test_below_the_limit_there_is_one_file(tmp_path):
    saving.save(big(), tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_above_it_the_data_lie_beside(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "LARGEST_BYTES", 1000)
    target = tmp_path / "model.onnx"
    assert saving.save(big(), target) == sha256_file(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert target.stat().st_size < saving.weight_bytes(big())
    assert load_model(target).graph.initializer[0].raw_data == big().graph.initializer[0].raw_data
    require_opens(target)


def test_what_does_not_pass_the_checker_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "LARGEST_BYTES", 1000)
    model = big()
    model.graph.node[0].op_type = "Frobnicate"
    with pytest.raises(UserError, match="does not pass ONNX's checker: No Op registered for Frobnicate"):
        saving.save(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_external_data_of_others_are_taken_into_one_file(tmp_path):
    onnx.save(big(), tmp_path / "theirs.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").is_file()
    saving.save(load_model(tmp_path / "theirs.onnx"), tmp_path / "ours" / "model.onnx")
    assert [path.name for path in (tmp_path / "ours").iterdir()] == ["model.onnx"]
