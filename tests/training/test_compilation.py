"""Training through torch.compile."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kdeploy.errors import Unavailable, UserError
from tests.training import tiny

KD = {"epochs": 1, "compile": True}


def test_methods_on_features_are_refused(tmp_path: Path) -> None:
    shop = tiny.workshop(tiny.recipe(distill={**KD, "method": "fitnet"}), tmp_path)
    with pytest.raises(UserError, match="fitnet looks at features"):
        tiny.train(shop, "teacher")


def test_a_missing_compiler_is_said_before_the_first_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    shop = tiny.workshop(tiny.recipe(distill=KD), tmp_path)
    with pytest.raises(Unavailable, match="install g\\+\\+"):
        tiny.train(shop, "alone")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where the compiler is imported
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_the_weights_are_those_of_training_without_it(tmp_path: Path) -> None:
    weights = []
    for compiles in (False, True):
        folder = tmp_path / str(compiles)
        shop = tiny.workshop(tiny.recipe(distill={**KD, "compile": compiles}), folder)
        tiny.train(shop, "teacher", "student")
        weights.append(load_file(folder / "networks" / "student" / "student.safetensors"))
    assert weights[0].keys() == weights[1].keys()
    for name, plain in weights[0].items():
        torch.testing.assert_close(weights[1][name], plain, rtol=1e-3, atol=1e-4)
