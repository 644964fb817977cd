"""The figures of an epoch: sums that stay on the device until they are looked at."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdeploy.sources.labelling import HIDDEN
from kdeploy.training.objective import Step
from kdeploy.training.processes import Processes


@dataclass(frozen=True)
class EpochMetrics:
    """One line of `metrics.jsonl`. Accuracies are shares; the training ones are on augmented images with a label.

    skipped_steps: batches whose loss or gradient was NaN or infinite, left out of all figures.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_accuracy: float | None
    lr: float
    seconds: float
    images_per_s: float
    terms: dict[str, float]
    skipped_steps: int = 0


class Totals:
    """Sums over the samples of an epoch. A method that says what it returns waits for the device, `add` never does."""

    def __init__(self, device: torch.device) -> None:
        self.seen = 0
        """Samples that went through, skipped or not."""
        self.count = torch.zeros((), dtype=torch.int64, device=device)
        self.skipped = torch.zeros((), dtype=torch.int64, device=device)
        self.loss = torch.zeros((), device=device)
        self.correct = torch.zeros((), device=device)
        self.labelled = torch.zeros((), dtype=torch.int64, device=device)
        """Of those that count, the ones whose label is known: what the accuracy is a share of."""
        self.terms: dict[str, Tensor] = {}

    def add(self, step: Step, labels: Tensor, good: Tensor | None, *, counts: bool = True) -> None:
        """Add a batch; one that is not `good` (a bool on the device; None: all are) only counts as skipped.

        counts: False for a batch whose samples another process counts.
        """
        size = len(labels) if counts else 0
        self.seen += size
        self.count += size if good is None else size * good
        self.loss += _where(good, step.loss.detach()) * size
        self.correct += _where(good, (step.logits.detach().argmax(dim=1) == labels).sum()) * counts
        self.labelled += _where(good, (labels != HIDDEN).sum()) * counts
        for name, value in step.terms.items():
            self.terms[name] = self.terms.get(name, torch.zeros_like(self.loss)) + _where(good, value.detach()) * size
        if good is not None:
            self.skipped += ~good

    def over(self, processes: Processes) -> Totals:
        """The sums over all processes; what was skipped is the same in each."""
        if processes.count == 1:
            return self
        whole = Totals(self.loss.device)
        sums = torch.stack([self.loss, self.correct, *self.terms.values()]).double()
        counts = torch.stack([self.count, self.labelled, self.count.new_tensor(self.seen)]).double()
        loss, correct, *terms, count, labelled, seen = processes.add(torch.cat([sums, counts]))
        whole.loss, whole.correct, whole.count = loss.float(), correct.float(), count.long()
        whole.labelled = labelled.long()
        whole.terms = dict(zip(self.terms, (term.float() for term in terms), strict=True))
        whole.seen, whole.skipped = int(seen.item()), self.skipped
        return whole

    def finite(self) -> bool:
        """Whether no batch so far had a loss that is NaN or infinite: its sum would be so, too."""
        return math.isfinite(self.loss.item())

    def broken_terms(self) -> list[str]:
        """The terms that were NaN or infinite in some batch."""
        return [name for name, value in self.terms.items() if not math.isfinite(value.item())]

    def mean_loss(self) -> float:
        return self.loss.item() / max(1, self.count.item())

    def mean_accuracy(self) -> float:
        return self.correct.item() / max(1, self.labelled.item())

    def metrics(self, epoch: int, *, lr: float, seconds: float) -> EpochMetrics:
        """The line of a whole epoch, before its validation."""
        count = self.count.item()
        return EpochMetrics(
            epoch=epoch,
            train_loss=self.mean_loss(),
            train_accuracy=self.mean_accuracy(),
            validation_accuracy=None,
            lr=lr,
            seconds=seconds,
            images_per_s=self.seen / seconds,
            terms={name: value.item() / count for name, value in self.terms.items()},
            skipped_steps=int(self.skipped.item()),
        )

    def state_dict(self) -> dict[str, Any]:
        """All of it, for a checkpoint in the middle of an epoch."""
        return dict(vars(self))

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Go on with the sums of a checkpoint, on this device; an empty one is the beginning of an epoch."""
        if not content:
            return
        device = self.loss.device
        for name in ("count", "skipped", "loss", "correct", "labelled"):
            setattr(self, name, content[name].to(device))
        self.seen = content["seen"]
        self.terms = {name: value.to(device) for name, value in content["terms"].items()}


def _where(good: Tensor | None, value: Tensor) -> Tensor:
    return value if good is None else torch.where(good, value, torch.zeros_like(value))
