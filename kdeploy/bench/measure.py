"""Measure one artefact on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from kdeploy import artifacts, events, machine
from kdeploy.bench.emulation import require_real
from kdeploy.bench.energy import Sampler, Window, find_meters
from kdeploy.bench.job import Job, Outcome, ScenariosAsked
from kdeploy.bench.process import run_fresh, run_job
from kdeploy.bench.results import Latency, Measurement
from kdeploy.bench.verdict import judge
from kdeploy.bundle import open_bundle
from kdeploy.engines import read_manifest
from kdeploy.engines._onnx_file import weight_files
from kdeploy.engines.base import Manifest
from kdeploy.machine import host
from kdeploy.recipe.schema import BenchSpec
from kdeploy.sources.base import ImageSet

_REST_S = 10.0
"""How long the machine is measured at rest, where it has meters of energy; no longer than a batch size."""
NOT_STATED = "not stated"
"""The precision of a file from outside: without the onnx package nobody looks into its graph."""


def measure(
    artifact: Path,
    *,
    name: str,
    role: str,
    spec: BenchSpec,
    data: ImageSet | None,
    split: str = "test",
    scenarios: ScenariosAsked | None = None,
) -> Measurement:
    """Measure an engine folder, a bundle (`.kdz`) or somebody's ONNX file, in a process of its own.

    Accuracy and the inputs of the timed calls come from `data`; without it, accuracy is None and the inputs are
    seeded noise, as always for an ONNX file, which says nothing of how an image becomes its input. Nothing is left
    behind on disk. On an emulated processor it is run and its accuracy measured, and no time, memory or energy is.
    Raises UserError where the artefact is damaged or does not fit the data or the spec, Unavailable where its runtime
    is not installed, or scenarios are asked of an emulated processor.
    """
    if scenarios is not None:
        require_real("MLPerf's scenarios")
    emulated = host.emulated()
    with located(artifact) as path, tempfile.TemporaryDirectory(prefix="kdeploy-bench-") as temporary:
        manifest = read_manifest(path) if path.is_dir() else None
        if manifest is None and data is not None:
            events.warn(f"{artifact}: accuracy is not measured; a bare ONNX file does not say what its input means.")
            data = None
        folder = Path(temporary)
        if scenarios is not None and scenarios.loadgen is not None:
            scenarios = scenarios.model_copy(update={"loadgen": str(Path(scenarios.loadgen) / name)})
        job = Job(
            artifact=str(path.resolve()),
            bench=spec,
            data=None if data is None else _store(folder / "data.npz", data),
            split=split,
            scenarios=scenarios,
            emulated=emulated is not None,
            outcome=str(folder / "outcome.json"),
        )
        if emulated is not None:
            outcome, clocked = run_job(job, folder, name), {"emulated": emulated}
        else:
            outcome, clocked = _clocked(job, folder, name, path, spec)
        found = _assemble(path, manifest, outcome, name, role, spec).model_copy(update=clocked)
    return found.model_copy(update={"verdict": judge(found)})


def _clocked(job: Job, folder: Path, name: str, path: Path, spec: BenchSpec) -> tuple[Outcome, dict[str, Any]]:
    """What the child measured; and, as fields of the measurement, what meters and fresh processes add to it."""
    with Sampler(find_meters()) as sampler:
        rest = sampler.rest(min(_REST_S, spec.min_time_s))
        outcome = run_job(job, folder, name)
    timed = tuple(_with_energy(one, sampler, rest) for one in outcome.latency)
    cold_start_ms, memory = run_fresh(path.resolve(), folder, spec.threads, name)
    return outcome, {"latency": timed, "cold_start_ms": cold_start_ms, "memory": memory}


def _with_energy(latency: Latency, sampler: Sampler, rest: Window) -> Latency:
    """The child's monotonic clock is the parent's: CLOCK_MONOTONIC is the machine's."""
    assert latency.watched is not None
    begin_s, end_s = latency.watched.before.at_s, latency.watched.after.at_s
    energy = sampler.energy(Window(int(begin_s * 1e9), int(end_s * 1e9)), rest, latency.batch * latency.count)
    return latency.model_copy(update={"energy": energy})


def _assemble(
    path: Path, manifest: Manifest | None, outcome: Outcome, name: str, role: str, spec: BenchSpec
) -> Measurement:
    """Without what the meters, fresh processes and the verdict add."""
    files = _files(path) if manifest is None else [path / file for file in manifest.files]
    return Measurement(
        name=name,
        role=role,
        engine="onnxruntime" if manifest is None else manifest.engine,
        precision=NOT_STATED if manifest is None else manifest.precision,
        variant="" if manifest is None else manifest.variant,
        artifact=artifacts.sha256_file(path) if manifest is None else manifest.files[manifest.model],
        size_bytes=sum(map(artifacts.size_bytes, files)),
        compressed_bytes=sum(map(artifacts.compressed_bytes, files)),
        parameters=None if manifest is None else manifest.parameters,
        macs=None if manifest is None else manifest.macs,
        load_ms=outcome.load_ms,
        first_inference_ms=outcome.first_inference_ms,
        threads=spec.threads,
        latency=outcome.latency,
        spans=outcome.spans,
        accuracy=outcome.accuracy,
        scenarios=outcome.scenarios,
        scenarios_watched=outcome.scenarios_watched,
        loadgen=outcome.loadgen,
        session=outcome.session,
        machine=machine.fingerprint(),
        measured_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _files(path: Path) -> list[Path]:
    """A bare file, and the weights that lie beside it."""
    beside = weight_files(path) if path.suffix == ".onnx" else []
    return [path, *(file for file in beside if file.is_file())]


@contextmanager
def located(artifact: Path) -> Iterator[Path]:
    """The engine folder or the ONNX file; a bundle is unpacked for the length of the block."""
    if artifact.suffix == ".kdz":
        with open_bundle(artifact) as folder:
            yield folder
    else:
        yield artifact


def _store(path: Path, data: ImageSet) -> str:
    np.savez(path, images=data.images[:], labels=data.labels)
    return str(path)
