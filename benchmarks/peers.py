"""Distillation loops of others, for comparison: what the research repositories write, and torchdistill's.

Both decode PIL images in a `DataLoader` with two workers, compute in float32 with the contiguous layout, and run the
teacher at each step. Each is a generator: one epoch a turn, yielding its seconds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from kdeploy.recipe.schema import TrainSpec
from kdeploy.torchvision_compat import import_torchvision
from kdeploy.training.optim import learning_rate

WORKERS = 2


@dataclass(frozen=True)
class Task:
    """What is trained: networks that normalise their input themselves, images uint8 `[N, H, W, C]`, labels `[N]`."""

    teacher: nn.Module
    student: nn.Module
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    spec: TrainSpec
    crop: int
    temperature: float
    alpha: float
    seed: int


class PilImages(Dataset[tuple[Tensor, int]]):
    """As torchvision's CIFAR10 gives them: an array becomes a PIL image, then goes through the transforms."""

    def __init__(self, task: Task) -> None:
        self._task = task
        transforms = import_torchvision().transforms
        self._transform = transforms.Compose(
            [
                transforms.RandomCrop(task.images.shape[1], padding=task.crop),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
            ]
        )

    def __len__(self) -> int:
        return len(self._task.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image: Tensor = self._transform(Image.fromarray(self._task.images[index]))
        return image, int(self._task.labels[index])


def plain(task: Task) -> Iterator[float]:
    """The loop of a research repository: no toolkit."""
    torch.manual_seed(task.seed)
    loader = DataLoader(PilImages(task), batch_size=task.spec.batch, shuffle=True, num_workers=WORKERS)
    optimizer = _sgd(task)
    for epoch in range(task.spec.epochs):
        task.student.train()
        started = time.perf_counter()
        for number, (images, labels) in enumerate(loader):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(task.spec, epoch + number / len(loader))
            with torch.no_grad():
                taught = task.teacher(images)
            logits = task.student(images)
            loss = (1 - task.alpha) * F.cross_entropy(logits, labels) + task.alpha * _kd(logits, taught, task)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        yield time.perf_counter() - started


def torchdistill(task: Task) -> Iterator[float]:
    """torchdistill's box with its own KDLoss, driven as its example of image classification drives it."""
    import_torchvision()
    from torchdistill.core.distillation import get_distillation_box  # type: ignore[import-not-found]

    torch.manual_seed(task.seed)
    loss = {"student_module_path": ".", "student_module_io": "output"}
    loss |= {"teacher_module_path": ".", "teacher_module_io": "output"}
    config: dict[str, Any] = {
        "num_epochs": task.spec.epochs,
        "train_data_loader": {
            "dataset_id": "train",
            "sampler": {"class_or_func": RandomSampler},
            "kwargs": {"batch_size": task.spec.batch, "num_workers": WORKERS},
        },
        "teacher": {"requires_grad": False, "forward_proc": "forward_batch_only"},
        "student": {"requires_grad": True, "forward_proc": "forward_batch_only"},
        "optimizer": {
            "key": "SGD",
            "kwargs": {"lr": task.spec.lr, "momentum": task.spec.momentum, "weight_decay": task.spec.weight_decay},
        },
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {
                "sub_terms": {
                    "kd": {
                        "criterion": {
                            "key": "KDLoss",
                            "kwargs": {**loss, "temperature": task.temperature, "alpha": 1 - task.alpha},
                        },
                        "weight": 1.0,
                    }
                }
            },
        },
    }
    box = get_distillation_box(
        task.teacher, task.student, {"train": PilImages(task)}, config, torch.device("cpu"), [], False, 1
    )
    steps = len(box.train_data_loader)
    for epoch in range(task.spec.epochs):
        box.pre_epoch_process(epoch=epoch)
        started = time.perf_counter()
        for number, (images, labels, supplement) in enumerate(box.train_data_loader):
            for group in box.optimizer.param_groups:
                group["lr"] = learning_rate(task.spec, epoch + number / steps)
            value = box.forward_process(images, labels, supplement)
            box.post_forward_process(loss=value)
            if not torch.isfinite(value).all():
                raise ArithmeticError("the loss is not finite")
        yield time.perf_counter() - started


def _sgd(task: Task) -> torch.optim.SGD:
    spec = task.spec
    return torch.optim.SGD(
        task.student.parameters(), lr=spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay
    )


def _kd(logits: Tensor, taught: Tensor, task: Task) -> Tensor:
    soft, hard = F.log_softmax(logits / task.temperature, dim=1), F.softmax(taught / task.temperature, dim=1)
    return F.kl_div(soft, hard, reduction="batchmean") * task.temperature**2
