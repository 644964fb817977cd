"""What a bundle says of itself, and the names that its parts may have."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SUFFIX = ".kdz"
INDEX = "bundle.json"
ENGINE = "engine/"
SCHEMA_VERSION = 1
SEAL_BYTES = 64
"""The archive's comment: the SHA-256, in hexadecimal, of every byte before it."""
MAX_INDEX_BYTES = 4 << 20
MAX_PARTS = 1000

_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"
_NAME = re.compile(rf"{ENGINE}{_SEGMENT}(/{_SEGMENT})*")


class Part(BaseModel):
    """A file of the bundle."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)


class BundleInfo(BaseModel):
    """The bundle's index, `bundle.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    name: str
    created: str
    """When the engine was built (UTC, ISO 8601); so the same engine always packs to the same bytes."""
    kdeploy: str
    """Version that packed it."""
    engine: str
    """The engine's row: onnxruntime-int8, ..."""
    provenance: dict[str, Any]
    """From teacher to engine: revisions, seeds, and the SHA-256 of each artefact."""
    parts: dict[str, Part]
    """Every other file, by its name in the archive."""

    @property
    def size_bytes(self) -> int:
        """Bytes of all parts together."""
        return sum(part.size_bytes for part in self.parts.values())


def safe_name(name: str) -> bool:
    """Whether a part may have this name: a plain relative path under `engine/`, letters, digits and `_.+-`."""
    return _NAME.fullmatch(name) is not None
