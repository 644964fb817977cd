"""The rules, on synthetic traces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kdeploy.bench.results import Latency, Measurement, Verdict, Watched
from kdeploy.bench.timing import Samples, latency
from kdeploy.bench.verdict import foreign_share, judge
from kdeploy.machine.conditions import Conditions

SESSION: dict[str, Any] = {
    "providers": ["CPUExecutionProvider"],
    "nodes": {"CPUExecutionProvider": 30},
    "operators": {"float32": {"Conv": 9, "Gemm": 1}, "int64": {"Reshape": 1}},
    "pinned": {"cores": [1]},
}
SPLIT = {
    "providers": ["CUDAExecutionProvider", "CPUExecutionProvider"],
    "nodes": {"CUDAExecutionProvider": 28, "CPUExecutionProvider": 2},
}
QUIET: dict[str, Any] = {
    "swapped_pages": 0,
    "frequency_mhz": {0: 1500.0, 1: 2000.0},
    "governors": ("performance",),
    "temperature_c": {"cpu": 50.0},
    "throttle_counts": {"core": 2},
    "throttle_states": {"cpufreq-cpu0": 0},
}


def moment(at_s: float, own_s: float, cores: tuple[float, float], **changed: Any) -> Conditions:
    return Conditions(at_s=at_s, own_s=own_s, processor_s=dict(enumerate(cores)), **{**QUIET, **changed})


def watched(
    seconds: float = 10.0, foreign: tuple[float, float] = (0, 0), clock: tuple[float, ...] = (2000, 2000), **after: Any
) -> Watched:
    """A run on core 1, and what others used of each core meanwhile, in seconds."""
    before = moment(100.0, 5.0, (50.0, 60.0))
    worked = (50.0 + foreign[0], 60.0 + seconds + foreign[1])
    return Watched(before=before, after=moment(100 + seconds, 5 + seconds, worked, **after), frequency_mhz=clock)


def timed(count: int = 1000, drift: float = 0.0, seen: Watched | None = None, batch: int = 1) -> Latency:
    spread = np.random.default_rng(0).normal(1.0, 0.01, count)
    spread[count // 2 :] *= 1 + drift
    return latency(Samples((spread * 1e6).astype(np.int64), 20, 10.0), batch, watched() if seen is None else seen)


def judged(*latencies: Latency, precision: str = "float32", session: Any = None, **machine: Any) -> Verdict:
    found = Measurement(
        name="row",
        role="student",
        engine="onnxruntime",
        precision=precision,
        artifact="0" * 64,
        size_bytes=1,
        parameters=None,
        macs=None,
        load_ms=1.0,
        first_inference_ms=1.0,
        threads=1,
        latency=latencies or (timed(),),
        accuracy=None,
        session={**SESSION, **(session or {})},
        machine={"emulation": None, "virtual_machine": False, "container": None, **machine},
        measured_at="",
    )
    return judge(found)


def test_a_quiet_machine_is_valid_without_a_word() -> None:
    assert judged() == Verdict(valid=True, reasons=(), warnings=())


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (timed(63), "only 63 calls, and even p90 wants 64"),
        (timed(drift=0.07), "the second half's median is +7"),
        (timed(drift=-0.07), "the second half's median is -"),
        (timed(seen=watched(clock=(2000, 1950))), "the clock moved between 1950 and 2000 MHz"),
        (timed(seen=watched(throttle_counts={"core": 3})), "was throttled meanwhile (core)"),
        (timed(seen=watched(throttle_states={"cpufreq-cpu0": 1})), "held back (cpufreq-cpu0)"),
        (timed(seen=watched(foreign=(0, 0.6))), "other programs used 6% of the processor"),
        (timed(seen=watched(foreign=(1.2, 0))), "other programs used 6% of the processor"),
        (timed(seen=watched(swapped_pages=12)), "swapped 12 pages"),
    ],
)
def test_each_reason_of_a_run_alone_makes_it_invalid(found: Latency, words: str) -> None:
    verdict = judged(found)
    assert not verdict.valid
    (reason,) = verdict.reasons
    assert words in reason


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"emulation": "qemu-aarch64"}, "emulated (qemu-aarch64)"),
        ({"session": SPLIT}, "of 30 nodes, not all run on CUDAExecutionProvider: 2 on CPUExecutionProvider"),
        (
            {"session": {**SPLIT, "nodes": {"CPUExecutionProvider": 50}, "asked_provider": "CUDAExecutionProvider"}},
            "of 50 nodes, not all run on CUDAExecutionProvider: 50 on CPUExecutionProvider",
        ),
        ({"precision": "int8"}, "of 10 convolutions and matrix products, 0 run in int8"),
        (
            {"session": {"operators": {"float32": {"Conv": 9}, "bfloat16": {"Gemm": 1}}}},
            "of 10 convolutions and matrix products, 9 run in float32",
        ),
    ],
)
def test_so_does_what_ran_in_another_way_than_asked(changed: dict[str, Any], words: str) -> None:
    verdict = judged(**changed)
    assert not verdict.valid
    (reason,) = verdict.reasons
    assert words in reason


@pytest.mark.parametrize(
    "found",
    [
        timed(64),
        timed(drift=0.03),
        timed(seen=watched(clock=(2000, 1970))),
        timed(seen=watched(foreign=(0, 0.4))),
        timed(seen=watched(foreign=(0.9, 0))),
    ],
)
def test_less_than_that_does_not(found: Latency) -> None:
    assert judged(found).valid


@pytest.mark.parametrize(
    "changed",
    [
        {"precision": "not stated"},
        {"precision": "int8", "session": {"operators": {"float32": {"Conv": 9}, "uint8": {"QLinearConv": 1}}}},
        {"session": {"operators": {}}},
    ],
)
def test_a_precision_that_nobody_asked_for_or_that_is_there_is_no_reason(changed: dict[str, Any]) -> None:
    assert judged(**changed).valid


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (judged(timed(seen=watched(governors=("ondemand",)))), "governor is ondemand"),
        (
            judged(timed(seen=watched(frequency_mhz={}, temperature_c={}))),
            "does not let us read: the clock's frequency, temperatures",
        ),
        (judged(timed(seen=watched(0.5))), "too short to see what other programs used"),
        (judged(timed().model_copy(update={"settled": False})), "batch 1: the latency had not settled"),
        (judged(virtual_machine=True), "a virtual machine"),
        (judged(container="docker"), "inside a container (docker)"),
        (judged(session={"pinned": {"cores": None, "reason": "not permitted"}}), "not pinned to cores: not permitted"),
    ],
)
def test_what_is_only_a_warning(verdict: Verdict, words: str) -> None:
    assert verdict.valid
    (warning,) = verdict.warnings
    assert words in warning


def test_foreign_load_is_that_of_the_pinned_cores_or_of_all() -> None:
    before, after = moment(0.0, 0.0, (0.0, 0.0)), moment(10.0, 9.0, (4.0, 10.0))
    assert foreign_share(before, after, [1]) == pytest.approx(5 / 20)
    assert foreign_share(before, after, [0]) == 0.25  # not on this core, whose time was less than our own
    assert foreign_share(before, moment(10.0, 9.0, (0.0, 10.0)), [1]) == pytest.approx(0.1)
    assert foreign_share(before, moment(0.9, 0.0, (0.0, 0.0)), [1]) is None
    assert foreign_share(before, moment(10.0, 9.0, (0.0, 9.0)), None) == 0.0


def test_a_larger_batch_is_named() -> None:
    found = judged(timed(), timed(20, batch=8))
    assert found.reasons == ("batch 8: only 20 calls, and even p90 wants 64: measure longer",)


def untimed(**session: Any) -> Verdict:
    found = Measurement(
        name="row",
        role="student",
        engine="onnxruntime",
        precision="float32",
        artifact="0" * 64,
        size_bytes=1,
        parameters=None,
        macs=None,
        emulated="qemu-aarch64-static",
        load_ms=None,
        first_inference_ms=None,
        threads=1,
        latency=(),
        accuracy=None,
        session={**SESSION, **session},
        machine={"emulation": "qemu-aarch64-static", "virtual_machine": True, "container": None},
        measured_at="",
    )
    return judge(found)


def test_where_nothing_was_timed_there_is_nothing_to_believe_or_not() -> None:
    assert untimed() == Verdict(valid=None, reasons=(), warnings=())


def test_an_accuracy_of_another_precision_is_invalid_there_too() -> None:
    verdict = untimed(operators={"float16": {"Conv": 9}})
    assert verdict.valid is False
    assert "run in float32" in verdict.reasons[0]
