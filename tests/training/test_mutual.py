"""Networks that teach one another, over the one loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn

from kdeploy import events, methods
from kdeploy.errors import UserError
from kdeploy.loading import Batch
from kdeploy.methods import Context, Outputs
from kdeploy.models.classifier import Classifier
from kdeploy.models.storage import load_network
from kdeploy.recipe.schema import BenchSpec, Recipe
from kdeploy.training import procedures
from kdeploy.training.peers import MutualLearning
from kdeploy.training.views import View, survey_all
from tests.methods.golden import assert_golden, y, zs, zt
from tests.training import tiny

DML = {"method": "kd", "options": {"temperature": 1}, "weight": 1, "cross_entropy": 1}
HSSAKD = {"method": "hssakd"}
SMALLER = {"model": "resnet8", "width": 0.125}


def recipe(**distill: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "data": tiny.DATA,
            "student": tiny.NETWORK,
            "distill": {"procedure": "mutual", **tiny.TRAIN, **distill},
        }
    )


def train(asked: Recipe, folder: Path, *roles: str) -> list[str]:
    """Run the jobs of these roles; what was said."""
    listener = tiny.Interrupting("nothing", 0)
    with events.listening(listener):
        for job in procedures.find("mutual").jobs(asked):
            if job.role in roles:
                job.run(tiny.workshop(asked, folder))
    return listener.heard


def weights(folder: Path, role: str) -> dict[str, Tensor]:
    return load_file(folder / "networks" / role / f"{role}.safetensors")


class Logits(nn.Module):
    """A network whose logits are its parameters, a row for each pixel index."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits.clone())

    def forward(self, images: Tensor) -> Tensor:
        return self.logits[images[:, 0, 0, 0].long()]


def step_of(*logits: Tensor, **more: Any) -> Any:
    """The loss of networks with these logits, and the networks."""
    networks = [Classifier(Logits(each), [0.0], [1.0]) for each in logits]
    weighted = [(methods.create("kd", temperature=1), 1.0)]
    tapped = survey_all(networks, [weighted[0][0].needs], shape=(1, 1, 1), classes=5)
    view, *views = (
        View(network, each, [weighted[0][0].needs], "student") for network, each in zip(networks, tapped, strict=True)
    )
    peers = {f"peer-{number}": network for number, network in enumerate(networks[1:], 2)}
    objective = MutualLearning(peers, weighted, 1.0, view=view, views=dict(zip(peers, views, strict=True)), **more)
    images = torch.arange(4, dtype=torch.float64).reshape(4, 1, 1, 1)
    return objective(networks[0], Batch(images, y, torch.arange(4)), Context()), networks


def test_golden_deep_mutual_learning() -> None:
    golden = 3.1019240172, 2.5387448356
    step, (first, second) = step_of(zs, zt)
    assert_golden(step.loss, sum(golden))
    assert torch.equal(step.logits, zs)
    swapped, _ = step_of(zt, zs)
    torch.testing.assert_close(swapped.loss, step.loss)
    kd = methods.create("kd", temperature=1)
    for own, other, expected in ((zs, zt, golden[0]), (zt, zs, golden[1])):
        assert_golden(nn.functional.cross_entropy(own, y) + kd(Outputs(own), Outputs(other)), expected)
    step.loss.backward()
    for network, own, other in ((first, zs, zt), (second, zt, zs)):
        leaf = own.clone().requires_grad_()
        (nn.functional.cross_entropy(leaf, y) + kd(Outputs(leaf), Outputs(other))).backward()
        torch.testing.assert_close(network.network.logits.grad, leaf.grad)


def test_three_peers_share_the_weight_of_one_teacher() -> None:
    kd = methods.create("kd", temperature=1)
    three = [zs, zt, zs * zt]
    step, _ = step_of(*three)
    pairs = [kd(Outputs(a), Outputs(b)) for a in three for b in three if a is not b]
    hard = sum(nn.functional.cross_entropy(each, y) for each in three)
    torch.testing.assert_close(step.loss, hard + sum(pairs) / 2)
    assert set(step.terms) == {"cross_entropy/student", "cross_entropy/peer-2", "cross_entropy/peer-3", "kd"}


def test_one_network_alone_has_cross_entropy_only() -> None:
    step, _ = step_of(zs)
    torch.testing.assert_close(step.loss, nn.functional.cross_entropy(zs, y))


@pytest.mark.parametrize("method", [DML, HSSAKD], ids=["kd", "hssakd"])
def test_student_and_peers_are_trained_and_saved_alone(tmp_path: Path, method: dict[str, Any]) -> None:
    asked = recipe(**method, peers=[tiny.NETWORK, SMALLER])
    assert [job.role for job in procedures.find("mutual").jobs(asked)] == ["alone", "student"]
    train(asked, tmp_path, "alone", "student")
    alone, student, second = (weights(tmp_path, role) for role in ("alone", "student", "peer-2"))
    assert list(alone) == list(student) == list(second)
    assert not tiny.same(alone, student)
    assert not tiny.same(student, second)
    folder = tmp_path / "networks"
    line = json.loads((folder / "student" / "metrics.jsonl").read_text().splitlines()[-1])
    assert {f"cross_entropy/{role}" for role in ("student", "peer-2", "peer-3")} < set(line["terms"])
    shop = tiny.workshop(asked, tmp_path)
    for role, spec in (("student", asked.student), ("peer-2", asked.student), ("peer-3", asked.distill.peers[1])):
        network, card = load_network(folder / role)
        history = json.loads((folder / role / "history.json").read_text())
        assert (card["width"], history["epochs"]) == (spec.width, 2)
        assert shop.score(network, asked.distill) == history["last"]["validation_accuracy"]
    start = shop.make(asked.student, asked.seed).network.state_dict()
    assert not tiny.same(weights(tmp_path, "peer-3"), start)


@pytest.mark.parametrize("method", [DML, HSSAKD], ids=["kd", "hssakd"])
def test_the_same_bits_after_an_interruption(tmp_path: Path, method: dict[str, Any]) -> None:
    asked = recipe(**method, epochs=3)
    train(asked, tmp_path / "whole", "student")
    with pytest.raises(KeyboardInterrupt), events.listening(tiny.Interrupting("student", 2)):
        procedures.find("mutual").jobs(asked)[-1].run(tiny.workshop(asked, tmp_path / "run"))
    assert "student: continues after epoch 2 of 3" in train(asked, tmp_path / "run", "student")
    for role in ("student", "peer-2"):
        assert tiny.same(weights(tmp_path / "run", role), weights(tmp_path / "whole", role))


def test_the_student_starts_as_it_does_alone_and_its_peer_elsewhere(tmp_path: Path) -> None:
    from kdeploy.training.procedures import mutual

    asked = recipe(**DML)
    shop = tiny.workshop(asked, tmp_path)
    student, peers, _ = mutual._made(shop)
    assert tiny.same(student.state_dict(), shop.make(asked.student, asked.seed).state_dict())
    assert list(peers) == ["peer-2"]
    assert not tiny.same(peers["peer-2"].state_dict(), student.state_dict())
    _, again, _ = mutual._made(tiny.workshop(asked.model_copy(update={"seed": 1}), tmp_path))
    assert not tiny.same(again["peer-2"].state_dict(), peers["peer-2"].state_dict())


@pytest.mark.parametrize("method", ["fitnet", "crd", "simkd", "factor-transfer"])
def test_a_method_for_a_trained_teacher_is_refused_before_any_work(method: str) -> None:
    with pytest.raises(UserError, match=f"^{method} leads from a student to a trained teacher, and the procedure mutu"):
        procedures.find("mutual").jobs(recipe(method=method))


def test_features_of_peers_with_other_numbers_of_stages(tmp_path: Path) -> None:
    """The attention of the stages that both have, from the deepest."""
    asked = recipe(method="at", peers=[{"model": "vgg8", "width": 0.125}], epochs=1)
    train(asked, tmp_path, "student")
    assert weights(tmp_path, "peer-2")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"teacher": {"model": "resnet8", "train": {}}}, "leave `teacher` out, or take offline"),
        ({"distill": {"procedure": "offline"}}, "the procedure offline needs a teacher, and there is none: add"),
        ({"distill": {"peers": [tiny.NETWORK]}}, "peers belong to the procedure mutual, and this one is offline"),
        (
            {"distill": {"procedure": "mutual", "peers": [{**tiny.NETWORK, "checkpoint": "x.pt"}]}},
            "leave its checkpoint out",
        ),
        ({"student": {**tiny.NETWORK, "checkpoint": "x.pt"}}, "the two would have nothing to teach each other: name"),
    ],
)
def test_what_does_not_go_together(changes: dict[str, Any], sentence: str) -> None:
    content = {**recipe().model_dump(mode="json"), "distill": {"procedure": "mutual"}}
    with pytest.raises(ValidationError, match=sentence):
        Recipe.model_validate({**content, **changes})


def test_a_dry_run_counts_the_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kdeploy.estimate import _Timing

    seconds = {tiny.NETWORK["width"]: 2.0, SMALLER["width"]: 1.0}
    monkeypatch.setattr(_Timing, "_time", lambda _, network, spec, train: seconds[network.width] * spec.batch)
    timed = _Timing(recipe(peers=[tiny.NETWORK, SMALLER]), tiny.splits(), "cpu")
    steps = 2 * 5  # epochs of 150 images, 32 a batch
    assert timed.training("alone")[0] == steps * 32 * 2
    assert timed.training("student")[0] == steps * 32 * (2 + 2 + 1)
    turned = _Timing(recipe(**HSSAKD), tiny.splits(), "cpu")
    assert turned.training("student")[0] == steps * 4 * 32 * (2 + 2)


@pytest.mark.slow
def test_a_whole_run_without_a_teacher(tmp_path: Path) -> None:
    from kdeploy import pipeline, results

    asked = recipe(**DML).model_copy(update={"bench": BenchSpec(min_time_s=0.01, min_count=10)})
    pipeline.execute(pipeline.open_run(asked, tmp_path / "run"), pipeline.plan(asked))
    found = results.read(tmp_path / "run")
    assert [row.key for row in found.rows] == [
        "alone-pytorch",
        "student-pytorch",
        "student-onnxruntime-float32",
        "peer-2-pytorch",
    ]
    assert found.baseline == "alone-pytorch"
    assert found.bundle.exists()
    outputs = found.record.stages["networks/student"].outputs
    assert {"networks/student/student.safetensors", "networks/peer-2/peer-2.safetensors"} < set(outputs)


def test_the_plan_has_a_row_for_each_peer_and_none_for_a_teacher() -> None:
    from kdeploy import pipeline

    stages = [stage.name for stage in pipeline.plan(recipe(peers=[tiny.NETWORK, SMALLER]))]
    assert not [name for name in stages if "teacher" in name]
    assert {"bench/student-pytorch", "bench/peer-2-pytorch", "bench/peer-3-pytorch", "export/student"} <= set(stages)
    assert "export/peer-2" not in stages
