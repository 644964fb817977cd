"""What every part of a recipe is."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]


class Spec(BaseModel):
    """A part of a recipe: frozen, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


_Spec = TypeVar("_Spec", bound=Spec)


def part(kind: type[_Spec], of: _Spec) -> _Spec:
    """The part of a recipe that is of this kind, without what a kind built on it adds: of `distill`, the training."""
    return kind(**{name: getattr(of, name) for name in kind.model_fields})
