from __future__ import annotations

import numpy as np
import pytest

from kdeploy.bench.accuracy import predict, score
from kdeploy.bench.inputs import layout_of_manifest
from kdeploy.bench.statistics import wilson
from tests.engines import models

LAYOUT = layout_of_manifest(models.manifest())


def test_every_image_is_predicted_once_in_order() -> None:
    images = models.images(501)
    sizes: list[int] = []
    shares: list[float] = []

    def run(batch: np.ndarray) -> np.ndarray:
        sizes.append(len(batch))
        return models.probabilities(batch).astype(np.float32)

    found = predict(run, LAYOUT, images, shares.append)
    np.testing.assert_array_equal(found, models.probabilities(images).argmax(axis=1))
    assert sum(sizes) == 501
    assert shares[-1] == 1.0


def test_larger_images_run_in_smaller_batches() -> None:
    sizes: list[int] = []

    def run(batch: np.ndarray) -> np.ndarray:
        sizes.append(len(batch))
        return np.zeros((len(batch), 3), np.float32)

    predict(run, LAYOUT, np.zeros((11, 224, 224, 1), np.uint8), lambda _: None)
    assert sizes == [5, 5, 1]


def test_the_score_counts_by_class() -> None:
    found = score(np.array([0, 0, 1, 2]), np.array([0, 0, 0, 2]), ("cat", "dog", "owl"), "test")
    assert (found.samples, found.correct, found.value, found.split) == (4, 3, 0.75, "test")
    assert (found.low, found.high) == wilson(3, 4)
    assert found.per_class == {"cat": pytest.approx(2 / 3), "owl": 1.0}
    assert found.predictions == (0, 0, 1, 2)
