"""A run's student beside the published figure that its recipe carries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from kdeploy import artifacts
from kdeploy.bench.statistics import wilson
from kdeploy.recipe.schema import Recipe
from kdeploy.report.data import ReportedEpochs
from kdeploy.report.seeds import mean_of

_OURS = {"last epoch": "last", "best test epoch": "chosen"}
_CALLED = {"last": "last epoch", "chosen": "epoch chosen on validation"}


def comparison(folders: Sequence[Path]) -> str | None:
    """The student's test accuracy and the published one, in two lines; None where the recipe carries no figure.

    folders: the run's, or those of all its seeds. Where the published figure is of the last epoch, so is ours. Where
    it is of the epoch that was best on the test images, ours is of the epoch chosen on validation: the test images
    choose nothing here, which the line says. One run has the 95 % interval of its test images (Wilson), several have
    that of their mean (Student's t).
    """
    recipe = Recipe.model_validate(yaml.safe_load((folders[0] / "recipe.yaml").read_text(encoding="utf-8")))
    published = recipe.published
    if published is None:
        return None
    which = _OURS[published.protocol]
    found = [
        ReportedEpochs.model_validate(artifacts.read_json(folder / "networks" / "student" / "epochs.json"))
        for folder in folders
    ]
    shares = [(epochs.last if which == "last" else epochs.chosen).test_accuracy for epochs in found]
    mean = mean_of(shares)
    low, high = _interval(shares, found[0].test_samples)
    count = f"{len(folders)} seeds" if len(folders) > 1 else f"{found[0].test_samples:,} test images"
    where = (published.protocol, published.table, published.mark, published.note)
    ours = (
        _CALLED[which],
        recipe.data.source,
        "trained for 1 epoch" if recipe.distill.epochs == 1 else f"trained for {recipe.distill.epochs} epochs",
        count,
        f"95 % interval {100 * low:.2f} to {100 * high:.2f}",
    )
    return (
        f"published  {published.accuracy_percent:.2f} %  ({', '.join(part for part in where if part)})\n"
        f"here       {100 * mean.value:.2f} %  ({', '.join(ours)}): "
        f"{100 * mean.value - published.accuracy_percent:+.2f} points"
    )


def _interval(shares: Sequence[float], samples: int) -> tuple[float, float]:
    """Low and high of the mean over seeds, or of one run by its test images, as shares."""
    mean = mean_of(shares)
    if mean.low is None or mean.high is None:
        return wilson(round(shares[0] * samples), samples)
    return mean.low, mean.high
