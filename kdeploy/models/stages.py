"""How a network goes on behind one of its stages: new layers of its own kind, for heads that branch off there."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class Staged(Protocol):
    """A network that can make its later stages a second time, such as the zoo's ResNets, wide ResNets and VGGs.

    stages: the module paths of its stages, shallow to deep.
    """

    stages: list[str]

    def onward(self, stage: str) -> nn.Sequential:
        """The layers behind `stage` up to the pooling, made anew with fresh weights; nothing is shared.

        They take its output `[B, C, H, W]` to a map `[B, D, h, w]` with the D channels of the last stage. Behind the
        last stage that is one more of its width, with stride 1.
        """


def onward(network: nn.Module, paths: Sequence[str]) -> tuple[Callable[[], nn.Module], ...]:
    """For each of these taps what makes `Staged.onward` of it; empty where the network offers none for one of them."""
    if not isinstance(network, Staged) or any(path not in network.stages for path in paths):
        return ()
    return tuple(functools.partial(network.onward, path) for path in paths)
