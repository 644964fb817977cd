"""The kdeploy that runs here, as a wheel: a device gets exactly this one, whatever was published."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import kdeploy
from kdeploy.errors import UserError
from kdeploy.recipe.catalogue import shipped

_TAG = "py3-none-any"
_SAME_TIME = (1980, 1, 1, 0, 0, 0)


def write_wheel(folder: Path) -> Path:
    """Write our wheel into `folder`: the same bytes for the same code, so that it is sent once.

    Raises UserError where kdeploy runs from a folder without being installed, for then nothing says what it needs.
    """
    try:
        distribution = metadata.distribution("kdeploy")
    except metadata.PackageNotFoundError:
        raise UserError("kdeploy lies here without being installed: type pip install -e . in its folder.") from None
    name = f"kdeploy-{distribution.version}"
    about = f"{name}.dist-info"
    content = dict(_package())
    content[f"{about}/METADATA"] = (distribution.read_text("METADATA") or "").encode()
    content[f"{about}/entry_points.txt"] = (distribution.read_text("entry_points.txt") or "").encode()
    content[f"{about}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: kdeploy\nRoot-Is-Purelib: true\nTag: {_TAG}\n".encode()
    content[f"{about}/RECORD"] = "".join(f"{path},,\n" for path in [*content, f"{about}/RECORD"]).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in content.items():
            archive.writestr(zipfile.ZipInfo(path, _SAME_TIME), data, zipfile.ZIP_DEFLATED)
    target = folder / f"{name}-{_TAG}.whl"
    target.write_bytes(buffer.getvalue())
    return target


def requirements(extras: frozenset[str] = frozenset()) -> list[str]:
    """What the device side needs, as pip takes it, with that of these extras. Raises UserError for one there is not."""
    distribution = metadata.metadata("kdeploy")
    known = set(distribution.get_all("Provides-Extra") or [])
    for extra in extras - known:
        raise UserError(f"kdeploy has no extra {extra!r}. Choose from: {', '.join(sorted(known))}.")
    return sorted(_needed(extras))


def _needed(extras: frozenset[str]) -> Iterator[str]:
    for line in metadata.requires("kdeploy") or []:
        what, _, marker = line.partition(";")
        wanted = [extra for extra in extras if f"extra == '{extra}'" in marker.replace('"', "'")]
        if what.startswith("kdeploy[") and wanted:  # an extra that takes in others
            inner = what.partition("[")[2].partition("]")[0]
            yield from _needed(frozenset(name.strip() for name in inner.split(",")))
        elif not marker or wanted:
            yield what.strip()


def _package() -> Iterator[tuple[str, bytes]]:
    package = Path(kdeploy.__file__).parent
    recipes = shipped()
    beside = [(f"kdeploy/recipe/shipped/{path}", recipes / path) for path in _files(recipes)]
    inside = [(f"kdeploy/{path}", package / path) for path in _files(package) if not path.startswith("recipe/shipped/")]
    for name, file in sorted(inside + beside):
        yield name, file.read_bytes()


def _files(folder: Path) -> list[str]:
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return sorted(path.relative_to(folder).as_posix() for path in found)
