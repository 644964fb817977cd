import pytest
import torch
import torch.nn.functional as F

import kdeploy.methods
from kdeploy.errors import UserError
from kdeploy.methods import Context, Outputs
from tests.methods.expectations import Expectations
from tests.methods.golden import assert_golden, leaf, y, zs, zt

EXPECTED = [Expectations(), Expectations(options={"standardize": True})]


def terms(student=zs, teacher=zt, labels=y, context=None, **options):
    return kdeploy.methods.create("dkd", **options).terms(Outputs(student), Outputs(teacher), labels, context)


def dkd(*args, **options):
    return sum(terms(*args, **options).values())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_golden(dtype):
    student, teacher = zs.to(dtype), zt.to(dtype)
    parts = terms(student, teacher, beta=1.0)
    assert_golden(parts["tckd"], 0.2491756340)
    assert_golden(parts["nckd"], 0.2931448799)
    assert_golden(dkd(student, teacher), 2.5943346735)
    assert_golden(dkd(student, teacher, standardize=True), 1.9637319115)


def test_kd_decouples_into_the_two_parts():
    parts = [
        terms(zs[row : row + 1], zt[row : row + 1], y[row : row + 1], beta=1.0, temperature=3.0) for row in range(4)
    ]
    confidence = F.softmax(zt / 3, dim=1)[range(4), y]
    decoupled = [part["tckd"] + (1 - p) * part["nckd"] for part, p in zip(parts, confidence, strict=True)]
    whole = kdeploy.methods.create("kd", temperature=3.0)(Outputs(zs), Outputs(zt))
    torch.testing.assert_close(torch.stack(decoupled).mean(), whole, rtol=1e-12, atol=0)


def test_others_do_not_see_the_target():
    student, teacher = zs.clone(), zt.clone()
    student[range(4), y] += 7
    teacher[range(4), y] -= 3
    torch.testing.assert_close(terms(student, teacher)["nckd"], terms()["nckd"], rtol=1e-12, atol=0)
    torch.testing.assert_close(dkd(zs + 5, zt - 5), dkd(), rtol=1e-12, atol=0)


def test_saturated_logits_give_the_exact_value():
    """The published code gives inf and a gradient of NaN from a gap of 600 at temperature 4."""
    student = leaf(torch.tensor([[600.0, 0.0, 0.0]], dtype=torch.float64))
    loss = dkd(student, torch.zeros(1, 3, dtype=torch.float64), torch.tensor([0]), temperature=4.0)
    loss.backward()
    expected = 16 * (
        (1 / 3) * torch.tensor(1 / 3).double().log() + (2 / 3) * (torch.tensor(2 / 3).double().log() + 150)
    )
    torch.testing.assert_close(loss.detach(), expected - 16 * (2 / 3) * torch.tensor(2.0).double().log())
    assert student.grad.isfinite().all()


def test_two_classes_have_no_others():
    assert terms(zs[:, :2], zt[:, :2], torch.tensor([0, 1, 1, 0]))["nckd"] == 0


@pytest.mark.parametrize(("epoch", "share"), [(0, 1 / 20), (9, 0.5), (19, 1.0), (200, 1.0)])
def test_warmup(epoch, share):
    assert_golden(dkd(context=Context(epoch=epoch)), share * 2.5943346735)


def test_warmup_of_one_epoch_is_none():
    assert_golden(dkd(context=Context(epoch=0), warmup=1), 2.5943346735)


def test_published_weights():
    plain, standard = kdeploy.methods.create("dkd"), kdeploy.methods.create("dkd", standardize=True)
    assert (plain.default_weight, plain.temperature, plain.default_cross_entropy) == (1.0, 4.0, 1.0)
    assert (standard.default_weight, standard.temperature, standard.default_cross_entropy) == (9.0, 2.0, 1.0)


def test_labels_must_be_class_indices():
    with pytest.raises(UserError, match="mixed labels"):
        dkd(zs, zt, F.one_hot(y, 5).double())
    with pytest.raises(ValueError, match="labels"):
        dkd(zs, zt, None)


@pytest.mark.parametrize("options", [{"alpha": -1.0}, {"beta": -1.0}, {"temperature": 0.0}, {"warmup": 0}])
def test_wrong_options(options):
    with pytest.raises(UserError, match=f"dkd: {next(iter(options))}"):
        kdeploy.methods.create("dkd", **options)
