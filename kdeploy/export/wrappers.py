"""The two shapes in which a classifier leaves: with its preprocessing, or without it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdeploy.models.classifier import Classifier


class InGraph(nn.Module):
    """Raw images to probabilities: scaling, normalisation and softmax go along with the network."""

    scale: Tensor
    shift: Tensor
    class_map: Tensor | None

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.network = classifier.network
        # (x / 255 - mean) / std as one product and one sum: two operators fewer on the device.
        self.register_buffer("scale", 1 / (255 * classifier.std))
        self.register_buffer("shift", -classifier.mean / classifier.std)
        self.register_buffer("class_map", classifier.class_map)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 `[B, H, W, C]` to probabilities `[B, classes]`."""
        # Cast before anything else: TensorRT reads uint8 in a Cast alone, and ONNX Runtime takes as long either way.
        # Without a copy in the plain order the permuted tensor counts as channels-last, and global pooling is then
        # exported as arithmetic on strides: eleven nodes that gather what was there already. `contiguous()` is not
        # enough: with one channel both orders are contiguous and it changes nothing.
        planes = images.to(torch.float32).permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format)
        logits: Tensor = self.network(planes * self.scale + self.shift)
        return torch.softmax(_in_order(logits, self.class_map), dim=1)


class Outside(nn.Module):
    """Normalised images to logits: scaling, normalisation and softmax are the runtime's."""

    class_map: Tensor | None

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.network = classifier.network
        self.register_buffer("class_map", classifier.class_map)

    def forward(self, images: Tensor) -> Tensor:
        """float32 `[B, C, H, W]`, normalised, to logits `[B, classes]`."""
        return _in_order(self.network(images), self.class_map)


def _in_order(logits: Tensor, class_map: Tensor | None) -> Tensor:
    return logits if class_map is None else logits.index_select(1, class_map)
