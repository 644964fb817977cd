"""The procedure perturbed-ensemble on digits: two teachers into a student with two members."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from kdeploy import events, pipeline, results
from kdeploy.artifacts import sha256_file
from kdeploy.errors import UserError
from kdeploy.models.batch_ensemble import BatchEnsemble, MemberLayer
from kdeploy.models.storage import load_network
from kdeploy.recipe.networks import networks
from kdeploy.recipe.schema import BenchSpec, EngineSpec, Recipe
from kdeploy.report.markdown import to_markdown
from kdeploy.training import loop, procedures, state, steps
from kdeploy.training.procedures import perturbed_ensemble
from kdeploy.training.state import Progress
from tests.test_events import Heard
from tests.training import tiny

SECOND = {**tiny.NETWORK, "width": 0.5, "seed": 1, "train": {**tiny.TRAIN, "epochs": 12, "lr": 0.1}}
KD = {"options": {"temperature": 1}}


def recipe(*, options: dict[str, Any] | None = None, **more: Any) -> Recipe:
    distill = {"procedure": "perturbed-ensemble", "procedure_options": options or {}, "baseline": "none", **KD}
    return tiny.recipe(**{"teachers": [SECOND], **more, "distill": {**distill, **more.get("distill", {})}})


def weights(folder: Path, role: str = "student") -> dict[str, Tensor]:
    return load_file(folder / "networks" / role / f"{role}.safetensors")


@pytest.fixture(scope="module")
def taught(teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which both teachers are finished."""
    folder = tmp_path_factory.mktemp("ensemble")
    shutil.copytree(teacher_folder, folder / "networks" / "teacher")
    tiny.train(tiny.workshop(recipe(), folder), "teacher-2")
    return folder


@pytest.fixture
def folder(taught: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(taught, tmp_path / "run"))


@pytest.fixture(scope="module")
def finished(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the student, of four epochs."""
    folder = Path(shutil.copytree(taught, tmp_path_factory.mktemp("finished") / "run"))
    tiny.train(tiny.workshop(recipe(distill={"epochs": 4, "lr": 0.1}), folder), "student")
    return folder


def test_teachers_come_first_and_the_student_has_a_member_for_each(finished: Path) -> None:
    jobs = procedures.find("perturbed-ensemble").jobs(recipe(distill={"baseline": "alone"}))
    assert {job.role: job.needs for job in jobs} == {
        "teacher": (),
        "teacher-2": (),
        "alone": (),
        "student": ("teacher", "teacher-2"),
    }
    assert [one.role for one in networks(recipe())] == ["teacher", "teacher-2", "student"]
    student, card = load_network(finished / "networks" / "student")
    assert isinstance(student.network, BatchEnsemble)
    assert card["batch_ensemble"] == {"members": 2}
    history = json.loads((finished / "networks" / "student" / "history.json").read_text())
    score = tiny.workshop(recipe(), finished).score(student, recipe().distill)
    assert score == history["last"]["validation_accuracy"] > 0.2
    assert 0 < history["teacher_agreement"] <= 1
    line = json.loads((finished / "networks" / "student" / "metrics.jsonl").read_text().splitlines()[-1])
    assert set(line["terms"]) == {"cross_entropy", "kd"}
    assert not list(finished.rglob(state.STATE))


def test_the_teachers_are_as_they_were(finished: Path, taught: Path) -> None:
    for role in ("teacher", "teacher-2"):
        files = (place / "networks" / role / f"{role}.safetensors" for place in (finished, taught))
        assert len({sha256_file(file) for file in files}) == 1


def test_the_same_bits_after_an_interruption(finished: Path, folder: Path) -> None:
    asked = recipe(distill={"epochs": 4, "lr": 0.1})
    with pytest.raises(KeyboardInterrupt), events.listening(tiny.Interrupting("student", 2)):
        tiny.train(tiny.workshop(asked, folder), "student")
    heard = Heard()
    with events.listening(heard):
        tiny.train(tiny.workshop(asked, folder), "student")
    assert "student: continues after epoch 2 of 4" in heard.lines
    assert tiny.same(weights(folder), weights(finished))


def test_the_student_starts_with_the_weights_it_has_alone_and_vectors_of_the_runs_seed(tmp_path: Path) -> None:
    shop = tiny.workshop(recipe(), tmp_path)
    student, alone = perturbed_ensemble._student(shop), shop.make(recipe().student, 0)
    shared = [module.shared for module in student.modules() if isinstance(module, MemberLayer)]
    plain = [module for module in alone.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert all(torch.equal(ours.weight, theirs.weight) for ours, theirs in zip(shared, plain, strict=True))
    again = perturbed_ensemble._student(tiny.workshop(recipe(), tmp_path))
    assert tiny.same(student.state_dict(), again.state_dict())
    other = perturbed_ensemble._student(tiny.workshop(recipe(seed=1), tmp_path))
    assert not torch.equal(other.network.rank_one()[0], student.network.rank_one()[0])


@pytest.mark.parametrize("options", [{"perturbation": "none"}, {"perturbation": "ods"}, {"step": 4}])
def test_options_change_what_is_learnt_and_what_a_finished_training_is_known_by(
    options: dict[str, Any], folder: Path, taught: Path, tmp_path: Path
) -> None:
    usual = Path(shutil.copytree(taught, tmp_path / "usual"))
    changed, plain = (recipe(options=each, distill={"epochs": 1}) for each in (options, {}))
    tiny.train(tiny.workshop(changed, folder), "student")
    tiny.train(tiny.workshop(plain, usual), "student")
    assert not tiny.same(weights(folder), weights(usual))
    jobs = [procedures.find("perturbed-ensemble").jobs(asked)[-1] for asked in (changed, plain)]
    assert jobs[0].inputs != jobs[1].inputs


def test_a_cache_gives_the_losses_of_asking_live_where_nothing_is_perturbed(taught: Path, tmp_path: Path) -> None:
    cache = {"cache": {"views": 2, "dtype": "float32", "folder": str(tmp_path / "cache")}}
    losses = []
    for name, teacher in (("live", {}), ("cached", cache)):
        place = Path(shutil.copytree(taught, tmp_path / name))
        asked = recipe(options={"perturbation": "none"}, teacher=teacher)
        tiny.train(tiny.workshop(asked, place), "student")
        lines = (place / "networks" / "student" / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["train_loss"] for line in lines])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_the_vectors_have_half_the_rate_and_no_decay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[dict[str, Any]]] = []
    take = steps.Steps.take

    def watched(self: steps.Steps, *given: Any, **more: Any) -> Any:
        found = take(self, *given, **more)
        seen.append([{key: group[key] for key in ("lr", "weight_decay")} for group in self.optimizer.param_groups])
        return found

    monkeypatch.setattr(steps.Steps, "take", watched)
    asked = recipe(distill={"epochs": 1, "schedule": "constant", "weight_decay": 0.01}, options={"rank_one_lr": 0.25})
    tiny.train(tiny.workshop(asked, folder), "student")
    assert seen[-1] == [{"lr": 0.05, "weight_decay": 0.01}, {"lr": 0.0125, "weight_decay": 0.0}]


def test_neither_optimiser_nor_checkpoint_holds_a_teacher(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[set[str]] = []
    save = Progress.save

    def saved(progress: Progress, *rest: Any, **more: Any) -> None:
        save(progress, *rest, **more)
        content = torch.load(progress.path, weights_only=True)
        kept.append({*content["network"], *content["objective"]})

    monkeypatch.setattr(Progress, "save", saved)
    tiny.train(tiny.workshop(recipe(distill={"epochs": 1}), folder), "student")
    student, _ = load_network(folder / "networks" / "student")
    assert kept == [set(student.state_dict())] * 2


def test_a_method_on_features_with_a_phase_of_its_own(folder: Path) -> None:
    """A paraphraser for each teacher, then factors of each member against its own."""
    options = {"paraphraser_epochs": 1}
    asked = recipe(distill={"method": "factor-transfer", "options": options, "epochs": 1})
    tiny.train(tiny.workshop(asked, folder), "student")
    line = json.loads((folder / "networks" / "student" / "metrics.jsonl").read_text().splitlines()[-1])
    assert set(line["terms"]) == {"cross_entropy", "factor-transfer"}


@pytest.mark.parametrize(
    ("method", "options"), [("simkd", {}), ("hssakd", {}), ("fitnet", {"form": "paper", "hint_epochs": 1})]
)
def test_a_method_that_members_cannot_share_is_refused_before_any_work(method: str, options: dict[str, Any]) -> None:
    with pytest.raises(
        UserError, match=rf"^{method} turns the images, borrows a teacher's classifier or trains the st"
    ):
        procedures.find("perturbed-ensemble").jobs(recipe(distill={"method": method, "options": options}))


def test_a_student_without_layers_to_differ_in_is_refused_before_the_teacher_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_layers.py").write_text(
        "from torch import nn\n\n"
        "class Own(nn.Linear):\n    pass\n\n"
        "def made(classes, channels):\n    return nn.Sequential(nn.Flatten(), Own(channels * 64, classes))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(loop, "fit", lambda *_, **__: pytest.fail("a training has begun"))
    asked = recipe(student={"model": "python:own_layers:made"})
    with pytest.raises(UserError, match="Sequential has no convolution or linear layer inside"):
        tiny.train(tiny.workshop(asked, tmp_path), "teacher")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"teachers": []}, "the procedure perturbed-ensemble has a teacher for each member of the student: add `teach"),
        ({"teachers": [{**SECOND, "weight": 2}]}, "teaches a member of its own: leave weight and teaching out"),
        ({"distill": {"teaching": "draw"}}, "teaches a member of its own: leave weight and teaching out"),
        ({"distill": {"readout": {"epochs": 1}}}, "taps and readout are for a student without members"),
        ({"distill": {"taps": {"student": ["layer1"], "teacher": ["layer1"]}}}, "taps and readout are for a student"),
        ({"teacher": {"cache": {"views": 2}}}, "and these are perturbed anew at each step: leave teacher.cache out"),
        ({"options": {"perturbation": "none", "step": 2}}, "and perturbation is none: leave step out"),
        (
            {"options": {"perturbation": "gaussian", "temperature": 2}},
            "temperature belongs to ods and confods, and per",
        ),
        ({"options": {"perturbation": "fgsm"}}, "perturbation of the procedure perturbed-ensemble: Input should be"),
        ({"options": {"step": 0}}, "step of the procedure perturbed-ensemble: Input should be greater than 0"),
        ({"options": {"steps": 2}}, "the procedure perturbed-ensemble has no option 'steps' .* Did you mean 'step'"),
        ({"teachers": [{**SECOND, "seed": 0}]}, "two of the teachers would be the same network: give one a seed of it"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        recipe(**changes)


def test_it_needs_a_teacher() -> None:
    content = {**recipe().model_dump(mode="json"), "teacher": None, "teachers": []}
    with pytest.raises(ValueError, match="the procedure perturbed-ensemble needs a teacher, and there is none: add"):
        Recipe.model_validate(content)


def test_a_resolved_recipe_is_read_again_as_it_is() -> None:
    asked = recipe(options={"perturbation": "none"})
    assert Recipe.model_validate(asked.model_dump(mode="json")) == asked


def test_a_dry_run_counts_every_member_and_both_runs_of_the_student(monkeypatch: pytest.MonkeyPatch) -> None:
    from kdeploy.estimate import _Timing

    monkeypatch.setattr(_Timing, "_time", lambda _, network, spec, train: spec.batch * (1.0 if train else 0.01))
    rounds = 2 * 5  # epochs of 150 images, 32 a batch
    for perturbation, passes in (("confods", 4), ("none", 2)):
        timed = _Timing(recipe(options={"perturbation": perturbation}), tiny.splits(), "cpu")
        assert timed.training("student")[0] == pytest.approx(rounds * 32 * passes * 1.01)


def test_the_plan_has_a_row_for_each_teacher() -> None:
    stages = [stage.name for stage in pipeline.plan(recipe())]
    for role in ("teacher", "teacher-2", "student"):
        assert {f"networks/{role}", f"epochs/{role}", f"bench/{role}-pytorch"} <= set(stages)
    assert [name for name in stages if name.startswith("export/")] == ["export/teacher", "export/student"]


@pytest.mark.slow
def test_a_whole_run_to_engines(tmp_path: Path) -> None:
    """On all digits ConfODS leaves a student that can be shipped: parity holds, int8 loses little."""
    asked = recipe(distill={"epochs": 12, "lr": 0.1}, data={**tiny.DATA, "limit": 1000}).model_copy(
        update={
            "bench": BenchSpec(min_time_s=0.01, min_count=10),
            "engines": (EngineSpec(), EngineSpec(precision="int8", scheme="x86-avx2")),
        }
    )
    pipeline.execute(pipeline.open_run(asked, tmp_path / "run"), pipeline.plan(asked))
    found = results.read(tmp_path / "run")
    rows = {row.key: row for row in found.rows}
    assert list(rows) == [
        "teacher-pytorch",
        "teacher-onnxruntime-float32",
        "teacher-2-pytorch",
        "student-pytorch",
        "student-onnxruntime-float32",
        "student-onnxruntime-int8",
    ]
    assert not found.failed
    assert found.bundle.exists()
    torchs, exported, int8 = (rows[f"student-{end}"] for end in ("pytorch", "onnxruntime-float32", "onnxruntime-int8"))
    assert torchs.accuracy == exported.accuracy
    assert torchs.accuracy is not None
    assert torchs.accuracy > 0.85
    assert int8.accuracy is not None
    assert int8.accuracy > torchs.accuracy - 0.05
    assert exported.negative_log_likelihood == pytest.approx(torchs.negative_log_likelihood, abs=1e-4)
    assert exported.calibration_error == pytest.approx(torchs.calibration_error, abs=1e-3)
    assert "| NLL | ECE |" in to_markdown(found.rows)
    assert "NLL: mean negative log-likelihood" in found.report.read_text(encoding="utf-8")
    epochs = results.report_data(tmp_path / "run").epochs["student"]
    assert epochs.last.test_negative_log_likelihood == pytest.approx(torchs.negative_log_likelihood, abs=1e-4)
    assert epochs.last.test_calibration_error == pytest.approx(torchs.calibration_error, abs=1e-3)
