"""The smallest trainings that are real: scikit-learn's digits, ResNet-8 at a quarter of its width, float32."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdeploy import sources
from kdeploy.recipe.schema import DataSpec, Recipe
from kdeploy.sources.base import Splits
from kdeploy.training.procedures.base import Workshop

DATA = {"source": "sklearn-digits", "limit": 150, "augment": {"crop": 1, "flip": False}}
TRAIN = {"epochs": 2, "batch": 32, "lr": 0.05, "precision": "float32"}
NETWORK = {"model": "resnet8", "width": 0.25}


def recipe(
    *, teacher: Mapping[str, Any] | None = None, distill: Mapping[str, Any] | None = None, **more: Any
) -> Recipe:
    """A recipe of two epochs; what is given is put over it."""
    return Recipe.model_validate(
        {
            "name": "tiny",
            "data": DATA,
            "teacher": {**NETWORK, "width": 0.5, "train": {**TRAIN, "epochs": 12, "lr": 0.1}, **(teacher or {})},
            "student": NETWORK,
            "distill": {**TRAIN, **(distill or {})},
            **more,
        }
    )


@cache
def splits() -> Splits:
    return sources.load(DataSpec.model_validate(DATA), base=Path())


def workshop(asked: Recipe, folder: Path, data: Splits | None = None) -> Workshop:
    return Workshop(
        recipe=asked, base=folder, networks=folder / "networks", splits=data or splits(), device=torch.device("cpu")
    )


def train(shop: Workshop, *roles: str) -> None:
    """Run the jobs of these roles."""
    from kdeploy.training import procedures

    for job in procedures.find(shop.recipe.distill.procedure).jobs(shop.recipe):
        if job.role in roles:
            job.run(shop)


class Interrupting:
    """A listener that interrupts the training called `label` after so many looks at its loss."""

    def __init__(self, label: str, after: int) -> None:
        self.label, self.left = label, after
        self.heard: list[str] = []

    def decided(self, what: str, value: str, why: str) -> None: ...

    def warned(self, text: str) -> None:
        self.heard.append(text)

    def said(self, text: str) -> None:
        self.heard.append(text)

    @contextmanager
    def task(self, description: str, total: int | None) -> Iterator[_Bar]:
        yield _Bar(self if description == self.label else None)


class _Bar:
    def __init__(self, owner: Interrupting | None) -> None:
        self.owner = owner

    def advance(self, steps: int = 1, **figures: float | str) -> None:
        if self.owner is not None and "loss" in figures:
            self.owner.left -= 1
            if self.owner.left < 0:
                raise KeyboardInterrupt


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two state dicts are the same, bit for bit."""
    return list(one) == list(other) and all(torch.equal(value, other[name]) for name, value in one.items())
