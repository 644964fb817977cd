"""Student-label mixing: the loss in closed form, what it makes of noise, and how often the teacher is right."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kdeploy.training.unlabelled.mixed import Reliability, isotonic, likeliest, mixed_cross_entropy
from tests.methods.golden import assert_golden, leaf, zs, zt

LABELS = zt.softmax(dim=1)
ALPHA = torch.tensor([0.6, 0.7, 0.9, 0.55], dtype=torch.float64)
ALL = torch.full((4,), 5)


def among(k: int) -> Tensor:
    return likeliest(LABELS, torch.full((4,), k))


def mixture(logits: Tensor, alpha: float, chosen: Tensor, *, normalized: bool = False) -> Tensor:
    """What the labels are held to, `[C]`, of one row of logits: the loss of each class alone is its logarithm."""
    classes = len(logits)
    rows = logits.expand(classes, -1)
    alphas = torch.full((classes,), alpha, dtype=logits.dtype)
    each = mixed_cross_entropy(rows, torch.eye(classes).to(logits), alphas, chosen.expand(classes, -1),
                               normalized=normalized)  # fmt: skip
    return (-each).exp()


@pytest.mark.parametrize(("k", "normalized"), [(2, False), (3, False), (3, True), (5, True)])
def test_the_loss_is_what_the_paper_writes(k: int, normalized: bool) -> None:
    found = mixed_cross_entropy(zs, LABELS, ALPHA, among(k), normalized=normalized)
    for row in range(4):
        f, label, alpha = (each[row].numpy() for each in (zs.softmax(dim=1), LABELS, ALPHA))
        top = np.zeros(5)
        top[np.argsort(-label)[:k]] = 1
        mix = alpha * f + (1 - alpha) * (1 - f) * top / (k - 1 if normalized else 1)
        assert_golden(found[row], float(-(label * np.log(mix)).sum()))


def test_a_teacher_that_is_always_right_leaves_cross_entropy() -> None:
    plain = F.cross_entropy(zs, LABELS, reduction="none")
    torch.testing.assert_close(mixed_cross_entropy(zs, LABELS, torch.ones(4).double(), among(3)), plain)


def test_one_likely_class_leaves_cross_entropy() -> None:
    for normalized in (False, True):
        found = mixed_cross_entropy(zs, LABELS, ALPHA, among(1), normalized=normalized)
        torch.testing.assert_close(found, F.cross_entropy(zs, LABELS, reduction="none"))


def test_of_two_classes_both_forms_are_one() -> None:
    both = [mixed_cross_entropy(zs, LABELS, ALPHA, among(2), normalized=each) for each in (False, True)]
    torch.testing.assert_close(*both)


def test_the_normalized_mixture_is_a_distribution_where_the_student_believes_in_the_likely_classes() -> None:
    chosen = torch.tensor([True, False, True, True, False])
    logits = torch.where(chosen, zs[0], -800.0)
    assert_golden(mixture(logits, 0.6, chosen, normalized=True).sum(), 1.0)
    assert_golden(mixture(logits, 0.6, chosen).sum(), 0.6 + 0.4 * 2)


@pytest.mark.parametrize("normalized", [False, True])
def test_labels_wrong_as_often_as_said_are_best_met_by_the_truth(normalized: bool) -> None:
    """Six classes, the truth is 2, and the teacher says so with 0.6, else one of three others."""
    chosen = torch.tensor([True, True, True, True, False, False])
    said = torch.tensor([0.4 / 3, 0.4 / 3, 0.6, 0.4 / 3, 0, 0], dtype=torch.float64)

    def expected(f: Tensor) -> Tensor:
        return -(said[said > 0] * mixture(f.log(), 0.6, chosen, normalized=normalized)[said > 0].log()).sum()

    truth = torch.full((6,), 1e-12, dtype=torch.float64)
    truth[2] = 1 - 5e-12
    least = expected(truth)
    generator = np.random.default_rng(0)
    for concentration in (0.05, 0.3, 1.0, 5.0):
        for row in generator.dirichlet([concentration] * 6, 30):
            assert expected(torch.from_numpy(row).clamp_min(1e-12)) > least - 1e-9
    assert expected(torch.full((6,), 1 / 6, dtype=torch.float64)) > least + 0.1
    plain = -(said[said > 0] * truth[said > 0].log()).sum()
    assert plain > -(said[said > 0] * said[said > 0].log()).sum(), "cross-entropy would rather copy the noise"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_wrong_hard_label_costs_no_more_than_its_bound(dtype: torch.dtype) -> None:
    for scale in (0.0, 1.0, 30.0, 1e3):
        logits = scale * torch.randn(50, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
        labels = F.one_hot(torch.arange(50) % 6, 6).to(dtype)
        chosen = likeliest(labels, torch.full((50,), 3))
        losses = mixed_cross_entropy(logits, labels, torch.full((50,), 0.7, dtype=dtype), chosen)
        assert losses.max() <= -math.log(0.3) * (1 + 1e-6)


def test_the_gradient_is_that_of_finite_differences() -> None:
    for k, normalized in ((1, False), (3, False), (5, True)):
        assert torch.autograd.gradcheck(
            lambda logits, k=k, normalized=normalized: mixed_cross_entropy(
                logits, LABELS, ALPHA, among(k), normalized=normalized
            ),
            [leaf(zs)],
        )


@pytest.mark.parametrize("alpha", [0.6, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_however_sure_the_student_is(alpha: float, dtype: torch.dtype) -> None:
    logits = (torch.tensor([[0.0, 1e3, -1e3], [1e3, 0, 0], [40.0, 0, 0], [0, 0, 0]], dtype=dtype)).requires_grad_()
    labels = torch.tensor([0.8, 0.2, 0.0], dtype=dtype).expand(4, -1)
    alphas = torch.full((4,), alpha, dtype=dtype)
    losses = mixed_cross_entropy(logits, labels, alphas, likeliest(labels, torch.full((4,), 2)))
    losses.sum().backward()
    assert losses.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_the_gradient_turns_around_at_one_half() -> None:
    """Which is why least_alpha is above it."""
    signs = []
    for alpha in (0.6, 0.4):
        logits = leaf(torch.zeros(1, 2).double())
        label = torch.tensor([[1.0, 0.0]]).double()
        mixed_cross_entropy(logits, label, torch.tensor([alpha]).double(), torch.ones(1, 2).bool()).sum().backward()
        signs.append(float(logits.grad[0, 0]))
    assert signs[0] < 0 < signs[1]


def test_among_noisy_labels_a_half_space_is_found_that_cross_entropy_misses() -> None:
    """Points after Long and Servedio (2010), 30 % of the labels flipped, by their exact expectation: no chance in it.

    A point at a large margin pulls the linear classifier of least cross-entropy over half of all the others.
    """
    near = 0.05
    points = torch.tensor([[1, 0], [near, 5 * near], [near, -near], [near, -near]], dtype=torch.float64)
    right, wrong = torch.tensor([1.0, 0]).double(), torch.tensor([0, 1.0]).double()
    everything = torch.ones(4, 2).bool()

    def accuracy(alpha: float) -> float:
        direction = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([direction], lr=0.5, max_iter=300, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            score = points @ direction
            logits, alphas = torch.stack([score, -score], dim=1), torch.full((4,), alpha).double()
            found = sum(
                chance * mixed_cross_entropy(logits, said.expand(4, -1), alphas, everything).mean()
                for said, chance in ((right, 0.7), (wrong, 0.3))
            )
            found.backward()
            return found

        optimizer.step(loss)
        return (points @ direction.detach() > 0).double().mean().item()

    assert accuracy(1.0) == 0.5
    assert accuracy(0.7) == 1.0


def test_the_likeliest_classes() -> None:
    probabilities = torch.tensor([[0.1, 0.5, 0.4], [0.4, 0.2, 0.4]])
    assert likeliest(probabilities, torch.tensor([2, 1])).tolist() == [[False, True, True], [True, False, False]]


@pytest.mark.parametrize(
    ("at", "values", "expected"),
    [
        ([1, 2, 3, 4, 5], [1, 0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5, 1]),
        ([1, 2, 3], [0, 0, 1], [0, 0, 1]),
        ([1, 2, 3], [1, 1, 0], [2 / 3, 2 / 3, 2 / 3]),
        ([3, 1, 3, 2], [1, 0, 0, 1], [2 / 3, 0, 2 / 3, 2 / 3]),
        ([2, 2, 2], [1, 0, 0], [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_isotonic_regression(at: list[float], values: list[float], expected: list[float]) -> None:
    found = isotonic(np.array(at, dtype=float), np.array(values, dtype=float))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_no_other_rising_function_is_nearer() -> None:
    """Pool adjacent violators against the max-min formula of isotonic regression."""
    values = np.random.default_rng(3).integers(0, 2, 30).astype(float)
    sums = np.concatenate([[0.0], values.cumsum()])
    means = [[(sums[t + 1] - sums[s]) / (t + 1 - s) if t >= s else math.nan for t in range(30)] for s in range(30)]
    formula = [max(min(means[s][t] for t in range(i, 30)) for s in range(i + 1)) for i in range(30)]
    np.testing.assert_allclose(isotonic(np.arange(30.0), values), formula, atol=1e-12)


def teacher_logits(count: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """A teacher that is the surer the more often it is right."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=generator)
    strength = 4 * torch.rand(count, 1, generator=generator)
    return strength * F.one_hot(labels, classes) + torch.randn(count, classes, generator=generator), labels


@pytest.mark.parametrize("top_k", [None, 3])
def test_alpha_rises_with_the_margin_and_stays_within_its_bounds(top_k: int | None) -> None:
    reliability = Reliability(*teacher_logits(300, 6, 0), least=0.6, top_k=top_k)
    rising = torch.linspace(0, 12, 200)[:, None] * torch.eye(6)[:1]
    alpha, count = reliability(rising)
    assert (alpha.diff() >= 0).all()
    assert alpha.min() == pytest.approx(0.6)
    assert 0.95 < alpha.max() <= 1.0
    assert (count == 3).all() if top_k else (count.diff() <= 0).all() and count[0] > count[-1] == 1
    assert count.dtype == torch.int64


def test_alpha_is_about_how_often_the_teacher_is_right() -> None:
    reliability = Reliability(*teacher_logits(4000, 6, 0), least=0.51, top_k=2)
    logits, labels = teacher_logits(4000, 6, 1)
    alpha, _ = reliability(logits)
    right = (logits.argmax(dim=1) == labels).float()
    for low, high in ((0.6, 0.8), (0.8, 0.95), (0.95, 1.01)):
        inside = (alpha >= low) & (alpha < high)
        assert right[inside].mean() == pytest.approx(alpha[inside].mean().item(), abs=0.05)


def test_as_few_classes_as_hold_the_truth_often_enough() -> None:
    """Whatever its margin, this teacher names the truth first in half of the cases, and second in all others."""
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0]).repeat(40, 1) * torch.linspace(1, 2, 40)[:, None]
    labels = torch.arange(40) % 2
    for accuracy, expected in ((0.4, 1), (0.9, 2)):
        alpha, count = Reliability(logits, labels, least=0.55, top_k=None, accuracy=accuracy)(logits)
        assert count.tolist() == [expected] * 40
        assert (alpha < 0.6).all()
    never = torch.full((40,), 3)
    _, count = Reliability(logits, never, least=0.6, top_k=None, accuracy=0.9)(logits)
    assert count.tolist() == [4] * 40


def test_of_two_classes_the_truth_is_one() -> None:
    logits, labels = teacher_logits(50, 2, 0)
    _, count = Reliability(logits, labels, least=0.6, top_k=5)(logits)
    assert count.tolist() == [2] * 50
