"""Somebody else's ONNX file: taken in, quantised, compiled, and without torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from kdeploy.artifacts import read_json
from kdeploy.engines.tensorrt.graph import read, refuse_uint8_before_cast
from kdeploy.errors import UserError
from kdeploy.export import foreign
from kdeploy.parity import record_path
from kdeploy.quantize.files import opset_version
from kdeploy.recipe.schema import ExportSpec, NormalizeSpec
from kdeploy.stages.adopt import adopt_file
from kdeploy.stages.model import Asked
from tests.export.theirs import SHAPE, network, write
from tests.stages.test_model import pictures
from tests.test_imports import RUN_VERB, TRAINING_ONLY
from tests.without import run_without

CHANNELS, HEIGHT, WIDTH = SHAPE
HALF = NormalizeSpec(mean=(0.5,) * 3, std=(0.25,) * 3)


def taken_in(path: Path, folder: Path, **changed):
    options = {"given_shape": False, "normalize": HALF, "as_they_are": False, "opset": None, **changed}
    return adopt_file(path, options.pop("asked", Asked(folder)), **options)


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("options", "normalize"),
    [
        ({"batch": 1, "opset": 12}, HALF),
        ({"batch": 3}, HALF),
        ({"softmax": True, "last": True}, HALF),
        ({"dtype": TensorProto.UINT8, "last": True}, None),
        ({"dtype": TensorProto.UINT8}, None),
    ],
    ids=["fixed-batch", "batch-of-three", "channels-last", "raw-last", "raw-first"],
)
def test_raw_images_go_in_and_the_same_probabilities_come_out(options, normalize, tmp_path):
    theirs = write(tmp_path / "theirs.onnx", **options)
    run = taken_in(theirs, tmp_path / "out", normalize=normalize)
    (ours,) = run.written
    record = read_json(record_path(ours))
    assert record["passed"]
    assert record["compared"] == "logits"
    assert record["relative_difference"] < 1e-5
    model = onnx.load(ours)
    (images,) = model.graph.input
    sizes = [size.dim_param or size.dim_value for size in images.type.tensor_type.shape.dim]
    assert (images.name, sizes) == ("images", ["batch", HEIGHT, WIDTH, CHANNELS])
    pixels = np.random.default_rng(1).integers(0, 256, (5, HEIGHT, WIDTH, CHANNELS), dtype=np.uint8)
    (found,) = session(ours).run(None, {"images": pixels})
    assert found.shape == (5, 4)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


def test_pixels_as_they_are(tmp_path):
    theirs = write(tmp_path / "theirs.onnx", softmax=True)
    (ours,) = taken_in(theirs, tmp_path / "out", normalize=None, as_they_are=True).written
    pixels = np.random.default_rng(1).integers(0, 256, (2, HEIGHT, WIDTH, CHANNELS), dtype=np.uint8)
    (expected,) = session(theirs).run(None, {"x": pixels.transpose(0, 3, 1, 2).astype(np.float32)})
    np.testing.assert_allclose(session(ours).run(None, {"images": pixels})[0], expected, rtol=1e-4)


def test_nothing_is_assumed_of_a_float_input(tmp_path):
    with pytest.raises(UserError, match=r"nothing says how they are normalised: add --mean A,B,C --std A,B,C"):
        taken_in(write(tmp_path / "theirs.onnx"), tmp_path / "out", normalize=None)
    with pytest.raises(UserError, match=r"takes raw uint8 images, .*: leave --mean and --std out"):
        taken_in(write(tmp_path / "raw.onnx", dtype=TensorProto.UINT8), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_opsets_are_raised_and_lowered(tmp_path):
    made = taken_in(write(tmp_path / "old.onnx", opset=12), tmp_path / "a").written[0]
    assert opset_version(onnx.load(made)) == 18, "int8 and the engines begin at 13"
    theirs = write(tmp_path / "theirs.onnx", opset=17)
    assert opset_version(onnx.load(taken_in(theirs, tmp_path / "b").written[0])) == 17
    run = taken_in(theirs, tmp_path / "c", opset=14)
    assert opset_version(onnx.load(run.written[0])) == run.recipe.export.opset == 14
    assert read_json(record_path(run.written[0]))["passed"]
    with pytest.raises(UserError, match=r"opset 17 and has no form in opset 13: No Adapter From Version 14 for Mul\.$"):
        taken_in(theirs, tmp_path / "d", opset=13)


def test_a_shape_is_needed_only_where_the_file_leaves_it_open(tmp_path):
    model = network()
    for at, name in ((2, "height"), (3, "width")):
        model.graph.input[0].type.tensor_type.shape.dim[at].dim_param = name
    path = tmp_path / "open.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match=r"leaves the size of its images open \(3x\?x\?\): add --shape CxHxW"):
        taken_in(path, tmp_path / "out")
    run = taken_in(path, tmp_path / "out", asked=Asked(tmp_path / "out", shape=(3, 20, 24)), given_shape=True)
    assert run.splits.shape == (20, 24, 3)
    fixed = write(tmp_path / "fixed.onnx")
    with pytest.raises(UserError, match="takes images of 3x16x12, not of 3x20x24: leave --shape out"):
        taken_in(fixed, tmp_path / "x", asked=Asked(tmp_path / "x", shape=(3, 20, 24)), given_shape=True)


def test_names_that_are_ours_are_told_apart(tmp_path):
    model = network()
    model.graph.node[0].input[0] = model.graph.input[0].name = "images"
    path = tmp_path / "same.onnx"
    path.write_bytes(model.SerializeToString())
    assert read_json(record_path(taken_in(path, tmp_path / "out").written[0]))["passed"]


def halved():
    model = network()
    weight = model.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), weight.name))
    return model


def with_input(sizes, kind=TensorProto.FLOAT):
    model = network()
    model.graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info("x", kind, sizes))
    return model


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (halved, "holds weights of 16 bits"),
        (lambda: with_input(["N", 5, 16, 12]), r"takes \[\?, 5, 16, 12\], which is no batch of gray or colour images"),
        (lambda: with_input(["N", 3, 16, 12], TensorProto.DOUBLE), "takes double; kdeploy takes in networks of"),
    ],
    ids=["float16", "five-channels", "double"],
)
def test_what_cannot_be_taken_in(make, why, tmp_path, monkeypatch):
    monkeypatch.setattr(foreign, "load_model", lambda path: make())  # the runtime would refuse some of them before
    with pytest.raises(UserError, match=why):
        foreign.read(tmp_path / "theirs.onnx")


def test_uint8_images_are_read_by_a_cast_alone(tmp_path):
    """TensorRT takes them nowhere else."""
    theirs = write(tmp_path / "theirs.onnx", opset=18)
    (ours,) = taken_in(theirs, tmp_path / "out").written
    refuse_uint8_before_cast(read(ours), ours)


def test_images_of_any_size_are_resized_in_the_graph(tmp_path):
    theirs = write(tmp_path / "theirs.onnx", opset=18)
    asked = Asked(tmp_path / "out", export=ExportSpec(size="resize"))
    (ours,) = taken_in(theirs, tmp_path / "out", asked=asked).written
    pixels = np.random.default_rng(1).integers(0, 256, (2, 40, 31, CHANNELS), dtype=np.uint8)
    assert session(ours).run(None, {"images": pixels})[0].shape == (2, 4)


def test_their_file_is_quantised_and_compiled_without_torch(tmp_path):
    write(tmp_path / "theirs.onnx", batch=1)
    for name in "abcd":
        pictures(tmp_path / "photos" / name, 8)
    words = ["export", "theirs.onnx", "--data", "photos", "--mean", "0.5", "--std", "0.25", "--engine", "onnxruntime"]
    words += ["--precision", "float32", "--precision", "int8", "--scheme", "x86-vnni", "--out", "out", "--json", "-"]
    done = run_without(TRAINING_ONLY, ["-c", RUN_VERB, *words], tmp_path)
    assert json.loads(done.stderr.splitlines()[-1])["status"] == 0, done.stderr
    answer = json.loads(done.stdout)
    assert [row["precision"] for row in answer["engines"]] == ["float32", "int8"]
    assert all(0 <= row["accuracy"] <= 1 for row in answer["engines"])
    assert [file["parity"]["passed"] for file in answer["files"]] == [True, True]
