"""Tensors for training: whole data sets in memory, batches that depend on nothing but their seed."""

from kdeploy.loading.augment import crop_and_flip
from kdeploy.loading.batches import Batch, EvalBatches, TrainBatches
from kdeploy.loading.statistics import channel_statistics
from kdeploy.loading.tensors import TensorSet

__all__ = ["Batch", "EvalBatches", "TensorSet", "TrainBatches", "channel_statistics", "crop_and_flip"]
