"""Somebody else's ONNX file through the stages of a run. No torch."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kdeploy import artifacts, events, parity
from kdeploy.engines.onnxruntime import OnnxRuntime
from kdeploy.errors import UserError
from kdeploy.recipe.schema import ExportSpec, NetworkSpec, NormalizeSpec
from kdeploy.runtime.preprocess import preprocess
from kdeploy.stages import export, model_images
from kdeploy.stages.base import Run
from kdeploy.stages.engines import PYTORCH
from kdeploy.stages.model import Asked, ModelRun, Original, compile_engines, open_run, role_of

if TYPE_CHECKING:
    from onnx import ModelProto

    from kdeploy.export.foreign import Foreign

_AS_THEY_ARE = NormalizeSpec(mean=(0.0,), std=(1 / 255,))
"""x / 255 / (1 / 255): pixels from 0 to 255."""


@dataclass(frozen=True)
class Adopt:
    """Writes `export/<role>.float32.onnx` with its parity record, and the card that a trained network has.

    model, facts: the file as it was read. normalize: None where pixels go in as they are.
    """

    path: Path
    model: ModelProto
    facts: Foreign
    role: str
    normalize: NormalizeSpec | None

    def run(self, run: Run) -> Sequence[Path]:
        from kdeploy.export import foreign
        from kdeploy.export.checks import check
        from kdeploy.export.saving import save

        target = export.onnx_file(run.folder, self.role)
        height, width, channels = run.splits.shape
        mean = self.normalize or NormalizeSpec(mean=_AS_THEY_ARE.mean * channels, std=_AS_THEY_ARE.std * channels)
        image = {"height": height, "width": width, "channels": channels}
        digest = artifacts.sha256_file(self.path)
        card = {
            "schema_version": 1,
            "model": str(self.path),
            "sha256": digest,
            "classes": list(run.splits.classes),
            "image": image,
            "mean": list(mean.mean),
            "std": list(mean.std),
            "parameters": foreign.count_parameters(self.model),
            "macs": None,
        }
        preprocessing = export.preprocessing_of(card, in_graph=True)
        resize = run.recipe.export.size == "resize"
        made = foreign.adopt(
            self.model,
            self.facts,
            shape=run.splits.shape,
            classes=len(run.splits.classes),
            normalize=self.normalize,
            opset=run.recipe.export.opset,
            resize=resize,
        )
        sizes = (None if resize else height, None if resize else width, channels)
        check(made, opset=run.recipe.export.opset, input_sizes=sizes, classes=len(run.splits.classes))
        foreign.annotate(made, run.splits.classes, preprocessing.model_dump_json(), {"kdeploy.source": digest})
        save(made, target)
        compared = self._parity(target, export.parity_images(run))
        record = compared.model_copy(update={"images": run.images_in_words}).write(target)
        card_file = run.folder / "networks" / self.role / f"{self.role}.json"
        artifacts.write_json(card_file, card)
        return [target, record, card_file]

    def _parity(self, target: Path, images: NDArray[np.uint8]) -> parity.Parity:
        """Their file with preprocessing in NumPy against ours with it in the graph, both without their softmax."""
        with tempfile.TemporaryDirectory(prefix="kdeploy-parity-") as temporary:
            theirs = self._without_softmax(self.path, Path(temporary) / "theirs.onnx", self.facts.probabilities)
            ours = self._without_softmax(target, Path(temporary) / "ours.onnx", True)
            with (
                OnnxRuntime().open_file(theirs, threads=1) as reference,
                OnnxRuntime().open_file(ours, threads=1) as candidate,
            ):
                return parity.compare(
                    lambda batch: _in_batches(reference.run, self.as_theirs(batch), self.facts.batch),
                    candidate.run,
                    images,
                    batches=export.batches_of(images),
                )

    def _without_softmax(self, path: Path, target: Path, ends_in_one: bool) -> Path:
        from kdeploy.export.logits import write_logits_graph

        if not ends_in_one:
            return path
        write_logits_graph(path, target)
        return target

    def as_theirs(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        """Images `[B, H, W, C]` as the file takes them."""
        if self.facts.dtype == "uint8":
            ready: NDArray[Any] = images.transpose(0, 3, 1, 2) if self.facts.layout == "NCHW" else images
        elif self.normalize is None:
            ready = images.astype(np.float32).transpose(0, 3, 1, 2)
        else:
            height, width, channels = images.shape[1:]
            image = {"height": height, "width": width, "channels": channels}
            card = {"image": image, "mean": self.normalize.mean, "std": self.normalize.std}
            ready = preprocess(images, export.preprocessing_of(card, in_graph=False))
        if self.facts.dtype != "uint8" and self.facts.layout == "NHWC":
            ready = ready.transpose(0, 2, 3, 1)
        return np.ascontiguousarray(ready)


def adopt_file(
    path: Path,
    asked: Asked,
    *,
    given_shape: bool,
    normalize: NormalizeSpec | None,
    as_they_are: bool,
    opset: int | None,
) -> ModelRun:
    """Take an ONNX file in, and through the stages of a run.

    The file is opened in a process of its own first, so that one that crashes, hangs or eats memory is refused.
    given_shape: whether `asked.shape` was asked for; it is needed only where the file leaves its sizes open.
    as_they_are: pixels go in as 0 to 255, not normalised. opset: None for the file's own.

    Raises UserError for a file that cannot be read, run, quantised or told the shape of, and where nothing says how its
    float input is normalised.
    """
    from kdeploy.export import foreign
    from kdeploy.export.opening import require_opens

    asked.check()
    if PYTORCH in asked.engines:
        raise UserError(f"{path} is ONNX, which the engine {PYTORCH} does not run: leave it out.")
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    require_opens(path)
    model, facts = foreign.read(path)
    asked = replace(asked, shape=_shape(path, facts, asked, given_shape))
    chosen = _normalisation(path, facts, normalize, as_they_are)
    files = None if asked.data is None else model_images.find(asked.data, asked.samples)
    classes = _count_classes(path, facts, asked)
    if asked.classes not in (None, classes):
        raise UserError(f"{path} gives {classes} classes, and --classes says {asked.classes}: leave it out.")
    written = opset if opset is not None else foreign.settled_opset(facts.opset)
    spec = ExportSpec.model_construct(opset=written, preprocess="in-graph", size=asked.export.size)
    role = role_of(str(path))
    run = open_run(role, NetworkSpec(model=str(path)), replace(asked, export=spec), files, classes, facts.class_names)
    step = Adopt(path, model, facts, role, chosen)
    run.original = Original(path, facts.batch, step.as_theirs)
    run.do(step)
    compile_engines(run, asked)
    return run


def _shape(path: Path, facts: Foreign, asked: Asked, given: bool) -> tuple[int, int, int]:
    """Channels, height and width: the file's own, or where it leaves them open, those asked for."""
    own = (facts.channels, facts.height, facts.width)
    shown = "x".join("?" if size is None else str(size) for size in own)
    if None in own and not given:
        raise UserError(f"{path} leaves the size of its images open ({shown}): add --shape CxHxW.")
    if given and any(size not in (None, wanted) for size, wanted in zip(own, asked.shape, strict=True)):
        raise UserError(f"{path} takes images of {shown}, not of {'x'.join(map(str, asked.shape))}: leave --shape out.")
    channels, height, width = (wanted if size is None else size for size, wanted in zip(own, asked.shape, strict=True))
    return channels, height, width


def _normalisation(path: Path, facts: Foreign, asked: NormalizeSpec | None, as_they_are: bool) -> NormalizeSpec | None:
    """How its input is normalised; None for pixels as they are. Said, since nothing could notice that it is wrong."""
    if facts.dtype == "uint8":
        if asked is not None:
            raise UserError(f"{path} takes raw uint8 images, which are not normalised: leave --mean and --std out.")
        events.decided("input", f"uint8 {facts.layout}", "the file takes raw images")
        return None
    if as_they_are:
        events.decided("input", f"float32 {facts.layout}, pixels from 0 to 255", "--preprocess none")
        return None
    found = asked or facts.normalize
    if found is None:
        raise UserError(
            f"{path} takes float32 images, and nothing says how they are normalised: add --mean A,B,C --std A,B,C of "
            "images in [0, 1], or --preprocess none where it takes pixels from 0 to 255 as they are."
        )
    why = "--mean and --std" if asked is not None else "the file's metadata"
    events.decided("input", f"float32 {facts.layout}, mean {list(found.mean)}, std {list(found.std)}", why)
    return found


def _count_classes(path: Path, facts: Foreign, asked: Asked) -> int:
    """How many numbers it gives an image: seen by running it, since a file need not say."""
    channels, height, width = asked.shape
    sizes = (channels, height, width) if facts.layout == "NCHW" else (height, width, channels)
    with OnnxRuntime().open_file(path, threads=1) as session:
        outputs = session.run(np.zeros((facts.batch or 1, *sizes), facts.dtype))
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise UserError(f"{path} is no classifier of images: for a batch it gives {list(outputs.shape)}.")
    return int(outputs.shape[1])


def _in_batches(run: Any, inputs: NDArray[Any], batch: int | None) -> NDArray[np.float32]:
    """Run a file that takes one batch size only, the last batch filled up with what is there."""
    if batch is None:
        outputs: NDArray[np.float32] = run(inputs)
        return outputs
    parts = []
    for begin in range(0, len(inputs), batch):
        part = inputs[begin : begin + batch]
        parts.append(run(np.resize(part, (batch, *part.shape[1:])))[: len(part)])
    return np.concatenate(parts)
