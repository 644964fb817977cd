"""BatchEnsemble: several classifiers that share their weights, and differ by two vectors a layer.

Wen, Tran, Ba: "BatchEnsemble: An Alternative Approach to Efficient Ensemble and Lifelong Learning", ICLR 2020,
arXiv 2002.06715; as Nam, Yoon, Lee, Lee distil into it (NeurIPS 2021, arXiv 2110.14149).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdeploy.errors import UserError

_SPREAD = 0.5
"""Standard deviation of the rank-one vectors at the start, around 1; the distillation paper's."""


class MemberLayer(nn.Module):
    """A convolution or linear layer of M members: y_m = gamma_m * (W (alpha_m * x_m)) + b_m.

    W is shared; alpha `[M, inputs]` and gamma `[M, outputs]` scale channels (features), and so stand for the weights
    W * gamma_m alpha_m^T. Rows m * B to (m + 1) * B - 1 of what goes in are member m's, and of what comes out.

    `layer` becomes part of it: its weight is the shared one, its bias the start of every member's. (The paper's biases
    start at 0, as those of a network without a checkpoint nearly do.) alpha and gamma are drawn from N(1, 0.5^2).
    """

    bias: nn.Parameter | None

    def __init__(self, layer: nn.Conv2d | nn.Linear, members: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        outputs, bias = len(layer.weight), layer.bias
        inputs = layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features
        layer.register_parameter("bias", None)
        self.shared = layer
        self.members = members
        self.alpha = nn.Parameter(layer.weight.new_empty(members, inputs))
        self.gamma = nn.Parameter(layer.weight.new_empty(members, outputs))
        for vectors in (self.alpha, self.gamma):
            nn.init.normal_(vectors, 1.0, _SPREAD, generator=generator)
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach().repeat(members, 1)))

    def forward(self, x: Tensor) -> Tensor:
        """`[M * B, inputs, H, W]` (a linear layer: `[M * B, ..., inputs]`) to the same of outputs."""
        x = torch.unflatten(x, 0, (self.members, -1))
        y = torch.unflatten(self.shared((x * self._beside(self.alpha, x)).flatten(0, 1)), 0, (self.members, -1))
        y = y * self._beside(self.gamma, y)
        if self.bias is not None:
            y = y + self._beside(self.bias, y)
        return y.flatten(0, 1)

    def of_member(self, member: int) -> nn.Conv2d | nn.Linear:
        """The plain layer that this is for one member, with weights of its own."""
        layer = copy.deepcopy(self.shared)
        outputs, inputs = self.gamma[member].detach(), self.alpha[member].detach()
        if isinstance(layer, nn.Conv2d):
            of_groups = inputs.view(layer.groups, -1).repeat_interleave(layer.out_channels // layer.groups, dim=0)
            scale = (outputs[:, None] * of_groups)[:, :, None, None]
        else:
            scale = outputs[:, None] * inputs
        layer.weight = nn.Parameter(layer.weight.detach() * scale)
        if self.bias is not None:
            layer.bias = nn.Parameter(self.bias[member].detach().clone())
        return layer

    def _beside(self, vectors: Tensor, rows: Tensor) -> Tensor:
        """Vectors `[M, C]` in the shape and the precision in which they meet `rows` `[M, B, ...]`."""
        ones = (1,) * (rows.ndim - 3)
        shape = (-1, *ones) if isinstance(self.shared, nn.Conv2d) else (*ones, -1)
        return vectors.to(rows.dtype).view(self.members, 1, *shape)


class BatchEnsemble(nn.Module):
    """`network` with M members: its convolutions and linear layers become `MemberLayer`s, in place.

    All else is shared: batch norms (which see the rows of all members in training), and layers that are a kind of
    convolution or linear layer of somebody's own. generator: what the rank-one vectors are drawn with; None: torch's.

    Raises UserError for a network with no layer to exchange.
    """

    def __init__(self, network: nn.Module, members: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        found = [module for module in network.modules() if type(module) in (nn.Conv2d, nn.Linear)]
        if not found or network in found:
            raise UserError(
                f"{type(network).__name__} has no convolution or linear layer inside that the members of an ensemble "
                "could differ in: take a network of torch's own layers, such as one of `kdeploy models`."
            )
        layers = cast("list[nn.Conv2d | nn.Linear]", found)
        self.network = _exchanged(network, {layer: MemberLayer(layer, members, generator) for layer in layers})
        self.members = members

    def forward(self, images: Tensor) -> Tensor:
        """`[B, C, H, W]`, which all members see, to what they say of them.

        In training `[M * B, classes]`: the logits of member m in rows m * B to (m + 1) * B - 1. In evaluation
        `[B, classes]`: the logarithm of their mean probability, which are the logits of the ensemble.
        """
        logits: Tensor = self.network(torch.cat([images] * self.members))  # `repeat` would forget channels last
        return logits if self.training else mean_prediction(torch.unflatten(logits, 0, (self.members, -1)))

    def members_apart(self) -> nn.Module:
        """The same in evaluation, as so many plain networks side by side; a copy.

        What engines are made from: each member's vectors are multiplied into weights of its own, so that a graph has
        nothing but the operators of the plain network. It has as many multiply-accumulates as the shared form and M
        times its weights.
        """
        return _Apart([self._member(number) for number in range(self.members)])

    def _member(self, number: int) -> nn.Module:
        network = copy.deepcopy(self.network)
        layers = [module for module in network.modules() if isinstance(module, MemberLayer)]
        return _exchanged(network, {layer: layer.of_member(number) for layer in layers})

    def rank_one(self) -> list[nn.Parameter]:
        """The vectors alpha and gamma of all layers."""
        layers = [module for module in self.modules() if isinstance(module, MemberLayer)]
        return [vectors for layer in layers for vectors in (layer.alpha, layer.gamma)]

    def describe(self) -> dict[str, Any]:
        """What is needed to build it again around the same network, JSON-able: for the card of a saved network."""
        return {"members": self.members}


def mean_prediction(logits: Tensor) -> Tensor:
    """Logits of members `[M, B, classes]` to the logarithm of their mean probability, `[B, classes]`.

    In half precision it is taken in float32.
    """
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return F.log_softmax(logits, dim=2).logsumexp(dim=0) - math.log(len(logits))


class _Apart(nn.Module):
    """Networks side by side; in evaluation, the logarithm of their mean probability."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """`[B, C, H, W]` to `[B, classes]`."""
        return mean_prediction(torch.stack([member(images) for member in self.members]))


def _exchanged(network: nn.Module, others: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """`network` with each of its modules that is a key exchanged for the other one; in place."""
    for path, module in list(network.named_modules(remove_duplicate=False)):
        if module in others:
            parent, _, name = path.rpartition(".")
            setattr(network.get_submodule(parent), name, others[module])
    return network
