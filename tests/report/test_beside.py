"""Runs of different recipes on one page."""

from __future__ import annotations

import re

import pytest

from kdeploy.errors import UserError
from kdeploy.report.beside import beside
from kdeploy.report.headline import headlines
from kdeploy.report.html import render
from tests.report.example import whole_report


@pytest.fixture(scope="module")
def one():
    return whole_report()


@pytest.fixture(scope="module")
def both(one):
    slower = [half_as_fast(found) for found in one.measurements]
    return beside([one, one.model_copy(update={"title": "another", "measurements": tuple(slower)})])


def half_as_fast(found):
    latency = tuple(
        each.model_copy(update={"p50": each.p50.model_copy(update={"value_ms": 2 * each.p50.value_ms})})
        for each in found.latency
    )
    return found.model_copy(update={"latency": latency})


def test_every_row_is_there_once_under_its_letter(one, both):
    assert sorted(row.key for row in both.rows) == sorted(f"{letter}/{row.key}" for letter in "AB" for row in one.rows)
    assert {row.role.rpartition("-")[2] for row in both.rows} == {"A", "B"}


def test_ratios_refer_to_the_first_runs_baseline(one, both):
    ratios = {row.key: row.latency_ratio for row in both.rows}
    for row in one.rows:
        assert ratios[f"A/{row.key}"] == row.latency_ratio
        assert ratios[f"B/{row.key}"] == pytest.approx(row.latency_ratio / 2)


def test_agreement_is_that_with_ones_own_teacher(one, both):
    agreement = {row.key: row.agreement_with_teacher for row in both.rows}
    for row in one.rows:
        assert agreement[f"A/{row.key}"] == agreement[f"B/{row.key}"] == row.agreement_with_teacher


def test_latencies_of_another_machine_are_not_compared(one):
    there = one.model_copy(update={"machine": {**one.machine, "processor": "Cortex-A76"}})
    page = beside([one, there])
    assert all((row.latency_ratio is None) == row.key.startswith("B/") for row in page.rows)
    assert page.further_machines["B"]["processor"] == "Cortex-A76"
    assert "Machine of B" in render(page)


def test_each_shipped_engine_replaces_its_own_baseline(both):
    found = [(headline.ours.key, headline.theirs.key) for headline in headlines(both)]
    assert [key[:2] for pair in found for key in pair] == ["A/", "A/", "B/", "B/"]


def test_it_is_drawn_whole(one, both):
    page = render(both)
    names = re.findall(r'\sid="([^"]+)"', page)
    assert len(names) == len(set(names))
    for figure in ("accuracy-latency", "latency-distribution", "validation-accuracy", "provenance"):
        assert f'download="{figure}.svg"' in page
    for role in one.curves:
        assert f"{role}-A" in page
        assert f"{role}-B" in page


def test_more_runs_than_letters_are_refused(one):
    with pytest.raises(UserError, match="at most 26"):
        beside([one] * 27)
