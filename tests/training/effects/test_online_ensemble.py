"""Online ensemble on digits: a student and one of half its width behind one stem, against each alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.effects.digits import accuracy, less, network, recipe, train

SEEDS = (0, 1)
LONG = {"batch": 25, "lr": 0.05, "epochs": 50, "precision": "float32"}
PAPER = {"method": "kd", "options": {"temperature": 2}, "weight": 0.15, "cross_entropy": 0.7}


@pytest.mark.slow
def test_one_training_leaves_two_students_each_somewhat_below_itself_alone(tmp_path: Path) -> None:
    """The paper: each student gains on itself alone, the smaller ones most.

    The opposite was seen, in 200 steps on 10 images a class: with the paper's weights the first student loses 1.8
    points, with a standard error of 0.1, and the narrow one 8.1 with one of 2.9. Measured, seeds 0 and 1: the first
    alone 90.7, 93.4 %, together 88.7, 91.6 %; the narrow one alone 85.9, 88.9 %, together 80.6, 77.8 %. About 3.5 of
    its 8.1 points are the features' part: with `feature_weight: 0` it has 84.9, 80.6 % (the first 89.8, 91.5 %).
    Held is that each of the two is a network of use.
    """
    how = {"procedure": "online-ensemble", "procedure_options": {"widths": [0.5]}, **LONG, **PAPER}
    found: dict[str, list[float]] = {role: [] for role in ("alone", "alone-2", "student", "student-2")}
    for seed in SEEDS:
        shop = train(recipe(seed, 100, student=network(0.5), distill=how), tmp_path, "alone", "alone-2", "student")
        for role, reached in found.items():
            reached.append(accuracy(shop, role))
    assert less(found["student"], found["alone"]) > -0.06, found
    assert less(found["student-2"], found["alone-2"]) > -0.16, found
    assert min(found["student-2"]) > 0.6, found
