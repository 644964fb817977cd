"""What the generic tests expect of a method. A method's own test module says where it differs from the rule:

    EXPECTED = Expectations(identity=None, duplication=0.5)        # or a list, one for each choice of options

Nothing said: the method is held to every rule below with its default options.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

import kdeploy.methods
from kdeploy.methods import Context, Method, Needs, Outputs, Shapes

STUDENT = Shapes(classes=5, features=((2, 8, 8), (3, 4, 4), (4, 2, 2)), embedding=4)
TEACHER = Shapes(classes=5, features=((3, 8, 8), (4, 4, 4), (6, 2, 2)), embedding=6)


@dataclass(frozen=True)
class Inputs:
    """What a method is called with."""

    student: Outputs
    teacher: Outputs
    target: Tensor | None
    context: Context

    def loss(self, method: Method) -> Tensor:
        return method(self.student, self.teacher, self.target, self.context)


def random_inputs(needs: Needs, *, batch: int = 4, classes: int = 5, adapted: bool = False) -> Inputs:
    """Random tensors in float64: all that `needs` asks for and nothing more.

    Both networks have the teacher's shapes, or with `adapted` each its own.
    """
    rows = batch * needs.rotations
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def outputs(shapes: Shapes) -> Outputs:
        stages = {"all": shapes.features, "last": shapes.features[-1:], None: ()}[needs.features]
        embedding = normal(rows, shapes.embedding or 0) if needs.embedding else None
        return Outputs(3 * normal(rows, classes), [normal(rows, *stage) for stage in stages], embedding)

    labels = torch.randint(classes, (batch,), generator=generator)
    index = torch.arange(batch) if needs.index else None
    return Inputs(
        outputs(STUDENT if adapted else TEACHER),
        outputs(TEACHER),
        labels if needs.labels else None,
        Context(index=index, epoch=3, step=7, epochs=10),
    )


def build(method: Method) -> None:
    """Build the adapters for STUDENT and TEACHER, and go through the phases that come first."""
    method.build(STUDENT, TEACHER)
    method.double()
    for phase in method.phases():
        inputs = random_inputs(method.needs, adapted=True)
        student = inputs.student if phase.student else None
        method.phase_loss(phase, inputs.teacher, student, inputs.target).backward()
        method.end_phase(phase)
        method.zero_grad()


def prepare(method: Method) -> None:
    """The labels of a training set of forty samples."""
    if method.needs.training_labels:
        method.prepare(torch.arange(40) % 5)


@dataclass(frozen=True)
class Expectations:
    """How a method keeps the rules that hold for all.

    options: what it is made with.
    identity: the largest |loss| in float64 where the student's tensors are the teacher's; None: it is not 0.
    duplication: the loss of a batch given twice, relative to the loss of the batch; None: no such factor.
    duplication_tolerance: relative, of that factor.
    exempt: names of generic tests that do not apply, each with the reason why, which the skipped test shows.
    inputs, build, prepare: for methods that take other tensors, or other steps before the first loss. One that has
    no loss before `build` calls it in its `prepare`, with TEACHER for both networks.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    identity: float | None = 1e-12
    duplication: float | None = 1.0
    duplication_tolerance: float = 1e-9
    exempt: Mapping[str, str] = field(default_factory=dict)
    inputs: Callable[..., Inputs] = random_inputs
    build: Callable[[Method], None] = build
    prepare: Callable[[Method], None] = prepare

    def method(self, name: str, *, built: bool = False) -> Method:
        """The method with these options, in float64 and prepared; with its adapters and phases where `built`."""
        torch.manual_seed(0)
        made = kdeploy.methods.create(name, **self.options).double()
        self.prepare(made)
        if built:
            self.build(made)
        return made.double()


def cases() -> list[tuple[str, Expectations]]:
    """Every method with each of its expectations."""
    found: list[tuple[str, Expectations]] = []
    for name in kdeploy.methods.names():
        module = f"tests.methods.test_{name.replace('-', '_')}"
        said: Any = None
        if importlib.util.find_spec(module):
            said = getattr(importlib.import_module(module), "EXPECTED", None)
        found += [(name, each) for each in (said if isinstance(said, list) else [said or Expectations()])]
    return found


def changed(outputs: Outputs, change: Callable[[Tensor], Tensor]) -> Outputs:
    """The outputs with every tensor changed."""

    def apply(value: Any) -> Any:
        if isinstance(value, Tensor):
            return change(value)
        return [change(each) for each in value] if isinstance(value, (list, tuple)) else value

    return replace(outputs, **{each.name: apply(getattr(outputs, each.name)) for each in fields(outputs)})


def tensors(outputs: Outputs) -> list[Tensor]:
    """Every tensor of the outputs."""
    found: list[Tensor] = []
    changed(outputs, lambda tensor: found.append(tensor) or tensor)  # type: ignore[func-returns-value]
    return found
