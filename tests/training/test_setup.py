"""Device, precision and layout: each choice is said with its reason, and one asked for is not changed."""

from __future__ import annotations

import pytest
import torch

from kdeploy import events
from kdeploy.errors import Unavailable, UserError
from kdeploy.recipe.schema import TrainSpec
from kdeploy.training import setup
from tests.test_events import Heard

CPU = torch.device("cpu")


def choose(monkeypatch: pytest.MonkeyPatch, spec: TrainSpec, *instructions: str) -> tuple[setup.Setup, list[str]]:
    monkeypatch.setattr(setup, "instruction_sets", lambda: frozenset(instructions))
    heard = Heard()
    with events.listening(heard):
        decided = setup.choose(spec, CPU)
    return decided, [line for line in heard.lines if not line.startswith("threads")]


def test_without_bfloat16_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    decided, said = choose(monkeypatch, TrainSpec(), "avx2")
    assert (decided.precision, decided.channels_last) == ("float32", True)
    assert said == [
        "precision=float32 (no bfloat16 instructions on this cpu)",
        "layout=channels_last (faster for float32 on cpu)",
    ]


@pytest.mark.parametrize("instruction", ["avx512_bf16", "amx_bf16"])
def test_with_bfloat16_instructions(monkeypatch: pytest.MonkeyPatch, instruction: str) -> None:
    decided, said = choose(monkeypatch, TrainSpec(), instruction)
    assert (decided.precision, decided.channels_last) == ("bfloat16", True)
    assert said[0] == f"precision=bfloat16 (this processor multiplies it ({instruction}))"


def test_what_was_asked_for_is_taken_and_not_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    decided, said = choose(monkeypatch, TrainSpec(precision="float32", channels_last=False), "amx_bf16")
    assert (decided.precision, decided.channels_last) == ("float32", False)
    assert said == []


def test_images_take_the_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(2, 3, 4, 4)
    decided, _ = choose(monkeypatch, TrainSpec(precision="float32", channels_last=True))
    assert decided.images(images).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(decided.images(images), images)
    decided, _ = choose(monkeypatch, TrainSpec(precision="float32", channels_last=False))
    assert decided.images(images) is images


def test_devices() -> None:
    assert setup.choose_device("cpu") == CPU
    with pytest.raises(UserError, match=r"^There is no device 'gpu'\. Choose auto, cpu, cuda, cuda:N or mps\.$"):
        setup.choose_device("gpu")
    with pytest.raises(Unavailable, match="The device cuda:99 is not to be had here"):
        setup.choose_device("cuda:99")


@pytest.mark.skipif(torch.cuda.is_available(), reason="auto takes the GPU of this machine")
def test_auto_says_why_it_is_the_processor() -> None:
    heard = Heard()
    with events.listening(heard):
        assert setup.choose_device("auto") == CPU
    assert heard.lines == ["device=cpu (no GPU that this torch can use)"]
