"""BatchEnsemble: members that share weights, against the plain networks that they stand for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kdeploy import models
from kdeploy.errors import UserError
from kdeploy.models.batch_ensemble import BatchEnsemble, MemberLayer, mean_prediction
from kdeploy.models.classifier import Classifier
from kdeploy.models.counting import count
from kdeploy.models.storage import load_network, save_network
from kdeploy.recipe.schema import NetworkSpec

SMALL = NetworkSpec(model="resnet8", width=0.25)


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ensemble(members: int = 3, model: str = "resnet8", width: float = 0.25, **options: object) -> BatchEnsemble:
    """A network of the zoo with members, whose running statistics have seen something; in evaluation mode."""
    torch.manual_seed(0)
    network = models.create(NetworkSpec(model=model, width=width, options=options), classes=4, channels=1)
    made = BatchEnsemble(network, members, drawn())
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return made.eval()


def images(count: int = 5, side: int = 8, seed: int = 1) -> Tensor:
    return torch.rand(count, 1, side, side, generator=drawn(seed))


LAYERS = {
    "convolution": (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False), (4, 8, 8)),
    "groups": (lambda: nn.Conv2d(4, 8, 3, padding=1, groups=2), (4, 8, 8)),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4), (4, 8, 8)),
    "linear": (lambda: nn.Linear(6, 5), (6,)),
    "linear on tokens": (lambda: nn.Linear(6, 5), (7, 6)),
}


@pytest.mark.parametrize("kind", ["convolution", "linear"])
def test_one_member_with_vectors_of_ones_is_the_plain_layer_to_the_last_bit(kind: str) -> None:
    make, shape = LAYERS[kind]
    torch.manual_seed(0)
    plain = make()
    plain.register_parameter("bias", None)
    x = torch.rand(3, *shape)
    expected = plain(x)
    layer = MemberLayer(plain, 1)
    nn.init.ones_(layer.alpha)
    nn.init.ones_(layer.gamma)
    assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("kind", LAYERS)
def test_each_member_is_a_plain_layer_on_its_own_rows(kind: str) -> None:
    """y = gamma * (W (alpha * x)) + b, which the plain layer with folded weights computes as well."""
    make, shape = LAYERS[kind]
    torch.manual_seed(0)
    layer = MemberLayer(make(), 3, drawn()).double()
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    x = torch.rand(3 * 2, *shape, dtype=torch.float64)
    found = layer(x)
    for member in range(3):
        rows = slice(2 * member, 2 * member + 2)
        torch.testing.assert_close(found[rows], layer.of_member(member)(x[rows]), rtol=1e-12, atol=1e-12)
    axis = 1 if isinstance(layer.shared, nn.Conv2d) else -1
    shape_of = [1] * x.ndim
    shape_of[axis] = -1
    by_hand = layer.shared(x[2:4] * layer.alpha[1].view(shape_of)) * layer.gamma[1].view(shape_of)
    by_hand = by_hand if layer.bias is None else by_hand + layer.bias[1].view(shape_of)
    torch.testing.assert_close(found[2:4], by_hand, rtol=1e-12, atol=1e-12)


def test_a_member_sees_its_own_rows_only() -> None:
    network = ensemble().network
    rows = images(6)
    before = network(rows)
    rows[2:4] += 0.5
    after = network(rows)
    changed = (before != after).any(dim=1)
    assert changed.tolist() == [False, False, True, True, False, False]


def test_vectors_start_around_one_and_biases_as_the_layers() -> None:
    plain = nn.Linear(400, 300)
    bias = plain.bias.detach().clone()
    layer = MemberLayer(plain, 4, drawn(7))
    for vectors in (layer.alpha, layer.gamma):
        assert vectors.mean().item() == pytest.approx(1.0, abs=0.05)  # three standard errors of 1200 are 0.043
        assert vectors.std().item() == pytest.approx(0.5, abs=0.03)
    assert layer.bias is not None
    assert all(torch.equal(each, bias) for each in layer.bias)
    again = MemberLayer(nn.Linear(400, 300), 4, drawn(7))
    assert torch.equal(again.alpha, layer.alpha)


def test_training_gives_each_members_logits_and_evaluation_their_mean_probability() -> None:
    made = ensemble(3)
    x = images()
    made.train()
    assert made(x).shape == (15, 4)
    made.eval()
    members = made.network(torch.cat([x, x, x])).view(3, 5, 4)
    assert len({tuple(rows.argmax(dim=1).tolist()) for rows in members}) > 1, "members that differ"
    torch.testing.assert_close(made(x).exp(), members.softmax(dim=2).mean(dim=0))
    torch.testing.assert_close(made(x).exp().sum(dim=1), torch.ones(5))


def test_the_mean_prediction_of_certain_members_is_finite() -> None:
    logits = torch.tensor([[[900.0, 0.0, -900.0]], [[-900.0, 0.0, 900.0]]])
    expected = torch.tensor([[0.5, 0.0, 0.5]])
    torch.testing.assert_close(mean_prediction(logits).exp(), expected)
    assert mean_prediction(logits).isfinite().all()
    assert mean_prediction(logits.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(("model", "width"), [("resnet8", 0.25), ("shufflenetv2", 0.25), ("vgg8", 0.125)])
def test_members_apart_compute_the_same(model: str, width: float) -> None:
    made = ensemble(2, model, width).double()
    x = images(3, side=32).double()
    apart = made.members_apart().eval()
    torch.testing.assert_close(apart(x), made(x), rtol=1e-9, atol=1e-9)
    kinds = {type(module) for module in apart.modules()}
    assert MemberLayer not in kinds
    assert sum(isinstance(module, MemberLayer) for module in made.modules()) > 5, "a copy: the shared form is whole"


def test_counts_are_those_of_shared_weights_and_of_every_member() -> None:
    plain = models.create(SMALL, classes=4, channels=1)
    shape = (1, 8, 8)
    one, many = count(plain, shape), count(ensemble(3), shape)
    layers = [module for module in ensemble(3).modules() if isinstance(module, MemberLayer)]
    own = sum(3 * (layer.alpha.shape[1] + layer.gamma.shape[1]) for layer in layers) + 2 * 4  # two more biases of fc
    assert many.parameters == one.parameters + own
    assert many.macs == 3 * one.macs


def test_it_is_saved_and_rebuilt(tmp_path: Path) -> None:
    classifier = Classifier(ensemble(3), [0.5], [0.25], (3, 1)).eval()
    card = {
        "model": SMALL.model,
        "width": SMALL.width,
        "options": {},
        "classes": ["a", "b"],
        "image": {"height": 8, "width": 8, "channels": 1},
    }
    save_network(tmp_path / "student", classifier, card)
    again, read = load_network(tmp_path / "student")
    assert torch.equal(again(images()), classifier(images()))
    assert read["batch_ensemble"] == {"members": 3}
    assert read["outputs"] == 4
    assert read["parameters"] == sum(p.numel() for p in classifier.parameters())


def test_layers_of_somebodys_own_kind_are_shared_whole() -> None:
    class Own(nn.Linear):
        pass

    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), Own(8, 3))
    made = BatchEnsemble(network, 2)
    assert [type(module) for module in made.network] == [nn.Flatten, MemberLayer, nn.ReLU, Own]


def test_a_layer_used_in_two_places_stays_one() -> None:
    shared = nn.Linear(4, 4)
    made = BatchEnsemble(nn.Sequential(shared, nn.ReLU(), shared), 2)
    assert made.network[0] is made.network[2]
    x = torch.rand(3, 4)
    made.eval()
    torch.testing.assert_close(made.members_apart()(x), made(x))


@pytest.mark.parametrize("network", [nn.Flatten(), nn.Linear(4, 2), nn.Sequential(nn.BatchNorm2d(2))])
def test_a_network_without_such_layers_is_refused(network: nn.Module) -> None:
    with pytest.raises(UserError, match="has no convolution or linear layer inside"):
        BatchEnsemble(network, 2)
