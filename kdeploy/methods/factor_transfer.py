"""Factor transfer: the teacher's last map paraphrased, the student's translated."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from kdeploy.errors import UserError
from kdeploy.methods import _options
from kdeploy.methods._features import one_size, stage_pairs, unit
from kdeploy.methods._logits import at_least_float32
from kdeploy.methods.at import attention
from kdeploy.methods.base import Context, Method, Needs, Outputs, Phase, Shapes
from kdeploy.models.layers import BatchNorm

_SLOPE = 0.1
_WEIGHTS = {"code": 500.0, "repdistiller": 200.0, "paper": 1.0}
_PHASES = {"code": (6, 0.1), "repdistiller": (30, 0.01), "paper": (6, 0.1)}


class FactorTransfer(Method):
    """Kim, Park, Kwak: "Paraphrasing Complex Network: Network Compression via Factor Transfer", NeurIPS 2018.

    First a paraphraser (encoder E, decoder D) learns, without labels, to rebuild the teacher's last map
    F_t `[B, C_t, H, W]` through k * C_t channels:  L_rec = mean |F_t - D(E(F_t))|.  It is then frozen. The student is
    trained with a translator R beside it, on the factors Q_t = E(F_t) and Q_s = R(F_s), both `[B, k C_t, H, W]`;
    q is Q as rows `[B, k C_t H W]` of L2 norm 1:

        form code:          L = mean over b and elements of |q_s - q_t|
        form repdistiller:  the same of q = unit(vec(mean over c of Q^2)) `[B, H * W]`, which is attention transfer on
                            factors; L_rec squares the error
        form paper:         L = mean over b of  sum over elements of |q_s - q_t|; L_rec squares the error

    E: conv3x3 C_t to C_t, to k C_t, to k C_t; D: transposed 3x3 back by k C_t, C_t, C_t; R: conv3x3 C_s to C_s, to
    k C_t, to k C_t. Stride and padding 1, with bias, LeakyReLU(0.1) behind each; in form repdistiller R has batch norm
    before each LeakyReLU. k C_t is rounded down. Where the factors differ in size, the larger is average-pooled.
    A factor that is all zero has q = 0 and gets no gradient. Not built, E, D and R are the identity.

    Options
    -------
    form: code is the authors' own, at weight 500; repdistiller is behind the FT rows of the CIFAR-100 tables, at
        weight 200. For paper no weight is known here: it is 1, to be set by the recipe.
    rate: k, share of the teacher's channels. 0.5 in the authors' code and the tables.
    paraphraser_epochs: length of the first training; without it 6 (code and paper, at a learning rate of 0.1, which
        is what the authors' loop does) or 30 (repdistiller, at 0.01).
    """

    paper: ClassVar[str] = "Paraphrasing Complex Network: Network Compression via Factor Transfer, NeurIPS 2018"
    year: ClassVar[int] = 2018
    formula: ClassVar[str] = "mean |unit(R(F_s)) - unit(E(F_t))|, E trained first as an autoencoder's encoder"
    needs: ClassVar[Needs] = Needs(features="last")

    def __init__(self, *, form: str = "code", rate: float = 0.5, paraphraser_epochs: int | None = None) -> None:
        super().__init__()
        _options.choice("factor-transfer", "form", form, tuple(_WEIGHTS))
        _options.positive("factor-transfer", rate=rate)
        if paraphraser_epochs is not None:
            _options.whole("factor-transfer", least=1, paraphraser_epochs=paraphraser_epochs)
        self.form = form
        self.rate = rate
        self.paraphraser_epochs = paraphraser_epochs
        self.encoder: nn.Module = nn.Identity()
        self.decoder: nn.Module = nn.Identity()
        self.translator: nn.Module = nn.Identity()

    @property
    def default_weight(self) -> float:
        return _WEIGHTS[self.form]

    def build(self, student: Shapes, teacher: Shapes) -> None:
        if not student.features or not teacher.features:
            raise UserError("factor-transfer needs the last feature map of student and teacher: name taps.")
        ours, theirs = student.features[-1][0], teacher.features[-1][0]
        factor = int(theirs * self.rate)
        if factor < 1:
            raise UserError(f"factor-transfer: rate {self.rate:g} leaves none of the teacher's {theirs} channels.")
        self.encoder = _layers([theirs, theirs, factor, factor], nn.Conv2d)
        self.decoder = _layers([factor, factor, theirs, theirs], nn.ConvTranspose2d)
        self.translator = _layers([ours, ours, factor, factor], nn.Conv2d, norm=self.form == "repdistiller")

    def phases(self) -> Sequence[Phase]:
        epochs, lr = _PHASES[self.form]
        return (Phase("paraphraser", epochs=self.paraphraser_epochs or epochs, lr=lr),)

    def phase_loss(
        self, phase: Phase, teacher: Outputs, student: Outputs | None = None, target: Tensor | None = None
    ) -> Tensor:
        """How far D(E(F_t)) is from F_t: mean absolute error in form code, else mean squared error."""
        features = at_least_float32(teacher.features[-1].detach())
        rebuilt = at_least_float32(self.decoder(self.encoder(features)))
        return F.l1_loss(rebuilt, features) if self.form == "code" else F.mse_loss(rebuilt, features)

    def end_phase(self, phase: Phase) -> None:
        self.encoder.requires_grad_(False)
        self.decoder.requires_grad_(False)

    def terms(
        self, student: Outputs, teacher: Outputs, target: Tensor | None = None, context: Context | None = None
    ) -> dict[str, Tensor]:
        last = Outputs(student.logits, student.features[-1:]), Outputs(teacher.logits, teacher.features[-1:])
        ((ours, theirs),) = stage_pairs("factor-transfer", *last)
        factors = at_least_float32(self.translator(ours)), at_least_float32(self.encoder(theirs).detach())
        if factors[0].shape[1] != factors[1].shape[1]:
            raise UserError(
                f"factor-transfer was not built, and the student's {list(ours.shape[1:])} and the teacher's "
                f"{list(theirs.shape[1:])} have different channels: build it, or take at."
            )
        ours, theirs = one_size(*factors)
        if self.form == "repdistiller":
            loss = F.l1_loss(attention(ours), attention(theirs))
        else:
            loss = F.l1_loss(unit(ours.flatten(1)), unit(theirs.flatten(1)))
        if self.form == "paper":
            loss = loss * theirs[0].numel()
        return {"factor-transfer": loss}


def _layers(
    channels: Sequence[int], convolution: type[nn.Conv2d] | type[nn.ConvTranspose2d], *, norm: bool = False
) -> nn.Sequential:
    """3x3 convolutions through these channels, each with LeakyReLU(0.1) and, with `norm`, batch norm before it."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(channels):
        layers.append(convolution(inputs, outputs, 3, padding=1))
        if norm:
            layers.append(BatchNorm(outputs))
        layers.append(nn.LeakyReLU(_SLOPE))
    return nn.Sequential(*layers)
