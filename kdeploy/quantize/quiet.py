"""ONNX Runtime's quantiser, kept off the screen."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep ONNX Runtime's quantiser off the screen: it prints, and it logs to the root logger.

    Its warnings ask for a preparation of the graph that was done here in another way. The handler keeps
    `logging.warning` from installing one of its own.
    """
    root = logging.getLogger()
    handler = logging.NullHandler()

    def refuse(record: logging.LogRecord) -> bool:
        return "quantization" not in record.pathname

    root.addHandler(handler)
    root.addFilter(refuse)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.removeFilter(refuse)
        root.removeHandler(handler)
