"""A chain of assistants on digits: who teaches whom, where each starts, and what is known of each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from kdeploy import events, pipeline
from kdeploy.artifacts import sha256_file
from kdeploy.errors import UserError
from kdeploy.recipe.networks import networks
from kdeploy.recipe.schema import Recipe
from kdeploy.training import loop, procedures, state
from kdeploy.training.procedures import assistants
from tests.test_events import Heard
from tests.training import tiny

LINK = {**tiny.TRAIN, "epochs": 8, "batch": 16, "lr": 0.1}
"""Long enough for an assistant to be above chance, without which it may not teach."""
FIRST = {**tiny.NETWORK, "width": 0.375, "distill": {**LINK, "method": "kd", "options": {"temperature": 2}}}
SECOND = {
    **tiny.NETWORK,
    "distill": {**LINK, "method": "at", "weight": 1},
    "start": "alone",
    "alone": {**LINK, "epochs": 6},
}


def chain(*between: dict[str, Any], **distill: Any) -> Recipe:
    return tiny.recipe(distill={"procedure": "assistants", "assistants": list(between), "baseline": "none", **distill})


def weights(folder: Path, role: str) -> dict[str, Tensor]:
    return load_file(folder / "networks" / role / f"{role}.safetensors")


def read(folder: Path, role: str) -> Any:
    return json.loads((folder / "networks" / role / "history.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def finished(teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chain of two assistants behind the trained teacher."""
    folder = tmp_path_factory.mktemp("chain")
    shutil.copytree(teacher_folder, folder / "networks" / "teacher")
    shop = tiny.workshop(chain(FIRST, SECOND), folder)
    tiny.train(shop, "assistant-1", "assistant-2-alone", "assistant-2", "student")
    return folder


def test_each_learns_from_the_one_before(finished: Path) -> None:
    jobs = procedures.find("assistants").jobs(chain(FIRST, SECOND))
    assert {job.role: job.needs for job in jobs} == {
        "teacher": (),
        "assistant-1": ("teacher",),
        "assistant-2-alone": (),
        "assistant-2": ("assistant-1", "assistant-2-alone"),
        "student": ("assistant-2",),
    }
    terms = [json.loads((finished / "networks" / role / "metrics.jsonl").read_text().splitlines()[0])["terms"]
             for role in ("assistant-1", "assistant-2-alone", "assistant-2", "student")]  # fmt: skip
    assert [sorted(each) for each in terms] == [
        ["cross_entropy", "kd"],
        ["cross_entropy"],
        ["at/1", "at/2", "at/3", "cross_entropy"],
        ["cross_entropy", "kd"],
    ]


def test_each_networks_accuracy_is_known(finished: Path) -> None:
    for role in ("assistant-1", "assistant-2", "student"):
        assert 0 < read(finished, role)["last"]["validation_accuracy"] <= 1
        assert 0 <= read(finished, role)["teacher_agreement"] <= 1


def test_a_network_that_teaches_is_not_changed(finished: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    before = sha256_file(folder / "networks" / "assistant-2" / "assistant-2.safetensors")
    tiny.train(tiny.workshop(chain(FIRST, SECOND), folder), "student")
    assert sha256_file(folder / "networks" / "assistant-2" / "assistant-2.safetensors") == before
    assert tiny.same(weights(folder, "student"), weights(finished, "student"))


def test_a_link_is_plain_distillation(finished: Path, run_folder: Path) -> None:
    plain = tiny.recipe(student={**tiny.NETWORK, "width": 0.375}, distill=FIRST["distill"])
    tiny.train(tiny.workshop(plain, run_folder), "student")
    assert tiny.same(weights(run_folder, "student"), weights(finished, "assistant-1"))


def test_start_alone_begins_with_those_weights(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    starts = []
    fit = loop.fit

    def watched(network: Any, *given: Any, **more: Any) -> Any:
        starts.append({name: value.clone() for name, value in network.network.state_dict().items()})
        return fit(network, *given, **more)

    monkeypatch.setattr(loop, "fit", watched)
    tiny.train(tiny.workshop(chain(FIRST, SECOND), folder), "assistant-2", "student")
    assert tiny.same({key: starts[0][key] for key in weights(folder, "student")}, weights(folder, "assistant-2-alone"))
    assert not tiny.same({key: starts[1][key] for key in weights(folder, "student")}, weights(folder, "assistant-2"))


def test_a_chain_goes_on_where_it_was_interrupted(finished: Path, run_folder: Path) -> None:
    shop = tiny.workshop(chain(FIRST, SECOND), run_folder)
    with pytest.raises(KeyboardInterrupt), events.listening(tiny.Interrupting("assistant-1", 2)):
        tiny.train(shop, "assistant-1")
    heard = Heard()
    with events.listening(heard):
        tiny.train(shop, "assistant-1")
    assert "assistant-1: continues after epoch 2 of 8" in heard.lines
    assert tiny.same(weights(run_folder, "assistant-1"), weights(finished, "assistant-1"))


def test_an_assistant_that_says_nothing_learns_as_the_student_does() -> None:
    (job,) = (job for job in procedures.find("assistants").jobs(chain(tiny.NETWORK)) if job.role == "assistant-1")
    (student,) = (job for job in procedures.find("assistants").jobs(chain(tiny.NETWORK)) if job.role == "student")
    assert job.inputs["distill"] == student.inputs["distill"]


def test_a_teacher_cache_is_read_where_the_teacher_teaches() -> None:
    recipe = tiny.recipe(
        teacher={"cache": {"views": 2}},
        distill={"procedure": "assistants", "assistants": [FIRST, SECOND], "baseline": "none"},
    )
    jobs = procedures.find("assistants").jobs(recipe)
    assert [job.role for job in jobs if "cache" in job.inputs] == ["assistant-1"]


RECIPES = [
    tiny.recipe(),
    tiny.recipe(distill={"baseline": "none"}),
    chain(FIRST, SECOND),
    chain(FIRST, SECOND, baseline="alone", path="auto"),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=["offline", "no baseline", "chain", "auto"])
def test_what_is_known_without_torch_are_the_jobs(recipe: Recipe) -> None:
    jobs = procedures.find(recipe.distill.procedure).jobs(recipe)
    assert [one.role for one in networks(recipe)] == [job.role for job in jobs]
    done: set[str] = set()
    for job in jobs:
        assert done.issuperset(job.needs)
        done.add(job.role)


def test_the_plan_and_the_table_hold_every_assistant() -> None:
    names = [stage.name for stage in pipeline.plan(chain(FIRST, SECOND))]
    for role in ("assistant-1", "assistant-2"):
        assert {f"networks/{role}", f"epochs/{role}", f"engines/{role}-pytorch", f"bench/{role}-pytorch"} <= set(names)
    assert "epochs/assistant-2-alone" in names
    assert "bench/assistant-2-alone-pytorch" not in names
    assert names.index("networks/assistant-2") < names.index("networks/student")


@pytest.mark.parametrize(
    ("scores", "role"),
    [
        ({"assistant-1-alone": 0.9, "assistant-2-alone": 0.79}, "assistant-2-alone"),
        ({"assistant-1-alone": 0.85, "assistant-2-alone": 0.7}, "assistant-1-alone"),
    ],
)
def test_auto_takes_the_one_in_the_middle(
    scores: dict[str, float], role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Teacher at 0.95 and student at 0.65: the middle is 0.8."""
    known = {"teacher": 0.95, "alone": 0.65, **scores}
    taken = []
    monkeypatch.setattr(assistants, "_score", lambda shop, role: known[role])
    monkeypatch.setattr(assistants, "learn", lambda shop, link: taken.append(link))
    recipe = chain({**SECOND, "width": 0.375}, {**SECOND, "width": 0.3}, baseline="alone", path="auto")
    tiny.train(tiny.workshop(recipe, tmp_path), "assistant")
    (link,) = taken
    assert (link.role, link.teacher, link.start) == ("assistant", "teacher", role)
    assert link.network == recipe.distill.assistants[int(role[10]) - 1]


def test_auto_end_to_end(run_folder: Path) -> None:
    recipe = chain(FIRST, {**SECOND, "width": 0.3}, baseline="alone", path="auto", epochs=4, lr=0.1)
    heard = Heard()
    with events.listening(heard):
        roles = [job.role for job in procedures.find("assistants").jobs(recipe)]
        tiny.train(tiny.workshop(recipe, run_folder), *roles[1:])
    assert roles == ["teacher", "alone", "assistant-1-alone", "assistant-2-alone", "assistant", "student"]
    assert read(run_folder, "student")["teacher_agreement"] is not None
    assert not list(run_folder.rglob(state.STATE))


@pytest.mark.parametrize(
    ("distill", "sentence"),
    [
        ({"procedure": "assistants"}, "the procedure assistants and a list of assistants go together"),
        ({"assistants": [FIRST]}, "the procedure assistants and a list of assistants go together"),
        ({"path": "auto"}, "path auto chooses among assistants"),
        (
            {"procedure": "assistants", "assistants": [FIRST], "path": "auto", "baseline": "none"},
            "path auto needs the accuracy of the student alone",
        ),
        (
            {"procedure": "assistants", "assistants": [{**FIRST, "alone": LINK}]},
            "the assistant resnet8 starts fresh, so that its training alone is used by nothing",
        ),
    ],
)
def test_what_would_be_ignored_is_refused(distill: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        tiny.recipe(distill=distill)


def test_a_link_that_does_not_fit_is_refused_before_the_teacher_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "fit", lambda *_, **__: pytest.fail("a training has begun"))
    taps = {"student": ["layer9"], "teacher": ["layer1"]}
    second = {**SECOND, "distill": {**LINK, "method": "at", "taps": taps}}
    with pytest.raises(UserError, match=r"taps\.student: There is no module 'layer9' to tap in ResNet"):
        tiny.train(tiny.workshop(chain(FIRST, second), tmp_path), "teacher")


def test_an_assistant_near_chance_is_not_told_to_look_at_the_teachers_settings(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kdeploy.errors import GateFailed
    from kdeploy.training import teachers

    monkeypatch.setattr(teachers, "accuracy", lambda logits, labels: 0.1)
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    with pytest.raises(GateFailed, match=r"^assistant-2 is near chance .* Train it longer") as caught:
        tiny.train(tiny.workshop(chain(FIRST, SECOND), folder), "student")
    assert "normalize" not in str(caught.value)
