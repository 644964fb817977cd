from pathlib import Path

import numpy as np
import pytest

from kdeploy import sources
from kdeploy.errors import UserError
from kdeploy.recipe.schema import DataSpec
from kdeploy.sources.base import ImageSet, Source

MODULE = """
import numpy as np
from kdeploy.sources import ImageSet, Source

def stripes(count, dtype="uint8"):
    labels = np.arange(count) % 2
    images = np.zeros((count, 4, 4, 1), dtype=dtype)
    images[labels == 1, ::2] = 200
    return Source(ImageSet(images, labels.astype("int64"), ("plain", "stripes")), None)

def a_tuple():
    return 1, 2

def no_sets():
    return Source(train=None, test=None)

def broken():
    raise RuntimeError("their own")

constant = 3
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_data.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)


def spec(name: str, **options: object) -> DataSpec:
    return DataSpec(source=f"python:their_data:{name}", options=options)


def test_the_function_gets_the_options() -> None:
    splits = sources.load(spec("stripes", count=40), base=Path())
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [28, 4, 8]
    assert np.all(splits.test.images[splits.test.labels == 1, ::2] == 200)
    assert isinstance(splits.train, ImageSet)
    assert Source.__module__ == "kdeploy.sources.base"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            spec("stripes", count=40, dtype="float32"),
            "their_data:stripes, train: images are float32; scale them to 0..255",
        ),
        (spec("stripes", number=40), r"cannot be called with data\.options \['number'\]"),
        (spec("a_tuple"), r"must return a kdeploy\.sources\.Source, not tuple"),
        (spec("no_sets"), "train must be"),
        (spec("constant"), "is not a function, but int"),
        (spec("missing"), "has no 'missing'"),
        (DataSpec(source="python:no_such_module:f"), "no module 'no_such_module'"),
        (DataSpec(source="python:their_data:stripes", root="x"), r"takes no data\.root"),
    ],
)
def test_wrong_answers_are_named(data: DataSpec, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sources.load(data, base=Path())


def test_their_own_exceptions_pass_through() -> None:
    with pytest.raises(RuntimeError, match="their own"):
        sources.load(spec("broken"), base=Path())
