from pathlib import Path

import numpy as np
import pytest

from kdeploy import sources
from kdeploy.errors import Unavailable, UserError
from kdeploy.recipe.schema import DataSpec
from kdeploy.sources.sklearn_digits import load


def test_all_1797_digits_are_there() -> None:
    source = load(DataSpec(), "", Path())
    assert source.test is None
    assert source.train.images.shape == (1797, 8, 8, 1)
    assert source.train.images.dtype == np.uint8
    assert source.train.classes == tuple("0123456789")
    assert np.bincount(source.train.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert sorted(np.unique(source.train.images))[:3] == [0, 16, 32]
    assert source.train.images.max() == 255


def test_the_first_digit_is_a_zero() -> None:
    images = load(DataSpec(), "", Path()).train
    assert images.labels[0] == 0
    assert images.images[0, 0, :, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]


def test_splits_hold_ten_and_twenty_per_cent() -> None:
    splits = sources.load(DataSpec(), base=Path())
    assert len(splits.test) == pytest.approx(0.2 * 1797, abs=5)
    assert len(splits.validation) == pytest.approx(0.08 * 1797, abs=5)
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 1797


def test_without_scikit_learn_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(Unavailable, match=r"pip install 'kdeploy\[train\]'"):
        load(DataSpec(), "", Path())


@pytest.mark.parametrize("extra", [{"root": "somewhere"}, {"options": {"n_class": 5}}])
def test_what_it_does_not_take_is_refused(extra: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"data\.(root|options)"):
        load(DataSpec.model_validate(extra), "", Path())
