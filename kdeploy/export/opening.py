"""An ONNX file from outside, opened first in a process of its own: what crashes, hangs or eats memory does it there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from kdeploy.errors import UserError

_WORKER = "kdeploy.export.opening_worker"


@dataclass(frozen=True)
class Limits:
    """What opening one file may take: address space (of which weights are read three times over) and time."""

    memory_bytes: int = 6 << 30
    seconds: float = 60.0


DEFAULTS = Limits()


class Opener:
    """A worker that opens one file after the other, each in a child forked from it. Use as a context manager.

    The worker has the libraries loaded and no file open, so a file costs a fork and not an interpreter.
    """

    def __init__(self, limits: Limits = DEFAULTS) -> None:
        single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._limits = limits
        self._worker = subprocess.Popen(
            [sys.executable, "-m", _WORKER, json.dumps(asdict(limits))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what protobuf and the runtime print of a broken file
            env={**os.environ, **single},
            encoding="utf-8",
        )

    def refusal(self, path: Path) -> str | None:
        """Why a file cannot be opened, in one sentence; None where it can be."""
        assert self._worker.stdin is not None
        assert self._worker.stdout is not None
        try:
            self._worker.stdin.write(json.dumps(str(path)) + "\n")
            self._worker.stdin.flush()
            answer = self._worker.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            status = self._worker.wait()
            raise RuntimeError(f"the process that opens ONNX files ended with status {status}")
        refused: str | None = json.loads(answer)
        return refused

    def close(self) -> None:
        """End the worker."""
        for pipe in (self._worker.stdin, self._worker.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._worker.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._worker.kill()
            self._worker.wait()

    def __enter__(self) -> Opener:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def require_opens(path: Path, limits: Limits = DEFAULTS) -> None:
    """Raise UserError, in one sentence, unless the file can be read, opened by ONNX Runtime, and run once.

    The death of the process that tries it, by a signal, by its limits or by the clock, counts as a refusal.
    """
    with Opener(limits) as opener:
        refused = opener.refusal(path)
    if refused is not None:
        raise UserError(refused)
