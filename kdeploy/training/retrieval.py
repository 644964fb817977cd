"""Retrieval: a network's embedding judged by what it finds, without its classifier. Information-flow's own measure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kdeploy import events
from kdeploy.loading import Batch
from kdeploy.models.classifier import Classifier
from kdeploy.models.taps import Taps, find_classifier
from kdeploy.training.setup import Setup

_BATCH = 128
"""Queries at a time; form code interpolates over as many ranks."""
_LEVELS = 11


@dataclass(frozen=True)
class Retrieved:
    """Means over all queries, as shares: average precision at 11 levels of recall, and precision at one rank."""

    mean_average_precision: float
    precision: float


def embed(
    classifier: Classifier, batches: Iterable[Batch], setup: Setup, *, shape: tuple[int, int, int]
) -> tuple[Tensor, Tensor]:
    """What enters the last linear layer, `[N, D]` (float32), and labels `[N]`, on the device of the batches.

    shape: channels, height and width of an image. The network is put into evaluation mode.
    """
    classifier.eval()
    path = find_classifier(classifier.network, shape).path
    rows, labels = [], []
    with torch.inference_mode(), setup.fabric.autocast(), Taps(classifier.network, [], classifier=path) as taps:
        for batch in batches:
            classifier(setup.images(batch.images))
            rows.append(taps.embedding.float())
            labels.append(batch.labels)
    return torch.cat(rows), torch.cat(labels)


def retrieve(
    queries: tuple[Tensor, Tensor],
    database: tuple[Tensor, Tensor],
    *,
    metric: Literal["cosine", "l2"],
    rank: int = 100,
    form: Literal["standard", "code"] = "standard",
) -> Retrieved:
    """Rank a whole database for each query, nearest first, and score the ranks of those that share its label.

    queries, database: rows `[N, D]` and labels `[N]` of each. With R of the database sharing a query's label, h(k) of
    them among its first k, precision p(k) = h(k) / k:

        standard: average precision = mean over r = 0, 0.1, ... 1 of  max of p(k) over all k with h(k) / R >= r,
                  precision = p(rank)
        code:     as the published figures of information-flow modelling were computed: p(k) of the first 128 ranks is
                  first replaced by the largest of p(k), ... p(128); average precision = mean over r of p at the first
                  rank whose recall is nearest to r; precision = p(rank), so that for 100 it is the best of 100 to 128

    Rows of zeros are as far from all by cosine. Equal distances keep the database's order. Raises ValueError for a
    query whose label the database lacks, and for a rank beyond it.
    """
    found, labels = database
    if not 1 <= rank <= len(found):
        raise ValueError(f"there is no rank {rank} among {len(found)}")
    totals = torch.zeros(2)
    with torch.inference_mode(), events.task(f"retrieval by {metric}", len(queries[0])) as bar:
        for start in range(0, len(queries[0]), _BATCH):
            rows, targets = (each[start : start + _BATCH] for each in queries)
            order = _distances(rows, found, metric).argsort(dim=1, stable=True)
            hits = (labels[order] == targets[:, None]).cumsum(dim=1)
            if (hits[:, -1] == 0).any():
                raise ValueError("a query's label is not in the database")
            precisions, scores = (_standard if form == "standard" else _code)(hits)
            totals += torch.stack([scores.sum(), precisions[:, rank - 1].sum()]).cpu()
            bar.advance(len(rows))
    average, precision = (totals / len(queries[0])).tolist()
    return Retrieved(average, precision)


def _distances(queries: Tensor, database: Tensor, metric: str) -> Tensor:
    """`[Q, N]`, in any unit that keeps the order."""
    if metric == "cosine":
        return -(F.normalize(queries, dim=1) @ F.normalize(database, dim=1).T)
    return database.square().sum(dim=1) - 2 * queries @ database.T


def _precisions(hits: Tensor) -> Tensor:
    """p(k) `[Q, N]` from h(k)."""
    return hits / torch.arange(1, hits.shape[1] + 1, device=hits.device)


def _standard(hits: Tensor) -> tuple[Tensor, Tensor]:
    """p(k) `[Q, N]`, and the average precision `[Q]` of each query."""
    precisions = _precisions(hits)
    best = precisions.flip(1).cummax(dim=1).values.flip(1)
    tenths = torch.arange(_LEVELS, device=hits.device) * hits[:, -1:]
    needed = -(-tenths // (_LEVELS - 1))  # whole numbers, so that no level is missed by rounding
    first = torch.searchsorted(hits, needed)
    return precisions, best.gather(1, first).mean(dim=1)


def _code(hits: Tensor) -> tuple[Tensor, Tensor]:
    """The same as the authors' code has them."""
    precisions = _precisions(hits)
    precisions[:, :_BATCH] = precisions[:, :_BATCH].flip(1).cummax(dim=1).values.flip(1)
    recall = hits / hits[:, -1:]
    nearest = [(recall - level / (_LEVELS - 1)).abs().argmin(dim=1) for level in range(_LEVELS)]
    return precisions, precisions.gather(1, torch.stack(nearest, dim=1)).mean(dim=1)
