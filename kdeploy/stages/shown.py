"""The images on which an exported network is compared and calibrated: real ones, or those that the run has made."""

from __future__ import annotations

from typing import Any

from kdeploy.recipe import procedures
from kdeploy.sources import synthesised
from kdeploy.sources.base import Splits
from kdeploy.stages import data
from kdeploy.stages.base import Run


def splits(run: Run) -> Splits:
    """The run's splits; without training images, synthesised ones stand in for train and validation."""
    if run.splits.has_training_images:
        return run.splits
    return synthesised.read(run.folder).as_splits(run.splits.test)


def what(run: Run) -> str:
    """What the images are, in words."""
    if run.images_in_words is not None:
        return run.images_in_words
    return "real images" if run.splits.has_training_images else synthesised.read(run.folder).what


def calibration_split(run: Run) -> str:
    """What int8 is calibrated on: "train", or what the images are, in words."""
    return "train" if run.splits.has_training_images else what(run)


def fingerprint(run: Run) -> Any:
    """What changes when these images do."""
    found, made = data.fingerprint(run), hashes(run)
    return {"test": found, **made} if made else found


def hashes(run: Run) -> dict[str, str]:
    """The hash of the images that the run has made; nothing where it has real ones. No data is read for it."""
    if procedures.opens_training_images(run.recipe):
        return {}
    return {"synthesised": run.outputs_of("networks/student")[synthesised.FILES[0]]}
