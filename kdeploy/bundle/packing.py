"""An engine folder to one `.kdz` file.

The file is a zip archive, its parts stored as they are (a quantised network hardly compresses, and what is not
compressed cannot be a decompression bomb). Entries are sorted and carry no clock, so the same engine and
provenance give the same bytes. The archive's comment seals it: the SHA-256 of every byte before it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
import zipfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import kdeploy
from kdeploy.artifacts import atomic_path, sha256_file
from kdeploy.bundle.info import ENGINE, INDEX, SEAL_BYTES, BundleInfo, Part, safe_name
from kdeploy.engines import read_manifest
from kdeploy.engines.base import MANIFEST
from kdeploy.errors import UserError


def pack(engine_folder: Path, target: Path, *, name: str, provenance: dict[str, Any]) -> BundleInfo:
    """Pack a built engine into the bundle `target`, whole or not at all; what the manifest lists and nothing else.

    provenance: JSON-able. Raises a UserError where the folder holds no engine or a damaged one.
    """
    manifest = read_manifest(engine_folder)
    files = {ENGINE + file: engine_folder / file for file in sorted({MANIFEST, *manifest.files})}
    for part in files:
        if not safe_name(part):
            raise UserError(f"{engine_folder}: a bundle cannot hold a file of the name {part.removeprefix(ENGINE)!r}.")
    built_at = datetime.fromtimestamp(int((engine_folder / MANIFEST).stat().st_mtime), timezone.utc)
    info = BundleInfo(
        name=name,
        created=built_at.isoformat(),
        kdeploy=kdeploy.__version__,
        engine=f"{manifest.engine}-{manifest.precision}",
        provenance=provenance,
        parts={part: Part(sha256=sha256_file(file), size_bytes=file.stat().st_size) for part, file in files.items()},
    )
    with atomic_path(target) as temporary:
        _write_archive(temporary, info, files)
        _seal(temporary)
    return info


def _write_archive(target: Path, info: BundleInfo, files: dict[str, Path]) -> None:
    index = json.dumps(info.model_dump(), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_entry(INDEX), index.encode())
        for part, file in files.items():
            entry = _entry(part)
            entry.file_size = file.stat().st_size
            with file.open("rb") as source, archive.open(entry, "w") as stream:
                shutil.copyfileobj(source, stream)
        archive.comment = b"0" * SEAL_BYTES


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.create_system = 3  # Unix, so that the file mode below is read
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    return entry


def _seal(archive: Path) -> None:
    """Write the SHA-256 of all that comes before it over the archive's comment."""
    with archive.open("r+b") as stream:
        content_bytes = archive.stat().st_size - SEAL_BYTES
        digest = hashlib.sha256()
        while content_bytes:
            chunk = stream.read(min(1 << 20, content_bytes))
            digest.update(chunk)
            content_bytes -= len(chunk)
        stream.write(digest.hexdigest().encode())
