"""Tensors for training: data sets in memory or streamed, batches that depend on nothing but their seed."""

from kdeploy.loading.batches import Batch, EvalBatches, TrainBatches
from kdeploy.loading.mixing import Mixed
from kdeploy.loading.statistics import channel_statistics
from kdeploy.loading.tensors import Samples, StreamedSet, TensorSet, digest
from kdeploy.loading.views import Views

__all__ = [
    "Batch",
    "EvalBatches",
    "Mixed",
    "Samples",
    "StreamedSet",
    "TensorSet",
    "TrainBatches",
    "Views",
    "channel_statistics",
    "digest",
]
