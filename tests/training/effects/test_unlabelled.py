"""Few labels on digits: a student with all images, and one with the labelled ones alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.training.effects.digits import accuracy, less, network, recipe, train

SEEDS = (0, 1)
FEW = {"batch": 16, "lr": 0.05, "epochs": 15, "precision": "float32"}
ALL = {"batch": 32, "lr": 0.05, "epochs": 8, "precision": "float32"}
LIKELIHOOD = {"method": "kd", "options": {"temperature": 1}, "weight": 1, "cross_entropy": 1}
VARIANTS = ("plain", "weighted", "mixed")


def reached(folder: Path, labels: dict[str, float]) -> dict[str, list[float]]:
    """By seed, the accuracies of the student alone and by each variant, all from one teacher."""
    found: dict[str, list[float]] = {name: [] for name in ("alone", *VARIANTS)}
    for seed in SEEDS:
        for variant in VARIANTS:
            how: dict[str, Any] = {"procedure": "unlabelled", "procedure_options": {"variant": variant, **labels}}
            networks = {"teacher": network(0.5, train=FEW), "student": network(0.25)}
            asked = recipe(seed, None, **networks, distill={**ALL, **LIKELIHOOD, **how})
            if variant == VARIANTS[0]:
                shop = train(asked, folder, *(["teacher"] if seed == SEEDS[0] else []), "alone")
                found["alone"].append(accuracy(shop, "alone"))
            found[variant].append(accuracy(train(asked, folder, "student"), "student"))
    return found


@pytest.mark.slow
def test_a_student_comes_near_its_teacher_by_images_without_labels(tmp_path: Path) -> None:
    """12 labels a class, of which 4 are to estimate by, and 69 images a class without one.

    The papers: images that a teacher labels help a student, and weights or mixing help more where it errs often.
    Neither was seen against the right control. Measured by a teacher of 79.8 %, seeds 0 and 1: plain 77.4, 72.3 %;
    weighted 73.5, 69.8 %; mixed 76.7, 67.5 %, each in 208 steps. The student alone has 69.4, 65.0 % by the teacher's
    training, which is 120 steps for it, and with as many steps as the others (26 epochs) 82.9, 82.2 %: that lead over
    it was one of steps, and this teacher has learnt too little to lead it. With 5 labels a class the same: a teacher of
    44.2 %, plain 39.3, 39.3 %, weighted 34.4, 34.1 %, mixed 26.1, 27.4 %, alone 70.6, 59.6 % in as many steps. A
    teacher trained to its end is still to be measured. Held is that a student takes over what its teacher knows.
    """
    found = reached(tmp_path, {"labelled": 0.15, "estimation": 0.3})
    assert less(found["plain"], found["alone"]) > 0.03, found
    assert less(found["weighted"], found["alone"]) > 0, found
    assert less(found["mixed"], found["alone"]) > 0, found
