"""Tensors for training: whole data sets in memory, batches that depend on nothing but their seed."""

from kdeploy.loading.batches import Batch, EvalBatches, TrainBatches
from kdeploy.loading.statistics import channel_statistics
from kdeploy.loading.tensors import TensorSet
from kdeploy.loading.views import Views

__all__ = ["Batch", "EvalBatches", "TensorSet", "TrainBatches", "Views", "channel_statistics"]
