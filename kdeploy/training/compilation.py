"""torch.compile, for those who ask for it."""

from __future__ import annotations

import os
import shutil
from typing import cast

import torch
from torch import nn

from kdeploy.errors import Unavailable
from kdeploy.training.setup import Setup

_COMPILERS = ("g++", "clang++", "c++")


def compiled(network: nn.Module, setup: Setup) -> nn.Module:
    """A network that is compiled at its first batch; its weights and their names are the network's own.

    Raises Unavailable where the CPU's compiler is missing, which torch would only say in the middle of things.
    """
    on_cpu = setup.device.type == "cpu"
    if on_cpu and not any(map(shutil.which, (os.environ.get("CXX", ""), *_COMPILERS))):
        raise Unavailable("compile: true needs a C++ compiler, and there is none: install g++, or leave compile out.")
    return cast("nn.Module", torch.compile(network))
