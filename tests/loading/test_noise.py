"""Batches that are drawn."""

from __future__ import annotations

import pytest
import torch

from kdeploy.errors import UserError
from kdeploy.loading import NO_CLASS, NoiseBatches


def batches(**more: object) -> NoiseBatches:
    return NoiseBatches((3, 4, 5), **{"count": 3, "batch": 8, "seed": 0, **more})  # type: ignore[arg-type]


def test_a_batch_depends_on_seed_epoch_and_number_alone() -> None:
    whole = [batch.images for batch in batches().epoch(1)]
    later = [batch.images for batch in batches().epoch(1, start_batch=2)]
    assert len(whole) == len(batches()) == 3
    assert torch.equal(later[0], whole[2])
    others = [*whole, *(batch.images for batch in batches().epoch(0)), next(batches(seed=1).epoch(1)).images]
    assert len({tuple(images.flatten().tolist()) for images in others}) == len(others)


def test_a_normalisation_makes_it_standard_noise_and_nothing_is_clamped() -> None:
    mean, std = torch.tensor([0.2, 0.5, 0.8]).view(1, 3, 1, 1), torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)
    given = batches(batch=2000, count=1, mean=mean.flatten().tolist(), std=std.flatten().tolist())
    images = next(given.epoch(0)).images
    standard = (images - mean) / std
    assert standard.mean((0, 2, 3)).abs().max() < 0.02
    assert (standard.std((0, 2, 3)) - 1).abs().max() < 0.02
    assert images.min() < 0 < 1 < images.max()


def test_there_are_no_labels_to_be_used_by_mistake() -> None:
    batch = next(batches().epoch(0))
    assert set(batch.labels.tolist()) == {NO_CLASS}
    with pytest.raises(IndexError):
        torch.nn.functional.cross_entropy(torch.zeros(8, 10), batch.labels)


def test_processes_have_parts_of_the_same_batch() -> None:
    whole = next(batches().epoch(0)).images
    parts = [next(batches(share=(rank, 3)).epoch(0)) for rank in range(3)]
    assert torch.equal(torch.cat([part.images for part in parts]), whole)
    assert {part.sizes for part in parts} == {(3, 3, 2)}
    with pytest.raises(UserError, match="two samples in each process; batch is 8"):
        batches(share=(0, 5))
