import numpy as np
import pytest

from kdeploy.errors import UserError
from kdeploy.recipe.schema import DataSpec
from kdeploy.sources.base import ImageSet, Source
from kdeploy.sources.splits import balanced_subset, split, stratified_cut
from tests.sources.conftest import image_set


def numbers(images: ImageSet) -> list[int]:
    pixels = images.images.astype(int)
    return (pixels[:, 0, 0, 0] * 256 + pixels[:, 0, 1, 0]).tolist()


def test_the_three_parts_share_nothing_and_lose_nothing() -> None:
    splits = split(Source(image_set(100, 50, 30), None), DataSpec(test=0.2, validation=0.1))
    parts = [numbers(part) for part in (splits.train, splits.validation, splits.test)]
    assert sorted(number for part in parts for number in part) == list(range(180))
    assert all(part == sorted(part) for part in parts)


def test_each_part_has_each_class_in_its_share() -> None:
    splits = split(Source(image_set(100, 50, 30), None), DataSpec(test=0.2, validation=0.1))
    assert np.bincount(splits.test.labels).tolist() == [20, 10, 6]
    assert np.bincount(splits.validation.labels).tolist() == [8, 4, 2]
    assert np.bincount(splits.train.labels).tolist() == [72, 36, 22]


def test_a_test_split_of_the_source_is_left_whole() -> None:
    test = image_set(3, 3)
    splits = split(Source(image_set(10, 10), test), DataSpec(validation=0.1))
    assert splits.test is test
    assert len(splits.train) == 18


def test_the_seed_alone_decides() -> None:
    source = Source(image_set(40, 40), None)
    one, again, other = (split(source, DataSpec(split_seed=seed)) for seed in (3, 3, 4))
    assert numbers(one.validation) == numbers(again.validation)
    assert numbers(one.test) == numbers(again.test)
    assert numbers(one.test) != numbers(other.test)


def test_a_rare_class_gets_one_validation_image() -> None:
    rest, cut = stratified_cut(image_set(100, 2).labels, ("a", "b"), 0.1, np.random.default_rng(0))
    labels = image_set(100, 2).labels
    assert np.bincount(labels[cut]).tolist() == [10, 1]
    assert np.bincount(labels[rest]).tolist() == [90, 1]


def test_a_class_of_one_image_is_named() -> None:
    with pytest.raises(UserError, match="'class 1' has 1 training image"):
        split(Source(image_set(10, 1), None), DataSpec())


def test_limit_takes_the_same_number_of_each_class() -> None:
    splits = split(Source(image_set(100, 50, 30), image_set(2, 2, 2)), DataSpec(validation=0.1, limit=31))
    assert np.bincount(splits.train.labels).tolist() == [11, 10, 10]
    assert set(numbers(splits.train)).isdisjoint(numbers(splits.validation))


def test_limit_fills_up_from_larger_classes_where_one_is_small() -> None:
    labels = image_set(100, 50, 5).labels
    chosen = balanced_subset(labels, 3, 61, np.random.default_rng(0))
    assert np.bincount(labels[chosen]).tolist() == [28, 28, 5]
    assert len(set(chosen.tolist())) == 61


def test_a_limit_above_the_data_keeps_all() -> None:
    assert len(split(Source(image_set(10, 10), image_set(2, 2)), DataSpec(limit=1000)).train) == 18


def test_a_limit_below_one_a_class_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.limit is 2"):
        split(Source(image_set(10, 10, 10), None), DataSpec(limit=2))
