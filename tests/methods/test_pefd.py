import copy

import pytest
import torch

import kdeploy.methods
from kdeploy.errors import UserError
from kdeploy.methods import Outputs, Shapes
from tests.methods.expectations import Expectations
from tests.methods.golden import S, T, assert_golden, es, et, leaf, zs, zt

EXPECTED = [Expectations(), Expectations(options={"projectors": 1})]

DIRECTION = T(4, 8).relu() + 0.1


def built(teacher=16, **options):
    torch.manual_seed(0)
    method = kdeploy.methods.create("pefd", **options)
    method.build(Shapes(5, embedding=8), Shapes(5, embedding=teacher))
    return method.double()


def loss(method, student=es, teacher=et):
    return method(Outputs(zs, embedding=student), Outputs(zt, embedding=teacher))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_golden(dtype):
    value = loss(kdeploy.methods.create("pefd"), S(4, 8).relu().to(dtype), DIRECTION.to(dtype))
    assert_golden(value, 0.4266268494)


def test_parallel_embeddings_have_no_loss_and_scale_does_not_count():
    unbuilt = kdeploy.methods.create("pefd")
    assert abs(loss(unbuilt, 3 * DIRECTION, DIRECTION)) < 1e-12
    method = built()
    torch.testing.assert_close(loss(method, es, 7 * et), loss(method), rtol=1e-12, atol=0)


def test_mean_is_taken_after_the_relu():
    method = built(teacher=8)
    outputs = [layer(es).relu() for layer in method.projectors]
    expected = 1 - torch.cosine_similarity(sum(outputs) / 3, DIRECTION, dim=1)
    torch.testing.assert_close(loss(method, es, DIRECTION), expected.mean(), rtol=1e-12, atol=0)
    assert 0 <= loss(method, es, DIRECTION) <= 1


def test_projectors_differ_and_all_learn():
    method = built()
    assert len(method.projectors) == 3
    assert not torch.equal(method.projectors[0].weight, method.projectors[1].weight)
    loss(method).backward()
    assert all(layer.weight.grad.abs().max() > 0 for layer in method.projectors)


def test_copies_of_one_projector_are_one():
    many, one = built(), built(projectors=1)
    many.projectors = torch.nn.ModuleList(copy.deepcopy(one.projectors[0]) for _ in range(3))
    torch.testing.assert_close(loss(many), loss(one), rtol=1e-12, atol=0)


def test_projectors_also_for_equal_sizes():
    assert len(built(teacher=8).projectors) == 3


def test_dead_relus_give_no_gradient():
    """The published code divides 0 by 0 here."""
    method = built()
    for layer in method.projectors:
        torch.nn.init.constant_(layer.bias, -100.0)
    student = leaf(es)
    value = loss(method, student)
    value.backward()
    assert value.item() == 1
    assert torch.equal(student.grad, torch.zeros_like(es))


def test_wrong_options_and_shapes():
    with pytest.raises(UserError, match="pefd: projectors must be a whole number"):
        kdeploy.methods.create("pefd", projectors=0)
    with pytest.raises(UserError, match="needs the pooled embedding"):
        kdeploy.methods.create("pefd").build(Shapes(5), Shapes(5, embedding=8))
