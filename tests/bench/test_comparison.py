from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from kdeploy.bench import comparison, interleaving
from kdeploy.bench.blocks import block, calls_of_a_block
from kdeploy.bench.interleaving import interleave, processes_that_fit
from kdeploy.bench.results import Accuracy
from kdeploy.bench.statistics import mcnemar
from kdeploy.errors import UserError
from tests.engines import models


def drifting(effects: dict[str, float], seed: int, processes: int = 8, rounds: int = 80) -> dict[str, np.ndarray]:
    """Medians as two shared cores give them: a drift of many percent, processes that differ by 0.3 %, noisy blocks."""
    draw = np.random.default_rng(seed)
    drift = np.cumsum(draw.normal(0, 0.02, rounds))
    return {
        name: 0.3
        * (1 + effect)
        * np.exp(drift + draw.normal(0, 0.003, (processes, 1)) + draw.normal(0, 0.01, (processes, rounds)))
        for name, effect in effects.items()
    }


def decisions(effect: float, count: int) -> list[str]:
    return [comparison.decide(drifting({"a": 0.0, "b": effect}, seed), "a", seed)["b"][3] for seed in range(count)]


def test_an_engine_does_not_differ_from_itself() -> None:
    assert decisions(0.0, 40).count("no difference shown") >= 38  # of 40 with a risk of 1 %: fewer in 1 of 140 suites


def test_one_percent_is_found() -> None:
    assert decisions(0.01, 20).count("slower") >= 19
    assert decisions(-0.01, 20).count("faster") >= 19


def test_the_drift_does_not_widen_the_interval() -> None:
    calm, drifted = (drifting({"a": 0.0, "b": 0.02}, 3) for _ in range(2))
    together = np.exp(np.linspace(0, 3, 80))
    drifted = {name: found * together for name, found in drifted.items()}
    assert comparison.decide(drifted, "a")["b"] == pytest.approx(comparison.decide(calm, "a")["b"])


def test_several_sides_share_the_risk() -> None:
    made = drifting({"a": 0.0, "b": 0.01, "c": 0.0}, 5)
    alone = comparison.decide({name: made[name] for name in "ab"}, "a")["b"]
    among = comparison.decide(made, "a")["b"]
    assert among[0] == pytest.approx(alone[0], rel=1e-3)
    assert among[2] - among[1] > alone[2] - alone[1]


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (3, 9), (40, 40), (400, 480)])
def test_mcnemar_is_the_exact_sign_test(first: int, second: int) -> None:
    expected = 1.0 if first + second == 0 else stats.binomtest(first, first + second).pvalue
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)


def accuracy(wrong: tuple[int, ...], split: str = "test") -> Accuracy:
    return Accuracy(
        split=split,
        samples=100,
        correct=100 - len(wrong),
        value=1 - len(wrong) / 100,
        low=0.0,
        high=1.0,
        per_class={},
        predictions=(),
        wrong=wrong,
    )


def test_disagreement_counts_what_one_alone_got_right() -> None:
    found = comparison.disagreement(accuracy((1, 2, 3)), accuracy((3, 4)))
    assert found is not None
    assert (found.only_baseline, found.only_this) == (1, 2)
    assert comparison.disagreement(accuracy((1,)), accuracy((1,), split="validation")) is None
    assert comparison.disagreement(None, accuracy((1,))) is None


def test_other_images_are_not_paired() -> None:
    one, other = (accuracy((1,)).model_copy(update={"data_sha256": digest}) for digest in ("a" * 64, "b" * 64))
    assert comparison.disagreement(one, other) is None
    assert comparison.disagreement(one, one) is not None
    assert comparison.disagreement(one, accuracy((1,))) is not None  # measured before there were hashes


def test_a_comparison_says_what_mcnemar_found() -> None:
    medians = {name: np.full((8, 20), 1.0) for name in ("one", "other")}
    wrong = {"one": accuracy(tuple(range(20))), "other": accuracy(())}
    made = comparison.compared(medians, "one", wrong, {"one": 1, "other": 1}, 1.0)
    said = comparison.sentence(made.sides[0], {}, "one")
    assert "Of 20 images on which one alone is right it is so on 20, more than chance would have it" in said
    assert "(McNemar, p = 1.9e-06)." in said


def test_a_block_has_as_many_calls_as_25_ms_hold() -> None:
    assert [calls_of_a_block(ms) for ms in (0.01, 0.5, 2.5, 300.0)] == [100, 50, 10, 5]
    seen: list[int] = []
    assert block(lambda x: seen.append(int(x[0])), [np.zeros(1), np.ones(1)], 5) > 0
    assert seen == [1, 0, 1, 0, 1, 0]


def test_real_processes_take_turns(tmp_path: Path) -> None:
    paths = {name: models.save_classifier(tmp_path / f"{name}.onnx", in_graph=False) for name in ("one", "two")}
    medians, calls, took = interleave(paths, threads=1, processes=2, seconds=0.3)
    assert set(medians) == set(calls) == {"one", "two"}
    assert medians["one"].shape == medians["two"].shape
    assert medians["one"].shape[0] == 2
    assert medians["one"].shape[1] >= 10
    assert (medians["one"] > 0).all()
    assert took >= 0.3
    made = comparison.compared(medians, "one", {}, calls, took)
    assert comparison.Comparison.model_validate_json(made.model_dump_json()) == made
    assert made.sides[0].low < made.sides[0].ratio < made.sides[0].high


def test_memory_bounds_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interleaving, "free_memory_bytes", lambda: 1000 << 20)
    assert processes_that_fit({"a": 1 << 20, "b": None}) == 8
    assert processes_that_fit({"a": 50 << 20, "b": 50 << 20}) == 5
    with pytest.raises(UserError, match="two processes of each side in memory, 800 MiB in all, and 1000 MiB are free"):
        processes_that_fit({"a": 200 << 20, "b": 200 << 20})


def accuracy_of(wrong: set[int]) -> Accuracy:
    right = 100 - len(wrong)
    return Accuracy(
        split="test",
        samples=100,
        correct=right,
        value=right / 100,
        low=0.0,
        high=1.0,
        per_class={},
        predictions=(),
        wrong=tuple(sorted(wrong)),
    )


def test_what_is_not_timed_is_compared_by_accuracy_alone() -> None:
    accuracies = {"a": accuracy_of({1, 2}), "b": accuracy_of(set(range(2, 20))), "c": None}
    found = comparison.untimed(accuracies, "a")
    b, c = found.sides
    assert (b.ratio, b.decision) == (None, "not timed")
    assert b.disagreement is not None
    assert (b.disagreement.only_baseline, b.disagreement.only_this) == (17, 1)
    assert c.disagreement is None
    said = comparison.sentence(b, {}, "a")
    assert said.startswith("b and a: which is faster is not measured. Of 18 images")
    assert "McNemar" in said
    assert comparison.sentence(c, {}, "a") == "c and a: which is faster is not measured."
