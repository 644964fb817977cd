"""Losses and gradients that are NaN or infinite: a step that leaves no trace of them, and what caused one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from kdeploy.training.objective import Step


class Skipping:
    """Takes an optimiser's step back where loss or gradients are not finite, without waiting for the device.

    Parameters and the optimiser's state stay by way of `found_inf`, which torch's fused optimisers look at for
    gradient scaling; the buffers that a forward pass changes (running statistics, a method's memory) are put back.
    """

    def __init__(self, modules: Sequence[nn.Module], optimizer: torch.optim.Optimizer) -> None:
        self._modules = modules
        self._optimizer = optimizer
        for group in optimizer.param_groups:
            if group.get("momentum", 0.0) > 0:
                # torch leaves the buffer of a first step that is skipped unset; from zeros a first step is the same.
                for parameter in group["params"]:
                    optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        self._before: dict[str, Tensor] = {}

    def remember(self) -> None:
        """Call it before the forward pass."""
        self._before = {name: buffer.clone() for name, buffer in self._buffers()}

    def judge(self, loss: Tensor) -> Tensor:
        """Call it between backward pass and optimiser step: a bool on the device, whether the step is taken."""
        gradients = [parameter.grad for group in self._optimizer.param_groups for parameter in group["params"]]
        norm = torch.nn.utils.get_total_norm([gradient for gradient in gradients if gradient is not None])
        good = loss.detach().isfinite() & norm.isfinite().to(loss.device)
        self._optimizer.found_inf = (~good).float()  # type: ignore[attr-defined]
        for name, buffer in self._buffers():
            if name in self._before:
                buffer.copy_(torch.where(good, buffer, self._before[name]))
        return good

    def _buffers(self) -> Iterator[tuple[str, Tensor]]:
        for number, module in enumerate(self._modules):
            yield from module.named_buffers(prefix=str(number))


def all_finite(parameters: Iterable[Tensor]) -> bool:
    """Whether all of these are finite; waits for the device once."""
    checks = [value.isfinite().all() for value in parameters]
    return not checks or bool(torch.stack(checks).all())


def culprits(step: Step, parameters: Sequence[nn.Parameter]) -> list[str]:
    """What of a step is NaN or infinite: terms, by name; else terms whose gradient is. The graph is still needed."""
    broken = [name for name, value in step.terms.items() if not all_finite([value.detach()])]
    if broken or not all_finite([step.loss.detach()]):
        return [f"the term {name}" for name in broken] or ["the sum of the terms"]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if all_finite(gradients):
        return []
    return [f"the gradient of the term {name}" for name, value in step.terms.items() if _breaks(value, parameters)] or [
        "the gradient of the sum"
    ]


def _breaks(term: Tensor, parameters: Sequence[nn.Parameter]) -> bool:
    if not term.requires_grad:
        return False
    found = torch.autograd.grad(term, list(parameters), retain_graph=True, allow_unused=True)
    return not all_finite([gradient for gradient in found if gradient is not None])
