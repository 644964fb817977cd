"""The state of a training on disk: all that is needed to go on as if nothing had happened.

A checkpoint is an ordinary torch archive with the SHA-256 of all before it as its last 64 bytes. The last two are
kept, `state.pt` and `state-before.pt`, so that a damaged one costs the steps between them and not the training.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import pickle
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdeploy import artifacts, events
from kdeploy.errors import UserError
from kdeploy.training.processes import ALONE, Processes

STATE = "state.pt"
BEFORE = "state-before.pt"
METRICS = "metrics.jsonl"
NONFINITE = "nonfinite.json"
"""What broke a training that stopped at a NaN: epoch, batch, step, terms, and the batch's images."""
_HASH_BYTES = 64
_AT_LEAST_S = 10.0
_TIMES = 200.0
_DAMAGE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    LookupError,
    TypeError,
    ValueError,
)
"""What a damaged state, or one of another network, makes readers stumble over."""


@dataclass(frozen=True)
class Position:
    """How far a training is: the metrics of the epochs done, and the batches done of the one under way.

    totals: the sums over those batches; empty at the beginning of an epoch.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    batch: int = 0
    totals: dict[str, Any] = field(default_factory=dict)


class Pace:
    """When a checkpoint is due inside an epoch: every so many `steps`, or by the clock.

    By the clock, the time since the last one must be 200 times what that took to write: less than 0.5 % of a training
    goes into it, on a fast disk as on a slow one. Never more often than every ten seconds, which are soon made up for.
    """

    def __init__(self, steps: int | None) -> None:
        self._steps = steps
        self._took_s = 0.0
        self._since = time.monotonic()

    def due(self, step: int) -> bool:
        """Whether to write one after step `step` of the training, which counts from 1."""
        if self._steps is not None:
            return step % self._steps == 0
        return time.monotonic() - self._since >= max(_AT_LEAST_S, _TIMES * self._took_s)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Takes the time of one that is written."""
        started = time.monotonic()
        yield
        self._since = time.monotonic()
        self._took_s = self._since - started


class Progress:
    """What changes while a network is trained, saved whole.

    Several processes hold the same, but for their random generators: the first one writes and reads the files.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: nn.Module,
        optimizer: torch.optim.Optimizer,
        folder: Path,
        processes: Processes = ALONE,
    ) -> None:
        self.network = network
        self.objective = objective
        self.optimizer = optimizer
        self.path = folder / STATE
        self.before = folder / BEFORE
        self.processes = processes
        self.chosen: dict[str, Tensor] = {}

    def save(self, position: Position, *, chosen: bool = False) -> None:
        """Write a checkpoint; `chosen`: these weights are the best on validation so far.

        A UserError where it cannot be written; the checkpoint before it is kept.
        """
        if chosen:
            self.chosen = {name: value.detach().cpu().clone() for name, value in self.network.state_dict().items()}
        content = self._content(position, self.processes.all(_generators()))
        if self.processes.first:
            self._write(content)

    def _content(self, position: Position, generators: list[dict[str, Any]]) -> dict[str, Any]:
        """All of it; generators: of each process, the first one's at least."""
        return {
            "network": self.network.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "chosen": self.chosen,
            "history": position.history,
            "batch": position.batch,
            "totals": position.totals,
            "generators": generators[0],
            "others": generators[1:],
        }

    def _write(self, content: dict[str, Any]) -> None:
        try:
            with artifacts.atomic_path(self.path) as temporary:
                temporary.write_bytes(_hashed(content))
                if self.path.exists():
                    self.path.replace(self.before)
        except UserError as error:
            raise UserError(
                f"{error} The checkpoint before this one is kept: make room, then type the same command again."
            ) from None

    def load(self) -> Position:
        """Take up the newest checkpoint that is whole, and say where it is; at the beginning where there is none.

        Each that is damaged, or of another network, is warned of and removed. The other processes take up what the
        first one has then; a process that no checkpoint knows draws by a seed of its own.
        """
        if self.processes.count == 1:
            return self._find()[0]
        position, others = self._find() if self.processes.first else (Position(), [])
        sent = self._content(position, [_generators(), *others]) if self.processes.first else {}
        raw = self.processes.from_first(bytes(_hashed(sent)))
        if not self.processes.first:
            position, others = self._take(_content_of(memoryview(raw)))
            rank = self.processes.rank
            if rank <= len(others):
                _set_generators(others[rank - 1])
            else:
                seed_everything((torch.initial_seed() + rank) % 2**32)
        return position

    def _find(self) -> tuple[Position, list[dict[str, Any]]]:
        """Where the newest whole checkpoint is, which is taken up, and the generators of the other processes."""
        begin = copy.deepcopy((self.network.state_dict(), self.objective.state_dict(), self.optimizer.state_dict()))
        for path, instead in ((self.path, "the one before it is used"), (self.before, "this training starts again")):
            if not path.exists():
                continue
            try:
                position, others = self._take(_content_of(memoryview(path.read_bytes())))
            except PermissionError:
                raise
            except _DAMAGE as error:
                otherwise = instead if self.before.exists() else "this training starts again"
                events.warn(f"{path} is damaged ({_reason(error)}); {otherwise}.")
                self._restore(*begin)
                path.unlink()
                continue
            if path == self.before:
                path.replace(self.path)  # or the next to be saved would push it out
            return position, others
        return Position(), []

    def _take(self, content: dict[str, Any]) -> tuple[Position, list[dict[str, Any]]]:
        position = Position(content["history"], content["batch"], content["totals"])
        chosen, generators, others = content["chosen"], content["generators"], content.get("others", [])
        self._restore(content["network"], content["objective"], content["optimizer"])
        _set_generators(generators)
        self.chosen = chosen
        return position, others

    def _restore(self, network: dict[str, Any], objective: dict[str, Any], optimizer: dict[str, Any]) -> None:
        self.network.load_state_dict(network)
        self.objective.load_state_dict(objective)
        self.optimizer.load_state_dict(optimizer)


def _hashed(content: dict[str, Any]) -> memoryview:
    """The bytes of a checkpoint. Made in memory: torch's own writer turns a full disk into an error of its own."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    buffer.write(hashlib.sha256(buffer.getbuffer()).hexdigest().encode())
    return buffer.getbuffer()


def _content_of(raw: memoryview) -> dict[str, Any]:
    """The content of a checkpoint, whose hash must be right."""
    archive, digest = raw[:-_HASH_BYTES], raw[-_HASH_BYTES:]
    if hashlib.sha256(archive).hexdigest().encode() != digest:
        raise ValueError("its SHA-256 is not what it was when it was written")
    content: dict[str, Any] = torch.load(io.BytesIO(archive), map_location="cpu", weights_only=True)
    return content


def _reason(error: Exception) -> str:
    return str(error) if type(error) is ValueError else type(error).__name__


def _generators() -> dict[str, Any]:
    """Every random generator that a training may draw from: Python's, NumPy's, torch's on each device."""
    name, keys, *rest = np.random.get_state()  # a tuple: the legacy form
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "mps": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
    }


def _set_generators(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["cpu"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"][: torch.cuda.device_count()])
    if states["mps"] is not None and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"])


def same_generators(processes: Processes) -> None:
    """Let all processes go on with the random generators of the first: what they make next is the same."""
    states = processes.from_first(_generators() if processes.first else None)
    if states is not None and not processes.first:
        _set_generators(states)


def there(folder: Path) -> bool:
    """Whether a training in this folder was interrupted after its first checkpoint; also one of its phases."""
    return any(path.is_file() for name in (STATE, BEFORE) for path in folder.rglob(name))


def clear(folder: Path) -> None:
    """Remove the states of a training that is finished, with its phases' and what killed processes left of them."""
    for name in (STATE, BEFORE, NONFINITE, f".{Path(STATE).stem}-*"):
        for path in list(folder.rglob(name)):
            path.unlink()


def write_metrics(folder: Path, history: list[dict[str, Any]]) -> None:
    """Write `metrics.jsonl`, one line an epoch."""
    artifacts.write_text(folder / METRICS, "".join(json.dumps(line) + "\n" for line in history))


def seed_everything(seed: int) -> None:
    """Seed every random generator that a training may draw from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
