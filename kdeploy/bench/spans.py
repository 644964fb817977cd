"""Where one call's time goes, from an image in memory to a class: preprocessing, copies, inference, postprocessing."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from kdeploy.bench.inputs import Layout
from kdeploy.bench.record import Record
from kdeploy.engines.base import Session
from kdeploy.runtime.predict import softmax

_LONGEST_S = 1.0
_LEAST_CALLS = 16


class Spans(Record):
    """Medians over calls at batch 1 (or the one batch that a file takes), in milliseconds.

    They are of a pass of its own after the latency's, with the clock read between the parts.
    """

    count: int
    preprocess_ms: float | None
    """From raw images to the engine's input; next to nothing where it is in the graph. None: a file from outside, which
    does not say how an image becomes its input."""
    copies_ms: float | None
    """Into the engine's buffers and out of them; None: the engine does not tell them from the inference."""
    inference_ms: float
    postprocess_ms: float
    """From the outputs to the most probable class, softmax included where it is not in the graph."""
    whole_ms: float
    """The median of the whole, not the sum of medians."""


def spans(session: Session, layout: Layout, images: NDArray[np.uint8] | None, min_time_s: float) -> Spans:
    """Measure them for a second, or `min_time_s` where that is shorter, and at least 16 calls.

    images: uint8 `[N, H, W, C]`; None: seeded noise. The session is warm.
    """
    batch, given = layout.batch or 1, _images(layout, images)
    until = time.perf_counter_ns() + int(min(_LONGEST_S, min_time_s) * 1e9)
    taken: list[tuple[int, ...]] = []
    ready = layout.random(batch, np.random.default_rng(0)) if given is None else None
    while len(taken) < _LEAST_CALLS or time.perf_counter_ns() < until:
        start = time.perf_counter_ns()
        if given is not None:
            at = len(taken) % (len(given) - batch + 1)
            ready = layout.prepare(given[at : at + batch])
        prepared = time.perf_counter_ns()
        assert ready is not None
        found = session.run_in_parts(ready)
        ran = time.perf_counter_ns()
        probabilities = found.outputs if layout.gives_probabilities else softmax(found.outputs)
        if probabilities.size:  # a detector may have found nothing
            probabilities.argmax(axis=-1)
        end = time.perf_counter_ns()
        taken.append((prepared - start, found.copies_ns or 0, found.inference_ns, end - ran, end - start))
        told = found.copies_ns is not None
    preprocess, copies, inference, postprocess, whole = (float(value) / 1e6 for value in np.median(taken, axis=0))
    return Spans(
        count=len(taken),
        preprocess_ms=None if given is None else preprocess,
        copies_ms=copies if told else None,
        inference_ms=inference,
        postprocess_ms=postprocess,
        whole_ms=whole,
    )


def _images(layout: Layout, images: NDArray[np.uint8] | None) -> NDArray[np.uint8] | None:
    """Raw images, of noise where there are none; None where nothing says how they become the input."""
    wanted = layout.preprocessing
    if wanted is None:
        return None
    batch = layout.batch or 1
    if images is not None and len(images) >= batch:
        return images
    shape = (max(16, batch), wanted.height, wanted.width, wanted.channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
