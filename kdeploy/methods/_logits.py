"""What the methods on logits share: precision, divergence, standardised logits, the classes beside the target."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor

from kdeploy.errors import UserError


def at_least_float32(values: Tensor) -> Tensor:
    """float16 and bfloat16 become float32, anything else stays as it is."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def full_precision(values: Tensor) -> AbstractContextManager[object]:
    """Switch autocast off where `values` live: it would take matrix products of float32 in half precision."""
    device = values.device.type
    if not torch.amp.is_autocast_available(device):
        return contextlib.nullcontext()
    return torch.autocast(device, enabled=False)


def pair(student: Tensor, teacher: Tensor, *, standardize: bool = False) -> tuple[Tensor, Tensor]:
    """Both logits `[B, C]` in at least float32, the teacher's without gradient; standardised where asked."""
    both = at_least_float32(student), at_least_float32(teacher.detach())
    return (standardised(both[0]), standardised(both[1])) if standardize else both


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 * KL(softmax(teacher/T) || softmax(student/T)) of logits `[B, C]`, mean over the batch.

    Taken between log-softmaxes, so it stays finite however far apart the logits are.
    """
    student, teacher = pair(student, teacher)
    log_student, log_teacher = (F.log_softmax(logits / temperature, dim=1) for logits in (student, teacher))
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * temperature**2


def standardised(logits: Tensor) -> Tensor:
    """(z - mean) / (std + 1e-7) of each row of `[B, C]`, with the sample standard deviation (divided by C - 1).

    Sun et al., "Logit Standardization in Knowledge Distillation", arXiv 2403.01427.
    The gradient flows through mean and std. A row that is constant up to rounding becomes zeros and gets no
    gradient (the published code gives one of the order of 1e6 there).
    """
    centred = logits - logits.mean(dim=1, keepdim=True)
    rounding = 8 * torch.finfo(logits.dtype).eps * logits.detach().abs().amax(dim=1, keepdim=True)
    constant = centred.detach().abs().amax(dim=1, keepdim=True) <= rounding
    spread = torch.where(constant, torch.ones_like(centred), centred)  # keeps the root away from 0
    std = (spread.square().sum(dim=1, keepdim=True) / (logits.shape[1] - 1)).sqrt()
    return torch.where(constant, torch.zeros_like(centred), centred / (std + 1e-7))


def without_target(logits: Tensor, target: Tensor) -> Tensor:
    """The logits `[B, C-1]` of all classes but each sample's label `[B]`, in their order."""
    others = torch.arange(logits.shape[1] - 1, device=logits.device).unsqueeze(0)
    return logits.gather(1, others + (others >= target.unsqueeze(1)))


def class_indices(method: str, target: Tensor | None) -> Tensor:
    """The labels `[B]` as the method needs them; raises UserError for mixed labels, ValueError for none."""
    if target is None:
        raise ValueError(f"{method} needs the labels of the batch")
    if target.ndim != 1 or target.is_floating_point():
        raise UserError(f"{method} is not defined for mixed labels: switch MixUp and CutMix off, or take kd instead.")
    return target
