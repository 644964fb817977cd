"""The state of a training on disk: all that is needed to go on as if nothing had happened."""

from __future__ import annotations

import copy
import json
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdeploy import artifacts, events

STATE = "state.pt"
METRICS = "metrics.jsonl"
_DAMAGE = (
    zipfile.BadZipFile,
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    LookupError,
    TypeError,
    ValueError,
)
"""What a damaged state, or one of another network, makes readers stumble over."""


class Progress:
    """What changes while a network is trained, saved whole after each epoch."""

    def __init__(
        self, network: nn.Module, objective: nn.Module, optimizer: torch.optim.Optimizer, folder: Path
    ) -> None:
        self.network = network
        self.objective = objective
        self.optimizer = optimizer
        self.path = folder / STATE
        self.chosen: dict[str, Tensor] = {}

    def save(self, history: list[dict[str, Any]], *, chosen: bool) -> None:
        """Write the state after an epoch; `chosen`: this epoch is the best on validation so far."""
        if chosen:
            self.chosen = {name: value.detach().cpu().clone() for name, value in self.network.state_dict().items()}
        content = {
            "network": self.network.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "chosen": self.chosen,
            "history": history,
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        with artifacts.atomic_path(self.path) as temporary:
            torch.save(content, temporary)

    def load(self) -> list[dict[str, Any]]:
        """Take up a state that is there and return the epochs done; [] where there is none.

        A damaged state, or one of another network, is warned of, and this training starts again.
        """
        if not self.path.exists():
            return []
        begin = copy.deepcopy((self.network.state_dict(), self.objective.state_dict(), self.optimizer.state_dict()))
        try:
            content = _read(self.path)
            history: list[dict[str, Any]] = content["history"]
            chosen = content["chosen"]
            self._restore(content["network"], content["objective"], content["optimizer"])
        except _DAMAGE as error:
            events.warn(f"{self.path} is damaged ({type(error).__name__}); this training starts again.")
            self._restore(*begin)
            return []
        self.chosen = chosen
        torch.set_rng_state(content["torch_rng"])
        if content["cuda_rng"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(content["cuda_rng"])
        return history

    def _restore(self, network: dict[str, Any], objective: dict[str, Any], optimizer: dict[str, Any]) -> None:
        self.network.load_state_dict(network)
        self.objective.load_state_dict(objective)
        self.optimizer.load_state_dict(optimizer)


def _read(path: Path) -> dict[str, Any]:
    """A state that is whole: torch itself does not look at the checksums of its file."""
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
    if broken is not None:
        raise zipfile.BadZipFile(broken)
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def clear(folder: Path) -> None:
    """Remove the states of a training that is finished, with its phases' and what killed processes left of them."""
    for path in [*folder.rglob(STATE), *folder.rglob(f".{Path(STATE).stem}-*")]:
        path.unlink()


def write_metrics(folder: Path, history: list[dict[str, Any]]) -> None:
    """Write `metrics.jsonl`, one line an epoch."""
    artifacts.write_text(folder / METRICS, "".join(json.dumps(line) + "\n" for line in history))


def seed_everything(seed: int) -> None:
    """Seed every random generator that a training may draw from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
