"""Other people's weights: read safely, checked against their hash, renamed, loaded strictly."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from kdeploy.artifacts import sha256_file
from kdeploy.errors import UserError
from kdeploy.recipe.schema import NetworkSpec, RenameSpec

_SHOWN = 3
_Shape = tuple[int, ...]


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict onto the CPU: safetensors, or a `torch.save` file that holds tensors and nothing else.

    The state dict may be bare or lie under `state_dict` or `model`. No code in the file is ever run. A missing,
    truncated or foreign file, and a pickle that asks for more than tensors, are UserErrors that say so.
    """
    if not path.is_file():
        raise UserError(f"There is no checkpoint {path}." if not path.exists() else f"{path} is a folder, not a file.")
    with path.open("rb") as stream:
        head = stream.read(256)
    if not head:
        raise UserError(f"The checkpoint {path} is empty: get it again.")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise UserError(f"{path} is a web page, not a checkpoint: the download gave an error or a log-in page.")
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a Git LFS pointer, not the checkpoint itself: type git lfs pull in its folder.")
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return _read_safetensors(path)
    return _state_dict(path, _read_torch(path, head))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is not a whole safetensors file ({error}): get it again.") from None


def _read_torch(path: Path, head: bytes) -> object:
    if head.startswith(b"PK") and not zipfile.is_zipfile(path):
        raise UserError(f"The checkpoint {path} is cut off (its end is missing): get it again.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged pickle makes the unpickler stumble over
        refused = re.search(r"GLOBAL (\S+) (was not an allowed global|whose module)", str(error))
        if refused:
            raise UserError(
                f"The checkpoint {path} was refused: it asks Python for {refused[1]}, and loading that could run "
                "any code. Ask its author for the state dict alone, or for safetensors."
            ) from None
        raise UserError(
            f"{path} is not a checkpoint that torch can read, or it is damaged or cut off: get it again."
        ) from error


def _state_dict(path: Path, loaded: object) -> dict[str, Tensor]:
    for key in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not loaded:
        raise UserError(f"The checkpoint {path} holds no state dict, but a {type(loaded).__name__}.")
    for key, value in loaded.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise UserError(
                f"The checkpoint {path} holds no state dict: its entry {key!r} is a {type(value).__name__}, "
                "not a tensor. A state dict lies at the top, or under state_dict or model."
            )
    return dict(loaded)


def load_into(network: nn.Module, spec: NetworkSpec, *, base: Path) -> None:
    """Load `spec.checkpoint` into `network`: check its SHA-256, rename its keys, and let every key fit.

    A relative path counts from `base`, the recipe's folder. A wrong hash, a broken file, or a key that is missing,
    unexpected or of another shape is a UserError; the network is then unchanged.
    """
    if spec.checkpoint is None:
        raise ValueError(f"{spec.model} has no checkpoint to load")
    path = base / spec.checkpoint
    if spec.sha256 is not None and path.is_file():
        actual = sha256_file(path)
        if actual != spec.sha256:
            raise UserError(
                f"The checkpoint {path} has SHA-256 {actual}, and the recipe asks for {spec.sha256}: "
                "it is another file, or a damaged one."
            )
    weights = _rename(path, read_weights(path), spec.rename)
    _check_fit(path, spec.model, network, weights)
    whole = network.state_dict()  # its metadata tell layers that their keys are named as today (MNASNet asks)
    whole.update(weights)
    network.load_state_dict(whole)


def _rename(path: Path, weights: Mapping[str, Tensor], rules: Iterable[RenameSpec]) -> dict[str, Tensor]:
    rules = list(rules)
    renamed: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for key, tensor in weights.items():
        new = key
        for rule in rules:
            try:
                new = re.sub(rule.pattern, rule.replace, new)
            except (re.error, IndexError) as error:
                raise UserError(f"rename: {rule.pattern!r} to {rule.replace!r} is no valid rule: {error}.") from None
        if new in renamed:
            raise UserError(f"The rename rules make one key {new!r} of {origin[new]!r} and {key!r} in {path}.")
        renamed[new], origin[new] = tensor, key
    return renamed


def _check_fit(path: Path, model: str, network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Raise one UserError that names what does not fit, and the rename rule that would fit most."""
    # Files from before torch 0.4.1 have no num_batches_tracked; a fresh network's stays.
    wanted = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in weights.items()}
    missing = [key for key in wanted if key not in given and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in given if key not in wanted]
    shapes = [
        f"{key} (is {given[key]}, wants {wanted[key]})" for key in wanted if key in given and given[key] != wanted[key]
    ]
    if not (missing or unexpected or shapes):
        return
    parts = [("missing", missing), ("unexpected", unexpected), ("of another shape", shapes)]
    what = "; ".join(f"{name}: {_some(keys)}" for name, keys in parts if keys)
    rules = _nearest_rules({key: given[key] for key in unexpected}, {key: wanted[key] for key in missing})
    advice = f" Rules to try: rename: [{', '.join(rules)}]." if rules else ""
    raise UserError(f"The checkpoint {path} does not fit {model}: {what}.{advice}")


def _some(keys: list[str]) -> str:
    rest = len(keys) - _SHOWN
    return ", ".join(keys[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _nearest_rules(unexpected: Mapping[str, _Shape], missing: Mapping[str, _Shape], most: int = _SHOWN) -> list[str]:
    """The changes of prefix, in order, that bring most unexpected keys onto missing ones of the same shape."""
    pairs = [
        _differing_prefixes(given, wanted)
        for given, shape in unexpected.items()
        for wanted, wanted_shape in missing.items()
        if shape == wanted_shape and given.rpartition(".")[2] == wanted.rpartition(".")[2]
    ]
    if not pairs or not most:
        return []

    def fits(change: tuple[str, str]) -> int:
        renamed = _with_prefix(unexpected, *change)
        return sum(missing.get(key) == shape for key, shape in renamed.items())

    old, new = max(sorted(set(pairs)), key=fits)
    renamed = _with_prefix(unexpected, old, new)
    rest = {key: shape for key, shape in renamed.items() if key not in missing}
    rule = f"{{pattern: '^{re.escape(old)}', replace: '{new}'}}"
    left = {key: shape for key, shape in missing.items() if key not in renamed}
    return [rule, *_nearest_rules(rest, left, most - 1)]


def _with_prefix(keys: Mapping[str, _Shape], old: str, new: str) -> dict[str, _Shape]:
    return {new + key[len(old) :] if key.startswith(old) else key: shape for key, shape in keys.items()}


def _differing_prefixes(given: str, wanted: str) -> tuple[str, str]:
    """What is left of both keys, dot included, without the names that they share at the end."""
    old, new = given.split("."), wanted.split(".")
    while old and new and old[-1] == new[-1]:
        old.pop()
        new.pop()
    return "".join(f"{name}." for name in old), "".join(f"{name}." for name in new)
