"""Two callables, the same inputs, how far apart: the proof that an exported graph still computes the network."""

from __future__ import annotations

from kdeploy.parity.comparison import compare
from kdeploy.parity.record import Parity, record_path

__all__ = ["Parity", "compare", "record_path"]
