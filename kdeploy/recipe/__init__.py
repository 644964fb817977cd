"""Recipes: the schema, loading with overrides, and the shipped catalogue."""

from kdeploy.recipe.catalogue import about, find, names
from kdeploy.recipe.loading import dump, load

__all__ = ["about", "dump", "find", "load", "names"]
