"""`python -m kdeploy.export.opening_worker LIMITS`: opens each ONNX file named on standard input in a forked child.

A line in, a path as JSON; a line out: why it is refused, or null.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from kdeploy.engines.onnxruntime import OnnxRuntime
from kdeploy.errors import KdeployError
from kdeploy.export.opening import Limits
from kdeploy.quantize.files import first_line, load_model

_MOST_VALUES = 1 << 28
"""Of an input that is fed with zeros: a GiB of float32."""
_LONGEST = 1 << 16
_OUT_OF_MEMORY = ("bad_alloc", "failed to allocate", "std::length_error", "cannot allocate memory")


def main(limits: Limits) -> None:
    """Answer line by line until standard input ends."""
    OnnxRuntime().available()  # the runtime is imported once, here, and not in each child
    for line in sys.stdin:
        refused = answer(Path(json.loads(line)), limits)
        sys.stdout.write(json.dumps(refused) + "\n")
        sys.stdout.flush()


def answer(path: Path, limits: Limits) -> str | None:
    """Fork a child that opens the file within the limits; why it is refused, None where it is not."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(path, limits, writing)
    os.close(writing)
    content = None
    try:
        content = _read(reading, time.monotonic() + limits.seconds)
    finally:
        os.close(reading)
        if content is None:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if content is None:
        return f"{path} took more than {limits.seconds:g} s to open; it was refused."
    if os.WIFSIGNALED(status):
        return (
            f"{path} crashed the process that opened it ({signal.Signals(os.WTERMSIG(status)).name}); it was refused."
        )
    try:
        refused: str | None = json.loads(content)
    except ValueError:
        return f"{path} ended the process that opened it, which said nothing; it was refused."
    return refused


def _read(pipe: int, deadline: float) -> bytes | None:
    """What the child writes until it closes the pipe; None where that takes too long."""
    parts: list[bytes] = []
    while True:
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        part = os.read(pipe, _LONGEST)
        if not part:
            return b"".join(parts)
        parts.append(part)


def _child(path: Path, limits: Limits, writing: int) -> None:
    """Open the file and write the verdict; never returns."""
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    seconds = int(limits.seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    os.write(writing, json.dumps(_try_to_open(path, limits)).encode())
    os._exit(0)


def _try_to_open(path: Path, limits: Limits) -> str | None:
    try:
        _open_and_run(path)
    except KdeployError as error:
        # The runtime puts its reason, an allocation that failed among them, into the sentence.
        return _too_large(path, limits) if _is_of_memory(error) else str(error)
    except MemoryError:
        return _too_large(path, limits)
    except Exception as error:  # hostile bytes make the libraries raise anything: UnicodeDecodeError, KeyError, ...
        return _too_large(path, limits) if _is_of_memory(error) else f"{path} is not valid ONNX: {first_line(error)}."
    return None


def _open_and_run(path: Path) -> None:
    load_model(path)
    with closing(OnnxRuntime().open_file(path, threads=1)) as session:
        if None in session.input_shape[1:]:
            return  # nobody has said at which size it is to run
        shape = tuple(size or 1 for size in session.input_shape)
        if np.prod(shape, dtype=np.float64) > _MOST_VALUES:
            raise MemoryError
        session.run(np.zeros(shape, session.input_dtype))


def _is_of_memory(error: Exception) -> bool:
    return any(sign in str(error).lower() for sign in _OUT_OF_MEMORY)


def _too_large(path: Path, limits: Limits) -> str:
    return f"{path} needs more than {limits.memory_bytes / 2**30:.3g} GiB of memory to open; it was refused."


def _limits(text: str) -> Limits:
    content: dict[str, Any] = json.loads(text)
    return Limits(**content)


if __name__ == "__main__":
    main(_limits(sys.argv[1]))
