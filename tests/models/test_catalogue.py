"""The catalogue: found without torch, checked by name, built from a recipe's part."""

import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from kdeploy import models
from kdeploy.errors import UserError
from kdeploy.recipe.schema import NetworkSpec


def test_names_need_no_torch():
    code = """
        import sys
        from kdeploy import models
        models.check("resnet8")
        assert models.describe("vgg8").family == "vgg_cifar" and len(models.names()) >= 20
        assert "torch" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_the_issue_s_networks_are_there():
    wanted = {f"resnet{depth}" for depth in (8, 14, 20, 32, 44, 56, 110, 50)}
    wanted |= {"resnet8x4", "resnet32x4", "wrn_16_2", "wrn_40_1", "wrn_40_2", "vgg8", "vgg13", "mobilenetv2"}
    wanted |= {"shufflenetv1", "shufflenetv2", "mlperf_tiny_resnet8", "mlperf_tiny_resnet8_40"}
    assert wanted <= set(models.names())


@pytest.mark.parametrize("name", models.names())
def test_each_network_says_where_it_comes_from(name: str):
    info = models.describe(name)
    assert info.name == name
    assert "https://" in info.paper
    assert info.about.endswith(".")
    assert info.parameters


def test_a_network_says_what_its_options_are():
    assert models.describe("resnet56").options == ("shortcut", "stem_width")
    assert models.describe("vgg8").options == ()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18", "resnet"),
        ("tensorflow:resnet", "no kind of network 'tensorflow'"),
        ("torchvision:resnet19", "Did you mean 'resnet1"),
        ("python:no_such_module:net", "no module 'no_such_module'"),
        ("python:torch.nn:NoSuchThing", "no 'NoSuchThing'"),
    ],
)
def test_an_unknown_name_is_told_the_nearest(name: str, message: str):
    with pytest.raises(UserError, match=message):
        models.check(name)


def test_describe_refuses_an_unknown_name():
    with pytest.raises(UserError, match="Did you mean 'resnet20'"):
        models.describe("resnet200")


def test_an_unknown_option_names_the_known_one():
    with pytest.raises(UserError, match=r"resnet8 has no option 'shortcuts'\. Did you mean 'shortcut'"):
        models.create(NetworkSpec(model="resnet8", options={"shortcuts": "A"}), classes=10)
    with pytest.raises(UserError, match=r"vgg8 has no option 'depth'\. It has none"):
        models.create(NetworkSpec(model="vgg8", options={"depth": 1}), classes=10)
    with pytest.raises(UserError, match="no shortcut 'B'"):
        models.create(NetworkSpec(model="resnet8", options={"shortcut": "B"}), classes=10)


def test_width_belongs_to_the_zoo():
    with pytest.raises(UserError, match=r"width cannot be 0\.5"):
        models.create(NetworkSpec(model="torchvision:resnet18", width=0.5), classes=10)


def factory(classes: int, channels: int, hidden: int = 4) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(hidden, classes)
    )


def not_a_network(classes: int, channels: int) -> str:
    return "a string"


def of_classes_alone(classes: int) -> torch.nn.Module:
    return torch.nn.Linear(1, classes)


def test_a_python_factory_gets_classes_channels_and_options():
    spec = NetworkSpec(model=f"python:{__name__}:factory", options={"hidden": 6})
    network = models.create(spec, classes=7, channels=1)
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 7)
    assert network[0].out_channels == 6
    with pytest.raises(UserError, match=r"no option 'hiden'\. Did you mean 'hidden'"):
        models.create(NetworkSpec(model=spec.model, options={"hiden": 6}), classes=7)
    with pytest.raises(UserError, match="must take channels as a keyword"):
        models.create(NetworkSpec(model=f"python:{__name__}:of_classes_alone"), classes=7)
    with pytest.raises(UserError, match="returned a str"):
        models.create(NetworkSpec(model=f"python:{__name__}:not_a_network"), classes=7)
