"""Profiles by layer as tables and as a plot."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import pytest
from rich.console import Console

from kdeploy.bench.layers import Layer, LayerProfile, Timing
from kdeploy.report.charts.profile import draw
from kdeploy.report.layers import LayerTables, sentences

SVG = "{http://www.w3.org/2000/svg}"


def layer(name: str, median_us: float, operator: str = "Conv", **more: object) -> Layer:
    known = {
        "name": name,
        "operator": operator,
        "module": "",
        "fused": (),
        "precision": "float32",
        "provider": "CPU",
        "count": 80,
        "share": median_us / 100,
        "median_us": median_us,
        "low_us": median_us - 1,
        "high_us": median_us + 1,
    }
    return Layer.model_validate(known | more)


LAYERS = (
    layer("net.conv1/Conv", 30.0, fused=("net/Relu", "net/Add")),
    layer("net.conv2/Conv", 50.0, precision="int8"),
    layer("net.pool/GlobalAveragePool", 4.0, "GlobalAveragePool"),
    layer("net.fc/Gemm", 15.0, "Gemm", low_us=None, high_us=None),
    layer("Softmax", 1.0, "Softmax", precision=None),
)


def timing(median_us: float) -> Timing:
    return Timing(median_us=median_us, low_us=median_us, high_us=median_us)


def profile(name: str = "student-onnxruntime-int8", profiled_us: float | None = 110.0, **more: object) -> LayerProfile:
    known = {
        "name": name,
        "engine": "onnxruntime",
        "precision": "int8",
        "profiler": "ONNX Runtime 1.31.1",
        "batch": 1,
        "threads": 1,
        "calls": 80,
        "grouped": 1,
        "layers": LAYERS,
        "sum_us": 100.0,
        "unaccounted_us": None if profiled_us is None else profiled_us - 100.0,
        "profiled": None if profiled_us is None else timing(profiled_us),
        "plain": timing(100.0),
        "notes": (),
        "machine": {},
        "measured_at": "2026-11-22T04:00:00+00:00",
    }
    return LayerProfile.model_validate(known | more)


def shown(*profiles: LayerProfile, width: int = 120, most: int = 3) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(LayerTables(profiles, most))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def cells(lines: list[str], begins: str) -> list[str]:
    """The words of the one row that begins so."""
    (line,) = [line for line in lines if line.startswith(begins)]
    return line.removeprefix(begins).split()


def test_the_longest_come_first_and_the_rest_is_summed_up() -> None:
    lines = shown(profile())
    begins = ["net.conv2/Conv", "net.conv1/Conv", "net.fc/Gemm", "2 others"]
    rows = [line for line in lines if line.startswith(tuple(begins))]
    assert [row.startswith(begin) for row, begin in zip(rows, begins, strict=True)] == [True] * 4
    assert cells(lines, "net.conv2/Conv") == ["Conv", "int8", "50.0", "[49.0,", "51.0]", "50.0", "%"]
    assert cells(lines, "net.fc/Gemm") == ["Gemm", "float32", "15.0", "15.0", "%"]
    assert cells(lines, "2 others") == ["5.00", "5.0", "%"]
    assert lines[lines.index(rows[1]) + 1] == "with Relu, Add"


def test_operators_are_added_up_below() -> None:
    lines = shown(profile())
    below = lines[next(place for place, line in enumerate(lines) if line.startswith("by operator")) :]
    assert cells(below, "Conv ") == ["2", "80.0", "80.0", "%"]
    assert cells(below, "student-onnxruntime-int8 ") == ["5", "100", "100.0", "%"]


def test_engines_stand_in_the_same_tables() -> None:
    lines = shown(profile("one"), profile("other"))
    assert (
        sum(line.startswith("layer ") for line in lines) == sum(line.startswith("by operator") for line in lines) == 1
    )
    assert [line.split()[0] for line in lines if line.startswith(("one ", "other "))] == ["one", "other"] * 2


def test_a_narrow_terminal_gets_operator_and_type_below_the_name() -> None:
    lines = shown(profile(), width=80)
    assert max(map(len, lines)) <= 80
    place = next(place for place, line in enumerate(lines) if line.startswith("net.conv1/Conv"))
    assert lines[place + 1] == "Conv float32, with Relu, Add"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "100 µs of a call of 110 µs; 10.0 µs (9.1 %) are in no layer, but in the runtime, copies"),
        (
            {"profiled_us": 80.0},
            "of a call of 80.0 µs; that is 20.0 µs (25.0 %) less than they take one by one.",
        ),
        ({"profiled_us": None}, "The layers add up to 100 µs; without the profiler a call takes 100 µs."),
        ({"profiled_us": 300.0}, "The profiler makes it 3.00 times as long: small layers look longer than they are."),
        ({"grouped": 10}, "batch 1, 1 thread, median of 8 means of 10 calls each on seeded noise"),
        ({"grouped": 80}, "batch 1, 1 thread, median of 80 calls on seeded noise"),
        ({"threads": 2, "notes": ("Mind the gap.",)}, "2 threads"),
        ({"notes": ("Mind the gap.",)}, "Mind the gap."),
    ],
)
def test_how_to_read_it_stands_below(given: dict[str, object], expected: str) -> None:
    found = " ".join(sentences(profile(**given)))  # type: ignore[arg-type]
    assert expected in found
    assert ("times as long" in found) == (given.get("profiled_us") == 300.0)


def drawn(*profiles: LayerProfile, most: int = 24) -> ElementTree.Element:
    return ElementTree.fromstring(draw(profiles, most=most))


def texts(root: ElementTree.Element, kind: str | None) -> list[str]:
    return [found.text or "" for found in root.iter(f"{SVG}text") if found.get("class") == kind]


def test_the_plot_keeps_the_order_of_execution() -> None:
    root = drawn(profile(), most=3)
    assert texts(root, None) == [
        "net.conv1/Conv · Conv",
        "net.conv2/Conv · Conv",
        "net.fc/Gemm · Gemm",
        "2 others",
        "in no layer",
    ]
    assert texts(root, "detail")[-2:] == ["5.00 · 5.0 %", "10.0 · of the call"]
    assert texts(root, "name") == ["student-onnxruntime-int8 · ONNX Runtime 1.31.1 · batch 1"]


def widths(root: ElementTree.Element, kind: str) -> list[float]:
    return [float(found.get("width", 0)) for found in root.iter(f"{SVG}rect") if found.get("class") == kind]


def test_the_bars_of_all_engines_have_one_scale() -> None:
    twice = tuple(one.model_copy(update={"median_us": 2 * one.median_us}) for one in LAYERS)
    root = drawn(profile("one", profiled_us=None), profile("other", profiled_us=None, layers=twice))
    bars = widths(root, "layer")
    assert bars[5:] == pytest.approx([2 * bar for bar in bars[:5]], rel=0.01)
    assert bars[1] == pytest.approx(bars[0] * 5 / 3, rel=0.01)


def test_an_interval_that_runs_off_the_axis_ends_with_it() -> None:
    disturbed = (*LAYERS[:4], LAYERS[4].model_copy(update={"high_us": 5000.0}))
    root = drawn(profile(layers=disturbed, profiled_us=None))
    width = float(root.get("viewBox", "").split()[2])
    ends = [float(found.get("x2", 0)) for found in root.iter(f"{SVG}line") if found.get("class") == "interval"]
    assert len(ends) == 4  # of five layers, one has too few times for an interval
    assert max(ends) < width
    assert max(widths(root, "layer")) > width / 4


def test_layers_side_by_side_leave_no_bar() -> None:
    assert "in no layer" not in texts(drawn(profile(profiled_us=80.0)), None)


def test_the_plot_is_told_to_those_who_cannot_see_it() -> None:
    root = drawn(profile())
    said = root.find(f"{SVG}desc")
    assert said is not None
    assert said.text == (
        "student-onnxruntime-int8: Conv 80.0 %, Gemm 15.0 %, GlobalAveragePool 4.0 %, Softmax 1.0 % of 100 µs in 5 "
        "layers"
    )


def test_names_are_escaped() -> None:
    assert "<b>" not in draw([profile("<b>row</b>", layers=(layer("<b>", 1.0),))])
