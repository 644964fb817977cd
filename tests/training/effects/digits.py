"""What the tests of effects share: half of the digits to measure on, few to learn from, and what networks reached.

Two trainings differ by chance as much as by what is compared. So a test takes the means over several seeds, its
docstring gives what was measured, and its bound lies so far from that, in standard errors, that another processor's
rounding does not cross it. Where a paper's gain was not to be seen on digits, the docstring says so, and the test holds
what was seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

from kdeploy import sources
from kdeploy.bench.likelihood import Answers
from kdeploy.recipe.schema import DataSpec, Recipe
from kdeploy.sources.base import Splits
from kdeploy.training.evaluate import predict
from kdeploy.training.procedures.base import Workshop
from tests.training import tiny

TRAIN = {**tiny.TRAIN, "epochs": 25, "lr": 0.1}
KD = {"method": "kd", "options": {"temperature": 4, "alpha": 0.9}}


def data(limit: int | None) -> dict[str, Any]:
    """898 test images, 90 of validation, and of the other 809 so many to learn from, or all."""
    return {**tiny.DATA, "test": 0.5, "limit": limit}


@cache
def splits(limit: int | None) -> Splits:
    return sources.load(DataSpec.model_validate(data(limit)), base=Path())


def network(width: float, **more: Any) -> dict[str, Any]:
    """A ResNet-8 with `width` times 16, 32 and 64 channels."""
    return {"model": "resnet8", "width": width, **more}


def recipe(seed: int, limit: int | None = 160, **sections: Any) -> Recipe:
    return Recipe.model_validate({"name": "effects", "seed": seed, "data": data(limit), **sections})


def train(asked: Recipe, folder: Path, *roles: str) -> Workshop:
    """Run the jobs of these roles in `folder`, where those before them are finished."""
    shop = tiny.workshop(asked, folder, splits(asked.data.limit))
    tiny.train(shop, *roles)
    return shop


def answers(shop: Workshop, role: str) -> Answers:
    """What a finished network says of the test images."""
    network, decided = shop.load(role), shop.decide(shop.recipe.distill)
    decided.place(network)
    logits, labels = predict(network, shop.validation("test"), decided)
    return Answers.of_logits(logits.numpy(), labels.numpy())


def accuracy(shop: Workshop, role: str) -> float:
    """The share of the test images that a finished network names rightly."""
    return float(answers(shop, role).right.mean())


def less(ones: Iterable[float], others: Iterable[float]) -> float:
    """The mean of the differences, seed by seed."""
    return mean(one - other for one, other in zip(ones, others, strict=True))
