"""`timm:NAME`: the networks of timm, an optional dependency."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from torch import nn

from kdeploy.errors import UserError, missing_extra
from kdeploy.torchvision_compat import import_torchvision


def check(name: str) -> None:
    """Raise a UserError unless timm has a network of that name; Unavailable where timm is not installed."""
    timm = _timm(name)
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else " timm.list_models() names them all."
        raise UserError(f"timm has no network {name!r}.{hint}")


def create(name: str, *, classes: int, channels: int, options: Mapping[str, Any]) -> nn.Module:
    """Build a network of timm's for `classes` and `channels`; `options` go to `timm.create_model`.

    `pretrained: true` starts from published weights, which timm downloads once and adapts to both.
    """
    timm = _timm(name)
    try:
        network: nn.Module = timm.create_model(name, num_classes=classes, in_chans=channels, **options)
    except TypeError as error:
        raise UserError(f"timm:{name} does not take the options {dict(options)}: {error}.") from None
    except Exception as error:
        if not options.get("pretrained"):
            raise
        # Whatever hub timm asks has its own family of errors; none of them derives from another's.
        raise UserError(
            f"The weights of timm:{name} could not be had ({type(error).__name__}: {error}): "
            "check the network connection, or name a local file as checkpoint."
        ) from error
    return network


def _timm(name: str) -> ModuleType:
    import_torchvision()  # timm imports it too, and does not know how where its operators do not fit torch
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise missing_extra("timm", "timm", f"The network timm:{name}") from None
