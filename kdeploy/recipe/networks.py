"""The networks that a recipe leaves, as its procedure makes them: known without torch."""

from __future__ import annotations

from dataclasses import dataclass

from kdeploy.recipe.schema import AssistantSpec, LinkSpec, NetworkSpec, Recipe, TrainSpec

CHOSEN = "assistant"
"""The role of the assistant that `path: auto` takes."""


@dataclass(frozen=True)
class Trained:
    """One network of a run.

    role: its folder under `networks/`; train: its training, None where it is used as it is; teacher: what teaches it,
    None where the labels do; readout: the training of its last layer that follows; a row: whether it stands in the
    table of engines.
    """

    role: str
    network: NetworkSpec
    train: TrainSpec | None
    teacher: NetworkSpec | None = None
    readout: TrainSpec | None = None
    row: bool = True


def networks(recipe: Recipe) -> list[Trained]:
    """The networks of a run in the order in which they are trained: teacher, alone, assistants, student."""
    teacher = Trained("teacher", recipe.teacher, recipe.teacher.train)
    alone = [Trained("alone", recipe.student, recipe.distill)] if recipe.distill.baseline == "alone" else []
    between = _between(recipe)
    last = between[-1].network if between else recipe.teacher
    student = Trained("student", recipe.student, recipe.distill, last, recipe.distill.readout)
    return [teacher, *alone, *between, student]


def assistant_role(number: int) -> str:
    """`assistant-1` for the first, which is number 0."""
    return f"assistant-{number + 1}"


def alone_role(role: str) -> str:
    """The same network from the labels only: `assistant-1-alone`."""
    return f"{role}-alone"


def link_into(assistant: AssistantSpec, recipe: Recipe) -> LinkSpec:
    """How an assistant learns: as it says itself, else as the student does."""
    return assistant.distill or recipe.distill


def alone_training(assistant: AssistantSpec, recipe: Recipe) -> TrainSpec:
    """How an assistant is trained on the labels: as it says itself, else as its link."""
    return assistant.alone or link_into(assistant, recipe)


def _between(recipe: Recipe) -> list[Trained]:
    """The networks between teacher and student: the assistants, each behind its own training where it has one."""
    auto = recipe.distill.path == "auto"
    found: list[Trained] = []
    before: NetworkSpec = recipe.teacher
    for number, assistant in enumerate(recipe.distill.assistants):
        role, link = assistant_role(number), link_into(assistant, recipe)
        if auto or assistant.start == "alone":
            found.append(Trained(alone_role(role), assistant, alone_training(assistant, recipe), row=False))
        if not auto:
            found.append(Trained(role, assistant, link, before, link.readout))
            before = assistant
    if auto:
        largest = recipe.distill.assistants[0]
        link = link_into(largest, recipe)
        found.append(Trained(CHOSEN, largest, link, recipe.teacher, link.readout))
    return found
