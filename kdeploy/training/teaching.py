"""Where a teacher's outputs come from: the teacher itself, run on each batch."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from kdeploy.loading import Batch
from kdeploy.methods.base import Outputs
from kdeploy.training.views import View


class Teaching(Protocol):
    """What a teacher says of a batch."""

    def outputs(self, batch: Batch) -> list[Outputs]:
        """One `Outputs` for each method, without gradients, on the device of the batch."""


class Live:
    """The teacher, run on the images of each batch: frozen, in evaluation mode, as its owner put it."""

    def __init__(self, teacher: nn.Module, view: View) -> None:
        self.teacher = teacher
        self._view = view

    def outputs(self, batch: Batch) -> list[Outputs]:
        with torch.no_grad(), self._view.opened() as view:
            return view.outputs(self.teacher(batch.images))
