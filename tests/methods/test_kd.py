import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import kdeploy.methods
from kdeploy.errors import UserError
from kdeploy.methods import Outputs
from kdeploy.methods._logits import standardised
from tests.methods.expectations import Expectations
from tests.methods.golden import S, T, assert_golden, leaf, zs, zt

EXPECTED = [Expectations(), Expectations(options={"standardize": True})]


def kd(student=zs, teacher=zt, **options):
    return kdeploy.methods.create("kd", **options)(Outputs(student), Outputs(teacher))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 0.4679248207),
        ({"temperature": 1.0}, 0.3694656866),
        ({"standardize": True}, 0.3554342026),
    ],
)
def test_golden(options, expected):
    assert_golden(kd(**options), expected)
    assert_golden(kd(zs.float(), zt.float(), **options), expected)


def test_traps_have_other_values():
    assert_golden(kd() / 5, 0.0935849641)  # the mean over all elements, a common mistake
    population = [(z - z.mean(1, keepdim=True)) / (z.std(1, keepdim=True, unbiased=False) + 1e-7) for z in (zs, zt)]
    assert_golden(kd(*population, temperature=2.0), 0.4372239136)


def test_gradient_is_that_of_the_formula():
    student = leaf(zs)
    kd(student, temperature=3.0).backward()
    expected = 3.0 * (F.softmax(zs / 3, dim=1) - F.softmax(zt / 3, dim=1)) / 4
    torch.testing.assert_close(student.grad, expected, rtol=1e-12, atol=1e-14)


def test_large_temperature_compares_centred_logits():
    centred = [z - z.mean(dim=1, keepdim=True) for z in (zs, zt)]
    limit = (centred[0] - centred[1]).square().sum(dim=1).mean() / (2 * 5)
    torch.testing.assert_close(kd(temperature=1e5), limit, rtol=1e-4, atol=0)


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 4),
    classes=st.integers(2, 6),
    shift=st.floats(-50, 50),
    standardize=st.booleans(),
    temperature=st.floats(0.5, 20),
)
def test_a_constant_added_to_a_row_changes_nothing(batch, classes, shift, standardize, temperature):
    student, teacher = S(batch, classes), T(batch, classes)
    plain = kd(student, teacher, standardize=standardize, temperature=temperature)
    shifted = kd(student + shift, teacher - 2 * shift, standardize=standardize, temperature=temperature)
    assert plain >= -1e-12
    torch.testing.assert_close(shifted, plain, rtol=1e-6, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.1, 100), shift=st.floats(-10, 10))
def test_standardised_loss_does_not_see_scale_and_shift(scale, shift):
    value = kd(scale * zs + shift, zt / scale - shift, standardize=True)
    torch.testing.assert_close(value, kd(standardize=True), rtol=1e-5, atol=0)


def test_standardised_logits():
    rows = standardised(zs)
    torch.testing.assert_close(rows.mean(dim=1), torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(rows.std(dim=1), torch.ones(4, dtype=torch.float64), rtol=1e-6, atol=0)
    assert rows.abs().max() <= 4 / 5**0.5
    torch.testing.assert_close(kd(rows, standardised(zt), temperature=2.0), kd(standardize=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_row_standardises_to_zeros_without_gradient(dtype):
    logits = torch.full((2, 5), 0.3, dtype=dtype).requires_grad_()
    rows = standardised(logits)
    (rows * torch.arange(5)).sum().backward()
    assert torch.equal(rows, torch.zeros_like(rows))
    assert torch.equal(logits.grad, torch.zeros_like(rows))


def test_published_weights():
    plain, standard = kdeploy.methods.create("kd"), kdeploy.methods.create("kd", standardize=True)
    assert (plain.default_weight, plain.temperature) == (0.9, 4.0)
    assert (standard.default_weight, standard.temperature) == (9.0, 2.0)
    assert plain.default_cross_entropy == standard.default_cross_entropy == pytest.approx(0.1)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": float("nan")}, {"alpha": 1.5}])
def test_wrong_options(options):
    with pytest.raises(UserError, match=f"kd: {next(iter(options))}"):
        kdeploy.methods.create("kd", **options)
