"""How figures are written, the same in the terminal, in Markdown and in HTML."""

from __future__ import annotations

NOT_AVAILABLE = "n/a"


def percent(value: float | None) -> str:
    """0.972 to "97.2 %"."""
    return NOT_AVAILABLE if value is None else f"{100 * value:.1f} %"


def interval(low: float | None, high: float | None) -> str:
    """Two fractions to "[95.1, 98.5]", in percent; empty where there is none."""
    return "" if low is None or high is None else f"[{100 * low:.1f}, {100 * high:.1f}]"


def milliseconds(value: float | None) -> str:
    """Three significant digits, never in powers of ten: "0.0412", "4.12", "412", "4,120"."""
    return NOT_AVAILABLE if value is None else significant(value)


def spread(value: float | None, low: float | None, high: float | None) -> str:
    """The farther end of an interval, as a share of the value: "±0.8 %"; empty where there is none."""
    if value is None or low is None or high is None or value <= 0:
        return ""
    return f"±{100 * max(value - low, high - value) / value:.1f} %"


def nats(value: float | None) -> str:
    """A log-likelihood with three decimals: "0.670"."""
    return NOT_AVAILABLE if value is None else f"{value:.3f}"


def ratio(value: float | None) -> str:
    """How many times, with three significant digits: "41.3×"."""
    return NOT_AVAILABLE if value is None else f"{significant(value)}×"


def significant(value: float, digits: int = 3) -> str:
    """A number with this many significant digits, without powers of ten: "0.0412", "41.0", "4,120"."""
    if value == 0:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    rounded = round(value, digits - 1 - exponent)
    return f"{rounded:,.{max(digits - 1 - exponent, 0)}f}"


def size(value_bytes: float | None) -> str:
    """Bytes as B, KiB, MiB or GiB."""
    if value_bytes is None:
        return NOT_AVAILABLE
    if value_bytes < 1024:
        return f"{value_bytes:.0f} B"
    for unit in ("KiB", "MiB"):
        value_bytes /= 1024
        if float(f"{value_bytes:.3g}") < 1000:
            return f"{significant(value_bytes)} {unit}"
    return f"{significant(value_bytes / 1024)} GiB"


def count(value: int | None) -> str:
    """A count of parameters or operations as thousands (k), millions (M) or billions (G)."""
    if value is None:
        return NOT_AVAILABLE
    if value < 1000:
        return str(value)
    for unit, scale in (("k", 1e3), ("M", 1e6)):
        if float(f"{value / scale:.3g}") < 1000:
            return f"{significant(value / scale)} {unit}"
    return f"{significant(value / 1e9)} G"


def millions(value: int | None) -> str:
    """Multiply-accumulates in millions: "12.5 M"."""
    return NOT_AVAILABLE if value is None else f"{significant(value / 1e6)} M"


def seconds(value: float) -> str:
    """A duration as "0.4 s", "12 s", "3 min 05 s" or "2 h 10 min"."""
    if value < 10:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
