from __future__ import annotations

import pytest

from kdeploy.bench.statistics import t_quantile
from kdeploy.report.rows import rows_from
from kdeploy.report.seeds import accuracy_gain, aggregate, mean_of
from tests.report.example import measurements

STUDENT, ALONE = "student-pytorch-float32", "alone-pytorch-float32"


# Abramowitz and Stegun 1964, table 26.10, and any textbook.
@pytest.mark.parametrize(
    ("degrees", "published"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (10, 2.228), (30, 2.042), (120, 1.980)],
)
def test_t_quantiles_as_published(degrees, published):
    assert round(t_quantile(0.975, degrees), 3) == published


def test_t_quantiles_as_scipy_has_them():
    stats = pytest.importorskip("scipy.stats")
    for degrees in range(1, 40):
        for probability in (0.6, 0.95, 0.975, 0.995):
            assert t_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees), rel=1e-9)


def test_mean_of_three_by_hand():
    mean = mean_of([0.80, 0.82, 0.84])
    # s = 0.02, t = 4.302653, so the reach is 4.302653 * 0.02 / sqrt(3) = 0.0496828.
    assert mean.value == pytest.approx(0.82)
    assert mean.low == pytest.approx(0.82 - 0.0496828, abs=1e-7)
    assert mean.high == pytest.approx(0.82 + 0.0496828, abs=1e-7)
    assert mean.seeds == 3


def test_one_seed_has_no_interval():
    assert mean_of([0.5]).model_dump() == {"value": 0.5, "low": None, "high": None, "seeds": 1}


def seeds(*students: float):
    rows = rows_from(measurements(), baseline="teacher-pytorch-float32")
    return [
        [row.model_copy(update={"accuracy": student}) if row.key == STUDENT else row for row in rows]
        for student in students
    ]


def test_aggregate_keeps_order_and_shared_figures():
    table = aggregate(seeds(0.96, 0.97, 0.98))
    assert [row.name for row in table][:2] == ["teacher · PyTorch float32", "teacher · ONNX Runtime float32"]
    student = next(row for row in table if row.key == STUDENT)
    assert (student.seeds, student.parameters, student.samples) == (3, 20_070, 360)
    assert student.accuracy.value == pytest.approx(0.97)
    assert student.accuracy.low == pytest.approx(0.97 - 0.0248414, abs=1e-7)
    assert student.size_bytes.value == 88_064
    assert student.size_bytes.low == student.size_bytes.high == 88_064


def test_a_figure_that_one_seed_lacks_is_not_shown_and_a_row_that_one_lacks_is_left_out():
    first, second = seeds(0.96, 0.97)
    second = [row.model_copy(update={"p99_ms": None}) for row in second if row.key != ALONE]
    table = {row.key: row for row in aggregate([first, second])}
    assert ALONE not in table
    assert table[STUDENT].p99_ms is None
    assert table[STUDENT].p50_ms is not None
    assert aggregate([]) == []


def test_gain_is_paired_by_seed():
    tables = seeds(0.96, 0.98)
    for rows, alone in zip(tables, (0.94, 0.96), strict=True):
        place = next(place for place, row in enumerate(rows) if row.key == ALONE)
        rows[place] = rows[place].model_copy(update={"accuracy": alone})
    gain = accuracy_gain(tables, STUDENT, over=ALONE)
    assert gain.value == pytest.approx(0.02)
    assert gain.high - gain.low == pytest.approx(0.0, abs=1e-12)
    assert accuracy_gain(tables, STUDENT, over="nobody") is None
