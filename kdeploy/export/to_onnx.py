"""A classifier as an ONNX file."""

from __future__ import annotations

import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from onnx import ModelProto
from torch import nn
from torch.export import Dim, ExportedProgram

from kdeploy import events
from kdeploy.engines.base import Preprocessing
from kdeploy.errors import UserError
from kdeploy.export.checks import check
from kdeploy.export.cleaning import clean
from kdeploy.export.failures import where, why
from kdeploy.export.opsets import convert
from kdeploy.export.resizing import INPUT, prepend_resize
from kdeploy.export.saving import save
from kdeploy.export.wrappers import InGraph, Outside
from kdeploy.models.batch_ensemble import BatchEnsemble
from kdeploy.models.classifier import Classifier
from kdeploy.quantize.files import opset_version
from kdeploy.recipe.schema import ExportSpec

_BATCH = 2  # torch makes constants of sizes 0 and 1
_SMALLEST = 8  # a network that shrinks its images would find nothing left of fewer pixels
_LOWEST_WRITTEN = 18  # the exporter leaves it at that, with a warning, where less is asked for


@dataclass(frozen=True)
class ExportedModel:
    """A float32 graph on disk."""

    path: Path
    sha256: str
    opset: int
    input_name: str
    input_dtype: Literal["uint8", "float32"]
    output: Literal["probabilities", "logits"]


def export(
    classifier: Classifier,
    target: Path,
    *,
    shape: tuple[int, int, int],
    spec: ExportSpec,
    classes: tuple[str, ...],
    preprocessing: Preprocessing,
    metadata: Mapping[str, str] | None = None,
) -> ExportedModel:
    """Write `classifier` to `target` as ONNX, with the batch left open. The classifier itself is not touched.

    Preprocessing in the graph: `images`, uint8 `[batch, H, W, C]`, to `probabilities` `[batch, classes]`.
    Outside: `images`, float32 `[batch, C, H, W]`, normalised with `preprocessing`'s mean and std, to `logits`.
    Height and width are `spec.size`: fixed, open, or open with the images resized in the graph.

    The file carries in its metadata the names of the classes (`kdeploy.classes`, JSON), the preprocessing
    (`kdeploy.preprocessing`, JSON), what the output is (`kdeploy.output`), and `metadata`; nothing that the exporter
    notes for debugging. Batch norms are folded into convolutions. Whether it computes what the classifier computes
    is for `kdeploy.parity` to say.

    Args:
        shape: height, width and channels of an image.

    Raises UserError where the network can't be exported, naming the module, and where the graph is not what was
    asked for (opset, open batch, number of classes).
    """
    _check_agreement(classifier, shape, spec, preprocessing)
    in_graph = spec.preprocess == "in-graph"
    output: Literal["probabilities", "logits"] = "probabilities" if in_graph else "logits"
    model = translate(classifier, shape, spec).proto
    clean(model)
    model = convert(model, min(spec.opset, opset_version(model)))
    if spec.size == "resize":
        model = prepend_resize(model)
    check(model, opset=spec.opset, input_sizes=_input_sizes(shape, spec), classes=len(classes))
    notes = {
        "kdeploy.classes": json.dumps(list(classes), ensure_ascii=False),
        "kdeploy.preprocessing": preprocessing.model_dump_json(),
        "kdeploy.output": output,
        **(metadata or {}),
    }
    for key, value in notes.items():
        model.metadata_props.add(key=key, value=value)
    return ExportedModel(
        path=target,
        sha256=save(model, target),
        opset=opset_version(model),
        input_name=INPUT,
        input_dtype="uint8" if in_graph else "float32",
        output=output,
    )


@dataclass(frozen=True)
class Translation:
    """A network as torch traced it, and as ONNX: `program`'s nodes are called what `proto`'s tensors are called.

    wrapper: the module that was traced: images in, probabilities or logits out.
    """

    proto: ModelProto
    program: ExportedProgram
    wrapper: nn.Module


def translate(classifier: Classifier, shape: tuple[int, int, int], spec: ExportSpec) -> Translation:
    """Trace the network for images of `shape`, and write the trace in ONNX's operators, of opset 18 or later.

    Raises UserError where it can't be, naming the module.
    """
    in_graph = spec.preprocess == "in-graph"
    height, width, channels = shape
    network = _ready(classifier)
    sizes = (height, width, channels) if in_graph else (channels, height, width)
    opened = _open_sizes(spec)
    example = torch.zeros(_BATCH, *sizes, dtype=torch.uint8 if in_graph else torch.float32)
    wrapper = (InGraph(network) if in_graph else Outside(network)).eval()
    with events.task("exporting to ONNX", 2) as bar:
        traced = _trace(wrapper, example, opened)
        bar.advance()
        output = "probabilities" if in_graph else "logits"
        exported = _translate(traced, wrapper, max(spec.opset, _LOWEST_WRITTEN), output, opened)
        bar.advance()
    assert exported.exported_program is not None
    return Translation(exported.model_proto, exported.exported_program, wrapper)


def _input_sizes(shape: tuple[int, int, int], spec: ExportSpec) -> tuple[int | None, ...]:
    """The sizes of the input behind the batch; None for those that are left open."""
    height, width, channels = shape
    sides = (height, width) if spec.size == "fixed" else (None, None)
    return (*sides, channels) if spec.preprocess == "in-graph" else (channels, *sides)


def _ready(classifier: Classifier) -> Classifier:
    """A copy for inference on the CPU, with weights in torch's own order: channels-last ones show in the graph.

    Networks that share weights stand side by side in it, each with its own: the form that engines compute best.
    """
    network = copy.deepcopy(classifier).cpu().eval()
    if isinstance(network.network, BatchEnsemble):
        network.network = network.network.members_apart()
    for parameter in network.parameters():
        # A clone, because with one channel `contiguous()` finds nothing to change.
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
    return network


def _check_agreement(
    classifier: Classifier, shape: tuple[int, int, int], spec: ExportSpec, preprocessing: Preprocessing
) -> None:
    """The classifier, the recipe and the manifest's preprocessing say the same, or we have a bug."""
    if preprocessing.in_graph != (spec.preprocess == "in-graph"):
        raise ValueError(f"preprocessing.in_graph is {preprocessing.in_graph} and export.preprocess {spec.preprocess}")
    if (preprocessing.height, preprocessing.width, preprocessing.channels) != shape:
        raise ValueError(f"the preprocessing is not for images of {shape}")
    for name in ("mean", "std"):
        own = getattr(classifier, name).flatten().tolist()
        if not torch.allclose(torch.tensor(own), torch.tensor(getattr(preprocessing, name))):
            raise ValueError(f"the classifier's {name} is {own}, the preprocessing's {getattr(preprocessing, name)}")


def _open_sizes(spec: ExportSpec) -> dict[str, dict[int, Dim]]:
    """Which sizes of the input stay open: the batch, and where they were asked for, height and width."""
    opened = {0: Dim("batch", min=1)}
    if spec.size == "open":
        first = 1 if spec.preprocess == "in-graph" else 2
        opened |= {first: Dim("height", min=_SMALLEST), first + 1: Dim("width", min=_SMALLEST)}
    return {INPUT: opened}


def _trace(wrapper: nn.Module, example: torch.Tensor, opened: dict[str, dict[int, Dim]]) -> ExportedProgram:
    """The network as one graph of torch operators."""
    try:
        # Where it gives up, torch prints the graph so far.
        with _quiet(), redirect_stderr(io.StringIO()), torch.no_grad():
            return torch.export.export(wrapper, (example,), dynamic_shapes=opened, strict=False)
    except Exception as error:  # whatever somebody's forward raises, or torch about it
        raise UserError(
            f"The network can't be exported: tracing it stopped in {where(error, wrapper)}: {why(error)}."
        ) from error


def _translate(
    program: ExportedProgram, wrapper: nn.Module, opset: int, output: str, opened: dict[str, dict[int, Dim]]
) -> torch.onnx.ONNXProgram:
    """The graph in ONNX's operators, optimised by the exporter (constants, batch norms)."""
    try:
        with _quiet():
            exported = torch.onnx.export(
                program,
                (),
                dynamo=True,
                external_data=False,
                optimize=True,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[output],
                dynamic_shapes=opened,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise UserError(
            f"The network can't be exported: ONNX has no form of what {where(error, wrapper)} does: {why(error)}."
        ) from error
    assert exported is not None  # it is for `dynamo=True`
    return exported


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's advice about itself off the screen; what matters of it is checked on the graph."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
