"""Few labels on digits: a student with all images against one with the labelled ones; a better and a worse teacher."""

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
def test_images_without_labels_help_a_student(tmp_path: Path) -> None:
    """12 labels a class, of which 4 are to estimate by, and 69 images a class without one.

    Each variant leads the student that has the labels alone. That weights or mixing lead the plain form, as the papers
    have it, was not seen: weights leave the 4 out, and mixing flattens the loss, so that it wants more than the 208
    steps there are here. Measured by a teacher of 79.8 %, seeds 0 and 1: alone 69.4, 65.0 %; plain 77.4, 72.3 %;
    weighted 73.5, 69.8 %; mixed 76.7, 67.5 %.
    """
    found = reached(tmp_path, {"labelled": 0.15, "estimation": 0.3})
    assert less(found["plain"], found["alone"]) > 0.03, found
    assert less(found["weighted"], found["alone"]) > 0, found
    assert less(found["mixed"], found["alone"]) > 0, found


@pytest.mark.slow
def test_a_teacher_that_is_mostly_wrong_helps_by_its_plain_labels_alone(tmp_path: Path) -> None:
    """5 labels a class, of which 2 are to estimate by. The papers' gains are to be largest where a teacher errs often.

    Not so here, where 20 images are all there is to estimate by: measured by a teacher of 44.2 %, seeds 0 and 1: alone
    32.2, 35.9 %; plain 39.3, 39.3 %; weighted 34.4, 34.1 %; mixed 26.1, 27.4 %.
    """
    found = reached(tmp_path, {"labelled": 0.06, "estimation": 0.4})
    assert less(found["plain"], found["alone"]) > 0, found
    assert less(found["weighted"], found["alone"]) > -0.08, found
    assert min(found["mixed"]) > 0.15, found
