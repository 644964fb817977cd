import numpy as np
import pytest
import torch

from kdeploy.errors import UserError
from kdeploy.loading import Batch, EvalBatches, TensorSet, TrainBatches, Views
from kdeploy.recipe.schema import AugmentSpec
from kdeploy.sources.base import ImageSet

PLAIN = AugmentSpec(crop=0, flip=False)


def image_set(count: int = 23) -> ImageSet:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, 6, 5, 3), dtype=np.uint8)
    return ImageSet(images, generator.integers(0, 4, count), ("a", "b", "c", "d"))


def batches(count: int = 23, batch: int = 5, seed: int = 0, augment: AugmentSpec = PLAIN) -> TrainBatches:
    data = TensorSet.from_images(image_set(count), "cpu")
    return TrainBatches(Views(data, augment, seed=seed), batch=batch, seed=seed)


def same(one: Batch, other: Batch) -> bool:
    return torch.equal(one.images, other.images) and torch.equal(one.index, other.index)


@pytest.mark.parametrize("channels", [1, 3])
def test_tensor_set_holds_the_pixels_channels_first_in_memory_of_its_own(channels: int) -> None:
    source = image_set()
    source = ImageSet(source.images[..., :channels].copy(), source.labels, source.classes)
    data = TensorSet.from_images(source, "cpu")
    assert data.images.shape == (23, channels, 6, 5)
    assert data.images.is_contiguous()
    assert data.images[4, channels - 1, 2, 3].item() == source.images[4, 2, 3, channels - 1]
    assert data.labels.dtype == torch.int64
    data.images.zero_()
    data.labels.zero_()
    assert source.images.any()
    assert source.labels.any()


def test_tensor_set_takes_arrays_that_cannot_be_written() -> None:
    source = image_set()
    source.images.setflags(write=False)
    source.labels.setflags(write=False)
    assert len(TensorSet.from_images(source, "cpu")) == 23


def test_an_epoch_holds_every_image_once_with_its_label() -> None:
    source = image_set()
    seen = []
    for batch in batches().epoch(0):
        seen += batch.index.tolist()
        expected = source.images[batch.index.numpy()].transpose(0, 3, 1, 2).astype(np.float32) / 255
        assert batch.images.dtype == torch.float32
        np.testing.assert_allclose(batch.images.numpy(), expected, rtol=1e-7)
        assert batch.labels.tolist() == source.labels[batch.index.numpy()].tolist()
    assert sorted(seen) == list(range(23))
    assert seen != list(range(23))


@pytest.mark.parametrize(
    ("count", "batch", "sizes"),
    [
        (23, 5, [5, 5, 5, 5, 3]),
        (22, 5, [5, 5, 5, 5, 2]),
        (21, 5, [5, 5, 5, 6]),
        (20, 5, [5, 5, 5, 5]),
        (6, 5, [6]),
        (3, 5, [3]),
    ],
)
def test_a_single_remaining_image_joins_the_batch_before(count: int, batch: int, sizes: list[int]) -> None:
    train = batches(count, batch)
    assert [len(part) for part in train.epoch(0)] == sizes
    assert len(train) == len(sizes)


@pytest.mark.parametrize(("count", "batch"), [(23, 1), (1, 5)])
def test_batches_of_one_are_refused(count: int, batch: int) -> None:
    with pytest.raises(UserError, match="batch normalisation"):
        batches(count, batch)


def test_a_resumed_epoch_gives_the_same_batches() -> None:
    augment = AugmentSpec(crop=2, flip=True)
    whole = list(batches(augment=augment).epoch(7))
    fresh = batches(augment=augment)
    list(fresh.epoch(3))
    torch.manual_seed(99)
    resumed = list(fresh.epoch(7, start_batch=2))
    assert len(resumed) == 3
    assert all(same(one, other) for one, other in zip(whole[2:], resumed, strict=True))


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    list(batches(augment=AugmentSpec()).epoch(0))
    assert torch.equal(torch.rand(1), expected)


def test_epochs_seeds_and_batches_differ() -> None:
    augment = AugmentSpec(crop=2, flip=True)
    orders = {
        tuple(torch.cat([batch.index for batch in batches(seed=seed).epoch(epoch)]).tolist())
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(orders) == 4
    one_image = TensorSet.from_images(image_set(1), "cpu")
    repeated = TensorSet(one_image.images.expand(40, 3, 6, 5).contiguous(), one_image.labels.expand(40))
    first, second = TrainBatches(Views(repeated, augment, seed=0), batch=20, seed=0).epoch(0)
    assert not torch.equal(first.images, second.images)


def test_order_is_pinned_so_that_old_runs_can_be_resumed() -> None:
    order = torch.cat([batch.index for batch in batches(10, 5, seed=1).epoch(2)]).tolist()
    assert order == [2, 6, 0, 1, 5, 3, 8, 9, 7, 4]


def test_evaluation_goes_through_in_order() -> None:
    source = image_set()
    evaluation = EvalBatches(TensorSet.from_images(source, "cpu"), batch=10)
    for _ in range(2):
        parts = list(evaluation)
        assert [len(part) for part in parts] == [10, 10, 3]
        assert torch.cat([part.index for part in parts]).tolist() == list(range(23))
        assert torch.cat([part.labels for part in parts]).tolist() == source.labels.tolist()
        np.testing.assert_allclose(parts[2].images[1, 2, 3, 4].item(), source.images[21, 3, 4, 2] / 255, rtol=1e-6)
    assert len(evaluation) == 3


def shares(processes: int, *, count: int = 23, batch: int = 5) -> list[TrainBatches]:
    views = Views(TensorSet.from_images(image_set(count), "cpu"), AugmentSpec(crop=2, flip=True), seed=3)
    return [TrainBatches(views, batch=batch, seed=3, share=(rank, processes)) for rank in range(processes)]


@pytest.mark.parametrize(("processes", "batch"), [(2, 5), (3, 8), (4, 9)])
def test_the_parts_of_several_processes_are_the_batches_of_one(processes: int, batch: int) -> None:
    (alone,) = shares(1, batch=batch)
    for whole, *parts in zip(alone.epoch(1), *(each.epoch(1) for each in shares(processes, batch=batch)), strict=True):
        if len(whole) < 2 * processes:  # too few to be shared: all have it whole, and say so
            assert all(same(part, whole) and part.sizes == () for part in parts)
            continue
        assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
        assert torch.equal(torch.cat([part.index for part in parts]), whole.index)
        assert all(part.sizes == tuple(len(each) for each in parts) for part in parts)
        assert min(len(part) for part in parts) >= 2


def test_batches_that_cannot_be_shared_are_refused() -> None:
    with pytest.raises(UserError, match="cannot be shared by 3 processes"):
        shares(3, batch=5)


@pytest.mark.parametrize(("count", "processes"), [(23, 2), (7, 3), (2, 3)])
def test_evaluation_counts_each_image_once(count: int, processes: int) -> None:
    data = TensorSet.from_images(image_set(count), "cpu")
    shared = [EvalBatches(data, batch=4, share=(rank, processes)) for rank in range(processes)]
    parts = [list(batches) for batches in shared]
    assert [len(batches) for batches in shared] == [len(part) for part in parts]
    seen = torch.cat([batch.index for part in parts for batch in part])
    assert seen.tolist() == list(range(count))
