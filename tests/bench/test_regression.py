from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kdeploy.bench import regression
from kdeploy.bench.results import Accuracy, Measurement, Memory
from kdeploy.bench.statistics import wilson
from kdeploy.bench.timing import Samples, latency
from kdeploy.errors import GateFailed, UserError

MACHINE = {"processor": "Cortex-A76", "board": "Raspberry Pi 5", "architecture": "aarch64", "memory_bytes": 8 << 30}


def measured(name: str = "row", p50_ms: float = 1.0, noise: float = 0.02, seed: int = 0, **changed: Any) -> Measurement:
    samples = p50_ms * np.random.default_rng(seed).lognormal(0, noise, 2000)
    return Measurement(
        **{
            "name": name,
            "role": "student",
            "engine": "onnxruntime",
            "precision": "int8",
            "artifact": "",
            "size_bytes": 1000,
            "parameters": None,
            "macs": None,
            "load_ms": 1.0,
            "first_inference_ms": 1.0,
            "threads": 1,
            "latency": (latency(Samples((samples * 1e6).astype(np.int64), 20, 2.0), 1),),
            "accuracy": None,
            "session": {},
            "machine": MACHINE,
            "measured_at": "",
            **changed,
        }
    )


def accuracy(wrong: set[int], samples: int = 1000, told: bool = True) -> Accuracy:
    right = samples - len(wrong)
    low, high = wilson(right, samples)
    return Accuracy(
        split="test",
        samples=samples,
        correct=right,
        value=right / samples,
        low=low,
        high=high,
        per_class={},
        predictions=(),
        wrong=tuple(sorted(wrong)) if told else None,
    )


def failed(old: Measurement, new: Measurement, condition: str) -> bool:
    (found,) = regression.check([new], [old], [regression.parse(condition)])
    return found.failed


def test_a_slower_median_fails_only_beyond_what_is_allowed() -> None:
    old = measured()
    assert failed(old, measured(p50_ms=1.06, seed=1), "p50 > 3%")
    assert not failed(old, measured(p50_ms=1.06, seed=1), "p50 > 8%")
    assert not failed(old, measured(p50_ms=0.8, seed=1), "p50 > 3%")
    assert failed(old, measured(p50_ms=0.8, seed=1), "p50 < -10%")


def test_a_change_within_the_noise_does_not_fail() -> None:
    drift = np.repeat(np.random.default_rng(2).lognormal(0, 0.1, 20), 100)
    slow = Samples((1.04e6 * drift).astype(np.int64), 20, 2.0)
    assert not failed(measured(), measured(latency=(latency(slow, 1),)), "p50 > 3%")


def test_the_tail_size_and_memory() -> None:
    old = measured(memory=Memory(peak_bytes=100, runtime_bytes=50))
    new = measured(p50_ms=1.2, size_bytes=1001, memory=Memory(peak_bytes=105, runtime_bytes=50))
    assert failed(old, new, "p99 > 3%")
    assert failed(old, new, "size > 0%")
    assert not failed(old, new, "size > 0.2%")
    assert not failed(old, new, "memory > 10%")
    assert failed(old, new, "memory > 4%")


def test_a_loss_of_accuracy_is_paired_where_the_samples_are_known() -> None:
    """Ten samples more are wrong, all others alike: certain where paired, chance where not."""
    before, after = set(range(100)), set(range(112))
    assert failed(measured(accuracy=accuracy(before)), measured(accuracy=accuracy(after)), "accuracy < -0.1")
    assert not failed(measured(accuracy=accuracy(before)), measured(accuracy=accuracy(after)), "accuracy < -0.5")
    unpaired = accuracy(before, told=False), accuracy(after, told=False)
    assert not failed(measured(accuracy=unpaired[0]), measured(accuracy=unpaired[1]), "accuracy < -0.1")


def test_what_was_not_measured_is_not_judged() -> None:
    (found,) = regression.check([measured()], [measured()], [regression.parse("accuracy < -0.5")])
    assert not found.failed
    assert regression.sentence(found) == "row: accuracy < -0.5: not measured in both, so not judged."


def test_the_error_names_what_became_worse() -> None:
    checked = regression.check([measured(size_bytes=2000)], [measured()], [regression.parse("size > 5%")])
    assert regression.sentence(checked[0]) == ("row: size > 5%: FAILED; the change is +100.00 % [+100.00, +100.00].")
    with pytest.raises(GateFailed, match="worse than allowed: row: size > 5%"):
        regression.require(checked)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("p50", "can't be read. Write for instance"),
        ("p51 > 3%", "no figure 'p51' to set a condition on. Did you mean"),
        ("p50 > 3", "a change of p50 is in percent, with %"),
        ("accuracy < -0.5%", "a change of accuracy is in points, without %"),
        ("p50 >= 3%", "can't be read"),
    ],
)
def test_a_condition_that_cannot_be_read_is_refused(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        regression.parse(text)


@pytest.mark.parametrize(
    ("baseline", "words"),
    [
        (measured(name="other"), "has measured other, and none of row"),
        (measured(machine={**MACHINE, "processor": "Cortex-A72"}), r"\(processor Cortex-A72 there, Cortex-A76 here\)"),
        (measured(threads=4), "with 4 threads and not 1: give --threads 4"),
    ],
)
def test_a_baseline_that_cannot_be_compared_is_refused(baseline: Measurement, words: str) -> None:
    with pytest.raises(UserError, match=words):
        regression.require_comparable([baseline], ["row"], MACHINE, 1)


def test_rows_that_only_the_baseline_has_do_not_matter() -> None:
    regression.require_comparable([measured(name="other", threads=4), measured()], ["row"], MACHINE, 1)


def test_measurements_are_read_from_both_files_that_bench_writes() -> None:
    one = measured().model_dump(mode="json")
    assert regression.measurements_of({"measurements": [one, one]}, "x")[1].name == "row"
    assert regression.measurements_of(one, "x")[0].name == "row"
    for wrong in ([], {}, {"measurements": [{"name": 1}]}):
        with pytest.raises(UserError, match="x holds no measurements"):
            regression.measurements_of(wrong, "x")


def test_an_emulated_machine_is_not_the_real_one() -> None:
    real, emulated = {**MACHINE, "emulation": None}, {**MACHINE, "emulation": "qemu-aarch64-static"}
    with pytest.raises(UserError, match="emulation None there, qemu-aarch64-static here"):
        regression.require_comparable([measured(machine=real)], ["row"], emulated, 1)
    regression.require_comparable([measured(machine=MACHINE)], ["row"], real, 1)  # of before it was asked
