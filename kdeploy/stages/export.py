"""Torch to ONNX, and the proof that both compute the same."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kdeploy import artifacts, events, parity
from kdeploy.engines.base import Preprocessing, images_at_once
from kdeploy.engines.onnxruntime import OnnxRuntime
from kdeploy.recipe.schema import ExportSpec
from kdeploy.sources import Images
from kdeploy.stages import shown
from kdeploy.stages.base import Run

if TYPE_CHECKING:
    from kdeploy.models.classifier import Classifier

_PARITY_SAMPLES = 256
"""Real inputs on which parity is shown (issue 2)."""
_PIXELS_AT_ONCE = 1 << 22
"""Of a batch: activations grow with it, and at 224 x 224 pixels 256 images at once would take gigabytes."""


@dataclass(frozen=True)
class Export:
    """Writes `export/<role>.float32.onnx` with its parity record."""

    role: str

    @property
    def name(self) -> str:
        return f"export/{self.role}"

    def inputs(self, run: Run) -> Mapping[str, Any]:
        trained = run.trained(self.role)
        weights = {name: trained[f"networks/{self.role}/{self.role}.{name}"] for name in ("safetensors", "json")}
        return {"export": _deciding(run.recipe.export), "network": weights, "images": shown.fingerprint(run)}

    def run(self, run: Run) -> Sequence[Path]:
        from kdeploy.export.to_onnx import export
        from kdeploy.models.storage import load_network

        target = onnx_file(run.folder, self.role)
        classifier, card = load_network(run.folder / "networks" / self.role)
        preprocessing = preprocessing_of(card, in_graph=run.recipe.export.preprocess == "in-graph")
        with events.task(f"export {self.role}"):
            export(
                classifier,
                target,
                shape=run.splits.shape,
                spec=run.recipe.export,
                classes=run.splits.classes,
                preprocessing=preprocessing,
                metadata={"kdeploy.role": self.role, "kdeploy.run": run.recipe.name},
            )
            compared = _parity(classifier, target, parity_images(run), preprocessing)
            record = compared.model_copy(update={"images": shown.what(run)}).write(target)
        return [target, record]


def _deciding(asked: ExportSpec) -> dict[str, Any]:
    """As plain JSON, without a size that is fixed: a run that was finished before there was another stays finished."""
    written: dict[str, Any] = asked.model_dump(mode="json")
    return written if asked.size != "fixed" else {key: value for key, value in written.items() if key != "size"}


def onnx_file(folder: Path, role: str, precision: str = "float32") -> Path:
    """Where the ONNX file of a network lies in a run folder."""
    return folder / "export" / f"{role}.{precision}.onnx"


def preprocessing_of(card: Mapping[str, Any], *, in_graph: bool) -> Preprocessing:
    """The preprocessing that a network's card describes."""
    return Preprocessing(in_graph=in_graph, **card["image"], mean=tuple(card["mean"]), std=tuple(card["std"]))


def graph_preprocessing(run: Run, role: str) -> Preprocessing:
    """How the exported graph of a role takes its images."""
    card = artifacts.read_json(run.folder / "networks" / role / f"{role}.json")
    return preprocessing_of(card, in_graph=run.recipe.export.preprocess == "in-graph")


def predicted(
    run: Callable[[NDArray[Any]], NDArray[np.float32]], images: Images, preprocessing: Preprocessing
) -> NDArray[np.int64]:
    """The likeliest class of each image `[N, H, W, C]`."""
    step = images_at_once(images.shape[1], images.shape[2])
    batches = (model_inputs(images[begin : begin + step], preprocessing) for begin in range(0, len(images), step))
    return np.concatenate([run(batch).argmax(axis=1) for batch in batches])


def model_inputs(images: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[Any]:
    """Images `[N, H, W, C]` as the exported graph takes them."""
    from kdeploy.runtime.preprocess import preprocess

    return images if preprocessing.in_graph else preprocess(images, preprocessing)


def parity_images(run: Run) -> NDArray[np.uint8]:
    """256 validation images `[N, H, W, C]`, filled from train when there are fewer.

    Without training images they are synthesised ones.
    """
    splits = shown.splits(run)
    validation = splits.validation.images[:_PARITY_SAMPLES]
    return np.concatenate([validation, splits.train.images[: _PARITY_SAMPLES - len(validation)]])


def batches_of(images: NDArray[Any]) -> tuple[int, ...]:
    """The batch sizes at which a graph is compared on these images `[N, H, W, C]`: 1, 2 and a large one."""
    pixels = images.shape[1] * images.shape[2]
    largest = max(2, min(len(images), _PIXELS_AT_ONCE // pixels))
    return tuple(sorted({batch for batch in (1, 2, largest) if batch <= len(images)}))


def _parity(
    classifier: Classifier, target: Path, images: NDArray[np.uint8], preprocessing: Preprocessing
) -> parity.Parity:
    """Torch's logits on the images against ONNX Runtime's, on what the graph takes."""
    import torch

    from kdeploy.export.logits import write_logits_graph

    def reference(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: NDArray[np.float32] = classifier(torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255).numpy()
        return logits

    with tempfile.TemporaryDirectory(prefix="kdeploy-parity-") as temporary:
        logits_file = target
        if preprocessing.in_graph:
            logits_file = Path(temporary) / target.name
            write_logits_graph(target, logits_file)
        with OnnxRuntime().open_file(logits_file, threads=1) as session:
            return parity.compare(
                reference,
                lambda batch: session.run(model_inputs(batch, preprocessing)),
                images,
                batches=batches_of(images),
            )
