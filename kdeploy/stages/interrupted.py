"""What an interrupted training was started from, so that it never goes on from something else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kdeploy import artifacts
from kdeploy.errors import UserError

NOTE = "state-of.json"
"""A file beside the state of a training, with what decides its outcome and the device that it was on."""
_STATES = "state*.pt"
_WAYS_OUT = (
    "Put it back to go on, type --fresh to remove the whole run and start again, or --out DIR to leave it as it is."
)


def begin(folder: Path, inputs: Mapping[str, Any], *, device: str, chosen: bool) -> None:
    """Leave the note of the training in `folder`, whose state may be there already.

    device: its type, such as cuda; chosen: somebody asked for it. Raises UserError where there is a state that began
    on other inputs, or on another device that nobody asked to change.
    """
    note = folder / NOTE
    if _interrupted(folder):
        before = _read(note)
        _require_same(folder, before["inputs"], inputs)
        if before["device"] != device and not chosen:
            raise UserError(
                f"{folder} was interrupted on {before['device']}, and the device to be had here now is {device}. Type "
                f"--device {device} to go on with it; the weights will not be the same to the last bit."
            )
    artifacts.write_json(note, {"schema_version": 1, "device": device, "inputs": inputs})


def require_same_images(networks: Path, fingerprint: str) -> None:
    """Raise UserError where a training under `networks` was interrupted that began on other images."""
    for note in sorted(networks.glob(f"*/{NOTE}")):
        if _interrupted(note.parent):
            inputs = _read(note)["inputs"]
            _require_same(note.parent, inputs, {**inputs, "images": fingerprint})


def end(folder: Path) -> None:
    """Remove the note: the training is finished."""
    (folder / NOTE).unlink()


def _interrupted(folder: Path) -> bool:
    return (folder / NOTE).is_file() and any(folder.rglob(_STATES))


def _read(note: Path) -> dict[str, Any]:
    content: dict[str, Any] = artifacts.read_json(note)
    return content


def _require_same(folder: Path, before: Any, now: Any) -> None:
    changed = list(_differences(before, json.loads(json.dumps(now))))
    if changed:
        raise UserError(f"{folder} was interrupted, and since then this has changed: {'; '.join(changed)}. {_WAYS_OUT}")


def _differences(before: Any, now: Any, at: str = "") -> Iterator[str]:
    """Each place where two JSON values differ, as a person would say it."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            yield from _differences(before.get(key), now.get(key), f"{at}.{key}" if at else key)
    elif before != now and not (at.endswith("nonfinite") and (before, now) == ("stop", "skip")):
        yield _WORDS.get(at.partition(".")[0]) or f"{at} ({json.dumps(before)}, now {json.dumps(now)})"


_WORDS = {
    "images": "the images of the data set",
    "checkpoint": "the file of weights that it begins with",
    "before": "the weights of the network trained before it",
}
"""Inputs that are hashes, which would say nothing."""
