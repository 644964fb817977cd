import math

import pytest
import torch

import kdeploy.methods
from kdeploy.errors import UserError
from kdeploy.methods import Outputs, Shapes
from tests.methods.expectations import Expectations
from tests.methods.golden import S, T, assert_golden, e8s, e8t, es, et, leaf, zs, zt
from tests.methods.test_pkt import rotation

EXPECTED = [
    Expectations(duplication=None),
    Expectations(options={"form": "paper"}),
    # the norm doubles with the batch while B^2 becomes four times as large
    Expectations(options={"form": "torchdistill"}, duplication=0.5),
    Expectations(options={"form": "torchdistill", "kernel": "bilinear"}, duplication=0.5),
]

ORDER = [2, 0, 3, 1]


def cc(student, teacher, **options):
    method = kdeploy.methods.create("cc", **options)
    return method(Outputs(zs, embedding=student), Outputs(zt, embedding=teacher))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_golden(dtype):
    ours, theirs, ours8, theirs8 = (each.to(dtype) for each in (es, et, e8s, e8t))
    assert_golden(cc(ours8, theirs8), 2.831251616727)
    assert_golden(cc(ours8[ORDER], theirs8[ORDER]), 3.188325732580)
    assert_golden(cc(ours, theirs, form="paper"), 0.02999173019329)
    assert_golden(cc(ours, theirs, form="torchdistill"), 1.053643968527)
    assert_golden(cc(ours, theirs, form="torchdistill", kernel="bilinear"), 0.7192940995148)


def test_code_form_multiplies_neighbours():
    plain = cc(e8s, e8t)
    torch.testing.assert_close(cc(3 * e8s, 3 * e8t), 9 * plain, rtol=1e-12, atol=0)
    torch.testing.assert_close(cc(e8s.flip(0), e8t.flip(0)), plain, rtol=1e-12, atol=0)
    torch.testing.assert_close(cc(e8s + S(8), e8t + S(8)), plain, rtol=1e-9, atol=0)
    every_second = e8s.clone()
    every_second[::2] = e8t[::2]
    assert cc(every_second, e8t) == 0


@pytest.mark.parametrize("form", ["code", "paper", "torchdistill"])
def test_agreement_is_exactly_zero_without_gradient(form):
    student = leaf(e8t)
    value = cc(student, e8t, form=form)
    value.backward()
    assert value == 0
    assert torch.equal(student.grad, torch.zeros_like(e8t))


def test_code_form_of_one_sample_is_zero():
    assert cc(e8s[:1], e8t[:1]) == 0


def test_paper_form_sees_directions_only():
    plain = cc(es, et, form="paper")
    factors = torch.tensor([[0.5], [3.0], [20.0], [1.0]], dtype=torch.float64)
    torch.testing.assert_close(cc(factors * es, et / factors, form="paper"), plain, rtol=1e-9, atol=0)
    torch.testing.assert_close(cc(es @ rotation(8), et @ rotation(16), form="paper"), plain, rtol=1e-9, atol=0)
    torch.testing.assert_close(cc(es[ORDER], et[ORDER], form="paper"), plain, rtol=1e-12, atol=0)


def test_series_approaches_the_gaussian():
    assert_golden(cc(es, et, form="paper", order=40), 0.03716782672518)
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    second = kdeploy.methods.create("cc", form="paper")._kernel(rows)[0]
    torch.testing.assert_close(
        second, torch.tensor([0.952577404, 0.449328964, 0.233651061]).double(), rtol=0, atol=1e-7
    )
    exact = kdeploy.methods.create("cc", form="paper", order=40)._kernel(rows)[0]
    expected = torch.tensor([1.0, math.exp(-0.4 * 2), math.exp(-0.4 * 4)], dtype=torch.float64)
    torch.testing.assert_close(exact, expected, rtol=1e-12, atol=0)


def test_a_zero_row_gets_no_gradient_in_the_paper_form():
    """The published codes have a gradient of 3e10 here."""
    student = leaf(torch.cat([torch.zeros(1, 8, dtype=torch.float64), es[1:]]))
    cc(student, et, form="paper").backward()
    assert torch.equal(student.grad[0], torch.zeros(8, dtype=torch.float64))
    assert student.grad.abs().max() < 1


def test_torchdistill_form_grows_with_the_size_of_the_features():
    assert cc(10 * es, et, form="torchdistill").item() == pytest.approx(5752, abs=0.5)


@pytest.mark.parametrize(
    ("form", "weight", "adapters"), [("code", 0.02, 4), ("torchdistill", 0.003, 4), ("paper", 1, 0)]
)
def test_adapters_and_weight(form, weight, adapters):
    method = kdeploy.methods.create("cc", form=form)
    method.build(Shapes(5, embedding=8), Shapes(5, embedding=16))
    assert method.default_weight == weight
    assert len(list(method.parameters())) == adapters
    loss = method.double()(Outputs(zs, embedding=leaf(es)), Outputs(zt, embedding=T(4, 16)))
    loss.backward()
    if adapters:
        assert method.embed_student.weight.shape == (128, 8)
        assert method.embed_teacher.weight.shape == (128, 16)
        assert method.embed_teacher.weight.grad.abs().max() > 0  # the teacher's embedding is trained too


def test_wrong_options_and_shapes():
    with pytest.raises(UserError, match="Did you mean 'paper'"):
        kdeploy.methods.create("cc", form="papers")
    with pytest.raises(UserError, match="bilinear belongs to form torchdistill"):
        kdeploy.methods.create("cc", kernel="bilinear")
    with pytest.raises(UserError, match="cc: gamma"):
        kdeploy.methods.create("cc", gamma=0.0)
    with pytest.raises(UserError, match="needs the pooled embedding"):
        kdeploy.methods.create("cc").build(Shapes(5, embedding=8), Shapes(5))
