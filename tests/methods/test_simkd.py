import pytest
import torch
import torch.nn.functional as F
from torch import nn

import kdeploy.methods
from kdeploy.errors import UserError
from kdeploy.methods import Outputs, Shapes
from kdeploy.models import create
from kdeploy.models.taps import Taps
from kdeploy.recipe.schema import NetworkSpec
from tests.methods.golden import Fs, Fs8, Ft, Ft3, Ft8, S, T, assert_golden, y, zs, zt


def simkd(student=Fs, teacher=Ft3):
    return kdeploy.methods.create("simkd")(Outputs(zs, [student]), Outputs(zt, [teacher]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_golden(dtype):
    assert_golden(simkd(Fs.to(dtype), Ft3.to(dtype)), 0.9529174660441)
    assert_golden(simkd(Fs8.to(dtype), Ft3.to(dtype)), 0.5069430932624)
    assert_golden(simkd(Fs.to(dtype), Ft8.to(dtype)), 0.6704209730151)


def test_stands_alone():
    method = kdeploy.methods.create("simkd")
    assert (method.default_weight, method.default_cross_entropy) == (1.0, 0.0)


class Maps(nn.Module):
    """A network whose only stage is what it is given."""

    def __init__(self):
        super().__init__()
        self.stage = nn.Identity()
        self.fc = nn.Linear(3, 5, dtype=torch.float64)

    def forward(self, x):
        return self.fc(self.stage(x).mean((2, 3)))


def test_golden_of_the_reused_classifier():
    classifier = nn.Linear(3, 5, dtype=torch.float64)
    with torch.no_grad():
        classifier.weight.copy_(S(5, 3))
        classifier.bias.copy_(T(5))
    deployed = kdeploy.methods.create("simkd").deployed(Maps(), "stage", classifier)
    assert_golden(F.cross_entropy(deployed(Fs), y), 1.621694798527)


def test_teachers_own_features_give_the_teachers_own_logits():
    torch.manual_seed(0)
    teacher = create(NetworkSpec(model="resnet8"), classes=10).eval()
    images = torch.rand(4, 3, 32, 32)
    deployed = kdeploy.methods.create("simkd").deployed(teacher, "layer3", teacher.fc)
    torch.testing.assert_close(deployed(images), teacher(images))
    assert not any(parameter.requires_grad for parameter in teacher.fc.parameters())


def pair(teacher_size=8):
    torch.manual_seed(0)
    student = create(NetworkSpec(model="resnet8"), classes=10)
    classifier = nn.Linear(12, 10)
    method = kdeploy.methods.create("simkd")
    method.build(Shapes(10, [(64, 8, 8)], 64), Shapes(10, [(12, teacher_size, teacher_size)], 12))
    return student, classifier, method


def test_projector_is_trained_and_the_students_classifier_is_not():
    student, _, method = pair()
    with Taps(student, ["layer3"]) as taps:
        logits = student(torch.rand(2, 3, 32, 32))
        method(Outputs(logits, taps.features), Outputs(torch.zeros(2, 10), [torch.rand(2, 12, 8, 8)])).backward()
    assert student.fc.weight.grad is None
    assert student.conv1.weight.grad.abs().max() > 0
    assert all(parameter.grad is not None for parameter in method.parameters())
    convolutions = [layer for layer in method.projector.modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [6, 6, 12]
    assert all(layer.bias is None for layer in convolutions)


def test_deployed_shares_its_weights_and_holds_the_projector():
    student, classifier, method = pair()
    deployed = method.deployed(student, "layer3", classifier)
    held = {id(parameter) for parameter in deployed.parameters()}
    for part in (student, method, classifier):
        assert {id(parameter) for parameter in part.parameters()} <= held
    assert any(key.startswith("projector.") for key in deployed.state_dict())


@pytest.mark.slow
def test_deployed_is_exported_without_what_it_does_not_use():
    student, classifier, method = pair(teacher_size=4)
    deployed = method.deployed(student, "layer3", classifier).eval()
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(torch.export.export(deployed, (images,)).module()(images), deployed(images))
    graph = torch.onnx.export(deployed, (images,), dynamo=True, verbose=False).model_proto.graph
    weights = [weight.name for weight in graph.initializer]
    assert sum(node.op_type == "Gemm" for node in graph.node) == 1
    assert "classifier.weight" in weights
    assert not any("fc" in name for name in weights)
    assert not student._forward_hooks
    assert not student.layer3._forward_hooks


def test_deployed_pools_as_in_training():
    student, classifier, method = pair(teacher_size=4)
    method.eval()
    images = torch.rand(2, 3, 32, 32)
    deployed = method.deployed(student, "layer3", classifier).eval()
    with torch.no_grad(), Taps(student, ["layer3"]) as taps:
        student(images)
        projected = method.projector(F.avg_pool2d(taps.features[0], 2))
        torch.testing.assert_close(deployed(images), classifier(projected.mean((2, 3))))


def test_errors():
    with pytest.raises(UserError, match=r"\[3, 4, 4\].*\[6, 4, 4\].*take at"):
        simkd(Fs, Ft)
    with pytest.raises(UserError, match="takes 8 values, on its map of 6 channels"):
        kdeploy.methods.create("simkd").build(Shapes(5, [(3, 4, 4)], 3), Shapes(5, [(6, 4, 4)], 8))
    with pytest.raises(UserError, match="simkd: reduction"):
        kdeploy.methods.create("simkd", reduction=0)
    with pytest.raises(UserError, match="name taps"):
        kdeploy.methods.create("simkd").build(Shapes(5), Shapes(5))
