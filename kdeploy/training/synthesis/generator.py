"""The generator of data-free methods: numbers in, images out."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

_CHANNELS = 128
_SLOPE = 0.2


class Generator(nn.Module):
    """Latents `[B, latent, 1, 1]` to images `[B, C, H, W]` in [0, 1].

    The one of DAFL (Chen et al., ICCV 2019), which the others share: a linear layer to a map of a quarter of the
    image's height and width, twice a doubling with a convolution, batch norm and leaky ReLU, and a last convolution.
    Its end is a sigmoid, so that an image is one that eight bits can hold; DAFL's is a tanh with a batch norm behind
    it, which gives images that no camera can.

    shape: channels, height and width of an image.
    """

    def __init__(self, latent: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = shape
        self._sizes = [(-(-height // part), -(-width // part)) for part in (4, 2, 1)]
        self.first = nn.Linear(latent, _CHANNELS * self._sizes[0][0] * self._sizes[0][1])
        self.norm = nn.BatchNorm2d(_CHANNELS)
        self.middle = _convolution(_CHANNELS, _CHANNELS)
        self.large = _convolution(_CHANNELS, _CHANNELS // 2)
        self.last = nn.Conv2d(_CHANNELS // 2, channels, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        maps = self.norm(self.first(latents.flatten(1)).unflatten(1, (_CHANNELS, *self._sizes[0])))
        maps = self.middle(F.interpolate(maps, size=self._sizes[1]))
        maps = self.large(F.interpolate(maps, size=self._sizes[2]))
        images: Tensor = self.last(maps).float().sigmoid()
        return images


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.LeakyReLU(_SLOPE))
