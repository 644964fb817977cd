import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kdeploy.methods
from kdeploy.errors import UserError
from kdeploy.methods import Context, Outputs
from kdeploy.methods.information_flow import cosine, jeffreys, layer_loss, t_student
from tests.methods.expectations import Expectations
from tests.methods.golden import Fs, Ft, S, T, assert_golden, es, et, leaf, zs, zt

EXPECTED = [Expectations(duplication=None), Expectations(options={"layers": "last"}, duplication=None)]


def flow(student=es, teacher=et):
    return kdeploy.methods.create("information-flow")(Outputs(zs, embedding=student), Outputs(zt, embedding=teacher))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_golden(dtype):
    ours, theirs = es.to(dtype), et.to(dtype)
    assert_golden(flow(ours, theirs), 0.1291755978)
    assert_golden(jeffreys(cosine(ours), cosine(theirs)), 0.0993591439)
    assert_golden(jeffreys(t_student(ours), t_student(theirs)), 0.0298164539)


def test_early_stages_fade_by_epoch_and_the_embedding_does_not():
    method = kdeploy.methods.create("information-flow")
    student, teacher = Outputs(zs, [Fs, S(4, 2, 2, 2)], es), Outputs(zt, [Ft, T(4, 5, 2, 2)], et)
    stages = [layer_loss(Fs.flatten(1), Ft.flatten(1)), layer_loss(S(4, 8), T(4, 20))]
    for epoch in (0, 1, 5, 26):
        terms = method.terms(student, teacher, context=Context(epoch=epoch))
        assert list(terms) == ["information-flow/embedding", "information-flow/1", "information-flow/2"]
        for number, stage in enumerate(stages, 1):
            torch.testing.assert_close(terms[f"information-flow/{number}"], 100 * 0.7**epoch * stage)
        torch.testing.assert_close(terms["information-flow/embedding"], flow())
    assert 100 * 0.7**26 < 0.01
    last = kdeploy.methods.create("information-flow", layers="last")
    assert list(last.terms(student, teacher)) == ["information-flow/embedding"]


def test_stands_alone():
    assert kdeploy.methods.create("information-flow").default_cross_entropy == 0


def test_symmetric_and_never_below_0():
    torch.testing.assert_close(layer_loss(es, et), layer_loss(et, es))
    assert layer_loss(es, et) > 0


@settings(max_examples=25, deadline=None)
@given(st.floats(1.0, 1e4))
def test_scale_counts_for_distances_and_not_for_angles(scale):
    torch.testing.assert_close(cosine(scale * es), cosine(es), rtol=1e-3, atol=2e-6)  # 1e-6 is added to each norm
    if abs(scale - 1) > 0.1:
        assert (t_student(scale * es) - t_student(es)).abs().max() > 1e-3


def test_distances():
    distances = (es[:, None] - es[None, :]).square().sum(2)
    torch.testing.assert_close(t_student(es), 1 / (1 + (distances + 1e-6).sqrt()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opposite_rows_and_equal_rows_stay_finite(dtype):
    opposite = leaf(torch.cat([es[:1], -es[:1], es[:1], torch.zeros_like(es[:1])]).to(dtype))
    value = flow(opposite, et.to(dtype))
    value.backward()
    assert value.isfinite()
    assert opposite.grad.isfinite().all()


@pytest.mark.parametrize("options", [{"decay": 1.5}, {"initial_weight": -1.0}, {"layers": "first"}])
def test_impossible_options(options):
    with pytest.raises(UserError, match="information-flow: "):
        kdeploy.methods.create("information-flow", **options)
