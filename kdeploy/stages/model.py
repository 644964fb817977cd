"""One model outside a run, through the stages of a run: brought in, exported, quantised and compiled."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from kdeploy import artifacts, engines, events, parity
from kdeploy.errors import UserError, nearest
from kdeploy.provenance import RunRecord
from kdeploy.recipe.schema import EngineSpec, ExportSpec, NetworkSpec, NormalizeSpec, Recipe
from kdeploy.sources.base import Splits
from kdeploy.stages import model_images
from kdeploy.stages.base import Run
from kdeploy.stages.engines import PYTORCH, BuildEngine
from kdeploy.stages.export import Export
from kdeploy.stages.precisions import FLOAT32, made_of_float32
from kdeploy.stages.quantize import Quantize
from kdeploy.stages.simplify import require_simplifier, simplify_file

if TYPE_CHECKING:
    from torch import nn

_ANY = "onnxruntime"
"""Whose rows a file is written for where no engine is asked for."""
PRECISIONS: tuple[str, ...] = get_args(EngineSpec.model_fields["precision"].annotation)
_SCHEMES: tuple[str, ...] = get_args(EngineSpec.model_fields["scheme"].annotation)
DEFAULT_SHAPE, DEFAULT_CLASSES = (3, 224, 224), 1000
DEFAULT_SAMPLES = 1000
IMAGENET = NormalizeSpec(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Asked:
    """What is to become of a model.

    folder: where it goes, laid out like a run's: export/, engines/, networks/. data: a folder of images; None: parity
    is shown on random ones. shape: channels, height, width. classes: None for those of `data`, else 1000. samples: how
    many images at most are measured on. simplify: whether an outside simplifier may clean the float32 file up.
    """

    folder: Path
    data: Path | None = None
    shape: tuple[int, int, int] = DEFAULT_SHAPE
    classes: int | None = None
    export: ExportSpec = field(default_factory=lambda: ExportSpec())
    engines: tuple[str, ...] = ()
    precisions: tuple[str, ...] = (FLOAT32,)
    scheme: str = "auto"
    samples: int = DEFAULT_SAMPLES
    simplify: bool = False
    elsewhere: bool = False
    """Whether the engines are built on another device."""

    def check(self) -> None:
        """Raise a UserError for what cannot be done, before anything is."""
        for precision in self.precisions:
            if precision not in PRECISIONS:
                raise UserError(f"There is no precision {precision!r}.{nearest(precision, PRECISIONS)}")
        if self.scheme not in _SCHEMES:
            raise UserError(f"There is no int8 scheme {self.scheme!r}.{nearest(self.scheme, _SCHEMES)}")
        if PYTORCH in self.engines and FLOAT32 not in self.precisions:
            raise UserError(
                f"The engine {PYTORCH} runs in {FLOAT32} alone: add --precision {FLOAT32}, or leave it out."
            )
        lower = [precision for precision in self.precisions if precision != FLOAT32]
        if lower and self.data is None:
            raise UserError(
                f"{lower[0]} needs images to be calibrated and checked on, and random ones would not do: add "
                "--data PATH, a folder of images."
            )
        for name in self.engines:
            engine = engines.find(name)
            if not self.elsewhere:
                engines.require(engine)
        if self.simplify:
            require_simplifier()

    @property
    def rows(self) -> tuple[EngineSpec, ...]:
        """Every engine in every precision; torch, the baseline, in float32 alone."""
        return tuple(
            self._spec(engine, precision)
            for engine in self.engines
            for precision in self.precisions
            if engine != PYTORCH or precision == FLOAT32
        )

    @property
    def files(self) -> tuple[EngineSpec, ...]:
        """What ONNX files are needed: those of the engines, and without any engine those that are asked for."""
        return self.rows if self.engines else tuple(self._spec(_ANY, precision) for precision in self.precisions)

    def _spec(self, engine: str, precision: str) -> EngineSpec:
        """One engine in one precision, as a recipe would have it."""
        return EngineSpec.model_validate({"engine": engine, "precision": precision, "scheme": self.scheme})


class Step(Protocol):
    """What leaves files in a run's folder."""

    def run(self, run: Run) -> Sequence[Path]:
        """Do the work; return the files written."""


@dataclass(frozen=True)
class Original:
    """Somebody else's file: where it lies, the one batch that it takes, and images `[B, H, W, C]` as it takes them."""

    path: Path
    batch: int | None
    inputs: Callable[[NDArray[np.uint8]], NDArray[Any]]


@dataclass
class ModelRun(Run):
    """A folder with one network that is not trained here.

    asked: what is to become of it. given: calibration images as train, those that are measured on as validation. what:
    what they are, in words. fits: whether their labels are the network's classes. written: the ONNX files of this
    export, float32 first. original: the file that the network came in, where it is none of torch.
    """

    given: Splits = field(kw_only=True)
    asked: Asked = field(kw_only=True)
    what: str = "real images"
    fits: bool = False
    written: list[Path] = field(default_factory=list)
    original: Original | None = None

    @cached_property
    def splits(self) -> Splits:
        return self.given

    @property
    def images_in_words(self) -> str | None:
        return self.what

    @property
    def labelled(self) -> bool:
        return self.fits

    def do(self, step: Step) -> None:
        """Do a stage of a run here, or what stands in for one."""
        self.written += [path for path in step.run(self) if path.suffix == ".onnx" and path.parent.name == "export"]


def export_network(network: NetworkSpec, asked: Asked) -> ModelRun:
    """Build a network of torch and take it through the stages; the files of the folder are written anew.

    Its normalisation is the spec's own, else what its library says of it, else ImageNet's. Raises UserError for what
    cannot be built, exported or read, GateFailed where an engine does not compute what its graph says. Whether parity
    held is in the records.
    """
    import torch

    from kdeploy import models
    from kdeploy.models.checkpoints import load_into
    from kdeploy.models.classifier import Classifier
    from kdeploy.models.storage import save_network

    asked.check()
    channels, height, width = asked.shape
    files = None if asked.data is None else model_images.find(asked.data, asked.samples)
    classes = _count_classes(asked, files)
    torch.manual_seed(0)
    bare = models.create(network, classes=classes, channels=channels)
    if network.checkpoint is not None:
        load_into(bare, network, base=Path())
    normalize = network.normalize or _normalisation(bare, channels)
    run = open_run(role_of(network.model), network, asked, files, classes)
    card = {
        "model": network.model,
        "width": network.width,
        "options": network.options,
        "checkpoint": network.checkpoint,
        "classes": list(run.splits.classes),
        "image": {"height": height, "width": width, "channels": channels},
    }
    classifier = Classifier(bare, normalize.mean, normalize.std).eval()
    save_network(run.folder / "networks" / run.recipe.name, classifier, card)
    run.do(Export(run.recipe.name))
    compile_engines(run, asked)
    return run


def open_run(
    role: str,
    network: NetworkSpec,
    asked: Asked,
    files: model_images.Files | None,
    classes: int,
    names: tuple[str, ...] | None = None,
) -> ModelRun:
    """The folder with its images, read.

    role: what the files of the network are called. names: of its classes, where it knows them; else they are the
    folders', where there are as many.
    """
    # Not validated as a whole: a recipe has a teacher, and here nobody is taught.
    recipe = Recipe.model_construct(name=role, student=network, export=asked.export, engines=asked.files)
    own = names or tuple(str(number) for number in range(classes))
    fits = files is not None and (files.classes == names if names else len(files.classes) == classes)
    if files is None:
        given, what = model_images.random(asked.shape, own), "seeded random inputs"
    else:
        if not fits:
            _say_why_no_accuracy(files, own)
        given, what = model_images.read(files, asked.shape, None if fits else own), "real images"
    return ModelRun(recipe, asked.folder, RunRecord.new(role, 0), given=given, asked=asked, what=what, fits=fits)


def compile_engines(run: ModelRun, asked: Asked) -> None:
    """The other precisions of the float32 file that lies there, and all engines; nothing where that file is wrong."""
    role = run.recipe.name
    if not is_sound(run):
        events.warn(f"{run.written[0]} failed parity: nothing is made from it.")
        return
    if asked.simplify:
        simplify_file(run, role)
    for label, spec in made_of_float32(asked.files).items():
        run.do(Quantize(role, label, spec))
    if not asked.elsewhere:
        for row in asked.rows:
            run.do(BuildEngine(role, row))


def is_sound(run: ModelRun) -> bool:
    """Whether the float32 file computes what it was made from, as its record says."""
    return bool(artifacts.read_json(parity.record_path(run.written[0]))["passed"])


def built(run: ModelRun) -> list[Path]:
    """The engine folders that were asked for, in that order; none where the float32 file is wrong."""
    if not is_sound(run):
        return []
    rows = [BuildEngine(run.recipe.name, row).row for row in run.asked.rows]
    return [run.folder / "engines" / row for row in rows]


def role_of(name: str) -> str:
    """What a model's files are called: `timm:resnet18` gives resnet18, `nets/My net.onnx` gives My-net."""
    stem = name.rpartition(":")[2].rpartition("/")[2].removesuffix(".onnx").removesuffix(f".{FLOAT32}")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "model"


def _count_classes(asked: Asked, files: model_images.Files | None) -> int:
    if asked.classes is not None:
        return asked.classes
    if files is not None and files.classes:
        events.decided("classes", str(len(files.classes)), f"the folders of {files.root}; --classes says otherwise")
        return len(files.classes)
    return DEFAULT_CLASSES


def _say_why_no_accuracy(files: model_images.Files, own: tuple[str, ...]) -> None:
    why = f"{files.root} has {len(files.classes)} folders of classes, and the network {len(own)} classes"
    if len(files.classes) == len(own):
        why = f"the folders of {files.root} are not the network's classes: {', '.join(own[:3])}, ..."
    if not files.classes:
        why = f"the images of {files.root} lie side by side, not in folders of classes"
    events.decided("accuracy", "not measured", why)


def _normalisation(network: nn.Module, channels: int) -> NormalizeSpec:
    """timm's networks know their own; else ImageNet's where there are colours, and the middle of the range."""
    own: Any = getattr(network, "default_cfg", None) or {}
    mean, std = (own.get(name) for name in ("mean", "std"))
    if mean is not None and std is not None and len(mean) == len(std) == channels:
        found, why = (
            NormalizeSpec(mean=tuple(mean), std=tuple(std)),
            "the network's own; --mean and --std say otherwise",
        )
    else:
        plain = NormalizeSpec(mean=(0.5,) * channels, std=(0.5,) * channels)
        found, why = IMAGENET if channels == len(IMAGENET.mean) else plain, "no --mean and --std were given"
    events.decided("normalisation", f"mean {list(found.mean)}, std {list(found.std)}", why)
    return found


def normalisation(mean: Sequence[float], std: Sequence[float], channels: int) -> NormalizeSpec | None:
    """What `--mean` and `--std` say: a value for each channel, or one for all; None where neither is given."""
    if not mean and not std:
        return None
    if not mean or not std:
        raise UserError("--mean and --std go together: give both.")
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise UserError(f"--{name} has {len(values)} values and the images {channels} channels.")
    if min(std) <= 0:
        raise UserError("--std must be above 0 in every channel.")
    many = [tuple(values) * (channels if len(values) == 1 else 1) for values in (mean, std)]
    return NormalizeSpec(mean=many[0], std=many[1])
