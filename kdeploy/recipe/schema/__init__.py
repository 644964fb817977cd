"""The schema of a recipe. These models are the documentation: `kdeploy recipes --schema` prints them.

Every model is frozen and refuses unknown keys. Units sit in the names of fields.
"""

from kdeploy.recipe.schema.base import Spec, part
from kdeploy.recipe.schema.data import AugmentSpec, DataSpec, NormalizeSpec, RandAugmentSpec
from kdeploy.recipe.schema.deploying import BenchSpec, BundleSpec, CalibrationSpec, EngineSpec, ExportSpec, GatesSpec
from kdeploy.recipe.schema.distilling import (
    ASSISTANTS,
    MUTUAL,
    OFFLINE,
    AssistantSpec,
    DistillSpec,
    LinkSpec,
    MethodSpec,
    TapsSpec,
)
from kdeploy.recipe.schema.networks import CacheSpec, NetworkSpec, RenameSpec, TeacherSpec
from kdeploy.recipe.schema.recipe import PublishedSpec, Recipe
from kdeploy.recipe.schema.training import INDIFFERENT, TrainSpec

__all__ = [
    "ASSISTANTS",
    "INDIFFERENT",
    "MUTUAL",
    "OFFLINE",
    "AssistantSpec",
    "AugmentSpec",
    "BenchSpec",
    "BundleSpec",
    "CacheSpec",
    "CalibrationSpec",
    "DataSpec",
    "DistillSpec",
    "EngineSpec",
    "ExportSpec",
    "GatesSpec",
    "LinkSpec",
    "MethodSpec",
    "NetworkSpec",
    "NormalizeSpec",
    "PublishedSpec",
    "RandAugmentSpec",
    "Recipe",
    "RenameSpec",
    "Spec",
    "TapsSpec",
    "TeacherSpec",
    "TrainSpec",
    "part",
]
