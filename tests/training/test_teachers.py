"""A teacher that would teach nothing is stopped, with what would put it right."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdeploy import events
from kdeploy.errors import GateFailed
from kdeploy.recipe.schema import NormalizeSpec
from kdeploy.training import loop, teachers
from kdeploy.training.teachers import examine
from tests.training import tiny

PERMUTATION = [3, 0, 7, 1, 9, 2, 8, 5, 4, 6]


def logits_for(answers: torch.Tensor, outputs: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(answers, outputs).double()


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.arange(200) % 10


def suggested(text: str) -> list[int]:
    return [int(word) for word in text.partition("[")[2].partition("]")[0].split(",")]


class TestExamine:
    def test_a_good_teacher(self, labels: torch.Tensor) -> None:
        found = examine(logits_for(labels, 10), labels)
        assert (found.accuracy, found.chance, found.near_chance, found.suggestions) == (1.0, 0.1, False, ())

    def test_chance_is_the_share_of_the_commonest_class(self) -> None:
        labels = torch.tensor([0] * 90 + [1] * 10)
        found = examine(logits_for(torch.zeros_like(labels), 2), labels)
        assert (found.accuracy, found.chance, found.near_chance) == (0.9, 0.9, True)

    def test_outputs_in_another_order(self, labels: torch.Tensor) -> None:
        """Output k means the class PERMUTATION[k]; the map says, for each class, which output it is."""
        inverse = torch.tensor(PERMUTATION).argsort()
        found = examine(logits_for(inverse[labels], 10), labels)
        assert found.near_chance
        assert suggested(found.suggestions[0]) == inverse.tolist()
        assert found.suggestions[0].endswith("would give 100.0%.")

    def test_with_a_class_map_the_suggestion_takes_its_place(self, labels: torch.Tensor) -> None:
        """The network has 13 outputs; its right map is `right`, the recipe's is `wrong`."""
        right = [12, 4, 7, 1, 9, 2, 8, 5, 3, 6]
        wrong = [*right[3:], *right[:3]]
        raw = logits_for(torch.tensor(right)[labels], 13)
        found = examine(raw[:, wrong], labels, wrong)
        assert found.near_chance
        assert suggested(found.suggestions[0]) == right

    def test_two_classes_swapped_is_a_suggestion_for_a_teacher_far_above_chance(self, labels: torch.Tensor) -> None:
        swapped = torch.tensor([1, 0, 2, 3, 4, 5, 6, 7, 8, 9])
        found = examine(logits_for(swapped[labels], 10), labels)
        assert not found.near_chance
        assert suggested(found.suggestions[0]) == swapped.tolist()

    @pytest.mark.parametrize(("right", "near"), [(4, False), (3, False), (2, True)])
    def test_with_very_few_samples_half_way_from_chance_is_enough(self, right: int, near: bool) -> None:
        labels = torch.tensor([0, 0, 1, 1])
        answers = torch.tensor([0, 0, 1, 1]) ^ torch.tensor([0] * right + [1] * (4 - right))
        assert examine(logits_for(answers, 2), labels).near_chance == near

    @pytest.mark.parametrize("seed", range(20))
    def test_noise_gets_no_suggestion(self, labels: torch.Tensor, seed: int) -> None:
        torch.manual_seed(seed)
        found = examine(torch.randn(len(labels), 10), labels)
        assert found.suggestions == ()

    def test_most_noise_is_near_chance(self, labels: torch.Tensor) -> None:
        near = [examine(torch.randn(len(labels), 10), labels).near_chance for _ in range(200)]
        assert np.mean(near) > 0.97  # three standard errors


@pytest.fixture
def checkpoint(teacher_folder: Path, tmp_path: Path) -> Path:
    """The trained teacher's weights, as somebody else's checkpoint."""
    return Path(shutil.copyfile(teacher_folder / "teacher.safetensors", tmp_path / "theirs.safetensors"))


def permuted(checkpoint: Path, order: list[int]) -> Path:
    """The same network with its outputs in another order."""
    from safetensors.torch import load_file, save_file

    weights = load_file(checkpoint)
    for name in ("fc.weight", "fc.bias"):
        weights[name] = weights[name][order].contiguous()
    save_file(weights, checkpoint)
    return checkpoint


def recipe(checkpoint: Path, **teacher: Any) -> Any:
    return tiny.recipe(teacher={"checkpoint": str(checkpoint), "train": None, **teacher})


def refused(asked: Any, folder: Path) -> str:
    with pytest.raises(GateFailed) as caught:
        tiny.train(tiny.workshop(asked, folder), "teacher")
    assert caught.value.exit_status == 3
    assert not list(folder.rglob("*.safetensors"))
    return str(caught.value)


def test_a_good_teacher_says_its_accuracy(checkpoint: Path, tmp_path: Path) -> None:
    listener = tiny.Interrupting("nothing", 0)
    with events.listening(listener):
        tiny.train(tiny.workshop(recipe(checkpoint), tmp_path / "run"), "teacher")
    count = len(tiny.splits().validation)
    said = next(line for line in listener.heard if line.startswith("the teacher's checkpoint: "))
    assert said.endswith(f"% on {count} validation images")
    assert (tmp_path / "run" / "networks" / "teacher" / "teacher.safetensors").is_file()


def test_a_teacher_of_another_order_is_stopped_and_its_class_map_makes_it_good(
    checkpoint: Path, tmp_path: Path
) -> None:
    said = refused(recipe(permuted(checkpoint, PERMUTATION)), tmp_path / "run")
    assert said.startswith("the teacher's checkpoint is near chance on validation: ")
    order = suggested(said.partition("teacher.class_map: ")[2])
    assert order == np.argsort(PERMUTATION).tolist()
    tiny.train(tiny.workshop(recipe(checkpoint, class_map=order), tmp_path / "run"), "teacher")


def test_a_wrong_class_map_is_answered_with_the_right_one(checkpoint: Path, tmp_path: Path) -> None:
    said = refused(
        recipe(permuted(checkpoint, PERMUTATION), class_map=[1, 2, 3, 4, 5, 6, 7, 8, 9, 0]), tmp_path / "run"
    )
    assert suggested(said.partition("teacher.class_map: ")[2]) == np.argsort(PERMUTATION).tolist()


def test_a_wrong_normalisation_is_answered_with_the_right_one(checkpoint: Path, tmp_path: Path) -> None:
    """Far off, the convolutions see a constant: all images look the same."""
    wrong = {"mean": [40.0], "std": [0.3]}
    said = refused(recipe(checkpoint, normalize=wrong), tmp_path / "run")
    own = tiny.workshop(recipe(checkpoint), tmp_path).normalize
    assert f"teacher.normalize: {{mean: {list(own.mean)}, std: {list(own.std)}}} (this data's own) would give " in said
    right = NormalizeSpec(mean=own.mean, std=own.std).model_dump()
    tiny.train(tiny.workshop(recipe(checkpoint, normalize=right), tmp_path / "run"), "teacher")


def test_a_teacher_that_knows_nothing_says_what_to_look_at(checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(checkpoint)
    weights["fc.weight"] = torch.zeros_like(weights["fc.weight"])
    save_file(weights, checkpoint)
    said = refused(recipe(checkpoint), tmp_path / "run")
    assert said.endswith(
        "Check teacher.normalize (what it was trained with), teacher.class_map (its order of classes) "
        "and teacher.rename."
    )


def test_it_is_stopped_before_it_is_fine_tuned(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "fit", lambda *_, **__: pytest.fail("a training has begun"))
    asked = recipe(permuted(checkpoint, PERMUTATION), train=tiny.TRAIN)
    assert "teacher.class_map" in refused(asked, tmp_path / "run")


def test_a_student_does_not_learn_from_a_teacher_near_chance(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teachers, "accuracy", lambda logits, labels: 0.1)
    with pytest.raises(GateFailed, match=r"the teacher is near chance on validation: 10\.0%"):
        tiny.train(tiny.workshop(tiny.recipe(), run_folder), "student")


def test_two_classes_that_seem_swapped_are_warned_of(checkpoint: Path, tmp_path: Path) -> None:
    listener = tiny.Interrupting("nothing", 0)
    swapped = permuted(checkpoint, [1, 0, 2, 3, 4, 5, 6, 7, 8, 9])
    with events.listening(listener):
        tiny.train(tiny.workshop(recipe(swapped), tmp_path / "run"), "teacher")
    (warning,) = [line for line in listener.heard if "another order" in line]
    assert suggested(warning) == [1, 0, 2, 3, 4, 5, 6, 7, 8, 9]
