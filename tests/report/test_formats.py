from __future__ import annotations

import csv
import io
import json

import jsonschema
import pytest

from kdeploy.errors import UserError
from kdeploy.report.formats import files
from kdeploy.report.formats.dashboard import dashboard
from kdeploy.report.formats.data import data_of, schema
from kdeploy.report.formats.tables import Table, results_to_csv, to_csv
from tests.report.example import measurements, report, whole_report


def written(tmp_path, name: str, data=None) -> str:
    data = data or whole_report()
    files.write(tmp_path / name, data, {0: data.rows, 1: data.rows})
    return (tmp_path / name).read_text(encoding="utf-8")


def test_the_data_keep_their_schema():
    found = schema()
    jsonschema.Draft202012Validator.check_schema(found)
    for one in (report(), whole_report()):
        jsonschema.validate(json.loads(json.dumps(data_of(one))), found)
    broken = data_of(report())
    broken["measurements"][0]["latency"][0]["samples_ms"] = [1.0]
    with pytest.raises(jsonschema.ValidationError, match="samples_ms"):
        jsonschema.validate(json.loads(json.dumps(broken)), found)


def test_the_ending_is_the_format(tmp_path):
    assert written(tmp_path, "a.html").startswith("<!doctype html>")
    assert written(tmp_path, "a.md").startswith("# quickstart\n")
    assert json.loads(written(tmp_path, "a.json")) == json.loads(json.dumps(data_of(whole_report())))
    assert json.loads(written(tmp_path, "a.schema.json")) == schema()
    assert json.loads(written(tmp_path, "a.dashboard.json")) == dashboard(whole_report().measurements, "quickstart")
    with pytest.raises(UserError, match=r"a\.txt: a report is a file ending in \.html, \.md, .* or \.json\."):
        files.ending_of(tmp_path / "a.txt")


def test_the_rows_of_each_seed_as_csv(tmp_path):
    lines = list(csv.DictReader(io.StringIO(written(tmp_path, "a.csv"))))
    assert [line["seed"] for line in lines] == ["0"] * 6 + ["1"] * 6
    first, alone = lines[0], lines[2]
    assert first["name"] == "teacher · PyTorch float32"
    assert float(first["p50_ms"]) == whole_report().rows[0].p50_ms, "the same number, not a rounded one"
    assert (alone["p99_ms"], alone["valid"]) == ("", "False")
    assert alone["reasons"] == "the medians of its halves are 7.1 % apart, over 5 %"


def test_cells_are_quoted():
    assert to_csv(Table(("a", "b"), (('x,"y"', None), ("line\nbreak", 1.5)))) == 'a,b\n"x,""y""",\n"line\nbreak",1.5\n'
    assert results_to_csv({}).startswith("seed,key,name,")


def test_a_dashboard_has_figures_of_which_less_is_better():
    found = {one["name"]: one for one in dashboard(whole_report().measurements, "digits")}
    assert all(
        {"name", "unit", "value"} <= set(one) <= {"name", "unit", "value", "range", "extra"} for one in found.values()
    )
    assert all(isinstance(one["value"], int | float) for one in found.values())
    int8 = "digits · student · ONNX Runtime int8"
    by_name = {one.name: one for one in whole_report().measurements}
    measured = by_name["student-onnxruntime-int8"]
    p50 = measured.latency[0].p50
    assert found[f"{int8} · p50"]["value"] == p50.value_ms
    assert found[f"{int8} · p50"]["range"] == f"± {p50.high_ms - p50.value_ms:.3g}"
    assert found[f"{int8} · size"] == {"name": f"{int8} · size", "unit": "bytes", "value": 38_912}
    assert found[f"{int8} · peak memory"]["value"] == measured.memory.peak_bytes
    assert found[f"{int8} · top-1 error"]["value"] == pytest.approx(100 * 9 / 360)
    assert found[f"{int8} · top-1 error"]["unit"] == "%"
    assert "digits · alone · PyTorch float32 · p99" not in found, "too few calls support it"


def test_a_dashboard_of_a_file_that_was_only_timed():
    bare = measurements()[0].model_copy(update={"accuracy": None, "latency": ()})
    assert [one["unit"] for one in dashboard([bare])] == ["bytes"]
