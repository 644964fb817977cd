"""Opening what is measured: an engine folder, or somebody's ONNX file in ONNX Runtime."""

from __future__ import annotations

import time
from pathlib import Path

from kdeploy import engines
from kdeploy.bench.inputs import Layout, layout_of_file, layout_of_manifest
from kdeploy.engines.base import Engine, Session
from kdeploy.engines.onnxruntime import OnnxRuntime


def require_runtime(path: Path) -> Engine:
    """The artefact's engine, its runtime imported. Raises Unavailable where it is not installed."""
    engine = engines.find(engines.read_manifest(path).engine) if path.is_dir() else OnnxRuntime()
    engines.require(engine)
    return engine


def open_artifact(path: Path, threads: int) -> tuple[Session, Layout, tuple[str, ...], float]:
    """The open session, its input, its classes, and the milliseconds of opening alone.

    The runtime is imported and the files are verified (and so read once) before the clock starts. Raises UserError
    where the artefact is damaged, Unavailable where its runtime is not installed.
    """
    engine = require_runtime(path)
    if isinstance(engine, OnnxRuntime) and path.is_file():
        start = time.perf_counter_ns()
        file_session = engine.open_file(path, threads)
        load_ms = (time.perf_counter_ns() - start) / 1e6
        return file_session, layout_of_file(file_session, path), (), load_ms
    manifest = engines.read_manifest(path)
    start = time.perf_counter_ns()
    session = engine.open(path, manifest, threads)
    load_ms = (time.perf_counter_ns() - start) / 1e6
    return session, layout_of_manifest(manifest), manifest.classes, load_ms
