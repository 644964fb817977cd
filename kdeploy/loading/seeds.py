"""Random generators that depend on what they are for, and on nothing else."""

from __future__ import annotations

import hashlib

import torch


def seed_of(*key: int | str) -> int:
    """A hash of `key` as a number of 63 bits."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big") >> 1


def seeded(*key: int | str) -> torch.Generator:
    """A generator on the CPU whose seed is a hash of `key`."""
    return torch.Generator().manual_seed(seed_of(*key))
