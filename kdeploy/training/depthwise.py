"""Strided depthwise convolutions in bfloat16 on a CPU: their gradients in float32, which is far faster there.

oneDNN (3.x, with torch 2.13) has no fast kernel for the gradient with respect to the input of such a layer in bfloat16
and falls back to its reference: 116 ms against 5 ms in float32 for 58 channels at 32x32, batch 128, one Zen 4 core.
Six of these layers were half of a training step of ShuffleNetV2. What comes forward stays as it is, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kdeploy.training.setup import Setup

_NO_DILATION, _NO_OUTPUT_PADDING = [1, 1], [0, 0]


@contextmanager
def float32_gradients(modules: Iterable[nn.Module], setup: Setup) -> Iterator[None]:
    """For the length of the block, give strided depthwise convolutions their gradients in float32, where that helps."""
    slow = setup.device.type == "cpu" and setup.precision == "bfloat16"
    changed = []
    for layer in (layer for module in modules if slow for layer in module.modules()):
        if isinstance(layer, nn.Conv2d) and _strided_depthwise(layer):
            layer.forward = partial(_forward, layer)  # type: ignore[method-assign]
            changed.append(layer)
    try:
        yield
    finally:
        for layer in changed:
            layer.__dict__.pop("forward", None)  # a layer in two modules was changed twice


def _strided_depthwise(layer: nn.Conv2d) -> bool:
    return (
        1 < layer.groups == layer.in_channels
        and layer.stride != (1, 1)
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


def _forward(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """`[B, C, H, W]` to `[B, C_out, H_out, W_out]`, in bfloat16 where autocast is on."""
    if not torch.is_autocast_enabled(x.device.type):
        return type(layer).forward(layer, x)
    made: Tensor = _Convolution.apply(  # type: ignore[no-untyped-call]
        x.to(torch.bfloat16), layer.weight, layer.bias, layer.stride, layer.padding, layer.groups
    )
    return made


class _Convolution(torch.autograd.Function):
    """A convolution in bfloat16 whose gradients are computed in float32, channels last."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, groups: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = (stride, padding, groups)
        ctx.biased = bias is not None
        half = None if bias is None else bias.to(x.dtype)
        return torch.conv2d(x, weight.to(x.dtype), half, stride, padding, _NO_DILATION, groups)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding, groups = ctx.geometry
        channels_last = x.is_contiguous(memory_format=torch.channels_last)
        for_x, for_weight, for_bias = torch.ops.aten.convolution_backward(
            _float32(gradients[0]),
            _float32(x),
            weight,
            [len(weight)] if ctx.biased else None,
            stride,
            padding,
            _NO_DILATION,
            False,
            _NO_OUTPUT_PADDING,
            groups,
            [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.biased and ctx.needs_input_grad[2]],
        )
        if for_x is not None:
            layout = torch.channels_last if channels_last else torch.contiguous_format
            for_x = for_x.to(x.dtype, memory_format=layout)
        return for_x, for_weight, for_bias, None, None, None


def _float32(values: Tensor) -> Tensor:
    return values.to(torch.float32, memory_format=torch.channels_last)
