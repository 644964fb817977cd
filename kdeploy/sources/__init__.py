"""Where images and labels come from: NumPy arrays, split into train, validation and test."""

from kdeploy.sources.base import Images, ImageSet, Source, Splits
from kdeploy.sources.catalogue import check, check_test_alone, fingerprint, load, names, usages
from kdeploy.sources.checks import validate

__all__ = [
    "ImageSet",
    "Images",
    "Source",
    "Splits",
    "check",
    "check_test_alone",
    "fingerprint",
    "load",
    "names",
    "usages",
    "validate",
]
