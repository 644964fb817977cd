"""A linear readout: the last linear layer, trained alone on the labels and on the features as they are.

A network that was distilled by its features only (information-flow modelling, PKT) has learnt to see and not to name:
its loss never reached the last linear layer. This makes a classifier of it without touching what it has learnt, so
that its accuracy says how well a straight cut through its features separates the classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import nn

from kdeploy.models.classifier import Classifier
from kdeploy.models.taps import find_classifier
from kdeploy.recipe.schema import TrainSpec
from kdeploy.training import loop
from kdeploy.training.objective import Readout

if TYPE_CHECKING:
    from kdeploy.training.procedures.base import Workshop


def read_out(shop: Workshop, role: str, classifier: Classifier, spec: TrainSpec, seed: int) -> loop.Fitted:
    """Train the last linear layer of `classifier` in place, as `spec` says; all else keeps its weights and statistics.

    Its state lies in `networks/<role>/readout`, apart from that of the training before. Raises UserError for a network
    without a linear layer.
    """
    height, width, channels = shop.splits.shape
    last = classifier.network.get_submodule(find_classifier(classifier.network, (channels, height, width)).path)
    with _trained_alone(last, of=classifier):
        return loop.fit(
            classifier,
            Readout(spec.label_smoothing),
            train=shop.training(spec, seed),
            validation=shop.validation(),
            spec=spec,
            setup=shop.decide(spec),
            folder=shop.networks / role / "readout",
            label=f"{role}: readout",
        )


@contextmanager
def _trained_alone(part: nn.Module, *, of: nn.Module) -> Iterator[None]:
    """Freeze all parameters of a network but one part's, for the length of the block."""
    before = {parameter: parameter.requires_grad for parameter in of.parameters()}
    of.requires_grad_(False)
    part.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, trained in before.items():
            parameter.requires_grad_(trained)
