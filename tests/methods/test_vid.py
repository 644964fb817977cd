import math

import pytest
import torch

import kdeploy.methods
from kdeploy.methods import Outputs, Shapes
from kdeploy.methods.vid import negative_log_likelihood
from tests.methods.expectations import Expectations
from tests.methods.golden import Fs, Fs8, Ft, Ft3, S, T, assert_golden, leaf, zs, zt

EXPECTED = Expectations(identity=None)  # a perfect regressor still pays log(5) / 2


def built(dtype=torch.float64):
    """The regressor of the golden values."""
    method = kdeploy.methods.create("vid")
    method.build(Shapes(5, [(3, 4, 4)]), Shapes(5, [(6, 4, 4)]))
    method.to(dtype)
    weights = (0.5 * S(6, 3), 0.5 * T(6, 6), 0.5 * S(6, 6))
    convolutions = [layer for layer in method.stages[0].regressor if isinstance(layer, torch.nn.Conv2d)]
    with torch.no_grad():
        for convolution, weight in zip(convolutions, weights, strict=True):
            convolution.weight.copy_(weight[:, :, None, None])
    return method


def with_scale(method, scale):
    with torch.no_grad():
        method.stages[0].log_scale.copy_(scale)
    return method


def loss(method, student=Fs, teacher=Ft):
    return method(Outputs(zs, [student]), Outputs(zt, [teacher]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_golden(dtype):
    method, ours, ours8, theirs = built(dtype), Fs.to(dtype), Fs8.to(dtype), Ft.to(dtype)
    start = torch.full((6,), math.log(math.expm1(5 - 1e-5)), dtype=torch.float64)
    torch.testing.assert_close(
        method.stages[0].log_scale.detach(), start.to(dtype), rtol=1e-7, atol=0
    )  # kept as float32
    assert_golden(loss(with_scale(method, start), ours, theirs), 0.8770308949919)
    assert_golden(loss(with_scale(method, S(6)), ours, theirs), 0.3867353400054)
    assert_golden(loss(with_scale(method, -S(6)), ours8, theirs), 0.1895813765416)


def test_golden_gradient_of_a_variance():
    method = with_scale(built(), S(6))
    loss(method).backward()
    assert_golden(method.stages[0].log_scale.grad[0], -0.01621242357742)


def test_variance_equal_to_the_error_is_best():
    method = built()
    mean, _ = method.stages[0](Fs)
    errors = (Ft - mean).square().mean((0, 2, 3))
    assert_golden(errors.mean(), 0.7231193877484)
    scale = torch.log(torch.expm1(errors - 1e-5))
    value = loss(with_scale(method, scale))
    assert_golden(value, 0.3243985417079)
    torch.testing.assert_close(value, (1 + errors.log().mean()) / 2)
    value.backward()
    assert method.stages[0].log_scale.grad.abs().max() < 1e-12


def test_starts_as_a_tenth_of_the_squared_error():
    method = built()
    mean, variance = method.stages[0](Fs)
    torch.testing.assert_close(variance, torch.full_like(variance, 5.0), rtol=1e-6, atol=0)
    expected = 0.1 * (Ft - mean).square().mean() + math.log(5) / 2
    torch.testing.assert_close(loss(method), expected, rtol=1e-6, atol=0)
    unbuilt = loss(kdeploy.methods.create("vid"), Fs, Ft3)
    assert_golden(unbuilt, 0.1 * 0.9529174660441 + math.log(5) / 2)


def test_parameters_of_the_published_pair():
    method = kdeploy.methods.create("vid")
    method.build(
        Shapes(100, [(64, 32, 32), (128, 16, 16), (256, 8, 8)]), Shapes(100, [(64, 32, 32), (128, 16, 16), (256, 8, 8)])
    )
    assert sum(parameter.numel() for parameter in method.parameters()) == 258_496
    assert "stages.0.log_scale" in method.state_dict()


def test_places_and_samples_in_another_order():
    turned = loss(built(), Fs.flip(2, 3, 0), Ft.flip(2, 3, 0))
    torch.testing.assert_close(turned, loss(built()))


def test_no_regressor_ends_in_a_relu():
    mean, _ = built().stages[0](Fs)
    assert mean.min() < 0


@pytest.mark.parametrize(("dtype", "scale"), [(torch.float32, 200.0), (torch.float16, 20.0)])
def test_large_variances_do_not_overflow(dtype, scale):
    method = kdeploy.methods.create("vid")
    method.build(Shapes(5, [(3, 4, 4)]), Shapes(5, [(6, 4, 4)]))
    with_scale(method, torch.full((6,), scale))
    value = loss(method, Fs.to(dtype), Ft.to(dtype))
    value.backward()
    assert value.isfinite()
    assert method.stages[0].log_scale.grad.isfinite().all()


def test_likelihood_of_a_gaussian():
    target, mean, variance = Ft, leaf(T(4, 6, 4, 4) + 0.1), 2 + S(1, 6, 1, 1)
    expected = -torch.distributions.Normal(mean, variance.sqrt()).log_prob(target).mean() - math.log(2 * math.pi) / 2
    torch.testing.assert_close(negative_log_likelihood(target, mean, variance), expected)
