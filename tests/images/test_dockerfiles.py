"""docker/ as text: what hadolint says, what is pinned, and that compose.yaml builds and starts what there is."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

DOCKER = Path(__file__).parent.parent.parent / "docker"
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
EACH = pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda file: file.name)


def test_there_are_three() -> None:
    assert [file.name for file in DOCKERFILES] == ["edge-arm64.Dockerfile", "jetson.Dockerfile", "train.Dockerfile"]


@EACH
def test_hadolint_has_nothing_to_say(dockerfile: Path) -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")
    if hadolint is None:
        pytest.skip("there is no hadolint here; it comes with kdeploy[dev]")
    done = subprocess.run([hadolint, "--no-color", dockerfile], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@EACH
def test_no_rule_is_switched_off(dockerfile: Path) -> None:
    assert "hadolint ignore" not in dockerfile.read_text(encoding="utf-8")
    assert not [file.name for file in (DOCKER, DOCKER.parent) for file in file.glob(".hadolint.y*ml")]


@EACH
def test_the_base_is_an_argument_with_a_pin(dockerfile: Path) -> None:
    text = dockerfile.read_text(encoding="utf-8")
    (base,) = re.findall(r"^ARG BASE=(\S+)$", text, re.MULTILINE)
    digest = re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", base)
    nvidia = re.fullmatch(r"nvcr\.io/nvidia/l4t-tensorrt:r\d+\.\d+\.\d+-runtime", base)
    assert digest or nvidia
    stages = {"${BASE}", *re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE)}
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) <= stages


@EACH
def test_pip_keeps_no_cache(dockerfile: Path) -> None:
    """hadolint asks for it too, but does not see that this is pip, as it is called by its path."""
    installs = re.findall(r"/pip install.*", dockerfile.read_text(encoding="utf-8"))
    assert installs
    assert all("--no-cache-dir" in install for install in installs)


@EACH
def test_what_it_becomes(dockerfile: Path) -> None:
    text = dockerfile.read_text(encoding="utf-8")
    last = text[text.rindex("\nFROM ") :]
    users = re.findall(r"^USER (\S+)$", last, re.MULTILINE)
    assert users
    assert users[-1].startswith("1000")
    assert 'ENTRYPOINT ["kdeploy"]' in last
    assert "HEALTHCHECK NONE" in last
    assert "PATH=/opt/kdeploy/bin:$PATH" in last  # so that `python3` is the one that imports kdeploy


def test_compose_builds_and_starts_what_there_is() -> None:
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
    assert list(compose["services"]) == ["distil", "bench"]
    for service in compose["services"].values():
        context = DOCKER / service["build"]["context"]
        assert (context / "pyproject.toml").exists()
        assert (context / service["build"]["dockerfile"]).resolve() in DOCKERFILES
        (volume,) = service["volumes"]
        assert volume.split(":")[0] in compose["volumes"]
    waits = compose["services"]["bench"]["depends_on"]
    assert waits == {"distil": {"condition": "service_completed_successfully"}}
