"""`kdeploy bench --target`: what goes along, and where the measurements of a run are kept."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from kdeploy import artifacts as files
from kdeploy import events
from kdeploy.cli.elsewhere import Luggage, carry_out, common, words_of
from kdeploy.cli.output import add, talking
from kdeploy.errors import Unavailable, UserError

if TYPE_CHECKING:
    from kdeploy.cli import options
    from kdeploy.targets.environment import Abilities

Images = Callable[[Path], "options.ImageSet | None"]


def bench_there(context: typer.Context, place: options.Target, asked: dict[str, Any], images: Images) -> None:
    """Measure on the device. asked: the verb's parameters by name. images: the test images of an artefact, if any.

    What is measured of one run alone is kept in its folder, where its report finds it, unless --out says otherwise.
    """
    from kdeploy.bench.artifacts import resolve
    from kdeploy.stages.devices import built_on

    luggage = Luggage()
    with tempfile.TemporaryDirectory(prefix="kdeploy-images-") as temporary:
        with talking():
            for path in asked["artifacts"]:
                if not built_on(path, place.name):  # what was exported for the device alone has no engine here
                    resolve(path)  # says what is wrong with it before anything is sent
            replaced = {"artifacts": [_take(path, place, luggage) for path in asked["artifacts"]]}
            for number, path in enumerate(asked["artifacts"]):
                _take_images(path, images(path), luggage, Path(temporary) / f"{number}.npz")
        replaced |= common(luggage, asked["board"], asked["json_"])
        replaced |= _paths(luggage, asked)
        words = words_of(context, replaced)
        kept = _kept(asked, place)
        if kept is not None:
            words[1:1] = ["--out", luggage.await_(kept)]
        carry_out(place, words, luggage)
    if kept is not None:
        add(asked["json_"], f"kept  {kept}\nTo see it beside the others:  kdeploy report {asked['artifacts'][0]}")


def _paths(luggage: Luggage, asked: dict[str, Any]) -> dict[str, list[str]]:
    """The values there of the options that are paths."""
    found: dict[str, list[str]] = {}
    if asked["against"] is not None:
        found["against"] = [luggage.take(asked["against"])]
    for name in ("out", "loadgen"):
        if asked[name] is not None:
            found[name] = [luggage.await_(asked[name])]
    if asked["save"]:
        found["save"] = [luggage.await_(path) for path in asked["save"]]
    return found


def _kept(asked: dict[str, Any], place: options.Target) -> Path | None:
    from kdeploy.provenance import RECORD
    from kdeploy.stages.devices import folder_of

    if asked["out"] is not None or len(asked["artifacts"]) != 1 or not (asked["artifacts"][0] / RECORD).is_file():
        return None
    return folder_of(asked["artifacts"][0], place.name) / "bench"


def _take(path: Path, place: options.Target, luggage: Luggage) -> str:
    """What an artefact needs there: its files, and of a run its engines."""
    from kdeploy.engines._onnx_file import weight_files
    from kdeploy.engines.base import MANIFEST

    if path.is_file():
        there = luggage.take(path)
        beside = weight_files(path) if path.suffix == ".onnx" else []
        luggage.put({f"{Path(there).parent}/{file.relative_to(path.parent)}": file for file in beside})
        return there
    if (path / MANIFEST).is_file():  # what it is called, and that it lies in `engines`, says whose it is
        return luggage.take(path, "/".join(path.resolve().parts[-2:]))
    there = luggage.place(path)
    for folder in _engines(path, place):
        found = {f"{there}/engines/{folder.name}/{file.relative_to(folder)}": file for file in folder.rglob("*")}
        luggage.put({name: file for name, file in found.items() if file.is_file()})
    return there


def _engines(run: Path, place: options.Target) -> list[Path]:
    """Those engines of a run that the device can open; in place of ours, those that were built on this very device."""
    from kdeploy.engines.base import MANIFEST
    from kdeploy.stages.devices import built_on
    from kdeploy.stages.engines import PYTORCH
    from kdeploy.targets.environment import abilities

    _require_current(run, place)
    ours = {manifest.parent.name: manifest.parent for manifest in sorted(run.glob(f"engines/*/{MANIFEST}"))}
    chosen = ours | {folder.name: folder for folder in built_on(run, place.name)}
    engine = {name: files.read_json(folder / MANIFEST)["engine"] for name, folder in chosen.items()}
    device = abilities(place)
    there = device.engines
    left_out = [name for name in chosen if engine[name] not in there]
    if len(left_out) == len(chosen):
        needed = sorted(set(engine.values()) - {PYTORCH})
        remedy = device.remedy(needed) if needed else ""
        raise Unavailable(
            f"{place.text} has no runtime for any engine of {run} ({', '.join(needed) or PYTORCH}).{remedy}"
        )
    for missing in sorted({engine[name] for name in left_out}):
        rows = ", ".join(name for name in left_out if engine[name] == missing)
        events.decided("not measured", rows, f"the device has no {missing}")
    taken = [folder for name, folder in chosen.items() if name not in left_out]
    _warn_of_schemes([folder for folder in taken if folder in ours.values()], device, run, place)
    return taken


def _require_current(run: Path, place: options.Target) -> None:
    from kdeploy.stages.devices import outdated

    old = outdated(run, place.name)
    if old:
        raise UserError(
            f"{', '.join(old)} of {run} were built on {place.text} from other ONNX files than it has now. "
            f"Type: kdeploy export {run} --target {place.text}"
        )


def _warn_of_schemes(ours: Sequence[Path], device: Abilities, run: Path, place: options.Target) -> None:
    """An int8 file for another processor runs, and is slower than it need be or less accurate, without a word."""
    from kdeploy.engines.base import MANIFEST
    from kdeploy.quantize.schemes import SCHEMES

    for folder in ours:
        scheme = SCHEMES.get(files.read_json(folder / MANIFEST)["scheme"] or "")
        if scheme and scheme.instruction_sets and not scheme.instruction_sets & device.instruction_sets:
            events.warn(
                f"{folder.name} is quantised for another processor ({scheme.name}). For this one: "
                f"kdeploy export {run} --target {place.text}"
            )


def _take_images(artifact: Path, found: options.ImageSet | None, luggage: Luggage, temporary: Path) -> None:
    from kdeploy.bench import sent

    if found is not None:
        sent.write(temporary, found)
        luggage.put({str(sent.beside(Path(luggage.place(artifact)), is_folder=artifact.is_dir())): temporary})
