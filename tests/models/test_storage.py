"""A network on disk: what is written, and that it comes back the same with and without kdeploy."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kdeploy import models
from kdeploy.errors import UserError
from kdeploy.models.classifier import Classifier
from kdeploy.models.counting import count
from kdeploy.models.storage import load_network, save_network
from kdeploy.recipe.schema import NetworkSpec

SPEC = NetworkSpec(model="resnet8", width=0.5, options={"shortcut": "A"})
CARD = {
    "model": SPEC.model,
    "width": SPEC.width,
    "options": SPEC.options,
    "classes": ["cat", "dog", "owl"],
    "image": {"height": 8, "width": 12, "channels": 1},
    "role": "student",
}


@pytest.fixture
def classifier() -> Classifier:
    torch.manual_seed(0)
    network = models.create(SPEC, classes=5, channels=1)
    network(torch.rand(8, 1, 8, 12))  # so that the running statistics are not their start
    return Classifier(network, (0.4,), (0.3,), (4, 0, 2)).eval()


def test_it_comes_back_the_same(tmp_path: Path, classifier: Classifier):
    save_network(tmp_path / "student", classifier, CARD)
    again, card = load_network(tmp_path / "student")
    images = torch.rand(3, 1, 8, 12)
    assert torch.equal(again(images), classifier(images))
    assert not again.training
    assert sorted(path.name for path in (tmp_path / "student").iterdir()) == ["student.json", "student.safetensors"]
    counts = count(classifier.network, (1, 8, 12))
    assert card["schema_version"] == 1
    assert (card["parameters"], card["macs"]) == (counts.parameters, counts.macs)
    assert (card["outputs"], card["class_map"]) == (5, [4, 0, 2])
    assert (card["mean"], card["std"], card["role"]) == ([0.4], [0.3], "student")


def test_saving_leaves_a_training_network_as_it_was(tmp_path: Path, classifier: Classifier):
    classifier.train()
    before = {key: value.clone() for key, value in classifier.state_dict().items()}
    save_network(tmp_path / "student", classifier, CARD, stem="epoch-3")
    assert classifier.network.training
    assert all(torch.equal(before[key], value) for key, value in classifier.state_dict().items())
    load_network(tmp_path / "student", "epoch-3")


def test_it_can_be_used_without_kdeploy(tmp_path: Path, classifier: Classifier):
    """The card's own instructions: the weights fit the architecture strictly, and the arithmetic is as told."""
    save_network(tmp_path / "student", classifier, CARD)
    card = json.loads((tmp_path / "student/student.json").read_text())
    plain = models.create(SPEC, classes=card["outputs"], channels=1).eval()
    plain.load_state_dict(load_file(tmp_path / "student" / card["weights"]), strict=True)
    x = torch.rand(2, 1, 8, 12)
    logits = plain((x - card["mean"][0]) / card["std"][0])
    assert torch.allclose(logits[:, card["class_map"]], classifier(x), atol=1e-6)


def test_options_that_choose_published_weights_are_not_kept(tmp_path: Path):
    network = models.create(NetworkSpec(model="torchvision:mnasnet0_5"), classes=4)
    card = CARD | {"model": "torchvision:mnasnet0_5", "width": 1.0, "options": {"pretrained": True, "dropout": 0.1}}
    image = {"image": {"height": 32, "width": 32, "channels": 3}}
    save_network(tmp_path / "teacher", Classifier(network, (0.0,) * 3, (1.0,) * 3), card | image)
    _, read = load_network(tmp_path / "teacher")
    assert read["options"] == {"dropout": 0.1}


def test_a_card_that_lacks_something_is_our_bug(tmp_path: Path, classifier: Classifier):
    with pytest.raises(ValueError, match="lacks classes, image"):
        save_network(tmp_path, classifier, {"model": "resnet8", "width": 1.0, "options": {}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, "schema_version 1"),
        ({"mean": "abc"}, "not the card of a network"),
        ({"width": -1}, "not the card of a network"),
        ({"image": {}}, "not the card of a network"),
        ({"model": "resnet9"}, "There is no network 'resnet9'"),
        ({"outputs": 4}, "of another shape: fc.weight"),
    ],
)
def test_a_wrong_card_is_a_user_error(tmp_path: Path, classifier: Classifier, change: dict, message: str):
    folder = tmp_path / "student"
    save_network(folder, classifier, CARD)
    card = json.loads((folder / "student.json").read_text()) | change
    (folder / "student.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match=message):
        load_network(folder)


def test_missing_weights_are_named(tmp_path: Path, classifier: Classifier):
    save_network(tmp_path / "student", classifier, CARD)
    (tmp_path / "student/student.safetensors").unlink()
    with pytest.raises(UserError, match=r"no checkpoint .*student\.safetensors"):
        load_network(tmp_path / "student")
    with pytest.raises(UserError, match=r"no file .*teacher\.json"):
        load_network(tmp_path / "teacher")
