"""Information-flow modelling in its own set-up, as small as it gets: the chain, and the readout that ends each link."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from kdeploy import events, pipeline, recipe, results, sources
from kdeploy.errors import UserError
from kdeploy.recipe.schema import DataSpec, Recipe
from kdeploy.sources.base import Splits
from kdeploy.training import loop, procedures, state
from tests.test_events import Heard
from tests.training import tiny

DATA = {**tiny.DATA, "size": 32}
ADAM = {"optimizer": "adam", "lr": 0.002, "weight_decay": 0, "batch": 32, "precision": "float32", "epochs": 2}
READOUT = {**ADAM, "lr": 0.02, "epochs": 6}
INT8 = {"precision": "int8", "scheme": "x86-avx2", "calibration": {"samples": 32}}
STAGES = ["layer1", "layer2", "layer3"]
AUXILIARY = {
    "model": "cnn1_a",
    "width": 0.5,
    "start": "alone",
    "alone": {**ADAM, "epochs": 4},
    "distill": {**ADAM, "method": "information-flow", "options": {"layers": "last"}, "readout": READOUT},
}
DISTILL = {
    **ADAM,
    "procedure": "assistants",
    "assistants": [AUXILIARY],
    "method": "information-flow",
    "taps": {"student": STAGES, "teacher": STAGES},
    "readout": READOUT,
    "baseline": "none",
}


def flow(**distill: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "flow",
            "data": DATA,
            "teacher": {"model": "resnet8", "width": 0.25, "train": {**tiny.TRAIN, "epochs": 8, "lr": 0.1}},
            "student": {"model": "cnn1"},
            "distill": {**DISTILL, **distill},
            "bench": {"min_time_s": 0.01, "min_count": 10},
            "engines": [{"precision": "float32"}, INT8],
            "gates": {"int8_drop_points": 100},
            "bundle": {"samples": 0},
        }
    )


@cache
def splits() -> Splits:
    return sources.load(DataSpec.model_validate(DATA), base=Path())


def train(folder: Path, *roles: str) -> None:
    tiny.train(tiny.workshop(flow(), folder, splits()), *roles)


def weights(folder: Path, role: str) -> dict[str, Tensor]:
    return load_file(folder / "networks" / role / f"{role}.safetensors")


def lines(folder: Path, role: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "networks" / role / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flow")
    train(folder, "teacher", "assistant-1-alone", "assistant-1", "student")
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """All that comes before the student."""
    return Path(shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("student")))


def test_the_links_see_no_labels_and_the_layers_that_they_name(finished: Path) -> None:
    assert sorted(lines(finished, "assistant-1")[0]["terms"]) == ["information-flow/embedding"]
    stages = [f"information-flow/{number}" for number in (1, 2, 3)]
    assert sorted(lines(finished, "student")[0]["terms"]) == [*stages, "information-flow/embedding"]
    assert sorted(lines(finished, "student")[-1]["terms"]) == ["cross_entropy"]


def test_the_early_layers_fade_from_epoch_to_epoch(finished: Path) -> None:
    """100 and then 70: the second epoch's stages weigh less even where they agree no better."""
    first, second = (line["terms"]["information-flow/1"] for line in lines(finished, "student")[:2])
    assert second < first


def test_the_readout_is_in_the_history_and_chooses_the_epoch(finished: Path) -> None:
    found = lines(finished, "student")
    assert [line["epoch"] for line in found] == list(range(8))
    assert [line["validation_accuracy"] is None for line in found] == [True] * 2 + [False] * 6
    history = json.loads((finished / "networks" / "student" / "history.json").read_text())
    assert history["epochs"] == 8
    assert history["last"] == {"epoch": 7, "validation_accuracy": found[-1]["validation_accuracy"]}
    assert history["chosen"]["epoch"] >= 2


def test_the_readout_teaches(finished: Path) -> None:
    """From chance, a tenth; on the training images, so that the bound does not rest on fifteen."""
    for role in ("assistant-1", "student"):
        readout = lines(finished, role)[-6:]
        assert readout[-1]["train_accuracy"] > 0.25
        assert readout[-1]["train_loss"] < readout[0]["train_loss"]


def test_the_readout_leaves_all_but_the_last_layer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights and the batch norms' statistics: those of the distilled network, bit for bit."""
    ends: list[dict[str, Tensor]] = []
    fit = loop.fit

    def watched(network: Any, *given: Any, **more: Any) -> Any:
        fitted = fit(network, *given, **more)
        ends.append({name: value.clone() for name, value in network.network.state_dict().items()})
        return fitted

    monkeypatch.setattr(loop, "fit", watched)
    train(folder, "student")
    distilled, read_out = ends
    changed = {name for name in distilled if not distilled[name].equal(read_out[name])}
    assert changed == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize(
    ("label", "after", "said"),
    [
        ("student", 1, "student: continues after epoch 1 of 2"),
        ("student: readout", 3, "student: readout: continues after epoch 3 of 6"),
    ],
)
def test_the_same_bits_after_an_interruption(finished: Path, folder: Path, label: str, after: int, said: str) -> None:
    with pytest.raises(KeyboardInterrupt), events.listening(tiny.Interrupting(label, after)):
        train(folder, "student")
    heard = Heard()
    with events.listening(heard):
        train(folder, "student")
    assert said in heard.lines
    assert tiny.same(weights(folder, "student"), weights(finished, "student"))
    assert len(lines(folder, "student")) == 8
    assert not list(folder.rglob(state.STATE))


def test_without_a_readout_it_is_refused_with_what_to_type() -> None:
    with pytest.raises(UserError) as caught:
        procedures.find("assistants").jobs(flow(readout=None))
    assert str(caught.value) == (
        "information-flow without cross-entropy never trains the last linear layer of student, which would guess: add "
        "readout: {epochs: 10} to train it afterwards on the frozen features, or set cross_entropy above 0."
    )
    assert procedures.find("assistants").jobs(flow(readout=None, cross_entropy=1))


def test_the_shipped_recipe_is_the_papers_set_up() -> None:
    shipped = recipe.load("cifar10/information-flow")
    assert procedures.find("assistants").jobs(shipped)
    (auxiliary,) = shipped.distill.assistants
    assert auxiliary.alone == shipped.teacher.train
    for spec, epochs, schedule, milestones in (
        (auxiliary.alone, 80, "multistep", (50,)),
        (auxiliary.distill, 40, "multistep", (30,)),
        (shipped.distill, 50, "constant", ()),
    ):
        assert spec is not None
        assert (spec.optimizer, spec.lr, spec.weight_decay, spec.batch) == ("adam", 1e-3, 0, 128)
        assert (spec.epochs, spec.schedule, spec.milestones) == (epochs, schedule, milestones)


@pytest.mark.slow
def test_a_run_takes_the_chain_to_engines(tmp_path: Path) -> None:
    asked = flow(baseline="alone")
    run = pipeline.open_run(asked, tmp_path / "run", device="cpu")
    pipeline.execute(run, pipeline.plan(asked))
    data = results.report_data(run.folder)
    assert [row.key for row in data.rows] == [
        "teacher-pytorch",
        "teacher-onnxruntime-float32",
        "assistant-1-pytorch",
        "alone-pytorch",
        "student-pytorch",
        "student-onnxruntime-float32",
        "student-onnxruntime-int8",
    ]
    assert set(data.epochs) == {"teacher", "alone", "assistant-1-alone", "assistant-1", "student"}
    assert set(data.curves) == set(data.epochs)
    assert all(row.accuracy is not None for row in data.rows)
