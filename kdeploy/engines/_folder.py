"""The engine folder: a manifest beside the files that it vouches for by SHA-256."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdeploy import artifacts
from kdeploy.engines.base import MANIFEST, Manifest
from kdeploy.errors import UserError


def read_manifest(folder: Path) -> Manifest:
    """Read `manifest.json` and check each file that it names: inside the folder, there, and unchanged.

    Raises UserError that names the key or the file that is wrong.
    """
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder} is not an engine folder: it has no {MANIFEST}.")
    manifest = _parse(folder / MANIFEST)
    for name, expected in manifest.files.items():
        _verify(folder, name, expected)
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` whole or not at all."""
    artifacts.write_json(folder / MANIFEST, manifest.model_dump(mode="json"))


def copy_in(source: Path, folder: Path, name: str) -> None:
    """Copy `source` into the folder under `name`, whole or not at all."""
    if not source.is_file():
        raise UserError(f"There is no file {source}.")
    with artifacts.atomic_path(folder / name) as temporary:
        shutil.copyfile(source, temporary)


def complete(
    folder: Path, manifest: Manifest, *, engine: str, files: Sequence[str], details: dict[str, Any]
) -> Manifest:
    """Fill in what the build has settled, write the manifest, and return it. The first of `files` is the model."""
    completed = manifest.model_copy(
        update={
            "engine": engine,
            "model": files[0],
            "files": {name: artifacts.sha256_file(folder / name) for name in files},
            "size_bytes": sum(artifacts.size_bytes(folder / name) for name in files),
            "details": {**manifest.details, **details},
        }
    )
    write_manifest(folder, completed)
    return completed


def _parse(path: Path) -> Manifest:
    content = artifacts.read_json(path)
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise UserError(f"{path} is not a manifest that this kdeploy can read: {key}: {first['msg']}.") from None
    if manifest.model not in manifest.files:
        raise UserError(f"{path}: model is {manifest.model!r}, which is not among its files.")
    return manifest


def _verify(folder: Path, name: str, expected: str) -> None:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{folder / MANIFEST} names the file {name!r}, which is outside its folder; it was refused.")
    if not path.is_file():
        raise UserError(f"The file {name} of the engine {folder} is missing. Build or copy the engine again.")
    found = artifacts.sha256_file(path)
    if found != expected:
        raise UserError(
            f"The file {name} of the engine {folder} is not the one that was built: its SHA-256 is {found[:12]}…, "
            f"the manifest says {expected[:12]}…. Build or copy the engine again."
        )
