from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from kdeploy.errors import UserError
from kdeploy.events import task
from kdeploy.quantize.calibration import ImageReader, check_classes, check_images, pick


def model(element_type=TensorProto.UINT8, shape=("batch", 8, 6, 3)):
    images = helper.make_tensor_value_info("images", element_type, shape)
    output = helper.make_tensor_value_info("y", element_type, shape)
    return helper.make_model(
        helper.make_graph([helper.make_node("Identity", ["images"], ["y"])], "g", [images], [output])
    )


GOOD = np.random.default_rng(0).integers(0, 256, (4, 8, 6, 3), dtype=np.uint8)


def test_the_reader_gives_each_image_once_by_the_inputs_name():
    with task("calibrating", 4) as bar:
        reader = ImageReader(GOOD, "images", bar)
        given = list(reader)
    assert len(reader) == len(given) == 4
    assert {tuple(feed) for feed in given} == {("images",)}
    np.testing.assert_array_equal(np.concatenate([feed["images"] for feed in given]), GOOD)
    assert reader.get_next() is None


def test_the_reader_goes_on_within_a_range():
    with task("calibrating", 4) as bar:
        reader = ImageReader(GOOD, "images", bar)
        reader.set_range(start_index=2, end_index=4)
        np.testing.assert_array_equal(np.concatenate([feed["images"] for feed in reader]), GOOD[2:])


def test_good_sets_pass():
    check_images(GOOD, model())
    check_images(GOOD.astype(np.float32), model(TensorProto.FLOAT, ("batch", "height", "width", 3)))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (GOOD[:0], "The calibration set is empty"),
        (
            GOOD.astype(np.float32),
            r"is float32 \[4, 8, 6, 3\], and the model's input 'images' takes uint8 \[images, 8, 6",
        ),
        (GOOD.transpose(0, 3, 1, 2), r"is uint8 \[4, 3, 8, 6\]"),
        (GOOD[0], r"is uint8 \[8, 6, 3\]"),
        (np.full_like(GOOD, 255), "Every value of the 4 calibration images is 255"),
    ],
    ids=["empty", "type", "order", "one image", "single value"],
)
def test_bad_sets_are_refused_by_name(images, message):
    with pytest.raises(UserError, match=message):
        check_images(images, model())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(bad):
    images = GOOD.astype(np.float32)
    images[2, 0, 0, 0] = bad
    with pytest.raises(UserError, match="1 of 4 calibration images hold NaN or infinity"):
        check_images(images, model(TensorProto.FLOAT))


def test_picks_are_balanced_reproducible_and_real():
    labels = np.array([0] * 50 + [1] * 30 + [2] * 3)
    index = pick(labels, 23, seed=1)
    assert np.bincount(labels[index]).tolist() == [10, 10, 3]
    assert len(set(index.tolist())) == 23
    np.testing.assert_array_equal(index, np.sort(index))
    np.testing.assert_array_equal(index, pick(labels, 23, seed=1))
    assert index.tolist() != pick(labels, 23, seed=2).tolist()


def test_a_pick_of_more_than_there_are_takes_all():
    np.testing.assert_array_equal(pick(np.array([0, 1, 1]), 10, seed=0), [0, 1, 2])


def test_a_set_of_a_single_class_is_refused_by_its_name():
    check_classes(np.array([1, 0, 1]), ["cat", "dog"])
    check_classes(np.array([0, 0]), ["only"])  # there is no other
    with pytest.raises(UserError, match="All 3 calibration images are of the class 'dog', one of 2"):
        check_classes(np.array([1, 1, 1]), ["cat", "dog"])
