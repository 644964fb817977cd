"""What TensorRT calls back: its messages and progress, as `kdeploy.events` hears them, and the times of layers.

All are subclasses of classes that exist only once TensorRT is imported, so functions make them.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from kdeploy import events


def make_logger(trt: Any) -> Any:
    """A logger that keeps what TensorRT says at INFO and above in `lines`, and its errors in `errors`."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # tensorrt has no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(msg)
            if severity != trt.ILogger.VERBOSE:
                self.lines.append(msg)

    return Logger()


def make_monitor(trt: Any, description: str) -> Any:
    """A progress monitor that moves one bar: the outermost phase's steps, and the phase that is under way.

    Ctrl-C reaches Python only in here, while the builder works. It ends the build (`step_complete` answers False)
    and is kept in `interrupted`, because an exception cannot pass through the builder. So is one of a listener's.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # as above
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.interrupted: BaseException | None = None
            self._open = ExitStack()
            self._bar: events.Progress | None = None
            self._outermost: str | None = None
            self._done = 0
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            try:
                self._steps[phase_name] = num_steps
                if self._outermost is None:
                    self._outermost, self._done = phase_name, 0
                    self._bar = self._open.enter_context(events.task(description, num_steps))
                else:
                    self._show(phase_name, 0)
            except BaseException as error:
                self.interrupted = self.interrupted or error

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                if phase_name == self._outermost and self._bar is not None:
                    self._bar.advance(step + 1 - self._done)
                    self._done = step + 1
                else:
                    self._show(phase_name, step + 1)
            except BaseException as error:
                self.interrupted = self.interrupted or error
            return self.interrupted is None

        def phase_finish(self, phase_name: str) -> None:
            try:
                self._steps.pop(phase_name, None)
                if phase_name == self._outermost:
                    self._outermost = self._bar = None
                    self._open.close()
            except BaseException as error:
                self.interrupted = self.interrupted or error

        def close(self) -> None:
            """Take the bar away where the builder gave up before its phase was over."""
            self._outermost = self._bar = None
            self._open.close()

        def _show(self, phase_name: str, step: int) -> None:
            if self._bar is not None:
                self._bar.advance(0, phase=f"{phase_name} {step}/{self._steps.get(phase_name, step)}")

    return Monitor()


def make_profiler(trt: Any) -> Any:
    """A profiler that keeps what it is told in `told`: layers by TensorRT's name with microseconds, run after run."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]  # as above
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.told: list[tuple[str, float]] = []

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.told.append((layer_name, 1000 * float(ms)))

    return Profiler()
