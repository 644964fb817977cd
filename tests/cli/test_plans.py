"""What a run does with a folder: plans, changed recipes, fresh starts, other places, several seeds."""

import json
from pathlib import Path

import pytest

from tests.cli.answer import short

RUN = "runs/quickstart"


def test_a_dry_run_prints_the_plan_and_writes_nothing(empty, kdeploy):
    answer = kdeploy("run", "quickstart", *short(), "--dry-run")
    assert answer.status == 0
    assert "networks/teacher" in answer.out
    assert "the fastest of a few steps, times" in answer.out
    assert "on disk under runs/quickstart; downloads: none." in answer.out
    assert list(empty.iterdir()) == []


def test_a_dry_run_as_json_of_two_seeds_counts_the_teacher_once(empty, kdeploy):
    plan = kdeploy("run", "quickstart", *short(), "--dry-run", "--seeds", "0,1", "--json", "-").json
    assert plan["schema_version"] == 1
    stages = [step["stage"] for step in plan["steps"]]
    assert "seed 0: networks/teacher" in stages
    assert "seed 1: networks/teacher" not in stages
    assert plan["seconds"] == pytest.approx(sum(step["seconds"] for step in plan["steps"]))
    assert list(empty.iterdir()) == []


def test_a_dry_run_says_what_would_be_downloaded(empty, kdeploy):
    words = ["--set", "data.source=torchvision:CIFAR10", "--set", f"data.root={empty}/data"]
    answer = kdeploy("run", "quickstart", *short(), *words, "--dry-run")
    assert answer.status == 0
    assert "downloads: the data set torchvision:CIFAR10" in answer.out
    assert "not known yet" in answer.out
    assert list(empty.iterdir()) == []


def test_a_dry_run_of_a_finished_run(place, kdeploy):
    steps = kdeploy("run", "quickstart", *short(), "--dry-run", "--json", "-").json["steps"]
    assert {step["state"] for step in steps} == {"done"}
    steps = kdeploy("run", "quickstart", *short(), "--dry-run", "--fresh", "--json", "-").json["steps"]
    assert {step["state"] for step in steps} == {"to do"}
    assert Path(RUN, "report.html").is_file()


@pytest.mark.parametrize("plan", [[], ["--dry-run"]])
def test_a_changed_recipe_shows_the_difference_and_the_ways_out(plan, place, kdeploy):
    before = Path(RUN, "run.json").read_bytes()
    answer = kdeploy("run", "quickstart", *short(student_width="1.0"), *plan)
    assert answer.status == 2
    assert "-  width: 0.5" in answer.err
    assert "+  width: 1.0" in answer.err
    assert "--fresh" in answer.err
    assert "--out DIR" in answer.err
    assert Path(RUN, "run.json").read_bytes() == before


def test_what_a_recipe_says_about_itself_may_change(place, kdeploy):
    answer = kdeploy("run", "quickstart", *short(), "--set", "about=other words", "--dry-run")
    assert answer.status == 0


def test_a_folder_that_is_no_run_is_not_touched(empty, kdeploy):
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("precious")
    for words in ([], ["--fresh"]):
        answer = kdeploy("distill", "quickstart", "--out", "mine", *words)
        assert answer.status == 2
        assert "mine is there already and is not a run. Choose another place with --out DIR." in answer.said
    assert [path.name for path in Path("mine").iterdir()] == ["thesis.txt"]


def test_fresh_starts_again(place, kdeploy):
    Path(RUN, "left.txt").write_text("from the old run")
    words = short(teacher_train_epochs="1", distill_epochs="1", distill_baseline="none")
    answer = kdeploy("distill", "quickstart", *words, "--set", "teacher.train.lr=0.1", "--fresh")
    assert answer.status in (0, 3), answer.err  # one epoch may leave the teacher near chance
    assert not Path(RUN, "left.txt").exists()
    assert not Path(RUN, "networks", "alone").exists()


def test_several_seeds_share_the_teacher_and_show_their_means(place, kdeploy):
    """Seed 0 is the finished run, so that only seed 1's students are trained here."""
    Path("several").mkdir()
    Path(RUN).rename("several/seed-0")
    words = ["run", "quickstart", *short(), "--seeds", "0,1", "--out", "several"]
    answer = kdeploy(*words)
    assert answer.status in (0, 3), answer.err
    assert "- networks/teacher: taken over from several/seed-0" in answer.err
    assert "Means over 2 seeds" in answer.out
    assert "[" in next(line for line in answer.out.splitlines() if line.lstrip().startswith("["))
    assert "distilled over alone: " in answer.out
    assert "report  several/report.html" in answer.out
    teachers = [Path(f"several/seed-{seed}/networks/teacher/teacher.safetensors") for seed in (0, 1)]
    assert teachers[0].read_bytes() == teachers[1].read_bytes()
    students = [Path(f"several/seed-{seed}/networks/student/student.safetensors") for seed in (0, 1)]
    assert students[0].read_bytes() != students[1].read_bytes()
    summary = json.loads(Path("several/summary.json").read_text())
    assert list(summary["seeds"]) == ["0", "1"]

    report = kdeploy("report", "several", "--json", "-")
    assert report.status == 0
    assert report.json["means"] == summary["means"]

    refused = kdeploy("run", "quickstart", *short(), "--out", "several")
    assert refused.status == 2
    Path("several/notes.txt").write_text("mine")
    assert kdeploy("runs", "--delete", "several", "--yes").status == 2
    Path("several/notes.txt").unlink()
    assert kdeploy("runs", "--delete", "several", "--yes").status == 0
    assert not Path("several").exists()


@pytest.mark.parametrize("plan", [[], ["--dry-run"]])
def test_seeds_do_not_go_into_a_single_run(plan, place, kdeploy):
    answer = kdeploy("run", "quickstart", *short(), "--seeds", "0,1", *plan)
    assert answer.status == 2
    assert answer.said == f"{RUN} holds a single run. Choose another place for several seeds with --out DIR."


def test_paths_of_a_recipe_start_from_its_folder(empty, kdeploy):
    Path("deep").mkdir()
    recipe = kdeploy("recipes", "quickstart").out.replace(
        "source: sklearn-digits", "source: imagefolder, root: pictures"
    )
    Path("deep/mine.yaml").write_text(recipe)
    answer = kdeploy("run", "deep/mine.yaml")
    assert answer.status == 2
    assert str(empty / "deep" / "pictures") in answer.said


def test_a_recipe_is_found_from_any_folder_and_runs_as_a_file(empty, kdeploy):
    Path("mine.yaml").write_text(kdeploy("recipes", "quickstart").out)
    assert kdeploy("run", "mine.yaml", "--dry-run", "--json", "-").json["steps"]
