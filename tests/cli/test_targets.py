"""`--target` of bench and doctor, and `kdeploy target`: the device is a folder of this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from pathlib import Path

import pytest

from kdeploy.targets import environment
from tests.engines import models
from tests.targets.loopback import TARGET, until

BRIEF = ("--min-time", "0.05", "--min-count", "8", "--target", TARGET)


@pytest.fixture
def file(empty) -> Path:
    return models.save_classifier(Path("one.onnx"), in_graph=False)


@pytest.fixture
def run(place, ready) -> Path:
    """A run's folder with fewer engines; the device has the runtimes that this machine has, but not its data."""
    folder = Path("runs/quickstart")
    keep_engines(folder, 2)
    return folder


def keep_engines(run: Path, count: int) -> None:
    """Those of ONNX Runtime, and as many in all; each takes seconds to measure."""
    by_worth = sorted((run / "engines").iterdir(), key=lambda path: ("onnxruntime" not in path.name, path.name))
    runtimes = {path.name.split("-")[1]: path for path in reversed(by_worth)}
    kept = {*by_worth[:count], *(runtimes.values() if count > 1 else ())}
    for path in set(by_worth) - kept:
        shutil.rmtree(path)


def change(file: Path) -> None:
    """Another file, though it computes the same."""
    import onnx

    model = onnx.load(str(file))
    model.doc_string = "another one"
    onnx.save(model, str(file))


def test_a_run_is_measured_there_and_kept_with_it(kdeploy, run):
    answer = kdeploy("bench", str(run), *BRIEF)
    assert answer.status == 0, answer.err
    kept = run / "devices" / "loopback" / "bench"
    measured = {path.stem: json.loads(path.read_text()) for path in kept.glob("*.json")}
    assert set(measured) == {path.name for path in (run / "engines").iterdir()}
    home = {path.stem: json.loads(path.read_text()) for path in (run / "bench").glob("*.json")}
    for row in set(measured) & set(home):
        assert measured[row]["accuracy"] == home[row]["accuracy"], "the test images have gone along"
        assert measured[row]["size_bytes"] == home[row]["size_bytes"], "and count for nothing"
    assert f"kept  {kept}" in answer.out
    assert f"kdeploy report {run}" in answer.out


def test_a_run_from_within_its_folder_and_from_elsewhere(kdeploy, run, tmp_path, monkeypatch):
    whole = run.absolute()
    engine = next(path for path in sorted((whole / "engines").iterdir()) if "onnxruntime" in path.name)
    (tmp_path / "a folder").mkdir()
    monkeypatch.chdir(tmp_path / "a folder")
    answer = kdeploy("bench", str(engine), *BRIEF, "--json", "-")
    assert answer.status == 0, answer.err
    (found,) = answer.json["measurements"]
    assert (found["name"], found["role"]) == (engine.name, "student" if "student" in engine.name else found["role"])
    assert found["accuracy"] is not None
    Path("link").symlink_to(engine)
    answer = kdeploy("bench", "link", *BRIEF, "--json", "-")
    assert [one["name"] for one in answer.json["measurements"]] == [engine.name], "as it is called here"


def test_two_engines_of_a_run_are_called_in_turns_there(kdeploy, run):
    engines = [str(path) for path in sorted((run / "engines").iterdir()) if "onnxruntime" in path.name][:2]
    answer = kdeploy("bench", *engines, *BRIEF, "--processes", "2", "--json", "-")
    assert answer.status == 0, answer.err
    assert [one["name"] for one in answer.json["measurements"]] == [Path(path).name for path in engines]
    assert answer.json["comparison"]["processes"] == 2
    assert all(one["accuracy"] is not None for one in answer.json["measurements"])


def test_a_bundle_of_a_run(kdeploy, run):
    (bundle,) = run.glob("*.kdz")
    answer = kdeploy("bench", str(bundle), *BRIEF, "--json", "-")
    assert answer.status == 0, answer.err
    assert answer.json["measurements"][0]["accuracy"] is not None


SETUP = f"kdeploy target setup {TARGET} --extra loadgen"


def test_what_is_missing_is_added_to_what_is_there():
    device = environment.Abilities(("onnxruntime",), frozenset(), SETUP)
    assert device.remedy(["tensorrt", "openvino"]) == f" Type: {SETUP} --extra openvino --extra tensorrt"
    assert environment.Abilities((), frozenset(), "").remedy(["openvino"]) == "", "an image has no such command"


def test_a_plan_takes_no_options_of_a_model(kdeploy, tmp_path):
    answer = kdeploy("export", str(tmp_path / "engines.build.json"), "--precision", "int8")
    assert answer.status == 2
    assert answer.said.endswith("says itself what is to be built here: leave all but --out and --json out.")


def test_what_the_device_has_no_runtime_for_is_said(kdeploy, run, monkeypatch):
    there: tuple[str, ...] = ("onnxruntime",)
    monkeypatch.setattr(environment, "abilities", lambda place: environment.Abilities(there, frozenset(), SETUP))
    answer = kdeploy("bench", str(run), *BRIEF)
    assert answer.status == 0, answer.err
    left_out = {path.name for path in (run / "engines").iterdir() if "onnxruntime" not in path.name}
    assert left_out
    for row in left_out:
        assert row in answer.err
        assert not (run / "devices" / "loopback" / "bench" / f"{row}.json").exists()
    assert "the device has no " in answer.err
    there = ()
    answer = kdeploy("bench", str(run), *BRIEF)
    assert answer.status == 5
    assert answer.said.endswith(f"Type: {SETUP}"), "what was installed there before is kept"


def test_int8_for_another_processor_is_warned_of(kdeploy, run, monkeypatch):
    found = environment.Abilities(("onnxruntime",), frozenset({"asimd"}), SETUP)
    monkeypatch.setattr(environment, "abilities", lambda place: found)
    (int8,) = (path.name for path in (run / "engines").iterdir() if "onnxruntime-int8" in path.name)
    answer = kdeploy("bench", str(run), *BRIEF)
    assert f"{int8} is quantised for another processor (x86-" in answer.err
    assert answer.err.count("quantised for another") == 1
    assert f"kdeploy export {run} --target {TARGET}" in answer.err


def test_engines_of_files_that_have_changed_are_not_measured(kdeploy, place, ready, monkeypatch):
    """Built on the device, measured there, and then the run is made again."""
    keep_engines(Path("runs/quickstart"), 1)
    assert kdeploy("export", "runs/quickstart", "--target", TARGET).status == 0
    assert kdeploy("bench", "runs/quickstart", *BRIEF).status == 0
    assert "no more" not in kdeploy("report", "runs/quickstart").out
    built = Path("runs/quickstart/devices/loopback/engines")
    rows = sorted(path.name for path in built.iterdir())
    row = next(row for row in rows if row.startswith("student") and "float32" in row)
    change(Path("runs/quickstart/export/student.float32.onnx"))
    answer = kdeploy("bench", "runs/quickstart", *BRIEF)
    assert answer.status == 2
    assert answer.said == (
        f"{row} of runs/quickstart were built on {TARGET} from other ONNX files than it has now. "
        f"Type: kdeploy export runs/quickstart --target {TARGET}"
    )
    shutil.copytree(built / row, built / "student-onnxruntime-of-before")
    answer = kdeploy("export", "runs/quickstart", "--target", TARGET)  # makes the file again as it was
    assert answer.status == 0, answer.err
    assert sorted(path.name for path in built.iterdir()) == rows, "what is not asked for any more goes"


def test_what_was_measured_of_engines_of_before_is_marked(kdeploy, run):
    keep_engines(run, 1)
    assert kdeploy("bench", str(run), *BRIEF).status == 0
    (engine,) = (run / "engines").iterdir()
    manifest = json.loads((engine / "manifest.json").read_text())
    manifest["files"][manifest["model"]] = "0" * 64
    (engine / "manifest.json").write_text(json.dumps(manifest))
    answer = kdeploy("report", str(run), "--out", "report.md", "--out", "report.html")
    note = "Measured of engines that this run has no more: "
    assert note in answer.out
    assert "To measure on loopback again: kdeploy bench RUN --target TARGET" in Path("report.md").read_text()
    assert note in Path("report.html").read_text()


def test_a_file_of_somebody_is_built_there_and_measured_there(kdeploy, place, ready):
    """Its engines are on the device's side alone."""
    theirs = "runs/quickstart/export/student.float32.onnx"
    answer = kdeploy("export", theirs, "--target", TARGET, "--out", "out")
    assert answer.status == 2
    assert answer.said.startswith(f"Say which engine {TARGET} is to build: --engine onnxruntime")
    assert not Path("out").exists()
    answer = kdeploy("export", theirs, "--engine", "onnxruntime", "--target", TARGET, "--out", "out")
    assert answer.status == 0, answer.err
    assert f"Measure them there:  kdeploy bench out --target {TARGET}" in answer.out
    answer = kdeploy("bench", "out", *BRIEF, "--json", "-")
    assert answer.status == 0, answer.err
    assert [one["engine"] for one in answer.json["measurements"]] == ["onnxruntime"]


def test_a_boards_threads_are_as_many_as_the_device_has_cores(kdeploy, file, ready, monkeypatch):
    core = min(os.sched_getaffinity(0))
    monkeypatch.setenv("KDEPLOY_SSH", f"taskset -c {core} {ready.ssh}")
    answer = kdeploy("bench", "one.onnx", *BRIEF, "--for", "rpi5", "--json", "-")
    assert answer.json["measurements"][0]["threads"] == 1
    assert "threads: 1 (4 suit rpi5, but 1 cores may be used here)" in answer.err


def test_json_alone_on_standard_output(kdeploy, run):
    keep_engines(run, 1)
    answer = kdeploy("bench", str(run), *BRIEF, "--json", "-")
    assert answer.json["schema_version"] == 1
    assert "kept  " in answer.err


def test_what_is_asked_for_comes_home(kdeploy, file, ready, tmp_path):
    words = ("--out", "a folder/raw", "--save", str(tmp_path / "table.csv"), "--json", "../out.json")
    answer = kdeploy("bench", "one.onnx", *BRIEF, *words)
    assert answer.status == 0, answer.err
    assert [path.name for path in Path("a folder/raw").iterdir()] == ["one.json"]
    assert (tmp_path / "table.csv").read_text().count("\n") >= 2
    assert json.loads(Path("../out.json").read_text())["measurements"][0]["name"] == "one"
    assert f"saved  {tmp_path / 'table.csv'}" in answer.out, "its name is that of here"
    assert "other/" not in answer.out + answer.err
    assert not ready.jobs()


def test_results_into_the_folder_that_was_measured(kdeploy, file, ready):
    before = Path("one.onnx").stat().st_mtime_ns
    answer = kdeploy("bench", "one.onnx", *BRIEF, "--out", ".")
    assert answer.status == 0, answer.err
    assert sorted(path.name for path in Path().iterdir()) == ["one.json", "one.onnx"]
    assert Path("one.onnx").stat().st_mtime_ns == before, "what was sent does not come back"


@pytest.mark.parametrize("name", ["-x.onnx", "a b/x y.onnx", "../one.onnx"])
def test_files_of_every_name(kdeploy, file, ready, name):
    Path(name).parent.mkdir(exist_ok=True)
    shutil.copy("one.onnx", f"./{name}")
    answer = kdeploy("bench", *BRIEF, "--json", "-", "--", name)
    assert answer.status == 0, answer.err
    assert [one["name"] for one in answer.json["measurements"]] == [Path(name).stem]


def test_weights_beside_the_file_go_along(kdeploy, empty, ready):
    import onnx

    Path("deep").mkdir()
    model = onnx.load(str(models.save_classifier(Path("one.onnx"), in_graph=False)))
    onnx.save(model, "deep/one.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert Path("deep/weights.bin").is_file()
    answer = kdeploy("bench", str(Path("deep/one.onnx").absolute()), *BRIEF, "--json", "-")
    assert answer.status == 0, answer.err


def test_a_baseline_goes_along(kdeploy, file, ready):
    assert kdeploy("bench", "one.onnx", *BRIEF, "--json", "before.json").status == 0
    words = ("--against", str(Path("before.json").absolute()), "--fail-if", "size > -1%")
    answer = kdeploy("bench", "one.onnx", *BRIEF, *words)
    assert answer.status == 3
    assert answer.said == f"{TARGET}: It became worse than allowed: one: size > -1%."
    assert "one · ONNX Runtime" in answer.out


def test_what_is_wrong_is_said_before_anything_is_sent(kdeploy, file, monkeypatch):
    monkeypatch.setenv("KDEPLOY_SSH", "false")
    answer = kdeploy("bench", "two.onnx", *BRIEF)
    assert (answer.status, "There is no two.onnx" in answer.said) == (2, True)
    answer = kdeploy("bench", "one.onnx", *BRIEF)
    assert answer.status == 5
    assert answer.said.startswith("pi@loopback can't be reached: the connection ended with status 1.")
    assert answer.said.endswith("Try first whether this works: false -l pi loopback true")


def test_a_device_that_was_not_set_up(kdeploy, file, loopback):
    answer = kdeploy("bench", "one.onnx", *BRIEF)
    assert answer.status == 5
    assert answer.said == f"{TARGET} has no environment for kdeploy yet. Type: kdeploy target setup {TARGET}"
    assert not loopback.kept.exists()


def test_an_interruption_leaves_nothing_there(kdeploy, file, ready):
    main = threading.get_ident()

    def interrupt() -> None:
        until(lambda: any("-m kdeploy bench" in line for line in ready.processes()), 60)
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    answer = kdeploy("bench", "one.onnx", "--min-time", "60", "--target", TARGET)
    thread.join()
    assert answer.status == 130
    assert "kdeploy: interrupted" in answer.err
    assert not ready.jobs()
    until(lambda: not ready.processes(), 2)


def test_doctor_of_a_device_names_what_to_type_here(kdeploy, empty, ready):
    state = json.loads((ready.kept / "state.json").read_text())
    (ready.kept / "state.json").write_text(json.dumps(state | {"extras": []}))
    answer = kdeploy("doctor", "--target", TARGET, "--json", "-")
    assert answer.status == 0, answer.err
    findings = {one["what"]: one for one in answer.json["findings"]}
    assert "kdeploy[openvino]" in findings
    assert not {"kdeploy[train]", "kdeploy[timm]", "kdeploy[hf]", "kdeploy[simplify]", "kdeploy[onnx]"} & set(findings)
    lacks = [one["fix"] for name, one in findings.items() if name.startswith("kdeploy[") and one["fix"]]
    assert lacks, "there is something that the tests do not install: TensorRT"
    assert all(fix.startswith(f"kdeploy target setup {TARGET} --extra ") for fix in lacks)
    assert "pip install 'kdeploy[" not in answer.out


def test_doctor_with_a_board_file_of_ones_own(kdeploy, empty, ready):
    from kdeploy.machine import boards

    shutil.copy(boards.file("rpi5"), "my board.yaml")
    answer = kdeploy("doctor", "--target", TARGET, "--for", str(Path("my board.yaml").absolute()))
    assert answer.status == 0, answer.err
    assert "board my board" in answer.out
    assert "another machine" in answer.out, "it is compared with the device"


def test_setup_ends_with_what_the_device_can_do(kdeploy, empty, loopback, made_ready, monkeypatch):
    """Its packages lie beside it: a pip that installs none is enough here."""
    monkeypatch.setattr(environment, "_install", lambda *given, carry: loopback.add_packages() or "index")
    answer = kdeploy("target", "setup", TARGET, "--json", "-")
    assert answer.status == 0, answer.err
    assert any(one["what"] == "onnxruntime" and one["level"] == "ok" for one in answer.json["findings"])
    assert f"Ready:  kdeploy bench ARTIFACT --target {TARGET}" in answer.err


def test_clean_leaves_nothing_there(kdeploy, empty, ready):
    answer = kdeploy("target", "clean", TARGET, "--json", "-")
    assert answer.status == 0, answer.err
    assert answer.json["size_bytes"] > 0
    assert list(ready.home.iterdir()) == []
    answer = kdeploy("target", "clean", TARGET)
    assert (answer.status, answer.out) == (0, f"{TARGET}: there was nothing of ours.\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stup", TARGET], "cannot 'stup'. Did you mean 'setup'?"),
        (["setup", "local"], "This machine needs no setting up"),
        (["setup", "container:edge"], "there is nothing to set up"),
        (["clean", TARGET, "--wheels"], "--extra and --wheels are for setup"),
        (["setup", TARGET, "--extra", "opnvino"], "kdeploy has no extra 'opnvino'"),
        (["setup", "ssh://pi:secret@host"], "ssh://pi:***@host"),
        (["setup", "pi@host"], "'pi@host' is no target. Did you mean 'ssh://pi@host'?"),
        (["clean", "container:edge"], "nothing stays"),
    ],
)
def test_words_that_do_not_go_together(kdeploy, empty, loopback, words, said):
    answer = kdeploy("target", *words)
    assert answer.status == 2
    assert said in answer.said
