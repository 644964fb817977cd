"""The same verb on another target: its words and files go there, what it prints and writes comes home."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from kdeploy import artifacts
from kdeploy.cli.console import stderr, stdout
from kdeploy.cli.output import ONLY_JSON, talking, write
from kdeploy.errors import KdeployError, UserError

if TYPE_CHECKING:
    from kdeploy.targets import Target
    from kdeploy.targets.session import Done

_OTHER = "other"
"""Where files and results lie there whose path here does not lie within the current folder."""


class Luggage:
    """What a verb needs there and what it will write, with the paths that they have there."""

    def __init__(self) -> None:
        self.files: dict[str, Path] = {}
        self.outputs: dict[str, Path] = {}
        self._others: dict[str, Path] = {}

    def take(self, path: Path, named: str | None = None) -> str:
        """A file, or all of a folder, goes along; its path there, which ends in `named` where that says something."""
        there = self.place(path, named)
        if path.is_file():
            self.files[there] = path
        elif path.is_dir():
            self.put({f"{there}/{file.relative_to(path)}": file for file in path.rglob("*") if file.is_file()})
        else:
            raise UserError(f"There is no {path}.")
        return there

    def put(self, files: Mapping[str, Path]) -> None:
        """Files go along, by their paths there."""
        self.files.update(files)

    def await_(self, path: Path) -> str:
        """A file or a folder will come home; its path there, where nothing lies that was sent.

        Raises UserError where it can't be written here: that is better known before than after the work.
        """
        place = next(folder for folder in [path, *path.absolute().parents] if folder.exists())
        if not os.access(place, os.W_OK):
            raise UserError(f"{path} can't be written: {place} is not yours to write.")
        there = f"{_OTHER}/{len(self._others)}/{path.name or 'results'}"
        self._others[there] = path
        self.outputs[there] = path
        return there

    def place(self, path: Path, named: str | None = None) -> str:
        """The same path where it lies within the current folder, so that messages read the same."""
        known = [there for there, other in self._others.items() if other == path and there not in self.outputs]
        if known:
            return known[0]
        if named is None and not path.is_absolute() and ".." not in path.parts:
            return str(path)
        last = named or "/".join(Path(os.path.abspath(path)).parts[-2:])  # noqa: PTH100 - a link keeps its name
        there = f"{_OTHER}/{len(self._others)}/{last.lstrip('/')}"
        self._others[there] = path
        return there

    def named_as_here(self, text: str) -> str:
        """Paths in what was printed there, as they are here."""
        for there, path in self._others.items():
            text = text.replace(there, str(path))
        return text


def words_of(context: typer.Context, replaced: Mapping[str, Sequence[str]]) -> list[str]:
    """The verb as it was typed, without --target; replaced: the values that parameters have there, by name."""
    found = [str(context.info_name)]
    arguments: list[str] = []
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name == "target" or source is None or source.name != "COMMANDLINE":
            continue
        value: Any = context.params[name]
        several = [str(one) for one in (value if isinstance(value, list | tuple) else [value])]
        if parameter.param_type_name == "argument":
            arguments += replaced.get(name, several)
        elif getattr(parameter, "is_flag", False):
            found.append((parameter.opts if value else parameter.secondary_opts)[0])
        else:
            found += [word for one in replaced.get(name, several) for word in (parameter.opts[0], one)]
    return [*found, *(["--", *arguments] if arguments else [])]


def carry_out(target: Target, words: Sequence[str], luggage: Luggage) -> None:
    """Do it there; write and print here what came of it, and end as it ended there."""
    with talking():
        done = fetch(target, words, luggage)
    if done.out:
        write(luggage.named_as_here(done.out).removesuffix("\n"))
    require_success(done, luggage, target)


def fetch(target: Target, words: Sequence[str], luggage: Luggage) -> Done:
    """Do it there; what it wrote lies here when this returns, whatever status it ended with."""
    from kdeploy.targets.session import Work, carried_out

    with carried_out(target, Work(words, luggage.files, list(luggage.outputs), _looks())) as done:
        _unpack(done, luggage)
    return done


def _unpack(done: Done, luggage: Luggage) -> None:
    """Everything is here by now: all files take their places, or none where one can't be written."""
    with ExitStack() as stack:
        for there, path in done.files.items():
            output = next(name for name in luggage.outputs if there == name or there.startswith(f"{name}/"))
            home = luggage.outputs[output]
            target = home if there == output else home / there[len(output) + 1 :]
            shutil.copyfile(path, stack.enter_context(artifacts.atomic_path(target)))


def require_success(done: Done, luggage: Luggage, target: Target) -> None:
    """Raise here what it ended with there."""
    err = luggage.named_as_here(done.err)
    if done.status == 0:
        return
    said, _, last = f"\n{err}".rpartition("\nkdeploy: ")  # ours is the last line that begins so
    if done.status == 1:  # a bug of ours: its traceback is what a report needs
        stderr.out(f"On {target.text}:\n{err}", highlight=False)
        sys.exit(1)
    silent = f"it ended with status {done.status} without a word. Is its disk full?"
    error = KdeployError(f"{target.text}: {last.strip() or said.strip() or silent}")
    error.exit_status = done.status
    raise error


def _looks() -> dict[str, str]:
    """The width and the colours of the terminal here, for what is printed there."""
    coloured = {"FORCE_COLOR": "1"} if stdout.is_terminal else {}
    return {"COLUMNS": str(stdout.width), **coloured, "LANG": os.environ.get("LANG", "C.UTF-8"), "PYTHONUTF8": "1"}


def common(luggage: Luggage, board: str | None, json_: str | None) -> dict[str, list[str]]:
    """The values there of options that verbs share: a board's profile that is a file goes along, as does a user's own;
    a JSON file comes home, and what goes to standard output does so by itself."""
    from kdeploy.machine import boards

    replaced = {}
    if board is not None:
        path = boards.file(board)
        replaced["board"] = [board if path.is_relative_to(Path(boards.__file__).parent) else luggage.take(path)]
    if json_ not in (None, ONLY_JSON):
        replaced["json_"] = [luggage.await_(Path(str(json_)))]
    return replaced
