import pytest
import torch

from kdeploy.loading import TensorSet, TrainBatches, Views
from kdeploy.recipe.schema import AugmentSpec
from tests.loading.test_batches import image_set

AUGMENT = AugmentSpec(crop=2, flip=True)
EVERYTHING = AugmentSpec.model_validate({"crop": 2, "randaugment": {}, "cutout": 2})
HOLES = AugmentSpec(crop=2, flip=True, cutout=3)


def views(count: int | None = None, *, seed: int = 0, augment: AugmentSpec = AUGMENT) -> Views:
    return Views(TensorSet.from_images(image_set(), "cpu"), augment, seed=seed, count=count)


@pytest.mark.parametrize("augment", [AUGMENT, EVERYTHING], ids=["crop and flip", "everything"])
@pytest.mark.parametrize("number", [0, 3])
def test_a_sample_looks_the_same_alone_and_in_any_batch(number: int, augment: AugmentSpec) -> None:
    together = views(augment=augment).images(number, torch.arange(23))
    for sample in range(23):
        assert torch.equal(views(augment=augment).images(number, torch.tensor([sample]))[0], together[sample])
    mixed = torch.tensor([5, 22, 1])
    assert torch.equal(views(augment=augment).images(number, mixed), together[mixed])


def test_crops_and_flips_stay_where_others_are_switched_on() -> None:
    """A recipe that adds cutout keeps the crops that it had: each kind of change has its own generator."""
    everything = torch.arange(23)
    plain, painted = (views(augment=augment).images(1, everything) for augment in (AUGMENT, HOLES))
    assert ((plain == painted) | (painted == 0)).all()
    assert not torch.equal(plain, painted)


def test_cutout_paints_with_the_mean_colour() -> None:
    data = TensorSet.from_images(image_set(), "cpu")
    whole = Views(data, AugmentSpec(crop=0, flip=False, cutout=99), seed=0, mean=(0.1, 0.5, 0.9))
    colour = torch.tensor([26, 128, 230]) / 255
    assert torch.equal(whole.images(0, torch.arange(2)), colour[None, :, None, None].expand(2, 3, 6, 5))


def test_views_and_seeds_differ_and_are_made_again_in_any_order() -> None:
    everything = torch.arange(23)
    shown = views()
    first = {number: shown.images(number, everything) for number in (0, 1)}
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], views(seed=1).images(0, everything))
    for number in (1, 0):
        assert torch.equal(shown.images(number, everything), first[number])


def test_a_set_number_of_views_comes_round_and_none_never_does() -> None:
    assert [views(3).of_epoch(epoch) for epoch in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert [views().of_epoch(epoch) for epoch in range(7)] == list(range(7))


def test_batches_show_the_view_of_their_epoch() -> None:
    shown = views(2)
    for epoch in range(4):
        for batch in TrainBatches(shown, batch=5, seed=0).epoch(epoch):
            assert batch.view == epoch % 2
            assert torch.equal(batch.images, shown.images(batch.view, batch.index))


def test_without_augmentation_every_view_is_the_image() -> None:
    shown = views(augment=AugmentSpec(crop=0, flip=False))
    assert torch.equal(shown.images(4, torch.arange(23)), shown.data.images.float() / 255)
