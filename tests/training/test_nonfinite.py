"""Losses, gradients and weights that are NaN or infinite: named to the step, or skipped without a trace."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from kdeploy import events
from kdeploy.errors import UserError
from kdeploy.recipe.schema import TrainSpec
from kdeploy.training import nonfinite, setup, state
from kdeploy.training.objective import CrossEntropy, Step
from kdeploy.training.steps import Steps
from kdeploy.training.totals import Totals
from tests.training import tiny

THEIRS = """
import torch
from kdeploy.methods import Method

class Breaks(Method):
    '''Ordinary but for its second term, which breaks in some steps.'''

    steps = (7,)

    def terms(self, student, teacher, target=None, context=None):
        zero = student.logits.mean() * 0
        fuse = self.broken(zero) if context.step in self.steps else zero
        return {"mild": student.logits.square().mean(), "fuse": fuse}

    def broken(self, zero):
        return zero + float("nan")

class Infinite(Breaks):
    def broken(self, zero):
        return zero + float("inf")

class Gradient(Breaks):
    '''A root at zero: its value is 0, its gradient 0 * inf.'''

    def broken(self, zero):
        return zero.sqrt()

class Twice(Breaks):
    steps = (2, 7)

class Often(Breaks):
    steps = (5, 6, 7, 8, 9)
"""
REMEDY = (
    "Lower lr, set warmup_epochs, or set nonfinite: skip to leave such steps out; the checkpoint before it is kept."
)
STEPS = 5
"""An epoch's: 150 images, 32 a batch."""


@pytest.fixture(autouse=True)
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "broken.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.delitem(sys.modules, "broken", raising=False)


def asked(method: str, **distill: Any) -> Any:
    return tiny.recipe(distill={"method": f"python:broken:{method}", "epochs": 3, **distill})


def images_of(shop: Any, epoch: int, batch: int) -> list[int]:
    batches = list(shop.training(shop.recipe.distill, shop.recipe.seed).epoch(epoch))
    return [int(number) for number in batches[batch].index]


@pytest.mark.parametrize(
    ("method", "what"),
    [
        ("Breaks", "The term fuse"),
        ("Infinite", "The term fuse"),
        ("Gradient", "The gradient of the term fuse"),
    ],
)
@pytest.mark.parametrize("checkpoint_steps", [None, 2])
def test_the_step_the_term_and_the_batch_are_named(
    run_folder: Path, method: str, what: str, checkpoint_steps: int | None
) -> None:
    shop = tiny.workshop(asked(method, checkpoint_steps=checkpoint_steps), run_folder)
    with pytest.raises(UserError) as caught:
        tiny.train(shop, "student")
    images = images_of(shop, 1, 2)
    student = run_folder / "networks" / "student"
    assert str(caught.value) == (
        f"{what} became NaN or infinite in epoch 2, batch 3 (step 8), on the training images "
        f"{', '.join(map(str, images[:8]))} and 24 more ({student / 'nonfinite.json'}). {REMEDY}"
    )
    assert json.loads((student / "nonfinite.json").read_text())["images"] == images
    kept = torch.load(student / state.STATE, weights_only=True)
    assert [line["epoch"] for line in kept["history"]] == [0]
    assert kept["batch"] == (0 if checkpoint_steps is None else 1)
    assert all(value.isfinite().all() for value in kept["network"].values())
    assert not (student / "student.safetensors").exists()


def test_weights_that_break_in_the_last_step_are_not_kept(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take = Steps.take

    def breaks(steps: Steps, batch: Any, epoch: int, number: int, look: Any = None) -> Any:
        taken = take(steps, batch, epoch, number, look)
        if (epoch, number) == (1, STEPS - 1):
            steps.parameters[0].data.fill_(float("inf"))
        return taken

    monkeypatch.setattr(Steps, "take", breaks)
    with pytest.raises(UserError, match=r"^A weight became NaN or infinite in epoch 2, batch 5 \(step 10\)"):
        tiny.train(tiny.workshop(tiny.recipe(), run_folder), "alone")
    kept = torch.load(run_folder / "networks" / "alone" / state.STATE, weights_only=True)
    assert [line["epoch"] for line in kept["history"]] == [0]


def test_what_does_not_happen_again_is_reported_as_far_as_it_is_known(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdeploy.training.steps.culprits", lambda *_: [])
    shop = tiny.workshop(asked("Breaks"), run_folder)
    with pytest.raises(UserError, match=r"at or before batch 5 \(terms: fuse\), and did not when the steps were rep"):
        tiny.train(shop, "student")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "networks" / "student" / "student.safetensors")


@pytest.mark.parametrize("method", ["Twice", "Gradient"])
@pytest.mark.parametrize("training", [{}, {"optimizer": "adamw", "lr": 0.01}])
def test_skipped_steps_are_counted_and_leave_the_rest_finite(
    run_folder: Path, method: str, training: dict[str, Any]
) -> None:
    heard = tiny.Interrupting("nothing", 0)
    with events.listening(heard):
        tiny.train(tiny.workshop(asked(method, nonfinite="skip", **training), run_folder), "student")
    assert all(value.isfinite().all() for value in weights(run_folder).values())
    lines = (run_folder / "networks" / "student" / "metrics.jsonl").read_text().splitlines()
    skipped = [json.loads(line)["skipped_steps"] for line in lines]
    assert skipped == ([1, 1, 0] if method == "Twice" else [0, 1, 0])
    said = "student: 1 of 5 steps of epoch 2 were skipped: their loss or gradient was NaN or infinite."
    assert said in heard.heard


def test_where_nothing_breaks_skip_and_stop_are_the_same(run_folder: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run_folder, tmp_path / "other"))
    tiny.train(tiny.workshop(tiny.recipe(), run_folder), "student")
    tiny.train(tiny.workshop(tiny.recipe(distill={"nonfinite": "skip"}), other), "student")
    assert tiny.same(weights(run_folder), weights(other))


def test_an_epoch_without_a_step_to_take_ends_the_training(run_folder: Path) -> None:
    with pytest.raises(UserError, match=r"gradient of every batch of epoch 2 was NaN or infinite.*Lower lr"):
        tiny.train(tiny.workshop(asked("Often", nonfinite="skip"), run_folder), "student")


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("bad_step", [0, 1])
def test_a_skipped_step_leaves_no_trace(make: Any, bad_step: int) -> None:
    """Three steps of which one is skipped are the two others: parameters, optimiser, running statistics."""

    def trained(skip: bool) -> tuple[Any, Any]:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        options = {"momentum": 0.9} if make is torch.optim.SGD else {}
        optimizer = make(network.parameters(), lr=0.1, weight_decay=0.1, fused=True, **options)
        skipping = nonfinite.Skipping([network], optimizer)
        for step, images in enumerate(torch.rand(3, 8, 3)):
            if step == bad_step and not skip:
                continue
            skipping.remember()
            loss = network(images).square().sum() * (float("nan") if step == bad_step else 1.0)
            optimizer.zero_grad()
            loss.backward()
            assert bool(skipping.judge(loss)) == (step != bad_step)
            optimizer.step()
        return network.state_dict(), optimizer.state_dict()["state"]

    (network, optimizer), (other, others) = trained(True), trained(False)
    assert tiny.same(network, other)
    assert all(tiny.same(optimizer[number], others[number]) for number in others)


class Waits(TorchDispatchMode):
    """Counts what reads a value of a tensor, and so would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        self.count += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize("what_to_do", ["stop", "skip"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_no_step_waits_for_the_device(tmp_path: Path, what_to_do: str, optimizer: str) -> None:
    spec = TrainSpec.model_validate({**tiny.TRAIN, "nonfinite": what_to_do, "optimizer": optimizer})
    shop = tiny.workshop(tiny.recipe(), tmp_path)
    network, train = shop.make(shop.recipe.student, 0), shop.training(spec, 0)
    steps = Steps(network, CrossEntropy(), train, spec, setup.choose(spec, shop.device))
    totals = Totals(shop.device)
    steps.training_mode()
    batches = list(train.epoch(0))
    with Waits() as waits:
        for number, batch in enumerate(batches):
            step, good = steps.take(batch, 0, number)
            totals.add(step, batch.labels, good)
        assert waits.count == 0
        totals.finite()
        assert waits.count == 1


def test_a_term_without_a_gradient_is_nobodys_culprit() -> None:
    weight = nn.Parameter(torch.zeros(2))
    constant, root = torch.tensor(1.0), (weight * 0).sqrt().sum()
    (constant + root).backward(retain_graph=True)
    step = Step(constant + root, {"constant": constant, "root": root}, torch.zeros(1, 1))
    assert nonfinite.culprits(step, [weight]) == ["the gradient of the term root"]
