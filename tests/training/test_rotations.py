"""Turned images: their order, and who is given which rows."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from kdeploy import methods
from kdeploy.errors import UserError
from kdeploy.loading import Batch
from kdeploy.methods import Context, Method, Needs, Outputs
from kdeploy.models.classifier import Classifier
from kdeploy.training.objective import Distillation, Lesson
from kdeploy.training.rotations import require_square, rotated
from kdeploy.training.teaching import Live
from kdeploy.training.views import View, survey


class Seeing(Method):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[Outputs, Outputs, Tensor | None]] = []

    def terms(
        self, student: Outputs, teacher: Outputs, target: Tensor | None = None, context: Context | None = None
    ) -> dict[str, Tensor]:
        self.given.append((student, teacher, target))
        return {"seeing": student.logits.sum() * 0}


class SeeingAll(Seeing):
    needs: ClassVar[Needs] = Needs(rotations=4)


class Corner(nn.Module):
    """Two logits: the pixel on top on the left, and its negative."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        corner = self.scale * images[:, 0, 0, 0]
        return torch.stack([corner, -corner], dim=1)


def test_quarters_counter_clockwise_image_by_image() -> None:
    image = torch.tensor([[0, 1], [2, 3]])
    turned = rotated(torch.stack([image, image + 4])[:, None], 4)
    assert turned[:4, 0].tolist() == [[[0, 1], [2, 3]], [[1, 3], [0, 2]], [[3, 2], [1, 0]], [[2, 0], [3, 1]]]
    assert torch.equal(turned[4:], turned[:4] + 4)
    assert rotated(turned, 1) is turned


def test_the_memory_layout_is_kept() -> None:
    images = torch.rand(2, 3, 4, 4)
    assert rotated(images, 4).is_contiguous()
    assert rotated(images.contiguous(memory_format=torch.channels_last), 4).is_contiguous(
        memory_format=torch.channels_last
    )


def test_methods_that_ask_for_none_cross_entropy_and_accuracy_see_the_unturned_rows() -> None:
    student, teacher = (Classifier(Corner(), [0.0], [1.0]) for _ in range(2))
    upright, turned = Seeing(), SeeingAll()
    needs = [upright.needs, turned.needs]
    ours, theirs = survey(student, teacher, [Needs()], shape=(1, 2, 2), classes=2)
    teaching = Live(teacher, View(teacher, theirs, needs, "teacher"))
    lesson = Lesson(teaching, [(upright, 1.0), (turned, 1.0)], View(student, ours, needs, "student"))
    objective = Distillation([lesson], 1.0)
    images = torch.arange(8.0).reshape(2, 1, 2, 2)
    labels = torch.tensor([0, 1])
    step = objective(student, Batch(images, labels, torch.arange(2)), Context())
    alone = student(images)
    assert torch.equal(step.logits, alone)
    torch.testing.assert_close(step.terms["cross_entropy"], nn.functional.cross_entropy(alone, labels))
    for outputs in upright.given[0][:2]:
        assert outputs.logits[:, 0].tolist() == [0, 4]
    for outputs in turned.given[0][:2]:
        assert outputs.logits[:, 0].tolist() == [0, 1, 3, 2, 4, 5, 7, 6]
    assert turned.given[0][2] is labels


def test_features_and_embeddings_are_thinned_out_too() -> None:
    from kdeploy.training.rotations import rows_for

    rows = torch.arange(8.0)[:, None]
    given = rows_for(Needs(), Outputs(rows, [rows[..., None, None]], rows), 4)
    assert [given.logits.flatten().tolist(), given.features[0].flatten().tolist()] == [[0, 4], [0, 4]]
    assert given.embedding is not None
    assert given.embedding.flatten().tolist() == [0, 4]


def test_images_that_are_not_square_are_refused() -> None:
    needs = [methods.find("kd").needs, methods.find("hssakd").needs]
    with pytest.raises(UserError, match=r"these are 24 by 32 pixels: .* --set data.size=32\.$"):
        require_square(needs, 24, 32)
    require_square(needs, 32, 32)
    require_square(needs[:1], 24, 32)
