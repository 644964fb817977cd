"""A teacher that was asked beforehand."""

from __future__ import annotations

from collections.abc import Sequence

from kdeploy.loading import Batch
from kdeploy.methods.base import Needs, Outputs
from kdeploy.training.teacher_cache.shards import Shards
from kdeploy.training.teacher_cache.tensors import to_outputs
from kdeploy.training.views import Tapped


class Cached:
    """What a teacher said of each view of each sample, read from memory-mapped files (`teaching.Teaching`)."""

    def __init__(self, shards: Shards, tapped: Tapped, needs: Sequence[Needs]) -> None:
        self._shards = shards
        self._tapped = tapped
        self._needs = tuple(needs)

    def outputs(self, batch: Batch) -> list[Outputs]:
        found = {name: self._shards.read(batch.view, name, batch.index) for name in self._shards.layouts}
        return to_outputs(self._tapped, self._needs, found)
