"""The same verb on another target: its words and files go there, what it prints and writes comes home."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
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
        self._others: dict[Path, str] = {}

    def take(self, path: Path) -> str:
        """A file, or all of a folder, goes along; its path there."""
        there = self.place(path)
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
        """A file or a folder will come home; its path there."""
        there = self.place(path)
        self.outputs[there] = path
        return there

    def place(self, path: Path) -> str:
        """The same path where it lies within the current folder, so that messages read the same."""
        if not path.is_absolute() and ".." not in path.parts:
            return str(path)
        last = "/".join(path.resolve().parts[-2:])  # `engines` says what the folder in it is
        return self._others.setdefault(path, f"{_OTHER}/{len(self._others)}/{last}")

    def named_as_here(self, text: str) -> str:
        """Paths in what was printed there, as they are here."""
        for path, there in self._others.items():
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
    """Everything is here by now: each file takes its place."""
    for there, path in done.files.items():
        output = next(name for name in luggage.outputs if there == name or there.startswith(f"{name}/"))
        home = luggage.outputs[output]
        target = home if there == output else home / there[len(output) + 1 :]
        with artifacts.atomic_path(target) as temporary:
            shutil.copyfile(path, temporary)


def require_success(done: Done, luggage: Luggage, target: Target) -> None:
    """Raise here what it ended with there."""
    err = luggage.named_as_here(done.err)
    if done.status == 0:
        return
    said, _, last = err.rpartition("kdeploy: ")
    if done.status == 1:  # a bug of ours: its traceback is what a report needs
        stderr.out(f"On {target.text}:\n{err}", highlight=False)
        sys.exit(1)
    error = KdeployError(f"{target.text}: {last.strip() or said.strip()}")
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
