"""Normalisation and class order around a network, and the counting of it."""

import pytest
import torch
from torch import nn

from kdeploy.models.classifier import Classifier
from kdeploy.models.counting import Counts, count


class ChannelMeans(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def test_it_normalises_then_puts_classes_in_order():
    classifier = Classifier(ChannelMeans(), (0.5, 0.25, 0.0), (0.5, 0.25, 1.0), (2, 0))
    logits = classifier(torch.full((4, 3, 2, 2), 0.75))
    assert logits.shape == (4, 2)
    assert logits[0].tolist() == [0.75, 0.5]


def test_without_a_class_map_the_logits_are_the_network_s():
    classifier = Classifier(ChannelMeans(), (0.0,), (2.0,))
    assert classifier.class_map is None
    assert classifier(torch.ones(1, 1, 2, 2)).tolist() == [[0.5]]


def test_its_state_is_the_network_s_alone():
    classifier = Classifier(nn.Conv2d(3, 2, 1), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (1, 0))
    assert set(classifier.state_dict()) == {"network.weight", "network.bias"}
    assert classifier.to(torch.float64).mean.dtype == torch.float64


def test_mean_and_std_must_agree():
    with pytest.raises(ValueError, match="3 channels and std has 1"):
        Classifier(ChannelMeans(), (0.0, 0.0, 0.0), (1.0,))


def test_counting_is_by_hand_and_leaves_the_network_as_it_was():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, groups=1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 25, 7)
    )
    network[2].eval()
    network[1].weight.requires_grad_(False)  # counted all the same: it is shipped
    before = {key: value.clone() for key, value in network.state_dict().items()}
    generator = torch.get_rng_state()
    counts = count(network, (3, 5, 5))
    assert counts == Counts(parameters=(27 * 4 + 4) + 8 + (100 * 7 + 7), macs=25 * 27 * 4 + 700)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert torch.equal(generator, torch.get_rng_state())
    assert [module.training for module in network] == [True, True, False, True, True]
