from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdeploy.engines.tensorrt import machine, options, versions
from kdeploy.errors import UserError


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"workspace": 64}, r"has no option 'workspace'\. Did you mean 'workspace_mib'\?"),
        ({"profiles": [{"maximum": 4}]}, r"has no option 'profiles\.0\.maximum'"),
        ({"profiles": []}, "option profiles of .*: List should have at least 1 item"),
        (
            {"profiles": [{"min": 2}]},
            r"option profiles\.0 of .*: a profile needs min <= opt <= max, not 2, 1, 1",
        ),
        ({"builder_optimization_level": 6}, "less than or equal to 5"),
        ({"hardware_compatibility": "all"}, "'none', 'ampere\\+' or 'same-compute-capability'"),
        ({"exclude_lean_runtime": True}, "only with version_compatible: true"),
        ({"dla_core": 0, "hardware_compatibility": "ampere+"}, "exclude each other"),
        ({"precision_share": 0}, "greater than 0"),
    ],
)
def test_a_wrong_option_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        options.parse(given)
    assert "\n" not in str(raised.value)


def test_options_come_back_from_the_manifest() -> None:
    asked = options.parse({"profiles": [{"opt": 2, "max": 4}], "dla_core": 1, "cuda_graph": True})
    assert options.parse(asked.model_dump(mode="json", exclude_none=True)) == asked


@pytest.mark.parametrize(("side", "largest"), [(32, 250), (224, 5), (1024, 1), (8, 250)])
def test_the_largest_batch_by_itself_is_as_many_pixels(side: int, largest: int) -> None:
    (profile,) = options.profiles_for(options.parse({}), side, side)
    assert (profile.min, profile.opt, profile.max) == (1, 1, largest)


@pytest.mark.parametrize(
    ("version", "dla"),
    [("8.5.2", True), ("10.3.0", True), ("10.7.0", True), ("10.8.0", False), ("11.0.0", False), ("11.3.0", False),
     ("11.4.0", False), ("11.4.1", True)],
)  # fmt: skip
def test_which_versions_build_for_a_dla(version: str, dla: bool) -> None:
    assert versions.has_dla(versions.parse(version)) is dla


def test_versions_are_read_without_their_build_number() -> None:
    assert versions.parse("10.16.1.11") == (10, 16, 1)
    assert versions.show((8, 5, 2)) == "8.5.2"
    with pytest.raises(ValueError, match="no version"):
        versions.parse("unknown")


def test_machines_differ_by_what_both_know() -> None:
    built = {"tensorrt": "10.3.0", "gpu": "Orin", "compute_capability": "8.7", "driver": None}
    here = {"tensorrt": "10.3.0", "gpu": "NVIDIA H100", "compute_capability": "9.0", "driver": "550.54"}
    assert machine.differences(built, here) == [
        "compute capability: built with 8.7, here 9.0",
        "GPU: built with Orin, here NVIDIA H100",
    ]
    assert machine.differences({}, here) == []


def test_the_driver_is_read_from_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build\nGCC version: 11.4.0\n"
    (tmp_path / "version").write_text(text)
    monkeypatch.setattr(machine, "_DRIVER", (tmp_path / "absent", tmp_path / "version"))
    assert machine.driver() == "540.4.0"
    monkeypatch.setattr(machine, "_DRIVER", ())
    assert machine.driver() is None
