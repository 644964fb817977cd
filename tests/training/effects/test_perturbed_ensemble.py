"""Perturbed ensemble on digits: three teachers into one student with three members, and into a plain one."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from kdeploy.bench.likelihood import Answers
from tests.training.effects.digits import TRAIN, answers, network, recipe, train

SEEDS = (1, 2)
LEARNT = {"method": "kd", "options": {"temperature": 1, "alpha": 0.9}, "baseline": "none", "epochs": 160}
TEACHERS = ("teacher", "teacher-2", "teacher-3")
MEMBERS = "perturbed-ensemble"
WAYS: dict[str, dict[str, Any]] = {
    "averaged": {"procedure": "offline"},
    "as they are": {"procedure": MEMBERS, "procedure_options": {"perturbation": "none"}},
    "confods": {"procedure": MEMBERS, "procedure_options": {"perturbation": "confods", "step": 4}},
}


@pytest.mark.slow
def test_members_are_as_good_as_a_plain_student_and_better_than_their_teachers(tmp_path: Path) -> None:
    """The paper: perturbed images give members a better likelihood and calibration than images as they are.

    Neither that nor a lead over a plain student was seen here. Measured, accuracy, NLL (nats) and ECE, seeds 1 and 2,
    by teachers of 90.1, 92.8 and 91.3 %, in 800 steps on 160 images:

    | student | accuracy (%) | NLL | ECE (%) |
    |:--|--:|--:|--:|
    | plain, from the teachers' mean | 95.7, 95.8 | 0.178, 0.188 | 6.9, 7.4 |
    | members, images as they are | 95.3, 96.4 | 0.190, 0.188 | 7.2, 8.7 |
    | members, ConfODS | 95.2, 95.1 | 0.203, 0.213 | 8.1, 8.8 |

    In a quarter of the steps members are far too unsure yet (NLL 0.30 against 0.26): their vectors start apart, and
    they share every weight. Held is that in time they are as good as a plain student, and better than each teacher.
    """
    first, *others = (network(0.5, seed=seed, train=TRAIN) for seed in range(3))
    found: dict[str, list[Answers]] = {way: [] for way in WAYS}
    for seed in SEEDS:
        for way, how in WAYS.items():
            student = {**TRAIN, **LEARNT, **how}
            asked = recipe(seed, teacher=first, teachers=others, student=network(0.5), distill=student)
            if not (tmp_path / "networks").exists():
                shop = train(asked, tmp_path, *TEACHERS)
                found["teachers"] = [answers(shop, role) for role in TEACHERS]
            found[way].append(answers(train(asked, tmp_path, "student"), "student"))
    accuracy = {way: mean(float(one.right.mean()) for one in each) for way, each in found.items()}
    likelihood = {way: mean(one.negative_log_likelihood or 0 for one in each) for way, each in found.items()}
    for way in WAYS:
        assert accuracy[way] > accuracy["teachers"] + 0.01, accuracy
        assert accuracy[way] > accuracy["averaged"] - 0.02, accuracy
        assert likelihood[way] < likelihood["teachers"], likelihood
        assert likelihood[way] < likelihood["averaged"] + 0.1, likelihood
