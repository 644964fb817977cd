"""Mutual learning on digits: two peers that are alike."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from statistics import mean

import numpy as np
import pytest

from kdeploy.bench.likelihood import Answers
from tests.training.effects.digits import answers, network, recipe, train

SEEDS = (0, 1, 2)
LONG = {"batch": 25, "lr": 0.05, "epochs": 50, "precision": "float32"}
DEEP_MUTUAL = {"method": "kd", "options": {"temperature": 1}, "weight": 1, "cross_entropy": 1}


def agreement(one: Answers, other: Answers) -> float:
    """The share of images that both name alike."""
    return float(np.mean(one.predicted == other.predicted))


@pytest.mark.slow
def test_two_peers_agree_and_learn_no_less_than_one_alone(tmp_path: Path) -> None:
    """The paper: two networks that teach one another both end better than either would alone.

    That gain is not to be told from chance here, with 10 images a class. Measured, accuracy alone and of the two peers:
    90.7 and 91.3, 91.5 %; 93.4 and 92.4, 91.3 %; 90.8 and 93.4, 92.3 % (seeds 0, 1, 2): the peers lead by 0.4 points,
    with a standard error of 1.1. (After half the steps, with networks half as wide, they were behind in 2 of 3 seeds.)
    What they learn from each other is seen: two peers name 91.2 % of the test images alike, and two networks trained
    apart 88.8 %.
    """
    both = {"procedure": "mutual", "peers": [network(0.5)], **LONG, **DEEP_MUTUAL}
    found: dict[str, list[Answers]] = {"alone": [], "student": [], "peer-2": []}
    for seed in SEEDS:
        shop = train(recipe(seed, 100, student=network(0.5), distill=both), tmp_path, "alone", "student")
        for role, reached in found.items():
            reached.append(answers(shop, role))
    accuracy = {role: mean(float(one.right.mean()) for one in reached) for role, reached in found.items()}
    apart = mean(agreement(one, other) for one, other in combinations(found["alone"], 2))
    together = mean(agreement(*pair) for pair in zip(found["student"], found["peer-2"], strict=True))
    assert (accuracy["student"] + accuracy["peer-2"]) / 2 > accuracy["alone"] - 0.025, accuracy
    assert together > apart, (together, apart)
