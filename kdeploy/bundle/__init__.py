"""One `.kdz` file that holds an engine and everything that is needed to use and to trust it."""

from kdeploy.bundle.info import BundleInfo, Part
from kdeploy.bundle.packing import pack
from kdeploy.bundle.reading import inspect, open_bundle

__all__ = ["BundleInfo", "Part", "inspect", "open_bundle", "pack"]
