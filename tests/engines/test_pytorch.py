from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from kdeploy import engines
from kdeploy.engines.pytorch import PyTorch
from kdeploy.errors import Unavailable, UserError
from kdeploy.models.catalogue import create
from kdeploy.models.classifier import Classifier
from kdeploy.models.storage import save_network
from kdeploy.recipe.schema import NetworkSpec
from tests.engines import models


@pytest.fixture
def network(tmp_path: Path) -> tuple[Path, Classifier]:
    torch.manual_seed(0)
    bare = create(NetworkSpec(model="resnet8", width=0.25), classes=3, channels=1)
    classifier = Classifier(bare, [0.3], [0.7]).eval()
    card = {
        "model": "resnet8",
        "width": 0.25,
        "options": {},
        "classes": list(models.CLASSES),
        "image": {"height": 8, "width": 8, "channels": 1},
    }
    save_network(tmp_path / "teacher", classifier, card)
    return tmp_path / "teacher", classifier


def test_the_baseline_answers_as_the_network_does(tmp_path: Path, network: tuple[Path, Classifier]) -> None:
    folder, classifier = network
    before = torch.get_num_threads()
    manifest = PyTorch().build(folder, tmp_path / "engine", models.manifest())
    images = models.images(5)
    with engines.open_engine(tmp_path / "engine", threads=1) as session, torch.no_grad():
        outputs = session.run(images)
        assert session.describe()["threads"] == 1
        expected = classifier(torch.from_numpy(images / np.float32(255)).permute(0, 3, 1, 2)).softmax(1).numpy()
    torch.set_num_threads(before)
    np.testing.assert_allclose(outputs, expected, atol=1e-6)
    assert sorted(manifest.files) == ["teacher.json", "teacher.safetensors"]
    assert manifest.model == "teacher.safetensors"


def test_the_card_is_one_of_the_verified_files(tmp_path: Path, network: tuple[Path, Classifier]) -> None:
    PyTorch().build(network[0], tmp_path / "engine", models.manifest())
    card = json.loads((tmp_path / "engine" / "teacher.json").read_text())
    (tmp_path / "engine" / "teacher.json").write_text(json.dumps({**card, "mean": [0.0]}))
    with pytest.raises(UserError, match=r"The file teacher\.json"):
        engines.open_engine(tmp_path / "engine", threads=1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where the compiler is imported
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_it_answers_the_same(tmp_path: Path, network: tuple[Path, Classifier]) -> None:
    folder, classifier = network
    manifest = PyTorch().build(folder, tmp_path / "engine", models.manifest(options={"compile": True}))
    assert manifest.details["check"]["reference"] == "PyTorch in eager mode"
    images = models.images(3)
    with engines.open_engine(tmp_path / "engine", threads=1) as session, torch.no_grad():
        assert session.describe()["mode"] == "compiled"
        expected = classifier(torch.from_numpy(images / np.float32(255)).permute(0, 3, 1, 2)).softmax(1).numpy()
        np.testing.assert_allclose(session.run(images), expected, atol=1e-5)


def test_without_a_compiler_compiling_is_refused_before_it_begins(
    tmp_path: Path, network: tuple[Path, Classifier], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(Unavailable, match=r"needs a C\+\+ compiler, and there is none: install g\+\+"):
        PyTorch().build(network[0], tmp_path / "engine", models.manifest(options={"compile": True}))


def test_a_folder_without_a_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no file .*empty\.safetensors"):
        PyTorch().build(tmp_path / "empty", tmp_path / "engine", models.manifest())
