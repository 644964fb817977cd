"""Measure one artefact on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from kdeploy import artifacts, events, machine
from kdeploy.bench.job import Job, Outcome
from kdeploy.bench.process import run_job
from kdeploy.bench.results import Measurement
from kdeploy.bundle import open_bundle
from kdeploy.engines import read_manifest
from kdeploy.engines.base import Manifest
from kdeploy.recipe.schema import BenchSpec
from kdeploy.sources.base import ImageSet

NOT_STATED = "not stated"
"""The precision of a file from outside: without the onnx package nobody looks into its graph."""


def measure(
    artifact: Path, *, name: str, role: str, spec: BenchSpec, data: ImageSet | None, split: str = "test"
) -> Measurement:
    """Measure an engine folder, a bundle (`.kdz`) or somebody's ONNX file, in a process of its own.

    Accuracy and the inputs of the timed calls come from `data`; without it, accuracy is None and the inputs are
    seeded noise, as always for an ONNX file, which says nothing of how an image becomes its input. Nothing is left
    behind on disk. Raises UserError where the artefact is damaged or does not fit the data or the spec, Unavailable
    where its runtime is not installed.
    """
    with _located(artifact) as path, tempfile.TemporaryDirectory(prefix="kdeploy-bench-") as temporary:
        manifest = read_manifest(path) if path.is_dir() else None
        if manifest is None and data is not None:
            events.warn(f"{artifact}: accuracy is not measured; a bare ONNX file does not say what its input means.")
            data = None
        folder = Path(temporary)
        job = Job(
            artifact=str(path.resolve()),
            bench=spec,
            data=None if data is None else _store(folder / "data.npz", data),
            split=split,
            outcome=str(folder / "outcome.json"),
        )
        outcome = run_job(job, folder, name)
        pinned = outcome.session["pinned"]
        if pinned["cores"] is None:
            events.warn(f"{name} was not pinned to cores: {pinned['reason']}.")
        return _assemble(path, manifest, outcome, name, role, spec)


def _assemble(
    path: Path, manifest: Manifest | None, outcome: Outcome, name: str, role: str, spec: BenchSpec
) -> Measurement:
    files = [path] if manifest is None else [path / file for file in manifest.files]
    return Measurement(
        name=name,
        role=role,
        engine="onnxruntime" if manifest is None else manifest.engine,
        precision=NOT_STATED if manifest is None else manifest.precision,
        variant="" if manifest is None else manifest.variant,
        artifact=artifacts.sha256_file(path) if manifest is None else manifest.files[manifest.model],
        size_bytes=sum(artifacts.size_bytes(file) for file in files),
        parameters=None if manifest is None else manifest.parameters,
        macs=None if manifest is None else manifest.macs,
        load_ms=outcome.load_ms,
        first_inference_ms=outcome.first_inference_ms,
        threads=spec.threads,
        latency=outcome.latency,
        accuracy=outcome.accuracy,
        session=outcome.session,
        machine=machine.fingerprint(),
        measured_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


@contextmanager
def _located(artifact: Path) -> Iterator[Path]:
    """The engine folder or the ONNX file; a bundle is unpacked for the length of the block."""
    if artifact.suffix == ".kdz":
        with open_bundle(artifact) as folder:
            yield folder
    else:
        yield artifact


def _store(path: Path, data: ImageSet) -> str:
    np.savez(path, images=data.images[:], labels=data.labels)
    return str(path)
