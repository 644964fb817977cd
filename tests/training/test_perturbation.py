"""Input perturbations against golden values and what the paper's formulas promise."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from kdeploy.loading import Batch
from kdeploy.training.perturbation import Perturbation, diversified
from tests.methods.golden import S, T, assert_golden

X = 0.5 + 0.4 * S(2, 3, 2, 2)
Q = T(2, 3, 2, 2)
W = S(2, 4)
VALUES = 12
CLASSES = 4


class Linear(nn.Module):
    """logits = A vec(x) + b, times `sharp`; A and b are the golden ones, or drawn by `seed`."""

    def __init__(self, *, sharp: float = 1.0, seed: int | None = None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed or 0)
        own = torch.randn(CLASSES, VALUES, generator=generator, dtype=torch.float64)
        self.a = nn.Parameter(sharp * (T(CLASSES, VALUES) if seed is None else own), requires_grad=False)
        self.b = nn.Parameter(sharp * S(CLASSES), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.a.T + self.b


def golden(kind: str, *, temperature: float = 1.0, step: float = 1.0) -> Tensor:
    """The golden images with the golden w in place of the draw."""
    direction, confidence = diversified(Linear(), X, lambda classes: W, temperature=temperature)
    if kind == "confods":
        direction = direction * confidence[:, None, None, None]
    return (X + step / 255 * direction).clamp(0, 1)


def moved(kind: str, **more: float) -> Tensor:
    return golden(kind, **more) - X


@pytest.mark.parametrize(
    ("kind", "temperature", "along_q", "first", "last"),
    [
        ("ods", 1.0, 5.511428166085, -0.2401770442741, 0.7315576704304),
        ("confods", 1.0, 4.946257527590, -0.2359391241594, 0.6753429631820),
    ],
)
def test_golden(kind: str, temperature: float, along_q: float, first: float, last: float) -> None:
    eps = 255 * moved(kind, temperature=temperature)
    assert_golden((eps * Q).sum(), along_q)
    assert_golden(eps[0, 0, 0, 0], first)
    assert_golden(eps[1, 2, 1, 1], last)


@pytest.mark.parametrize(("kind", "along_q"), [("ods", -2.106003112343), ("confods", -1.587810892701)])
def test_golden_at_temperature_4(kind: str, along_q: float) -> None:
    assert_golden((255 * moved(kind, temperature=4.0) * Q).sum(), along_q)


@pytest.mark.parametrize(
    ("temperature", "largest", "norms"),
    [
        (1.0, (0.9823550159528, 0.9231575178272), (3.402977597401, 3.197911448532)),
        (4.0, None, (2.274358334996, 1.677926604031)),
    ],
)
def test_golden_norms(temperature: float, largest: tuple[float, float] | None, norms: tuple[float, float]) -> None:
    for norm in (255 * moved("ods", temperature=temperature)).flatten(1).norm(dim=1):
        assert_golden(norm, math.sqrt(VALUES))
    smaller = (255 * moved("confods", temperature=temperature)).flatten(1).norm(dim=1)
    for norm, expected in zip(smaller, norms, strict=True):
        assert_golden(norm, expected)
    if largest is not None:
        _, confidence = diversified(Linear(), X, lambda classes: W, temperature=temperature)
        for value, expected in zip(confidence, largest, strict=True):
            assert_golden(value, expected)


@pytest.mark.parametrize(("kind", "along_q"), [("ods", 2.079030255095), ("confods", 2.066571097671)])
def test_golden_at_the_clamp(kind: str, along_q: float) -> None:
    """100 / 255: 13 of the 24 values reach 0 or 1."""
    shown = golden(kind, step=100.0)
    assert int(((shown == 0) | (shown == 1)).sum()) == 13
    assert_golden((shown * Q).sum(), along_q)


def test_the_direction_is_the_gradients() -> None:
    """By finite differences of sum w p in float64."""
    teacher, nudge = Linear(seed=3), 1e-6

    def summed(images: Tensor) -> Tensor:
        return (W * teacher(images).softmax(dim=1)).sum(dim=1)

    slopes = torch.zeros(2, VALUES, dtype=torch.float64)
    for place in range(VALUES):
        there = torch.zeros(VALUES, dtype=torch.float64)
        there[place] = nudge
        apart = there.view(3, 2, 2)
        slopes[:, place] = (summed(X + apart) - summed(X - apart)) / (2 * nudge)
    expected = math.sqrt(VALUES) * slopes / slopes.norm(dim=1, keepdim=True)
    found, _ = diversified(teacher, X, lambda classes: W, temperature=1.0)
    torch.testing.assert_close(found.flatten(1), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sharp", [1.0, 5.0, 15.0])
def test_a_teacher_that_is_certain_is_perturbed_in_float32_as_in_float64(sharp: float) -> None:
    exact, _ = diversified(Linear(sharp=sharp), X, lambda classes: W, temperature=1.0)
    found, confidence = diversified(Linear(sharp=sharp).float(), X.float(), lambda classes: W.float(), temperature=1.0)
    assert sharp == 1.0 or (confidence == 1).any(), "a softmax that has rounded to 0 and 1"
    torch.testing.assert_close(found.double(), exact, rtol=1e-2, atol=1e-2)


def test_where_there_is_no_gradient_the_image_stays() -> None:
    for sharp in (0.0, 1e4):  # nothing depends on the image; all probabilities but one are exactly 0
        direction, _ = diversified(Linear(sharp=sharp).float(), X.float(), lambda classes: W.float(), temperature=1.0)
        assert torch.equal(direction, torch.zeros_like(direction))


def batch_of(images: Tensor, sizes: tuple[int, ...] = ()) -> Batch:
    return Batch(images, torch.zeros(len(images), dtype=torch.int64), torch.arange(len(images)), sizes=sizes)


def many(count: int = 10) -> Tensor:
    return 0.3 + 0.4 * torch.rand(count, 3, 2, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def perturbation(kind: str, **more: float | int) -> Perturbation:
    asked = {"step": 1.0, "temperature": 1.0, "seed": 5, **more}
    return Perturbation(kind, [Linear(seed=seed) for seed in (1, 2, 3)], **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["ods", "confods", "gaussian"])
def test_what_is_drawn_depends_on_the_seed_and_the_step_alone(kind: str) -> None:
    batch = batch_of(many())
    first = perturbation(kind)(batch, 3)
    torch.manual_seed(99)
    assert torch.equal(perturbation(kind)(batch, 3), first)
    assert not torch.equal(perturbation(kind)(batch, 4), first)
    assert not torch.equal(perturbation(kind, seed=6)(batch, 3), first)
    assert torch.equal(batch.images, many()), "the batch's own images stay"


@pytest.mark.parametrize("kind", ["ods", "confods", "gaussian"])
def test_parts_of_a_batch_are_perturbed_as_the_whole_of_it(kind: str) -> None:
    images = many()
    whole = perturbation(kind)(batch_of(images), 3)
    parts = [
        perturbation(kind, rank=rank)(batch_of(part, sizes=(4, 6)), 3) for rank, part in enumerate(images.split([4, 6]))
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-12)


def test_ods_moves_each_image_by_its_step_and_confods_by_less() -> None:
    images = many()
    reach = 1 / 255 * math.sqrt(VALUES)
    ods = (perturbation("ods")(batch_of(images), 0) - images).flatten(1).norm(dim=1)
    torch.testing.assert_close(ods, torch.full_like(ods, reach))
    confods = (perturbation("confods")(batch_of(images), 0) - images).flatten(1).norm(dim=1)
    assert (confods < reach).all()
    surer = (perturbation("confods", temperature=0.2)(batch_of(images), 0) - images).flatten(1).norm(dim=1)
    assert surer.mean() > confods.mean()
    further = (perturbation("ods", step=2.0)(batch_of(images), 0) - images).flatten(1).norm(dim=1)
    torch.testing.assert_close(further, 2 * ods)


def test_each_teacher_is_drawn_as_often() -> None:
    seen: Counter[int] = Counter()

    class Watched(Linear):
        def __init__(self, number: int) -> None:
            super().__init__(seed=number + 1)
            self.number = number

        def forward(self, images: Tensor) -> Tensor:
            seen[self.number] += 1
            return super().forward(images)

    perturb = Perturbation("ods", [Watched(number) for number in range(3)], step=1.0, temperature=1.0, seed=0)
    for step in range(300):
        perturb(batch_of(many(2)), step)
    assert sum(seen.values()) == 300, "one teacher a batch"
    assert all(count == pytest.approx(100, abs=33) for count in seen.values())  # four standard deviations


def test_gaussian_noise_has_the_steps_deviation() -> None:
    images = torch.full((200, 3, 2, 2), 0.5, dtype=torch.float64)
    noise = perturbation("gaussian", step=2.0)(batch_of(images), 0) - images
    assert noise.std().item() == pytest.approx(2 / 255, rel=0.06)  # four standard errors of 2400 are 0.058
    assert abs(noise.mean().item()) < 4 * 2 / 255 / math.sqrt(2400)


def test_pixels_stay_in_their_range_and_the_teacher_as_it_is() -> None:
    images = torch.cat([torch.zeros(3, 3, 2, 2), torch.ones(3, 3, 2, 2)]).double()
    teacher = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.Flatten()).double().eval().requires_grad_(False)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    shown = Perturbation("ods", [teacher], step=50.0, temperature=1.0, seed=0)(batch_of(images), 0)
    assert shown.min() >= 0
    assert shown.max() <= 1
    assert not shown.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
