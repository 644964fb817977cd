"""Digits as a folder of which only the test images may be opened, and recipes that open no others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from kdeploy import pipeline
from kdeploy.recipe.schema import Recipe
from kdeploy.stages.base import Run
from tests.training import tiny

TRAIN = {**tiny.TRAIN, "optimizer": "adam", "lr": 0.002, "batch": 64}


def write_folder(root: Path) -> Path:
    """`test/<digit>/` with real images, `train/<digit>/` with files that no decoder would take."""
    test = tiny.splits().test
    for number, label in enumerate(test.labels):
        for part in ("test", "train"):
            (root / part / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(test.images[number][:, :, 0]).save(root / "test" / str(label) / f"{number:03}.png")
        (root / "train" / str(label) / f"{number:03}.png").write_bytes(b"not to be opened")
    return root


def recipe(images: Path, teacher_folder: Path, procedure: str, options: dict[str, Any], **more: Any) -> Recipe:
    """A recipe of this procedure with the tiny teacher as somebody's checkpoint; `distill` is put over its own."""
    card = json.loads((teacher_folder / "teacher.json").read_text())
    distill = {"procedure": procedure, "procedure_options": options, "baseline": "none", **TRAIN}
    return Recipe.model_validate(
        {
            "name": "tiny",
            "data": {"source": "imagefolder", "root": str(images), "augment": {"crop": 1, "flip": False}},
            "teacher": {
                **tiny.NETWORK,
                "width": 0.5,
                "checkpoint": str(teacher_folder / "teacher.safetensors"),
                "normalize": {"mean": card["mean"], "std": card["std"]},
            },
            "student": tiny.NETWORK,
            "engines": [
                {"engine": "onnxruntime", "precision": "float32"},
                {"engine": "onnxruntime", "precision": "int8", "scheme": "x86-avx2", "calibration": {"samples": 32}},
            ],
            "bench": {"batch": [1], "min_time_s": 0.01, "min_count": 10},
            "gates": {"int8_drop_points": 100},
            **more,
            "distill": {**distill, **more.get("distill", {})},
        }
    )


def train(asked: Recipe, folder: Path) -> Run:
    """The networks of a recipe, through the pipeline."""
    run = pipeline.open_run(asked, folder, device="cpu")
    pipeline.execute(run, pipeline.training(asked))
    return run
