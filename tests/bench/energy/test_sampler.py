"""The sampling thread, against meters that are played."""

from __future__ import annotations

import threading
import time

import pytest

from kdeploy.bench.energy import Sampler, Window
from kdeploy.bench.energy.base import Found, Meter, NotMeasured

PERIOD_S = 0.005


class Played(Meter):
    """Counts 40 W from the first reading on; what `fail` raises for a reading's number stands in for it."""

    scope, covers = "package", "nothing"

    def __init__(self, name="played", unit="joules", fail=None):
        self.name, self.unit, self.fail = name, unit, fail
        self.count, self.closed, self.threads = 0, False, set()

    def read(self):
        self.count += 1
        self.threads.add(threading.current_thread().name)
        if self.fail is not None:
            self.fail(self.count)
        return 40.0 * time.monotonic_ns() / 1e9 if self.unit == "joules" else 40.0

    def close(self):
        self.closed = True


def sample(*meters):
    """A sampler that has read these meters ten times, however busy this machine is."""
    with Sampler(Found(meters), period_s=PERIOD_S) as sampler:
        while meters[0].count < 10:
            sampler.rest(PERIOD_S)
    return sampler


def test_energy_of_a_window():
    meter = Played()
    with Sampler(Found((meter,)), period_s=PERIOD_S) as sampler:
        idle = sampler.rest(2.0)
        window = sampler.rest(2.0)
    (found,) = sampler.energy(window, idle, 100).meters
    assert found.joules == pytest.approx(40 * window.seconds, rel=0.01)
    assert found.joules_per_inference.value == pytest.approx(found.joules / 100)
    assert found.idle.watts == pytest.approx(40, rel=0.01)
    assert found.net_joules_per_inference.value == pytest.approx(0, abs=0.02 * found.joules / 100)
    assert found.readings >= 20
    assert (found.kind, found.inferences) == ("counter", 100)


def test_the_readings_reach_over_the_block():
    meter = Played(unit="watts")
    with Sampler(Found((meter,)), period_s=60.0) as sampler:
        window = sampler.rest(0.01)
    (sampled,) = sampler.sampled()
    assert sampled.trace.values.tolist() == [40.0, 40.0]
    assert sampled.trace.time_ns[0] < window.begin_ns
    assert sampled.trace.time_ns[1] > window.end_ns
    assert meter.threads == {"energy"}
    assert meter.closed


def test_what_sampling_cost_is_stated():
    sampling = sample(Played(), Played("other")).sampling()
    assert sampling.period_s == PERIOD_S
    assert sampling.rounds >= 10
    assert 0 < sampling.cpu_share < 1
    assert set(sampling.reading_ms) == {"played", "other"}


def test_a_meter_that_dies_in_the_middle_loses_nothing_of_before():
    def die(count):
        if count > 5:
            raise NotMeasured("/sys/x/energy_uj: Input/output error")

    dying, well = Played("dying", fail=die), Played("well")
    with Sampler(Found((dying, well)), period_s=PERIOD_S) as sampler:
        while well.count < 40:
            sampler.rest(0.05)
        last = sampler.rest(0.05)
    given, other = sampler.sampled()
    assert len(given.trace.values) == 5
    assert given.failure == "/sys/x/energy_uj: Input/output error"
    assert dying.count == 15, "it is given up after ten failures in a row"
    assert (len(other.trace.values), other.failure) == (well.count, None)
    assert sampler.energy(last, None, 1).absent["dying"].endswith("; /sys/x/energy_uj: Input/output error")


def test_one_failure_is_passed_over():
    def stumble(count):
        if count % 3 == 0:
            raise RuntimeError("bus is busy")  # not even the exception that it should raise

    meter = Played(fail=stumble)
    (given,) = sample(meter).sampled()
    assert len(given.trace.values) == meter.count - meter.count // 3
    assert given.failure == "RuntimeError: bus is busy"


def test_a_meter_that_never_answers():
    def refuse(count):
        raise OSError(5, "Input/output error")

    energy = sample(Played(fail=refuse)).energy(Window(0, 1), None, 1)
    assert energy.absent == {"played": "it gave no reading; OSError: [Errno 5] Input/output error"}


def test_no_meter_no_thread_no_waiting():
    before = threading.active_count()
    with Sampler(Found((), {"rapl": "why not"})) as sampler:
        assert threading.active_count() == before
        window = sampler.rest(60.0)
    assert window.seconds < 1
    energy = sampler.energy(Window(0, 1), None, 1)
    assert (energy.meters, energy.absent, energy.sampling.rounds) == ((), {"rapl": "why not"}, 0)


def test_it_sleeps_between_readings():
    meter = Played()
    with Sampler(Found((meter,)), period_s=0.05) as sampler:
        sampler.rest(0.5)
    assert 3 <= meter.count <= 13


def test_an_error_in_the_block_ends_the_thread():
    meter = Played()
    with pytest.raises(KeyboardInterrupt), Sampler(Found((meter,)), period_s=PERIOD_S):
        raise KeyboardInterrupt
    assert meter.closed
    assert "energy" not in {thread.name for thread in threading.enumerate()}


def test_parent_and_child_read_the_same_clock():
    assert time.get_clock_info("perf_counter").implementation == time.get_clock_info("monotonic").implementation
