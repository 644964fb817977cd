import pytest
import torch
import torch.nn.functional as F

import kdeploy.methods
from kdeploy.errors import UserError
from kdeploy.methods import Outputs, Shapes
from kdeploy.methods._features import unit
from kdeploy.methods.nst import _similarity
from tests.methods.golden import Fs, Fs8, Ft, Ft3, S, assert_golden, leaf, zs, zt
from tests.methods.test_pkt import rotation


def nst(student=Fs, teacher=Ft):
    return kdeploy.methods.create("nst")(Outputs(zs, features=[student]), Outputs(zt, features=[teacher]))


def channels(maps):
    return unit(maps.flatten(2), dim=2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_golden(dtype):
    ours, theirs, theirs3, ours8 = (each.to(dtype) for each in (Fs, Ft, Ft3, Fs8))
    assert_golden(nst(ours, theirs), 0.6697872693432)
    assert_golden(nst(ours, theirs3), 0.9129362127495)
    assert_golden(nst(ours8, theirs), 0.8419386366969)
    u, v = channels(ours), channels(theirs)
    assert_golden(_similarity(u, u), 0.8465873476961)
    assert_golden(_similarity(v, v), 0.5044981247404)
    assert_golden(_similarity(u, v), 0.3406491015467)


def test_same_number_from_the_moments_of_positions():
    moments = [rows.transpose(1, 2) @ rows / rows.shape[1] for rows in (channels(Fs), channels(Ft))]
    expected = (moments[0] - moments[1]).square().sum(dim=(1, 2)).mean()
    torch.testing.assert_close(nst(), expected, rtol=1e-12, atol=0)


def test_gram_matrices_of_channels_are_another_loss():
    gram = [rows @ rows.transpose(1, 2) for rows in (channels(Fs), channels(Ft3))]
    assert_golden(F.mse_loss(*gram), 1.448697351264)


def test_stages_are_summed():
    method = kdeploy.methods.create("nst")
    both = method(Outputs(zs, features=[Fs8, Fs]), Outputs(zt, features=[Ft, Ft3]))
    torch.testing.assert_close(both, nst(Fs8, Ft) + nst(Fs, Ft3))


def test_set_of_channels_is_what_counts():
    assert nst(Ft.repeat(1, 2, 1, 1)).abs() < 1e-12
    assert nst(torch.cat([Ft, Ft[:, :1]], dim=1)) > 1e-4  # one channel alone weighs twice
    factors = torch.tensor([-3.0, 0.5, 20.0], dtype=torch.float64).reshape(1, 3, 1, 1)
    torch.testing.assert_close(nst((factors * Fs).flip(1)), nst(), rtol=1e-12, atol=0)
    assert abs(nst(Fs.flip(3)) - nst()) > 1e-3


def test_one_rotation_of_the_positions_of_both_changes_nothing():
    turn = rotation(16)
    ours, theirs = ((maps.flatten(2) @ turn).reshape_as(maps) for maps in (Fs, Ft))
    torch.testing.assert_close(nst(ours, theirs), nst(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_dead_channel_gets_no_gradient(dtype):
    student = leaf(torch.cat([Fs[:, :2], torch.zeros_like(Fs[:, :1])], dim=1).to(dtype))
    nst(student, Ft.to(dtype)).backward()
    assert torch.equal(student.grad[:, 2], torch.zeros_like(student.grad[:, 2]))
    assert student.grad[:, :2].isfinite().all()


def test_agreement_is_exactly_zero_without_gradient():
    student = leaf(Ft)
    value = nst(student, Ft)
    value.backward()
    assert value == 0
    assert student.grad.abs().max() < 1e-15


def test_unequal_numbers_of_stages():
    with pytest.raises(UserError, match="nst"):
        kdeploy.methods.create("nst").build(Shapes(5, [(3, 8, 8)]), Shapes(5, [(3, 8, 8), (3, 4, 4)]))
    with pytest.raises(UserError, match="nst"):
        kdeploy.methods.create("nst")(Outputs(zs, features=[Fs, S(4, 3, 2, 2)]), Outputs(zt, features=[Ft]))
