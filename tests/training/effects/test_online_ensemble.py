"""Online ensemble on digits: a student and one of half its width behind one stem, against each alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.effects.digits import accuracy, less, network, recipe, train

SEEDS = (0, 1, 2)
LONG = {"batch": 25, "lr": 0.05, "epochs": 150, "precision": "float32"}
PAPER = {"method": "kd", "options": {"temperature": 2}, "weight": 0.15, "cross_entropy": 0.7}


@pytest.mark.slow
def test_one_training_leaves_two_students_as_good_as_each_alone(tmp_path: Path) -> None:
    """The paper: each student gains on itself alone, the smaller ones most.

    Of the second a trace is seen, in 600 steps on 10 images a class: the first student loses 1.0 points on itself,
    with a standard error of 1.0, and the narrow one gains 1.4, with one of 1.4. Measured:

    | seed | first alone | together | narrow alone | together |
    |--:|--:|--:|--:|--:|
    | 0 | 94.1 | 91.4 | 91.3 | 93.8 |
    | 1 | 94.3 | 95.0 | 90.9 | 89.5 |
    | 2 | 93.5 | 92.7 | 89.3 | 92.4 |

    In a third of the steps both lose, the narrow one eight points: the adapters start at chance and learn as well. Held
    is that one training leaves two students of which neither is worth less than by a training of its own.
    """
    how = {"procedure": "online-ensemble", "procedure_options": {"widths": [0.5]}, **LONG, **PAPER}
    found: dict[str, list[float]] = {role: [] for role in ("alone", "alone-2", "student", "student-2")}
    for seed in SEEDS:
        shop = train(recipe(seed, 100, student=network(0.5), distill=how), tmp_path, "alone", "alone-2", "student")
        for role, reached in found.items():
            reached.append(accuracy(shop, role))
    assert less(found["student"], found["alone"]) > -0.04, found
    assert less(found["student-2"], found["alone-2"]) > -0.03, found
