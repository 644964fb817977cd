"""Options of engines, as a recipe gives them: checked by name, type and value without the runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from kdeploy.errors import UserError, nearest


class Options(BaseModel):
    """An engine's options, each with its default; as it stands: of an engine that has none."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


_Options = TypeVar("_Options", bound=Options)


def parse(kind: type[_Options], given: Mapping[str, Any], engine: str) -> _Options:
    """The options of an engine, those not given at their defaults. Raises UserError that names the first wrong one."""
    try:
        return kind.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = nearest(key, kind.model_fields) or " It has none."
        raise UserError(f"The engine {engine} has no option {key!r}.{known}")
    message = first["msg"].removeprefix("Value error, ")
    raise UserError(f"The option {key} of the engine {engine}: {message}." if key else f"{message}.")
