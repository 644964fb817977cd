"""The networks that a recipe leaves, as its procedure makes them: known without torch."""

from __future__ import annotations

from dataclasses import dataclass

from kdeploy.recipe.schema import AssistantSpec, LinkSpec, MethodSpec, NetworkSpec, Recipe, TrainSpec

CHOSEN = "assistant"
"""The role of the assistant that `path: auto` takes."""


@dataclass(frozen=True)
class Trained:
    """One network of a run.

    role: its folder under `networks/`; train: its training, None where it is used as it is; teacher: what teaches it,
    None where the labels do; methods: by which; beside: networks that are trained with it; readout: the training of
    its last layer that follows; row: whether it stands in the table of engines.
    """

    role: str
    network: NetworkSpec
    train: TrainSpec | None
    teacher: NetworkSpec | None = None
    methods: tuple[MethodSpec, ...] = ()
    beside: tuple[NetworkSpec, ...] = ()
    readout: TrainSpec | None = None
    row: bool = True


def networks(recipe: Recipe) -> list[Trained]:
    """The networks of a run in the order in which they are trained: teacher, alone, assistants, student."""
    teachers = [Trained(role, spec, spec.train) for role, spec in recipe.all_teachers.items()]
    alone = [Trained("alone", recipe.student, recipe.distill)] if recipe.distill.baseline == "alone" else []
    between = _between(recipe)
    last = between[-1].network if between else recipe.teacher
    student = _linked("student", recipe.student, recipe.distill, last, beside=tuple(recipe.peers.values()))
    return [*teachers, *alone, *between, student]


def _linked(
    role: str,
    network: NetworkSpec,
    link: LinkSpec,
    teacher: NetworkSpec | None,
    beside: tuple[NetworkSpec, ...] = (),
) -> Trained:
    """A network that learns from another, or with others."""
    return Trained(role, network, link, teacher, link.methods, beside, link.readout)


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
    before: NetworkSpec | None = recipe.teacher
    for number, assistant in enumerate(recipe.distill.assistants):
        role = assistant_role(number)
        if auto or assistant.start == "alone":
            found.append(Trained(alone_role(role), assistant, alone_training(assistant, recipe), row=False))
        if not auto:
            found.append(_linked(role, assistant, link_into(assistant, recipe), before))
            before = assistant
    if auto:
        largest = recipe.distill.assistants[0]
        found.append(_linked(CHOSEN, largest, link_into(largest, recipe), recipe.teacher))
    return found
