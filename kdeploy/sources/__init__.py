"""Where images and labels come from: NumPy arrays, split into train, validation and test."""

from kdeploy.sources.base import ImageSet, Source, Splits
from kdeploy.sources.catalogue import check, fingerprint, load, names, usages
from kdeploy.sources.checks import validate

__all__ = ["ImageSet", "Source", "Splits", "check", "fingerprint", "load", "names", "usages", "validate"]
