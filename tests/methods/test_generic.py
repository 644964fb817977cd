"""The rules that every method keeps. They find the methods by themselves; expectations.py says how one differs."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import kdeploy.methods
from kdeploy.errors import UserError
from kdeploy.methods import Method, Outputs
from tests.methods.expectations import Expectations, Inputs, cases, changed, tensors

CASES = cases()
each_method = pytest.mark.parametrize(
    ("name", "expected"),
    CASES,
    ids=["-".join([name, *(f"{key}={value}" for key, value in each.options.items())]) for name, each in CASES],
)


@pytest.fixture(autouse=True)
def _exemption(request: pytest.FixtureRequest) -> None:
    expected: Expectations = request.getfixturevalue("expected")
    rule = request.function.__name__
    if rule in expected.exempt:
        pytest.skip(expected.exempt[rule])


LARGEST_GRADIENT = 1e4  # what a safe method stays below where the published code gives 1e6 to 1e11, or NaN


def loss_of(method: Method, inputs: Inputs) -> Tensor:
    """The loss of a copy of the method, so that memories and random choices are the same in every call."""
    torch.manual_seed(1)
    return inputs.loss(copy.deepcopy(method))


def gradients(method: Method, inputs: Inputs) -> tuple[Tensor, list[Tensor]]:
    """The loss and its gradients by the student's tensors; zeros by those that it does not use."""
    inputs = replace(inputs, student=changed(inputs.student, lambda tensor: tensor.detach().clone().requires_grad_()))
    loss = loss_of(method, inputs)
    leaves = tensors(inputs.student)
    return loss, list(torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True))


@each_method
def test_tells_what_it_is(name: str, expected: Expectations) -> None:
    found = kdeploy.methods.find(name)
    assert found.paper
    assert found.formula
    assert 2014 <= found.year <= 2026
    assert inspect.getdoc(found) != inspect.getdoc(Method)
    described = inspect.getdoc(found) or ""
    for option in kdeploy.methods.options(name):
        assert option in described, f"the docstring does not explain {option}"
    parameters = list(inspect.signature(found.__init__).parameters.values())[1:]
    assert not any(each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD) for each in parameters)
    with pytest.raises(UserError, match="no option"):
        kdeploy.methods.create(name, no_such_option=1)
    made = kdeploy.methods.create(name, **expected.options)
    assert made.default_weight >= 0
    assert made.default_cross_entropy >= 0


@each_method
def test_value_is_a_scalar_and_the_sum_of_its_terms(name: str, expected: Expectations) -> None:
    method = expected.method(name)
    inputs = expected.inputs(method.needs)
    torch.manual_seed(1)
    terms = copy.deepcopy(method).terms(inputs.student, inputs.teacher, inputs.target, inputs.context)
    assert all(term.shape == () for term in terms.values())
    loss = loss_of(method, inputs)
    assert loss.dtype == torch.float64
    torch.testing.assert_close(loss, sum(terms.values(), torch.zeros((), dtype=torch.float64)))


@each_method
def test_is_zero_where_student_and_teacher_agree(name: str, expected: Expectations) -> None:
    method = expected.method(name)
    inputs = expected.inputs(method.needs)
    same = loss_of(method, replace(inputs, student=inputs.teacher)).item()
    assert abs(loss_of(method, inputs).item()) > 1e-6, "the inputs do not tell student and teacher apart"
    if expected.identity is None:
        assert abs(same) > 1e-9, "it is 0 after all: say so in EXPECTED"
    else:
        assert abs(same) <= expected.identity


@each_method
@pytest.mark.parametrize("built", [False, True], ids=["identity", "adapters"])
def test_no_gradient_reaches_the_teacher(name: str, expected: Expectations, built: bool) -> None:
    method = expected.method(name, built=built)
    inputs = expected.inputs(method.needs, adapted=built)
    inputs = replace(
        inputs,
        student=changed(inputs.student, lambda tensor: tensor.clone().requires_grad_()),
        teacher=changed(inputs.teacher, lambda tensor: tensor.clone().requires_grad_()),
    )
    loss_of(method, inputs).backward()
    assert all(tensor.grad is None for tensor in tensors(inputs.teacher))
    assert any(tensor.grad is not None and tensor.grad.abs().max() > 0 for tensor in tensors(inputs.student))


@each_method
def test_batch_given_twice(name: str, expected: Expectations) -> None:
    method = expected.method(name)
    inputs = expected.inputs(method.needs)

    def twice(tensor: Tensor) -> Tensor:
        return torch.cat([tensor, tensor])

    index = inputs.context.index
    doubled = Inputs(
        changed(inputs.student, twice),
        changed(inputs.teacher, twice),
        None if inputs.target is None else twice(inputs.target),
        replace(inputs.context, index=None if index is None else twice(index)),
    )
    factor = loss_of(method, doubled).item() / loss_of(method, inputs).item()
    if expected.duplication is None:
        assert abs(factor - 1) > 1e-3, "it does not change after all: say so in EXPECTED"
    else:
        assert factor == pytest.approx(expected.duplication, rel=expected.duplication_tolerance)


def _zero_row(tensor: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(tensor[:1]), tensor[1:]])


def _constant_row(tensor: Tensor) -> Tensor:
    return torch.cat([torch.full_like(tensor[:1], 0.3), tensor[1:]])


def _two_rows_alike(tensor: Tensor) -> Tensor:
    return torch.cat([tensor[:1], tensor[:1], tensor[2:]])


def _all_rows_alike(tensor: Tensor) -> Tensor:
    return tensor[:1].expand_as(tensor).clone()


def _saturated(outputs: Outputs) -> Outputs:
    return replace(outputs, logits=600 * outputs.logits.sign())


def _every_tensor(change: Callable[[Tensor], Tensor]) -> Callable[[Outputs], Outputs]:
    return lambda outputs: changed(outputs, change)


HAZARDS = {
    "zero-row": _every_tensor(_zero_row),
    "all-zero": _every_tensor(torch.zeros_like),
    "constant-row": _every_tensor(_constant_row),
    "two-rows-alike": _every_tensor(_two_rows_alike),
    "all-rows-alike": _every_tensor(_all_rows_alike),
    "saturated-logits": _saturated,
}


def assert_safe(method: Method, inputs: Inputs) -> None:
    loss, found = gradients(method, inputs)
    assert math.isfinite(loss.item())
    for gradient in found:
        assert gradient.isfinite().all()
        assert gradient.abs().max() <= LARGEST_GRADIENT


@each_method
@pytest.mark.parametrize("hazard", HAZARDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_is_safe_on(name: str, expected: Expectations, hazard: str, dtype: torch.dtype) -> None:
    method = expected.method(name).to(dtype)
    inputs = expected.inputs(method.needs)
    ours, theirs = (changed(each, lambda tensor: tensor.to(dtype)) for each in (inputs.student, inputs.teacher))
    apply = HAZARDS[hazard]
    assert_safe(method, replace(inputs, student=apply(ours), teacher=theirs))
    assert_safe(method, replace(inputs, student=ours, teacher=apply(theirs)))
    assert_safe(method, replace(inputs, student=apply(ours), teacher=apply(theirs)))


@each_method
@pytest.mark.parametrize(("batch", "classes"), [(1, 5), (4, 2), (1, 2)])
def test_is_safe_on_one_sample_and_on_two_classes(name: str, expected: Expectations, batch: int, classes: int) -> None:
    method = expected.method(name)
    assert_safe(method, expected.inputs(method.needs, batch=batch, classes=classes))


@each_method
def test_adapters_are_safe_on_one_sample(name: str, expected: Expectations) -> None:
    method = expected.method(name, built=True)
    assert_safe(method, expected.inputs(method.needs, batch=1, adapted=True))


@each_method
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision_tensors_are_computed_in_float32(name: str, expected: Expectations, half: torch.dtype) -> None:
    """Logits times 30 and a zero row as well: what breaks softmaxes and norms that are taken in half precision."""
    method = expected.method(name).float()
    inputs = expected.inputs(method.needs)
    ours, theirs = (changed(each, _zero_row) for each in (inputs.student, inputs.teacher))
    ours, theirs = (replace(each, logits=10 * each.logits) for each in (ours, theirs))
    low = replace(
        inputs, student=changed(ours, lambda tensor: tensor.to(half)), teacher=changed(theirs, lambda t: t.to(half))
    )
    widened = replace(
        low,
        student=changed(low.student, lambda tensor: tensor.float()),
        teacher=changed(low.teacher, lambda t: t.float()),
    )
    loss = loss_of(method, low)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, loss_of(method, widened), rtol=1e-5, atol=1e-6)
    assert_safe(method, low)


@each_method
def test_autocast_does_not_change_the_value(name: str, expected: Expectations) -> None:
    method = expected.method(name).float()
    inputs = expected.inputs(method.needs)
    inputs = replace(
        inputs,
        student=changed(inputs.student, lambda tensor: tensor.float()),
        teacher=changed(inputs.teacher, lambda tensor: tensor.float()),
    )
    plain = loss_of(method, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = loss_of(method, inputs)
    torch.testing.assert_close(cast, plain, rtol=1e-5, atol=1e-6)


@each_method
def test_adapters_work_under_autocast(name: str, expected: Expectations) -> None:
    method = expected.method(name, built=True).float()
    inputs = expected.inputs(method.needs, adapted=True)
    student, teacher = (changed(each, lambda tensor: tensor.bfloat16()) for each in (inputs.student, inputs.teacher))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, found = gradients(method, replace(inputs, student=student, teacher=teacher))
    assert loss.dtype == torch.float32
    assert math.isfinite(loss.item())
    assert all(gradient.isfinite().all() for gradient in found)


@each_method
def test_finite_differences_confirm_the_gradient(name: str, expected: Expectations) -> None:
    method = expected.method(name, built=True)
    inputs = expected.inputs(method.needs, adapted=True)

    def loss(*leaves: Tensor) -> Tensor:
        given = iter(leaves)
        return loss_of(method, replace(inputs, student=changed(inputs.student, lambda _: next(given))))

    leaves = [tensor.clone().requires_grad_() for tensor in tensors(inputs.student)]
    assert torch.autograd.gradcheck(loss, leaves, fast_mode=True, atol=1e-6, rtol=1e-4)


@each_method
def test_no_tensor_is_made_on_another_device(name: str, expected: Expectations) -> None:
    """On the device `meta`, which computes shapes only and refuses to be mixed with the processor or read back."""
    method = expected.method(name, built=True)
    inputs = expected.inputs(method.needs, adapted=True)
    index = inputs.context.index
    loss = loss_of(
        method.to("meta"),
        Inputs(
            changed(inputs.student, lambda tensor: tensor.to("meta")),
            changed(inputs.teacher, lambda tensor: tensor.to("meta")),
            None if inputs.target is None else inputs.target.to("meta"),
            replace(inputs.context, index=None if index is None else index.to("meta")),
        ),
    )
    assert loss.device.type == "meta"


@each_method
def test_every_adapter_learns_and_is_kept_in_a_checkpoint(name: str, expected: Expectations) -> None:
    method = expected.method(name, built=True)
    inputs = expected.inputs(method.needs, adapted=True)
    inputs = replace(inputs, student=changed(inputs.student, lambda tensor: tensor.clone().requires_grad_()))
    torch.manual_seed(1)
    inputs.loss(method).backward()  # what it remembers from its first batch is part of the checkpoint
    for key, parameter in method.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{key} gets no gradient"
            assert parameter.grad.isfinite().all()
            assert parameter.grad.abs().max() > 0, f"{key} gets a zero gradient"
    torch.manual_seed(2)
    other = kdeploy.methods.create(name, **expected.options).double()
    expected.prepare(other)
    expected.build(other)
    other.load_state_dict(method.state_dict())
    torch.testing.assert_close(loss_of(other, inputs), loss_of(method, inputs), rtol=0, atol=0)


@each_method
def test_seed_decides_the_adapters(name: str, expected: Expectations) -> None:
    first, second = expected.method(name, built=True), expected.method(name, built=True)
    for ours, theirs in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.gpu
@each_method
def test_gpu_gives_the_same_value(name: str, expected: Expectations) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU here")
    method = expected.method(name)
    inputs = expected.inputs(method.needs)
    index = inputs.context.index
    moved = Inputs(
        changed(inputs.student, lambda tensor: tensor.cuda()),
        changed(inputs.teacher, lambda tensor: tensor.cuda()),
        None if inputs.target is None else inputs.target.cuda(),
        replace(inputs.context, index=None if index is None else index.cuda()),
    )
    torch.testing.assert_close(loss_of(copy.deepcopy(method).cuda(), moved).cpu(), loss_of(method, inputs))
