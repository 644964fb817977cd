import pytest
import torch

import kdeploy.methods
from kdeploy.errors import UserError
from kdeploy.methods import Outputs, Shapes
from tests.methods.expectations import Expectations, build
from tests.methods.golden import Fs, Fs8, Ft, Ft3, assert_golden, leaf, zs, zt

FORMS = ["code", "repdistiller", "paper"]
EXPECTED = [Expectations(options={"form": form}) for form in FORMS]


def transfer(student=Fs, teacher=Ft3, **options):
    method = kdeploy.methods.create("factor-transfer", **options)
    return method(Outputs(zs, [student]), Outputs(zt, [teacher]))


def built(channels=(16, 64), **options):
    method = kdeploy.methods.create("factor-transfer", **options)
    method.build(Shapes(5, [(channels[0], 4, 4)]), Shapes(5, [(channels[1], 4, 4)]))
    return method.double()


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("form", "value"), [("code", 0.1602885402), ("repdistiller", 0.1347718312), ("paper", 7.693849931783)]
)
def test_golden(form, value, dtype):
    assert_golden(transfer(Fs.to(dtype), Ft3.to(dtype), form=form), value)


def test_weights_and_phases_of_the_forms():
    methods = [kdeploy.methods.create("factor-transfer", form=form) for form in FORMS]
    assert [method.default_weight for method in methods] == [500, 200, 1]
    assert [(phase.epochs, phase.lr, phase.student) for method in methods for phase in method.phases()] == [
        (6, 0.1, False),
        (30, 0.01, False),
        (6, 0.1, False),
    ]


def test_paraphraser_of_resnet56():
    """C = 64, k = 0.5: 64-64-32-32 and back, 3x3 with bias."""
    method = built()
    convolutions = [(64, 64), (64, 32), (32, 32)]
    assert count(method.encoder) == sum(9 * inputs * outputs + outputs for inputs, outputs in convolutions)
    assert count(method.decoder) == sum(9 * inputs * outputs + inputs for inputs, outputs in convolutions)
    assert count(method.translator) == sum(9 * i * o + o for i, o in [(16, 16), (16, 32), (32, 32)])


def test_only_the_tables_translator_has_batch_norm():
    for form in FORMS:
        norms = [name for name, part in built(form=form).named_modules() if isinstance(part, torch.nn.BatchNorm2d)]
        assert [name.partition(".")[0] for name in norms] == (["translator"] * 3 if form == "repdistiller" else [])


def test_paraphraser_learns_to_rebuild():
    torch.manual_seed(0)
    method = built((3, 6), rate=0.9)
    (phase,) = method.phases()
    teacher = Outputs(zt, [leaf(Ft)])
    optimizer = torch.optim.Adam(method.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        loss = method.phase_loss(phase, teacher)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert teacher.features[0].grad is None


def test_only_form_code_rebuilds_by_absolute_error():
    doubled = Outputs(zt, [2 * Ft])
    for form, factor in (("code", 2.0), ("repdistiller", 4.0), ("paper", 4.0)):
        method = kdeploy.methods.create("factor-transfer", form=form)
        method.decoder = torch.nn.Threshold(1e9, 0.0)  # rebuilds nothing but zeros
        losses = [method.phase_loss(method.phases()[0], outputs) for outputs in (Outputs(zt, [Ft]), doubled)]
        torch.testing.assert_close(losses[1] / losses[0], torch.tensor(factor, dtype=torch.float64))


def test_paraphraser_is_frozen_afterwards():
    method = kdeploy.methods.create("factor-transfer")
    build(method)
    trained = {name.partition(".")[0] for name, parameter in method.named_parameters() if parameter.requires_grad}
    assert trained == {"translator"}


@pytest.mark.parametrize("form", FORMS)
def test_scale_of_a_factor_does_not_count(form):
    torch.testing.assert_close(transfer(3 * Fs, 0.2 * Ft3, form=form), transfer(form=form), rtol=1e-10, atol=0)


def test_last_stage_alone_counts():
    method = kdeploy.methods.create("factor-transfer")
    assert method(Outputs(zs, [Fs8, Fs]), Outputs(zt, [Ft3])) == transfer()


def test_larger_factor_is_pooled():
    pooled = Fs8.unflatten(2, (4, 2)).unflatten(4, (4, 2)).mean((3, 5))
    torch.testing.assert_close(transfer(Fs8), transfer(pooled), rtol=1e-12, atol=0)


@pytest.mark.parametrize("options", [{"form": "ft"}, {"rate": 0.0}, {"paraphraser_epochs": 0}])
def test_impossible_options(options):
    with pytest.raises(UserError, match="factor-transfer: "):
        kdeploy.methods.create("factor-transfer", **options)


def test_errors_name_shapes():
    with pytest.raises(UserError, match=r"\[3, 4, 4\].*\[6, 4, 4\]"):
        transfer(Fs, Ft)
    with pytest.raises(UserError, match="leaves none of the teacher's 1 channels"):
        built((3, 1))
    with pytest.raises(UserError, match="name taps"):
        kdeploy.methods.create("factor-transfer").build(Shapes(5), Shapes(5))
