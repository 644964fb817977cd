import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdeploy import models
from kdeploy.errors import UserError
from kdeploy.models.classifier import Classifier
from kdeploy.models.taps import Tap, Taps, find_classifier, find_taps, name_taps, pair_taps
from kdeploy.recipe.schema import NetworkSpec
from kdeploy.torchvision_compat import import_torchvision

SHAPE = (3, 32, 32)
LAYERS = ("layer1", "layer2", "layer3")


def network(name, **options):
    torch.manual_seed(0)
    return models.create(NetworkSpec(model=name, **options), classes=10).eval()


def _resnet(*channels, first=32):
    return [(f"layer{k}", (planes, first >> (k - 1), first >> (k - 1))) for k, planes in enumerate(channels, 1)]


STAGES = {
    **{name: _resnet(16, 32, 64) for name in ("resnet8", "resnet14", "resnet20", "resnet32", "resnet44", "resnet56")},
    **{name: _resnet(16, 32, 64) for name in ("resnet110", "mlperf_tiny_resnet8", "wrn_40_1")},
    **{name: _resnet(32, 64, 128) for name in ("wrn_16_2", "wrn_40_2")},
    **{name: _resnet(64, 128, 256) for name in ("resnet8x4", "resnet32x4")},
    "mlperf_tiny_resnet8_40": _resnet(40, 80, 160),
    "resnet50": _resnet(256, 512, 1024, 2048),
    "mobilenetv2": [("layer1", (12, 16, 16)), ("layer2", (16, 8, 8)), ("layer3", (48, 4, 4)), ("head", (1280, 2, 2))],
    "shufflenetv1": _resnet(240, 480, 960, first=16),
    "shufflenetv2": [("layer1", (116, 16, 16)), ("layer2", (232, 8, 8)), ("head", (1024, 4, 4))],
    "vgg8": [("layer2", (128, 16, 16)), ("layer3", (256, 8, 8)), ("layer5", (512, 4, 4))],
    "vgg13": [("layer1", (64, 32, 32)), ("layer2", (128, 16, 16)), ("layer3", (256, 8, 8)), ("layer5", (512, 4, 4))],
}


@pytest.mark.parametrize("name", models.names())
def test_stages_of_the_zoo(name):
    made = network(name)
    taps = find_taps(made, SHAPE)
    if name in STAGES:
        assert taps == [Tap(*stage) for stage in STAGES[name]]
    assert len(taps) >= (2 if name.startswith("cnn1") else 3)
    assert [tap.shape[1] for tap in taps] == sorted({tap.shape[1] for tap in taps}, reverse=True)
    classifier = find_classifier(made, SHAPE)
    assert classifier == Tap("fc", (made.fc.in_features,))
    with torch.no_grad(), Taps(made, [tap.path for tap in taps], classifier=classifier.path) as tapped:
        logits = made(torch.rand(2, *SHAPE))
        assert [tuple(each.shape[1:]) for each in tapped.features] == [tap.shape for tap in taps]
        assert tapped.embedding.shape == (2, *classifier.shape)
        torch.testing.assert_close(made.fc(tapped.embedding), logits)
        if name.startswith(("wrn", "cnn1")):
            return  # a norm, or a hidden layer, lies between its last stage and its embedding
        torch.testing.assert_close(tapped.features[-1].mean((2, 3)), tapped.embedding)


def test_stages_of_torchvisions_resnet18():
    made = import_torchvision().models.resnet18(weights=None, num_classes=7)
    sizes = [(64, 56), (128, 28), (256, 14), (512, 7)]
    expected = [Tap(f"layer{k}", (planes, side, side)) for k, (planes, side) in enumerate(sizes, 1)]
    assert find_taps(made, (3, 224, 224)) == expected
    assert find_classifier(made, (3, 224, 224)) == Tap("fc", (512,))
    assert made.training


def test_stages_of_nested_containers():
    """Inverted residuals, squeeze-and-excitation, and all stages in one Sequential."""
    made = import_torchvision().models.mobilenet_v3_small(weights=None)
    paths = ["features.1", "features.3", "features.8", "features.12"]
    sides = [56, 28, 14, 7]
    found = find_taps(made, (3, 224, 224))
    assert [tap.path for tap in found] == paths
    assert [tap.shape[1] for tap in found] == sides
    assert find_classifier(made, (3, 224, 224)) == Tap("classifier.3", (1024,))


def test_wrapped_network_and_images_that_are_not_square():
    made = Classifier(network("resnet8"), (0.5,) * 3, (0.25,) * 3)
    expected = [Tap(f"network.layer{k + 1}", (16 << k, 32 >> k, 48 >> k)) for k in range(3)]
    assert find_taps(made, (3, 32, 48)) == expected


def test_plain_sequence_ends_its_stages_at_the_activation():
    made = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24, 3),
    )  # fmt: skip
    assert find_taps(made, (1, 8, 8)) == [Tap("4", (4, 8, 8)), Tap("7", (6, 4, 4))]
    assert find_classifier(made, (1, 8, 8)) == Tap("10", (24,))


def test_networks_without_stages_or_classifier():
    with pytest.raises(UserError, match="name its taps yourself"):
        find_taps(nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), (3, 4, 4))
    with pytest.raises(UserError, match="no linear layer"):
        find_classifier(nn.Conv2d(3, 4, 3), (3, 8, 8))


def test_finding_leaves_the_network_as_it_was():
    made = network("resnet8").train()
    before = {key: value.clone() for key, value in made.state_dict().items()}
    find_taps(made, SHAPE)
    assert made.training
    assert all(torch.equal(before[key], value) for key, value in made.state_dict().items())
    assert hooks(made) == 0


def hooks(made):
    return sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in made.modules())


def test_deepest_stages_are_paired():
    student, teacher = (find_taps(network(name), SHAPE) for name in ("vgg8", "vgg13"))
    ours, theirs = pair_taps(student, teacher)
    assert [tap.shape for tap in ours] == [tap.shape for tap in theirs] == [tap.shape for tap in student]
    assert pair_taps(teacher, student) == (theirs, ours)
    assert pair_taps([], student) == ([], [])


def test_taps_by_name_have_the_shapes_that_an_image_has_there():
    taps = name_taps(network("vgg8"), ["layer4", "layer5"], SHAPE)
    assert taps == [Tap("layer4", (512, 4, 4)), Tap("layer5", (512, 4, 4))]


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("layer6", "There is no module 'layer6' to tap in VGG. Did you mean 'layer5'?"),
        ("fc", "The module fc of VGG gives [B, 10], not a map [B, C, H, W]."),
        ("idle", "No image goes through idle of VGG, so it cannot be tapped."),
    ],
)
def test_what_cannot_be_a_stage_is_refused_by_name(path, sentence):
    made = network("vgg8")
    made.idle = nn.Conv2d(3, 3, 1)
    with pytest.raises(UserError) as caught:
        name_taps(made, ["layer3", path], SHAPE)
    assert str(caught.value) == sentence


def test_hooks_are_closed_even_after_an_error():
    made = network("resnet8")
    taps = Taps(made, LAYERS, classifier="fc", relu="before")
    with pytest.raises(RuntimeError), taps:
        made(torch.rand(1, 5, 32, 32))
    assert hooks(made) == 0
    assert not torch.overrides._get_current_function_mode_stack()
    with pytest.raises(LookupError):
        assert taps.features


def test_each_pass_replaces_the_one_before():
    made = network("resnet8")
    first, second = torch.rand(2, 2, *SHAPE)
    with torch.no_grad(), Taps(made, ["layer2"]) as taps:
        with pytest.raises(LookupError, match="layer2"):
            assert taps.features
        made(first)
        of_first = taps.features[0]
        made(second)
        assert not torch.equal(taps.features[0], of_first)
        made(first)
        assert torch.equal(taps.features[0], of_first)


def test_gradient_flows_through_the_tap():
    made = network("resnet8")
    with Taps(made, ["layer1"]) as taps:
        made(torch.rand(1, *SHAPE))
        taps.features[0].square().sum().backward()
    assert made.conv1.weight.grad.abs().max() > 0
    assert made.layer2[0].conv1.weight.grad is None


@pytest.mark.parametrize("name", ["resnet8", "resnet8x4", "shufflenetv1"])
def test_before_the_relu_of_residual_blocks(name):
    """The ReLU is a function inside the block, which no hook sees."""
    made, images = network(name), torch.rand(2, *SHAPE)
    with torch.no_grad(), Taps(made, LAYERS) as as_is, Taps(made, LAYERS, relu="before") as before:
        plain = made(images)
        for after, raw in zip(as_is.features, before.features, strict=True):
            assert raw.min() < 0
            torch.testing.assert_close(F.relu(raw), after, rtol=0, atol=0)
    with torch.no_grad():
        assert torch.equal(made(images), plain)


def test_before_a_relu_in_place():
    made, images = import_torchvision().models.resnet18(weights=None).eval(), torch.rand(1, 3, 64, 64)
    paths = ["layer1", "layer4"]
    with Taps(made, paths) as as_is, Taps(made, paths, relu="before") as before:
        made(images)
        for after, raw in zip(as_is.features, before.features, strict=True):
            assert raw.min() < 0
            torch.testing.assert_close(F.relu(raw), after, rtol=0, atol=0)
        before.features[1].sum().backward()
    assert made.conv1.weight.grad.abs().max() > 0


def test_networks_that_norm_and_activate_first():
    """A wide ResNet's stages are sums; the norm and the ReLU belong to the next stage, or to the end."""
    made, images = network("wrn_16_2"), torch.rand(2, *SHAPE)
    with torch.no_grad(), Taps(made, LAYERS) as as_is:
        made(images)
        sums = as_is.features
        norms = [made.layer2[0].bn1(sums[0]), made.layer3[0].bn1(sums[1]), made.bn(sums[2])]
    with torch.no_grad(), Taps(made, LAYERS, relu="before") as before, Taps(made, LAYERS, relu="after") as after:
        logits = made(images)
        for norm, raw, activated in zip(norms, before.features, after.features, strict=True):
            assert torch.equal(raw, norm)
            assert torch.equal(activated, F.relu(norm))
        torch.testing.assert_close(made.fc(after.features[2].mean((2, 3))), logits)


def test_without_an_activation_the_output_stands_for_itself():
    made, images = network("mobilenetv2"), torch.rand(1, *SHAPE)  # its stages end in linear bottlenecks
    for relu in ("before", "after"):
        with torch.no_grad(), Taps(made, ["layer1"]) as as_is, Taps(made, ["layer1"], relu=relu) as other:
            made(images)
            assert other.features[0] is as_is.features[0]


def test_works_under_inference_mode_and_autocast():
    made, images = network("resnet8"), torch.rand(1, *SHAPE)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16), Taps(made, LAYERS, relu="before") as taps:
        made(images)
        assert len(taps.features) == 3


def test_unknown_path_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'layer1'"):
        Taps(network("resnet8"), ["layr1"])


def test_output_that_is_no_tensor():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(UserError, match="tap 0 gives a tuple"), Taps(made := nn.Sequential(Pair()), ["0"]):
        made(torch.rand(1, 2))


def test_output_that_is_overwritten():
    made = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(inplace=True))
    with torch.no_grad(), Taps(made, ["0"]) as taps:
        made(torch.randn(1, 1, 2, 2))
        with pytest.raises(UserError, match="overwrites what 0 gives"):
            assert taps.features
