"""Is the teacher any good on this data? Asked before anything long is started."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from kdeploy import events
from kdeploy.errors import GateFailed
from kdeploy.models.classifier import Classifier
from kdeploy.recipe.schema import TrainSpec
from kdeploy.training import setup
from kdeploy.training.evaluate import accuracy, predict

if TYPE_CHECKING:
    from kdeploy.training.procedures.base import Workshop

_BETTER = 0.05
"""A suggestion must gain this share of accuracy to be worth making."""
_NORMALIZATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "0 to 255": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
}


@dataclass(frozen=True)
class Examined:
    """What validation says of a teacher: accuracy and chance level as shares, and what would do better."""

    accuracy: float
    chance: float
    near_chance: bool
    suggestions: tuple[str, ...]


def require_above_chance(
    teacher: Classifier, shop: Workshop, what: str, *, remedy: str | None = None, on: str = "validation"
) -> None:
    """Say the accuracy of what teaches on validation; near chance raises GateFailed with what to try.

    remedy: what to try, for a network whose normalisation and order of classes were set by nobody.
    on: "test" where a procedure has no other images: no more is read off them than that the teacher was loaded right.

    A teacher well above chance whose classes would fit better in another order is a warning.
    """
    decided = shop.decide(TrainSpec())
    decided.place(teacher)
    logits, labels = predict(teacher, shop.validation(on), decided)
    order = None if teacher.class_map is None else teacher.class_map.tolist()
    examined = examine(logits, labels, order)
    if examined.near_chance and remedy is not None:
        raise GateFailed(_near_chance(what, examined, len(labels), remedy, on))
    if examined.near_chance:
        better = (*examined.suggestions, *_try_normalizations(teacher, shop, decided, examined.accuracy, on))
        hint = " ".join(better) or (
            "Check teacher.normalize (what it was trained with), teacher.class_map (its order of classes) "
            "and teacher.rename."
        )
        raise GateFailed(_near_chance(what, examined, len(labels), hint, on))
    events.say(f"{what}: {examined.accuracy:.1%} on {len(labels)} {on} images")
    for suggestion in examined.suggestions:
        events.warn(f"{what} may have its classes in another order. {suggestion}")


def _near_chance(what: str, examined: Examined, images: int, hint: str, on: str) -> str:
    return (
        f"{what} is near chance on {on}: {examined.accuracy:.1%} of {images} images, "
        f"chance is {examined.chance:.1%}. {hint}"
    )


def examine(logits: Tensor, labels: Tensor, class_map: Sequence[int] | None = None) -> Examined:
    """Compare logits `[N, classes]` with labels `[N]`: accuracy, chance, and a class map that fits better.

    Chance is the share of the commonest class; near chance is below three standard errors above it, or, with so few
    samples that these reach further, below the middle between chance and all. The class map comes from the assignment
    of outputs to classes that maximises the agreement on these samples. Where the logits have been put in order by a
    `class_map` already, the one suggested takes its place.
    """
    total, outputs = logits.shape
    counts = torch.bincount(labels, minlength=outputs).double()
    chance = (counts.max() / total).item()
    score = accuracy(logits, labels)
    near = score < min(chance + 3 * math.sqrt(chance * (1 - chance) / total), (1 + chance) / 2)
    confusion = torch.zeros(outputs, outputs, dtype=torch.int64)
    confusion.index_put_((labels, logits.argmax(dim=1)), torch.ones(total, dtype=torch.int64), accumulate=True)
    _, best = linear_sum_assignment(-confusion.numpy())
    mapped = confusion[torch.arange(outputs), torch.from_numpy(best)].sum().item() / total
    suggestions: tuple[str, ...] = ()
    if mapped > score + _BETTER and mapped > chance + 4 * math.sqrt(outputs * chance * (1 - chance) / total):
        order = ", ".join(str(index if class_map is None else class_map[index]) for index in best)
        suggestions = (f"teacher.class_map: [{order}] would give {mapped:.1%}.",)
    return Examined(score, chance, near, suggestions)


def _try_normalizations(
    teacher: Classifier, shop: Workshop, decided: setup.Setup, score: float, on: str
) -> tuple[str, ...]:
    """The commonly used normalisation with which this teacher does clearly better, if one does."""
    channels = shop.splits.shape[2]
    order = None if teacher.class_map is None else teacher.class_map.tolist()
    found = []
    known = {name: tuple(_for_channels(values, channels) for values in both) for name, both in _NORMALIZATIONS.items()}
    known["this data's own"] = (shop.normalize.mean, shop.normalize.std)
    for name, (mean, std) in known.items():
        other = Classifier(teacher.network, mean, std, order)
        decided.place(other)
        gained = accuracy(*predict(other, shop.validation(on), decided))
        found.append((gained, name, mean, std))
    gained, name, mean, std = max(found)
    if gained < score + _BETTER:
        return ()
    return (f"teacher.normalize: {{mean: {list(mean)}, std: {list(std)}}} ({name}) would give {gained:.1%}.",)


def _for_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Figures of red, green and blue for as many channels: their mean for one."""
    return values if channels == len(values) else (round(sum(values) / len(values), 6),) * channels
