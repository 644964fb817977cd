"""Few labels on digits: who learns from which images, that nobody learns what is hidden, and where a run goes on."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from kdeploy import events, pipeline
from kdeploy import recipe as recipes
from kdeploy.artifacts import read_json
from kdeploy.errors import UserError
from kdeploy.recipe.networks import networks
from kdeploy.recipe.schema import Recipe
from kdeploy.sources import labelling
from kdeploy.sources.base import Splits
from kdeploy.sources.labelling import HIDDEN
from kdeploy.training import loop, procedures, state
from kdeploy.training.procedures.base import Workshop
from kdeploy.training.unlabelled import Weighted
from tests.test_events import Heard
from tests.training import tiny

LABELS = {"labelled": 0.6, "estimation": 0.25}
"""Of 15 images a class 9 have a label, and the teacher sees 7 of these."""
LEARNING = {**tiny.TRAIN, "epochs": 20, "batch": 16, "lr": 0.1}
VARIANTS = ["plain", "weighted", "mixed"]


def recipe(variant: str = "plain", *, few: dict[str, Any] | None = None, **distill: Any) -> Recipe:
    """few: options of the procedure; distill: what is put over a distillation by kd at temperature 1."""
    chosen = {"variant": variant, **LABELS, **(few or {})}
    kd = {"method": "kd", "options": {"temperature": 1}, "weight": 1, "cross_entropy": 1, "epochs": 3}
    given = {**kd, "procedure": "unlabelled", "procedure_options": chosen, **distill}
    return tiny.recipe(teacher={"train": LEARNING}, distill=given)


def jobs(asked: Recipe) -> dict[str, Any]:
    return {job.role: job for job in procedures.find("unlabelled").jobs(asked)}


def train(asked: Recipe, folder: Path, *roles: str, data: Splits | None = None) -> list[str]:
    """Run the jobs of these roles; what was said."""
    heard = Heard()
    with events.listening(heard):
        tiny.train(tiny.workshop(asked, folder, data), *roles)
    return heard.lines


def weights(folder: Path, role: str = "student") -> dict[str, Tensor]:
    return load_file(folder / "networks" / role / f"{role}.safetensors")


def lines(folder: Path, role: str = "student") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "networks" / role / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the teacher is finished, the same for all variants."""
    folder = tmp_path_factory.mktemp("unlabelled")
    train(recipe(), folder, "teacher")
    return folder


@pytest.fixture
def folder(taught: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(taught, tmp_path / "run"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_who_learns_from_which_images(
    variant: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: dict[str, Tensor] = {}
    given = Workshop.train

    def watched(shop: Workshop, role: str, *arguments: Any, **more: Any) -> None:
        shown[role] = shop.tensors("train").labels
        if role == "student":
            given(shop, role, *arguments, **more)

    monkeypatch.setattr(Workshop, "train", watched)
    said = train(recipe(variant), folder, *networks_of(recipe(variant)))
    own = 70 if variant == "weighted" else 90
    assert {role: len(labels) for role, labels in shown.items()} == {
        "teacher": 70,
        "alone": 90,
        "student": 130 if variant == "weighted" else 150,
    }
    assert (shown["student"] != HIDDEN).sum() == own
    assert (shown["teacher"] != HIDDEN).all()
    assert shown["alone"].bincount().tolist() == [9] * 10
    assert f"student: 90 images are labelled, {own} of them taught as such, and 60 by the teacher's labels" in said
    terms = lines(folder)[-1]["terms"]
    assert set(terms) == {"cross_entropy", {"plain": "kd"}.get(variant, variant)}
    assert len([line for line in said if line.startswith("weights of epoch")]) == (2 if variant == "weighted" else 0)
    assert any("of the 20 images to estimate by" in line for line in said) == (variant != "plain")
    assert read_json(folder / "networks" / "student" / "history.json")["teacher_agreement"] > 0


def networks_of(asked: Recipe) -> list[str]:
    return [one.role for one in networks(asked)]


def test_the_variants_differ_in_the_student_alone(taught: Path, tmp_path: Path) -> None:
    found = []
    for variant in VARIANTS:
        copy = Path(shutil.copytree(taught, tmp_path / variant))
        train(recipe(variant), copy, "student")
        found.append(weights(copy))
    assert not tiny.same(found[0], found[1])
    assert not tiny.same(found[0], found[2])
    asked = [jobs(recipe(variant)) for variant in VARIANTS]
    for role in ("teacher", "alone"):
        assert asked[0][role].inputs == asked[1][role].inputs == asked[2][role].inputs
    assert asked[0]["student"].inputs != asked[1]["student"].inputs


@pytest.mark.parametrize("variant", VARIANTS)
def test_hidden_labels_decide_nothing(
    variant: str, taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the images with a label are drawn, the labels of the others may as well be any."""
    train_set = tiny.splits().train
    drawn = labelling.draw(train_set, 0.6, 0.25, np.random.default_rng(0))
    monkeypatch.setattr(labelling, "draw", lambda *_: drawn)
    wrong = (train_set.labels + 1 + np.arange(150) % 7) % 10
    wrong[drawn.all] = train_set.labels[drawn.all]
    assert (wrong != train_set.labels).sum() == 60
    found = []
    for name, labels in (("true", train_set.labels), ("wrong", wrong)):
        copy = Path(shutil.copytree(taught, tmp_path / name))
        train(recipe(variant), copy, "student", data=replace(tiny.splits(), train=replace(train_set, labels=labels)))
        found.append(weights(copy))
    assert tiny.same(*found)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_bits_after_an_interruption_inside_an_epoch(
    variant: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipe(variant, checkpoint_steps=2)
    whole = Path(shutil.copytree(folder, tmp_path / "whole"))
    train(asked, whole, "student")
    with pytest.raises(KeyboardInterrupt), events.listening(tiny.Interrupting("student", 5)):
        jobs(asked)["student"].run(tiny.workshop(asked, folder))
    estimated: list[int] = []
    begin = Weighted.begin_epoch
    monkeypatch.setattr(
        Weighted, "begin_epoch", lambda self, network, epoch: (estimated.append(epoch), begin(self, network, epoch))[1]
    )
    said = train(asked, folder, "student")
    assert any(line.startswith("student: continues after epoch 1 of 3, batch ") for line in said), said
    assert tiny.same(weights(folder), weights(whole))
    assert estimated == ([2] if variant == "weighted" else []), "the epoch that was begun keeps its weights"
    without_time = [{**line, "seconds": 0, "images_per_s": 0} for line in lines(folder)]
    assert without_time == [{**line, "seconds": 0, "images_per_s": 0} for line in lines(whole)]
    assert not list(folder.rglob(state.STATE))


def test_a_teacher_that_learns_from_all_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []
    monkeypatch.setattr(Workshop, "train", lambda shop, *_, **__: shown.append(len(shop.tensors("train"))))
    asked = recipe(few={"estimation": 0})
    tiny.train(tiny.workshop(asked, tmp_path), "teacher", "alone")
    assert shown == [90, 90]


def test_all_networks_are_normalised_as_all_images_are(folder: Path) -> None:
    asked = recipe(baseline="none", epochs=1)
    train(asked, folder, "student")
    normalize = tiny.workshop(asked, folder).normalize
    for role in ("teacher", "student"):
        classifier = tiny.workshop(asked, folder).load(role)
        assert tuple(classifier.mean.flatten().tolist()) == pytest.approx(normalize.mean)


@pytest.mark.parametrize("method", ["at", "sp", "vid", "simkd"])
def test_plain_takes_methods_on_features(method: str, folder: Path) -> None:
    asked = recipe(method=method, options={}, weight=None, epochs=1)
    train(asked, folder, "student")
    assert any(name.startswith(method) for name in lines(folder)[-1]["terms"])


def test_plain_reads_a_teacher_cache(folder: Path, tmp_path: Path) -> None:
    asked = recipe("mixed", epochs=1)
    content = asked.model_dump(mode="json")
    content["teacher"]["cache"] = {"views": 1, "folder": str(tmp_path / "cache")}
    train(Recipe.model_validate(content), folder, "student")
    assert weights(folder)
    assert list((tmp_path / "cache").rglob("*.bin"))


def test_what_is_known_without_torch_are_the_jobs() -> None:
    for variant in VARIANTS:
        for baseline in ("alone", "none"):
            asked = recipe(variant, baseline=baseline)
            assert networks_of(asked) == list(jobs(asked))
    shares = {one.role: one.share for one in networks(recipe())}
    assert shares == pytest.approx({"teacher": 0.45, "alone": 0.6, "student": 1.0})


def test_the_student_alone_is_trained_as_the_teacher_unless_something_else_is_said() -> None:
    known = {one.role: one.train for one in networks(recipe())}
    assert known["alone"] == recipe().teacher.train
    own = recipe(few={"alone": {**tiny.TRAIN, "epochs": 7}})
    assert {one.role: one.train.epochs for one in networks(own)} == {"teacher": 20, "alone": 7, "student": 3}
    assert jobs(own)["alone"].inputs["train"]["epochs"] == 7
    assert jobs(own)["student"].inputs == jobs(recipe())["student"].inputs
    content = {**recipe().model_dump(mode="json")}
    content["teacher"]["checkpoint"] = "weights.pt"
    fine_tuned = Recipe.model_validate(content)
    assert {one.role: one.train.epochs for one in networks(fine_tuned)}["alone"] == 3


def test_a_dry_run_counts_the_images_that_each_is_trained_on() -> None:
    from kdeploy.estimate import _Timing

    timed = _Timing(recipe(), tiny.splits(), "cpu")
    assert timed.training("teacher")[1] == f"the fastest of a few steps, times {20 * 5}"  # 68 of 150 images, 16 a batch
    assert timed.training("alone")[1] == f"the fastest of a few steps, times {20 * 6}"
    assert timed.training("student")[1] == f"the fastest of a few steps, times {3 * 5}"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"variant": "cloudy"}, "variant of the procedure unlabelled: Input should be 'plain', 'weighted' or 'mixed'"),
        ({"labelled": 0}, "labelled of the procedure unlabelled: Input should be greater than 0"),
        ({"labelled": 1}, "labelled of the procedure unlabelled: Input should be less than 1"),
        ({"estimation": 1}, "estimation of the procedure unlabelled: Input should be less than 1"),
        ({"variant": "mixed", "least_alpha": 0.5}, "least_alpha .* greater than 0.5"),
        ({"variant": "mixed", "least_alpha": 1.1}, "least_alpha .* less than or equal to 1"),
        (
            {"variant": "mixed", "top_k": 1},
            "top_k is 1, and the teacher's label alone is not the truth: give",
        ),
        ({"variant": "mixed", "top_k_accuracy": 0.8}, "top_k_accuracy belongs to top_k: auto"),
        ({"variant": "mixed", "estimation": 0}, "the variant mixed learns .* set estimation above 0"),
        ({"variant": "weighted", "estimation": 0}, "the variant weighted learns .* set estimation above 0"),
        ({"variant": "weighted", "neighbours": 0}, "neighbours"),
        ({"least_alpha": 0.7}, "least_alpha belongs to mixed, and the variant is plain"),
        ({"labels": "hard"}, "labels belongs to weighted and mixed, and the variant is plain"),
        ({"variant": "mixed", "neighbours": 5}, "neighbours belongs to weighted, and the variant is mixed"),
        ({"variant": "weighted", "warm_up_epochs": 3}, "warm_up_epochs is 3 of 3 epochs, so that no weight would ever"),
    ],
)
def test_options_that_make_no_sense(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        recipe(few=changes)


@pytest.mark.parametrize(
    ("variant", "distill", "sentence"),
    [
        ("mixed", {"options": {}}, r"the variant mixed is about probabilities .* distill.options to {temperature: 1}"),
        ("weighted", {"method": "at"}, "the variant weighted is about probabilities"),
        ("mixed", {"options": {"temperature": 1, "standardize": True}}, "the variant mixed is about probabilities"),
        ("plain", {"select": "validation"}, "distill.select is validation, and the epoch would be chosen by more lab"),
        ("plain", {"readout": {"epochs": 1}}, "a readout wants the label of every image: leave it out"),
    ],
)
def test_what_does_not_go_together(variant: str, distill: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        recipe(variant, **distill)


def test_the_teacher_and_the_student_alone_are_not_chosen_on_validation_either() -> None:
    with pytest.raises(ValidationError, match=r"distill.procedure_options.alone.select is validation"):
        recipe(few={"alone": {**tiny.TRAIN, "select": "validation"}})
    content = recipe().model_dump(mode="json")
    content["teacher"]["train"]["select"] = "validation"
    with pytest.raises(ValidationError, match=r"teacher.train.select is validation"):
        Recipe.model_validate(content)


def test_a_training_alone_that_nobody_does_is_refused() -> None:
    with pytest.raises(ValidationError, match="the training `alone` is used by nothing: leave it out"):
        recipe(few={"alone": tiny.TRAIN}, baseline="none")


def test_mixed_images_are_refused() -> None:
    content = recipe().model_dump(mode="json")
    content["data"]["augment"]["mixup"] = 0.4
    with pytest.raises(ValidationError, match="one of two may have no label: set mixup and cutmix to 0"):
        Recipe.model_validate(content)


@pytest.mark.parametrize("method", ["dkd", "nkd", "crd", "hssakd"])
def test_a_method_that_wants_labels_is_refused_before_any_work(method: str) -> None:
    with pytest.raises(UserError, match=f"^{method} wants the label of every image, and most have none"):
        jobs(recipe(method=method, options={}))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"labelled": 0.02}, r"Of the 15 training images of the class '\d', 0 would have a label"),
        ({"variant": "weighted", "neighbours": 21}, "neighbours is 21, and there are 20 images to estimate by: lower"),
    ],
)
def test_what_the_data_do_not_allow_is_said_before_any_training(
    options: dict[str, Any], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "fit", lambda *_, **__: pytest.fail("a training has begun"))
    with pytest.raises(UserError, match=sentence):
        tiny.train(tiny.workshop(recipe(few=options), tmp_path), "teacher")


def test_the_shipped_recipe_is_of_one_percent_and_takes_each_variant(tmp_path: Path) -> None:
    for variant in VARIANTS:
        overrides = [f"data.root={tmp_path}", f"distill.procedure_options.variant={variant}"]
        asked = recipes.load("emnist/letters-unlabelled", overrides)
        assert asked.distill.procedure_options["labelled"] == 0.01
        assert not asked.data.augment.flip
        assert list(jobs(asked)) == ["teacher", "alone", "student"]


def test_a_run_leaves_three_networks_and_is_done_once(tmp_path: Path) -> None:
    asked = recipe("weighted", epochs=2)
    run = pipeline.open_run(asked, tmp_path / "run")
    pipeline.execute(run, pipeline.training(asked))
    for role in ("teacher", "alone", "student"):
        assert 0 < read_json(run.folder / "networks" / role / "history.json")["last"]["validation_accuracy"] <= 1
    heard = Heard()
    with events.listening(heard):
        pipeline.execute(pipeline.reopen(run.folder), pipeline.training(asked))
    assert [line for line in heard.lines if "networks/" in line] == [
        f"networks/{role}: done before" for role in ("teacher", "alone", "student")
    ]


@pytest.mark.slow
def test_a_whole_run_to_engines(tmp_path: Path) -> None:
    from kdeploy import results

    content = recipe("mixed").model_dump(mode="json")
    content |= {
        "bench": {"min_time_s": 0.01, "min_count": 10},
        "engines": [{"precision": "float32"}, {"precision": "int8", "calibration": {"samples": 32}}],
        "gates": {"int8_drop_points": 100},
    }
    asked = Recipe.model_validate(content)
    pipeline.execute(pipeline.open_run(asked, tmp_path / "run"), pipeline.plan(asked))
    found = results.read(tmp_path / "run")
    assert {"teacher-pytorch", "alone-pytorch", "student-pytorch", "student-onnxruntime-int8"} < {
        row.key for row in found.rows
    }
    assert found.bundle.exists()
