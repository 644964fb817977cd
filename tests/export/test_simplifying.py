"""An outside simplifier that crashes, hangs, or changes what the graph computes changes nothing of ours."""

from __future__ import annotations

import onnx
import pytest
from onnx import helper

from kdeploy import events
from kdeploy.export import simplifying
from kdeploy.recipe.schema import ExportSpec, NormalizeSpec
from kdeploy.stages.adopt import adopt_file
from kdeploy.stages.model import Asked
from kdeploy.stages.simplify import simplify_file
from tests.export.theirs import network

HALF = NormalizeSpec(mean=(0.5,) * 3, std=(0.25,) * 3)
COPY = "import shutil, sys; shutil.copyfile(*sys.argv[1:])"


def tool(monkeypatch, folder, source):
    """Let the simplifier be this program."""
    (folder / "slimmer.py").write_text(source)
    monkeypatch.setattr(simplifying, "TOOL", "slimmer")
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")


@pytest.fixture
def run(tmp_path):
    """A file with a node that does nothing, taken in."""
    model = network()
    model.graph.node[2].input[0] = "same"
    model.graph.node.insert(2, helper.make_node("Identity", ["r"], ["same"], name="idle"))
    path = tmp_path / "theirs.onnx"
    path.write_bytes(model.SerializeToString())
    asked = Asked(tmp_path / "out", export=ExportSpec())
    return adopt_file(path, asked, given_shape=False, normalize=HALF, as_they_are=False, opset=None)


def without_identity(weight: float = 1.0) -> str:
    return f"""
import sys, onnx
from onnx import numpy_helper
model = onnx.load(sys.argv[1])
(idle,) = [node for node in model.graph.node if node.name.endswith("idle")]
for node in model.graph.node:
    for at, name in enumerate(node.input):
        if name == idle.output[0]:
            node.input[at] = idle.input[0]
model.graph.node.remove(idle)
first = model.graph.initializer[0]
changed = (numpy_helper.to_array(first) * {weight}).astype("float32")
first.CopyFrom(numpy_helper.from_array(changed, first.name))
del model.metadata_props[:]
onnx.save(model, sys.argv[2])
"""


def test_a_smaller_graph_that_computes_the_same_is_kept_with_its_metadata(run, tmp_path, monkeypatch):
    tool(monkeypatch, tmp_path, without_identity())
    before = onnx.load(run.written[0])
    assert simplify_file(run, run.recipe.name)
    after = onnx.load(run.written[0])
    assert len(after.graph.node) == len(before.graph.node) - 1
    assert list(after.metadata_props) == list(before.metadata_props)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (without_identity(1.01), "fails parity: the largest difference is"),
        ("import os; os.abort()", "ended with status -6"),
        ("raise SystemExit('no such operator')", "ended with status 1: no such operator"),
        ("import sys; open(sys.argv[2], 'w').write('nonsense')", "gave cannot be read"),
        (
            "import sys, onnx; m = onnx.load(sys.argv[1]); d = m.graph.input[0].type.tensor_type.shape.dim[0]; "
            "d.dim_value = 1; onnx.save(m, sys.argv[2])",
            "changed the graph's input, output or opset",
        ),
    ],
    ids=["wrong", "abort", "refusal", "nonsense", "frozen-batch"],
)
def test_what_is_wrong_leaves_the_file_as_it_was(source, why, run, tmp_path, monkeypatch):
    tool(monkeypatch, tmp_path, source)
    before = run.written[0].read_bytes()
    said = []
    monkeypatch.setattr(events, "warn", said.append)
    assert not simplify_file(run, run.recipe.name)
    assert why in said[0], said
    assert run.written[0].read_bytes() == before


def test_one_that_gains_nothing_is_left_out(run, tmp_path, monkeypatch):
    tool(monkeypatch, tmp_path, COPY)
    before = run.written[0].read_bytes()
    assert not simplify_file(run, run.recipe.name)
    assert run.written[0].read_bytes() == before


def test_one_that_hangs_is_ended(run, tmp_path, monkeypatch):
    tool(monkeypatch, tmp_path, "import time; time.sleep(60)")
    why = simplifying.simplify(run.written[0], tmp_path / "never.onnx", seconds=1)
    assert why == "slimmer took more than 1 s"
