"""The schema of a recipe. These models are the documentation: `kdeploy recipes --schema` prints them.

Every model is frozen and refuses unknown keys. Units sit in the names of fields.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Positive = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]


class Spec(BaseModel):
    """A part of a recipe: frozen, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


_Spec = TypeVar("_Spec", bound=Spec)


def part(kind: type[_Spec], of: _Spec) -> _Spec:
    """The part of a recipe that is of this kind, without what a kind built on it adds: of `distill`, the training."""
    return kind(**{name: getattr(of, name) for name in kind.model_fields})


class RandAugmentSpec(Spec):
    """RandAugment with torchvision's 14 operations."""

    operations: Positive = Field(2, description="Operations that each image goes through, one after the other.")
    magnitude: int = Field(9, ge=0, le=30, description="How strong they are; 30 is the strongest.")


class AugmentSpec(Spec):
    """Random changes to training images, in this order.

    Up to cutout they are drawn for each image and epoch from the run's seed; mixup and cutmix for each batch.
    """

    crop: int = Field(4, ge=0, description="Pad by this many pixels of zeros, then crop back at random. 0: off.")
    flip: bool = Field(True, description="Mirror left and right with probability 1/2.")
    randaugment: RandAugmentSpec | None = Field(None, description="Random colours and shapes; {} for the usual ones.")
    cutout: int = Field(0, ge=0, description="Paint a square of this side over with the mean colour. 0: off.")
    mixup: float = Field(0.0, ge=0, description="Blend pairs of images, by Beta(mixup, mixup). 0: off.")
    cutmix: float = Field(
        0.0, ge=0, description="Paste a box of one image into another, by Beta(cutmix, cutmix). 0: off."
    )

    @property
    def mixes(self) -> bool:
        """Whether an image is part of one class and part of another."""
        return self.mixup > 0 or self.cutmix > 0


class NormalizeSpec(Spec):
    """Per-channel mean and standard deviation of images scaled to [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @model_validator(mode="after")
    def _same_length(self) -> NormalizeSpec:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} channels and std has {len(self.std)}")
        if any(value <= 0 for value in self.std):
            raise ValueError("every std must be above 0")
        return self


class DataSpec(Spec):
    """Where images and labels come from, and how they are split."""

    source: str = Field(
        "sklearn-digits",
        description="sklearn-digits, torchvision:<Dataset>, imagefolder, idx, hf:<name>, webdataset:<pattern>, or "
        "python:package.module:function.",
    )
    root: str | None = Field(
        None, description="Folder (or zip, for imagefolder) with the data. Relative to the recipe."
    )
    download: bool = Field(True, description="Let torchvision download a data set that is not in `root`.")
    options: dict[str, Any] = Field(default_factory=dict, description="Arguments of a python: source.")
    validation: Fraction = Field(0.1, description="Share of train that is cut off for choices, balanced over classes.")
    test: Fraction = Field(0.2, description="Share cut off for the final figure where the source has no test split.")
    split_seed: Seed = Field(0, description="Seed of the splits; the same for all seeds of a run.")
    limit: Positive | None = Field(None, description="Keep only this many training images, balanced over classes.")
    size: Positive | None = Field(None, description="Resize images to this height and width in pixels.")
    broken: Literal["stop", "skip"] = Field("stop", description="What to do about an image that cannot be read.")
    memory: bool | Literal["auto"] = Field(
        "auto",
        description="Decode all images once, or (no) at each epoch anew; auto: by what memory is free. Same batches.",
    )
    normalize: NormalizeSpec | Literal["train"] = Field(
        "train", description="Normalisation of networks that do not set their own; train: measured on the train split."
    )
    augment: AugmentSpec = Field(default_factory=lambda: AugmentSpec())

    def deciding(self, *without: str) -> dict[str, Any]:
        """What of this decides the batches, as plain JSON, by which finished work is known; `without` these fields.

        Not `memory`, which changes nothing but the time, and no augmentation that came later and is off: a run that
        was finished before there was any stays finished.
        """
        spec = self.model_dump(mode="json", exclude={"memory", *without})
        if "augment" in spec:
            fields = type(self.augment).model_fields
            used = {name for name, field in fields.items() if getattr(self.augment, name) != field.default}
            spec["augment"] = self.augment.model_dump(mode="json", include={"crop", "flip", *used})
        return spec


class RenameSpec(Spec):
    """A rule that renames the keys of a checkpoint: a regular expression and its replacement."""

    pattern: str
    replace: str


INDIFFERENT = frozenset({"checkpoint_steps"})
"""Fields of a training that do not decide its weights: not part of what a finished one is known by."""


class TrainSpec(Spec):
    """How one network is trained."""

    epochs: Positive = 20
    batch: Positive = 64
    optimizer: Literal["sgd", "adam", "adamw"] = Field(
        "sgd", description="adam adds weight_decay to the gradient, adamw takes it off the weight."
    )
    lr: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(5e-4, ge=0)
    schedule: Literal["cosine", "multistep", "constant"] = "cosine"
    milestones: tuple[int, ...] = Field((), description="multistep: multiply lr by gamma after each of these epochs.")
    gamma: float = Field(0.1, gt=0, le=1)
    warmup_epochs: float = Field(0.0, ge=0, description="Rise linearly from 0 to lr over this many epochs.")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 autocast where the hardware multiplies it, else float32."
    )
    channels_last: bool | Literal["auto"] = "auto"
    select: Literal["last", "validation"] = Field(
        "last", description="Which epoch's weights are the result; both accuracies are reported."
    )
    nonfinite: Literal["stop", "skip"] = Field(
        "stop",
        description="At a loss or gradient that is NaN or infinite: end, or leave such steps out, counted.",
    )
    checkpoint_steps: Positive | None = Field(
        None,
        description="Checkpoint each epoch and every so many steps; default: as often as costs 0.5 % of time.",
    )
    compile: bool = Field(
        False,
        description="Train through torch.compile: up to a minute first, then faster steps on some machines. For labels "
        "and methods on logits; needs a C++ compiler on a CPU.",
    )
    sync_batchnorm: bool = Field(
        False,
        description="Batch norm sees the whole batch where several GPUs have a part of it each, and not its own part.",
    )

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> TrainSpec:
        if self.schedule == "multistep" and not self.milestones:
            raise ValueError("the schedule multistep needs milestones, such as [150, 180, 210]")
        if self.schedule != "multistep" and self.milestones:
            raise ValueError(f"milestones belong to the schedule multistep, and this one is {self.schedule}")
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ValueError("nesterov needs the optimizer sgd with a momentum above 0")
        return self


class NetworkSpec(Spec):
    """A network: a zoo name, torchvision:NAME, timm:NAME or python:package.module:factory."""

    model: str
    width: float = Field(1.0, gt=0, description="Multiplies the channels of every layer of a zoo network.")
    options: dict[str, Any] = Field(default_factory=dict, description="Further arguments of the model's factory.")
    normalize: NormalizeSpec | None = Field(None, description="This network's own normalisation; default: the data's.")
    checkpoint: str | None = Field(None, description="Weights to start from: safetensors, or a torch.save state dict.")
    origin: str | None = Field(None, description="Whose checkpoint it is and where it is to be had.")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="What the checkpoint must hash to.")
    rename: tuple[RenameSpec, ...] = Field((), description="Rules applied in order to the checkpoint's keys.")
    class_map: tuple[int, ...] | None = Field(
        None, description="class_map[k] is the network's output for the data's class k, where the orders differ."
    )


class CacheSpec(Spec):
    """The teacher's outputs kept on disk: it runs once for each view, and not at every step."""

    views: Positive = Field(8, description="Augmented views of each image; epoch e shows view e modulo this.")
    seed: Seed | None = Field(
        0, description="What the views are drawn from, so that --seeds shares one cache; null: the run's seed."
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="auto: bfloat16 where the teacher computes in it, which loses nothing, else float16."
    )
    folder: str | None = Field(None, description="Where it is kept; default: `kdeploy cache` says where.")


class TeacherSpec(NetworkSpec):
    """The teacher: trained here, taken from a checkpoint, or both (fine-tuned)."""

    train: TrainSpec | None = Field(
        None, description="Train (or fine-tune) it; without it the checkpoint is used as is."
    )
    seed: Seed | None = Field(
        0, description="The teacher's own seed, so that --seeds shares one teacher; null: the run's."
    )
    cache: CacheSpec | None = Field(None, description="Run the teacher once for each view, and not at every step.")
    weight: float = Field(1.0, gt=0, description="Several teachers: its part beside that of the others.")

    @model_validator(mode="after")
    def _has_weights(self) -> TeacherSpec:
        if self.train is None and self.checkpoint is None and not self.model.startswith(("torchvision:", "timm:")):
            raise ValueError("the teacher needs `train`, or `checkpoint`, or both")
        return self


class MethodSpec(Spec):
    """One distillation method of a weighted sum; see `kdeploy methods`."""

    method: str
    weight: float | None = Field(None, description="Weight of this term; default: the method's own.")
    options: dict[str, Any] = Field(default_factory=dict)


OFFLINE = "offline"
"""The procedure in which one or several trained teachers teach."""
MUTUAL = "mutual"
"""The procedure in which networks teach one another, without a trained teacher."""
ASSISTANTS = "assistants"
"""The procedure in which networks of sizes between lie between teacher and student."""


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


class ExportSpec(Spec):
    """Torch to ONNX."""

    opset: Annotated[int, Field(ge=18, le=23)] = 18
    preprocess: Literal["in-graph", "outside"] = Field(
        "in-graph",
        description="in-graph: raw uint8 NHWC in, probabilities out; outside: normalised float32 NCHW, logits.",
    )


class CalibrationSpec(Spec):
    """Images on which activation ranges are measured; always real training images."""

    samples: Positive = 256
    method: Literal["minmax", "percentile", "entropy"] = "minmax"


class EngineSpec(Spec):
    """One engine to build from the student: a runtime and a precision."""

    engine: str = "onnxruntime"
    precision: Literal["float32", "int8"] = "float32"
    scheme: Literal["auto", "x86-vnni", "x86-avx2", "arm64"] = Field(
        "auto", description="int8 only: how the target quantises best; auto: from this machine's instruction set."
    )
    calibration: CalibrationSpec = Field(default_factory=lambda: CalibrationSpec())

    @property
    def name(self) -> str:
        """The name of the engine's row and folder."""
        return f"{self.engine}-{self.precision}"


class BenchSpec(Spec):
    """How long and how to measure."""

    batch: tuple[Positive, ...] = (1,)
    threads: Positive = 1
    min_time_s: float = Field(10.0, gt=0)
    min_count: Positive = Field(662, description="Fewest single calls at batch 1; p99 wants 662.")

    @field_validator("batch")
    @classmethod
    def _has_batch_one(cls, batch: tuple[int, ...]) -> tuple[int, ...]:
        if 1 not in batch:
            raise ValueError("batch must contain 1, the row every table shows")
        return batch


class GatesSpec(Spec):
    """Bounds that must hold; one that does not gives exit status 3, after everything else is done."""

    int8_drop_points: float | None = Field(1.0, ge=0, description="int8 may lose this much accuracy against float32.")
    student_gain_points: float | None = Field(None, description="Distilled must beat alone by this many points.")


class BundleSpec(Spec):
    """What is shipped."""

    engine: str = Field("auto", description="auto: the fastest engine that holds the gates; or an engine's row name.")
    samples: int = Field(3, ge=0, description="Held-out images left beside the bundle.")


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
        None, description="Needed by every procedure but mutual, whose networks teach one another."
    )
    teachers: tuple[TeacherSpec, ...] = Field(
        (), description="offline only: further teachers beside `teacher`, whose cache is made for all of them."
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
            raise ValueError(f"the engine {twice[0]} is listed twice")
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
        several = len(self.all_teachers) > 1
        if self.teachers and self.distill.procedure != OFFLINE:
            raise ValueError(f"teachers belong to the procedure {OFFLINE}, and this one is {self.distill.procedure}")
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

    @model_validator(mode="after")
    def _somebody_teaches(self) -> Recipe:
        mutual = self.distill.procedure == MUTUAL
        if self.teacher is None and not mutual:
            raise ValueError(
                f"the procedure {self.distill.procedure} needs a teacher, and there is none: add `teacher`"
            )
        if self.teacher is not None and mutual:
            raise ValueError(
                "the networks of the procedure mutual teach one another: leave `teacher` out, or take offline"
            )
        if mutual and self.student.checkpoint is not None and not self.distill.peers:
            raise ValueError(
                "a peer of the student's kind would start from the same checkpoint, and the two would have nothing to "
                "teach each other: name distill.peers"
            )
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
