"""What made images are asked for: the terms that data-free methods share, each a scalar to minimise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdeploy.training.batchnorm import batch_norms


def one_hot(logits: Tensor, classes: Tensor) -> Tensor:
    """OH: mean cross-entropy of the teacher's logits `[B, C]` with the classes `[B]` that the images should show."""
    return F.cross_entropy(logits.float(), classes)


def balance(logits: Tensor) -> Tensor:
    """BAL: sum over c of p_c log p_c, with p `[C]` the mean of softmax(logits `[B, C]`) over the batch.

    The negative entropy, from -log C where all classes are as frequent to 0 where there is one. The logarithm is the
    natural one; DAFL's code has that to base 10, so that its weights are divided by 2.303 here.
    """
    mean = logits.float().softmax(dim=1).mean(dim=0)
    return torch.xlogy(mean, mean).sum()


def activation(embedding: Tensor) -> Tensor:
    """ACT: -mean |f| of what enters the teacher's last linear layer, `[B, D]`: what it knows excites it."""
    return -embedding.float().abs().mean()


def adversarial(student: Tensor, teacher: Tensor) -> Tensor:
    """ADV: minus the mean over b of KL(teacher || student) where both name one class, of logits `[B, C]`.

    What both agree on, the student should still be surprised by (CMI and fast data-free distillation; others take all
    images). Zero where the two are the same.
    """
    ours, theirs = student.float().log_softmax(dim=1), teacher.float().log_softmax(dim=1)
    divergence = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(dim=1)
    agreed = ours.argmax(dim=1) == theirs.argmax(dim=1)
    return -(divergence * agreed).mean()


def total_variation(images: Tensor) -> Tensor:
    """TV: the sum of the L2 norms of all differences between neighbours of `[B, C, H, W]`, in four directions.

    Across, down and along both diagonals, each norm over the whole batch.
    """
    across = images[..., :, 1:] - images[..., :, :-1]
    down = images[..., 1:, :] - images[..., :-1, :]
    falling = images[..., 1:, 1:] - images[..., :-1, :-1]
    rising = images[..., 1:, :-1] - images[..., :-1, 1:]
    norms = [torch.linalg.vector_norm(each.float()) for each in (across, down, falling, rising)]
    return torch.stack(norms).sum()


class InputStatistics(nn.Module):
    """BN: how far what enters a network's batch norms is from what they have seen in its training.

    Sum over the batch norms of |m_run - m|_2 + |v_run - v|_2, with m and v `[C]` the mean and the biased variance of
    the batch. With a momentum, m and v are (1 - momentum) of the batch's and momentum of a mean over the batches before
    (`remember`), so that many small batches together are held to the statistics, and not each.

    The network is none of this module: it is neither trained nor saved with it. It is to be in evaluation mode.
    """

    remembered: Tensor

    def __init__(self, network: nn.Module, momentum: float = 0.0) -> None:
        super().__init__()
        self._norms = tuple(norm for norm in batch_norms(network).values() if norm.running_mean is not None)
        self.momentum = momentum
        self._found: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        self.register_buffer("remembered", torch.zeros((), dtype=torch.int64))
        for number, norm in enumerate(self._norms):
            assert norm.running_mean is not None
            for name in ("mean", "var"):
                self.register_buffer(f"{name}_{number}", torch.zeros_like(norm.running_mean))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look at what goes through the network in this block; the hooks are gone when it ends."""
        self._found = {}
        with ExitStack() as stack:
            for norm in self._norms:
                stack.callback(norm.register_forward_pre_hook(self._keep).remove)
            yield

    def term(self) -> Tensor:
        """The distance of the last forward pass, a scalar."""
        distances = []
        for norm, (before_mean, before_var) in zip(self._norms, self._before(), strict=True):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            mean, var = self._found[norm]
            if self.remembered > 0 and self.momentum > 0:
                mean = (1 - self.momentum) * mean + self.momentum * before_mean
                var = (1 - self.momentum) * var + self.momentum * before_var
            distances.append(torch.linalg.vector_norm(norm.running_mean - mean))
            distances.append(torch.linalg.vector_norm(norm.running_var - var))
        return torch.stack(distances).sum()

    @torch.no_grad()
    def remember(self) -> None:
        """Take the batch of the last forward pass into the mean over batches."""
        keep = self.momentum if self.remembered > 0 else 0.0
        for norm, before in zip(self._norms, self._before(), strict=True):
            for new, old in zip(self._found[norm], before, strict=True):
                old.mul_(keep).add_(new, alpha=1 - keep)
        self.remembered += 1

    def _before(self) -> list[tuple[Tensor, Tensor]]:
        numbers = range(len(self._norms))
        return [(getattr(self, f"mean_{number}"), getattr(self, f"var_{number}")) for number in numbers]

    def _keep(self, norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        maps = inputs[0].float()
        dims = [0, *range(2, maps.ndim)]
        self._found[norm] = maps.mean(dims), maps.var(dims, correction=0)
