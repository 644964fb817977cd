"""What came home from other devices: `devices/<name>/engines/` that were built there, `devices/<name>/bench/` measured.

No stage of a run: a run is finished without them, and they are kept as they came.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdeploy import artifacts
from kdeploy.bench.results import Measurement
from kdeploy.engines.base import MANIFEST

FOLDER = "devices"


def folder_of(run: Path, device: str) -> Path:
    """Where what comes from a device is kept in a run's folder."""
    return run / FOLDER / device


def built_on(run: Path, device: str) -> list[Path]:
    """The engines that were built on a device."""
    return sorted(manifest.parent for manifest in folder_of(run, device).glob(f"engines/*/{MANIFEST}"))


def outdated(run: Path, device: str) -> list[str]:
    """The rows whose engines were built on a device from other ONNX files than the run has now."""
    current = {artifacts.sha256_file(path) for path in run.glob("export/*.onnx")}
    built = {folder.name: artifacts.read_json(folder / MANIFEST) for folder in built_on(run, device)}
    return [row for row, manifest in built.items() if manifest["source"] not in current]


def measured_before(run: Path, device: str, measured: Sequence[Measurement]) -> list[str]:
    """The rows that were measured on a device of engines that the run has no more, neither its own nor the device's."""
    built = [*(path.parent for path in run.glob(f"engines/*/{MANIFEST}")), *built_on(run, device)]
    manifests = [artifacts.read_json(folder / MANIFEST) for folder in built]
    current = {manifest["files"][manifest["model"]] for manifest in manifests}
    return [one.name for one in measured if one.artifact not in current]


def measured_on(run: Path) -> dict[str, list[Measurement]]:
    """What was measured on each device, by its name and in the order of the rows' names."""
    found: dict[str, list[Measurement]] = {}
    for path in sorted(run.glob(f"{FOLDER}/*/bench/*.json")):
        content = artifacts.read_json(path)
        found.setdefault(path.parent.parent.name, []).append(Measurement.model_validate(content))
    return found
