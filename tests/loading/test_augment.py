import pytest
import torch

from kdeploy.loading.augment import centres, crop, crop_offsets, cutout, flips, mirror


def images(count: int = 40, height: int = 7, width: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("padding", [1, 2, 9])
def test_a_crop_equals_a_loop_over_single_images(padding: int) -> None:
    batch = images()
    offsets = crop_offsets(len(batch), padding, torch.Generator().manual_seed(5))
    for image, result, (row, column) in zip(batch, crop(batch, offsets, padding), offsets.tolist(), strict=True):
        canvas = torch.zeros(3, 7 + 2 * padding, 5 + 2 * padding, dtype=torch.uint8)
        canvas[:, padding : padding + 7, padding : padding + 5] = image
        assert torch.equal(result, canvas[:, row : row + 7, column : column + 5])


def test_a_mirror_exchanges_left_and_right_of_those_that_were_asked_for() -> None:
    batch = images(2)
    first, second = mirror(batch, torch.tensor([True, False]))
    assert torch.equal(first[:, :, 0], batch[0, :, :, -1])
    assert torch.equal(second, batch[1])


def test_the_middle_crop_is_the_identity() -> None:
    batch = images()
    assert torch.equal(crop(batch, torch.full((len(batch), 2), 3), 3), batch)


def test_the_input_is_left_as_it_was_and_dtype_and_shape_stay() -> None:
    batch = images()
    before = batch.clone()
    generator = torch.Generator().manual_seed(0)
    result = mirror(crop(batch, crop_offsets(len(batch), 2, generator), 2), flips(len(batch), generator))
    assert torch.equal(batch, before)
    assert result.dtype == torch.uint8
    assert result.shape == batch.shape
    assert result.is_contiguous()


def test_draws_reach_every_offset_and_half_of_the_flips() -> None:
    generator = torch.Generator().manual_seed(0)
    offsets = crop_offsets(2000, 2, generator)
    assert {tuple(pair) for pair in offsets.tolist()} == {(row, column) for row in range(5) for column in range(5)}
    assert 0.45 < flips(2000, generator).float().mean().item() < 0.55


@pytest.mark.parametrize("side", [2, 3, 4, 20])
def test_cutout_equals_a_loop_over_single_images(side: int) -> None:
    batch = images()
    middles = centres(len(batch), 7, 5, torch.Generator().manual_seed(2))
    fill = torch.tensor([1, 2, 3], dtype=torch.uint8)
    changed = cutout(batch, middles, side, fill)
    for image, result, (row, column) in zip(batch, changed, middles.tolist(), strict=True):
        expected = image.clone()
        top, left = max(row - side // 2, 0), max(column - side // 2, 0)
        bottom, right = row - side // 2 + side, column - side // 2 + side
        expected[:, top:bottom, left:right] = fill[:, None, None]
        assert torch.equal(result, expected)
    assert {tuple(pair) for pair in centres(2000, 7, 5, torch.Generator()).tolist()} == {
        (row, column) for row in range(7) for column in range(5)
    }
