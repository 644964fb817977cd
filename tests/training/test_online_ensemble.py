"""Students of several widths behind one stem, taught by the mean of their logits, over the one loop."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from kdeploy import events, models, pipeline
from kdeploy.errors import UserError
from kdeploy.models.storage import load_network
from kdeploy.recipe.networks import deployed, networks
from kdeploy.recipe.procedures.online_ensemble import students
from kdeploy.recipe.schema import Recipe
from kdeploy.stages.epochs import Epochs
from kdeploy.training import loop, procedures
from kdeploy.training.procedures import online_ensemble
from tests.test_events import Heard
from tests.training import tiny

PAPER = {"method": "kd", "options": {"temperature": 2}, "weight": 0.15, "cross_entropy": 0.7}


def recipe(own: Mapping[str, Any] | None = None, student: Mapping[str, Any] | None = None, **distill: Any) -> Recipe:
    """Two students, of 4, 8 and 16 channels and of half of them, behind a stem of 4.

    What is given is put over it: `own`, over the options of the procedure.
    """
    return Recipe.model_validate(
        {
            "name": "tiny",
            "data": tiny.DATA,
            "student": {**tiny.NETWORK, **(student or {})},
            "distill": {
                "procedure": "online-ensemble",
                "procedure_options": {"widths": [0.5], **(own or {})},
                **PAPER,
                **tiny.TRAIN,
                **distill,
            },
        }
    )


def train(asked: Recipe, folder: Path, *roles: str) -> list[str]:
    """Run the jobs of these roles; what was said."""
    heard = Heard()
    with events.listening(heard):
        tiny.train(tiny.workshop(asked, folder), *roles)
    return heard.lines


def weights(folder: Path, role: str) -> dict[str, Tensor]:
    return load_file(folder / "networks" / role / f"{role}.safetensors")


def test_the_widths_of_the_papers_five_students() -> None:
    """Rounded where the authors' code truncates; ResNet-110 has the widths of ResNet-20."""
    asked = Recipe.model_validate(
        {"name": "paper", "student": {"model": "resnet20"}, "distill": {"procedure": "online-ensemble"}}
    )
    found = students(asked)
    assert list(found) == ["student", "student-2", "student-3", "student-4", "student-5"]
    with torch.device("meta"):
        made = [models.create(spec, classes=100) for spec in found.values()]
    channels = [
        tuple(getattr(network, f"layer{stage}")[0].conv1.out_channels for stage in (1, 2, 3)) for network in made
    ]
    assert channels == [(16, 32, 64), (13, 26, 51), (10, 19, 38), (6, 13, 26), (3, 6, 13)]
    assert {network.conv1.out_channels for network in made} == {16}


def test_a_stem_that_the_recipe_widens_is_everyones() -> None:
    found = students(recipe({"widths": [0.5, 0.5]}, student={"options": {"stem_width": 1.0}}))
    assert [spec.options["stem_width"] for spec in found.values()] == [1.0] * 3
    assert [spec.width for spec in found.values()] == [0.25, 0.125, 0.125]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each student alone, and both together."""
    folder = tmp_path_factory.mktemp("online")
    train(recipe(), folder, "alone", "alone-2", "student")
    return folder


class TestTraining:
    def test_every_student_is_saved_as_a_network_of_its_own(self, finished: Path) -> None:
        asked = recipe()
        shop = tiny.workshop(asked, finished)
        for role, spec in students(asked).items():
            network, card = load_network(finished / "networks" / role)
            history = json.loads((finished / "networks" / role / "history.json").read_text())
            assert (card["width"], history["epochs"]) == (spec.width, 2)
            assert card["parameters"] == sum(parameter.numel() for parameter in network.parameters())
            assert shop.score(network, asked.distill) == history["last"]["validation_accuracy"]
        first, second = weights(finished, "student"), weights(finished, "student-2")
        stem = [name for name in first if name.startswith(("conv1.", "bn1."))]
        assert len(stem) == 6
        assert all(torch.equal(first[name], second[name]) for name in stem)
        assert first["fc.weight"].shape != second["fc.weight"].shape

    def test_the_history_has_each_students_terms(self, finished: Path) -> None:
        lines = (finished / "networks" / "student" / "metrics.jsonl").read_text().splitlines()
        assert {"cross_entropy/student-2", "features/student-2", "kd/student"} < set(json.loads(lines[-1])["terms"])

    def test_alone_is_another_training_of_the_same_networks(self, finished: Path) -> None:
        for alone, student in (("alone", "student"), ("alone-2", "student-2")):
            one, other = weights(finished, alone), weights(finished, student)
            assert [value.shape for value in one.values()] == [value.shape for value in other.values()]
            assert not tiny.same(one, other)
        assert not torch.equal(weights(finished, "alone")["conv1.weight"], weights(finished, "alone-2")["conv1.weight"])

    def test_the_same_bits_after_an_interruption(self, finished: Path, tmp_path: Path) -> None:
        asked = recipe()
        with pytest.raises(KeyboardInterrupt), events.listening(tiny.Interrupting("student", 1)):
            tiny.train(tiny.workshop(asked, tmp_path), "student")
        assert "student: continues after epoch 1 of 2" in train(asked, tmp_path, "student")
        for role in ("student", "student-2"):
            assert tiny.same(weights(tmp_path, role), weights(finished, role))


def test_each_student_starts_alone_as_it_does_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = recipe()
    starts: dict[str, dict[str, Tensor]] = {}

    def watched(network: Any, *given: Any, label: str, **more: Any) -> Any:
        starts[label] = {name: value.clone() for name, value in network.state_dict().items()}
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "fit", watched)
    for role in ("alone", "alone-2"):
        with pytest.raises(KeyboardInterrupt):
            tiny.train(tiny.workshop(asked, tmp_path), role)
    shop = tiny.workshop(asked, tmp_path)
    together, _ = online_ensemble._made(shop)
    assert tiny.same(starts["alone"], together["student"].state_dict())
    assert tiny.same(starts["alone-2"], together["student-2"].state_dict())
    assert tiny.same(starts["alone"], shop.make(asked.student, asked.seed).state_dict())
    other, _ = online_ensemble._made(tiny.workshop(asked.model_copy(update={"seed": 1}), tmp_path))
    assert not tiny.same(other["student-2"].state_dict(), together["student-2"].state_dict())


def test_one_stage_of_a_run_leaves_several_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = recipe(baseline="none", epochs=1)
    run = pipeline.open_run(asked, tmp_path / "run")
    pipeline.execute(run, pipeline.training(asked))
    outputs = run.record.stages["networks/student"].outputs
    assert {"networks/student/student.safetensors", "networks/student-2/student-2.safetensors"} < set(outputs)
    assert run.trained("student-2") == {name: sha for name, sha in outputs.items() if "/student-2/" in name}
    with pytest.raises(UserError, match="has no networks/alone yet: its run did not come so far"):
        run.trained("alone")
    monkeypatch.setattr(loop, "fit", lambda *_, **__: pytest.fail("a training has begun"))
    pipeline.execute(run, [*pipeline.training(asked), Epochs("student"), Epochs("student-2")])
    epochs = json.loads((run.folder / "networks" / "student-2" / "epochs.json").read_text())
    assert 0 <= epochs["last"]["test_accuracy"] <= 1
    assert epochs["last"] == epochs["chosen"]


def test_the_plan_takes_every_student_to_an_engine() -> None:
    asked = recipe({"widths": [0.5, 0.25]})
    assert deployed(asked) == ["student", "student-2", "student-3"]
    assert [one.role for one in networks(asked)] == [
        "alone", "alone-2", "alone-3", "student", "student-2", "student-3"
    ]  # fmt: skip
    jobs = procedures.find("online-ensemble").jobs(asked)
    assert [(job.role, job.beside) for job in jobs] == [
        ("alone", ()),
        ("alone-2", ()),
        ("alone-3", ()),
        ("student", ("student-2", "student-3")),
    ]
    names = [stage.name for stage in pipeline.plan(asked)]
    for role in deployed(asked):
        rows = {f"bench/{role}-pytorch", f"bench/{role}-onnxruntime-float32"}
        assert {f"export/{role}", f"epochs/{role}", *rows} <= set(names)
    assert {"bench/alone-2-pytorch", "epochs/alone-3"} <= set(names)
    assert "export/alone-2" not in names
    assert not [name for name in names if "teacher" in name]
    assert [job.role for job in procedures.find("online-ensemble").jobs(recipe(baseline="none"))] == ["student"]


def test_a_dry_run_counts_every_student(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kdeploy.estimate import _Timing

    monkeypatch.setattr(_Timing, "_time", lambda _, network, spec, train: network.width * spec.batch)
    timed = _Timing(recipe({"widths": [0.5, 0.25]}), tiny.splits(), "cpu")
    steps = 2 * 5  # epochs of 150 images, 32 a batch
    assert timed.training("alone-2")[0] == steps * 32 * 0.125
    assert timed.training("student")[0] == steps * 32 * (0.25 + 0.125 + 0.0625)


@pytest.mark.parametrize(
    ("distill", "sentence"),
    [
        ({"method": "at", "options": {}}, "^at looks at more of its teacher than logits"),
        ({"method": "rkd", "options": {}}, "^rkd looks at more of its teacher than logits"),
        ({"method": "hssakd", "options": {}}, "take kd, dkd, dist, nkd or another method on logits"),
    ],
)
def test_a_method_on_more_than_logits_is_refused_before_any_work(distill: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        procedures.find("online-ensemble").jobs(recipe(**distill))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"own": {"widths": [0.5, 0]}}, r"widths\.1 of the procedure online-ensemble: .* greater than 0"),
        ({"own": {"widths": [1.5]}}, r"widths\.0 of the procedure online-ensemble: .* less than or equal to 1"),
        ({"own": {"widths": []}}, r"widths of the procedure online-ensemble: .* at least 1 item"),
        ({"own": {"feature_weight": -1}}, r"feature_weight of the procedure online-ensemble"),
        ({"own": {"stem_gradient": "none"}}, "stem_gradient of the procedure online-ensemble: .* 'all' or 'first'"),
        ({"own": {"students": 5}}, "has no option 'students'"),
        ({"student": {"model": "torchvision:resnet18"}}, "torchvision:resnet18 has no such form .* take resnet110, "),
        ({"student": {"model": "vgg8"}}, "vgg8 has no such form .no option stem_width.: take .* or resnet8x4"),
        ({"student": {"checkpoint": "x.pt"}}, "leave student.checkpoint and student.class_map out"),
        ({"student": {"class_map": [0]}}, "leave student.checkpoint and student.class_map out"),
        ({"taps": {"student": ["layer1"], "teacher": ["layer1"]}}, "an online ensemble has none"),
        ({"readout": {"epochs": 1}}, "an online ensemble has none"),
        ({"select": "validation"}, "distill.select must be last"),
        ({"compile": True}, "set compile and sync_batchnorm to false"),
        ({"sync_batchnorm": True}, "set compile and sync_batchnorm to false"),
        ({"peers": [tiny.NETWORK]}, "peers belong to the procedure mutual"),
    ],
)
def test_what_does_not_go_together(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        recipe(**given)


def test_a_teacher_has_no_place() -> None:
    content = {**recipe().model_dump(mode="json"), "teacher": {"model": "resnet8", "train": {}}}
    with pytest.raises(ValidationError, match="the procedure online-ensemble teach one another: leave `teacher` out"):
        Recipe.model_validate(content)


def test_a_shortcut_that_cannot_narrow_is_refused_before_any_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "fit", lambda *_, **__: pytest.fail("a training has begun"))
    with pytest.raises(UserError, match="behind a wider stem, take projection"):
        train(recipe(student={"options": {"shortcut": "A"}}), tmp_path, "alone")
