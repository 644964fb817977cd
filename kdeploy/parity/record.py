"""The record of a comparison, written beside the file that was compared."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from kdeploy import artifacts
from kdeploy.errors import GateFailed


class Parity(BaseModel):
    """How far a candidate's outputs are from a reference's, over all batch sizes that were tried.

    The three figures are None where the candidate's outputs could not be compared (a wrong shape, NaN, infinity).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    samples: int
    images: str | None = None
    """What the inputs were, in words; None: nobody said."""
    batches: tuple[int, ...]
    compared: Literal["logits", "centred log-probabilities"]
    max_abs_difference: float | None
    relative_difference: float | None
    """The largest difference over the largest magnitude of the reference, the logits' scale."""
    cosine_similarity: float | None
    """Of the worst sample: an average would hide one broken row among many good ones."""
    top1_agreement: float | None
    """Share of samples with the same largest output."""
    tolerance: float | None
    """Bound on the relative difference; None: the figures are recorded and bind nothing (int8)."""
    min_cosine_similarity: float | None
    passed: bool
    reasons: tuple[str, ...]
    """What did not hold; empty where it passed."""

    def require(self, what: str) -> None:
        """Raise GateFailed, with `what` was compared and every reason, where parity did not hold."""
        if not self.passed:
            raise GateFailed(f"{what} failed parity on {self.samples} inputs: {'; '.join(self.reasons)}.")

    def write(self, model: Path) -> Path:
        """Write the record beside the model file and return its path."""
        path = record_path(model)
        artifacts.write_json(path, self.model_dump(mode="json"))
        return path


def record_path(model: Path) -> Path:
    """Where the record of a file is kept: `model.float32.onnx` has `model.float32.parity.json`."""
    return model.with_suffix(".parity.json")
