from __future__ import annotations

import math

import numpy as np
import pytest

from kdeploy.bench.likelihood import Answers


def test_likelihood_and_calibration_by_hand() -> None:
    """Bins of a fifteenth: 0.9 and 0.92 lie in the 14th, (13/15, 14/15], and 0.5 in the 8th, (7/15, 8/15]."""
    probabilities = np.array([[0.9, 0.1], [0.08, 0.92], [0.5, 0.5], [0.08, 0.92]])
    found = Answers.of_probabilities(probabilities, np.array([0, 0, 0, 1]))
    assert found.predicted.tolist() == [0, 1, 0, 1]
    assert found.right.tolist() == [True, False, True, True]
    expected = -(math.log(0.9) + math.log(0.08) + math.log(0.5) + math.log(0.92)) / 4
    assert found.negative_log_likelihood == pytest.approx(expected)
    assert found.calibration_error == pytest.approx((abs(2 - (0.9 + 0.92 + 0.92)) + abs(1 - 0.5)) / 4)


def test_logits_are_the_same_answers_as_their_probabilities() -> None:
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(0, 3, (500, 7)), generator.integers(0, 7, 500)
    powers = np.exp(logits)
    both = (
        Answers.of_logits(logits, labels),
        Answers.of_probabilities(powers / powers.sum(axis=1, keepdims=True), labels),
    )
    assert both[0].predicted.tolist() == logits.argmax(axis=1).tolist()
    assert both[0].negative_log_likelihood == pytest.approx(both[1].negative_log_likelihood)
    assert both[0].calibration_error == pytest.approx(both[1].calibration_error)


def test_they_agree_with_torch() -> None:
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(1)
    logits, labels = generator.normal(0, 3, (300, 5)).astype(np.float32), generator.integers(0, 5, 300)
    expected = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)).item()
    assert Answers.of_logits(logits, labels).negative_log_likelihood == pytest.approx(expected, rel=1e-5)


def test_a_classifier_that_is_as_sure_as_it_is_right_has_no_calibration_error() -> None:
    """0.7 for the first of two classes, right in 70 of 100."""
    probabilities = np.tile([0.7, 0.3], (100, 1))
    labels = np.array([0] * 70 + [1] * 30)
    assert Answers.of_probabilities(probabilities, labels).calibration_error == pytest.approx(0, abs=1e-12)
    assert Answers.of_probabilities(probabilities, 1 - labels).calibration_error == pytest.approx(0.4)


def test_the_ends_of_a_bin_belong_to_it_above() -> None:
    """1 lies in the last bin; 14/15 in the one before, with what is right there."""
    confidence = np.array([1.0, 14 / 15, 13.5 / 15])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    found = Answers.of_probabilities(probabilities, np.array([0, 1, 0]))
    assert found.calibration_error == pytest.approx(abs(1 - 27.5 / 15) / 3)


def test_one_impossible_label_does_not_make_the_mean_infinite() -> None:
    found = Answers.of_logits(np.array([[800.0, -800.0], [0.0, 0.0]], np.float32), np.array([1, 0]))
    assert found.negative_log_likelihood == pytest.approx((87.34 + math.log(2)) / 2, abs=0.01)
    assert found.likelihood[0] == 0


def test_answers_that_are_no_numbers_have_neither() -> None:
    found = Answers.of_probabilities(np.full((3, 2), np.nan), np.array([0, 1, 0]))
    assert found.negative_log_likelihood is None
    assert found.calibration_error is None


def test_lots_are_joined_in_order() -> None:
    generator = np.random.default_rng(2)
    probabilities, labels = generator.dirichlet(np.ones(4), 90), generator.integers(0, 4, 90)
    parts = [Answers.of_probabilities(probabilities[at : at + 40], labels[at : at + 40]) for at in (0, 40, 80)]
    whole, joined = Answers.of_probabilities(probabilities, labels), Answers.joined(parts)
    assert joined.predicted.tolist() == whole.predicted.tolist()
    assert joined.negative_log_likelihood == whole.negative_log_likelihood
    assert joined.calibration_error == whole.calibration_error
