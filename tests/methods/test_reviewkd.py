import pytest
import torch

import kdeploy.methods
from kdeploy.errors import UserError
from kdeploy.methods import Context, Outputs, Shapes
from kdeploy.methods.reviewkd import hierarchical_loss
from tests.methods.expectations import STUDENT, TEACHER, random_inputs
from tests.methods.golden import Fs, Ft, Ft3, S, T, assert_golden, leaf, zs, zt


def review(student, teacher, context=None, **options):
    method = kdeploy.methods.create("reviewkd", **options)
    return method(Outputs(zs, [student]), Outputs(zt, [teacher]), context=context)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("size", "value"), [(4, 0.7412179124), (8, 0.5612180339), (1, 0.3168460192)])
def test_golden(size, value, dtype):
    batch = 4 if size == 4 else 2
    assert_golden(review(S(batch, 3, size, size).to(dtype), T(batch, 3, size, size).to(dtype)), value)


def test_embedding_is_one_more_level():
    method = kdeploy.methods.create("reviewkd")
    student, teacher = Outputs(zs, [Fs], S(4, 6)), Outputs(zt, [Ft3], T(4, 6))
    terms = method.terms(student, teacher)
    assert list(terms) == ["reviewkd/1", "reviewkd/2"]
    torch.testing.assert_close(terms["reviewkd/2"], (S(4, 6) - T(4, 6)).square().mean())


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_pools_that_are_not_smaller_are_left_out(size):
    ours, theirs = S(2, 3, size, size), T(2, 3, size, size)
    difference = ours - theirs
    pools = [side for side in (4, 2, 1) if side < size]
    weights = [1.0, *(0.5**number for number in range(1, len(pools) + 1))]
    maps = [difference, *(torch.nn.functional.adaptive_avg_pool2d(difference, side) for side in pools)]
    expected = sum(weight * each.square().mean() for weight, each in zip(weights, maps, strict=True)) / sum(weights)
    torch.testing.assert_close(hierarchical_loss(ours, theirs), expected)


def test_warm_up_counts_epochs_from_0():
    full = review(Fs, Ft3)
    for epoch, factor in ((0, 0.0), (5, 0.25), (20, 1.0), (100, 1.0)):
        torch.testing.assert_close(review(Fs, Ft3, Context(epoch=epoch)), factor * full)
    torch.testing.assert_close(review(Fs, Ft3, Context(epoch=0), warmup=0), full)


def built():
    method = kdeploy.methods.create("reviewkd")
    method.build(STUDENT, TEACHER)
    return method.double()


def test_outputs_have_the_teachers_shapes_and_the_width_is_the_students_embedding():
    method = built()
    inputs = random_inputs(method.needs, adapted=True)
    maps = [*inputs.student.features, inputs.student.embedding[:, :, None, None]]
    assert [tuple(each.shape[1:]) for each in method._fused(maps)] == [*TEACHER.features, (TEACHER.embedding, 1, 1)]
    assert {level.enter[0].out_channels for level in method.levels} == {STUDENT.embedding}
    assert [level.attend is None for level in method.levels] == [False, False, False, True]


def test_shallow_level_learns_from_all_deeper_maps():
    method = built()
    inputs = random_inputs(method.needs, adapted=True)
    leaves = [leaf(features) for features in inputs.student.features]
    embedding = leaf(inputs.student.embedding)
    terms = method.terms(Outputs(inputs.student.logits, leaves, embedding), inputs.teacher)
    terms["reviewkd/1"].backward(retain_graph=True)
    assert all(each.grad.abs().max() > 0 for each in (*leaves, embedding))
    others = [leaf(features) for features in leaves]
    terms = method.terms(Outputs(inputs.student.logits, others, embedding), inputs.teacher)
    terms["reviewkd/3"].backward()
    assert [each.grad is not None for each in others] == [False, False, True]


def test_other_sizes_than_the_teachers_are_resized():
    method = kdeploy.methods.create("reviewkd")
    method.build(Shapes(5, [(3, 8, 8), (3, 4, 4)], 7), Shapes(5, [(4, 16, 16), (6, 4, 4)], 6))
    value = method.double()(
        Outputs(zs, [S(4, 3, 8, 8), S(4, 3, 4, 4)], S(4, 7)), Outputs(zt, [T(4, 4, 16, 16), Ft], T(4, 6))
    )
    assert value.isfinite()


def test_errors():
    with pytest.raises(UserError, match=r"\[3, 4, 4\].*\[6, 4, 4\]"):
        review(Fs, Ft)
    with pytest.raises(UserError, match="embedding"):
        kdeploy.methods.create("reviewkd").build(Shapes(5, [(3, 4, 4)]), Shapes(5, [(3, 4, 4)]))
    with pytest.raises(UserError, match="reviewkd: warmup"):
        kdeploy.methods.create("reviewkd", warmup=-1)
