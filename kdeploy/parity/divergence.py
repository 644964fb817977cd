"""Where two computations of the same network part: the first node whose output leaves the tolerance.

In the manner of Polygraphy's comparison with all intermediate tensors marked as outputs
(https://github.com/NVIDIA/TensorRT/tree/main/tools/Polygraphy).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from kdeploy import artifacts

TOLERANCE = 1e-4
"""Of a tensor's scale, as for the outputs of a float32 graph."""
_TINY = float(np.finfo(np.float64).tiny)


class Divergence(BaseModel):
    """The first node that computes something else.

    module: the path of the torch module, "" where there is none. tensor: the node's output. relative_difference: over
    the largest magnitude of the reference; None where one side is not finite, or of another shape.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    node: str
    operator: str
    module: str
    tensor: str
    relative_difference: float | None
    tolerance: float
    compared: int
    """Tensors before it that were compared, and agree."""

    def sentence(self) -> str:
        """What to tell people."""
        by = "has another shape or is not finite"
        if self.relative_difference is not None:
            by = f"differs by {self.relative_difference:.1e} of its scale, more than {self.tolerance:.0e}"
        where = f" of the module {self.module}" if self.module else ""
        return (
            f"the first node whose output leaves the tolerance is {self.node} ({self.operator}){where}: its output "
            f"{self.tensor!r} {by}; {self.compared} tensors before it agree"
        )

    def write(self, model: Path) -> Path:
        """Write it beside the model file and return its path."""
        path = model.with_suffix(".bisect.json")
        artifacts.write_json(path, self.model_dump(mode="json"))
        return path


class Node(BaseModel):
    """A node of the graph under suspicion, with the tensors that it gives."""

    model_config = ConfigDict(frozen=True)

    name: str
    operator: str
    outputs: tuple[str, ...]

    @property
    def module(self) -> str:
        """The exporter's names are `<module>/<operator>`."""
        return self.name.rpartition("/")[0]


def first_divergence(
    nodes: Sequence[Node],
    expected: Mapping[str, NDArray[np.generic]],
    found: Mapping[str, NDArray[np.generic]],
    *,
    tolerance: float = TOLERANCE,
) -> Divergence | None:
    """Compare, in the order of `nodes`, each tensor that both sides name; None where all of them agree.

    Tensors of integers and such as only one side has (what a rewrite has made or removed) are passed over.
    """
    compared = 0
    for node in nodes:
        for name in node.outputs:
            if name not in expected or name not in found or expected[name].dtype.kind != "f":
                continue
            relative = _relative(expected[name], found[name])
            if relative is None or relative > tolerance:
                return Divergence(
                    node=node.name,
                    operator=node.operator,
                    module=node.module,
                    tensor=name,
                    relative_difference=relative,
                    tolerance=tolerance,
                    compared=compared,
                )
            compared += 1
    return None


def _relative(expected: NDArray[np.generic], found: NDArray[np.generic]) -> float | None:
    if expected.shape != found.shape or not np.isfinite(found).all():
        return None
    a, b = expected.astype(np.float64), found.astype(np.float64)
    return float(np.abs(a - b).max(initial=0.0) / max(float(np.abs(a).max(initial=0.0)), _TINY))
