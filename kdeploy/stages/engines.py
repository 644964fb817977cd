"""ONNX files (and, for the baseline, networks) to engine folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdeploy import artifacts, engines, events
from kdeploy.engines.base import Manifest
from kdeploy.recipe.schema import EngineSpec
from kdeploy.stages import export, precisions
from kdeploy.stages.base import Run
from kdeploy.stages.precisions import INTEGER

PYTORCH = "pytorch"
BASELINE = EngineSpec(engine=PYTORCH)
"""The network as it was trained, run as most people would run it."""


@dataclass(frozen=True)
class BuildEngine:
    """Builds `engines/<row>/` for one network in one runtime and precision."""

    role: str
    asked: EngineSpec

    @property
    def row(self) -> str:
        """The row of the tables: teacher-pytorch, student-onnxruntime-int8, student-onnxruntime-float32-ort, ..."""
        return f"{self.role}-{self.asked.name}"

    @property
    def name(self) -> str:
        return f"engines/{self.row}"

    def inputs(self, run: Run) -> Mapping[str, Any]:
        found = engines.find(self.asked.engine).available()
        card = artifacts.sha256_file(self._card(run))
        options = self.asked.options
        asked = {"options": options} if options else {}  # a run from before there were any goes on
        return {"engine": self.asked.engine, "version": found.version, "source": self._hash(run), "card": card, **asked}

    def run(self, run: Run) -> Sequence[Path]:
        engine = engines.find(self.asked.engine)
        engines.require(engine)
        folder = run.folder / "engines" / self.row
        with events.task(f"build {self.row}"):
            engine.build(self.source(run), folder, self.manifest(run))
        return [path for path in folder.rglob("*") if path.is_file()]

    def source(self, run: Run) -> Path:
        """What it is built from."""
        if self.asked.engine == PYTORCH:
            return run.folder / "networks" / self.role
        return export.onnx_file(run.folder, self.role, precisions.label(self.asked, run.recipe.engines))

    def _hash(self, run: Run) -> str:
        source = self.source(run)
        return artifacts.sha256_file(source / f"{self.role}.safetensors" if source.is_dir() else source)

    def _card(self, run: Run) -> Path:
        return run.folder / "networks" / self.role / f"{self.role}.json"

    def manifest(self, run: Run) -> Manifest:
        """What is known before the build."""
        card = artifacts.read_json(self._card(run))
        is_torch = self.asked.engine == PYTORCH
        in_graph = is_torch or run.recipe.export.preprocess == "in-graph"
        scheme, opset = None, None if is_torch else run.recipe.export.opset
        if self.asked.precision in INTEGER:
            quantised = artifacts.read_json(self.source(run).with_suffix(".json"))
            scheme, opset = quantised["scheme"], quantised["opset"]
        return Manifest(
            engine=self.asked.engine,
            precision=self.asked.precision,
            model="",
            files={},
            size_bytes=0,
            input_name="images",
            input_dtype="uint8" if in_graph else "float32",
            output="probabilities" if in_graph else "logits",
            preprocessing=export.preprocessing_of(card, in_graph=in_graph),
            classes=tuple(card["classes"]),
            parameters=card["parameters"],
            macs=card["macs"],
            source=self._hash(run),
            opset=opset,
            scheme=scheme,
            options=self.asked.options,
            variant=self.asked.variant,
        )
