"""What the schema alone cannot know: that the things named exist. Nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from kdeploy import engines, methods, models, sources
from kdeploy.errors import KdeployError, UserError
from kdeploy.recipe.procedures import opens_training_images
from kdeploy.recipe.schema import EngineSpec, NetworkSpec, Recipe
from kdeploy.training import procedures

Locate = Callable[[tuple[str | int, ...]], str]
_Named = TypeVar("_Named")


def check(recipe: Recipe, locate: Locate) -> None:
    """Raise a UserError that names the place of the first thing that does not exist.

    locate: from a location in the recipe, such as ("teacher", "model"), to where that was written.
    """
    _at(locate, ("data", "source"), sources.check, recipe.data.source)
    _at(locate, ("distill", "procedure"), procedures.check, recipe.distill.procedure)
    for method in recipe.distill.methods:
        _at(locate, ("distill", "method"), methods.check, method.method)
    for number, assistant in enumerate(recipe.distill.assistants):
        place = ("distill", "assistants", number)
        _network(assistant, place, locate)
        for method in () if assistant.distill is None else assistant.distill.methods:
            _at(locate, (*place, "distill", "method"), methods.check, method.method)
    for number, engine in enumerate(recipe.engines):
        _at(locate, ("engines", number, "engine"), _engine, engine)
    if recipe.teacher is not None:
        _network(recipe.teacher, ("teacher",), locate)
    for number, spec in enumerate(recipe.teachers):
        _network(spec, ("teachers", number), locate)
    _network(recipe.student, ("student",), locate)
    for number, peer in enumerate(recipe.distill.peers):
        _at(locate, ("distill", "peers", number, "model"), models.check, peer.model)
    if not opens_training_images(recipe):
        _at(locate, ("data", "source"), sources.check_test_alone, recipe.data.source)
    _data_is_there(recipe, locate)
    _bundle_is_built(recipe, locate)


def _at(locate: Locate, location: tuple[str | int, ...], check: Callable[[_Named], object], named: _Named) -> None:
    try:
        check(named)
    except KdeployError as error:
        raise type(error)(f"{locate(location)}: {error}") from None


def _engine(spec: EngineSpec) -> None:
    engines.check(spec.engine, spec.precision, spec.options)
    if spec.engine == "pytorch" and not (spec.options.get("compile") and spec.variant):
        raise UserError(
            "each network is measured in pytorch anyway, as the baseline, in eager mode: leave it out of engines, or "
            "ask for {engine: pytorch, variant: compiled, options: {compile: true}}."
        )


def _network(spec: NetworkSpec, at: tuple[str | int, ...], locate: Locate) -> None:
    _at(locate, (*at, "model"), models.check, spec.model)
    if spec.checkpoint is None:
        if spec.sha256 is not None:
            dotted = ".".join(str(part) for part in at)
            raise UserError(
                f"{locate((*at, 'sha256'))}: the {dotted} of this recipe is somebody else's checkpoint "
                f"({spec.origin or 'see its SHA-256'}). Get the file and type --set {dotted}.checkpoint=PATH."
            )
    elif not Path(spec.checkpoint).is_file():
        raise UserError(f"{locate((*at, 'checkpoint'))}: there is no file {spec.checkpoint}.")


def _data_is_there(recipe: Recipe, locate: Locate) -> None:
    root = recipe.data.root
    needs_root = recipe.data.source in ("imagefolder", "idx")
    if needs_root and root is None:
        raise UserError(
            f"{locate(('data', 'source'))}: the source {recipe.data.source} needs a place. Type --set data.root=PATH."
        )
    if needs_root and root is not None and not Path(root).exists():
        raise UserError(f"{locate(('data', 'root'))}: there is no folder or file {root}.")


def _bundle_is_built(recipe: Recipe, locate: Locate) -> None:
    built = ["auto", *(engine.name for engine in recipe.engines)]
    if recipe.bundle.engine not in built:
        raise UserError(
            f"{locate(('bundle', 'engine'))}: {recipe.bundle.engine!r} is not among the engines of this recipe: "
            f"{', '.join(built)}."
        )
