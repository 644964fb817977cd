from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from kdeploy.bench.inputs import Layout, inputs_for, layout_of_file, layout_of_manifest
from kdeploy.engines.onnxruntime import OnnxRuntime
from kdeploy.errors import UserError
from kdeploy.runtime.preprocess import preprocess
from tests.engines import models


def save_relu(path: Path, shape: list[int | str], element: int = TensorProto.FLOAT) -> Path:
    tensors = [helper.make_tensor_value_info(name, element, shape) for name in ("pixels", "scores")]
    graph = helper.make_graph([helper.make_node("Identity", ["pixels"], ["scores"])], "g", tensors[:1], tensors[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_a_manifest_in_graph_takes_images_as_they_are() -> None:
    layout = layout_of_manifest(models.manifest())
    assert (layout.shape, layout.dtype, layout.batch) == ((8, 8, 1), np.uint8, None)
    images = models.images(3)
    np.testing.assert_array_equal(layout.prepare(images), images)


def test_a_manifest_outside_takes_preprocessed_images() -> None:
    manifest = models.manifest(in_graph=False)
    layout = layout_of_manifest(manifest)
    assert (layout.shape, layout.dtype) == ((1, 8, 8), np.float32)
    np.testing.assert_array_equal(
        layout.prepare(models.images(3)), preprocess(models.images(3), manifest.preprocessing)
    )


def test_a_file_declares_its_own_input(tmp_path: Path) -> None:
    path = save_relu(tmp_path / "m.onnx", ["n", 3, 5, 7])
    assert layout_of_file(OnnxRuntime().open_file(path, 1), path) == Layout((3, 5, 7), np.dtype(np.float32))
    path = save_relu(tmp_path / "fixed.onnx", [4, 9], TensorProto.UINT8)
    assert layout_of_file(OnnxRuntime().open_file(path, 1), path) == Layout((9,), np.dtype(np.uint8), batch=4)


def test_an_open_size_is_refused_with_the_shape(tmp_path: Path) -> None:
    path = save_relu(tmp_path / "m.onnx", ["n", 3, "height", 7])
    with pytest.raises(UserError, match=r"leaves sizes of its input 'pixels' open: \[\?, 3, \?, 7\]"):
        layout_of_file(OnnxRuntime().open_file(path, 1), path)


def test_a_scalar_input_is_refused(tmp_path: Path) -> None:
    path = save_relu(tmp_path / "m.onnx", [])
    with pytest.raises(UserError, match="single number"):
        layout_of_file(OnnxRuntime().open_file(path, 1), path)


def test_noise_is_seeded_different_and_uses_the_whole_range() -> None:
    layout = Layout((8, 8, 1), np.dtype(np.uint8))
    first, again = inputs_for(layout, 2, None), inputs_for(layout, 2, None)
    assert [array.shape for array in first] == [(2, 8, 8, 1)] * 16
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert len({array.tobytes() for array in first}) == 16
    assert {np.stack(first).min(), np.stack(first).max()} == {0, 255}


def test_real_images_are_used_in_turn_and_repeated_where_they_are_few() -> None:
    images = models.images(5)
    found = inputs_for(layout_of_manifest(models.manifest()), 2, images)
    np.testing.assert_array_equal(np.concatenate(found), images[np.arange(32) % 5])


def test_large_inputs_are_few() -> None:
    assert len(inputs_for(Layout((3, 1024, 1024), np.dtype(np.float32)), 3, None)) == 1
