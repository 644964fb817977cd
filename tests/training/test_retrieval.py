"""Retrieval by hand: few enough items that every precision can be counted."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor

from kdeploy.loading import Batch
from kdeploy.models import create
from kdeploy.models.classifier import Classifier
from kdeploy.recipe.schema import NetworkSpec, TrainSpec
from kdeploy.training import retrieval, setup
from kdeploy.training.retrieval import embed, retrieve


def line(labels: list[int]) -> tuple[Tensor, Tensor]:
    """A database on a line, nearest to 0 first, with these labels."""
    return torch.arange(1.0, len(labels) + 1)[:, None], torch.tensor(labels)


QUERY = (torch.zeros(1, 1), torch.tensor([1]))


def test_all_found_first_is_one() -> None:
    found = retrieve(QUERY, line([1, 1, 0, 0]), metric="l2", rank=2)
    assert (found.mean_average_precision, found.precision) == (1.0, 1.0)


def test_eleven_levels_by_hand() -> None:
    """Ranks 1 and 4 of 5 are right: precision 1 up to recall 1/2, which is six levels, then 2/4 at five."""
    found = retrieve(QUERY, line([1, 0, 0, 1, 0]), metric="l2", rank=3)
    assert found.mean_average_precision == pytest.approx((6 * 1 + 5 * 0.5) / 11)
    assert found.precision == pytest.approx(1 / 3)


def test_precision_is_interpolated_by_the_best_behind() -> None:
    """Ranks 2 and 3 of 3 are right: p = 0, 1/2, 2/3, and the best at or behind each level is 2/3."""
    found = retrieve(QUERY, line([0, 1, 1]), metric="l2", rank=1)
    assert found.mean_average_precision == pytest.approx(2 / 3)
    assert found.precision == 0


def test_the_authors_code_by_hand() -> None:
    """p = 1, 1/2, 1/3, 2/4, 2/5 becomes 1, 1/2, 1/2, 1/2, 2/5; recall 1/2 from rank 1 and 1 from rank 4.

    Levels 0 to 0.7 are nearest to 1/2 (rank 1, 1.0), 0.8 to 1 to 1 (rank 4, 0.5); the precision at rank 3 is 1/2.
    """
    found = retrieve(QUERY, line([1, 0, 0, 1, 0]), metric="l2", rank=3, form="code")
    assert found.mean_average_precision == pytest.approx((8 * 1 + 3 * 0.5) / 11)
    assert found.precision == pytest.approx(0.5)


def test_means_are_over_all_queries() -> None:
    queries = (torch.zeros(2, 1), torch.tensor([1, 0]))
    found = retrieve(queries, line([1, 1, 0, 0]), metric="l2", rank=1)
    assert found.precision == 0.5
    assert found.mean_average_precision == pytest.approx((1 + 0.5) / 2)  # 0 at ranks 3 and 4: at best 2/4


def test_many_queries_are_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    database = torch.randn(60, 5, generator=generator), torch.randint(3, (60,), generator=generator)
    queries = torch.randn(17, 5, generator=generator), torch.randint(3, (17,), generator=generator)
    whole = retrieve(queries, database, metric="cosine", rank=10)
    monkeypatch.setattr(retrieval, "_BATCH", 4)
    parts = retrieve(queries, database, metric="cosine", rank=10)
    assert parts.mean_average_precision == pytest.approx(whole.mean_average_precision)
    assert parts.precision == pytest.approx(whole.precision)


def slowly(queries: tuple[Tensor, Tensor], database: tuple[Tensor, Tensor], metric: str) -> float:
    """The definition, query by query, level by level."""
    scores = []
    for row, label in zip(*queries, strict=True):
        if metric == "l2":
            distances = [(row - other).norm().item() for other in database[0]]
        else:
            distances = [-torch.cosine_similarity(row, other, dim=0).item() for other in database[0]]
        ranked = sorted(range(len(distances)), key=distances.__getitem__)
        right = [int(database[1][index] == label) for index in ranked]
        points = [(sum(right[:k]) / sum(right), sum(right[:k]) / k) for k in range(1, len(right) + 1)]
        scores.append(sum(max(p for r, p in points if r >= level / 10 - 1e-9) for level in range(11)) / 11)
    return sum(scores) / len(scores)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_it_is_its_definition(metric: Literal["cosine", "l2"]) -> None:
    generator = torch.Generator().manual_seed(1)
    database = torch.randn(40, 3, generator=generator) + 0.5, torch.randint(3, (40,), generator=generator)
    queries = torch.randn(9, 3, generator=generator), torch.randint(3, (9,), generator=generator)
    found = retrieve(queries, database, metric=metric, rank=10)
    assert found.mean_average_precision == pytest.approx(slowly(queries, database, metric), abs=1e-6)


def test_cosine_sees_directions_only() -> None:
    database = torch.tensor([[100.0, 1.0], [0.1, 1.0]]), torch.tensor([1, 0])
    query = torch.tensor([[1.0, 0.0]]), torch.tensor([1])
    assert retrieve(query, database, metric="cosine", rank=1).precision == 1
    assert retrieve(query, database, metric="l2", rank=1).precision == 0


def test_what_cannot_be_asked() -> None:
    with pytest.raises(ValueError, match="no rank 5 among 4"):
        retrieve(QUERY, line([1, 1, 0, 0]), metric="l2", rank=5)
    with pytest.raises(ValueError, match="label is not in the database"):
        retrieve(QUERY, line([0, 0]), metric="l2", rank=1)


def test_the_embedding_is_what_enters_the_last_layer() -> None:
    torch.manual_seed(0)
    classifier = Classifier(create(NetworkSpec(model="cnn1"), classes=10), [0.5] * 3, [0.5] * 3)
    images = torch.rand(4, 3, 32, 32)
    batches = [
        Batch(images[:3], torch.tensor([0, 1, 2]), torch.arange(3)),
        Batch(images[3:], torch.tensor([3]), torch.tensor([3])),
    ]
    decided = setup.choose(TrainSpec(precision="float32"), torch.device("cpu"))
    rows, labels = embed(decided.place(classifier), batches, decided, shape=(3, 32, 32))
    assert rows.shape == (4, 64)
    assert labels.tolist() == [0, 1, 2, 3]
    with torch.inference_mode():
        torch.testing.assert_close(classifier.network.fc(rows), classifier(images))
