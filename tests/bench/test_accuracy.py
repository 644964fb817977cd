from __future__ import annotations

import numpy as np
import pytest

from kdeploy.bench.accuracy import predict, score
from kdeploy.bench.inputs import layout_of_manifest
from kdeploy.bench.likelihood import Answers
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

    labels = np.arange(501) % 3
    found = predict(run, LAYOUT, images, labels, shares.append)
    np.testing.assert_array_equal(found.predicted, models.probabilities(images).argmax(axis=1))
    np.testing.assert_array_equal(found.labels, labels)
    assert sum(sizes) == 501
    assert shares[-1] == 1.0


def test_larger_images_run_in_smaller_batches() -> None:
    sizes: list[int] = []

    def run(batch: np.ndarray) -> np.ndarray:
        sizes.append(len(batch))
        return np.zeros((len(batch), 3), np.float32)

    predict(run, LAYOUT, np.zeros((11, 224, 224, 1), np.uint8), np.zeros(11, np.int64), lambda _: None)
    assert sizes == [5, 5, 1]


@pytest.mark.parametrize("in_graph", [True, False])
def test_likelihood_is_that_of_probabilities_whether_the_softmax_is_in_the_graph_or_not(in_graph: bool) -> None:
    images, labels = models.images(100), np.arange(100) % 3
    probabilities = models.probabilities(images)

    def run(batch: np.ndarray) -> np.ndarray:
        return (probabilities if in_graph else np.log(probabilities) + 5).astype(np.float32)

    found = predict(run, layout_of_manifest(models.manifest(in_graph=in_graph)), images, labels, lambda _: None)
    expected = Answers.of_probabilities(probabilities, labels)
    measured = score(found, models.CLASSES, "test")
    assert measured.negative_log_likelihood == pytest.approx(expected.negative_log_likelihood, rel=1e-5)
    assert measured.calibration_error == pytest.approx(expected.calibration_error, rel=1e-4)


def test_the_score_counts_by_class() -> None:
    answers = Answers.of_probabilities(np.eye(3)[[0, 0, 1, 2]], np.array([0, 0, 0, 2]))
    found = score(answers, ("cat", "dog", "owl"), "test")
    assert (found.samples, found.correct, found.value, found.split) == (4, 3, 0.75, "test")
    assert (found.low, found.high) == wilson(3, 4)
    assert found.per_class == {"cat": pytest.approx(2 / 3), "owl": 1.0}
    assert found.predictions == (0, 0, 1, 2)
