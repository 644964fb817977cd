"""Weighted distillation: the weight in closed form, that it makes up for a teacher that errs, and its estimate."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdeploy.training.unlabelled.weighted import (
    Sureness,
    debiasing_weight,
    distortions,
    effective_share,
    estimated_weights,
)
from tests.methods.golden import y, zs

SHARES = st.floats(0, 1)
RATIOS = st.floats(1, 1e6)


def weight(wrong: float, distortion: float) -> float:
    return float(debiasing_weight(np.array(wrong), np.array(distortion)))


@settings(deadline=None)
@given(SHARES, RATIOS)
def test_a_teacher_that_never_errs_or_does_no_harm_weighs_in_full(wrong: float, distortion: float) -> None:
    assert weight(0, distortion) == weight(wrong, 1) == 1
    assert 0 < weight(wrong, distortion) <= 1


@settings(deadline=None)
@given(st.floats(0.01, 1), st.floats(1.01, 1e3))
def test_the_weight_falls_with_the_teachers_errors_and_with_their_harm(wrong: float, distortion: float) -> None:
    assert weight(wrong, distortion) < weight(0.9 * wrong, distortion)
    assert weight(wrong, distortion) < weight(wrong, 0.9 * distortion + 0.1)


def test_golden_weights() -> None:
    assert weight(0.25, 5.0) == 0.5
    assert weight(1.0, 4.0) == 0.25
    assert weight(0.5, 0.2) == 1.0, "a student that believes the wrong label makes it count no more than once"
    assert weight(1.0, 0.0) == 1.0


def test_the_weighted_loss_is_that_of_the_truth_on_average() -> None:
    """200,000 labels of a teacher that errs in three of ten cases, against the cross-entropy with the true label."""
    own, other, wrong = 0.4, 2.5, 0.3
    labels = np.random.default_rng(0).random(200_000) < wrong
    losses = weight(wrong, other / own) * np.where(labels, other, own)
    error = losses.std() / math.sqrt(len(losses))
    assert abs(losses.mean() - own) < 5 * error < 0.01
    assert abs(np.where(labels, other, own).mean() - own) > 0.5


def test_distortion_is_the_loss_under_the_wrong_label_over_that_under_the_true_one() -> None:
    taught = torch.tensor([1, 2, 0, 1])
    log_p = zs.log_softmax(dim=1)
    rows = torch.arange(4)
    torch.testing.assert_close(distortions(zs, y, taught), log_p[rows, taught] / log_p[rows, y])
    assert distortions(zs, y, y).tolist() == pytest.approx([1] * 4)
    sure = torch.tensor([[50.0, 0.0]])
    assert distortions(sure, torch.tensor([0]), torch.tensor([1])).item() == pytest.approx(50 / 1e-3)


def test_weights_come_from_the_nearest() -> None:
    points = np.array([[0.0, 0.0], [0.1, 0.0], [0.9, 1.0], [1.0, 1.0]])
    wrong, distortion = np.array([1.0, 0.0, 1.0, 1.0]), np.array([4.0, math.nan, 2.0, 6.0])
    at = np.array([[0.0, 0.1], [0.95, 0.9]])
    one = estimated_weights(points, wrong, distortion, np.array([[0.01, 0.0], [0.1, 0.05], [1.0, 0.9]]), 1)
    assert one.tolist() == pytest.approx([1 / 4, 1, 1 / 6])
    two = estimated_weights(points, wrong, distortion, at, 2)
    assert two.tolist() == pytest.approx([1 / (1 + 0.5 * 3), 1 / 4])


def test_each_axis_counts_by_its_own_spread() -> None:
    points = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1e-3], [1.0, 1e-3]])
    wrong, distortion = np.array([0.0, 0.0, 1.0, 1.0]), np.full(4, 3.0)
    assert estimated_weights(points, wrong, distortion, np.array([[0.4, 0.9e-3]]), 1).tolist() == pytest.approx([1 / 3])
    flat = np.zeros((4, 2))
    assert np.isfinite(estimated_weights(flat, wrong, distortion, flat, 4)).all()


def test_estimates_undo_the_mean_distortion_of_what_they_are_made_from() -> None:
    """With all points as neighbours and one true loss, w times the mean of the teacher's losses is that loss."""
    generator = np.random.default_rng(1)
    wrong = (generator.random(40) < 0.35).astype(float)
    own, other = 0.7, 0.7 + 3 * generator.random(40)
    found = estimated_weights(generator.random((40, 2)), wrong, other / own, generator.random((5, 2)), 40)
    np.testing.assert_allclose(found * np.where(wrong > 0, other, own).mean(), own, rtol=1e-12)


def test_equal_weights_are_as_good_as_all_images() -> None:
    assert effective_share(np.full(7, 0.3)) == pytest.approx(1)
    assert effective_share(np.array([1.0, 0, 0, 0])) == pytest.approx(1 / 4)
    assert effective_share(np.array([1.0, 0.5])) == pytest.approx(1.5**2 / (2 * 1.25))


@pytest.mark.parametrize("training", [True, False])
def test_how_sure_a_network_is(training: bool) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Dropout(0.5)).train(training)
    asked = Sureness(network)
    assert asked.training is training
    asked.eval()
    images = torch.rand(5, 1, 2, 2)
    first, second, _ = F.softmax(network(images), dim=1).sort(dim=1, descending=True).values.T
    torch.testing.assert_close(asked(images), (first - second)[:, None])
    assert not network.training
