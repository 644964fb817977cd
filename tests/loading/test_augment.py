import pytest
import torch

from kdeploy.loading.augment import crop_and_flip, crop_offsets, flips


def images(count: int = 40, height: int = 7, width: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(("crop", "flip"), [(2, True), (2, False), (0, True), (9, True)])
def test_equals_a_loop_over_single_images_on_the_same_draws(crop: int, flip: bool) -> None:
    batch = images()
    fast = crop_and_flip(batch, crop=crop, flip=flip, generator=torch.Generator().manual_seed(5))
    draws = torch.Generator().manual_seed(5)
    offsets = crop_offsets(len(batch), crop, draws) if crop else torch.zeros(len(batch), 2, dtype=torch.int64)
    mirrored = flips(len(batch), draws) if flip else torch.zeros(len(batch), dtype=torch.bool)
    for image, result, (row, column), mirror in zip(batch, fast, offsets.tolist(), mirrored.tolist(), strict=True):
        canvas = torch.zeros(3, 7 + 2 * crop, 5 + 2 * crop, dtype=torch.uint8)
        canvas[:, crop : crop + 7, crop : crop + 5] = image
        window = canvas[:, row : row + 7, column : column + 5]
        assert torch.equal(result, window.flip(2) if mirror else window)


def test_off_is_the_identity() -> None:
    batch = images()
    assert torch.equal(crop_and_flip(batch, crop=0, flip=False, generator=torch.Generator()), batch)


def test_the_input_is_left_as_it_was_and_dtype_and_shape_stay() -> None:
    batch = images()
    before = batch.clone()
    result = crop_and_flip(batch, crop=2, flip=True, generator=torch.Generator().manual_seed(0))
    assert torch.equal(batch, before)
    assert result.dtype == torch.uint8
    assert result.shape == batch.shape
    assert result.is_contiguous()


def test_draws_reach_every_offset_and_half_of_the_flips() -> None:
    generator = torch.Generator().manual_seed(0)
    offsets = crop_offsets(2000, 2, generator)
    assert {tuple(pair) for pair in offsets.tolist()} == {(row, column) for row in range(5) for column in range(5)}
    assert 0.45 < flips(2000, generator).float().mean().item() < 0.55
