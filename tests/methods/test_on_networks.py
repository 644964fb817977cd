"""Every method takes a step on real networks, with nothing but what its `needs` ask for, as a loop prepares it."""

import pytest
import torch

import kdeploy.methods
from kdeploy import models
from kdeploy.methods import Context, Outputs, Shapes
from kdeploy.models.taps import Taps, find_classifier, find_taps, pair_taps
from kdeploy.recipe.schema import NetworkSpec

IMAGE = (3, 16, 16)


def network(name):
    torch.manual_seed(0)
    return models.create(NetworkSpec(model=name), classes=10)


def outputs(made, taps, classifier, images, needs, relu):
    with Taps(made, [tap.path for tap in taps], classifier=classifier.path, relu=relu) as tapped:
        logits = made(images)
        features = tapped.features if needs.features == "all" else tapped.features[-1:] if needs.features else []
        return Outputs(logits, features, tapped.embedding if needs.embedding else None)


@pytest.mark.parametrize(
    "pair", [("resnet8", "wrn_16_2"), pytest.param(("mobilenetv2", "vgg8"), marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", kdeploy.methods.names())
def test_one_step(name, pair):
    student, teacher = (network(each) for each in pair)
    teacher.eval()
    taps = pair_taps(find_taps(student, IMAGE), find_taps(teacher, IMAGE))
    classifiers = [find_classifier(each, IMAGE) for each in (student, teacher)]
    shapes = [Shapes(10, [tap.shape for tap in t], c.shape[0]) for t, c in zip(taps, classifiers, strict=True)]
    method = kdeploy.methods.create(name)
    method.build(*shapes)
    needs = method.needs
    if needs.training_labels:
        method.prepare(torch.arange(100) % 10)
    for phase in method.phases():
        method.end_phase(phase)
    images = torch.rand(8, *IMAGE)
    with torch.no_grad():
        theirs = outputs(teacher, taps[1], classifiers[1], images, needs, needs.teacher_relu)
    ours = outputs(student, taps[0], classifiers[0], images, needs, needs.student_relu)
    context = Context(torch.arange(8) if needs.index else None, epoch=5, step=40, epochs=10)
    method(ours, theirs, torch.arange(8) if needs.labels else None, context).backward()
    stem = next(student.parameters())
    assert stem.grad.isfinite().all()
    assert stem.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())
    if needs.teacher_classifier:
        deployed = method.deployed(student, taps[0][-1].path, teacher.get_submodule(classifiers[1].path))
        assert deployed.eval()(images).shape == (8, 10)
