"""The inputs behind the golden values: closed formulas in float64, so that a value can be checked in any language.

With the row-major flat index k: S(shape)[k] = sin(0.37 k + 0.1), T(shape)[k] = cos(0.23 k + 0.2).
The tensors are shared: a test that changes one or wants its gradient takes a copy (`leaf`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def S(*shape: int) -> Tensor:
    """sin(0.37 k + 0.1): what stands for a student."""
    return torch.sin(0.37 * torch.arange(math.prod(shape), dtype=torch.float64) + 0.1).reshape(shape)


def T(*shape: int) -> Tensor:
    """cos(0.23 k + 0.2): what stands for a teacher."""
    return torch.cos(0.23 * torch.arange(math.prod(shape), dtype=torch.float64) + 0.2).reshape(shape)


zs, zt, y = 3 * S(4, 5), 5 * T(4, 5), torch.tensor([0, 2, 4, 1])  # logits [B=4, C=5] and labels
es, et = S(4, 8), T(4, 16)  # embeddings [B, D]
e8s, e8t = S(4, 8), T(4, 8)  # embeddings of one size
Fs, Ft, Ft3 = S(4, 3, 4, 4), T(4, 6, 4, 4), T(4, 3, 4, 4)  # feature maps [B, C, H, W]
Fs8, Ft8 = S(4, 3, 8, 8), T(4, 3, 8, 8)  # twice as large: 2x2 average pooling brings them to 4x4


def leaf(tensor: Tensor) -> Tensor:
    """A copy of `tensor` that collects a gradient."""
    return tensor.detach().clone().requires_grad_()


def assert_golden(value: Tensor, expected: float, digits: int = 10) -> None:
    """The tolerance of golden values, relative to max(1, |expected|).

    float64: 1e-9, or what `digits` printed after the point allow where they are fewer; float32: 1e-5.
    """
    assert value.shape == (), f"a loss is a scalar, not {tuple(value.shape)}"
    tolerance = 1e-5 if value.dtype == torch.float32 else max(1e-9, 0.6 * 10.0**-digits)
    error = abs(value.item() - expected)
    assert error <= tolerance * max(1.0, abs(expected)), (
        f"{value.item():.13g} is not {expected:.13g} (off by {error:.2g})"
    )
