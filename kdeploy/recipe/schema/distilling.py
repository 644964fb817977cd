"""The section `distill`: who learns from whom, and by which methods."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from kdeploy.recipe.schema.base import Spec
from kdeploy.recipe.schema.networks import NetworkSpec
from kdeploy.recipe.schema.training import TrainSpec

OFFLINE = "offline"
"""The procedure in which one or several trained teachers teach."""
MUTUAL = "mutual"
"""The procedure in which networks teach one another, without a trained teacher."""
ASSISTANTS = "assistants"
"""The procedure in which networks of sizes between lie between teacher and student."""


class MethodSpec(Spec):
    """One distillation method of a weighted sum; see `kdeploy methods`."""

    method: str
    weight: float | None = Field(None, description="Weight of this term; default: the method's own.")
    options: dict[str, Any] = Field(default_factory=dict)


class TapsSpec(Spec):
    """Modules whose outputs are the stages that methods on features see, pair by pair, shallow to deep."""

    student: tuple[str, ...] = Field(min_length=1, description="Module paths of the student: [layer1, layer2].")
    teacher: tuple[str, ...] = Field(min_length=1, description="As many of the teacher, each beside the student's.")

    @model_validator(mode="after")
    def _in_pairs(self) -> TapsSpec:
        if len(self.student) != len(self.teacher):
            raise ValueError(
                f"taps go in pairs, and there are {len(self.student)} of the student and {len(self.teacher)} of the "
                "teacher: name as many for both"
            )
        return self


class LinkSpec(TrainSpec):
    """How one network learns from another: the methods, and the training of `TrainSpec`."""

    method: str | tuple[MethodSpec, ...] = Field("kd", description="A method's name, or a list of weighted methods.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of the method, where it is one name.")
    weight: float | None = Field(None, description="Weight of the method, where it is one name; default: its own.")
    cross_entropy: float | None = Field(None, ge=0, description="Weight of cross-entropy; default: the method's own.")
    taps: TapsSpec | Literal["auto"] = Field(
        "auto", description="Where features are taken; auto: the stages that `kdeploy models NAME --taps` prints."
    )
    readout: TrainSpec | None = Field(
        None,
        description="Afterwards, train the last linear layer alone, on labels and frozen features: what makes a "
        "classifier of a network whose loss never reaches that layer.",
    )
    gather: bool = Field(
        True,
        description="Methods that compare samples see the whole batch where several processes have a part of it each, "
        "and not each its own part.",
    )

    @model_validator(mode="after")
    def _options_belong_to_one_method(self) -> LinkSpec:
        if not isinstance(self.method, str) and (self.options or self.weight is not None):
            raise ValueError("with a list of methods, options and weight belong to each entry of the list")
        return self

    @property
    def methods(self) -> tuple[MethodSpec, ...]:
        """The methods as a list, however they were written."""
        if isinstance(self.method, str):
            return (MethodSpec(method=self.method, weight=self.weight, options=self.options),)
        return self.method


class AssistantSpec(NetworkSpec):
    """A network between teacher and student: it learns from the one before it, and teaches the one behind it."""

    distill: LinkSpec | None = Field(None, description="How it learns from the one before it; default: as the student.")
    start: Literal["fresh", "alone"] = Field(
        "fresh", description="Weights to start from; alone: those of its own training on the labels, before the link."
    )
    alone: TrainSpec | None = Field(
        None, description="Its own training on the labels, for `start: alone` and `path: auto`; default: as its link's."
    )


class DistillSpec(LinkSpec):
    """How the student learns: the procedure, and the link of `LinkSpec` from the network that teaches it."""

    procedure: str = OFFLINE
    procedure_options: dict[str, Any] = Field(
        default_factory=dict, validate_default=True, description="Options of the procedure; see `kdeploy procedures`."
    )
    teaching: Literal["average", "draw"] = Field(
        "average",
        description="Several teachers: average adds up what the methods say of each, by its weight; draw takes one "
        "teacher for each batch, by chance in proportion to its weight.",
    )
    baseline: Literal["alone", "none"] = Field("alone", description="Train the same student without a teacher as well.")
    peers: tuple[NetworkSpec, ...] = Field(
        (),
        description="mutual only: networks that learn beside the student, each from a seed of its own. "
        "Default: one more of the student's kind.",
    )
    assistants: tuple[AssistantSpec, ...] = Field(
        (), description="assistants only: the networks between teacher and student, largest first."
    )
    path: Literal["all", "auto"] = Field(
        "all",
        description="all: a chain through every assistant; auto: through the one whose own accuracy on validation lies "
        "nearest the mean of the teacher's and the student's.",
    )

    @field_validator("procedure_options")
    @classmethod
    def _options_fit_the_procedure(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        from kdeploy.recipe import procedures  # its files are made of this schema

        name = info.data.get("procedure")
        return procedures.filled(name, options) if name in procedures.names() else options

    @model_validator(mode="after")
    def _peers_learn_mutually(self) -> DistillSpec:
        if self.peers and self.procedure != MUTUAL:
            raise ValueError(f"peers belong to the procedure {MUTUAL}, and this one is {self.procedure}")
        if any(peer.checkpoint is not None for peer in self.peers):
            raise ValueError("a peer starts from weights of its own, drawn by its seed: leave its checkpoint out")
        if self.procedure == MUTUAL and (self.taps != "auto" or self.readout is not None):
            raise ValueError(f"taps and readout belong to a student and its teacher: the procedure {MUTUAL} has none")
        return self

    @model_validator(mode="after")
    def _assistants_are_used(self) -> DistillSpec:
        if (self.procedure == ASSISTANTS) != bool(self.assistants):
            raise ValueError("the procedure assistants and a list of assistants go together: give both, or neither")
        if self.path == "auto" and self.baseline == "none":
            raise ValueError("path auto needs the accuracy of the student alone: baseline must be alone")
        if self.path == "auto" and not self.assistants:
            raise ValueError("path auto chooses among assistants: it belongs to the procedure assistants")
        for assistant in self.assistants:
            if assistant.alone is not None and assistant.start == "fresh" and self.path == "all":
                raise ValueError(
                    f"the assistant {assistant.model} starts fresh, so that its training alone is used by nothing: "
                    "set start to alone, or leave alone out"
                )
        return self
