"""Tensors for training: data sets in memory or streamed, batches that depend on nothing but their seed."""

from kdeploy.loading.batches import Batch, Batches, EvalBatches, TrainBatches
from kdeploy.loading.mixing import Mixed
from kdeploy.loading.noise import NO_CLASS, NoiseBatches
from kdeploy.loading.statistics import channel_statistics
from kdeploy.loading.tensors import Samples, StreamedSet, TensorSet, digest
from kdeploy.loading.views import Views

__all__ = [
    "NO_CLASS",
    "Batch",
    "Batches",
    "EvalBatches",
    "Mixed",
    "NoiseBatches",
    "Samples",
    "StreamedSet",
    "TensorSet",
    "TrainBatches",
    "Views",
    "channel_statistics",
    "digest",
]
