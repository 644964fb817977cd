"""Mutual learning: two or more networks teach one another from the start, and none is trained before."""

from __future__ import annotations

import zlib
from dataclasses import replace

from kdeploy.errors import UserError
from kdeploy.models.classifier import Classifier
from kdeploy.recipe.schema import Recipe
from kdeploy.training.peers import MutualLearning
from kdeploy.training.procedures.base import (
    Job,
    Workshop,
    baseline_job,
    cross_entropy_weight,
    require_whole_images,
    weighted_methods,
)
from kdeploy.training.views import View, survey_all


class Mutual:
    """The student alone (the baseline), then the student and its peers together.

    Zhang, Xiang, Hospedales, Lu: "Deep Mutual Learning", CVPR 2018: each of n networks minimises its cross-entropy and
    the mean over the others of KL(p_other || p_own), at temperature 1. That is `method: kd` with
    `options: {temperature: 1}`, `weight: 1` and `cross_entropy: 1`; `method: hssakd` is HSSAKD's online form.

    All peers see the same batch and are run once on it; then one optimiser steps all of them, as HSSAKD's code does.
    A target gets no gradient, so each peer's step is what an optimiser of its own would make. The authors' code of
    deep mutual learning steps one network after the other, each on a batch of its own and against the others as they
    are by then, and does not divide by n - 1; for two networks the loss is the same.

    The student is the first peer; the epoch to keep is chosen for it, while its peers are left as they end. (HSSAKD's
    published online figures are the better of its two networks, at its best test epoch: never taken here.)
    """

    def jobs(self, recipe: Recipe) -> list[Job]:
        require_whole_images(recipe.distill, recipe)
        _require_peers_form(recipe)
        inputs = {
            "data": recipe.data.deciding(),
            "network": recipe.student.model_dump(mode="json"),
            "distill": recipe.distill.model_dump(mode="json", exclude={"baseline", "procedure_options"}),
        }
        together = Job("student", _together, inputs, recipe.seed, beside=tuple(recipe.peers))
        alone = replace(baseline_job(recipe), run=_alone)
        return [alone, together] if recipe.distill.baseline == "alone" else [together]


PROCEDURE = Mutual()


def _require_peers_form(recipe: Recipe) -> None:
    """Raise UserError for a method that is made for a student and a trained teacher only."""
    for spec, (method, _) in zip(recipe.distill.methods, weighted_methods(recipe.distill), strict=True):
        if not method.teaches_peers:
            raise UserError(
                f"{spec.method} leads from a student to a trained teacher, and the procedure mutual has none: take "
                "kd, dkd, hssakd or another method without adapters, or the procedure offline."
            )


def _alone(shop: Workshop) -> None:
    """The student from the labels only; what does not fit in the training after it is said first."""
    _made(shop)
    baseline_job(shop.recipe).run(shop)


def _together(shop: Workshop) -> None:
    """The student and its peers."""
    recipe = shop.recipe
    student, peers, objective = _made(shop)
    shop.train(
        "student",
        student,
        objective,
        recipe.distill,
        recipe.seed,
        network_spec=recipe.student,
        beside={role: (peers[role], spec) for role, spec in recipe.peers.items()},
    )


def _made(shop: Workshop) -> tuple[Classifier, dict[str, Classifier], MutualLearning]:
    """The student, from the same initial weights as alone, its peers, each from a seed of its own, and their loss."""
    recipe = shop.recipe
    height, width, channels = shop.splits.shape
    peers = {role: shop.make(spec, _seed(recipe.seed, role)) for role, spec in recipe.peers.items()}
    student = shop.make(recipe.student, recipe.seed)
    weighted = weighted_methods(recipe.distill)
    needs = [method.needs for method, _ in weighted]
    tapped = survey_all(
        [student, *peers.values()], needs, shape=(channels, height, width), classes=len(shop.splits.classes)
    )
    for method, _ in weighted:
        method.build_peers([each.shapes for each in tapped])
        if method.needs.training_labels:
            method.prepare(shop.tensors("train").labels)
    view, *views = (
        View(network, each, needs, "student") for network, each in zip((student, *peers.values()), tapped, strict=True)
    )
    objective = MutualLearning(
        peers,
        weighted,
        cross_entropy_weight(recipe.distill, [method for method, _ in weighted]),
        view=view,
        views=dict(zip(peers, views, strict=True)),
        label_smoothing=recipe.distill.label_smoothing,
        gathering=shop.gathering(recipe.distill),
    )
    return student, peers, objective


def _seed(seed: int, role: str) -> int:
    """A peer's own seed, below 2^32."""
    return zlib.crc32(f"{seed}/{role}".encode())
