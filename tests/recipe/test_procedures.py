"""What a recipe knows of procedures without torch."""

from __future__ import annotations

from pathlib import Path

import pytest

import kdeploy.training.procedures as training
from kdeploy.errors import UserError
from kdeploy.recipe import load, procedures
from kdeploy.recipe.networks import networks
from kdeploy.recipe.procedures.base import Description, NoOptions
from kdeploy.recipe.schema import Recipe, Spec


class _Options(Spec):
    widths: tuple[float, ...] = (1.0, 0.5)


class _Made(Description):
    about = "made for this test"
    options = _Options

    def networks(self, recipe):
        return []


def test_a_procedure_is_described_and_does_what_it_says_under_one_name() -> None:
    files = {path.stem for path in Path(training.__file__).parent.glob("*.py")} - {"__init__", "base"}
    assert {name.replace("-", "_") for name in procedures.names()} == files
    for name in procedures.names():
        assert procedures.describe(name).about
        assert hasattr(training.find(name), "jobs")


def test_options_are_filled_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procedures, "describe", lambda name: _Made())
    assert procedures.filled("made", {}) == {"widths": [1.0, 0.5]}
    with pytest.raises(ValueError, match=r"has no option 'width' .its options: widths.. Did you mean"):
        procedures.filled("made", {"width": [1]})
    with pytest.raises(ValueError, match=r"widths.0 of the procedure made: Input should be a valid number"):
        procedures.filled("made", {"widths": ["wide"]})


def test_a_procedure_without_options_takes_none() -> None:
    assert procedures.describe("offline").options is NoOptions
    with pytest.raises(UserError, match=r"the procedure offline has no option 'widths' .its options: none"):
        load("quickstart", ["distill.procedure_options={widths: [1]}"])


def test_the_student_is_what_is_deployed() -> None:
    recipe: Recipe = load("quickstart")
    assert [network.role for network in networks(recipe) if network.deployed] == ["student"]
