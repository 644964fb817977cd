"""What methods see of a network: the logits, features and embedding of one forward pass, tapped as each asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from kdeploy.errors import UserError
from kdeploy.methods.base import Needs, Outputs, Shapes
from kdeploy.models.classifier import Classifier
from kdeploy.models.stages import onward
from kdeploy.models.taps import Tap, Taps, find_classifier, find_taps, name_taps, pair_taps
from kdeploy.recipe.schema import TapsSpec
from kdeploy.training.rotations import require_square

Side = Literal["student", "teacher"]


@dataclass(frozen=True)
class Tapped:
    """Where a network is tapped: its stages, shallow to deep, and the linear layer that its embedding enters.

    onward: how it goes on behind each stage, where it says so (`kdeploy.models.stages`).
    """

    stages: tuple[Tap, ...]
    classifier: Tap | None
    classes: int
    onward: tuple[Callable[[], nn.Module], ...] = field(default=(), repr=False, compare=False)

    @property
    def shapes(self) -> Shapes:
        """What adapters are built from."""
        features = [(tap.shape[0], tap.shape[1], tap.shape[2]) for tap in self.stages]
        embedding = None if self.classifier is None else self.classifier.shape[0]
        return Shapes(self.classes, features, embedding, self.onward)


def survey(
    student: Classifier,
    teacher: Classifier,
    needs: Sequence[Needs],
    *,
    shape: tuple[int, int, int],
    classes: int,
    taps: TapsSpec | Literal["auto"] = "auto",
) -> tuple[Tapped, Tapped]:
    """Find the taps of student and teacher that these needs ask for: as many stages of both, from the deepest.

    shape: channels, height and width of an image; taps: the stages by name, in place of those found. Raises UserError
    where a network has no such stages, where stages are named that no method looks at, and where images that are not
    square would have to be turned.
    """
    named = None if taps == "auto" else {"student": taps.student, "teacher": taps.teacher}
    ours, theirs = survey_all([student, teacher], needs, shape=shape, classes=classes, named=named)
    return ours, theirs


def survey_all(
    classifiers: Sequence[Classifier],
    needs: Sequence[Needs],
    *,
    shape: tuple[int, int, int],
    classes: int,
    named: Mapping[str, Sequence[str]] | None = None,
) -> list[Tapped]:
    """The same for any number of networks; named: the module paths of each one's stages, by its side."""
    require_square(needs, *shape[1:])
    features = any(need.features is not None for need in needs)
    embedding = features or any(need.embedding or need.teacher_classifier for need in needs)
    if named is not None and not features:
        raise UserError("taps are named, and none of the methods looks at features of stages: leave taps at auto.")
    networks = [classifier.network for classifier in classifiers]
    stages: Sequence[Sequence[Tap]] = [()] * len(networks)
    if named is not None:
        stages = [_by_name(*each, shape) for each in zip(networks, named.items(), strict=True)]
    elif features:
        stages = pair_taps(*(find_taps(network, shape) for network in networks))
    tapped = []
    for network, found in zip(networks, stages, strict=True):
        last = find_classifier(network, shape) if embedding else None
        tapped.append(Tapped(tuple(found), last, classes, onward(network, [tap.path for tap in found])))
    return tapped


def _by_name(network: nn.Module, named: tuple[str, Sequence[str]], shape: tuple[int, int, int]) -> list[Tap]:
    """The taps of a network that a recipe names for its side."""
    side, paths = named
    try:
        return name_taps(network, paths, shape)
    except UserError as error:
        raise UserError(f"taps.{side}: {error}") from None


class View:
    """One network as several methods see it. Open it around the forward passes."""

    def __init__(self, network: Classifier, tapped: Tapped, needs: Sequence[Needs], side: Side) -> None:
        classifier = None if tapped.classifier is None else tapped.classifier.path
        self._taps = [
            Taps(
                network.network,
                [tap.path for tap in stages_of(tapped, need)],
                classifier=classifier if need.wants_embedding else None,
                relu=need.student_relu if side == "student" else need.teacher_relu,
            )
            for need in needs
        ]
        self._needs = tuple(needs)

    @contextmanager
    def opened(self) -> Iterator[View]:
        """Keep the hooks in place for the length of the block."""
        with ExitStack() as stack:
            for taps in self._taps:
                stack.enter_context(taps)
            yield self

    def outputs(self, logits: Tensor) -> list[Outputs]:
        """What each method is given after a forward pass that gave `logits` `[B, C]`."""
        return [
            Outputs(
                logits=logits,
                features=taps.features if need.features is not None else (),
                embedding=taps.embedding if need.wants_embedding else None,
            )
            for taps, need in zip(self._taps, self._needs, strict=True)
        ]


def stages_of(tapped: Tapped, need: Needs) -> tuple[Tap, ...]:
    """The taps of the features that a method asks for."""
    if need.features is None:
        return ()
    return tapped.stages if need.features == "all" else tapped.stages[-1:]
