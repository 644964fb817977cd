"""WebDataset shards: tar files in which the files of one sample share a name and differ in their extension.

    source: webdataset:train-{000..009}.tar, root: ./shards, options: {test: "test-*.tar"}

    000017.jpg   the picture
    000017.cls   its class: a number, or a name

Shards are read by position with the standard library, without the `webdataset` package: its order is that of the
shards, and training here draws its own; it also runs shell commands (`pipe:`) and unpickles, neither of which a data
set should be able to ask for.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from kdeploy import events
from kdeploy.errors import UserError
from kdeploy.recipe.schema import DataSpec
from kdeploy.sources.base import ImageSet, Source
from kdeploy.sources.checks import known_options, root_path
from kdeploy.sources.decode import Picture, open_image
from kdeploy.sources.pictures import read
from kdeploy.sources.state import of_file, together
from kdeploy.sources.tree import FILE_LIMIT_BYTES, SUFFIXES

USAGE = "webdataset:<pattern>"
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_LABEL_LIMIT_BYTES = 1024


def load(spec: DataSpec, name: str, base: Path) -> Source:
    """The samples of all shards under `data.root` that match the pattern, in order.

    A pattern may hold `*`, `?` and ranges such as `{000..009}`. `data.options`: `test`, the pattern of the test
    shards; `label`, the extension of the file with the class (cls); `classes`, the names of the classes 0, 1, ...
    Raises a UserError for shards that are missing, compressed or cut off, and for samples without picture or class.
    """
    known_options(spec, ("test", "label", "classes"))
    root = root_path(spec, base)
    extension = str(spec.options.get("label", "cls")).lstrip(".")
    patterns = {"train": name, "test": spec.options.get("test")}
    shards = {part: _shards(root, str(pattern)) for part, pattern in patterns.items() if pattern is not None}
    samples: dict[str, list[_Sample]] = {}
    with events.task("reading shards", sum(len(paths) for paths in shards.values())) as bar:
        for part, paths in shards.items():
            samples[part] = []
            for path in paths:
                samples[part] += _samples(path, extension)
                bar.advance()
    texts = {part: [sample.label(extension) for sample in found] for part, found in samples.items()}
    classes, numbers = _classes(spec, [text for part in texts.values() for text in part])
    sets = {}
    for part, found in samples.items():
        pictures = [Picture(sample.where, partial(_open, sample.picture())) for sample in found]
        state = together([of_file(path) for path in shards[part]], extension)
        images, kept = read(pictures, spec, state)
        labels = np.array([numbers[text] for text in texts[part]], dtype=np.int64)
        sets[part] = ImageSet(images, labels[kept], classes)
    return Source(sets["train"], sets.get("test"))


@dataclass(frozen=True)
class _Member:
    """A file in a shard: where its bytes lie."""

    shard: Path
    start: int
    size: int

    def read(self) -> bytes:
        """Its bytes; the shard is opened for it, so that any process can."""
        with self.shard.open("rb") as stream:
            return os.pread(stream.fileno(), self.size, self.start)


@dataclass(frozen=True)
class _Sample:
    """The files of one sample, by extension."""

    where: str
    files: dict[str, _Member] = field(default_factory=dict)

    def picture(self) -> _Member:
        """The file with the picture; a UserError unless there is exactly one, of a size to be believed."""
        found = [name for name in self.files if f".{name.rpartition('.')[2].lower()}" in SUFFIXES]
        if len(found) != 1:
            held = ", ".join(sorted(self.files))
            raise UserError(f"{self.where} has {len(found) or 'no'} pictures; one is wanted, and it holds {held}.")
        member = self.files[found[0]]
        if member.size > FILE_LIMIT_BYTES:
            raise UserError(f"{self.where}.{found[0]} has {member.size} bytes, over {FILE_LIMIT_BYTES >> 20} MiB.")
        return member

    def label(self, extension: str) -> str:
        """The text of the file with the class."""
        member = self.files.get(extension)
        if member is None or member.size > _LABEL_LIMIT_BYTES:
            what = "no" if member is None else "too large a"
            held = ", ".join(sorted(self.files))
            raise UserError(
                f"{self.where} has {what} file .{extension} with its class; set data.options.label to the extension "
                f"that has it (it holds {held})."
            )
        return member.read().decode("utf-8", errors="replace").strip()


def _open(member: _Member) -> Image.Image:
    return open_image(member.read())


def _shards(root: Path, pattern: str) -> list[Path]:
    """The files that a pattern names, sorted; a UserError where one is missing or there are none."""
    paths: list[Path] = []
    for each in _expanded(pattern):
        if Path(each).is_absolute() or ".." in Path(each).parts:
            raise UserError(f"The shards {each} must lie in data.root ({root}): name them from there.")
        found = sorted(path for path in root.glob(each) if path.is_file())
        if not found:
            raise UserError(f"There is no shard {root / each}.")
        paths += found
    return paths


def _expanded(pattern: str) -> Iterable[str]:
    """`a-{08..10}.tar` as a-08.tar, a-09.tar, a-10.tar."""
    match = _RANGE.search(pattern)
    if match is None:
        return [pattern]
    first, last = match.groups()
    numbers = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    return [
        each for number in numbers for each in _expanded(pattern[: match.start()] + number + pattern[match.end() :])
    ]


def _samples(shard: Path, label: str) -> list[_Sample]:
    """The samples of a shard: neighbouring files whose names are the same up to the first dot of the last part."""
    samples: list[_Sample] = []
    last = None
    try:
        with tarfile.open(shard, "r:") as archive:
            for entry in archive:
                folder, slash, name = entry.name.rpartition("/")
                stem, dot, extension = name.partition(".")
                if not entry.isreg() or entry.issparse() or not stem or not dot:
                    continue
                if folder + slash + stem != last:
                    last = folder + slash + stem
                    samples.append(_Sample(f"{shard}:{last}"))
                samples[-1].files[extension] = _Member(shard, entry.offset_data, entry.size)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"{shard} is not a whole, uncompressed tar file: {error}.") from None
    if not samples:
        raise UserError(f"{shard} holds no samples (files such as 000000.jpg and 000000.{label}).")
    end = shard.stat().st_size
    if any(member.start + member.size > end for sample in samples for member in sample.files.values()):
        raise UserError(f"{shard} was cut off: it declares more than its {end} bytes.")
    return samples


def _classes(spec: DataSpec, texts: list[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """The names of the classes, and the number of each text that occurs: itself where all are numbers."""
    given = spec.options.get("classes")
    if given is not None and not (isinstance(given, list) and all(isinstance(name, str) for name in given)):
        raise UserError(f"data.options.classes must be a list of strings, not {given!r}.")
    occurring = set(texts)
    if all(text.isascii() and text.isdigit() for text in occurring):
        numbers = {text: int(text) for text in occurring}
        count = max(numbers.values()) + 1 if given is None else len(given)
        return tuple(given or map(str, range(count))), numbers
    names = tuple(given or sorted(occurring))
    if strange := occurring.difference(names):
        raise UserError(f"{spec.source}: data.options.classes does not have {sorted(strange)[0]!r}, which occurs.")
    return names, {name: number for number, name in enumerate(names)}
