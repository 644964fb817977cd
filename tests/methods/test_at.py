import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kdeploy.methods
from kdeploy.errors import UserError
from kdeploy.methods import Outputs
from kdeploy.methods.at import attention
from tests.methods.expectations import Expectations
from tests.methods.golden import Fs, Fs8, Ft, S, T, assert_golden, leaf, zs, zt

EXPECTED = [Expectations(), Expectations(options={"form": "paper"})]


def at(student=Fs, teacher=Ft, **options):
    method = kdeploy.methods.create("at", **options)
    return method(Outputs(zs, features=[student]), Outputs(zt, features=[teacher]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_golden(dtype):
    ours, theirs = Fs.to(dtype), Ft.to(dtype)
    assert_golden(at(ours, theirs), 0.0173860581)
    assert_golden(at(ours, theirs, form="paper"), 0.5271468614)


def test_weights_of_the_tables():
    assert kdeploy.methods.create("at").default_weight == 1000
    assert kdeploy.methods.create("at", form="paper").default_weight == 500


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(1e-3, 1e3), min_size=8, max_size=8), st.sampled_from(["code", "paper"]))
def test_scale_of_a_sample_does_not_count(scales, form):
    ours, theirs = torch.tensor(scales, dtype=torch.float64).reshape(2, 4, 1, 1, 1)
    torch.testing.assert_close(at(ours * Fs, theirs * Ft, form=form), at(form=form), rtol=1e-10, atol=0)


def test_order_of_channels_does_not_count_and_places_do():
    torch.testing.assert_close(at(Fs.flip(1), Ft), at(), rtol=1e-12, atol=0)
    assert abs(at(Fs.flip(3), Ft) - at()) > 1e-5


def test_stages_are_summed_each_with_its_name():
    method = kdeploy.methods.create("at")
    terms = method.terms(Outputs(zs, [Fs8, Fs]), Outputs(zt, [Ft, Ft]))
    assert list(terms) == ["at/1", "at/2"]
    torch.testing.assert_close(terms["at/2"], at())


def test_larger_map_is_pooled_before_it_is_squared():
    pooled = Fs8.unflatten(2, (4, 2)).unflatten(4, (4, 2)).mean((3, 5))
    torch.testing.assert_close(at(Fs8, Ft), at(pooled, Ft), rtol=1e-12, atol=0)
    torch.testing.assert_close(at(Ft, Fs8), at(Ft, pooled), rtol=1e-12, atol=0)


def test_maps_that_are_not_square_stay_so():
    ours, theirs = S(2, 3, 4, 8), T(2, 3, 2, 4)
    pooled = ours.unflatten(2, (2, 2)).unflatten(4, (4, 2)).mean((3, 5))
    torch.testing.assert_close(at(ours, theirs), at(pooled, theirs))


def test_signs_do_not_count_at_odd_powers():
    torch.testing.assert_close(attention(-Fs, 3), attention(Fs, 3))


def test_zero_map_gets_no_gradient():
    student = leaf(torch.cat([torch.zeros_like(Fs[:1]), Fs[1:]]))
    at(student, Ft).backward()
    assert torch.equal(student.grad[0], torch.zeros_like(student.grad[0]))
    assert student.grad[1:].abs().max() > 0


@pytest.mark.parametrize("options", [{"form": "norm"}, {"power": 0.0}])
def test_impossible_options(options):
    with pytest.raises(UserError, match="at: "):
        kdeploy.methods.create("at", **options)


def test_unequal_numbers_of_stages():
    with pytest.raises(UserError, match="the student has 1 taps where the teacher has 2"):
        kdeploy.methods.create("at")(Outputs(zs, [Fs]), Outputs(zt, [Ft, Ft]))
