import pytest
import torch

import kdeploy.methods
from kdeploy.errors import UserError
from kdeploy.methods import Outputs, Shapes
from kdeploy.methods.rkd import _differences, _distances
from tests.methods.expectations import Expectations
from tests.methods.golden import assert_golden, es, et, leaf, zs, zt
from tests.methods.test_pkt import rotation

EXPECTED = Expectations(duplication=None)


def terms(student=es, teacher=et, **options):
    method = kdeploy.methods.create("rkd", **options)
    return method.terms(Outputs(zs, embedding=student), Outputs(zt, embedding=teacher))


def rkd(*args, **options):
    return sum(terms(*args, **options).values())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_golden(dtype):
    parts = terms(es.to(dtype), et.to(dtype), distance=1.0, angle=1.0)
    assert_golden(parts["distance"], 0.0457397493)
    assert_golden(parts["angle"], 0.0116727824)
    assert_golden(rkd(es.to(dtype), et.to(dtype)), 1.7271328515)


def test_translation_rotation_and_scale_change_nothing():
    torch.testing.assert_close(rkd(es + 3.0, et - 1.0), rkd(), rtol=1e-9, atol=0)
    torch.testing.assert_close(rkd(es @ rotation(8), et @ rotation(16)), rkd(), rtol=1e-9, atol=0)
    torch.testing.assert_close(rkd(0.01 * es, 100 * et), rkd(), rtol=1e-9, atol=0)
    order = [2, 0, 3, 1]
    torch.testing.assert_close(rkd(es[order], et[order]), rkd(), rtol=1e-12, atol=0)


def test_equal_rows_push_nothing_apart():
    """The published code has a gradient of 5e11 in float32 here."""
    student = leaf(torch.cat([es[:1], es[:1], es[2:]]).float())
    rkd(student, et.float()).backward()
    assert student.grad.norm() < 100


def test_all_rows_equal_give_no_gradient():
    student = leaf(es[:1].expand(4, 8))
    rkd(student).backward()
    assert torch.equal(student.grad, torch.zeros(4, 8, dtype=torch.float64))


def test_one_sample_has_no_relations():
    assert rkd(es[:1], et[:1]) == 0


def test_equal_rows_twice_in_the_batch_count_as_a_small_distance():
    """In a batch of two given twice, four of the twelve ordered pairs are no pairs apart: the mean falls to 2/3."""
    pairs = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
    torch.testing.assert_close(_distances(_differences(pairs)), 1.0 - torch.eye(2, dtype=torch.float64))
    twice = _distances(_differences(torch.cat([pairs, pairs])))
    assert twice[0, 1].item() == pytest.approx(1.5, rel=1e-6)
    assert 0 < twice[0, 2].item() < 1e-6


def test_wrong_options_and_shapes():
    with pytest.raises(UserError, match="rkd needs the pooled embedding of both networks, and the student has none"):
        kdeploy.methods.create("rkd").build(Shapes(5), Shapes(5, embedding=16))
    with pytest.raises(UserError, match="rkd: angle"):
        kdeploy.methods.create("rkd", angle=-1.0)
