"""How long a run will take, how much it will write and fetch: asked before anything is started."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from kdeploy import artifacts, events, pipeline, sources
from kdeploy.errors import KdeployError
from kdeploy.provenance import RECORD, RunRecord
from kdeploy.recipe import procedures
from kdeploy.recipe.networks import Trained, networks
from kdeploy.recipe.schema import NetworkSpec, Recipe, TeacherSpec, TrainSpec
from kdeploy.sources.base import Splits
from kdeploy.stages.base import Stage
from kdeploy.stages.bench import Bench
from kdeploy.stages.train import Train

if TYPE_CHECKING:
    import torch
    from torch import nn

_FEWEST_STEPS, _MOST_STEPS, _TIMING_S = 3, 20, 2.0
"""Steps are timed until one of the last two is reached. The first few are slow, and so is any beside other work: the
fastest counts."""
_OTHER_STAGES_S = {"export": 5.0, "quantize": 3.0, "epochs": 3.0}
_SMALL_STAGE_S = 1.0
"""Building an engine, judging, packing, reporting: a second each on any network that this tool is for."""
_COPIES = 4
"""A finished run holds each network's weights, their ONNX file, and a copy of both in an engine's folder."""
_OTHER_BYTES = 1 << 20
"""The report, the raw samples of the measurements, the curves."""


class Step(BaseModel):
    """One stage of the plan; seconds None: not known before the data is there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    state: Literal["done", "to do"]
    seconds: float | None
    basis: str


class Plan(BaseModel):
    """The stages of a run with an estimate of what they take."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    steps: tuple[Step, ...]
    seconds: float | None
    disk_bytes: int
    downloads: str | None


def estimate(recipe: Recipe, folder: Path, seeds: list[int], device: str, *, fresh: bool = False) -> Plan:
    """Plan a run: time a few training steps of each network here, and count the rest.

    Nothing is downloaded and nothing is written. With several seeds the teacher is counted once where it
    keeps a seed of its own. Raises a UserError where the run itself would be refused in this folder.
    """
    splits, downloads = _data(recipe)
    timed = _Timing(recipe, splits, device)
    steps = []
    for number, seed in enumerate(seeds or [recipe.seed]):
        own = recipe.model_copy(update={"seed": seed})
        done = _recorded(own, folder / f"seed-{seed}" if seeds else folder, fresh)
        for stage in pipeline.plan(own):
            shared = any(
                stage.name == f"networks/{role}" and spec.seed is not None for role, spec in recipe.all_teachers.items()
            )
            if number == 0 or not shared:
                steps.append(_step(stage, done, timed, recipe, f"seed {seed}: " if seeds else ""))
    known = [step.seconds for step in steps if step.seconds is not None]
    return Plan(
        steps=tuple(steps),
        seconds=sum(known) if len(known) == len(steps) else None,
        disk_bytes=timed.disk_bytes + _OTHER_BYTES * max(1, len(seeds)),
        downloads="; ".join(filter(None, [downloads, *_published_weights(recipe)])) or None,
    )


def _data(recipe: Recipe) -> tuple[Splits | None, str | None]:
    """The data where it is here already, and what would be downloaded where it is not."""
    local = recipe.data.model_copy(update={"download": False})
    try:
        opens = procedures.opens_training_images(recipe)
        return sources.load(local, base=Path(), training_images=opens), None
    except KdeployError:
        if recipe.data.source.startswith("torchvision:") and recipe.data.download:
            return None, f"the data set {recipe.data.source}, by torchvision"
        raise


def _published_weights(recipe: Recipe) -> list[str]:
    """The weights that a model's own options would fetch."""
    made = [spec for one in networks(recipe) for spec in (one.network, *one.beside)]
    specs = dict.fromkeys(spec.model for spec in made if _bare(spec) != spec)
    return [f"the published weights of {model}, where they are not in its library's cache" for model in specs]


def _bare(spec: NetworkSpec) -> NetworkSpec:
    """The same network without published weights to start from, which would be fetched."""
    from kdeploy.models.catalogue import architecture_options

    return spec.model_copy(update={"options": architecture_options(spec.model, spec.options)})


def _recorded(recipe: Recipe, folder: Path, fresh: bool) -> set[str]:
    pipeline.check_folder(recipe, folder, fresh=fresh)
    return set(RunRecord.read(folder).stages) if (folder / RECORD).is_file() and not fresh else set()


def _step(stage: Stage, done: set[str], timed: _Timing, recipe: Recipe, prefix: str) -> Step:
    name = stage.name
    if name in done:
        return Step(stage=prefix + name, state="done", seconds=0.0, basis="")
    if isinstance(stage, Train):
        seconds, basis = timed.training(stage.job.role)
    elif isinstance(stage, Bench):
        seconds = len(recipe.bench.batch) * 1.5 * recipe.bench.min_time_s + 3.0
        basis = "bench.min_time_s"
    else:
        seconds, basis = _OTHER_STAGES_S.get(name.partition("/")[0], _SMALL_STAGE_S), "other runs of this size"
    return Step(stage=prefix + name, state="to do", seconds=seconds, basis=basis)


def _rows(one: Trained) -> int:
    """Rows that an image takes up in the training of a network."""
    from kdeploy import methods

    return one.passes * max((methods.find(term.method).needs.rotations for term in one.methods), default=1)


def _asked(steps: int, one: Trained) -> float:
    """Steps of a training at which its teacher is run: all, or where it has a cache, those that show a new view."""
    assert one.train is not None
    cache = one.teacher.cache if isinstance(one.teacher, TeacherSpec) else None
    return steps if cache is None else steps * min(1.0, cache.views / one.train.epochs)


class _Timing:
    """Times a few steps of each training on random images of the right shape."""

    def __init__(self, recipe: Recipe, splits: Splits | None, device: str) -> None:
        from kdeploy.training.setup import choose_device

        self.recipe = recipe
        self.splits = splits
        self.device: torch.device = choose_device(device)
        self.disk_bytes = 0
        self._timed: dict[str, float] = {}

    def training(self, role: str) -> tuple[float | None, str]:
        """Seconds of the training of `role`, with the networks beside it and the forward passes of what teaches it."""
        if self.splits is None:
            return None, "known once the data is here"
        one = next(network for network in networks(self.recipe) if network.role == role)
        learning = (one.network, *one.beside)
        self.disk_bytes += _COPIES * sum(self._weights_bytes(network) for network in learning)
        if one.train is None:
            return 2.0, "one evaluation"
        if one.batches is None and not self.splits.has_training_images:
            return None, "how long images are made for is not timed"
        steps = self._steps(one.train, one.share) if one.batches is None else one.batches * one.train.epochs
        spec = one.train.model_copy(update={"batch": one.train.batch * _rows(one)})
        seconds = steps * sum(self._seconds(network, spec, train=True) for network in learning)
        if one.teacher is not None:
            seconds += _asked(steps, one) * self._seconds(one.teacher, spec, train=False)
        if one.readout is not None:
            seconds += self._steps(one.readout) * self._seconds(one.network, one.readout, train=False)
        return seconds, f"the fastest of a few steps, times {steps:,}"

    def _steps(self, spec: TrainSpec, share: float = 1.0) -> int:
        """Steps of a training on a share of the images."""
        assert self.splits is not None
        return -(-round(share * len(self.splits.train)) // spec.batch) * spec.epochs

    def _seconds(self, network: NetworkSpec, spec: TrainSpec, *, train: bool) -> float:
        """Seconds of one step: forward and backward, or forward alone. Timed once for all seeds."""
        known = artifacts.sha256_json([network.model_dump(mode="json"), spec.model_dump(mode="json"), train])
        if known not in self._timed:
            with events.task(f"time {network.model}"):
                self._timed[known] = self._time(network, spec, train)
        return self._timed[known]

    def _weights_bytes(self, network: NetworkSpec) -> int:
        return sum(value.numel() * value.element_size() for value in self._make(network).state_dict().values())

    def _make(self, network: NetworkSpec) -> nn.Module:
        from kdeploy import models

        assert self.splits is not None
        return models.create(_bare(network), classes=len(self.splits.classes), channels=self.splits.shape[2])

    def _time(self, network: NetworkSpec, spec: TrainSpec, train: bool) -> float:
        import torch

        from kdeploy.training import setup

        assert self.splits is not None
        height, width, channels = self.splits.shape
        decided = setup.choose(spec, self.device)
        module = decided.place(self._make(network))
        images = decided.images(torch.rand(spec.batch, channels, height, width, device=self.device))
        best = float("inf")
        begun = time.perf_counter()
        for number in range(_MOST_STEPS):
            started = time.perf_counter()
            if number >= _FEWEST_STEPS and started - begun > _TIMING_S:
                break
            with decided.fabric.autocast(), torch.set_grad_enabled(train):
                loss = module(images).float().logsumexp(dim=1).mean()
            if train:
                loss.backward()
            loss.item()  # waits for the device
            best = min(best, time.perf_counter() - started)
        return best
