"""Batched RandAugment against torchvision's own, image by image, on the same draws."""

from __future__ import annotations

import pytest
import torch

from kdeploy.loading.randaugment import OPERATIONS, draw_operations, randaugment
from kdeploy.recipe.schema import RandAugmentSpec
from kdeploy.torchvision_compat import import_torchvision
from tests.loading.test_augment import images

import_torchvision()
from torchvision.transforms.v2 import RandAugment  # noqa: E402

THEIRS = RandAugment()
SPACE = THEIRS._AUGMENTATION_SPACE


def theirs(image: torch.Tensor, codes: list[int], magnitude: int) -> torch.Tensor:
    """One image through the operations, as `torchvision.transforms.v2.RandAugment.forward` applies them."""
    for code in codes:
        name = OPERATIONS[code // 2]
        magnitudes, signed = SPACE[name][0](31, *image.shape[-2:]), SPACE[name][1]
        assert signed or code % 2 == 0
        value = 0.0 if magnitudes is None else float(magnitudes[magnitude])
        value = -value if code % 2 else value
        image = THEIRS._apply_image_or_video_transform(image, name, value, THEIRS.interpolation, THEIRS._fill)
    return image


def test_the_operations_are_torchvisions_in_its_order() -> None:
    assert tuple(SPACE) == OPERATIONS


@pytest.mark.parametrize("magnitude", [0, 9, 30])
@pytest.mark.parametrize("shape", [(32, 32), (24, 40)])
def test_each_operation_equals_torchvisions_on_single_images(magnitude: int, shape: tuple[int, int]) -> None:
    batch = images(5, *shape)
    codes = {int(code) for code in draw_operations(2000, RandAugmentSpec(), torch.Generator()).unique()}
    assert len(codes) == 14 + 9  # nine go either way
    for code in codes:
        changed = randaugment(batch, torch.full((5, 1), code), magnitude)
        expected = torch.stack([theirs(image, [code], magnitude) for image in batch])
        assert torch.equal(changed, expected), OPERATIONS[code // 2]
        moves = OPERATIONS[code // 2] not in ("Identity", "AutoContrast", "Posterize") and magnitude == 9
        assert not moves or not torch.equal(changed, batch), OPERATIONS[code // 2]


@pytest.mark.parametrize("operations", [1, 2, 3])
def test_a_mixed_batch_equals_torchvisions_on_single_images(operations: int) -> None:
    batch = images(64, 32, 32)
    before = batch.clone()
    drawn = draw_operations(64, RandAugmentSpec(operations=operations), torch.Generator().manual_seed(operations))
    expected = torch.stack([theirs(image, codes, 9) for image, codes in zip(batch, drawn.tolist(), strict=True)])
    assert torch.equal(randaugment(batch, drawn, 9), expected)
    assert torch.equal(batch, before)


def test_gray_images_pass_through_every_operation() -> None:
    gray = images(64, 16, 16)[:, :1]
    drawn = draw_operations(64, RandAugmentSpec(), torch.Generator().manual_seed(0))
    changed = randaugment(gray, drawn, 9)
    assert changed.shape == gray.shape
    assert changed.dtype == torch.uint8


def test_draws_reach_every_operation_and_both_ways_evenly() -> None:
    drawn = draw_operations(28_000, RandAugmentSpec(operations=1), torch.Generator().manual_seed(0)).flatten()
    counts = torch.bincount(drawn // 2, minlength=14)
    assert counts.min() > 1800
    assert counts.max() < 2200
    signed = drawn[(drawn // 2 >= 1) & (drawn // 2 <= 9)]
    assert 0.48 < (signed % 2).float().mean().item() < 0.52
