"""FitNets: hints from inside the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from kdeploy.errors import UserError
from kdeploy.methods import _options
from kdeploy.methods._features import shape_pairs, stage_pairs
from kdeploy.methods._logits import at_least_float32, pair
from kdeploy.methods.base import Context, Method, Needs, Outputs, Phase, Shapes
from kdeploy.models.layers import BatchNorm

_TEMPERATURE = 3.0
_HINT_EPOCHS = 30
_HINT_LR = 0.005
_FIRST_WEIGHT, _LAST_WEIGHT = 4.0, 1.0
_DECAY_START, _DECAY_END = 5, 400


class FitNet(Method):
    """Romero, Ballas, Kahou, Chassang, Gatta, Bengio: "FitNets: Hints for Thin Deep Nets", ICLR 2015.

    With F_s `[B, C_s, H_s, W_s]` and F_t `[B, C_t, H_t, W_t]` of one stage, and a regressor r from one to the other:

        form code:   L = mean over b, c, h, w of (F_t - r(F_s))^2, beside cross-entropy from the first epoch on
        form paper:  first, without labels, L_hint = mean over b, h, w of  1/2 * sum over c of (F_t - r(F_s))^2,
                     which trains r and the student up to that stage; then
                     L = w(epoch) * mean over b of  -sum over c of  p_t^T log p_s^T,  T = 3,  p^T = softmax(z / T),
                     without a factor T^2, where w falls from 4 in a line from epoch 5 to 1 at epoch 400

    r in form code: a convolution, batch norm, ReLU; the convolution is 3x3 of stride 2 where H_s = 2 H_t, a transposed
    4x4 of stride 2 where 2 H_s = H_t, else one without padding with a kernel of 1 + H_s - H_t by 1 + W_s - W_t.
    r in form paper: that last convolution, from weights uniform in +-0.05, and ReLU; nothing where the shapes agree.
    Both end in a ReLU, so that a stage with values below 0 (a wide ResNet's) is never reached wholly. Where the
    teacher's map is the larger one in another way, a UserError names both shapes. Not built, r is the identity.
    The paper's bound on the norm of r's kernels is left to the optimiser and not kept here.

    Options
    -------
    form: code is what all FitNet rows of the CIFAR-100 tables rest on, at weight 100; paper is the two trainings of
        the article, at weight 1.
    stage: which pair of features, from 1; without it the middle one, rounded down: the second of 3 or 4, which is
        the tables' hint layer.
    hint_epochs: length of the first training of form paper. The paper stops it early on a validation cost; 30 is the
        length of such first trainings in the tables' code. Its learning rate is the paper's, 0.005.
    """

    paper: ClassVar[str] = "FitNets: Hints for Thin Deep Nets, ICLR 2015, arXiv 1412.6550"
    year: ClassVar[int] = 2015
    formula: ClassVar[str] = "mean((F_t - r(F_s))^2) of a middle stage, r a convolution"
    needs: ClassVar[Needs] = Needs(features="all")

    def __init__(self, *, form: str = "code", stage: int | None = None, hint_epochs: int | None = None) -> None:
        super().__init__()
        _options.choice("fitnet", "form", form, ("code", "paper"))
        if stage is not None:
            _options.whole("fitnet", least=1, stage=stage)
        if hint_epochs is not None:
            _options.whole("fitnet", least=1, hint_epochs=hint_epochs)
            if form == "code":
                raise UserError(
                    "fitnet: form code has no first training, so leave hint_epochs out, or take form paper."
                )
        self.form = form
        self.stage = stage
        self.hint_epochs = hint_epochs or _HINT_EPOCHS
        self.regressor: nn.Module = nn.Identity()

    @property
    def default_weight(self) -> float:
        return 100.0 if self.form == "code" else 1.0

    def build(self, student: Shapes, teacher: Shapes) -> None:
        pairs = shape_pairs("fitnet", student, teacher)
        ours, theirs = pairs[self._position(len(pairs))]
        if self.form == "code":
            self.regressor = nn.Sequential(_resizing(ours, theirs), BatchNorm(theirs[0]), nn.ReLU())
        elif ours != theirs:
            convolution = _shrinking(ours, theirs)
            nn.init.uniform_(convolution.weight, -0.05, 0.05)
            self.regressor = nn.Sequential(convolution, nn.ReLU())

    def _position(self, stages: int) -> int:
        if self.stage is None:
            return (stages - 1) // 2
        if self.stage > stages:
            raise UserError(
                f"fitnet: stage {self.stage} was asked for, and there are {stages} taps: name one of these."
            )
        return self.stage - 1

    def phases(self) -> Sequence[Phase]:
        if self.form == "code":
            return ()
        return (Phase("hints", epochs=self.hint_epochs, lr=_HINT_LR, student=True),)

    def phase_loss(
        self, phase: Phase, teacher: Outputs, student: Outputs | None = None, target: Tensor | None = None
    ) -> Tensor:
        """1/2 * sum over c of (F_t - r(F_s))^2, mean over b, h, w."""
        if student is None:
            raise ValueError("fitnet's hints need the student's outputs")
        ours, theirs = self._hints(student, teacher)
        return (theirs - ours).square().sum(dim=1).mean() / 2

    def end_phase(self, phase: Phase) -> None:
        self.regressor.requires_grad_(False)

    def terms(
        self, student: Outputs, teacher: Outputs, target: Tensor | None = None, context: Context | None = None
    ) -> dict[str, Tensor]:
        if self.form == "code":
            return {"fitnet": F.mse_loss(*self._hints(student, teacher))}
        ours, theirs = pair(student.logits, teacher.logits)
        soft = F.cross_entropy(ours / _TEMPERATURE, (theirs / _TEMPERATURE).softmax(dim=1))
        return {"fitnet": teaching_weight((context or Context()).epoch) * soft}

    def _hints(self, student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
        """r(F_s) and F_t, both `[B, C_t, H_t, W_t]`."""
        pairs = stage_pairs("fitnet", student, teacher)
        ours, theirs = pairs[self._position(len(pairs))]
        predicted = at_least_float32(self.regressor(ours))
        if predicted.shape != theirs.shape:
            raise UserError(_unbridged(tuple(predicted.shape[1:]), tuple(theirs.shape[1:])))
        return predicted, theirs


def teaching_weight(epoch: int) -> float:
    """w of form paper: 4 before epoch 5 (from 1), then down by 3/396 an epoch to 1 at epoch 400; `epoch` is from 0."""
    done = (epoch + 1 - _DECAY_START + 1) / (_DECAY_END - _DECAY_START + 1)
    return _FIRST_WEIGHT + (_LAST_WEIGHT - _FIRST_WEIGHT) * min(max(done, 0.0), 1.0)


def _resizing(student: tuple[int, int, int], teacher: tuple[int, int, int]) -> nn.Module:
    """The convolution from one shape (C, H, W) to the other, as the tables' code chooses it."""
    (inputs, *ours), (outputs, *theirs) = student, teacher
    if ours == [2 * side for side in theirs]:
        return nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
    if [2 * side for side in ours] == theirs:
        return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
    return _shrinking(student, teacher)


def _shrinking(student: tuple[int, int, int], teacher: tuple[int, int, int]) -> nn.Conv2d:
    """A convolution without padding whose kernel is as large as takes H_s by W_s to H_t by W_t."""
    (inputs, height, width), (outputs, *theirs) = student, teacher
    kernel = (1 + height - theirs[0], 1 + width - theirs[1])
    if min(kernel) < 1:
        raise UserError(_unbridged(student, teacher))
    return nn.Conv2d(inputs, outputs, kernel)


def _unbridged(student: tuple[int, ...], teacher: tuple[int, ...]) -> str:
    return (
        f"fitnet cannot bring the student's {list(student)} to the teacher's {list(teacher)} ([C, H, W]): "
        "name another stage or other taps, or take at, which pools the larger map."
    )
