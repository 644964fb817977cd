"""The one training loop. Procedures decide what is trained on what; this file trains it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from kdeploy import artifacts, events
from kdeploy.errors import UserError
from kdeploy.loading import Batches, EvalBatches
from kdeploy.recipe.schema import TrainSpec
from kdeploy.training import state
from kdeploy.training.depthwise import float32_gradients
from kdeploy.training.evaluate import accuracy, predict
from kdeploy.training.nonfinite import all_finite
from kdeploy.training.objective import Objective
from kdeploy.training.setup import Setup
from kdeploy.training.steps import REMEDY, Steps
from kdeploy.training.totals import EpochMetrics, Totals

_SHOW_EVERY = 20
"""Steps between two looks at the loss: each look waits for the device."""
_SHOW_AFTER_S = 10.0
"""Where so many steps take long, a look is worth its wait after this time."""
_OUT_OF_MEMORY = ("DefaultCPUAllocator: can't allocate memory", "MPS backend out of memory")
"""How torch says it where it has no exception of its own for it."""


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
    train: Batches,
    validation: EvalBatches | None,
    spec: TrainSpec,
    setup: Setup,
    folder: Path,
    label: str,
) -> Fitted:
    """Train `network` in place for `spec.epochs` epochs and return its history.

    Where `setup` has several processes, each calls this with its share of the same batches, and all end with the same
    weights; the first of them writes the files.

    Checkpoints are written to `folder` at the beginning, after each epoch and inside of them; where one is found,
    training goes on from it. The order of samples and their augmentation depend on the seed of `train`, the epoch
    and the batch alone, so that what follows an interruption equals what would have followed without it.

    Raises UserError where loss, gradient or weights become NaN or infinite, where memory runs out and where a
    checkpoint cannot be written; the checkpoint before is kept.
    """
    for module in (network, objective):
        if spec.sync_batchnorm:
            setup.synchronise(module)
        setup.place(module)
    with _memory_errors(label, spec), float32_gradients([network, objective], setup):
        training = _Training(network, objective, train, validation, spec, setup, folder, label)
        return training.fit()


class _Training:
    """One call of `fit`: its arguments, its checkpoints, and the way through epochs and batches."""

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        train: Batches,
        validation: EvalBatches | None,
        spec: TrainSpec,
        setup: Setup,
        folder: Path,
        label: str,
    ) -> None:
        self.network = network
        self.train = train
        self.validation = validation
        self.spec = spec
        self.setup = setup
        self.processes = setup.processes
        self.folder = folder
        self.label = label
        self.steps = Steps(network, objective, train, spec, setup)
        self.progress = state.Progress(network, objective, self.steps.optimizer, folder, setup.processes)
        self.pace = state.Pace(spec.checkpoint_steps)
        self.history: list[EpochMetrics] = []

    def fit(self) -> Fitted:
        position = self._begin()
        board_of_first = _tensorboard(self.folder) if self.processes.first else nullcontext(_no_board)
        with board_of_first as board, events.task(self.label, len(self.train) * self.spec.epochs) as bar:
            bar.advance(len(self.train) * len(self.history) + position.batch)
            for epoch in range(len(self.history), self.spec.epochs):
                metrics = self._epoch(epoch, position, bar)
                position = state.Position()
                if self.validation is not None:
                    score = accuracy(*predict(self.network, self.validation, self.setup))
                    metrics = replace(metrics, validation_accuracy=score)
                    bar.advance(0, validation=f"{score:.1%}")
                self.history.append(metrics)
                self._save(chosen=_best(self.history) == epoch)
                self._write_metrics()
                board(metrics)
        state.same_generators(self.processes)
        return Fitted(tuple(self.history), _best(self.history), self.progress.chosen)

    def _begin(self) -> state.Position:
        """Take up a checkpoint that is there. The very beginning is one, too: what breaks is looked for from one."""
        position = self.progress.load()
        self.history = [EpochMetrics(**line) for line in position.history]
        if not self.history and not position.batch:
            self._save()
            return position
        batch = f", batch {position.batch} of {len(self.train)}" if position.batch else ""
        events.say(f"{self.label}: continues after epoch {len(self.history)} of {self.spec.epochs}{batch}")
        self._write_metrics()
        return position

    def _epoch(self, epoch: int, position: state.Position, bar: events.Progress) -> EpochMetrics:
        """The epoch from `position` on."""
        self.steps.enter(epoch, position.batch)
        totals = Totals(self.setup.device)
        if self.processes.first:
            totals.load_state_dict(position.totals)
        started = looked = time.monotonic()
        before_s = position.totals.get("seconds", 0.0)
        shown, seen = position.batch, totals.over(self.processes).seen
        for number, batch in enumerate(self.train.epoch(epoch, position.batch), position.batch):
            step, good = self.steps.take(batch, epoch, number)
            labels = batch.main_labels if step.labels is None else step.labels
            totals.add(step, labels, good, counts=bool(batch.sizes) or self.processes.first)
            done, last = number + 1, number + 1 == len(self.train)
            often = done % _SHOW_EVERY == 0 or last
            due = not last and self._due(epoch * len(self.train) + done, often)
            if often or due or self._waited(looked):
                whole = totals.over(self.processes)
                self._require_finite(whole, epoch, number, weights=last or due)
                looked = time.monotonic()
                bar.advance(done - shown, **_figures(whole, (whole.seen - seen) / (looked - started)))
                shown = done
            if due:
                self._save(done, {**whole.state_dict(), "seconds": before_s + looked - started})
        whole = totals.over(self.processes)
        self._report_skipped(whole, epoch)
        rate = self.steps.rate(epoch, len(self.train) - 1)
        return whole.metrics(epoch, lr=rate, seconds=before_s + time.monotonic() - started)

    def _due(self, step: int, often: bool) -> bool:
        """Whether to write a checkpoint after this step. Several processes go by one clock, and ask it less often."""
        if self.processes.count == 1 or self.spec.checkpoint_steps is not None:
            return self.pace.due(step)
        return often and self.processes.from_first(self.pace.due(step))

    def _waited(self, looked: float) -> bool:
        """Whether it is time for another look; several processes look after the same steps, whatever their clocks."""
        return self.processes.count == 1 and time.monotonic() - looked > _SHOW_AFTER_S

    def _save(self, batch: int = 0, totals: dict[str, Any] | None = None, *, chosen: bool = False) -> None:
        with self.pace.writing():
            self.progress.save(state.Position(self._lines(), batch, totals or {}), chosen=chosen)

    def _write_metrics(self) -> None:
        if self.processes.first:
            state.write_metrics(self.folder, self._lines())

    def _lines(self) -> list[dict[str, Any]]:
        return [asdict(line) for line in self.history]

    def _require_finite(self, totals: Totals, epoch: int, number: int, *, weights: bool) -> None:
        """Also the `weights` before they are kept: a last step can break them without a loss that shows it."""
        if totals.finite() and (not weights or all_finite(self.steps.parameters)):
            return
        found = self.steps.what_broke(self.progress, epoch, number, self.folder)
        raise found or UserError(
            f"The loss or a weight became NaN or infinite in epoch {epoch + 1}, at or before batch {number + 1} "
            f"(terms: {', '.join(totals.broken_terms()) or 'none'}), and did not when the steps were repeated. {REMEDY}"
        )

    def _report_skipped(self, totals: Totals, epoch: int) -> None:
        skipped = int(totals.skipped.item()) if self.spec.nonfinite == "skip" else 0
        if skipped == len(self.train):
            raise UserError(
                f"{self.label}: the loss or gradient of every batch of epoch {epoch + 1} was NaN or infinite, so that "
                "there was no step left to take. Lower lr, or set warmup_epochs; the last checkpoint is kept."
            )
        if skipped:
            events.warn(
                f"{self.label}: {skipped} of {len(self.train)} steps of epoch {epoch + 1} were skipped: their loss or "
                "gradient was NaN or infinite."
            )


def _figures(totals: Totals, images_per_s: float) -> dict[str, float | str]:
    share = f"{totals.mean_accuracy():.1%}"
    return {"loss": totals.mean_loss(), "accuracy": share, "img/s": f"{images_per_s:.0f}"}


@contextmanager
def _memory_errors(label: str, spec: TrainSpec) -> Iterator[None]:
    """Turn what torch says when memory runs out into what to do about it."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not of_memory and not any(sign in str(error) for sign in _OUT_OF_MEMORY):
            raise
        key = "teacher.train.batch" if label == "teacher" else "distill.batch"
        raise UserError(
            f"Memory ran out in the training of {label}. Its last checkpoint is kept: make room and type the same "
            f"command again, or lower {key} (now {spec.batch}) and start another run with --out DIR."
        ) from None


def _best(history: list[EpochMetrics]) -> int:
    """The epoch with the best validation accuracy, the later of equals; the last without validation."""
    scores = [line.validation_accuracy if line.validation_accuracy is not None else 0.0 for line in history]
    return max(range(len(scores)), key=lambda epoch: (scores[epoch], epoch))


def _no_board(metrics: EpochMetrics) -> None:
    return None


@contextmanager
def _tensorboard(folder: Path) -> Iterator[Callable[[EpochMetrics], None]]:
    with SummaryWriter(log_dir=str(folder / "tensorboard")) as writer:

        def write(metrics: EpochMetrics) -> None:
            figures: dict[str, Any] = asdict(metrics)
            for name, value in {**figures.pop("terms"), **figures}.items():
                if value is not None and name != "epoch":
                    writer.add_scalar(name, value, metrics.epoch)

        yield write


def joined(first: Fitted, then: Fitted) -> Fitted:
    """Two trainings of one network, one after the other, as one history; the epoch chosen is one of the second's."""
    before = len(first.metrics)
    lines = (EpochMetrics(**{**asdict(line), "epoch": before + line.epoch}) for line in then.metrics)
    return Fitted((*first.metrics, *lines), before + then.chosen_epoch, then.chosen_weights)


def write_metrics(folder: Path, fitted: Fitted) -> None:
    """Write `metrics.jsonl` of a finished training."""
    state.write_metrics(folder, [asdict(line) for line in fitted.metrics])


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
