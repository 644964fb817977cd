"""Training curves, and the epochs that were reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kdeploy.report.charts import training
from kdeploy.report.charts.tradeoff import family
from kdeploy.report.data import Epoch, ReportData
from kdeploy.report.formats.tables import Table
from kdeploy.report.sections.base import Section, figure


def _content(report: ReportData) -> Mapping[str, Any] | None:
    curves = report.curves
    found = [
        figure(
            "validation-accuracy",
            "Validation accuracy",
            training.accuracy("curve-accuracy", curves),
            _table(curves, "validation_accuracy", lambda epoch: epoch.validation_accuracy),
        ),
        figure(
            "training-loss",
            "Training loss",
            training.loss("curve-loss", curves),
            _table(curves, "train_loss", lambda epoch: epoch.train_loss),
        ),
        figure(
            "learning-rate",
            "Learning rate",
            training.rate("curve-rate", curves),
            _table(curves, "lr", lambda epoch: epoch.lr),
        ),
    ]
    figures = [one for one in found if one is not None]
    if not figures:
        return None
    return {"figures": figures, "family": family, "dashes": training.dashes_of(curves)}


def _table(curves: training.Curves, what: str, value: Callable[[Epoch], float | None]) -> Table:
    lines = ((role, epoch.epoch, value(epoch)) for role, epochs in curves.items() for epoch in epochs)
    return Table(("network", "epoch", what), tuple(lines))


SECTION = Section("training", "Training", _content)
