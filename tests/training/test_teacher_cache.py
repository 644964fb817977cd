"""A teacher that was asked beforehand: the same losses, made once, never stale."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdeploy import events
from kdeploy.errors import UserError
from kdeploy.models.classifier import Classifier
from kdeploy.training.teacher_cache import making
from kdeploy.training.teacher_cache.shards import Layout, Shards
from tests.training import tiny

FEATURES = {"method": [{"method": "kd"}, {"method": "at", "weight": 100.0}]}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDEPLOY_CACHE", str(tmp_path / "cache"))


def distil(folder: Path, cache: dict[str, Any] | None, distill: dict[str, Any] | None = None, **more: Any) -> list[Any]:
    """The epochs' metrics of a student trained in `folder`."""
    asked = tiny.recipe(teacher={"cache": cache}, distill=distill, **more)
    tiny.train(tiny.workshop(asked, folder), "student")
    text = (folder / "networks" / "student" / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def shards() -> list[Path]:
    from kdeploy.caches import cache_folder

    return sorted(cache_folder("teachers").rglob("*.bin"))


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch sizes of all forward passes of networks in evaluation mode."""
    seen: list[int] = []
    original = Classifier.forward

    def counted(self: Classifier, images: Tensor) -> Tensor:
        if not self.training:
            seen.append(len(images))
        return original(self, images)

    monkeypatch.setattr(Classifier, "forward", counted)
    return seen


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("auto", 3e-3), ("bfloat16", 2e-2)])
def test_the_losses_are_those_of_the_teacher_itself(
    run_folder: Path, tmp_path: Path, dtype: str, tolerance: float
) -> None:
    """Two views for two epochs, drawn from the run's seed: the very views that training without a cache shows.

    At a learning rate of almost nothing, so that what storing rounds is not amplified by the training.
    """
    still = {**FEATURES, "lr": 1e-9}
    live_folder = tmp_path / "live"
    shutil.copytree(run_folder, live_folder)
    live = distil(live_folder, None, still)
    cached = distil(run_folder, {"views": 2, "seed": None, "dtype": dtype}, still)
    for ours, theirs in zip(cached, live, strict=True):
        assert ours["terms"] == pytest.approx(theirs["terms"], rel=tolerance)
        assert ours["terms"].keys() == {"cross_entropy", "kd", *(f"at/{stage}" for stage in (1, 2, 3))}


def test_the_teacher_runs_once_a_view_and_then_only_for_the_handful(run_folder: Path, forwards: list[int]) -> None:
    distil(run_folder, {"views": 2}, {"epochs": 4})
    batches = [size for size in forwards if size not in (2, making._HANDFUL)]
    samples = len(tiny.splits().train)
    validation = len(tiny.splits().validation)
    assert batches.count(samples) == 2
    assert set(batches) == {samples, validation}
    forwards.clear()
    shutil.rmtree(run_folder / "networks" / "student")
    distil(run_folder, {"views": 2}, {"epochs": 4})
    assert samples not in forwards
    assert forwards.count(making._HANDFUL) == 1


def test_a_method_that_asks_for_more_adds_only_that(run_folder: Path) -> None:
    distil(run_folder, {"views": 1})
    first = {path: path.stat().st_mtime_ns for path in shards()}
    assert {path.parent.name for path in first} == {"logits.float16"}
    distil(run_folder, {"views": 1}, FEATURES)
    names = {path.parent.name.partition(".")[0] for path in shards()}
    assert names == {"logits", "embedding", "layer1", "layer2", "layer3"}
    assert all(path.stat().st_mtime_ns == when for path, when in first.items())


def test_a_size_is_as_said_and_half_precision(run_folder: Path) -> None:
    distil(run_folder, {"views": 3})
    assert [path.stat().st_size for path in shards()] == [len(tiny.splits().train) * 10 * 2] * 3


@pytest.mark.parametrize("change", ["weights", "augment", "seed"])
def test_another_teacher_other_transforms_or_another_seed_never_find_it(run_folder: Path, change: str) -> None:
    distil(run_folder, {"views": 1})
    (before,) = shards()
    cache = {"views": 1, "seed": 5 if change == "seed" else 0}
    more: dict[str, Any] = {"data": {**tiny.DATA, "augment": {"crop": 2, "flip": False}}} if change == "augment" else {}
    if change == "weights":
        from safetensors.torch import load_file, save_file

        path = run_folder / "networks" / "teacher" / "teacher.safetensors"
        weights = load_file(path)
        weights["fc.bias"] += 0.25
        save_file(weights, path)
    distil(run_folder, cache, **more)
    assert len(shards()) == 2
    assert before in shards()


def test_a_cache_that_says_something_else_is_noticed(run_folder: Path) -> None:
    distil(run_folder, {"views": 1})
    (path,) = shards()
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(UserError, match=r"logits of view 0 is .* away\. Delete that folder"):
        distil(run_folder, {"views": 1})


def test_a_torn_file_is_made_again(run_folder: Path) -> None:
    distil(run_folder, {"views": 2})
    first, second = shards()
    whole, kept = first.read_bytes(), second.stat().st_mtime_ns
    first.write_bytes(whole[:-2])
    distil(run_folder, {"views": 2})
    assert first.read_bytes() == whole
    assert second.stat().st_mtime_ns == kept


def test_what_it_will_take_is_said_first_and_a_full_disk_is_refused(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = tiny.Interrupting("", 0)
    with events.listening(listener):
        distil(run_folder, {"views": 2})
    (said,) = [line for line in listener.heard if line.startswith("teacher cache")]
    assert "2 of 2 views" in said
    assert "MB/s" in said
    monkeypatch.setattr(making.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 100))
    with pytest.raises(UserError, match=r"needs 0\.0 MB .* has 0\.0 MB free: set fewer teacher\.cache\.views"):
        distil(run_folder, {"views": 3})


def test_numbers_that_the_type_cannot_hold_are_refused(tmp_path: Path) -> None:
    written = Shards(tmp_path, {"logits": Layout((2,), torch.float16, torch.float32)}, 1)
    with pytest.raises(UserError, match=r"logits .* float16 cannot"), written.writing(0, ["logits"]) as writer:
        writer.append({"logits": torch.tensor([[1.0, 1e6]])})
    assert not written.has(0, "logits")
    assert not list(tmp_path.rglob("*.bin"))


def test_rows_come_back_in_the_order_asked_and_in_the_teachers_type(tmp_path: Path) -> None:
    kept = Shards(tmp_path, {"layer1": Layout((2, 3, 3), torch.bfloat16, torch.float32)}, 6)
    values = torch.arange(6 * 18.0).view(6, 2, 3, 3)
    with kept.writing(4, ["layer1"]) as writer:
        for part in values.split(4):
            writer.append({"layer1": part})
    rows = kept.read(4, "layer1", torch.tensor([5, 0, 5]))
    assert rows.dtype == torch.float32
    assert torch.equal(rows, values[[5, 0, 5]])


def test_phases_read_it_too(run_folder: Path, forwards: list[int]) -> None:
    distil(run_folder, {"views": 2}, {"method": "factor-transfer", "options": {"paraphraser_epochs": 2}})
    assert max(forwards) == len(tiny.splits().train)
    assert forwards.count(len(tiny.splits().train)) == 2


def test_the_teacher_and_the_student_alone_do_not_change_with_it() -> None:
    from kdeploy.training import procedures

    jobs = [procedures.find("offline").jobs(tiny.recipe(teacher={"cache": cache})) for cache in (None, {"views": 2})]
    without, cached = ({job.role: job.inputs for job in one} for one in jobs)
    assert without["teacher"] == cached["teacher"]
    assert without["alone"] == cached["alone"]
    assert cached["student"]["cache"] == {"views": 2, "seed": 0, "dtype": "auto"}
    assert "cache" not in without["student"]


def test_the_teacher_is_no_part_of_the_objective() -> None:
    from kdeploy.training.teacher_cache import Cached

    assert not issubclass(Cached, nn.Module)
