"""The whole line through the real verbs: from a recipe to a prediction, and what can be done with the run after."""

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.answer import COMMAND, environment, in_a_process, short
from tests.without import run_without

RUN = "runs/quickstart"
ROWS = [
    "teacher-pytorch",
    "teacher-onnxruntime-float32",
    "alone-pytorch",
    "student-pytorch",
    "student-onnxruntime-float32",
    "student-onnxruntime-int8",
]


def test_from_nothing_to_a_table(finished):
    folder, answer = finished
    assert answer.status == 0, answer.err
    assert [path.name for path in folder.iterdir()] == ["runs"]
    run = folder / RUN
    assert (run / "report.html").stat().st_size > 50_000
    assert (run / "quickstart.kdz").is_file()
    assert (run / "networks" / "student" / "student.safetensors").is_file()
    lines = answer.out.splitlines()
    for name in ("teacher · PyTorch float32", "alone · PyTorch float32", "student · ONNX Runtime int8"):
        assert any(line.startswith(name) for line in lines), "no row is folded where there is no terminal"


def test_decisions_and_progress_are_on_standard_error(finished):
    _, answer = finished
    assert "· device: cpu (" in answer.err
    assert "· int8 scheme: " in answer.err
    assert "- the teacher: " in answer.err
    assert "device" not in answer.out
    assert "\x1b" not in answer.out + answer.err, "no colours, and no bars that move, where there is no terminal"


def test_the_last_line_runs_from_the_same_folder_without_torch_and_onnx(finished, tmp_path):
    folder, answer = finished
    last = answer.out.splitlines()[-1]
    assert last.startswith("Try it:  kdeploy predict ")
    words = shlex.split(last.removeprefix("Try it:"))
    paths = [str(folder / word) for word in words[2:]]
    main = "from kdeploy.cli.main import main; main()"
    absent = {"torch", "torchvision", "onnx", "onnxscript", "sklearn", "scipy", "lightning_fabric", "safetensors"}
    done = run_without(absent, ["-c", main, "predict", *paths, "--json", "-"], tmp_path)
    assert done.returncode == 0, done.stderr
    (prediction,) = json.loads(done.stdout)["predictions"]
    assert prediction["input"].endswith("digit-7.png")
    assert prediction["class"] in list("0123456789")
    assert prediction["probability"] == max(one["probability"] for one in prediction["top"])


def test_the_last_line_can_be_pasted_where_paths_have_spaces(place, tmp_path):
    spaced = "my runs/the first"
    Path("my runs").mkdir()
    Path(RUN).rename(spaced)
    answer = in_a_process(["run", "quickstart", *short(), "--out", spaced], place)
    assert answer.status == 0, answer.err
    line = answer.out.splitlines()[-1].removeprefix("Try it:  ")
    path = tmp_path / "bin"
    path.mkdir()
    (path / "kdeploy").write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
    (path / "kdeploy").chmod(0o755)
    done = subprocess.run(
        line,
        shell=True,
        cwd=place,
        env=environment(PATH=f"{path}:{os.environ['PATH']}"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "digit-7.png" in done.stdout


def test_the_same_command_again_skips_what_is_done(place, kdeploy):
    before = {path: path.stat().st_mtime_ns for path in Path(RUN).rglob("*") if path.is_file()}
    answer = kdeploy("run", "quickstart", *short(), "--json", "-")
    assert answer.status == 0
    assert answer.err.count("done before") > 20
    assert [row["key"] for row in answer.json["rows"]] == ROWS
    assert answer.json["schema_version"] == 1
    assert "Try it:" in answer.err, "only JSON is on standard output"
    after = {path: path.stat().st_mtime_ns for path in Path(RUN).rglob("*") if path.is_file()}
    assert {path.name for path in after if after[path] != before.get(path)} == {"run.log"}


def test_bench_of_one_engine_uses_the_test_images_of_its_run(place, kdeploy):
    words = ["--min-time", "0.02", "--min-count", "4", "--batch", "2", "--out", "raw", "--json", "-"]
    answer = kdeploy("bench", f"{RUN}/engines/student-onnxruntime-int8", *words)
    assert answer.status == 0, answer.err
    (row,) = answer.json["rows"]
    assert row["samples"] == 359
    (measured,) = answer.json["measurements"]
    assert [latency["batch"] for latency in measured["latency"]] == [1, 2]
    raw = json.loads(Path("raw/student-onnxruntime-int8.json").read_text())
    assert raw == measured


def test_bench_of_a_bundle_outside_its_run_has_no_images(place, kdeploy):
    Path(RUN, "quickstart.kdz").rename("shipped.kdz")
    answer = kdeploy("bench", "shipped.kdz", "--min-time", "0.02", "--min-count", "4", "--json", "-")
    assert answer.status == 0, answer.err
    (row,) = answer.json["rows"]
    assert row["accuracy"] is None
    assert row["p50_ms"] > 0


def test_bench_on_a_device_without_the_data_says_so(place):
    words = [f"{RUN}/engines/student-onnxruntime-int8", "--min-time", "0.02", "--min-count", "4", "--json", "-"]
    absent = {"torch", "onnx", "sklearn", "scipy"}
    done = run_without(absent, [*COMMAND[1:], "bench", *words], place)
    assert done.returncode == 0, done.stderr
    assert "accuracy is not measured" in done.stderr
    assert "scikit-learn" in done.stderr
    assert json.loads(done.stdout)["rows"][0]["accuracy"] is None


def test_bench_tells_the_engines_of_two_runs_apart(place, kdeploy):
    Path("other/engines").mkdir(parents=True)
    Path(f"{RUN}/engines/student-onnxruntime-int8").rename("other/engines/student-onnxruntime-int8")
    Path(f"{RUN}/engines/student-onnxruntime-float32").rename(f"{RUN}/engines/student-onnxruntime-int8")
    engines = [f"{RUN}/engines/student-onnxruntime-int8", "other/engines/student-onnxruntime-int8"]
    answer = kdeploy("bench", *engines, "--min-time", "0.02", "--min-count", "2", "--out", "raw", "--json", "-")
    assert answer.status == 0, answer.err
    names = [measured["name"] for measured in answer.json["measurements"]]
    assert names == [f"{at}-engines-student-onnxruntime-int8" for at in ("runs-quickstart", "other")]
    assert {path.stem for path in Path("raw").iterdir()} == set(names)


def test_report_again_and_elsewhere(place, kdeploy):
    answer = kdeploy("report", RUN, "--out", "here.html", "--json", "rows.json")
    assert answer.status == 0
    assert "report  here.html" in answer.out
    assert Path("here.html").read_text().startswith("<!")
    assert json.loads(Path("rows.json").read_text())["report"] == "here.html"


def test_bundle_of_a_named_engine_predicts(place, kdeploy):
    answer = kdeploy("bundle", RUN, "--engine", "student-onnxruntime-int8", "--out", "int8.kdz", "--json", "-")
    assert answer.status == 0
    assert answer.json["provenance"]["engine"] == "student-onnxruntime-int8"
    pictures = sorted(map(str, Path(RUN).glob("digit-*.png")))
    answer = kdeploy("predict", "int8.kdz", *pictures)
    assert answer.status == 0
    assert [line.split()[0] for line in answer.out.splitlines()[2:]] == pictures


def test_bundle_by_itself_takes_the_fastest_and_says_so(place, kdeploy):
    answer = kdeploy("bundle", RUN)
    assert answer.status == 0
    assert "· bundle: student-onnxruntime-" in answer.err
    assert "fastest engine that holds the gates" in answer.err


def test_bundle_names_the_engines_that_there_are(place, kdeploy):
    answer = kdeploy("bundle", RUN, "--engine", "student-onnxruntime-int4")
    assert answer.status == 2
    assert "'student-onnxruntime-int4'. Did you mean 'student-onnxruntime-int8'?" in answer.said


def test_export_of_a_run_shows_parity(place, kdeploy):
    answer = kdeploy("export", RUN, "--json", "-")
    assert answer.status == 0
    files = {Path(one["path"]).name: one["parity"] for one in answer.json["files"]}
    int8 = next(name for name in files if name.startswith("student.int8-"))  # named after this machine's scheme
    assert set(files) == {"student.float32.onnx", int8, "teacher.float32.onnx"}
    assert files["student.float32.onnx"]["cosine_similarity"] >= 0.9999
    assert files["student.float32.onnx"]["samples"] == 256


def test_sensitivity_of_a_run_shows_every_layer(place, kdeploy):
    answer = kdeploy("sensitivity", RUN, "--samples", "40", "--json", "-")
    assert answer.status == 0
    assert answer.json["images"] == {"samples": 40, "split": "validation", "what": "real images"}
    layers = [cost["layer"] for cost in answer.json["layers"]]
    assert len(layers) == len(set(layers)) == 14  # convolutions, additions, pool, classifier
    assert Path(RUN, "sensitivity", f"student.{answer.json['scheme']}.svg").is_file()
    answer = kdeploy("sensitivity", RUN, "--role", "teacher")
    assert answer.status == 2
    assert "'teacher' is not compiled in this run; choose from: student." in answer.said


def test_export_refuses_options_that_the_recipe_of_a_run_decides(place, kdeploy):
    answer = kdeploy("export", RUN, "--opset", "20", "--out", "x")
    assert answer.status == 2
    assert answer.said.endswith("leave out --out, --opset.")


def test_distill_of_a_finished_run_lists_its_networks(place, kdeploy):
    answer = kdeploy("distill", "quickstart", *short(), "--json", "-")
    assert answer.status == 0
    networks = {network["role"]: network for network in answer.json["networks"]}
    assert set(networks) == {"teacher", "alone", "student"}
    assert networks["student"]["history"]["teacher_agreement"] > 0.2
    assert Path(networks["student"]["weights"]).is_file()


def test_layers_are_profiled_where_the_recipe_asks_for_it(place, kdeploy):
    answer = kdeploy("run", "quickstart", *short(bench_layers="true"))
    assert answer.status == 0, answer.err
    measured = json.loads(Path(RUN, "bench", "student-onnxruntime-int8.json").read_text())
    assert {layer["operator"] for layer in measured["layers"]} & {"QLinearConv", "QGemm"}
    assert json.loads(Path(RUN, "bench", "student-pytorch.json").read_text())["layers"] is None
    assert 'id="layers"' in Path(RUN, "report.html").read_text()


def test_report_of_runs_that_are_no_seeds_of_one_another(place, kdeploy):
    copy = Path("runs/again")
    shutil.copytree(RUN, copy)
    answer = kdeploy("report", RUN, str(copy), "--json", "rows.json")
    shutil.rmtree(copy)
    assert answer.status == 0, answer.err
    found = json.loads(Path("rows.json").read_text())
    assert found["report"] == "runs/report.html"
    assert {row["key"][0] for row in found["rows"]} == {"A", "B"}
    assert "student-B · ONNX Runtime int8" in answer.out
    assert "B  runs/again" in answer.out


def test_report_as_markdown(place, kdeploy):
    answer = kdeploy("report", RUN, "--out", "table.md")
    assert answer.status == 0, answer.err
    assert "| teacher · PyTorch float32 |" in Path("table.md").read_text()


def test_a_gate_that_does_not_hold_leaves_table_and_report(place, kdeploy):
    for name in ("gates.json", "report.html"):
        Path(RUN, name).unlink()
    recipe = Path(RUN, "recipe.yaml")
    recipe.write_text(recipe.read_text().replace("student_gain_points: null", "student_gain_points: 99.0"))
    answer = kdeploy("run", "quickstart", *short(gates_student__gain__points="99"))
    assert answer.status == 3
    assert answer.said.startswith("a gate did not hold: student_gain_points (student-pytorch): distilled at least 99")
    assert "student · ONNX Runtime int8" in answer.out
    assert "Try it:" in answer.out
    assert Path(RUN, "report.html").is_file()


def test_a_parity_that_fails_fails_export(place, kdeploy):
    record = Path(RUN, "export", "student.float32.parity.json")
    assert kdeploy("export", RUN).status == 0
    content = json.loads(record.read_text())
    content.update(passed=False, reasons=["cosine similarity 0.9 is below 0.9999"])
    run_json = Path(RUN, "run.json")
    from kdeploy.artifacts import sha256_file

    old = sha256_file(record)
    record.write_text(json.dumps(content))
    run_json.write_text(run_json.read_text().replace(old, sha256_file(record)))
    answer = kdeploy("export", RUN)
    assert answer.status == 3
    assert "student.float32.onnx" in answer.said
    assert "FAILED" in answer.out


def test_runs_lists_and_deletes(place, kdeploy):
    (run,) = kdeploy("runs", "--json", "-").json["runs"]
    assert run["run"] == RUN
    assert run["last_stage"] == "report"
    assert run["size_bytes"] == sum(path.stat().st_size for path in Path(RUN).rglob("*") if path.is_file())
    assert "report" in kdeploy("runs").out
    asked = kdeploy("runs", "--delete", RUN)
    assert asked.status == 2, "there is nobody to ask"
    assert "--yes" in asked.said
    assert Path(RUN).is_dir()
    assert kdeploy("runs", "--delete", RUN, "--yes").status == 0
    assert not Path(RUN).exists()


def test_a_damaged_record_does_not_hide_the_other_runs(place, kdeploy):
    Path("runs/broken").mkdir()
    Path("runs/broken/run.json").write_text("{")
    answer = kdeploy("runs")
    assert answer.status == 0
    assert RUN in answer.out
    assert "! runs/broken/run.json" in answer.err


@pytest.mark.parametrize("other", ["x/summary.txt", "x/seed-0/run.json"])
def test_only_runs_are_deleted(other, empty, kdeploy):
    Path(other).parent.mkdir(parents=True)
    Path(other).write_text("{}")
    Path("x/mine.txt").write_text("precious")
    answer = kdeploy("runs", "--delete", "x", "--yes")
    assert answer.status == 2
    assert Path("x/mine.txt").is_file()
