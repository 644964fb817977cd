"""The tensors of a teacher that methods ask for, by name: `logits`, `embedding`, `layer3`, `layer3 before ReLU`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from kdeploy.methods.base import Needs, Outputs
from kdeploy.training.views import Tapped, stages_of

LOGITS, EMBEDDING = "logits", "embedding"


def names_of(tapped: Tapped, need: Needs) -> list[str]:
    """The names of a method's features, shallow to deep."""
    moved = "" if need.teacher_relu == "as-is" else f" {need.teacher_relu} ReLU"
    return [f"{tap.path}{moved}" for tap in stages_of(tapped, need)]


def by_name(tapped: Tapped, needs: Sequence[Needs], outputs: Sequence[Outputs]) -> dict[str, Tensor]:
    """What a forward pass gave for these needs, each tensor once."""
    found = {LOGITS: outputs[0].logits}
    for need, output in zip(needs, outputs, strict=True):
        found.update(zip(names_of(tapped, need), output.features, strict=True))
        if output.embedding is not None:
            found[EMBEDDING] = output.embedding
    return found


def to_outputs(tapped: Tapped, needs: Sequence[Needs], found: Mapping[str, Tensor]) -> list[Outputs]:
    """The other way round: one `Outputs` for each need."""
    return [
        Outputs(
            logits=found[LOGITS],
            features=[found[name] for name in names_of(tapped, need)],
            embedding=found[EMBEDDING] if need.wants_embedding else None,
        )
        for need in needs
    ]
