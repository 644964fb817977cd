import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kdeploy.methods
from kdeploy.errors import UserError
from kdeploy.methods import Outputs
from kdeploy.methods.dist import _correlation
from tests.methods.expectations import Expectations
from tests.methods.golden import S, T, assert_golden, leaf, zs, zt

# 1e-8 in the denominator of each correlation, times T^2 = 16
EXPECTED = Expectations(identity=1e-3 * 16, duplication_tolerance=1e-4)


def terms(student=zs, teacher=zt, **options):
    return kdeploy.methods.create("dist", **options).terms(Outputs(student), Outputs(teacher))


def dist(*args, **options):
    return sum(terms(*args, **options).values())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_golden(dtype):
    student, teacher = zs.to(dtype), zt.to(dtype)
    parts = terms(student, teacher, temperature=1.0)
    assert_golden(parts["inter"], 0.5053619433)
    assert_golden(parts["intra"], 0.3748359981)
    assert_golden(dist(student, teacher, temperature=1.0), 0.8801979414)
    assert_golden(dist(student, teacher), 12.5447957252)


def test_nearly_zero_at_equality_because_of_its_epsilon():
    assert 0 < dist(zt, zt).item() < 1e-3 * 16
    assert abs(dist(zt, zt, temperature=1.0).item()) < 1e-3


def test_constant_logits_correlate_with_nothing():
    """The published code has a gradient of the order of 1e6 here."""
    student = leaf(torch.full((4, 5), 0.3))
    loss = dist(student, zt.float())
    loss.backward()
    assert loss.item() == pytest.approx(32)
    assert torch.equal(student.grad, torch.zeros(4, 5))


def test_one_sample_has_no_columns_to_correlate():
    assert terms(zs[:1], zt[:1])["intra"] == 16


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.1, 10), shift=st.floats(-3, 3))
def test_correlation_does_not_see_scale_and_shift(scale, shift):
    value = _correlation(scale * zs + shift, zt)
    torch.testing.assert_close(value, _correlation(zs, zt), rtol=1e-6, atol=1e-8)


@settings(max_examples=25, deadline=None)
@given(batch=st.integers(1, 5), classes=st.integers(2, 6), temperature=st.floats(0.5, 8))
def test_bounds_and_consistent_permutations(batch, classes, temperature):
    student, teacher = 3 * S(batch, classes), 5 * T(batch, classes)
    loss = dist(student, teacher, temperature=temperature)
    assert 0 <= loss <= 4 * temperature**2
    turned = dist(student.flip(0, 1), teacher.flip(0, 1), temperature=temperature)
    torch.testing.assert_close(turned, loss, rtol=1e-9, atol=1e-9)


def test_wrong_options():
    with pytest.raises(UserError, match="dist: temperature"):
        kdeploy.methods.create("dist", temperature=0.0)
    with pytest.raises(UserError, match="dist: gamma"):
        kdeploy.methods.create("dist", gamma=-1.0)
