"""Streamed batches are those in memory, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kdeploy.errors import UserError
from kdeploy.loading import Batch, EvalBatches, StreamedSet, TensorSet, TrainBatches, Views, channel_statistics, digest
from kdeploy.recipe.schema import AugmentSpec, DataSpec
from kdeploy.sources.base import ImageSet
from kdeploy.sources.imagefolder import load
from tests.sources.conftest import encoded, random_pixels, write_tree

AUGMENT = AugmentSpec.model_validate(
    {"crop": 2, "flip": True, "cutout": 4, "randaugment": {"operations": 2, "magnitude": 9}, "mixup": 1, "cutmix": 1}
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = {f"{k}/{n:02}.png": encoded(random_pixels(20, 17, 3, seed=n)) for k in "ab" for n in range(12)}
    return write_tree(tmp_path_factory.mktemp("streaming"), files)


def images(folder: Path, *, memory: bool) -> ImageSet:
    spec = DataSpec.model_validate({"source": "imagefolder", "root": str(folder), "size": 16, "memory": memory})
    whole = load(spec, "", folder).train
    return whole.take(np.random.default_rng(0).permutation(24)[:23])


def both(folder: Path) -> tuple[TensorSet, StreamedSet]:
    kept, streamed = images(folder, memory=True), images(folder, memory=False)
    assert streamed.streams
    assert not kept.streams
    return TensorSet.from_images(kept, "cpu"), StreamedSet.from_images(streamed, "cpu")


def same(one: Batch, other: Batch) -> bool:
    tensors = [(one.images, other.images), (one.labels, other.labels), (one.index, other.index)]
    if one.mixed is not None and other.mixed is not None:
        tensors.append((one.mixed.partner, other.mixed.partner))
    shares = [batch.mixed and batch.mixed.share for batch in (one, other)]
    return all(torch.equal(*pair) for pair in tensors) and shares[0] == shares[1] and one.view == other.view


def test_training_batches_are_the_same_from_any_start(folder: Path) -> None:
    kept, streamed = (TrainBatches(Views(data, AUGMENT, seed=1, count=2), batch=5, seed=1) for data in both(folder))
    for epoch, start in ((0, 0), (3, 2)):
        ours, theirs = list(kept.epoch(epoch, start)), list(streamed.epoch(epoch, start))
        assert len(ours) == 5 - start
        assert all(same(one, other) for one, other in zip(ours, theirs, strict=True))


def test_evaluation_views_statistics_and_digest_are_the_same(folder: Path) -> None:
    kept, streamed = both(folder)
    for one, other in zip(EvalBatches(kept, batch=10), EvalBatches(streamed, batch=10), strict=True):
        assert same(one, other)
    index = torch.tensor([7, 0, 22])
    views = [Views(data, AUGMENT, seed=0) for data in (kept, streamed)]
    assert torch.equal(views[0].images(3, index), views[1].images(3, index))
    statistics = [channel_statistics(images(folder, memory=memory)) for memory in (True, False)]
    assert statistics[0] == statistics[1]
    assert digest(kept) == digest(streamed)


def test_the_global_generator_is_left_alone(folder: Path) -> None:
    _, streamed = both(folder)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    list(TrainBatches(Views(streamed, AUGMENT, seed=0), batch=12, seed=0).epoch(0))
    assert torch.equal(torch.rand(1), expected)


def test_an_error_in_a_worker_is_the_users_sentence(tmp_path: Path) -> None:
    files = {f"{k}/{n}.png": encoded(random_pixels(20, 17, 3, seed=n)) for k in "ab" for n in range(6)}
    root = write_tree(tmp_path, files)
    streamed = StreamedSet.from_images(images_of(root), "cpu")
    (root / "b/5.png").write_bytes(b"gone")
    with pytest.raises(UserError, match=r"^[^\n]*5\.png has changed since this run began[^\n]*$"):
        list(EvalBatches(streamed, batch=4))


def images_of(root: Path) -> ImageSet:
    spec = DataSpec.model_validate({"source": "imagefolder", "root": str(root), "memory": False})
    return load(spec, "", root).train
