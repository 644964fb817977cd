"""The image for boards, built for 64-bit Arm and run under emulation."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.answer import in_a_process
from tests.images.buildah import Store

pytestmark = pytest.mark.images

BUNDLE, PICTURE = "runs/quickstart/quickstart.kdz", "runs/quickstart/digit-7.png"
LIMIT_BYTES = 250_000_000


def test_is_small_enough_for_a_board(
    store: Store, edge: str, record_testsuite_property: Callable[[str, object], None]
) -> None:
    layers = store.layer_bytes(edge)
    record_testsuite_property("compressed_layers_bytes", layers)  # the base's first; pytest --junitxml shows it
    assert sum(layers) < LIMIT_BYTES


def test_is_started_as_somebody_without_rights(store: Store, edge: str, work: Path) -> None:
    config = store.config(edge)
    assert config.entrypoint == ("kdeploy",)
    assert config.labels["org.opencontainers.image.title"] == "kdeploy, device side"
    done = store.run(edge, work, ["sh", "-c", "id -u; uname -m; touch mine; ! touch /opt/kdeploy/not-mine"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1000", "aarch64"]
    assert (work / "mine").exists()


def test_its_python_imports_kdeploy_and_no_torch(store: Store, edge: str, work: Path) -> None:
    script = (
        "import importlib.util, kdeploy.cli.main, numpy, onnxruntime, PIL.Image, sys; "
        "print([name for name in ('torch', 'onnx', 'pip') if importlib.util.find_spec(name)])"
    )
    done = store.run(edge, work, ["python3", "-c", script])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_predicts_as_the_machine_that_trained(store: Store, edge: str, run: Path) -> None:
    here = in_a_process(["predict", BUNDLE, PICTURE, "--json", "-"], run)
    assert here.status == 0, here.err
    done = store.run(edge, run, ["kdeploy", "predict", BUNDLE, PICTURE, "--json", "-"])
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout)
    (expected,), (found,) = here.json["predictions"], there["predictions"]
    assert found["class"] == expected["class"]
    assert found["probability"] == pytest.approx(expected["probability"], abs=1e-5)  # summed in another order


def test_works_on_a_read_only_root(store: Store, edge: str, run: Path) -> None:
    script = "import os; print([bool(os.statvfs(at).f_flag & os.ST_RDONLY) for at in ('/opt', '/tmp')])"
    mounted = store.run_read_only(edge, run, ["-c", script], entrypoint=["python3"])
    assert mounted.stdout.strip() == "[True, False]", mounted.stderr
    done = store.run_read_only(edge, run, ["predict", BUNDLE, PICTURE, "--json", "-"])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["predictions"][0]["class"] == "7"


def test_benches_on_a_read_only_root(store: Store, edge: str, run: Path) -> None:
    words = ["bench", BUNDLE, "--min-time", "0.02", "--min-count", "4", "--json", "-"]
    done = store.run_read_only(edge, run, words)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert row["engine"].startswith("onnxruntime")
    assert row["size_bytes"] > 0
