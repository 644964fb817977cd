"""Optimisers and learning rates against torch's own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR

from kdeploy.recipe.schema import TrainSpec
from kdeploy.training.optim import Apart, grouped, learning_rate, make_optimizer


def spec(**more: Any) -> TrainSpec:
    return TrainSpec.model_validate({"epochs": 10, "lr": 0.4, **more})


def by_epoch(asked: TrainSpec) -> list[float]:
    return [learning_rate(asked, epoch) for epoch in range(asked.epochs)]


def by_torch(scheduler: Any, **options: Any) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.4)
    schedule = scheduler(optimizer, **options)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def test_cosine_is_torchs_at_whole_epochs() -> None:
    assert by_epoch(spec()) == pytest.approx(by_torch(CosineAnnealingLR, T_max=10), rel=1e-12)


def test_cosine_moves_within_an_epoch_and_ends_at_zero() -> None:
    assert learning_rate(spec(), 2.5) == pytest.approx(0.4 * (1 + math.cos(math.pi / 4)) / 2)
    assert learning_rate(spec(), 10) == pytest.approx(0.0, abs=1e-17)
    assert learning_rate(spec(), 11) == pytest.approx(0.0, abs=1e-17)


def test_multistep_is_torchs_the_epoch_after_a_milestone_is_the_first_at_the_lower_rate() -> None:
    asked = spec(schedule="multistep", milestones=[3, 6], gamma=0.1)
    assert by_epoch(asked) == pytest.approx(by_torch(MultiStepLR, milestones=[3, 6], gamma=0.1), rel=1e-12)
    assert learning_rate(asked, 2.999) == 0.4
    assert learning_rate(asked, 3.0) == pytest.approx(0.04)  # epoch 4, counted from 1


def test_constant() -> None:
    assert by_epoch(spec(schedule="constant")) == [0.4] * 10


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_warm_up_rises_linearly_to_the_schedule(schedule: str) -> None:
    plain, warm = spec(schedule=schedule), spec(schedule=schedule, warmup_epochs=2)
    assert learning_rate(warm, 0) == 0
    assert learning_rate(warm, 0.5) == pytest.approx(learning_rate(plain, 0.5) / 4)
    assert learning_rate(warm, 1.5) == pytest.approx(learning_rate(plain, 1.5) * 3 / 4)
    assert learning_rate(warm, 2) == learning_rate(plain, 2)


def test_sgd_steps_as_its_formula_says() -> None:
    """d = g + wd * w; buffer = momentum * buffer + d; w -= lr * buffer, with Nesterov lr * (d + momentum * buffer)."""
    for nesterov in (False, True):
        weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
        optimizer = make_optimizer([weight], spec(nesterov=nesterov, momentum=0.9, weight_decay=0.01, lr=0.1))
        expected, buffer = 2.0, None
        for gradient in (1.0, -0.5, 0.25):
            weight.grad = torch.tensor([gradient], dtype=torch.float64)
            optimizer.step()
            decayed = gradient + 0.01 * expected
            buffer = decayed if buffer is None else 0.9 * buffer + decayed
            expected -= 0.1 * (decayed + 0.9 * buffer if nesterov else buffer)
            assert weight.item() == pytest.approx(expected, rel=1e-12)


def test_adam_adds_the_decay_to_the_gradient() -> None:
    """Its first step is lr times the sign of gradient plus decay (Kingma and Ba, algorithm 1)."""
    weight = nn.Parameter(torch.tensor([2.0, -2.0, 1.0], dtype=torch.float64))
    optimizer = make_optimizer([weight], spec(optimizer="adam", lr=0.1, weight_decay=0.5))
    weight.grad = torch.tensor([1.0, 2.0, -0.25], dtype=torch.float64)  # with 0.5 of the weights: 2, 1, 0.25
    optimizer.step()
    torch.testing.assert_close(weight.data, torch.tensor([1.9, -2.1, 0.9], dtype=torch.float64), atol=1e-6, rtol=0)


def test_adamw_decays_the_weight_apart_from_the_gradient() -> None:
    weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = make_optimizer([weight], spec(optimizer="adamw", lr=0.1, weight_decay=0.5))
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    assert weight.item() == pytest.approx(2.0 * (1 - 0.1 * 0.5))


def test_without_any_apart_the_parameters_are_not_in_groups_of_ours() -> None:
    parameters = [nn.Parameter(torch.zeros(1))]
    assert grouped(parameters, ()) is parameters


def test_parameters_apart_have_their_own_decay_and_the_others_the_recipes() -> None:
    first, second, third, frozen = (nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in range(4))
    apart = [Apart([second, frozen], lr_factor=0.5, weight_decay=False), Apart([third], lr_factor=2.0)]
    groups = grouped([first, second, third], apart)
    optimizer = make_optimizer(groups, spec(weight_decay=0.1, momentum=0.0, lr=1.0))
    assert [(group.get("lr_factor"), group["weight_decay"]) for group in optimizer.param_groups] == [
        (None, 0.1),
        (0.5, 0.0),
        (2.0, 0.1),
    ]
    assert [[id(each) for each in group["params"]] for group in optimizer.param_groups] == [
        [id(first)],
        [id(second)],
        [id(third)],
    ]
    for parameter in (first, second, third):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert [parameter.item() for parameter in (first, second, third)] == pytest.approx([0.9, 1.0, 0.9])
