"""The kdeploy that runs here, as a wheel."""

import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

import kdeploy
from kdeploy.errors import UserError
from kdeploy.recipe.catalogue import shipped
from kdeploy.targets.wheel import requirements, write_wheel


def test_the_same_code_is_the_same_bytes(tmp_path, monkeypatch):
    first = write_wheel(tmp_path).read_bytes()
    monkeypatch.setattr(time, "localtime", lambda *at: time.gmtime(2_000_000_000))
    assert write_wheel(tmp_path).read_bytes() == first
    with zipfile.ZipFile(tmp_path / write_wheel(tmp_path).name) as archive:
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}


def test_every_file_of_the_package_is_in_it(tmp_path):
    package = Path(kdeploy.__file__).parent
    ours = {f"kdeploy/{path.relative_to(package)}": path for path in package.rglob("*") if path.is_file()}
    recipes = {f"kdeploy/recipe/shipped/{path.relative_to(shipped())}" for path in shipped().rglob("*.yaml")}
    expected = {name for name in ours if "__pycache__" not in name} | recipes
    with zipfile.ZipFile(write_wheel(tmp_path)) as archive:
        names = archive.namelist()
        assert len(names) == len(set(names))
        assert expected <= set(names)
        assert archive.read("kdeploy/targets/device/agent.py") == ours["kdeploy/targets/device/agent.py"].read_bytes()


def test_pip_accepts_it(tmp_path):
    wheel = write_wheel(tmp_path)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps", "--no-compile"]
    done = subprocess.run([*pip, "--target", str(tmp_path / "there"), str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "there" / "kdeploy" / "cli" / "main.py").is_file()
    assert len(list((tmp_path / "there").glob("kdeploy-*.dist-info"))) == 1


def test_what_the_device_side_needs():
    needed = " ".join(requirements())
    assert "onnxruntime" in needed
    assert "torch" not in needed
    assert any(line.startswith("openvino") for line in requirements(frozenset({"openvino"})))
    assert any(line.startswith("onnx>") for line in requirements(frozenset({"train"}))), "an extra takes in another"


def test_an_extra_that_there_is_not():
    with pytest.raises(UserError, match="has no extra 'opnvino'"):
        requirements(frozenset({"opnvino"}))
