"""Recipes that are put together from one small file: every pair of networks times every method.

A `matrix.yaml` in a folder of the shipped recipes stands for `FOLDER/TEACHER-STUDENT/METHOD`, so that hundreds of
recipes that differ in a few settings are kept in one place, beside the figures that they are compared with.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

FILE = "matrix.yaml"
_METHOD_FIRST = ("procedure", "method", "weight", "cross_entropy", "options")
_UNSETTLED = "This pair's own settings were not to be found; these are the method's."


@dataclass(frozen=True)
class Cell:
    """A recipe without a file: it reads like one, and its name stands where a file's would in errors."""

    name: str
    text: str
    parent: Path
    """Where relative paths start."""

    def read_text(self, encoding: str = "utf-8") -> str:
        """The recipe as YAML; the encoding is a file's concern."""
        return self.text

    def __str__(self) -> str:
        return self.name


class Matrix:
    """The recipes of one `matrix.yaml`; `folder` is the first part of their names."""

    def __init__(self, file: Path, folder: str) -> None:
        self.file = file
        self.folder = folder
        self._content: Mapping[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))

    @property
    def about(self) -> str:
        return str(self._content["about"])

    @property
    def pattern(self) -> str:
        """How its recipes are called."""
        return f"{self.folder}/TEACHER-STUDENT/METHOD"

    @property
    def groups(self) -> Mapping[str, list[str]]:
        """The pairs `teacher-student`, by the name of their group."""
        groups: Mapping[str, list[str]] = self._content["pairs"]
        return groups

    @property
    def pairs(self) -> list[str]:
        return [pair for group in self.groups.values() for pair in group]

    @property
    def methods(self) -> list[str]:
        """What stands in the names: a method's name, or that of a variant or a sum, such as `kd-ls` and `crd-kd`."""
        return list(self._content["methods"])

    @property
    def elsewhere(self) -> Mapping[str, str]:
        """Methods that have no recipe here, and why."""
        reasons: Mapping[str, str] = self._content["elsewhere"]
        return reasons

    def names(self) -> list[str]:
        return [
            f"{self.folder}/{pair}/{method}"
            for pair in self.pairs
            for method in self.methods
            if self._hindrance(pair, method) is None
        ]

    def describe(self, name: str) -> str:
        """What the recipe of this name says of itself."""
        pair, method = name.split("/")[-2:]
        teacher, student = pair.split("-")
        alone = self._content["alone"]
        chosen = self._content["methods"][method]
        into = f"{teacher} ({alone[teacher]:.2f} % in the tables) into {student} ({alone[student]:.2f} % alone)"
        said = f"{self._content['title']}, {into} by {method}: {chosen['form']}."
        return said if pair in chosen.get("settled", [pair]) else f"{said} {_UNSETTLED}"

    def published(self, pair: str, method: str) -> dict[str, Any] | None:
        """The figure that the recipe is compared with, as its section `published`; None where none is known."""
        for table in self._content["published"]:
            if pair not in table["pairs"] or method not in table["rows"]:
                continue
            value = table["rows"][method][table["pairs"].index(pair)]
            if value is not None:
                mark = "recalled" if method in table.get("recalled", ()) else table["mark"]
                note = {"note": table["note"]} if "note" in table else {}
                about = {"table": table["table"], "protocol": table["protocol"], "mark": mark}
                return {"accuracy_percent": value, **about, **note}
        return None

    def cell(self, name: str) -> Cell:
        """The recipe of one of `names`."""
        pair, method = name.split("/")[-2:]
        teacher, student = pair.split("-")
        common = self._content["common"]
        published = self.published(pair, method)
        content = {
            "name": name.replace("/", "-"),
            "about": self.describe(name),
            "seed": common["seed"],
            "data": common["data"],
            "teacher": {"model": teacher, **common["teacher"]},
            "student": {"model": student},
            "distill": self._distill(pair, student, method),
            "engines": common["engines"],
            **({} if published is None else {"published": published}),
        }
        head = f"# kdeploy run {name}\n# Put together from {self.folder}/{FILE}.\n"
        return Cell(name, head + _to_yaml(content), self.file.parent)

    def refusal(self, reference: str) -> str:
        """Why a name that starts with the folder is none of `names`, and what to type instead, as a sentence."""
        pair, _, method = reference.removeprefix(f"{self.folder}/").partition("/")
        if pair not in self.pairs:
            return f"There is no pair {pair!r} in {self.folder}.{_closest(pair, self.pairs)}"
        if not method:
            example = f"{self.folder}/{pair}/{self.methods[0]}"
            return f"{reference!r} names a pair of networks, not a recipe: add a method, such as {example}."
        if (reason := self._hindrance(pair, method)) is not None:
            return f"There is no recipe {reference!r}: {reason}."
        return f"There is no recipe for {method!r} in {self.folder}/{pair}.{_closest(method, self.methods)}"

    def _hindrance(self, pair: str, method: str) -> str | None:
        """Why there is no recipe of this method for this pair; None where there is one, or no such method."""
        if method in self.elsewhere:
            return self.elsewhere[method]
        hindrance: str | None = self._content["methods"].get(method, {}).get("not_for", {}).get(pair)
        return hindrance

    def _distill(self, pair: str, student: str, method: str) -> dict[str, Any]:
        chosen = self._content["methods"][method]
        distill = dict(self._content["common"]["distill"])
        for settings in (
            self._content["students"].get(student),
            chosen["distill"],
            chosen.get("students", {}).get(student),
            chosen.get("settled", {}).get(pair),
            chosen.get("pairs", {}).get(pair),
        ):
            distill = _merged(distill, settings or {})
        if (taps := self._taps(pair, method)) is not None:
            distill["taps"] = taps
        first = {key: distill[key] for key in _METHOD_FIRST if key in distill}
        return {**first, **distill}

    def _taps(self, pair: str, method: str) -> dict[str, list[str]] | None:
        """The stages that the pair names by hand, for methods that look at them; None: the automatic ones."""
        by_hand = self._content["taps"]
        if pair not in by_hand["pairs"] or method not in by_hand["methods"]:
            return None
        teacher, student = pair.split("-")
        return {"student": by_hand["stages"][student], "teacher": by_hand["stages"][teacher]}


def find(folder: Path) -> list[Matrix]:
    """The matrices in a folder of recipes."""
    return [_read(file, file.parent.relative_to(folder).as_posix()) for file in sorted(folder.rglob(FILE))]


@lru_cache
def _read(file: Path, folder: str) -> Matrix:
    return Matrix(file, folder)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`; mappings are merged, all else is replaced."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _closest(name: str, known: list[str]) -> str:
    """The nearest of many names, or where they are listed."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else " `kdeploy recipes` lists what there is."


class _Dumper(yaml.SafeDumper):
    """Writes what several sections share out in each."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _to_yaml(content: Mapping[str, Any]) -> str:
    text: str = yaml.dump(
        content, Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True, width=110
    )
    return text
