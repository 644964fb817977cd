"""Where the time of an open ONNX file goes, by ONNX Runtime's own profiler."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from kdeploy.engines._onnxruntime_session import OnnxSession
from kdeploy.engines._onnxruntime_trace import RESOLUTION_US, layer_times, load, names_in
from kdeploy.engines._profiling import WARM_UP, alternately
from kdeploy.engines.base import Profile


def profile(session: OnnxSession, inputs: Sequence[NDArray[Any]], calls: int) -> Profile:
    """Run the open session in turn with a second one of the same file, which writes down what it runs."""
    import onnxruntime

    opening = session.opening
    with tempfile.TemporaryDirectory(prefix="kdeploy-") as folder:
        with closing(OnnxSession(opening.start(profile=Path(folder)), opening)) as watched:
            plain, profiled = alternately(session.run, watched.run, inputs, calls)
            trace = watched.end_profiling()
        layers = layer_times(load(trace), WARM_UP, names_in(opening.path))
    return Profile(
        profiler=f"ONNX Runtime {onnxruntime.__version__}",
        calls=calls,
        layers=layers,
        profiled_us=profiled,
        plain_us=plain,
        resolution_us=RESOLUTION_US,
        notes=_notes(opening.options.provider, opening.options.inter_op_threads),
    )


def _notes(provider: str, branches: int) -> tuple[str, ...]:
    notes = []
    if provider == "cuda":
        notes.append("On CUDA, ONNX Runtime times how long the host takes to launch a layer, not the layer itself.")
    if branches > 1:
        notes.append("Branches run side by side, so the layers may add up to more than the call.")
    return tuple(notes)
