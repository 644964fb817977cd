"""A whole recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from kdeploy.recipe.schema.base import Seed, Spec
from kdeploy.recipe.schema.data import DataSpec
from kdeploy.recipe.schema.deploying import BenchSpec, BundleSpec, EngineSpec, ExportSpec, GatesSpec
from kdeploy.recipe.schema.distilling import MUTUAL, OFFLINE, DistillSpec
from kdeploy.recipe.schema.networks import NetworkSpec, TeacherSpec

if TYPE_CHECKING:
    from kdeploy.recipe.procedures.base import Description


class PublishedSpec(Spec):
    """A figure from the literature that this recipe is measured against; nothing in the run depends on it."""

    accuracy_percent: float = Field(gt=0, le=100, description="Top-1 test accuracy of the student, in percent.")
    table: str = Field(description="Where the figure is printed.")
    protocol: Literal["last epoch", "best test epoch"] = Field(
        description="Which epoch it is of. The best on test is worth 0.2 to 0.5 points over the last; never taken here."
    )
    mark: Literal["verified", "recalled"] = Field(
        description="verified: read in the table; recalled: from memory of the literature, probably right."
    )
    note: str = Field("", description="What else sets the published run apart from this one.")


class Recipe(Spec):
    """From a teacher to measured engines."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    about: str = Field("", description="What this recipe shows, for `kdeploy recipes`.")
    seed: Seed = 0
    data: DataSpec = Field(default_factory=lambda: DataSpec())
    teacher: TeacherSpec | None = Field(
        None, description="Needed by every procedure but those whose networks teach one another."
    )
    teachers: tuple[TeacherSpec, ...] = Field(
        (),
        description="offline and perturbed-ensemble: further teachers beside `teacher`, whose cache is made for all of "
        "them.",
    )
    student: NetworkSpec
    distill: DistillSpec = Field(default_factory=lambda: DistillSpec())
    export: ExportSpec = Field(default_factory=lambda: ExportSpec())
    engines: tuple[EngineSpec, ...] = Field((EngineSpec(),), min_length=1)
    bench: BenchSpec = Field(default_factory=lambda: BenchSpec())
    gates: GatesSpec = Field(default_factory=lambda: GatesSpec())
    bundle: BundleSpec = Field(default_factory=lambda: BundleSpec())
    published: PublishedSpec | None = Field(None, description="The figure to compare the student with.")

    @model_validator(mode="after")
    def _engines_differ(self) -> Recipe:
        names = [engine.name for engine in self.engines]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"the engine {twice[0]} is listed twice: give one a variant, a word of its own")
        return self

    @property
    def all_teachers(self) -> dict[str, TeacherSpec]:
        """The trained teachers by role: teacher, teacher-2 and so on."""
        first = [] if self.teacher is None else [self.teacher]
        return {
            "teacher" if number == 1 else f"teacher-{number}": spec
            for number, spec in enumerate([*first, *self.teachers], 1)
        }

    @model_validator(mode="after")
    def _teachers_go_together(self) -> Recipe:
        several, described = len(self.all_teachers) > 1, self._described()
        if self.teachers and described is not None and not described.several_teachers:
            raise ValueError(
                f"the procedure {self.distill.procedure} has one teacher: leave teachers out, or take {OFFLINE}"
            )
        if not several and (self.distill.teaching != "average" or (self.teacher and self.teacher.weight != 1)):
            raise ValueError("distill.teaching and teacher.weight are for several teachers: add `teachers`")
        if any(spec.cache is not None for spec in self.teachers):
            raise ValueError("the cache of `teacher` is made for all teachers: leave it out of teachers")
        made = [spec.model_dump_json(exclude={"weight", "cache"}) for spec in self.all_teachers.values()]
        if len(set(made)) < len(made):
            raise ValueError("two of the teachers would be the same network: give one a seed of its own")
        return self

    @property
    def peers(self) -> dict[str, NetworkSpec]:
        """The networks that learn beside the student, by role: peer-2 and so on; none but in the procedure mutual."""
        if self.distill.procedure != MUTUAL:
            return {}
        return {f"peer-{number}": spec for number, spec in enumerate(self.distill.peers or (self.student,), 2)}

    def _described(self) -> Description | None:
        """What is known of the procedure; None where there is none of that name, which is said with its place."""
        from kdeploy.recipe import procedures  # its files are made of this schema

        name = self.distill.procedure
        return procedures.describe(name) if name in procedures.names() else None

    @model_validator(mode="after")
    def _procedure_fits(self) -> Recipe:
        described = self._described()
        if described is None:
            return self
        if self.teacher is None and described.teacher:
            raise ValueError(
                f"the procedure {self.distill.procedure} needs a teacher, and there is none: add `teacher`"
            )
        if self.teacher is not None and not described.teacher:
            raise ValueError(
                f"the networks of the procedure {self.distill.procedure} teach one another: leave `teacher` out, or "
                f"take {OFFLINE}"
            )
        described.check(self)
        return self

    @model_validator(mode="after")
    def _cache_holds_what_is_shown(self) -> Recipe:
        if self.teacher and self.teacher.cache is not None and self.data.augment.mixes:
            raise ValueError(
                "teacher.cache holds what the teacher says of single images, and data.augment mixes them: set mixup "
                "and cutmix to 0, or leave teacher.cache out"
            )
        return self

    @model_validator(mode="after")
    def _gain_is_measured(self) -> Recipe:
        if self.gates.student_gain_points is not None and self.distill.baseline == "none":
            raise ValueError(
                "gates.student_gain_points compares with the student alone: distill.baseline must be alone"
            )
        return self
