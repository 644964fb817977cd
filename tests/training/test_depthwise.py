"""Strided depthwise convolutions: bfloat16 forward as always, gradients in float32."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from kdeploy import models
from kdeploy.models.layers import shuffle
from kdeploy.recipe.schema import NetworkSpec, TrainSpec
from kdeploy.training import setup
from kdeploy.training.depthwise import float32_gradients

BFLOAT16 = TrainSpec(precision="bfloat16")


def decided(spec: TrainSpec = BFLOAT16) -> setup.Setup:
    return setup.choose(spec, torch.device("cpu"))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_same_values_and_gradients_as_in_float32(bias: bool, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 12, 3, stride=2, padding=1, groups=6, bias=bias)
    reference = copy.deepcopy(layer)
    x = torch.randn(4, 6, 9, 9).bfloat16().float().to(memory_format=layout)
    layer.weight.data = reference.weight.data = layer.weight.data.bfloat16().float()
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        plain = layer(x)
        with float32_gradients([layer], decided()):
            made = layer(ours)
    assert made.dtype == torch.bfloat16
    assert torch.equal(made, plain)
    expected = reference(theirs)
    upstream = torch.randn_like(expected).bfloat16().float()
    made.float().backward(upstream)
    expected.backward(upstream)
    assert ours.grad is not None
    assert theirs.grad is not None
    assert ours.grad.is_contiguous(memory_format=layout)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=2**-8, atol=1e-6)  # rounded once, to bfloat16
    for mine, its in zip(layer.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, its.grad)


def test_only_the_slow_layers_and_only_inside_of_the_block() -> None:
    network = models.create(NetworkSpec(model="shufflenetv2"), classes=10, channels=3)
    before = network.state_dict().keys()
    with float32_gradients([network, network], decided()):
        changed = [layer for layer in network.modules() if "forward" in vars(layer)]
        assert network.state_dict().keys() == before
    assert len(changed) == 6  # two at the head of each of three stages
    assert all(isinstance(layer, nn.Conv2d) and layer.stride == (2, 2) for layer in changed)
    assert not any("forward" in vars(layer) for layer in network.modules())


def test_float32_is_left_alone() -> None:
    layer = nn.Conv2d(4, 4, 3, stride=2, groups=4)
    with float32_gradients([layer], decided(TrainSpec(precision="float32"))):
        assert "forward" not in vars(layer)


def test_outside_of_autocast_the_layer_is_what_it_was() -> None:
    layer = nn.Conv2d(4, 4, 3, stride=2, groups=4)
    x = torch.randn(2, 4, 8, 8)
    expected = layer(x)
    with float32_gradients([layer], decided()):
        assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("groups", [2, 3])
def test_the_shuffle_is_the_same_in_both_layouts_and_keeps_them(groups: int) -> None:
    x = torch.randn(2, 12, 5, 4)
    last = x.to(memory_format=torch.channels_last).requires_grad_()
    made = shuffle(last, groups)
    assert torch.equal(made, shuffle(x, groups))
    assert made.is_contiguous(memory_format=torch.channels_last)
    made.backward(torch.randn_like(made))
    assert last.grad is not None
    assert last.grad.is_contiguous(memory_format=torch.channels_last)
