"""Perturbed ensemble on digits: three teachers into one student with three members, and into a plain one."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from kdeploy.bench.likelihood import Answers
from tests.training.effects.digits import TRAIN, answers, network, recipe, train

SEEDS = (0, 1)
LEARNT = {"method": "kd", "options": {"temperature": 1, "alpha": 0.9}, "baseline": "none", "epochs": 40}
MEMBERS = "perturbed-ensemble"
WAYS: dict[str, dict[str, Any]] = {
    "averaged": {"procedure": "offline"},
    "as they are": {"procedure": MEMBERS, "procedure_options": {"perturbation": "none"}},
    "confods": {"procedure": MEMBERS, "procedure_options": {"perturbation": "confods", "step": 16}},
}


@pytest.mark.slow
def test_members_are_as_often_right_as_a_plain_student(tmp_path: Path) -> None:
    """The paper: members taught on perturbed images have a better likelihood and calibration than a plain student.

    The opposite was seen, in 200 steps on 160 images: members are as often right, and worse in both, on perturbed
    images most. Measured, accuracy, NLL (nats) and ECE, seeds 0 and 1:

    | student | accuracy (%) | NLL | ECE (%) |
    |:--|--:|--:|--:|
    | plain, from the teachers' mean | 92.5, 91.2 | 0.254, 0.275 | 6.7, 4.8 |
    | members, images as they are | 92.0, 93.5 | 0.302, 0.302 | 11.0, 12.1 |
    | members, ConfODS | 91.6, 92.4 | 0.396, 0.381 | 16.6, 16.8 |

    They are too unsure: on images as they are, seed 1, the members' mean is 81.5 % sure and 93.5 % right.
    """
    first, *others = (network(0.5, seed=seed, train=TRAIN) for seed in range(3))
    found: dict[str, list[Answers]] = {way: [] for way in WAYS}
    for seed in SEEDS:
        for way, how in WAYS.items():
            student = {**TRAIN, **LEARNT, **how}
            asked = recipe(seed, teacher=first, teachers=others, student=network(0.5), distill=student)
            if not (tmp_path / "networks").exists():
                train(asked, tmp_path, "teacher", "teacher-2", "teacher-3")
            found[way].append(answers(train(asked, tmp_path, "student"), "student"))
    accuracy = {way: mean(float(one.right.mean()) for one in each) for way, each in found.items()}
    likelihood = {way: mean(one.negative_log_likelihood or 0 for one in each) for way, each in found.items()}
    assert all(accuracy[way] > accuracy["averaged"] - 0.04 for way in WAYS), accuracy
    assert all(likelihood[way] < 0.6 for way in WAYS), likelihood
