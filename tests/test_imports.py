"""The device side works where nothing but the device side is installed."""

import json
from pathlib import Path

import pytest

import kdeploy
from tests.without import run_without

TRAINING_ONLY = {"lightning_fabric", "onnxscript", "safetensors", "sklearn", "torch", "torchvision"}
NOT_ON_A_DEVICE = TRAINING_ONLY | {"onnx"}

# Rooms marked (torch) in the architecture; every other module of the package is on the device side.
TORCH_ROOMS = {"compress", "export", "loading", "methods", "models", "training"}
# The catalogues of these rooms are read to check a recipe, so the packages themselves must import without torch.
CATALOGUES = ["kdeploy.methods", "kdeploy.models"]

VERBS = ["bench", "bundle", "cache", "distill", "doctor", "export", "methods", "models", "predict", "procedures"]
VERBS += ["recipes", "report", "run", "runs", "sensitivity", "target"]

IMPORT_EACH = """
import importlib, json, sys, traceback
failed = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception:
        failed[name] = traceback.format_exc(limit=-2)
print(json.dumps({"failed": failed, "loaded": sorted(sys.modules)}))
"""

RUN_VERB = """
import json, sys
from kdeploy.cli.main import main
try:
    status = main()
except SystemExit as stop:
    status = stop.code
print(json.dumps({"status": status or 0, "loaded": sorted(sys.modules)}), file=sys.stderr)
"""

LIST_VERBS = """
import json
from typer.main import get_command
from kdeploy.cli.main import app
print(json.dumps(sorted(get_command(app).commands)))
"""


def modules() -> list[str]:
    """Every module of the package, from its files: nothing is imported for it."""
    package = Path(kdeploy.__file__).parent
    files = (file.relative_to(package.parent) for file in package.rglob("*.py") if file.stem != "__main__")
    parts = (file.parent.parts if file.stem == "__init__" else file.with_suffix("").parts for file in files)
    return sorted(".".join(part) for part in parts if part != ("kdeploy",))


def room(module: str) -> str:
    return module.split(".")[1]


def import_each(names: list[str], absent: set[str], folder: Path) -> dict:
    done = run_without(absent, ["-c", IMPORT_EACH, *names], folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_device_side_imports_without_torch_and_onnx(tmp_path):
    names = [name for name in modules() if room(name) not in TORCH_ROOMS | {"quantize"}]
    assert {"kdeploy.cli", "kdeploy.engines.onnxruntime", "kdeploy.machine.doctor", "kdeploy.runtime"} <= set(names)
    outcome = import_each([*names, *CATALOGUES], NOT_ON_A_DEVICE, tmp_path)
    assert outcome["failed"] == {}
    assert "onnxruntime" not in outcome["loaded"], "ONNX Runtime is imported inside functions only"


def test_quantize_imports_without_torch(tmp_path):
    names = [name for name in modules() if room(name) == "quantize"]
    assert import_each(names, TRAINING_ONLY, tmp_path)["failed"] == {}


def test_somebody_elses_onnx_file_is_taken_in_without_torch(tmp_path):
    torch_side = {"bisecting", "failures", "to_onnx", "wrappers"}
    names = [name for name in modules() if room(name) == "export" and name.rpartition(".")[2] not in torch_side]
    assert {"kdeploy.export.foreign", "kdeploy.export.opening", "kdeploy.export.resizing"} <= set(names)
    assert import_each(names, TRAINING_ONLY, tmp_path)["failed"] == {}


def test_the_absent_packages_are_really_absent(tmp_path):
    outcome = import_each(["torch", "onnx", "numpy"], NOT_ON_A_DEVICE, tmp_path)
    assert set(outcome["failed"]) == {"torch", "onnx"}
    assert "ModuleNotFoundError" in outcome["failed"]["torch"]


def test_the_verbs_are_these(tmp_path):
    done = run_without(NOT_ON_A_DEVICE, ["-c", LIST_VERBS], tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == VERBS


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_of_each_verb_without_torch(verb, tmp_path):
    done = run_without(NOT_ON_A_DEVICE, ["-c", RUN_VERB, *filter(None, [verb]), "--help"], tmp_path)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stderr.splitlines()[-1])
    assert outcome["status"] == 0
    assert "Usage" in done.stdout
    assert f"kdeploy {verb}".strip() in done.stdout


def test_help_loads_nothing_heavy(tmp_path):
    """Here everything is installed, and still left alone."""
    done = run_without(set(), ["-c", RUN_VERB, "--help"], tmp_path)
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stderr.splitlines()[-1])["loaded"])
    assert loaded.isdisjoint(NOT_ON_A_DEVICE | {"onnxruntime", "numpy", "PIL", "jinja2"})


def test_doctor_examines_a_machine_without_torch(tmp_path):
    script = "from kdeploy.machine.doctor import examine; print(examine().model_dump_json())"
    done = run_without(NOT_ON_A_DEVICE, ["-c", script], tmp_path)
    assert done.returncode == 0, done.stderr
    found = {finding["what"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert "Not installed" in found["torch"]["detail"]
    assert found["engine onnxruntime"]["level"] == "ok"
    assert found["engine pytorch"]["level"] == "note"
    assert "torch" in found["kdeploy[train]"]["detail"]
    assert found["kdeploy[onnx]"]["detail"] == "missing: onnx"


@pytest.mark.parametrize(
    ("verb", "status"),
    [(["recipes"], 0), (["models"], 0), (["runs"], 0), (["doctor"], 0), (["run", "quickstart"], 5)],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_a_device_answers(verb, status, tmp_path):
    """Lists work without torch; training says what to install, and that is no bug of ours."""
    done = run_without(NOT_ON_A_DEVICE, ["-c", RUN_VERB, *verb], tmp_path)
    assert json.loads(done.stderr.splitlines()[-1])["status"] == status, done.stderr
    if status:
        assert "pip install 'kdeploy[train]'" in done.stderr
        assert "Traceback" not in done.stderr
