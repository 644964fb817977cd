import numpy as np
import pytest

from kdeploy.errors import UserError
from kdeploy.sources.labelling import HIDDEN, Labelled, draw, hide
from tests.sources.conftest import image_set


def drawn(*counts: int, share: float = 0.2, estimation: float = 0.25, seed: int = 0) -> Labelled:
    return draw(image_set(*counts), share, estimation, np.random.default_rng(seed))


def test_each_class_has_labels_in_the_share_and_some_are_kept_from_the_teacher() -> None:
    labels = image_set(100, 60, 20).labels
    found = drawn(100, 60, 20)
    assert np.bincount(labels[found.all]).tolist() == [20, 12, 4]
    assert np.bincount(labels[found.estimation]).tolist() == [5, 3, 1]
    assert np.bincount(labels[found.taught]).tolist() == [15, 9, 3]
    assert sorted([*found.taught, *found.estimation]) == found.all.tolist() == sorted(set(found.all.tolist()))
    for part in (found.taught, found.estimation):
        assert part.tolist() == sorted(part.tolist())


def test_the_seed_alone_decides() -> None:
    assert np.array_equal(drawn(40, 40).all, drawn(40, 40).all)
    assert not np.array_equal(drawn(40, 40).all, drawn(40, 40, seed=1).all)


def test_a_smaller_share_is_part_of_a_larger_one() -> None:
    assert set(drawn(40, 40, share=0.1).all) < set(drawn(40, 40, share=0.3).all)


def test_nothing_is_kept_from_the_teacher_where_nobody_asks() -> None:
    found = drawn(40, 40, estimation=0)
    assert len(found.estimation) == 0
    assert np.array_equal(found.taught, found.all)


@pytest.mark.parametrize(("estimation", "kept"), [(0.01, 1), (0.99, 3)])
def test_each_class_has_an_image_of_both_kinds(estimation: float, kept: int) -> None:
    found = drawn(20, 20, estimation=estimation)
    assert (len(found.estimation), len(found.taught)) == (2 * kept, 8 - 2 * kept)


def test_a_share_that_leaves_a_class_empty_is_refused_with_one_that_does_not() -> None:
    with pytest.raises(UserError) as caught:
        drawn(400, 30, share=0.01)
    assert str(caught.value) == (
        "Of the 30 training images of the class 'class 1', 0 would have a label, and each class needs one to learn "
        "from and one to estimate by: set distill.procedure_options.labelled to 0.0667 or more."
    )
    assert np.bincount(image_set(400, 30).labels[drawn(400, 30, share=0.0667).all])[1] == 2
    with pytest.raises(UserError, match=r"1 would have a label, .* set .* to 0.0667 or more"):
        drawn(400, 30, share=0.04)
    assert len(drawn(400, 30, share=0.04, estimation=0).all) == 17


def test_a_class_that_no_share_helps_is_named() -> None:
    with pytest.raises(UserError, match=r"^The class 'class 1' has 2 training image.s.; each class needs one to learn"):
        drawn(40, 2)


def test_hidden_labels_are_in_no_part_of_what_is_shown() -> None:
    images = image_set(5, 5)
    shown = hide(images, np.array([1, 7]))
    assert shown.labels.tolist() == [HIDDEN, 0, *[HIDDEN] * 5, 1, HIDDEN, HIDDEN]
    assert shown.images is images.images
    assert images.labels.tolist() == [0] * 5 + [1] * 5
