"""Profile one artefact by layer, in a process of its own: a profiler slows what it watches."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime, timezone
from pathlib import Path
from statistics import median_grouped

import numpy as np

from kdeploy import events, machine
from kdeploy.bench.artifacts import Artifact
from kdeploy.bench.emulation import require_real
from kdeploy.bench.layers import Layer, LayerProfile, Timing
from kdeploy.bench.process import run_child
from kdeploy.bench.results import Record
from kdeploy.bench.statistics import percentile_estimate
from kdeploy.bundle import open_bundle
from kdeploy.engines.base import LayerTimes, Profile
from kdeploy.errors import KdeployError, UserError

CALLS = 80
"""Inferences with the profiler on."""
_EXPORTED = re.compile(r"(?P<module>[^/]+)/[A-Z][A-Za-z0-9]*(_\d+)?")
"""How kdeploy's export names nodes: the module's path and the operator, numbered where it repeats."""


class ProfilingJob(Record):
    """Profile `artifact`, an engine folder or an ONNX file, and write the LayerProfile or the Failure to `outcome`."""

    name: str
    artifact: str
    threads: int
    batch: int | None
    calls: int
    outcome: str


def profile(
    artifact: Path, *, name: str, threads: int = 1, batch: int | None = None, calls: int = CALLS
) -> LayerProfile:
    """Where the time of an engine folder, a bundle (`.kdz`) or somebody's ONNX file goes, layer by layer.

    batch: None: 1, or the one batch that the file takes. The inputs are seeded noise. Nothing is left behind on disk.
    Raises UserError where the artefact is damaged, does not take this batch or threads, or its engine tells no times
    by layer, and Unavailable where its runtime is not installed or the processor is emulated.
    """
    require_real("Times by layer")
    located = open_bundle(artifact) if artifact.suffix == ".kdz" else nullcontext(artifact)
    with located as path, tempfile.TemporaryDirectory(prefix="kdeploy-bench-") as temporary:
        folder = Path(temporary)
        job = ProfilingJob(
            name=name,
            artifact=str(path.resolve()),
            threads=threads,
            batch=batch,
            calls=calls,
            outcome=str(folder / "outcome.json"),
        )
        content = run_child(
            "kdeploy.bench.profiling_child",
            job,
            Path(job.outcome),
            folder,
            threads=threads,
            name=f"the layers of {name}",
        )
    return LayerProfile.model_validate(content)


def profile_all(found: Sequence[Artifact], *, threads: int = 1, calls: int = CALLS) -> tuple[LayerProfile, ...]:
    """The profiles of several artefacts, one process after the other.

    What can't be profiled, as PyTorch's baseline beside a run's engines, is left out with a warning that says why.
    Raises the first one's error where none can.
    """
    profiles, failures = [], []
    for one in found:
        try:
            profiles.append(profile(one.path, name=one.name, threads=threads, calls=calls))
        except KdeployError as error:
            failures.append(error)
    if failures and not profiles:
        raise failures[0]
    for failure in failures:
        events.warn(str(failure))
    return tuple(profiles)


def summarise(
    found: Profile, job: ProfilingJob, *, engine: str, precision: str, variant: str, batch: int, exported: bool
) -> LayerProfile:
    """Medians, intervals and shares of what a profiler told.

    exported: the graph is of kdeploy's own export, so that names of nodes tell modules. Raises UserError where no layer
    took any time.
    """
    timings = [timing(layer.times_us, found.resolution_us) for layer in found.layers]
    total = sum(one.median_us for one in timings)
    if not total > 0:
        raise UserError(f"{job.artifact} can't be profiled: {found.profiler} told no layer's time.")
    profiled = timing(found.profiled_us) if found.profiled_us else None
    return LayerProfile(
        name=job.name,
        engine=engine,
        precision=precision,
        variant=variant,
        profiler=found.profiler,
        batch=batch,
        threads=job.threads,
        calls=found.calls,
        grouped=found.grouped,
        layers=tuple(
            _layer(layer, one, found.calls, total, exported=exported)
            for layer, one in zip(found.layers, timings, strict=True)
        ),
        sum_us=total,
        unaccounted_us=None if profiled is None else profiled.median_us - total,
        profiled=profiled,
        plain=timing(found.plain_us),
        notes=found.notes,
        machine=machine.fingerprint(),
        measured_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def timing(times_us: Sequence[float], resolution_us: float = 0.0) -> Timing:
    """The median of times that were cut off to multiples of `resolution_us` (0: they were not), and its interval.

    Where they were, a time of 3 lies between 3 and 4: the median is interpolated inside of its step, and the interval
    reaches to the end of its last one.
    """
    ascending = np.sort(np.asarray(times_us, dtype=np.float64))
    if resolution_us:
        median = float(median_grouped((ascending + resolution_us / 2).tolist(), interval=resolution_us))
    else:
        median = float(np.median(ascending))
    around = percentile_estimate(ascending, 0.5)
    if around is None:
        return Timing(median_us=median, low_us=None, high_us=None)
    return Timing(median_us=median, low_us=around.low_ms, high_us=around.high_ms + resolution_us)


def module_of(node: str) -> str:
    """The torch module of a node that kdeploy's export named: `layer1.0.conv1` of `layer1.0.conv1/Conv`, else ""."""
    found = _EXPORTED.fullmatch(node)
    return found["module"] if found else ""


def _layer(layer: LayerTimes, found: Timing, calls: int, total_us: float, *, exported: bool) -> Layer:
    return Layer(
        name=layer.name,
        operator=layer.operator,
        module=module_of(layer.name) if exported else "",
        fused=layer.fused,
        precision=layer.precision,
        provider=layer.provider,
        count=calls,
        share=found.median_us / total_us,
        **found.model_dump(),
    )
