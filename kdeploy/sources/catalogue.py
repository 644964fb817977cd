"""The catalogue of sources, which is this folder's listing, and the way from a recipe to three splits.

A source is one file here: its name is the file's, with hyphens for underscores. It gives

- `USAGE`, how a recipe writes it: the name, and what follows it after colons;
- `load(spec, name, base) -> Source`, where `name` is what follows the first colon and `base` is the folder
  that relative paths start from;
- `load_test(spec, name, base) -> ImageSet`, the test split alone, where it can be had without opening a single training
  image; a source that cannot do that has no such function.
"""

from __future__ import annotations

import hashlib
import json
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np

from kdeploy.errors import UserError, nearest
from kdeploy.recipe.schema import DataSpec
from kdeploy.sources.base import ImageSet, Source, Splits
from kdeploy.sources.checks import validate, validate_source
from kdeploy.sources.resize import resize, resized
from kdeploy.sources.splits import split

_HELPERS = {
    "base",
    "catalogue",
    "checks",
    "decode",
    "labelling",
    "pictures",
    "resize",
    "splits",
    "state",
    "synthesised",
    "tree",
}
_CHUNK = 512


def names() -> tuple[str, ...]:
    """The names of all sources, sorted; nothing is imported."""
    files = {path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_")}
    return tuple(sorted(stem.replace("_", "-") for stem in files - _HELPERS))


def usages() -> tuple[str, ...]:
    """How a recipe writes each source, in the order of `names`."""
    return tuple(str(_module(name).USAGE) for name in names())


def check(source: str) -> None:
    """Raise a UserError unless `source` is one that a recipe can name. Loads no data and no heavy library."""
    kind = source.partition(":")[0]
    if kind not in names():
        raise UserError(f"There is no data source {kind!r}.{nearest(kind, names())}")
    usage = str(_module(kind).USAGE)
    parts = source.split(":")
    if len(parts) != len(usage.split(":")) or not all(parts):
        raise UserError(f"The data source {source!r} must be written {usage}.")


def load(spec: DataSpec, *, base: Path, training_images: bool = True) -> Splits:
    """Load what `spec` names and split it; relative paths start from `base`.

    training_images: False for a procedure that must not see them: they are never opened, and train and validation are
    empty.

    Raises a UserError for data that is missing, broken or does not fit together, and Unavailable where a
    library that the source needs is not installed.
    """
    check(spec.source)
    kind, _, name = spec.source.partition(":")
    if not training_images:
        check_test_alone(spec.source)
        test: ImageSet = _module(kind).load_test(spec, name, base)
        validate(test, f"{spec.source}, test")
        return Splits.test_alone(resized(test, spec.size))
    source: Source = _module(kind).load(spec, name, base)
    validate_source(source, spec.source)
    return split(resize(source, spec.size), spec)


def check_test_alone(source: str) -> None:
    """Raise a UserError for a source whose test split cannot be had without opening its training images."""
    kind = source.partition(":")[0]
    if not hasattr(_module(kind), "load_test"):
        able = ", ".join(str(_module(name).USAGE) for name in names() if hasattr(_module(name), "load_test"))
        raise UserError(
            f"The test images of {source} cannot be had without opening its training images, which this procedure must "
            f"not do: take a source that keeps them apart ({able})."
        )


def fingerprint(splits: Splits) -> str:
    """The SHA-256 over images, labels and classes of the three splits, in hexadecimal."""
    digest = hashlib.sha256()
    for part in (splits.train, splits.validation, splits.test):
        header = {"shape": part.images.shape, "classes": part.classes}
        digest.update(json.dumps(header, sort_keys=True).encode())
        for start in range(0, len(part), _CHUNK):
            digest.update(np.ascontiguousarray(part.images[start : start + _CHUNK]).data)
        digest.update(part.labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _module(name: str) -> ModuleType:
    return import_module(f"kdeploy.sources.{name.replace('-', '_')}")
