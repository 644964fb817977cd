"""What the processes of a training add up after each backward pass, so that all of them take the same step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdeploy.training.processes import Processes


class Reduction:
    """Adds up gradients and running statistics in one message. It does not overlap with the backward pass.

    The statistics of a batch norm that is not synchronised become the mean of those that the processes' parts gave, so
    that networks are the same everywhere after each step, and a checkpoint is one process's.
    """

    def __init__(self, modules: Sequence[nn.Module], parameters: Sequence[nn.Parameter], processes: Processes) -> None:
        self._modules = modules
        self._parameters = parameters
        self._processes = processes

    @torch.no_grad()
    def __call__(self, loss: Tensor, weight: float) -> Tensor:
        """Add up the gradients, which are of `loss * weight`; the loss of the whole batch."""
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        statistics = list(self._statistics())
        parts = [*gradients, *(each * weight for each in statistics), loss.detach() * weight]
        flat = self._processes.add(torch.cat([part.reshape(-1) for part in parts]))
        *summed, whole = torch.split(flat, [part.numel() for part in parts])
        for target, value in zip([*gradients, *statistics], summed, strict=True):
            target.copy_(value.view(target.shape))
        return whole.view(())

    def _statistics(self) -> Iterator[Tensor]:
        for root in self._modules:
            for module in root.modules():
                if isinstance(module, _BatchNorm) and module.training and module.running_mean is not None:
                    assert module.running_var is not None
                    yield module.running_mean
                    yield module.running_var
