"""Board profiles: one YAML file each, here or in a folder of the user's; a new board is a new file.

A user's own lie in `$XDG_CONFIG_HOME/kdeploy/boards` (`~/.config/kdeploy/boards`), and stand before ours of the same
name; a path that ends in `.yaml` is one, too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from kdeploy.errors import UserError, nearest
from kdeploy.machine.boards.schema import Board, Recognised


def names() -> list[str]:
    """Those that `find` knows by name."""
    return sorted(_files())


def find(reference: str) -> Board:
    """A profile by its name, or by the path of its file. Raises UserError where it is neither, or can't be read."""
    return _read(file(reference))


def file(reference: str) -> Path:
    """Where the profile lies that is meant. Raises UserError for a name that there is not."""
    if reference.endswith((".yaml", ".yml")):
        return Path(reference)
    files = _files()
    if reference not in files:
        raise UserError(
            f"There is no board {reference!r}.{nearest(reference, files)} Known: {', '.join(sorted(files))}; a file "
            "of your own goes by its path."
        )
    return files[reference]


def recognise(machine: Mapping[str, Any]) -> Board | None:
    """The profile of the machine with this fingerprint; one that knows the board itself before one of its processor."""
    known = [found for found in map(find, names()) if _fits(found.recognised_by, machine)]
    return max(known, key=lambda found: found.recognised_by.board is not None, default=None)


def _fits(by: Recognised, machine: Mapping[str, Any]) -> bool:
    sets = set(machine.get("instruction_sets", ()))
    return (
        (by.board is None or re.match(by.board, machine.get("board") or "") is not None)
        and by.architecture in (None, machine.get("architecture"))
        and (not by.any_of or not sets.isdisjoint(by.any_of))
        and sets.isdisjoint(by.none_of)
    )


def _files() -> dict[str, Path]:
    configured = os.environ.get("XDG_CONFIG_HOME")
    own = (Path(configured) if configured else Path.home() / ".config") / "kdeploy" / "boards"
    return {path.stem: path for folder in (Path(__file__).parent, own) for path in sorted(folder.glob("*.yaml"))}


def _read(path: Path) -> Board:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Board.model_validate({"name": path.stem, **content} if isinstance(content, dict) else content)
    except OSError as error:
        raise UserError(f"The board's profile {path} cannot be read: {error.strerror}.") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"The board's profile {path} is no YAML: {' '.join(str(error).split())}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"The board's profile {path}: {where}: {first['msg']}.") from None
