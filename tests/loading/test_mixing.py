"""Mixup and CutMix: pixels and shares say the same, and every draw can be made again."""

from __future__ import annotations

import pytest
import torch

from kdeploy.loading import Batch
from kdeploy.loading.mixing import Mixed, Mixing
from kdeploy.recipe.schema import AugmentSpec


def flat(count: int = 16) -> torch.Tensor:
    """Images `[count, 1, 8, 12]` of one value each, all different."""
    return (torch.arange(count) / count)[:, None, None, None].expand(count, 1, 8, 12).contiguous()


def mix(epoch: int = 0, batch: int = 0, *, seed: int = 0, **spec: float) -> tuple[torch.Tensor, Mixed]:
    images, mixed = Mixing(AugmentSpec.model_validate(spec), seed=seed)(flat(), epoch, batch)
    assert mixed is not None
    return images, mixed


def test_without_either_a_batch_stays_as_it_is() -> None:
    images = flat()
    kept, mixed = Mixing(AugmentSpec(), seed=0)(images, 0, 0)
    assert kept is images
    assert mixed is None


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_blends_each_image_with_its_partner_in_its_share(alpha: float) -> None:
    for number in range(5):
        images, mixed = mix(0, number, mixup=alpha)
        expected = mixed.share * flat() + (1 - mixed.share) * flat()[mixed.partner]
        torch.testing.assert_close(images, expected)
        assert sorted(mixed.partner.tolist()) == list(range(16))


def test_cutmix_pastes_one_box_whose_area_is_the_partners_share() -> None:
    original = flat()
    cut_off = 0
    for number in range(40):
        images, mixed = mix(0, number, cutmix=1.0)
        theirs = (images == original[mixed.partner]) & (original != original[mixed.partner])
        moved = theirs.any(dim=(1, 2, 3))
        assert torch.equal(images, torch.where(theirs, original[mixed.partner], original))
        assert torch.equal(moved, mixed.partner != torch.arange(16)) or mixed.share == 1
        for own in theirs[moved]:
            rows, columns = own[0].any(1).nonzero().flatten(), own[0].any(0).nonzero().flatten()
            area = len(rows) * len(columns)
            assert int(own.sum()) == area
            assert int(rows[-1] - rows[0]) + 1 == len(rows)
            assert mixed.share == pytest.approx(1 - area / (8 * 12))
            cut_off += int(rows[0] == 0)
    assert cut_off > 0


def test_the_share_follows_its_beta_distribution() -> None:
    shares = torch.tensor([mix(epoch, number, mixup=0.4)[1].share for epoch in range(20) for number in range(25)])
    assert 0.45 < shares.mean() < 0.55
    assert 0.117 < shares.var() < 0.161  # of Beta(a, a): 1 / (4 (2 a + 1)) = 0.139


def test_both_at_once_take_turns() -> None:
    original = flat()
    cuts = 0
    for number in range(100):
        images, mixed = mix(0, number, mixup=1.0, cutmix=1.0)
        cuts += bool(((images == original) | (images == original[mixed.partner])).all())
    assert 30 < cuts < 70


def test_a_batch_is_mixed_the_same_again_and_another_otherwise() -> None:
    spec = {"mixup": 1.0, "cutmix": 1.0}
    first, again = mix(3, 2, **spec), mix(3, 2, **spec)
    assert torch.equal(first[0], again[0])
    assert first[1].share == again[1].share
    others = [mix(3, 1, **spec), mix(2, 2, **spec), mix(3, 2, seed=1, **spec)]
    assert all(not torch.equal(first[0], other[0]) for other in others)


def test_draws_are_pinned_so_that_old_runs_can_be_resumed() -> None:
    _, mixed = mix(2, 1, mixup=0.5)
    assert mixed.partner.tolist()[:4] == [1, 10, 12, 9]
    assert mixed.share == pytest.approx(0.9459056604698093)


@pytest.mark.parametrize(("share", "expected"), [(0.7, [0, 1]), (0.5, [0, 1]), (0.3, [1, 0])])
def test_the_main_label_is_that_of_the_larger_part(share: float, expected: list[int]) -> None:
    labels = torch.tensor([0, 1])
    batch = Batch(flat(2), labels, labels, mixed=Mixed(torch.tensor([1, 0]), share))
    assert batch.main_labels.tolist() == expected
