import pytest
import torch
import torch.nn.functional as F

import kdeploy.methods
from kdeploy.errors import UserError
from kdeploy.methods import Outputs, Shapes
from tests.methods.expectations import Expectations
from tests.methods.golden import Fs, Ft, S, T, assert_golden, leaf, zs, zt
from tests.methods.test_pkt import rotation

EXPECTED = Expectations(duplication=0.5)


def sp(student=Fs, teacher=Ft):
    return kdeploy.methods.create("sp")(Outputs(zs, features=[student]), Outputs(zt, features=[teacher]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_golden(dtype):
    assert_golden(sp(Fs.to(dtype), Ft.to(dtype)), 0.4720467588)


def test_rows_of_unit_l1_norm_are_another_loss():
    """What torchdistill computes."""
    gram = [maps.flatten(1) @ maps.flatten(1).T for maps in (Fs, Ft)]
    assert_golden(F.mse_loss(*(F.normalize(each, p=1, dim=1) for each in gram)), 0.1249581821)


def test_only_the_last_stage_counts():
    method = kdeploy.methods.create("sp")
    assert method.needs.features == "last"
    more = method(Outputs(zs, features=[S(4, 2, 8, 8), Fs]), Outputs(zt, features=[T(4, 2, 8, 8), Ft]))
    torch.testing.assert_close(more, sp(), rtol=0, atol=0)


def test_scale_rotation_and_order_change_nothing():
    torch.testing.assert_close(sp(0.01 * Fs, 100 * Ft), sp(), rtol=1e-9, atol=0)
    turned = (Fs.flatten(1) @ rotation(48)).reshape(4, 3, 4, 4)
    torch.testing.assert_close(sp(turned), sp(), rtol=1e-9, atol=0)
    order = [2, 0, 3, 1]
    torch.testing.assert_close(sp(Fs[order], Ft[order]), sp(), rtol=1e-12, atol=0)


def test_scale_of_one_sample_changes_it():
    factors = torch.tensor([0.5, 3.0, 20.0, 1.0], dtype=torch.float64).reshape(4, 1, 1, 1)
    assert abs(sp(factors * Fs) - sp()) > 0.01


def test_zero_maps_have_no_gradient():
    student = leaf(torch.zeros_like(Fs))
    sp(student).backward()
    assert torch.equal(student.grad, torch.zeros_like(Fs))


def test_feature_maps_are_needed():
    with pytest.raises(UserError, match="the teacher gives none"):
        kdeploy.methods.create("sp").build(Shapes(5, [(3, 4, 4)]), Shapes(5))
