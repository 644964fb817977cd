import pytest
import torch

import kdeploy.methods
from kdeploy.errors import UserError
from kdeploy.methods import Context, Outputs, Shapes
from kdeploy.methods.fitnet import teaching_weight
from kdeploy.methods.kd import KD
from tests.methods.expectations import STUDENT, TEACHER, Expectations, build, random_inputs
from tests.methods.golden import Fs, Ft3, S, T, assert_golden, leaf, zs, zt

PAPER = {"form": "paper", "hint_epochs": 2}


def shapes(*features):
    return Shapes(5, features)


def built(student, teacher, **options):
    method = kdeploy.methods.create("fitnet", **options)
    method.build(shapes(student), shapes(teacher))
    return method.double()


# In form paper the loss after the hints is a cross-entropy, and the regressor is frozen by then.
EXPECTED = [Expectations(), Expectations(options=PAPER, identity=None)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_golden(dtype):
    student, teacher = Outputs(zs, [Fs.to(dtype)]), Outputs(zt, [Ft3.to(dtype)])
    assert_golden(kdeploy.methods.create("fitnet")(student, teacher), 0.9529174660441)
    paper = kdeploy.methods.create("fitnet", **PAPER)
    (phase,) = paper.phases()
    assert (phase.student, phase.epochs, phase.lr) == (True, 2, 0.005)
    assert_golden(paper.phase_loss(phase, teacher, student), 1.4293761991)


def test_second_training_is_on_soft_labels_without_the_square_of_the_temperature():
    paper = kdeploy.methods.create("fitnet", **PAPER)
    student, teacher = Outputs(leaf(zs), [Fs]), Outputs(zt, [Ft3])
    paper(student, teacher, context=Context(epoch=399)).backward()  # the weight is 1 by then
    other = Outputs(leaf(zs))
    (KD(temperature=3.0)(other, Outputs(zt)) / 9).backward()
    torch.testing.assert_close(student.logits.grad, other.logits.grad)


def test_teaching_weight_falls_from_4_to_1():
    assert [teaching_weight(epoch) for epoch in (0, 3)] == [4.0, 4.0]
    assert teaching_weight(4) == pytest.approx(4 - 3 / 396)
    assert [teaching_weight(epoch) for epoch in (399, 1000)] == [1.0, 1.0]


def test_hints_train_the_student_up_to_the_stage_only():
    paper = kdeploy.methods.create("fitnet", **PAPER, stage=2)
    inputs = random_inputs(paper.needs, adapted=True)
    paper.build(STUDENT, TEACHER)
    paper.double()
    leaves = [leaf(features) for features in inputs.student.features]
    logits = leaf(inputs.student.logits)
    teacher = Outputs(leaf(inputs.teacher.logits), [leaf(features) for features in inputs.teacher.features])
    paper.phase_loss(paper.phases()[0], teacher, Outputs(logits, leaves)).backward()
    assert [each.grad is not None for each in (*leaves, logits)] == [False, True, False, False]
    assert all(each.grad is None for each in (*teacher.features, teacher.logits))


def test_regressor_is_frozen_after_the_hints():
    paper = kdeploy.methods.create("fitnet", **PAPER)
    build(paper)
    assert not any(parameter.requires_grad for parameter in paper.parameters())


@pytest.mark.parametrize("student", [(3, 8, 8), (3, 4, 4), (3, 2, 2), (3, 7, 5)])
def test_code_regressor_reaches_the_teachers_size(student):
    method = built(student, (6, 4, 4))
    value = method(Outputs(zs, [S(4, *student)]), Outputs(zt, [T(4, 6, 4, 4)]))
    assert value.isfinite()
    assert method.regressor[0](S(4, *student)).shape == (4, 6, 4, 4)


@pytest.mark.parametrize("options", [{}, PAPER])
def test_a_size_that_cannot_be_reached(options):
    with pytest.raises(UserError, match=r"\[3, 3, 3\].*\[6, 4, 4\].*take at"):
        built((3, 3, 3), (6, 4, 4), **options)
    with pytest.raises(UserError, match="take at"):
        kdeploy.methods.create("fitnet")(Outputs(zs, [S(4, 3, 2, 2)]), Outputs(zt, [Ft3]))


def test_paper_regressor_is_the_identity_for_equal_shapes():
    assert not list(built((3, 4, 4), (3, 4, 4), **PAPER).parameters())
    weights = built((3, 6, 6), (6, 4, 4), **PAPER).regressor[0].weight
    assert weights.shape == (6, 3, 3, 3)
    assert 0.03 < weights.abs().max() <= 0.05


@pytest.mark.parametrize(("stages", "hint"), [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2)])
def test_middle_stage(stages, hint):
    student = [leaf(Fs) for _ in range(stages)]
    kdeploy.methods.create("fitnet")(Outputs(zs, student), Outputs(zt, [Ft3] * stages)).backward()
    assert [number for number, features in enumerate(student) if features.grad is not None] == [hint]


@pytest.mark.parametrize(
    "options", [{"form": "original"}, {"stage": 0}, {"hint_epochs": 5}, {**PAPER, "hint_epochs": 0}]
)
def test_impossible_options(options):
    with pytest.raises(UserError, match="fitnet: "):
        kdeploy.methods.create("fitnet", **options)


def test_a_stage_that_is_not_there():
    with pytest.raises(UserError, match="stage 2 was asked for, and there are 1"):
        built((3, 4, 4), (3, 4, 4), stage=2)
