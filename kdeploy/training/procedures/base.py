"""What a procedure is made of: jobs, each of which trains one network of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from kdeploy import artifacts, methods, models
from kdeploy.errors import UserError
from kdeploy.loading import Batches, EvalBatches, Samples, StreamedSet, TensorSet, TrainBatches, Views
from kdeploy.loading.statistics import channel_statistics
from kdeploy.methods.base import Method
from kdeploy.models.checkpoints import load_into
from kdeploy.models.classifier import Classifier
from kdeploy.models.storage import load_network, save_network
from kdeploy.recipe.schema import CacheSpec, LinkSpec, NetworkSpec, NormalizeSpec, Recipe, TrainSpec, part
from kdeploy.sources.base import ImageSet, Splits
from kdeploy.training import loop, setup, state
from kdeploy.training.evaluate import accuracy, predict
from kdeploy.training.gathering import Gathering
from kdeploy.training.objective import CrossEntropy, Objective
from kdeploy.training.processes import ALONE, Processes
from kdeploy.training.readout import read_out


@dataclass(frozen=True)
class Job:
    """The training of one network.

    role: its name and its folder under `networks/`; needs: roles that come before it; inputs: the parts of
    the recipe that decide its weights, by which a finished job is known; seed: its own seed; beside: roles of
    further networks that it trains, and leaves in folders of their own; files: further files that it leaves, by their
    paths in the run folder.
    """

    role: str
    run: Callable[[Workshop], None]
    inputs: Mapping[str, Any]
    seed: int
    needs: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


class Procedure(Protocol):
    """Turns a recipe into jobs, in order; the last one trains the student."""

    def jobs(self, recipe: Recipe) -> list[Job]: ...


@dataclass
class Workshop:
    """What a job works with: the recipe, the data, the device, and the networks finished before it.

    Where several processes train, each has a workshop and does the same jobs; the first of them writes the files.
    """

    recipe: Recipe
    base: Path
    """Folder that relative paths of the recipe start from."""
    networks: Path
    splits: Splits
    device: torch.device
    processes: Processes = ALONE
    _tensors: dict[str, Samples] = field(default_factory=dict)

    @cached_property
    def normalize(self) -> NormalizeSpec:
        """The data's normalisation, for networks that do not set their own; the teacher's if it cannot be measured."""
        asked, teacher = self.recipe.data.normalize, self.recipe.teacher
        if asked == "train" and not self.splits.has_training_images and teacher and teacher.normalize:
            return teacher.normalize
        return channel_statistics(self.splits.train) if asked == "train" else asked

    def make(self, spec: NetworkSpec, seed: int) -> Classifier:
        """A network as its spec says, with weights from `seed` or from its checkpoint.

        Raises UserError where its class map or normalisation does not fit the data.
        """
        state.seed_everything(seed)
        channels = self.splits.shape[2]
        normalize = spec.normalize or self.normalize
        if len(normalize.mean) != channels:
            raise UserError(
                f"The normalisation of {spec.model} has {len(normalize.mean)} channels, and the images of "
                f"{self.recipe.data.source} have {channels}."
            )
        classes = len(self.splits.classes) if spec.class_map is None else _own_classes(spec, len(self.splits.classes))
        network = models.create(spec, classes=classes, channels=channels)
        if spec.checkpoint is not None:
            load_into(network, spec, base=self.base)
        return Classifier(network, normalize.mean, normalize.std, spec.class_map)

    def load(self, role: str) -> Classifier:
        """A network finished earlier, in evaluation mode and frozen."""
        classifier, _ = load_network(self.networks / role)
        classifier.eval().requires_grad_(False)
        return classifier

    def decide(self, spec: TrainSpec) -> setup.Setup:
        """How to compute, decided for this training."""
        return setup.choose(spec, self.device, self.processes)

    def gathering(self, distill: LinkSpec) -> Gathering | None:
        """What shows whole batches to methods that compare samples; None where the recipe wants them to see parts.

        Raises UserError for a method that cannot.
        """
        if distill.gather:
            return Gathering(self.processes)
        for spec, (method, _) in zip(distill.methods, weighted_methods(distill), strict=True):
            if method.needs.whole_batch == "must" and self.processes.count > 1:
                raise UserError(
                    f"{spec.method} keeps a memory of samples, which must be the same in all {self.processes.count} "
                    "processes: leave distill.gather at true."
                )
        return None

    def tensors(self, split: str) -> Samples:
        """A split for the device, made once: as tensors, or streamed where its images are not held in memory."""
        if split not in self._tensors:
            images: ImageSet = getattr(self.splits, split)
            kind = StreamedSet if images.streams else TensorSet
            self._tensors[split] = kind.from_images(images, self.device)
        return self._tensors[split]

    def views(self, seed: int, cache: CacheSpec | None = None) -> Views:
        """The augmented views of the training images: new ones each epoch, or those of a teacher cache."""
        drawn = seed if cache is None or cache.seed is None else cache.seed
        count = None if cache is None else cache.views
        augment = self.recipe.data.augment
        mean = self.normalize.mean if augment.cutout else None  # measured only where it is used
        return Views(self.tensors("train"), augment, seed=drawn, count=count, mean=mean)

    def training(self, spec: TrainSpec, seed: int, cache: CacheSpec | None = None) -> TrainBatches:
        """Augmented training batches, this process's part of them; their order depends on the seed alone."""
        return TrainBatches(self.views(seed, cache), batch=spec.batch, seed=seed, share=self.processes.share)

    def validation(self, split: str = "validation") -> EvalBatches:
        """This process's part of the validation images, or of another split, as they are."""
        return EvalBatches(self.tensors(split), share=self.processes.share)

    def score(self, classifier: nn.Module, spec: TrainSpec) -> float:
        """Accuracy on validation."""
        decided = self.decide(spec)
        decided.place(classifier)
        return accuracy(*predict(classifier, self.validation(), decided))

    def train(
        self,
        role: str,
        classifier: Classifier,
        objective: Objective,
        spec: TrainSpec,
        seed: int,
        *,
        network_spec: NetworkSpec,
        batches: Batches | None = None,
        teacher: nn.Module | None = None,
        cache: CacheSpec | None = None,
        readout: TrainSpec | None = None,
        beside: Mapping[str, tuple[Classifier, NetworkSpec]] | None = None,
    ) -> None:
        """Train `classifier`, then write it, its history and its agreement with the teacher to its folder.

        batches: what it is trained on in place of the training images; without those there is no validation either.
        cache: what the teacher's outputs are kept by, where the objective reads them instead of running it.
        readout: how its last linear layer alone is trained afterwards, whose epochs are then those that are scored and
        chosen from (`training/readout.py`).
        beside: networks that the objective trains, by role; theirs is the last epoch.

        Where the epoch chosen on validation is not the one that is kept, its weights are written too, as
        `<role>-chosen` (or `<role>-last`), so that both can be measured.
        """
        folder = self.networks / role
        decided = self.decide(spec)
        fitted = loop.fit(
            classifier,
            objective,
            train=self.training(spec, seed, cache) if batches is None else batches,
            validation=self.validation() if readout is None and self.splits.has_training_images else None,
            spec=spec,
            setup=decided,
            folder=folder,
            label=role,
        )
        if readout is not None:
            then = read_out(self, role, classifier, readout, seed)
            fitted = loop.joined(fitted, then)
            if self.processes.first:
                loop.write_metrics(folder, fitted)
            spec = readout
        if self.processes.first:
            for stale in folder.glob(f"{role}-*.*"):
                stale.unlink()
        last = {name: value.detach().cpu().clone() for name, value in classifier.state_dict().items()}
        keep_chosen = spec.select == "validation"
        kept, other = (fitted.chosen_weights, last) if keep_chosen else (last, fitted.chosen_weights)
        if fitted.chosen_epoch != len(fitted.metrics) - 1:
            classifier.load_state_dict(other)
            self.save(classifier, role, network_spec, stem=f"{role}-{'last' if keep_chosen else 'chosen'}")
        classifier.load_state_dict(kept)
        agreement = None if teacher is None else self._agreement(classifier, teacher, decided)
        scores = {peer: self.score(network, spec) for peer, (network, _) in (beside or {}).items()}
        if not self.processes.first:
            return
        loop.write_history(folder, fitted, selected=spec.select, teacher_agreement=agreement)
        self.save(classifier, role, network_spec)
        for peer, (network, its_spec) in (beside or {}).items():
            self.save(network, peer, its_spec)
            ended = {"epoch": len(fitted.metrics) - 1, "validation_accuracy": scores[peer]}
            record = {"epochs": len(fitted.metrics), "last": ended, "chosen": ended, "selected": "last"}
            artifacts.write_json(self.networks / peer / "history.json", {"schema_version": 1, **record})
        state.clear(folder)

    def save(self, classifier: Classifier, role: str, spec: NetworkSpec, *, stem: str | None = None) -> None:
        """Write a network alone: weights as safetensors, and a JSON that says how to build it."""
        if not self.processes.first:
            return
        height, width, channels = self.splits.shape
        card = {
            "model": spec.model,
            "width": spec.width,
            "options": spec.options,
            "classes": list(self.splits.classes),
            "image": {"height": height, "width": width, "channels": channels},
        }
        save_network(self.networks / role, classifier, card, stem=stem or role)

    def _agreement(self, student: Classifier, teacher: nn.Module, decided: setup.Setup) -> float:
        """Share of validation samples on which student and teacher predict the same class."""
        ours, _ = predict(student, self.validation(), decided)
        theirs, _ = predict(teacher, self.validation(), decided)
        return (ours.argmax(dim=1) == theirs.argmax(dim=1)).double().mean().item()


def _own_classes(spec: NetworkSpec, classes: int) -> int:
    """How many classes a network with a class map has itself: what it was trained on, if its options say so."""
    assert spec.class_map is not None
    if len(spec.class_map) != classes or min(spec.class_map) < 0:
        raise UserError(
            f"The class_map of {spec.model} must hold a number from 0 up for each of the data's {classes} classes; "
            f"it is {list(spec.class_map)}."
        )
    return int(spec.options.get("num_classes", max(*spec.class_map, classes - 1) + 1))


def weighted_methods(distill: LinkSpec) -> list[tuple[Method, float]]:
    """The methods that a network learns by, made anew, each with its weight; a UserError where options do not fit."""
    chosen = []
    for spec in distill.methods:
        try:
            method = methods.create(spec.method, **spec.options)
        except (TypeError, ValueError) as error:
            raise UserError(f"The options {spec.options} of the method {spec.method} do not fit: {error}.") from None
        chosen.append((method, method.default_weight if spec.weight is None else spec.weight))
    return chosen


def require_whole_images(distill: LinkSpec, recipe: Recipe) -> None:
    """Raise UserError for methods that want one class for each image, where the images are mixed."""
    for spec, (method, _) in zip(distill.methods, weighted_methods(distill), strict=True):
        needs = method.needs
        if recipe.data.augment.mixes and (needs.labels or needs.index or needs.training_labels):
            raise UserError(
                f"The method {spec.method} wants one class for each image, and data.augment mixes images: set mixup "
                "and cutmix to 0, or take a method such as kd."
            )


def cross_entropy_weight(distill: LinkSpec, chosen: Sequence[Method]) -> float:
    """The weight of cross-entropy: the recipe's, else the smallest that one of the methods asks for."""
    asked = distill.cross_entropy
    return min(method.default_cross_entropy for method in chosen) if asked is None else asked


def baseline_job(recipe: Recipe) -> Job:
    """The baseline: the student from the labels only."""
    return alone_job("alone", recipe.student, recipe.distill, recipe)


def alone_job(role: str, network: NetworkSpec, spec: TrainSpec, recipe: Recipe) -> Job:
    """The job that trains a network from the labels only."""
    inputs = {
        "data": recipe.data.deciding(),
        "network": part(NetworkSpec, network).model_dump(mode="json"),
        "train": part(TrainSpec, spec).model_dump(mode="json"),
    }
    return Job(role, partial(_alone, role=role, network=network, spec=spec), inputs, recipe.seed)


def _alone(shop: Workshop, role: str, network: NetworkSpec, spec: TrainSpec) -> None:
    classifier = shop.make(network, shop.recipe.seed)
    shop.train(role, classifier, CrossEntropy(spec.label_smoothing), spec, shop.recipe.seed, network_spec=network)
