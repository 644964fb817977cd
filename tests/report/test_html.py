from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

from kdeploy.bench.results import LayerTime, Verdict
from kdeploy.report.charts import tradeoff
from kdeploy.report.charts.costs import LATENCY, MEMORY, SIZE
from kdeploy.report.data import EpochScore, LayerCost, ReportedEpochs
from kdeploy.report.described import described
from kdeploy.report.formats.data import data_of
from kdeploy.report.html import render, write_report
from kdeploy.report.rows import rows_from
from kdeploy.report.sections.results import measured_on
from kdeploy.report.seeds import accuracy_gain, aggregate, mean_of
from tests.report.example import LINEAGE, latency, measurements, report, sensitivity, whole_report

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
VOID = {"meta", "rect", "line", "circle", "path", "br"}


class Page(HTMLParser):
    """The elements of a page, with their attributes; fails on tags that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag != "meta":
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def having(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def downloaded(page: Page, kind: str) -> str:
    address = next(one["href"] for one in page.having("a") if one["href"].startswith(f"data:{kind}"))
    return base64.b64decode(address.partition("base64,")[2]).decode()


def test_well_formed_and_whole(tmp_path):
    write_report(tmp_path / "report.html", report())
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    text = " ".join("".join(page.text).split())
    for heading in ("Results", "Accuracy against latency", "How steady the latency is", "Training", "Checks"):
        assert heading in text
    assert "student · ONNX Runtime int8 ships in place of teacher · PyTorch float32" in text
    assert "105× faster" in text
    assert "112× smaller" in text
    assert "−1.7 points" in text
    assert "95 % interval [95.3, 98.7] %" in text
    idents = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(idents) == len(set(idents))


def test_nothing_is_loaded_from_anywhere():
    text = render(report())
    assert "http://" not in text
    assert "https://" not in text
    page = Page(text)
    assert not [tag for tag, attributes in page.elements if "src" in attributes]
    assert not page.having("link")
    assert {one["href"].partition(":")[0] for one in page.having("a")} == {"data"}
    assert "url(" not in text
    assert "@import" not in text


def test_the_policy_lets_only_our_script_run():
    text = render(report())
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(one["content"] for one in Page(text).having("meta") if "http-equiv" in one)
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_every_name_is_escaped():
    hostile = [
        one.model_copy(
            update={
                "name": HOSTILE + one.name,
                "role": "student-" + HOSTILE,
                "machine": {"processor": HOSTILE},
                "layers": (LayerTime(name=HOSTILE, operator=HOSTILE, median_us=1.0, share=1.0),),
                "verdict": Verdict(valid=False, reasons=(HOSTILE,), warnings=(HOSTILE,)),
            }
        )
        for one in measurements()
    ]
    example = report()
    layer = LayerCost(layer=HOSTILE, operator=HOSTILE, divergence=0.1, same_class=0.9, accuracy_points=None)
    text = render(
        report(
            title=HOSTILE,
            about=HOSTILE,
            recipe_yaml=HOSTILE,
            measurements=hostile,
            rows=rows_from(hostile, baseline=hostile[-1].name),
            baseline=hostile[-1].name,
            shipped=hostile[0].name,
            curves={HOSTILE: example.curves["student"]},
            parity={HOSTILE: example.parity["student.int8.onnx"]},
            gates=[
                example.gates[0].model_copy(
                    update={"name": HOSTILE, "bound": HOSTILE, "value": HOSTILE, "passed": False}
                )
            ],
            provenance=[example.provenance[0].model_copy(update={"name": HOSTILE, "outputs": {HOSTILE: "00" * 32}})],
            machine={HOSTILE: HOSTILE},
            warnings=[HOSTILE],
            paths={HOSTILE: HOSTILE},
            lineage=[one.model_copy(update={"name": HOSTILE}) for one in LINEAGE],
            sensitivity=[sensitivity().model_copy(update={"name": HOSTILE, "layers": (layer,)})],
        )
    )
    page = Page(text)
    assert len(page.having("script")) == 1
    assert not page.having("img")
    assert not [attributes for _, attributes in page.elements if "onerror" in attributes]
    assert "".join(page.text).count("<script>alert(1)</script>") > 15


def test_the_table_can_be_sorted():
    page = Page(render(report()))
    assert len([one for one in page.having("table") if "sortable" in one.get("class")]) == 3
    cells = [one["data-value"] for one in page.having("td") if "data-value" in one]
    results, latencies, before_and_within = 6 * 9, 12 * 8, 6 * 7
    assert len(cells) == results + latencies + before_and_within
    assert "" in cells  # the p99 that too few calls support
    places = [one["data-value"] for one in page.having("th") if "data-value" in one]
    assert places == [str(place) for place in [*range(6), *range(12), *range(6)]]
    headings = [one for one in page.having("th") if one.get("scope") == "col"]
    assert headings[1]["data-first"] == "descending"


def test_charts_say_in_words_what_they_show():
    page = Page(render(report()))
    drawings = [one for one in page.having("svg") if "aria-hidden" not in one]
    assert len(drawings) == 9
    assert all(one["role"] == "img" and one["aria-labelledby"] for one in drawings)
    text = "".join(page.text)
    assert "student · ONNX Runtime int8: 97.5 % at 0.0413 ms" in text
    assert "alone · PyTorch float32: p50 0.983 ms · p99 n/a · 500 calls" in text


def test_failed_gates_and_warnings_come_first():
    failed = report().gates[1].model_copy(update={"passed": False, "value": "2.4 points"})
    text = "".join(Page(render(report(gates=[report().gates[0], failed], warnings=["the clock moved"]))).text)
    assert "1 of 2 gates does not hold" in text
    assert "int8 drop: 2.4 points; asked for: at most 1.0 points below float32" in text
    assert text.index("gates does not hold") < text.index("the clock moved") < text.index("Press a heading")


def test_seeds_are_shown_with_the_gain():
    rows = list(report().rows)
    better = [row.model_copy(update={"accuracy": 0.99}) if row.role == "student" else row for row in rows]
    gain = accuracy_gain([rows, better], "student-pytorch-float32", over="alone-pytorch-float32")
    text = "".join(Page(render(report(seeds=aggregate([rows, better]), gain=gain))).text)
    assert "Means over 2 seeds" in text
    assert "paired by seed: +2.6 points [-5.2, +10.3]" in text


def test_several_students_ship_and_gain_each_for_itself():
    float32 = "student-onnxruntime-float32"
    example = report(also_shipped=[float32], seeds=aggregate([list(report().rows)] * 2))
    gains = {"gain": mean_of([0.01, 0.03]), "further_gains": {"student-2": mean_of([0.04, 0.06])}}
    text = render(example.model_copy(update=gains))
    assert text.count('<div class="verdict">') == 2
    told = "".join(Page(text).text)
    assert "paired by seed: +2.0 points [-10.7, +14.7]; student-2 +5.0 points [-7.7, +17.7]." in told
    assert render(report()).count('<div class="verdict">') == 1
    assert '<div class="verdict">' not in render(report(shipped=None))


def test_a_run_that_measured_little_still_has_a_report():
    bare = [one.model_copy(update={"accuracy": None, "latency": ()}) for one in measurements()[:1]]
    text = render(
        report(
            measurements=bare,
            rows=rows_from(bare, baseline=bare[0].name),
            baseline=bare[0].name,
            shipped=None,
            curves={},
            parity={},
            gates=[],
            provenance=[],
            paths={},
            revision=None,
        )
    )
    page = Page(text)
    assert not [one for one in page.having("svg") if "aria-hidden" not in one]
    assert "n/a" in "".join(page.text)


def test_the_data_go_with_it():
    page = Page(render(report()))
    content = json.loads(downloaded(page, "application/json"))
    assert content == data_of(report())
    assert content["rows"][0]["name"] == "teacher · PyTorch float32"
    first = content["measurements"][0]["latency"][0]
    assert "samples_ms" not in first
    assert len(first["quantiles_ms"]) == 101
    assert first["quantiles_ms"] == sorted(first["quantiles_ms"])
    table = downloaded(page, "text/csv").splitlines()
    assert table[0].startswith("seed,key,name,role,engine,precision,accuracy")
    assert len(table) == 7


def test_a_large_run_stays_below_the_bound():
    import numpy as np

    many = latency(1, np.random.default_rng(0).lognormal(0, 0.1, 50_000))
    found = [
        one.model_copy(update={"name": f"{one.name}-{copy}", "latency": (many, *one.latency)})
        for one in measurements()
        for copy in range(4)
    ]
    curves = {f"assistant-{place}": report().curves["student"] * 10 for place in range(5)}
    text = render(report(measurements=found, rows=rows_from(found, baseline=found[-1].name), curves=curves))
    assert len(text.encode()) < 1_500_000


def test_the_front_is_what_nothing_beats():
    rows = report().rows
    assert [row.key for row in tradeoff.pareto(rows, LATENCY)] == [
        "student-onnxruntime-int8",
        "student-onnxruntime-float32",
        "teacher-onnxruntime-float32",
    ]


def test_described():
    assert described({"logical": 2, "flags": ["avx2", "vnni"], "governor": None}) == (
        "logical 2, flags avx2, vnni, governor unknown"
    )
    assert described(True) == "yes"
    assert described([]) == "none"


def test_each_machine_is_named_once():
    found = measurements()
    other = found[0].model_copy(update={"machine": {"processor": "Cortex-A76"}, "threads": 4})
    assert measured_on([*found, other]) == ("Intel(R) Xeon(R) Processor @ 2.10GHz, 1 thread; Cortex-A76, 4 threads")


def test_both_reported_epochs_are_shown():
    last = EpochScore(epoch=19, validation_accuracy=0.951, test_accuracy=0.942)
    chosen = EpochScore(epoch=16, validation_accuracy=0.958, test_accuracy=0.939)
    epochs = {"student": ReportedEpochs(selected="last", test_samples=360, last=last, chosen=chosen)}
    page = render(report().model_copy(update={"epochs": epochs}))
    row = page.split("Last epoch, and the epoch chosen on validation")[1].split("</tbody>")[0]
    for figure in ("20", "95.1 %", "94.2 %", "17", "95.8 %", "93.9 %", "last epoch"):
        assert figure in row


def test_sections_stand_where_there_is_something_to_show():
    whole, part = ([heading["id"] for heading in Page(render(one)).having("h2")] for one in (whole_report(), report()))
    assert whole == (
        ["results", "tradeoff", "steadiness", "footprint", "layers", "training", "checks", "sensitivity", "provenance"]
    )
    assert part == [one for one in whole if one not in ("footprint", "layers", "sensitivity")]
    assert "memory" not in "".join(Page(render(report())).text).partition("Accuracy against its price")[0].lower()


def test_fronts_of_size_and_memory():
    rows = whole_report().rows
    assert tradeoff.pareto(rows, SIZE)[0].key == "student-onnxruntime-int8"
    assert [row.key for row in tradeoff.pareto(rows, MEMORY)] == [
        "student-onnxruntime-int8",
        "student-onnxruntime-float32",
        "teacher-onnxruntime-float32",
    ]
    assert tradeoff.pareto(report().rows, MEMORY) == []


def test_what_is_not_valid_is_said_first_and_in_its_row():
    text = render(whole_report())
    told = "".join(Page(text).text)
    assert "1 of 6 measurements is invalid" in told
    assert "alone · PyTorch float32: the medians of its halves are 7.1 % apart, over 5 %" in told
    assert "To be known of these figures: temperatures." in told
    assert text.count('<span class="tag bad">invalid</span>') == 1


def test_a_network_of_many_layers_stays_below_the_bound():
    long = [
        LayerTime(name=f"/a/rather/long/name/of/a/layer.{place}/Conv", operator="Conv", median_us=1.0, share=1e-3)
        for place in range(1000)
    ]
    found = [one.model_copy(update={"layers": tuple(long)}) for one in whole_report().measurements]
    assert len(render(whole_report(measurements=found)).encode()) < 1_500_000
