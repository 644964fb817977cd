"""`torchvision:NAME`: torchvision's classification networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from kdeploy import events
from kdeploy.errors import UserError, nearest
from kdeploy.torchvision_compat import import_torchvision


def check(name: str) -> None:
    """Raise a UserError unless torchvision has a classification network of that name."""
    models = import_torchvision().models
    known = models.list_models(module=models)
    if name not in known:
        raise UserError(f"torchvision has no classification network {name!r}.{nearest(name, known)}")


def create(name: str, *, classes: int, channels: int, options: Mapping[str, Any]) -> nn.Module:
    """Build a network of torchvision's; `options` go to its builder.

    `pretrained: true` (or `weights: NAME`) starts from published weights, which torchvision downloads once; layers
    whose shape depends on the number of classes start anew where it differs.
    """
    if channels != 3:
        raise UserError(f"torchvision:{name} takes 3 channels, and these images have {channels}: use another one.")
    models = import_torchvision().models
    arguments = dict(options)
    weights = arguments.pop("weights", None)
    if arguments.pop("pretrained", False):
        weights = weights or "DEFAULT"
    try:
        network: nn.Module = models.get_model(name, weights=None, num_classes=classes, **arguments)
    except TypeError as error:
        raise UserError(f"torchvision:{name} does not take the options {arguments}: {error}.") from None
    if weights:
        _load_published(models, name, weights, network)
    return network


def _load_published(models: Any, name: str, weights: str, network: nn.Module) -> None:
    known = models.get_model_weights(name)
    if weights not in known.__members__:
        raise UserError(f"torchvision:{name} has no weights {weights!r}.{nearest(weights, known.__members__)}")
    try:
        published = known[weights].get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        raise UserError(
            f"The weights of torchvision:{name} could not be downloaded ({error}): "
            "check the network connection, or name a local file as checkpoint."
        ) from None
    own = network.state_dict()
    fitting = {key: value for key, value in published.items() if key in own and value.shape == own[key].shape}
    anew = [key for key in own if key not in fitting]
    if anew:
        events.decided(f"torchvision:{name} starts anew", ", ".join(anew), "the published ones have another shape")
    own.update(fitting)
    network.load_state_dict(own)
