"""Every network of the zoo, found by itself: shapes, published counts, width, seeds."""

import pytest
import torch
from torch import nn

from kdeploy import models
from kdeploy.errors import UserError
from kdeploy.models.counting import count
from kdeploy.recipe.schema import NetworkSpec

# Millions of parameters at 100 classes in the tables of "Contrastive Representation Distillation" and its followers.
PUBLISHED_MILLIONS = {
    "resnet8": 0.08,
    "resnet14": 0.18,
    "resnet20": 0.28,
    "resnet32": 0.47,
    "resnet44": 0.67,
    "resnet56": 0.86,
    "resnet110": 1.74,
    "resnet8x4": 1.23,
    "resnet32x4": 7.43,
    "resnet50": 23.71,
    "wrn_16_2": 0.70,
    "wrn_40_1": 0.57,
    "wrn_40_2": 2.26,
    "vgg8": 3.97,
    "vgg13": 9.46,
    "mobilenetv2": 0.81,
    "shufflenetv1": 0.95,
    "shufflenetv2": 1.36,
}
# Parameters at 10 classes with option-A shortcuts, as akamaster/pytorch_resnet_cifar10 counts them.
OPTION_A = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962}
ONLY_32 = ("cnn1", "cnn1_a")
"""Networks without padding, whose first linear layer fits images of 32x32."""


def build(name: str, classes: int = 10, channels: int = 3, width: float = 1.0, **options: object) -> nn.Module:
    return models.create(NetworkSpec(model=name, width=width, options=options), classes=classes, channels=channels)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", models.names())
def test_logits_have_the_asked_shape(name: str):
    torch.manual_seed(0)
    small = [] if name in ONLY_32 else [(10, 1, (8, 8)), (10, 3, (9, 13))]
    for classes, channels, size in [(100, 3, (32, 32)), *small]:
        network = build(name, classes, channels, 0.5)
        logits = network(torch.rand(2, channels, *size))
        assert logits.shape == (2, classes)
        assert logits.isfinite().all()
        assert logits.std() > 0


@pytest.mark.parametrize("name", models.names())
def test_counts_are_those_of_the_catalogue(name: str):
    with torch.device("meta"):
        for (classes, channels), expected in models.describe(name).parameters.items():
            assert parameters(build(name, classes, channels)) == expected


@pytest.mark.parametrize("name", PUBLISHED_MILLIONS)
def test_counts_are_the_published_ones(name: str):
    count_at_100 = models.describe(name).parameters[100, 3]
    assert round(count_at_100 / 1e6, 2) == PUBLISHED_MILLIONS[name]


@pytest.mark.parametrize("depth", OPTION_A)
def test_option_a_has_no_parameters_of_its_own(depth: int):
    assert parameters(build(f"resnet{depth}", shortcut="A")) == OPTION_A[depth]


@pytest.mark.parametrize(
    ("name", "folded", "macs"),
    [("mlperf_tiny_resnet8", 77_706, 12_501_632), ("mlperf_tiny_resnet8_40", 480_330, 76_473_920)],
)
def test_mlperf_tiny_s_own_figures(name: str, folded: int, macs: int):
    network = build(name)
    norms = sum(2 * module.num_features for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    counts = count(network, (3, 32, 32))
    assert counts.parameters - norms == folded
    assert counts.macs == macs


@pytest.mark.parametrize(
    ("name", "maps", "hidden"), [("cnn1", (8, 16, 32), (128, 64)), ("cnn1_a", (16, 32, 64), (256, 128))]
)
def test_cnn1_has_the_layers_of_its_paper(name: str, maps: tuple[int, ...], hidden: tuple[int, int]):
    network = build(name)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert [module.out_channels for module in convolutions] == list(maps)
    assert {(module.kernel_size, module.padding) for module in convolutions} == {((3, 3), (0, 0))}
    assert [(m.in_features, m.out_features) for m in network.modules() if isinstance(m, nn.Linear)] == [
        hidden,
        (hidden[1], 10),
    ]
    with pytest.raises(UserError, match=r"images of 32x32, not 28x28: set data\.size to 32"):
        network(torch.rand(2, 3, 28, 28))


def test_cnn1_a_is_cnn1_at_twice_its_width():
    assert parameters(build("cnn1_a", width=0.5)) == parameters(build("cnn1"))


@pytest.mark.parametrize("name", models.names())
def test_width_scales_every_convolution(name: str):
    with torch.device("meta"):
        whole, half = build(name), build(name, width=0.5)
    pairs = zip(whole.modules(), half.modules(), strict=True)
    ratios = [
        narrow.out_channels / wide.out_channels
        for wide, narrow in pairs
        if isinstance(wide, nn.Conv2d) and isinstance(narrow, nn.Conv2d)
    ]
    assert ratios
    assert all(0.4 <= ratio <= 0.6 for ratio in ratios)


@pytest.mark.parametrize("name", models.names())
def test_the_smallest_width_still_works_or_says_why(name: str):
    try:
        network = build(name, width=0.01)
    except UserError as error:
        assert "width" in str(error)  # noqa: PT017
    else:
        side = 32 if name in ONLY_32 else 8
        assert network.eval()(torch.rand(1, 3, side, side)).isfinite().all()


@pytest.mark.parametrize("name", models.names())
def test_a_seed_decides_the_weights(name: str):
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        states.append(build(name, width=0.25).state_dict())
    first, again, other = states
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


@pytest.mark.parametrize("name", models.names())
def test_each_stage_can_be_tapped_by_name(name: str):
    """Hooks on layer1, layer2, … see maps that shrink, and ReLUs in place do not change what they kept."""
    network = build(name, width=0.25).eval()
    stages = [stage for stage, _ in network.named_children() if stage.startswith("layer")]
    kept, copies = [], []

    def tap(module: nn.Module, given: object, made: torch.Tensor) -> None:
        kept.append(made)
        copies.append(made.clone())

    for stage in stages:
        network.get_submodule(stage).register_forward_hook(tap)
    network(torch.rand(1, 3, 32, 32))
    heights = [feature.shape[2] for feature in kept]
    assert len(kept) == len(stages) >= 3
    assert heights == sorted(heights, reverse=True)
    assert all(torch.equal(feature, copy) for feature, copy in zip(kept, copies, strict=True))


@pytest.mark.parametrize(("name", "stem"), [("resnet8", 16), ("resnet8x4", 32)])
def test_a_stem_can_keep_its_width(name: str, stem: int):
    with torch.device("meta"):
        network = build(name, width=0.25, stem_width=1.0)
        whole = build(name, stem_width=1.0)
    assert (network.conv1.out_channels, network.bn1.num_features) == (stem, stem)
    assert network.layer1[0].conv1.out_channels * 4 == whole.layer1[0].conv1.out_channels
    assert parameters(whole) == parameters(build(name))
    assert build(name, width=0.25, stem_width=1.0)(torch.rand(2, 3, 8, 8)).isfinite().all()


def test_a_stem_is_not_made_of_nothing_and_shortcut_a_takes_no_channels_away():
    with pytest.raises(UserError, match="stem_width must be above 0, and it is -1"):
        build("resnet8", stem_width=-1.0)
    with pytest.raises(UserError, match="behind a wider stem, take projection"):
        build("resnet8", width=0.5, stem_width=1.0, shortcut="A")
    assert build("resnet8", stem_width=0.5, shortcut="A").conv1.out_channels == 8


def test_shortcut_a_pads_both_sides_with_zeros():
    from kdeploy.models.zoo.resnet_cifar import ZeroPadShortcut

    x = torch.arange(1.0, 33.0).reshape(1, 2, 4, 4)
    y = ZeroPadShortcut(2, 4, 2)(x)
    assert y[0, :, 0, 0].tolist() == [0, 1, 17, 0]
    assert y[0, 1].tolist() == [[1, 3], [9, 11]]


def test_shuffle_deals_the_groups_out():
    from kdeploy.models.layers import shuffle

    x = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert shuffle(x, 3).flatten().tolist() == [0, 2, 4, 1, 3, 5]
