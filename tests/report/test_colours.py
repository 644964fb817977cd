"""Texts and marks can be told from what is behind them, in the light and in the dark."""

from __future__ import annotations

import re

import pytest

from kdeploy.report.charts import tradeoff
from kdeploy.report.charts.costs import LATENCY
from kdeploy.report.charts.standalone import standalone
from kdeploy.report.packaged import packaged
from tests.report.example import report

LIGHT, DARK, PAPER = (
    dict(re.findall(r"--([\w-]+): (#\w+);", rule))
    for rule in re.findall(r":root \{(.*?)\}", packaged("colours.css"), re.S)
)
TEXTS = ("ink", "soft", "teacher", "alone", "student", "other", "good", "bad")
MARKS = tuple(f"kind-{number}" for number in range(1, 8))


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_as_published():
    assert contrast("#000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", [LIGHT, DARK, PAPER], ids=["light", "dark", "paper"])
def test_every_theme_can_be_read(theme):
    assert set(theme) == set(LIGHT)
    for text in TEXTS:
        for behind in ("page", "card", "tint"):
            assert contrast(theme[text], theme[behind]) >= 4.5, (text, behind)
    assert contrast(theme["bad"], theme["bad-tint"]) >= 4.5
    assert contrast(theme["note"], theme["note-tint"]) >= 4.5
    for tag in ("student", "bad"):
        assert contrast(theme["card"], theme[tag]) >= 4.5
    for mark in MARKS:
        assert contrast(theme[mark], theme["card"]) >= 3.0, mark


def test_a_figure_that_stands_alone_needs_no_variables():
    text = standalone(tradeoff.draw("x", report().rows, LATENCY, width=1000, height=440, narrow=False))
    assert "var(" not in text
    assert "--" not in text
    assert text.startswith('<svg xmlns="http://www.w3.org/2000/svg" width="1000" height="440" viewBox=')
    assert f"svg .mark.role-student{{fill: {LIGHT['student']};" in text
    with pytest.raises(ValueError, match="viewBox"):
        standalone("<svg></svg>")
