"""The parts of a network: new layers of its own kind behind a stage, and first layers that several networks share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor, nn


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


@runtime_checkable
class Stemmed(Protocol):
    """A network whose first layers, its stem, may be those of another one, too, such as the zoo's ResNets.

    stem_modules: module paths of these layers, in order.
    """

    stem_modules: tuple[str, ...]

    def body(self, features: Tensor) -> Tensor:
        """All behind the stem: from what its last module gives, `[B, C, H, W]`, to logits `[B, classes]`."""


def share_stem(network: nn.Module, others: Sequence[nn.Module]) -> None:
    """Give `others` the stem of `network`: the same modules, so that there is one to train, and each network is whole.

    All are `Stemmed` with the same `stem_modules`; anything else is a TypeError.
    """
    for other in others:
        if not isinstance(network, Stemmed) or not isinstance(other, Stemmed):
            raise TypeError(f"{type(network).__name__} and {type(other).__name__} have no stem to share")
        for path in other.stem_modules:
            parent, _, name = path.rpartition(".")
            setattr(other.get_submodule(parent), name, network.get_submodule(path))
