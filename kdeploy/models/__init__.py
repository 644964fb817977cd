"""Networks: the zoo, other people's models, checkpoints, saving and counting.

The catalogue (`names`, `check`, `describe`) needs no torch, so that a recipe can be checked anywhere;
`create` and the submodules do.
"""

from __future__ import annotations

from kdeploy.models.catalogue import ModelInfo, check, create, describe, names

__all__ = ["ModelInfo", "check", "create", "describe", "names"]
