"""torchvision beside a torch that it was not compiled for: the one place that makes it importable.

A CPU-only torch beside the ordinary (CUDA) torchvision wheel is common. torchvision's compiled part cannot load there,
so the operators `torchvision::nms` and `torchvision::qnms` are never declared, and the import fails where it registers
their shape functions. With the two schemas declared, models, datasets and transforms work; the box operators
(`torchvision.ops.nms` and its kin) still do not, and kdeploy uses none of them.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from kdeploy import events
from kdeploy.errors import missing_extra

_declared: list[Any] = []  # torch forgets what a Library declared when the Library is collected


def import_torchvision() -> ModuleType:
    """Import torchvision, with the two missing schemas declared where its compiled part does not fit torch.

    Raises Unavailable where torchvision is not installed; any other failure of its import passes through.
    """
    try:
        return importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        raise missing_extra("torchvision", "train", "This data set or network") from None
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
    _declare_operators()
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # what the failed import left behind
    events.decided("torchvision", "without its compiled operators", "they were built for another torch")
    return importlib.import_module("torchvision")


def _declare_operators() -> None:
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(schema)  # type: ignore[no-untyped-call]
    _declared.append(library)
