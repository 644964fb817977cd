"""From the words of `kdeploy export` to one model, exported and compiled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdeploy.recipe.schema import ExportSpec
    from kdeploy.stages.model import Asked, ModelRun

SHAPE, OPSET = "3x224x224", 18


def export_model(name: str, given: dict[str, Any]) -> ModelRun:
    """One model of torch, or somebody's ONNX file, exported and compiled."""
    return _onnx_file(Path(name), given) if name.endswith(".onnx") else _torch_model(name, given)


def _torch_model(name: str, given: dict[str, Any]) -> ModelRun:
    from kdeploy import events, models
    from kdeploy.cli.execution import require_torch
    from kdeploy.errors import UserError
    from kdeploy.recipe.schema import NetworkSpec

    try:
        models.check(name)
    except UserError as error:
        raise UserError(f"There is no run folder {name}. {error}") from None
    checkpoint = given.get("checkpoint")
    if checkpoint is not None and not checkpoint.is_file():
        raise UserError(f"There is no file {checkpoint}.")
    if checkpoint is None and "pretrained" not in given:
        events.decided("weights", "random", "neither --checkpoint nor --pretrained was given")
    require_torch("kdeploy export")
    from kdeploy.stages.model import export_network, normalisation

    asked = _asked(name, given)
    network = NetworkSpec(
        model=name,
        checkpoint=None if checkpoint is None else str(checkpoint.resolve()),
        options={"pretrained": True} if "pretrained" in given else {},
        normalize=normalisation(*_mean_and_std(given), asked.shape[0]),
    )
    with events.task(f"export {name}"):
        return export_network(network, asked)


def _onnx_file(path: Path, given: dict[str, Any]) -> ModelRun:
    from kdeploy import events
    from kdeploy.cli.execution import require_onnx
    from kdeploy.errors import UserError

    require_onnx("kdeploy export of an ONNX file")
    from kdeploy.stages.adopt import adopt_file
    from kdeploy.stages.model import normalisation

    useless = [f"--{name}" for name in ("checkpoint", "pretrained") if name in given]
    if useless:
        raise UserError(f"{path} has its weights in it: leave {', '.join(useless)} out.")
    if given.get("size") == "open" or given.get("preprocess") == "outside":
        raise UserError(
            f"{path} is there already, with the sizes it has: --size open and --preprocess outside are for "
            "networks of torch."
        )
    as_they_are = given.pop("preprocess", "in-graph") == "none"
    asked = _asked(str(path), given)
    mean, std = _mean_and_std(given)
    if as_they_are and (mean or std):
        raise UserError("--preprocess none takes pixels as they are: leave --mean and --std out.")
    with events.task(f"export {path}"):
        return adopt_file(
            path,
            asked,
            given_shape="shape" in given,
            normalize=normalisation(mean, std, asked.shape[0]),
            as_they_are=as_they_are,
            opset=given.get("opset"),
        )


def _for_board(given: dict[str, Any]) -> dict[str, Any]:
    """With what the profile of --for says, where nothing else was asked."""
    if "board" not in given:
        return given
    from kdeploy import events
    from kdeploy.machine import boards
    from kdeploy.stages.precisions import FLOAT32

    board = boards.find(given["board"])
    suits: dict[str, Any] = {"engine": board.engines, "precision": board.precisions, "scheme": board.scheme}
    if "data" not in given:
        suits["precision"] = [FLOAT32]  # other precisions are calibrated, or checked, on images
    taken = {name: value for name, value in suits.items() if name not in given and value}
    for name, value in taken.items():
        why = "without --data" if name == "precision" and "data" not in given else f"for {board.name}"
        events.decided(name, value if isinstance(value, str) else ", ".join(value), why)
    return {**given, **taken}


def _asked(name: str, given: dict[str, Any]) -> Asked:
    from kdeploy.cli.models import parse_shape
    from kdeploy.stages.model import DEFAULT_SAMPLES, Asked, role_of
    from kdeploy.stages.precisions import FLOAT32

    given = _for_board(given)
    asked = Asked(
        folder=given.get("out", Path("exported") / role_of(name)),
        data=given.get("data"),
        shape=parse_shape(given.get("shape", SHAPE)),
        classes=given.get("classes"),
        export=_export_spec(given),
        engines=tuple(dict.fromkeys(given.get("engine", []))),
        precisions=tuple(dict.fromkeys(given.get("precision", [FLOAT32]))),
        scheme=given.get("scheme", "auto"),
        samples=given.get("samples", DEFAULT_SAMPLES),
        simplify="simplify" in given,
        elsewhere="elsewhere" in given,
    )
    asked.check()
    return asked


def _export_spec(given: dict[str, Any]) -> ExportSpec:
    """Its part of a recipe; a UserError for values that a recipe would not take either."""
    from pydantic import ValidationError

    from kdeploy.errors import UserError
    from kdeploy.recipe.schema import ExportSpec

    written = {name: given[name] for name in ("opset", "size", "preprocess") if name in given}
    if written.get("preprocess") == "none":
        raise UserError("--preprocess none is for ONNX files, which may have no preprocessing of ours: leave it out.")
    try:
        return ExportSpec.model_validate(written)
    except ValidationError as error:
        first = error.errors()[0]
        option = "".join(f"--{part}: " for part in first["loc"])
        raise UserError(f"{option}{first['msg'].removeprefix('Value error, ')}.") from None


def _mean_and_std(given: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Numbers with commas; empty where an option was not given."""
    from kdeploy.errors import UserError

    found = []
    for name in ("mean", "std"):
        try:
            found.append([float(value) for value in given[name].split(",")] if name in given else [])
        except ValueError:
            raise UserError(f"--{name} {given[name]!r} must be numbers with commas, as in 0.5,0.5,0.5.") from None
    return found[0], found[1]
