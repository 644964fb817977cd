"""The networks that a recipe leaves, as its procedure makes them: known without torch."""

from __future__ import annotations

from dataclasses import dataclass

from kdeploy.recipe.schema import AssistantSpec, LinkSpec, MethodSpec, NetworkSpec, Recipe, TrainSpec

STUDENT = "student"
"""The role of the student; further ones are student-2 and so on."""
CHOSEN = "assistant"
"""The role of the assistant that `path: auto` takes."""


@dataclass(frozen=True)
class Trained:
    """One network of a run.

    role: its folder under `networks/`; train: its training, None where it is used as it is; teacher: what teaches it,
    None where the labels do; methods: by which; beside: networks that are trained with it; readout: the training of
    its last layer that follows; row: whether it stands in the table of engines; deployed: whether it is exported,
    compiled into the recipe's engines and bundled; passes: how often each image goes through it in a step of its
    training, beside what its methods ask for; share: of the training images, what it is trained on; batches: how many
    an epoch of its training has, where they are not cut from training images.
    """

    role: str
    network: NetworkSpec
    train: TrainSpec | None
    teacher: NetworkSpec | None = None
    methods: tuple[MethodSpec, ...] = ()
    beside: tuple[NetworkSpec, ...] = ()
    readout: TrainSpec | None = None
    row: bool = True
    deployed: bool = False
    passes: int = 1
    share: float = 1.0
    batches: int | None = None


def networks(recipe: Recipe) -> list[Trained]:
    """The networks of a run in the order in which they are trained, as its procedure says."""
    from kdeploy.recipe.procedures import describe

    return describe(recipe.distill.procedure).networks(recipe)


def deployed(recipe: Recipe) -> list[str]:
    """The roles that are exported, compiled into the recipe's engines and bundled: the student, in most procedures."""
    return [network.role for network in networks(recipe) if network.deployed]


def teachers(recipe: Recipe) -> list[Trained]:
    """The trained teachers."""
    return [Trained(role, spec, spec.train) for role, spec in recipe.all_teachers.items()]


def alone(recipe: Recipe) -> list[Trained]:
    """The student from the labels only, where the recipe has that baseline."""
    return [Trained("alone", recipe.student, recipe.distill)] if recipe.distill.baseline == "alone" else []


def linked(
    role: str,
    network: NetworkSpec,
    link: LinkSpec,
    teacher: NetworkSpec | None,
    beside: tuple[NetworkSpec, ...] = (),
) -> Trained:
    """A network that learns from another, or with others."""
    return Trained(role, network, link, teacher, link.methods, beside, link.readout, deployed=role == STUDENT)


def student_role(number: int) -> str:
    """`student` for the first, which is number 0, then `student-2`."""
    return STUDENT if number == 0 else f"{STUDENT}-{number + 1}"


def baseline_role(student: str) -> str:
    """The same student from the labels only: `alone` beside `student`, `alone-2` beside `student-2`."""
    return student.replace(STUDENT, "alone")


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
