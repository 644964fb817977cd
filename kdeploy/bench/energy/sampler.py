"""The thread that reads the meters while another process is measured."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np

from kdeploy.bench.energy.base import Found, Meter, NotMeasured, Trace, Window
from kdeploy.bench.energy.results import Energy, Sampled, Sampling, energy_of

PERIOD_S = 0.1
"""Slow enough to cost next to nothing; the sensors of small boards give no more than about ten new values a second."""

_GIVEN_UP_AFTER = 10


@dataclass
class _Series:
    """What one meter gave so far."""

    meter: Meter
    readings: list[tuple[int, float]] = field(default_factory=list)
    reading_ns: int = 0
    attempts: int = 0
    failures_in_a_row: int = 0
    failure: str | None = None

    def read(self) -> None:
        """Keep one more reading, dated to the middle of the call; a failure is kept as its reason and loses nothing."""
        start = time.monotonic_ns()
        try:
            value: float | None = self.meter.read()
        except NotMeasured as reason:
            value, self.failure = None, str(reason)
        except Exception as error:  # a driver's library may raise anything, and the other meters must go on
            value, self.failure = None, f"{type(error).__name__}: {error}"
        end = time.monotonic_ns()
        self.attempts += 1
        self.reading_ns += end - start
        if value is None:
            self.failures_in_a_row += 1
        else:
            self.failures_in_a_row = 0
            self.readings.append(((start + end) // 2, value))


class Sampler:
    """Reads all meters every 100 ms from a thread that sleeps in between. Use as a context manager.

    The first readings are taken before the block begins and the last after it ends, so that a window within the block
    is covered. A meter that fails ten times in a row is given up; what it gave before stays. Where no meter was found
    no thread is started.
    """

    def __init__(self, found: Found, period_s: float = PERIOD_S) -> None:
        self._absent = dict(found.absent)
        self._series = [_Series(meter) for meter in found.meters]
        self._period_ns = int(period_s * 1e9)
        self._first_round, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._sample, name="energy", daemon=True)
        self._rounds, self._elapsed_ns, self._cpu_ns = 0, 0, 0

    def __enter__(self) -> Sampler:
        if self._series:
            self._thread.start()
            self._first_round.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._series:
            self._stop.set()
            self._thread.join()
        for series in self._series:
            series.meter.close()

    def rest(self, seconds: float) -> Window:
        """Let the machine idle and return that window. Without a meter it returns at once."""
        begin = time.monotonic_ns()
        if self._series:
            time.sleep(seconds)
        return Window(begin, time.monotonic_ns())

    def energy(self, window: Window, idle: Window | None, inferences: int) -> Energy:
        """The energy of a window within the block, of which the block has ended. See `results.energy_of`."""
        return energy_of(self.sampled(), self._absent, self.sampling(), window, idle, inferences)

    def sampled(self) -> list[Sampled]:
        """What each meter gave."""
        return [_sampled(series) for series in self._series]

    def sampling(self) -> Sampling:
        """What the sampling itself cost, for the result."""
        return Sampling(
            period_s=self._period_ns / 1e9,
            rounds=self._rounds,
            cpu_share=self._cpu_ns / self._elapsed_ns if self._elapsed_ns else 0.0,
            reading_ms={one.meter.name: one.reading_ns / one.attempts / 1e6 for one in self._series if one.attempts},
        )

    def _sample(self) -> None:
        begin = time.monotonic_ns()
        due = begin
        stopping = False
        while True:
            for series in self._series:
                if series.failures_in_a_row < _GIVEN_UP_AFTER:
                    series.read()
            self._rounds += 1
            self._cpu_ns = time.thread_time_ns()
            self._elapsed_ns = time.monotonic_ns() - begin
            self._first_round.set()
            if stopping:
                return
            now = time.monotonic_ns()
            due = max(due + self._period_ns, now)  # a slow round delays the next ones, it does not bunch them
            stopping = self._stop.wait((due - now) / 1e9)


def _sampled(series: _Series) -> Sampled:
    meter = series.meter
    return Sampled(
        name=meter.name,
        scope=meter.scope,
        covers=meter.covers,
        trace=Trace(
            time_ns=np.array([at for at, _ in series.readings], dtype=np.int64),
            values=np.array([value for _, value in series.readings], dtype=np.float64),
            unit=meter.unit,
            range_joules=meter.range_joules,
        ),
        failure=series.failure,
    )
