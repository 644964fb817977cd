"""Batch norms by the batch, and statistics measured anew."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from kdeploy.errors import UserError
from kdeploy.loading import Batch
from kdeploy.recipe.schema import TrainSpec
from kdeploy.training import setup
from kdeploy.training.batchnorm import batch_norms, batch_statistics, recalibrate, require_batch_norms
from tests.training import tiny


def network() -> nn.Sequential:
    """Two batch norms far from the statistics of noise, and dropout between them."""
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Conv2d(8, 4, 3),
        nn.BatchNorm2d(4),
    )
    for norm in batch_norms(made).values():
        norm.running_mean.uniform_(-2, 2)
        norm.running_var.uniform_(0.5, 4)
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.uniform_(norm.bias, -1, 1)
    return made.eval()


def test_each_output_has_the_moments_that_weight_and_bias_say() -> None:
    made, images = network(), torch.randn(64, 3, 8, 8)
    with torch.no_grad(), batch_statistics(made):
        out = made(images)
    last = made[5]
    torch.testing.assert_close(out.mean((0, 2, 3)), last.bias, rtol=0, atol=1e-4)
    torch.testing.assert_close(out.var((0, 2, 3), correction=0), last.weight**2, rtol=1e-3, atol=1e-4)


def test_nothing_of_the_network_is_changed() -> None:
    made = network()
    before = copy.deepcopy(made.state_dict())
    with batch_statistics(made):
        made(torch.randn(8, 3, 8, 8))
    assert tiny.same(made.state_dict(), before)
    assert not any(module.training for module in made.modules())


def test_what_an_error_leaves_is_put_back() -> None:
    made = network()
    before = copy.deepcopy(made.state_dict())
    with pytest.raises(KeyboardInterrupt), batch_statistics(made):
        raise KeyboardInterrupt
    assert tiny.same(made.state_dict(), before)


def test_samples_meet_by_the_batch_only() -> None:
    made = network()
    images = torch.randn(6, 3, 8, 8)
    changed = torch.cat([images[:5], 5 * images[5:]])
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    with torch.no_grad():
        running, running_changed = made(images), made(changed)
        with batch_statistics(made):
            by_batch, by_batch_changed, permuted = made(images), made(changed), made(images[order])
    assert torch.equal(running[:5], running_changed[:5])
    assert not torch.allclose(by_batch[:5], by_batch_changed[:5], atol=1e-2)
    torch.testing.assert_close(permuted, by_batch[order], rtol=1e-4, atol=1e-5)


def test_dropout_stays_off() -> None:
    made, images = network(), torch.randn(6, 3, 8, 8)
    with torch.no_grad(), batch_statistics(made):
        assert torch.equal(made(images), made(images))


def test_recalibrated_statistics_make_plain_evaluation_what_batches_give() -> None:
    made = network()
    generator = torch.Generator().manual_seed(1)
    draw = [torch.randn(200, 3, 8, 8, generator=generator) for _ in range(10)]
    decided = setup.choose(TrainSpec(precision="float32"), torch.device("cpu"))
    momentum = [norm.momentum for norm in batch_norms(made).values()]
    recalibrate(made, [Batch(images, torch.zeros(200), torch.arange(200)) for images in draw], decided)
    with torch.no_grad():
        plain = made(draw[0])
        with batch_statistics(made):
            by_batch = made(draw[0])
    assert (plain - by_batch).abs().mean() < 0.05 * by_batch.std()
    assert [norm.momentum for norm in batch_norms(made).values()] == momentum
    assert not any(module.training for module in made.modules())


def test_a_network_without_batch_norms_is_refused() -> None:
    with pytest.raises(UserError, match=r"^The teacher has no batch normalisation.*take another network"):
        require_batch_norms(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), "The teacher")
