"""A run's student beside the published figure."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdeploy import artifacts, published
from kdeploy.recipe import dump, load


def run(folder: Path, recipe: str, last: float, chosen: float) -> Path:
    """A run folder with just what the comparison reads."""
    artifacts.write_text(folder / "recipe.yaml", dump(load(recipe)))
    scores = {
        "schema_version": 1,
        "selected": "last",
        "test_samples": 10000,
        "last": {"epoch": 239, "validation_accuracy": 0.7, "test_accuracy": last},
        "chosen": {"epoch": 230, "validation_accuracy": 0.72, "test_accuracy": chosen},
    }
    artifacts.write_json(folder / "networks" / "student" / "epochs.json", scores)
    return folder


def test_of_the_last_epoch_where_the_published_figure_is(tmp_path: Path) -> None:
    said = published.comparison([run(tmp_path, "cifar100/resnet56-resnet20/kd", 0.7, 0.71)])
    assert said == (
        "published  70.66 %  (last epoch, RepDistiller's README, same style, verified)\n"
        "here       70.00 %  (last epoch, torchvision:CIFAR100, trained for 240 epochs, 10,000 test images, "
        "95 % interval 69.09 to 70.89): -0.66 points"
    )


def test_of_the_epoch_chosen_on_validation_where_the_published_one_is_the_best_on_test(tmp_path: Path) -> None:
    said = published.comparison([run(tmp_path, "cifar100/resnet32x4-resnet8x4/simkd", 0.7, 0.781)])
    assert said is not None
    ours, theirs = said.splitlines()[1], said.splitlines()[0]
    assert "(best test epoch, SimKD's repository, verified, their own recipe, in which" in theirs
    assert ours.startswith("here       78.10 %  (epoch chosen on validation, ")
    assert ours.endswith(": +0.02 points")


def test_several_seeds_give_the_interval_of_their_mean(tmp_path: Path) -> None:
    name = "cifar100/resnet56-resnet20/kd"
    folders = [run(tmp_path / str(seed), name, 0.70 + seed / 100, 0.5) for seed in range(3)]
    said = published.comparison(folders)
    assert said is not None
    assert "here       71.00 %" in said
    assert "3 seeds, 95 % interval 68.52 to 73.48): +0.34 points" in said  # t(0.975, 2) = 4.303, s = 1 point


@pytest.mark.parametrize("name", ["quickstart", "cifar100/resnet56-resnet20/pefd"])
def test_nothing_is_said_where_no_figure_is_known(tmp_path: Path, name: str) -> None:
    assert published.comparison([run(tmp_path, name, 0.7, 0.7)]) is None
