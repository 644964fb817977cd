"""A step of training, and the search for the one that broke."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from kdeploy import artifacts
from kdeploy.errors import UserError
from kdeploy.loading import Batch, Batches
from kdeploy.methods.base import Context
from kdeploy.recipe.schema import TrainSpec
from kdeploy.training import state
from kdeploy.training.compilation import compiled
from kdeploy.training.nonfinite import Skipping, all_finite, culprits
from kdeploy.training.objective import Objective, Step
from kdeploy.training.optim import LR_FACTOR, grouped, learning_rate, make_optimizer
from kdeploy.training.reduction import Reduction
from kdeploy.training.setup import Setup

_SHOWN_IMAGES = 8


class Steps:
    """Takes steps: the learning rate, forward, backward, the optimiser's step. None of it waits for the device."""

    def __init__(self, network: nn.Module, objective: Objective, train: Batches, spec: TrainSpec, setup: Setup) -> None:
        unique = dict.fromkeys([*network.parameters(), *objective.parameters()])
        self.parameters = [parameter for parameter in unique if parameter.requires_grad]
        optimizer = make_optimizer(grouped(self.parameters, objective.apart(network)), spec)
        self._skipping = Skipping([network, objective], optimizer) if spec.nonfinite == "skip" else None
        model = compiled(network, setup) if spec.compile else network
        self.model, self.optimizer = setup.fabric.setup(model, optimizer, move_to_device=False)
        self._network = network
        self._reduce = Reduction([network, objective], self.parameters, setup.processes)
        self.objective = objective
        self.train = train
        self._spec = spec
        self._setup = setup

    def training_mode(self) -> None:
        self.model.train()
        self.objective.train()

    def enter(self, epoch: int, batch: int) -> None:
        """Begin an epoch, or go on with it from a checkpoint, whose next batch is this one."""
        self.training_mode()
        if batch == 0:
            self.objective.begin_epoch(self._network, epoch)

    def rate(self, epoch: int, number: int) -> float:
        """The learning rate of batch `number` of an epoch; both count from 0."""
        return learning_rate(self._spec, epoch + number / len(self.train))

    def take(
        self, batch: Batch, epoch: int, number: int, look: Callable[[Step], None] | None = None
    ) -> tuple[Step, Tensor | None]:
        """One step on batch `number` of an epoch; with `nonfinite: skip` also whether it counts, a bool on the device.

        look: called between backward pass and optimiser step, while the graph is still there; what it sees are the loss
        and gradients of this process.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(epoch, number) * group.get(LR_FACTOR, 1.0)
        context = Context(
            index=batch.index, epoch=epoch, step=epoch * len(self.train) + number, epochs=self._spec.epochs
        )
        if self._skipping:
            self._skipping.remember()
        with self._setup.fabric.autocast():
            step = self.objective(self.model, replace(batch, images=self._setup.images(batch.images)), context)
        self.optimizer.zero_grad(set_to_none=True)
        whole = self._backward(step, batch, look)
        good = self._skipping.judge(whole) if self._skipping else None
        self.optimizer.step()
        return step, good

    def _backward(self, step: Step, batch: Batch, look: Callable[[Step], None] | None) -> Tensor:
        """Leave the gradients of the mean over the whole batch, whoever has its parts, and return the loss of it."""
        processes = self._setup.processes
        several, weight = processes.count > 1, processes.weight(batch)
        loss = step.loss * weight if several else step.loss
        self._setup.fabric.backward(loss, retain_graph=look is not None)
        if look is not None:
            look(step)
        return self._reduce(step.loss, weight) if several else step.loss

    def what_broke(self, progress: state.Progress, epoch: int, until: int, folder: Path) -> UserError | None:
        """Repeat this epoch from its last checkpoint to batch `until` with a look at each step; the error to raise.

        None where the repetition stays finite, as it may on a device whose sums depend on chance. The error's batch
        and all its images are left in `nonfinite.json`.
        """
        position = progress.load()
        self.enter(epoch, position.batch)
        processes = self._setup.processes
        found: list[str] = []

        def look(step: Step) -> None:
            if self._skipping is None:
                found.extend(culprits(step, self.parameters))

        for number, batch in enumerate(self.train.epoch(epoch, position.batch), position.batch):
            if number > until:
                break
            self.take(batch, epoch, number, look)
            told = processes.all((found, batch.index.tolist()))
            what = list(dict.fromkeys(name for names, _ in told for name in names))
            images = list(dict.fromkeys(image for names, part in told if names or not what for image in part))
            if not what and not all_finite(self.parameters):
                what = ["a weight"]
            if what:
                return self._error(what, epoch, number, images, folder)
        return None

    def _error(self, what: list[str], epoch: int, number: int, images: list[int], folder: Path) -> UserError:
        step = epoch * len(self.train) + number + 1
        content = {"epoch": epoch + 1, "batch": number + 1, "step": step, "what": what, "images": images}
        if self._setup.processes.first:
            artifacts.write_json(folder / state.NONFINITE, {"schema_version": 1, **content})
        shown = ", ".join(map(str, images[:_SHOWN_IMAGES]))
        more = f" and {len(images) - _SHOWN_IMAGES} more" if len(images) > _SHOWN_IMAGES else ""
        return UserError(
            f"{_sentence(what)} became NaN or infinite in epoch {epoch + 1}, batch {number + 1} (step {step}), on the "
            f"training images {shown}{more} ({folder / state.NONFINITE}). {REMEDY}"
        )


REMEDY = (
    "Lower lr, set warmup_epochs, or set nonfinite: skip to leave such steps out; the checkpoint before it is kept."
)


def _sentence(what: list[str]) -> str:
    text = ", ".join(what)
    return text[0].upper() + text[1:]
