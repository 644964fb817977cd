from __future__ import annotations

import pytest

from kdeploy.report import figures


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (figures.percent, 0.9722, "97.2 %"),
        (figures.percent, 1.0, "100.0 %"),
        (figures.percent, None, "n/a"),
        (figures.milliseconds, 0.04123, "0.0412"),
        (figures.milliseconds, 0.99951, "1.00"),
        (figures.milliseconds, 4.3149, "4.31"),
        (figures.milliseconds, 41.0, "41.0"),
        (figures.milliseconds, 4123.0, "4,120"),
        (figures.milliseconds, None, "n/a"),
        (figures.ratio, 41.26, "41.3×"),
        (figures.ratio, 1.0, "1.00×"),
        (figures.ratio, None, "n/a"),
        (figures.significant, 0.0, "0"),
        (figures.significant, -0.01234, "-0.0123"),
        (figures.size, 512, "512 B"),
        (figures.size, 38_912, "38.0 KiB"),
        (figures.size, 1_023_000, "999 KiB"),
        (figures.size, 1_023_999, "0.977 MiB"),
        (figures.size, 4_352_000, "4.15 MiB"),
        (figures.size, 3 * 2**30, "3.00 GiB"),
        (figures.count, 999, "999"),
        (figures.count, 78_042, "78.0 k"),
        (figures.count, 999_900, "1.00 M"),
        (figures.count, 1_078_000, "1.08 M"),
        (figures.count, 4_089_000_000, "4.09 G"),
        (figures.count, None, "n/a"),
        (figures.millions, 12_530_000, "12.5 M"),
        (figures.millions, 460_000, "0.460 M"),
        (figures.millions, None, "n/a"),
        (figures.seconds, 0.42, "0.4 s"),
        (figures.seconds, 59.7, "1 min 00 s"),
        (figures.seconds, 185, "3 min 05 s"),
        (figures.seconds, 7800, "2 h 10 min"),
    ],
)
def test_figures(write, value, text):
    assert write(value) == text


def test_interval():
    assert figures.interval(0.951, 0.9849) == "[95.1, 98.5]"
    assert figures.interval(None, None) == ""
