"""The image for training, built for this processor; it runs what docker/compose.yaml says."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.cli.answer import short
from tests.images.buildah import PROJECT, Store

pytestmark = pytest.mark.images


def words(service: str) -> list[str]:
    """The command of one of compose.yaml's services, with the variables at their defaults."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (PROJECT / "docker/compose.yaml").read_text(encoding="utf-8"))
    found = yaml.safe_load(text)["services"][service]["command"]
    assert isinstance(found, list)
    return found


def test_distils_and_benches_on_a_read_only_root(
    store: Store, train: str, work: Path, record_testsuite_property: Callable[[str, object], None]
) -> None:
    distilled = store.run_read_only(train, work, [*words("distil"), *short()])
    assert distilled.returncode == 0, distilled.stderr
    benched = store.run_read_only(
        train, work, [*words("bench"), "--min-time", "0.02", "--min-count", "4", "--no-compare", "--json", "-"]
    )
    assert benched.returncode == 0, benched.stderr
    rows = json.loads(benched.stdout)["rows"]
    assert any(row["engine"] == "onnxruntime" and row["samples"] == 359 for row in rows)
    (bundle,) = (work / "runs/distilled").glob("*.kdz")
    done = store.run(train, work, ["kdeploy", "predict", f"runs/distilled/{bundle.name}", "runs/distilled/digit-7.png"])
    assert done.returncode == 0, done.stderr
    record_testsuite_property("compressed_layers_bytes", store.layer_bytes(train))  # the base's first
