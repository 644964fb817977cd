"""What is shipped: the wheel, its metadata, the tested set of versions."""

import os
import re
import subprocess
import sys
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "kdeploy"

# Not part of the tested set: TensorRT and CUDA need an NVIDIA GPU, which the machine that tests has not.
UNTESTED = {"cuda-python", "tensorrt"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """kdeploy's wheel, built by the hatchling that is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("kdeploy-*.whl")
    return built


@pytest.fixture(scope="module")
def contents(wheel) -> set[str]:
    with ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def requirements(wheel) -> list[Requirement]:
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(archive.read(name))
    return [Requirement(line) for line in metadata.get_all("Requires-Dist")]


def constraints() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {normal(pin.name): pin for pin in pins}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_wheel_holds_every_recipe(contents):
    recipes = {file.relative_to(ROOT / "recipes").as_posix() for file in (ROOT / "recipes").rglob("*.yaml")}
    assert "quickstart.yaml" in recipes
    assert {f"kdeploy/recipe/shipped/{recipe}" for recipe in recipes} <= contents


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(contents):
    files = {file.relative_to(ROOT).as_posix() for file in PACKAGE.rglob("*") if file.is_file()}
    files = {file for file in files if "__pycache__" not in file and "/shipped/" not in file}
    assert any(file.startswith("kdeploy/report/") and not file.endswith(".py") for file in files), "report templates"
    shipped = {name for name in contents if ".dist-info/" not in name and "/shipped/" not in name}
    assert shipped == files


def test_a_wheel_in_an_empty_folder_knows_its_recipes(wheel, tmp_path):
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "NO_COLOR": "1"}
    script = "import sys; from kdeploy.cli.main import main; sys.argv[1:] = ['recipes']; main()"
    done = subprocess.run([sys.executable, "-c", script], cwd=empty, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "quickstart" in done.stdout
    assert list(empty.iterdir()) == []


def test_the_project_asks_for_lower_bounds_only(requirements):
    for requirement in requirements:
        assert {bound.operator for bound in requirement.specifier} <= {">="}, str(requirement)


def test_the_device_side_stays_small(requirements):
    always = {normal(each.name) for each in requirements if each.marker is None}
    assert always == {"jinja2", "numpy", "onnxruntime", "pillow", "pydantic", "pyyaml", "rich", "typer"}


def test_the_tested_set_pins_every_direct_dependency(requirements):
    pins = constraints()
    direct = {normal(each.name): each for each in requirements if each.name != "kdeploy"}
    assert direct.keys() - pins.keys() == UNTESTED
    for name, pin in pins.items():
        (bound,) = pin.specifier
        assert bound.operator == "=="
        if name in direct:
            assert direct[name].specifier.contains(bound.version), f"{pin} is below what the project asks for"


def test_torch_and_torchvision_are_the_tested_pair():
    pins = constraints()
    assert (str(pins["torch"].specifier), str(pins["torchvision"].specifier)) == ("==2.13.0", "==0.28.0")
