"""Offline distillation end to end on digits: what is left on disk, and what is the same in both students."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from kdeploy.errors import UserError
from kdeploy.models.storage import load_network
from kdeploy.sources.base import ImageSet
from kdeploy.training import loop, procedures, state, steps
from kdeploy.training.evaluate import accuracy, predict
from kdeploy.training.procedures.base import Workshop
from kdeploy.training.setup import choose
from tests.training import tiny


@pytest.fixture(scope="module")
def finished(teacher_folder: Path) -> Path:
    """Teacher, student alone and distilled student, in a folder of their own."""
    folder = teacher_folder.parents[1]
    tiny.train(tiny.workshop(tiny.recipe(), folder), "alone", "student")
    return folder / "networks"


def read(folder: Path, role: str, file: str) -> Any:
    return json.loads((folder / role / file).read_text(encoding="utf-8"))


def test_what_a_training_leaves(finished: Path) -> None:
    for role, epochs in (("teacher", 12), ("alone", 2), ("student", 2)):
        names = {path.name for path in (finished / role).iterdir() if path.is_file()}
        expected = {f"{role}.safetensors", f"{role}.json", "metrics.jsonl", "history.json"}
        assert names - {f"{role}-chosen.safetensors", f"{role}-chosen.json"} == expected
        assert list((finished / role / "tensorboard").iterdir())
        history = read(finished, role, "history.json")
        lines = [json.loads(line) for line in (finished / role / "metrics.jsonl").read_text().splitlines()]
        assert [line["epoch"] for line in lines] == list(range(epochs))
        assert history["epochs"] == epochs
        assert history["last"] == {"epoch": epochs - 1, "validation_accuracy": lines[-1]["validation_accuracy"]}
        best = max(line["validation_accuracy"] for line in lines)
        assert history["chosen"]["validation_accuracy"] == best
        assert all(line["terms"].keys() == lines[0]["terms"].keys() for line in lines)
    assert set(lines[0]["terms"]) == {"cross_entropy", "kd"}


def test_the_loss_of_an_epoch_is_the_sum_of_its_terms(finished: Path) -> None:
    for line in (finished / "student" / "metrics.jsonl").read_text().splitlines():
        metrics = json.loads(line)
        assert metrics["train_loss"] == pytest.approx(sum(metrics["terms"].values()), rel=1e-5)


def test_training_teaches(finished: Path) -> None:
    """From chance, a tenth; the bound has room for another machine's arithmetic."""
    assert read(finished, "teacher", "history.json")["last"]["validation_accuracy"] > 0.5


class Plain(nn.Module):
    """ResNet-8 at a quarter of its width, from its paper (He et al., 2015, section 4.2), without kdeploy."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(Block(inside, out, stride)) for inside, out, stride in ((4, 4, 1), (4, 8, 2), (8, 16, 2))
        )
        self.fc = nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.layer3(self.layer2(self.layer1(self.bn1(self.conv1(images)).relu())))
        logits: Tensor = self.fc(maps.mean((2, 3)))
        return logits


class Block(nn.Module):
    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        result: Tensor = (inner + self.shortcut(x)).relu()
        return result


def test_the_student_leaves_alone_and_can_be_read_without_kdeploy(finished: Path) -> None:
    weights = load_file(finished / "student" / "student.safetensors")
    network = Plain().eval()
    network.load_state_dict(weights, strict=True)  # nothing missing, and nothing of a teacher or a projector besides
    card = read(finished, "student", "student.json")
    images = torch.from_numpy(tiny.splits().validation.images).permute(0, 3, 1, 2).float() / 255
    normalised = (images - torch.tensor(card["mean"])[:, None, None]) / torch.tensor(card["std"])[:, None, None]
    classifier, _ = load_network(finished / "student")
    with torch.inference_mode():
        torch.testing.assert_close(network(normalised), classifier(images), rtol=1e-5, atol=1e-5)
    assert card["classes"] == list("0123456789")
    assert card["parameters"] == sum(parameter.numel() for parameter in network.parameters())


def test_the_agreement_is_the_share_of_validation_where_both_say_the_same(finished: Path) -> None:
    images = torch.from_numpy(tiny.splits().validation.images).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        said = [load_network(finished / role)[0](images).argmax(dim=1) for role in ("student", "teacher")]
    agreement = read(finished, "student", "history.json")["teacher_agreement"]
    assert agreement == pytest.approx((said[0] == said[1]).double().mean().item(), abs=1.5 / len(images))
    assert read(finished, "alone", "history.json")["teacher_agreement"] is None


def watch_fit(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each training starts from: weights of the network, parameters, objective."""
    seen: list[dict[str, Any]] = []
    fit = loop.fit

    def watched(network: nn.Module, objective: nn.Module, **more: Any) -> Any:
        weights = {name: value.clone() for name, value in network.state_dict().items()}
        fitted = fit(network, objective, **more)
        seen.append({"weights": weights, "objective": objective, "network": network, **more})
        return fitted

    monkeypatch.setattr(loop, "fit", watched)
    return seen


def test_both_students_start_alike_and_the_teacher_is_left_as_it_was(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watch_fit(monkeypatch)
    states: list[dict[str, Tensor]] = []
    load = Workshop.load

    def loaded(shop: Workshop, role: str) -> Any:
        classifier = load(shop, role)
        states.append({name: value.clone() for name, value in classifier.state_dict().items()})
        states.append(classifier.state_dict())  # the live tensors
        return classifier

    monkeypatch.setattr(Workshop, "load", loaded)
    shop = tiny.workshop(tiny.recipe(distill={"epochs": 1}), run_folder)
    tiny.train(shop, "alone", "student")
    alone, student = seen
    assert tiny.same(alone["weights"], student["weights"])
    before, after = states
    assert any("running_var" in name for name in before)  # batch normalisation's buffers are among them
    assert tiny.same(before, after)
    one, other = (list(which["train"].epoch(0)) for which in seen)
    assert all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in zip(one, other, strict=True)
    )


def test_neither_optimiser_nor_checkpoint_holds_the_teacher(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[int] = []
    kept: list[set[str]] = []
    make, save = steps.make_optimizer, state.Progress.save

    def optimizer(parameters: Any, spec: Any) -> torch.optim.Optimizer:
        parameters = list(parameters)
        trained.append(sum(parameter.numel() for parameter in parameters))
        return make(parameters, spec)

    def saved(progress: state.Progress, *rest: Any, **more: Any) -> None:
        save(progress, *rest, **more)
        content = torch.load(progress.path, weights_only=True)
        kept.append({*content["network"], *content["objective"]})

    monkeypatch.setattr(steps, "make_optimizer", optimizer)
    monkeypatch.setattr(state.Progress, "save", saved)
    shop = tiny.workshop(tiny.recipe(distill={"epochs": 1}), run_folder)
    tiny.train(shop, "student")
    student, _ = load_network(run_folder / "networks" / "student")
    assert trained == [sum(parameter.numel() for parameter in student.parameters())]
    assert kept == [set(student.state_dict())] * 2  # at the beginning, and after the epoch


def test_the_same_seed_gives_the_same_weights_and_another_one_does_not(tmp_path: Path) -> None:
    found = []
    for number, seed in enumerate((3, 3, 4)):
        folder = tmp_path / str(number)
        tiny.train(tiny.workshop(tiny.recipe(seed=seed, distill={"epochs": 1}), folder), "alone")
        found.append(load_file(folder / "networks" / "alone" / "alone.safetensors"))
    assert tiny.same(found[0], found[1])
    assert not tiny.same(found[0], found[2])


def test_training_longer_changes_nothing_before(tmp_path: Path) -> None:
    """Batches and their augmentation depend on seed and epoch alone: a constant rate gives the same first epoch."""
    lines = []
    for epochs in (1, 2):
        recipe = tiny.recipe(distill={"epochs": epochs, "schedule": "constant"})
        tiny.train(tiny.workshop(recipe, tmp_path / str(epochs)), "alone")
        first = (tmp_path / str(epochs) / "networks" / "alone" / "metrics.jsonl").read_text().splitlines()[0]
        lines.append(json.loads(first)["train_loss"])
    assert lines[0] == lines[1]


@pytest.mark.parametrize("select", ["last", "validation"])
def test_both_epochs_are_kept_and_the_recipe_says_which_one_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, select: str
) -> None:
    """Epoch 1 of 3 is made the best on validation."""
    scores = iter([0.2, 0.9, 0.4])
    monkeypatch.setattr(loop, "accuracy", lambda logits, labels: next(scores))
    shop = tiny.workshop(tiny.recipe(distill={"epochs": 3, "select": select}), tmp_path)
    states = []
    save = state.Progress.save

    def saved(progress: state.Progress, *rest: Any, **more: Any) -> None:
        save(progress, *rest, **more)
        states.append({name: value.clone() for name, value in progress.network.state_dict().items()})

    monkeypatch.setattr(state.Progress, "save", saved)
    stale = tmp_path / "networks" / "alone" / "alone-last.safetensors"
    stale.parent.mkdir(parents=True)
    stale.touch()
    tiny.train(shop, "alone")
    other = {"last": "chosen", "validation": "last"}[select]
    folder = tmp_path / "networks" / "alone"
    assert {path.stem for path in folder.glob("*.safetensors")} == {"alone", f"alone-{other}"}
    kept, beside = (load_network(folder, stem)[0].state_dict() for stem in ("alone", f"alone-{other}"))
    _, _, chosen, last = states  # the first is of the beginning
    assert tiny.same(kept, last if select == "last" else chosen)
    assert tiny.same(beside, chosen if select == "last" else last)
    history = read(tmp_path / "networks", "alone", "history.json")
    assert (history["selected"], history["last"]["epoch"], history["chosen"]["epoch"]) == (select, 2, 1)


def test_of_equal_epochs_the_later_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "accuracy", lambda logits, labels: 0.5)
    tiny.train(tiny.workshop(tiny.recipe(), tmp_path), "alone")
    assert read(tmp_path / "networks", "alone", "history.json")["chosen"]["epoch"] == 1
    assert not list(tmp_path.rglob("alone-*.safetensors"))


def test_predictions_leave_mode_and_buffers_alone(tmp_path: Path) -> None:
    shop = tiny.workshop(tiny.recipe(), tmp_path)
    classifier = shop.make(shop.recipe.student, 0).train()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    logits, labels = predict(classifier, shop.validation(), choose(shop.recipe.distill, shop.device))
    assert classifier.training
    assert tiny.same(before, classifier.state_dict())
    assert logits.shape == (len(tiny.splits().validation), 10)
    assert labels.tolist() == tiny.splits().validation.labels.tolist()
    assert accuracy(torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]]), torch.tensor([0, 1, 1])) == pytest.approx(2 / 3)


PROJECTS = '''
from torch import nn
import torch.nn.functional as F
from kdeploy.methods import Method

class Follow(Method):
    """A projector of the student's logits follows the teacher's."""

    paper, year, formula = "none", 2026, "mean squared difference"

    def __init__(self, *, scale: float = 1.0):
        super().__init__()
        self.scale = float(scale) + 0

    def build(self, student, teacher):
        self.projector = nn.Linear(student.classes, teacher.classes)

    def terms(self, student, teacher, target=None, context=None):
        assert not teacher.logits.requires_grad
        assert context.index.shape == target.shape
        return {"follow": self.scale * F.mse_loss(self.projector(student.logits), teacher.logits)}
'''


@pytest.fixture
def follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "elsewhere.py").write_text(PROJECTS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "elsewhere", raising=False)
    return "python:elsewhere:Follow"


def test_a_method_from_outside_distils_and_leaves_no_projector(
    follow: str, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watch_fit(monkeypatch)
    tiny.train(tiny.workshop(tiny.recipe(distill={"method": follow}), run_folder), "student")
    start, end = seen[0]["weights"], seen[0]["network"].state_dict()
    assert not tiny.same(start, end)
    trained = seen[0]["objective"].state_dict()
    assert set(trained) == {"methods.0.projector.weight", "methods.0.projector.bias"}
    Plain().load_state_dict(load_file(run_folder / "networks" / "student" / "student.safetensors"), strict=True)
    terms = json.loads((run_folder / "networks" / "student" / "metrics.jsonl").read_text().splitlines()[0])["terms"]
    assert set(terms) == {"cross_entropy", "follow"}


def test_the_weights_of_the_recipe_count(follow: str, run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = [{"method": "kd", "weight": 0.5, "options": {"temperature": 2}}, {"method": follow, "weight": 0.25}]
    seen = watch_fit(monkeypatch)
    tiny.train(tiny.workshop(tiny.recipe(distill={"method": methods, "cross_entropy": 2.0}), run_folder), "student")
    objective = seen[0]["objective"]
    assert objective.cross_entropy == 2.0
    assert [weight for _, weight in objective.lessons[0].methods] == [0.5, 0.25]
    assert objective.methods[0].temperature == 2


def test_the_defaults_of_a_method_count(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch_fit(monkeypatch)
    recipe = tiny.recipe(distill={"options": {"alpha": 0.75}, "epochs": 1})
    tiny.train(tiny.workshop(recipe, run_folder), "student")
    objective = seen[0]["objective"]
    assert (objective.cross_entropy, objective.lessons[0].methods[0][1]) == (0.25, 0.75)


class TestBeforeAnyWork:
    @pytest.mark.parametrize(
        ("distill", "sentence"),
        [
            ({"options": {"temprature": 4}}, "The method kd has no option 'temprature'. Did you mean 'temperature'?"),
            ({"options": {"temperature": -1}}, "kd: temperature must be a number above 0, not -1"),
            ({"options": {"temperature": "hot"}}, "The options {'temperature': 'hot'} of the method kd do not fit"),
            ({"method": "python:nowhere.to.be:Found"}, "there is no module 'nowhere' here"),
            ({"method": "python:pathlib:Path"}, "is not a distillation method"),
        ],
    )
    def test_a_methods_options_are_checked_when_the_run_is_planned(self, distill: Any, sentence: str) -> None:
        with pytest.raises(UserError) as caught:
            procedures.find("offline").jobs(tiny.recipe(distill=distill))
        assert sentence in str(caught.value)

    def test_a_student_that_cannot_be_built_is_refused_before_the_teacher_is_trained(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(loop, "fit", lambda *_, **__: pytest.fail("a training has begun"))
        recipe = tiny.recipe(student={"model": "resnet8", "options": {"shortcat": "A"}})
        with pytest.raises(UserError, match=r"resnet8 has no option .shortcat.\. Did you mean .shortcut.\?"):
            tiny.train(tiny.workshop(recipe, tmp_path), "teacher")

    def test_features_that_a_network_does_not_have_are_refused_before_the_teacher_is_trained(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "flat.py").write_text(
            "from torch import nn\n"
            "def net(classes, channels):\n"
            "    return nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, classes))\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(loop, "fit", lambda *_, **__: pytest.fail("a training has begun"))
        recipe = tiny.recipe(student={"model": "python:flat:net"}, distill={"method": "at"})
        with pytest.raises(UserError, match="has no stages of a convolutional network"):
            tiny.train(tiny.workshop(recipe, tmp_path), "teacher")

    @pytest.mark.parametrize(
        ("method", "student", "sentence"),
        [
            ("at", ["layr1"], "taps.student: There is no module 'layr1' to tap in ResNet. Did you mean 'layer1'?"),
            ("at", ["fc"], "taps.student: The module fc of ResNet gives [B, 10], not a map [B, C, H, W]."),
            ("kd", ["layer1"], "taps are named, and none of the methods looks at features of stages"),
        ],
    )
    def test_taps_that_do_not_fit_are_refused_before_the_teacher_is_trained(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, student: list[str], sentence: str
    ) -> None:
        monkeypatch.setattr(loop, "fit", lambda *_, **__: pytest.fail("a training has begun"))
        recipe = tiny.recipe(distill={"method": method, "taps": {"student": student, "teacher": ["layer3"]}})
        with pytest.raises(UserError) as caught:
            tiny.train(tiny.workshop(recipe, tmp_path), "teacher")
        assert sentence in str(caught.value)


def test_a_method_sees_the_stages_that_the_recipe_names(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch_fit(monkeypatch)
    taps = {"student": ["layer1", "layer3"], "teacher": ["layer2", "layer3"]}
    tiny.train(tiny.workshop(tiny.recipe(distill={"method": "at", "epochs": 1, "taps": taps}), run_folder), "student")
    view = seen[-1]["objective"].lessons[0].view
    assert [list(taps._paths) for taps in view._taps] == [["layer1", "layer3"]]


class TestWorkshop:
    def test_a_normalisation_of_other_channels(self, tmp_path: Path) -> None:
        colour = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
        shop = tiny.workshop(tiny.recipe(teacher={"normalize": colour}), tmp_path)
        with pytest.raises(UserError) as caught:
            shop.make(shop.recipe.teacher, 0)
        assert str(caught.value) == (
            "The normalisation of resnet8 has 3 channels, and the images of sklearn-digits have 1."
        )

    @pytest.mark.parametrize("class_map", [[0, 1], [-1, *range(1, 10)], list(range(11))])
    def test_a_class_map_that_does_not_fit(self, tmp_path: Path, class_map: list[int]) -> None:
        shop = tiny.workshop(tiny.recipe(teacher={"class_map": class_map}), tmp_path)
        with pytest.raises(
            UserError, match="class_map of resnet8 must hold a number from 0 up for each of the data's 10"
        ):
            shop.make(shop.recipe.teacher, 0)

    def test_a_class_map_chooses_among_more_outputs(self, tmp_path: Path) -> None:
        shop = tiny.workshop(tiny.recipe(teacher={"class_map": [11, *range(9)]}), tmp_path)
        classifier = shop.make(shop.recipe.teacher, 0).eval()
        images = torch.rand(2, 1, 8, 8)
        normalised = (images - classifier.mean) / classifier.std
        logits = classifier.network(normalised)
        assert logits.shape == (2, 12)
        assert torch.equal(classifier(images), logits[:, [11, *range(9)]])

    def test_the_datas_own_normalisation_is_measured_on_train(self, tmp_path: Path) -> None:
        shop = tiny.workshop(tiny.recipe(), tmp_path)
        train: ImageSet = tiny.splits().train
        assert shop.normalize.mean[0] == pytest.approx((train.images / 255).mean(), abs=1e-6)
        assert shop.normalize.std[0] == pytest.approx((train.images / 255).std(), abs=1e-6)
