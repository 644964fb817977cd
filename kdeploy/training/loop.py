"""The one training loop. Procedures decide what is trained on what; this file trains it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from kdeploy import artifacts, events
from kdeploy.errors import UserError
from kdeploy.loading import EvalBatches, TrainBatches
from kdeploy.methods.base import Context
from kdeploy.recipe.schema import TrainSpec
from kdeploy.training import state
from kdeploy.training.evaluate import accuracy, predict
from kdeploy.training.objective import Objective
from kdeploy.training.optim import learning_rate, make_optimizer
from kdeploy.training.setup import Setup

_SHOW_EVERY = 20
"""Steps between two looks at the loss: each look waits for the device."""


@dataclass(frozen=True)
class EpochMetrics:
    """One line of `metrics.jsonl`. Accuracies are shares; the training ones are on augmented images."""

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_accuracy: float | None
    lr: float
    seconds: float
    images_per_s: float
    terms: dict[str, float]


@dataclass(frozen=True)
class Fitted:
    """A finished training: metrics of every epoch, and the weights of the epoch chosen on validation."""

    metrics: tuple[EpochMetrics, ...]
    chosen_epoch: int
    chosen_weights: dict[str, Tensor]


def fit(
    network: nn.Module,
    objective: Objective,
    *,
    train: TrainBatches,
    validation: EvalBatches | None,
    spec: TrainSpec,
    setup: Setup,
    folder: Path,
    label: str,
) -> Fitted:
    """Train `network` in place for `spec.epochs` epochs and return its history.

    A checkpoint is written to `folder` after each epoch; where one is found, training goes on from it. The
    order of samples and their augmentation depend on the seed of `train`, the epoch and the batch alone, so
    that what follows an interruption equals what would have followed without it.
    """
    setup.place(network)
    setup.place(objective)
    unique = dict.fromkeys([*network.parameters(), *objective.parameters()])
    optimizer = make_optimizer([parameter for parameter in unique if parameter.requires_grad], spec)
    model, optimizer = setup.fabric.setup(network, optimizer, move_to_device=False)
    progress = state.Progress(network, objective, optimizer, folder)
    history = [EpochMetrics(**line) for line in progress.load()]
    if history:
        events.say(f"{label}: continues after epoch {len(history)} of {spec.epochs}")
        state.write_metrics(folder, [asdict(line) for line in history])
    with _tensorboard(folder) as board, events.task(label, len(train) * spec.epochs) as bar:
        bar.advance(len(train) * len(history))
        for epoch in range(len(history), spec.epochs):
            metrics = _epoch(model, objective, optimizer, train, epoch, spec, setup, bar)
            if validation is not None:
                score = accuracy(*predict(network, validation, setup))
                metrics = EpochMetrics(**{**asdict(metrics), "validation_accuracy": score})
                bar.advance(0, validation=f"{score:.1%}")
            history.append(metrics)
            progress.save([asdict(line) for line in history], chosen=_best(history) == epoch)
            state.write_metrics(folder, [asdict(line) for line in history])
            board(metrics)
    return Fitted(tuple(history), _best(history), progress.chosen)


def _epoch(
    model: nn.Module,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    train: TrainBatches,
    epoch: int,
    spec: TrainSpec,
    setup: Setup,
    bar: events.Progress,
) -> EpochMetrics:
    model.train()
    objective.train()
    totals = _Totals(setup.device)
    started = time.monotonic()
    rate = spec.lr
    for number, batch in enumerate(train.epoch(epoch)):
        rate = learning_rate(spec, epoch + number / len(train))
        for group in optimizer.param_groups:
            group["lr"] = rate
        context = Context(index=batch.index, epoch=epoch, step=epoch * len(train) + number, epochs=spec.epochs)
        with setup.fabric.autocast():
            step = objective(model, replace(batch, images=setup.images(batch.images)), context)
        optimizer.zero_grad(set_to_none=True)
        setup.fabric.backward(step.loss)
        optimizer.step()
        totals.add(step.loss, step.terms, step.logits, batch.main_labels)
        if number % _SHOW_EVERY == _SHOW_EVERY - 1 or number == len(train) - 1:
            totals.require_finite(epoch, number)
            speed = totals.count / (time.monotonic() - started)
            figures: dict[str, float | str] = {"loss": totals.mean_loss(), "accuracy": f"{totals.mean_accuracy():.1%}"}
            bar.advance(number % _SHOW_EVERY + 1, **figures, **{"img/s": f"{speed:.0f}"})
    _require_finite_weights(model, epoch)
    seconds = time.monotonic() - started
    return EpochMetrics(
        epoch=epoch,
        train_loss=totals.mean_loss(),
        train_accuracy=totals.mean_accuracy(),
        validation_accuracy=None,
        lr=rate,
        seconds=seconds,
        images_per_s=totals.count / seconds,
        terms=totals.mean_terms(),
    )


def _require_finite_weights(model: nn.Module, epoch: int) -> None:
    """The last step of an epoch can break weights without a loss that shows it."""
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise UserError(
            f"The weights became NaN or infinite in the last batch of epoch {epoch + 1}. Lower lr, or set "
            "warmup_epochs; the last whole epoch is kept."
        )


class _Totals:
    """Sums over an epoch that stay on the device until they are looked at."""

    def __init__(self, device: torch.device) -> None:
        self.count = 0
        self.loss = torch.zeros((), device=device)
        self.correct = torch.zeros((), device=device)
        self.terms: dict[str, Tensor] = {}

    def add(self, loss: Tensor, terms: dict[str, Tensor], logits: Tensor, labels: Tensor) -> None:
        size = len(labels)
        self.count += size
        self.loss += loss.detach() * size
        self.correct += (logits.detach().argmax(dim=1) == labels).sum()
        for name, value in terms.items():
            self.terms[name] = self.terms.get(name, torch.zeros_like(self.loss)) + value.detach() * size

    def mean_loss(self) -> float:
        return self.loss.item() / self.count

    def mean_accuracy(self) -> float:
        return self.correct.item() / self.count

    def mean_terms(self) -> dict[str, float]:
        return {name: value.item() / self.count for name, value in self.terms.items()}

    def require_finite(self, epoch: int, number: int) -> None:
        if not math.isfinite(self.loss.item()):
            bad = [name for name, value in self.terms.items() if not math.isfinite(value.item())]
            raise UserError(
                f"The loss became NaN or infinite in epoch {epoch + 1}, at or before batch {number + 1} "
                f"(term: {', '.join(bad) or 'sum'}). Lower lr, or set warmup_epochs; the last whole epoch is kept."
            )


def _best(history: list[EpochMetrics]) -> int:
    """The epoch with the best validation accuracy, the later of equals; the last without validation."""
    scores = [line.validation_accuracy if line.validation_accuracy is not None else 0.0 for line in history]
    return max(range(len(scores)), key=lambda epoch: (scores[epoch], epoch))


@contextmanager
def _tensorboard(folder: Path) -> Iterator[Callable[[EpochMetrics], None]]:
    with SummaryWriter(log_dir=str(folder / "tensorboard")) as writer:

        def write(metrics: EpochMetrics) -> None:
            figures: dict[str, Any] = asdict(metrics)
            for name, value in {**figures.pop("terms"), **figures}.items():
                if value is not None and name != "epoch":
                    writer.add_scalar(name, value, metrics.epoch)

        yield write


def write_history(folder: Path, fitted: Fitted, **more: Any) -> None:
    """Write `history.json`: the last epoch, the epoch chosen on validation, and what the caller adds."""
    last, chosen = fitted.metrics[-1], fitted.metrics[fitted.chosen_epoch]
    artifacts.write_json(
        folder / "history.json",
        {
            "schema_version": 1,
            "epochs": len(fitted.metrics),
            "last": {"epoch": last.epoch, "validation_accuracy": last.validation_accuracy},
            "chosen": {"epoch": chosen.epoch, "validation_accuracy": chosen.validation_accuracy},
            "seconds": sum(line.seconds for line in fitted.metrics),
            **more,
        },
    )
