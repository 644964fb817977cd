import math

import pytest
import torch
import torch.nn.functional as F

import kdeploy.methods
from kdeploy.errors import UserError
from kdeploy.methods import Outputs
from tests.methods.expectations import Expectations
from tests.methods.golden import assert_golden, leaf, y, zs, zt

EXPECTED = Expectations(identity=None)


def terms(student=zs, teacher=zt, labels=y, **options):
    return kdeploy.methods.create("nkd", **options).terms(Outputs(student), Outputs(teacher), labels)


def nkd(*args, **options):
    return sum(terms(*args, **options).values())


def others(logits):
    """The logits of all classes but the label's: `[4, 4]`."""
    return torch.stack([torch.cat([row[:label], row[label + 1 :]]) for row, label in zip(logits, y, strict=True)])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_golden(dtype):
    student, teacher = zs.to(dtype), zt.to(dtype)
    assert_golden(terms(student, teacher)["target"], 0.5236019323124)
    assert_golden(terms(student, teacher, gamma=1.0)["others"], 1.238645445850)
    assert_golden(terms(student, teacher, temperature=3.0, gamma=1.0)["others"], 12.12418321114)
    assert_golden(nkd(student, teacher), 2.381570101087)
    assert_golden(nkd(student, teacher, temperature=3.0, gamma=3.5), 42.95824317130)
    assert_golden(nkd(teacher, teacher), 1.736112758804)


def test_the_faulty_mask_has_another_value():
    """The mask of the revisions of July to October 2023 hid nothing: a soft cross-entropy over all classes."""
    for temperature, gamma, faulty in ((1.0, 1.5, 2.859039698197), (3.0, 3.5, 50.67408649785)):
        soft = -(F.softmax(zt / temperature, 1) * F.log_softmax(zs / temperature, 1)).sum(1).mean()
        assert_golden(terms()["target"] + gamma * temperature**2 * soft, faulty)
        assert abs(nkd(temperature=temperature, gamma=gamma).item() - faulty) > 0.1


def test_others_are_the_part_of_dkd_and_a_constant():
    q = F.softmax(others(zt) / 4, dim=1)
    entropy = -(q * q.log()).sum(dim=1).mean()
    value = terms(temperature=4.0, gamma=2.0)["others"] - 2.0 * 16 * entropy
    assert_golden(value, 2.0 * 0.2931448799, digits=9)


def test_gradients_are_those_of_the_formula():
    student = leaf(zs)
    terms(student)["target"].backward()
    confidence = F.softmax(zt, dim=1)[range(4), y].unsqueeze(1)
    expected = confidence * (F.softmax(zs, dim=1) - F.one_hot(y, 5)) / 4
    torch.testing.assert_close(student.grad, expected, rtol=1e-12, atol=1e-15)
    student = leaf(zs)
    terms(student, temperature=3.0, gamma=2.0)["others"].backward()
    expected = 2.0 * 3.0 * (F.softmax(others(zs) / 3, dim=1) - F.softmax(others(zt) / 3, dim=1)) / 4
    torch.testing.assert_close(others(student.grad), expected, rtol=1e-12, atol=1e-15)
    assert torch.equal(student.grad[range(4), y], torch.zeros(4, dtype=torch.float64))


def test_agreement_still_pulls_towards_the_label():
    student = leaf(zt)
    nkd(student).backward()
    assert (student.grad[range(4), y] < 0).all()


def test_rows_may_shift_and_others_do_not_see_the_target():
    torch.testing.assert_close(nkd(zs + 4, zt - 9), nkd(), rtol=1e-12, atol=0)
    student, teacher = zs.clone(), zt.clone()
    student[range(4), y] += 7
    teacher[range(4), y] -= 3
    torch.testing.assert_close(terms(student, teacher)["others"], terms()["others"], rtol=1e-12, atol=0)


def test_two_classes_leave_the_target_alone():
    parts = terms(zs[:, :2], zt[:, :2], torch.tensor([0, 1, 1, 0]))
    assert parts["others"] == 0
    assert parts["target"] > 0


def test_saturated_logits_have_a_gradient_of_order_one():
    student = leaf(600 * zs.sign())
    loss = nkd(student)
    loss.backward()
    assert math.isfinite(loss.item())
    assert student.grad.abs().max() < 2


def test_wrong_options_and_labels():
    with pytest.raises(UserError, match="nkd: temperature"):
        kdeploy.methods.create("nkd", temperature=-1.0)
    with pytest.raises(UserError, match="nkd: gamma"):
        kdeploy.methods.create("nkd", gamma=-1.0)
    with pytest.raises(UserError, match="mixed labels"):
        nkd(zs, zt, F.one_hot(y, 5).double())
