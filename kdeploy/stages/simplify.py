"""An outside simplifier's form of a float32 file, kept where it is smaller and computes the same."""

from __future__ import annotations

import tempfile
from pathlib import Path

from kdeploy import artifacts, events, parity
from kdeploy.engines.onnxruntime import OnnxRuntime
from kdeploy.stages import export
from kdeploy.stages.base import Run


def require_simplifier() -> None:
    """Raise Unavailable, with the command that installs it, where there is none."""
    from kdeploy.export.simplifying import require_tool

    require_tool()


def simplify_file(run: Run, role: str) -> bool:
    """Simplify `export/<role>.float32.onnx` in place; whether that was kept.

    Kept is what has fewer nodes and is within the tolerance of the file as it was, on the same images. What became of
    it is said.
    """
    from kdeploy.export.logits import write_logits_graph
    from kdeploy.export.simplifying import TOOL, count_nodes, simplify

    target = export.onnx_file(run.folder, role)
    with tempfile.TemporaryDirectory(prefix="kdeploy-") as temporary, events.task(f"simplify {role}"):
        simplified = Path(temporary) / "simplified.onnx"
        why = simplify(target, simplified)
        if why is not None:
            events.warn(f"{target} stays as it was exported: {why}.")
            return False
        before, after = count_nodes(target), count_nodes(simplified)
        if after >= before:
            events.decided("simplified", "no", f"{TOOL} leaves {after} of {before} nodes")
            return False
        pair = [target, simplified]
        if run.recipe.export.preprocess == "in-graph":
            pair = [Path(temporary) / f"{name}.logits.onnx" for name in ("before", "after")]
            for source, logits in zip((target, simplified), pair, strict=True):
                write_logits_graph(source, logits)
        compared = _compare(pair[0], pair[1], run, role)
        if not compared.passed:
            events.warn(f"{target} stays as it was exported: what {TOOL} gave fails parity: {compared.reasons[0]}.")
            return False
        artifacts.write_bytes(target, simplified.read_bytes())
    events.decided("simplified", f"from {before} to {after} nodes", f"{TOOL}, and parity holds")
    return True


def _compare(before: Path, after: Path, run: Run, role: str) -> parity.Parity:
    images = export.model_inputs(export.parity_images(run), export.graph_preprocessing(run, role))
    with (
        OnnxRuntime().open_file(before, threads=1) as reference,
        OnnxRuntime().open_file(after, threads=1) as candidate,
    ):
        return parity.compare(reference.run, candidate.run, images, batches=export.batches_of(images))
