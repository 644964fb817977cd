"""`python -m kdeploy.bench.profiling_child JOB.json`: profiles one artefact by layer, alone in its process."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

from kdeploy import artifacts, engines
from kdeploy.bench import pinning
from kdeploy.bench.inputs import inputs_for, layout_of_file, layout_of_manifest
from kdeploy.bench.layers import LayerProfile
from kdeploy.bench.measure import NOT_STATED
from kdeploy.bench.profiling import ProfilingJob, summarise
from kdeploy.bench.telling import Send, told
from kdeploy.engines.onnxruntime import OnnxRuntime
from kdeploy.errors import UserError


def main(job_path: Path) -> None:
    """Do the job and write its outcome."""
    job = ProfilingJob.model_validate(artifacts.read_json(job_path))
    told(Path(job.outcome), job.artifact, lambda send: profile(job, send))


def profile(job: ProfilingJob, send: Send) -> LayerProfile:
    """Run the artefact on seeded noise with its runtime's profiler on."""
    pinning.check_threads(job.threads)
    pinning.pin(job.threads)
    path = Path(job.artifact)
    found = _folder(job, path) if path.is_dir() else _file(job, path)
    send({"done": 1.0})
    return found


def _folder(job: ProfilingJob, folder: Path) -> LayerProfile:
    manifest = engines.read_manifest(folder)
    engine = engines.find(manifest.engine)
    engines.require(engine)
    batch = job.batch or 1
    inputs = inputs_for(layout_of_manifest(manifest), batch, None)
    return summarise(
        engine.profile(folder, manifest, job.threads, inputs, job.calls),
        job,
        engine=manifest.engine,
        precision=manifest.precision,
        variant=manifest.variant,
        batch=batch,
        exported=True,
    )


def _file(job: ProfilingJob, path: Path) -> LayerProfile:
    runtime = OnnxRuntime()
    engines.require(runtime)
    with closing(runtime.open_file(path, job.threads)) as session:
        layout = layout_of_file(session, path)
    batch = job.batch or layout.batch or 1
    if layout.batch not in (None, batch):
        raise UserError(f"{path} takes batches of {layout.batch} only and can't be profiled at batch {batch}.")
    return summarise(
        runtime.profile_file(path, job.threads, inputs_for(layout, batch, None), job.calls),
        job,
        engine=runtime.name,
        precision=NOT_STATED,
        variant="",
        batch=batch,
        exported=False,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
