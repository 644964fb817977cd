"""How a network goes on behind a stage: layers of its own kind, with weights of their own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kdeploy import models
from kdeploy.models.stages import Stemmed, onward, share_stem
from kdeploy.models.taps import find_taps
from kdeploy.recipe.schema import NetworkSpec

IMAGE = (3, 32, 32)


def made(name: str, width: float = 0.25, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return models.create(NetworkSpec(model=name, width=width, options=options), classes=10)


def shapes(module: nn.Module) -> list[torch.Size]:
    return [parameter.shape for parameter in module.parameters()]


@pytest.mark.parametrize(
    "name", ["resnet8", "resnet20", "resnet8x4", "resnet50", "wrn_16_2", "wrn_40_1", "vgg8", "vgg13"]
)
def test_every_stage_leads_to_a_map_like_the_last(name: str) -> None:
    network = made(name)
    taps = find_taps(network, IMAGE)
    layers = [make() for make in onward(network, [tap.path for tap in taps])]
    assert len(layers) == len(taps) >= 3
    assert {tuple(each(torch.rand(2, *tap.shape)).shape[1:]) for each, tap in zip(layers, taps, strict=True)} == {
        taps[-1].shape
    }
    own = {parameter.data_ptr() for parameter in network.parameters()}
    assert not own & {parameter.data_ptr() for each in layers for parameter in each.parameters()}


@pytest.mark.parametrize(
    ("name", "later"),
    [
        ("resnet20", ["layer2", "layer3"]),
        ("wrn_16_2", ["layer2", "layer3", "bn"]),
        ("vgg13", ["layer2", "layer3", "layer4", "layer5"]),
    ],
)
def test_they_are_the_later_stages_again(name: str, later: list[str]) -> None:
    network = made(name)
    again = onward(network, ["layer1"])[0]()
    assert shapes(again) == [shape for stage in later for shape in shapes(network.get_submodule(stage))]
    theirs = [p for stage in later for p in network.get_submodule(stage).parameters()]
    assert not all(torch.equal(a, b) for a, b in zip(again.parameters(), theirs, strict=True))


def test_behind_the_last_stage_there_is_one_more_of_its_width_with_stride_1() -> None:
    (make,) = onward(made("resnet20"), ["layer3"])
    more = make()
    assert [module.stride for module in more.modules() if isinstance(module, nn.Conv2d)] == [(1, 1)] * 6
    assert {module.out_channels for module in more.modules() if isinstance(module, nn.Conv2d)} == {16}


def test_each_call_draws_new_weights() -> None:
    (make,) = onward(made("resnet8"), ["layer2"])
    assert not torch.equal(next(make().parameters()), next(make().parameters()))


def test_networks_and_taps_that_offer_none() -> None:
    assert onward(made("mobilenetv2"), ["layer1"]) == ()
    assert onward(made("resnet8"), ["layer1.0"]) == ()


@pytest.mark.parametrize("name", ["resnet8", "resnet8x4", "resnet50"])
def test_a_network_is_its_stem_and_its_body(name: str) -> None:
    network = made(name).eval()
    assert isinstance(network, Stemmed)
    images = torch.rand(2, *IMAGE)
    features = images
    for path in network.stem_modules:
        features = network.get_submodule(path)(features)
    assert torch.equal(network.body(features), network(images))


def test_networks_of_other_widths_share_a_stem_and_stay_whole() -> None:
    wide, narrow = made("resnet8", 0.5), made("resnet8", 0.25, stem_width=0.5)
    own = [path for path, _ in narrow.named_parameters()]
    share_stem(wide, [narrow])
    assert narrow.conv1 is wide.conv1
    assert narrow.bn1 is wide.bn1
    assert narrow.layer1 is not wide.layer1
    assert [path for path, _ in narrow.named_parameters()] == own
    assert narrow.eval()(torch.rand(2, *IMAGE)).isfinite().all()


def test_a_network_without_a_stem_shares_none() -> None:
    assert not isinstance(made("vgg8"), Stemmed)
    with pytest.raises(TypeError, match="VGG and ResNet have no stem to share"):
        share_stem(made("vgg8"), [made("resnet8")])
