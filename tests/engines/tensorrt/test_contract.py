"""Every class, method, argument and enumeration member that kdeploy uses, against the real binding of each version."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.engines.tensorrt import surfaces, uses
from tests.engines.tensorrt.fake_cuda import FakeCuda
from tests.engines.tensorrt.uses import MODULE, Use

WEAK_TYPING = {"BuilderFlag.FP16", "BuilderFlag.INT8"}
"""Used for a DLA on TensorRT 10 alone; 11 has them no more."""

MUST_BE_SEEN = {
    "Builder.build_serialized_network",
    "BuilderFlag.STRIP_PLAN",
    "EngineInspector.get_engine_information",
    "IBuilderConfig.progress_monitor",
    "IBuilderConfig.set_timing_cache",
    "ICudaEngine.get_tensor_mode",
    "ICudaEngine.get_tensor_profile_shape",
    "IExecutionContext.execute_async_v3",
    "IExecutionContext.profiler",
    "IOptimizationProfile.set_shape",
    "ITimingCache.serialize",
    "OnnxParser.parse_from_file",
    "OnnxParserRefitter.refit_from_file",
    "ParserError.desc",
    "Refitter.refit_cuda_engine",
    "Runtime.deserialize_cuda_engine",
    "TensorIOMode.INPUT",
    "tensorrt.Runtime",
}


def problem(use: Use, surface: dict[str, Any]) -> str | None:
    """What is wrong with a use in this version, None where nothing is."""
    if use.owner == MODULE:
        if use.member == "__version__":
            return None
        if use.member not in surface:
            return "there is no such class"
        described = surface[use.member]
        constructor = described.get("methods", {}).get("__init__")
        return None if use.arguments is None else _fits(use, constructor)
    described = surface[use.owner]
    if described["kind"] == "enum":
        return None if use.member in described["members"] else "the enumeration has no such member"
    if use.member in described["constants"] or use.member in described["classes"]:
        return None
    if use.member in described["properties"]:
        settable = described["properties"][use.member]["settable"]
        return "the property can't be set" if use.is_set and not settable else None
    if use.member in described["methods"] and use.arguments is not None:
        return _fits(use, described["methods"][use.member])
    return "the class has no such member"


def _fits(use: Use, overloads: list[dict[str, Any]] | None) -> str | None:
    """Whether the arguments fit one of the overloads."""
    for overload in overloads or ():
        names = [argument["name"] for argument in overload["arguments"] if argument["name"] != "self"]
        required = [argument["name"] for argument in overload["arguments"][1:] if argument["required"]]
        count = use.arguments if use.arguments is not None and use.arguments >= 0 else len(names)
        # ILogger.__init__(self) and its like name the object themselves.
        count -= use.member == "__init__"
        given = [*names[:count], *use.keywords]
        if count <= len(names) and set(use.keywords) <= set(names) and set(required) <= set(given):
            return None
    return f"no overload takes {use.arguments} arguments and {list(use.keywords)}"


def test_all_that_is_used_exists(version: str, surface: dict[str, Any]) -> None:
    found = uses.of_tensorrt(surface)
    wrong = {f"{use.place} {use.name}: {why}" for use in found if (why := problem(use, surface))}
    if version.startswith("11."):
        assert {name for name in WEAK_TYPING if any(name in entry for entry in wrong)} == WEAK_TYPING
        wrong = {entry for entry in wrong if not any(name in entry for name in WEAK_TYPING)}
    assert wrong == set()


def test_the_derivation_sees_what_the_code_does(surface: dict[str, Any]) -> None:
    names = {use.name for use in uses.of_tensorrt(surface)}
    assert names >= MUST_BE_SEEN
    assert len(names) > 60


@pytest.mark.parametrize(
    ("use", "why"),
    [
        (Use("BuilderFlag", "FP17", None, (), False, ""), "no such member"),
        (Use("Builder", "build_cuda_engine", 1, (), False, ""), "no such member"),
        (Use("Builder", "build_serialized_network", 1, (), False, ""), "no overload"),
        (Use("IOptimizationProfile", "set_shape", 1, ("minimum",), False, ""), "no overload"),
        (Use("ICudaEngine", "num_layers", None, (), True, ""), "can't be set"),
        (Use(MODULE, "Engine", 1, (), False, ""), "no such class"),
    ],
)
def test_a_wrong_use_is_seen(use: Use, why: str, surface: dict[str, Any]) -> None:
    assert why in (problem(use, surface) or "")


def test_the_listeners_override_real_methods(surface: dict[str, Any]) -> None:
    """What TensorRT calls back must have its names and arguments, or nothing would ever be called."""
    wanted = {
        ("ILogger", "log"): ["self", "severity", "msg"],
        ("IProgressMonitor", "phase_start"): ["self", "phase_name", "parent_phase", "num_steps"],
        ("IProgressMonitor", "step_complete"): ["self", "phase_name", "step"],
        ("IProgressMonitor", "phase_finish"): ["self", "phase_name"],
        ("IProfiler", "report_layer_time"): ["self", "layer_name", "ms"],
    }
    for (owner, method), arguments in wanted.items():
        (declared,) = surface[owner]["methods"][method]
        assert [argument["name"] for argument in declared["arguments"]] == arguments


CUDA_SURFACE = """
import inspect, json
from cuda.bindings import runtime
surface = {}
for name, value in vars(runtime).items():
    if name.startswith("cuda") and hasattr(value, "__members__"):
        surface[name] = sorted(value.__members__)
    elif name.startswith("cuda") and callable(value) and not isinstance(value, type):
        surface[name] = list(inspect.signature(value).parameters)
print(json.dumps([surface, [int(runtime.cudaGetDevice()[0])]]))
"""


@pytest.mark.parametrize("major", surfaces.CUDA_WHEELS)
def test_cuda_python_has_all_that_is_used(major: str, downloads: Path) -> None:
    """Its real bindings load without a driver, and say so in a status."""
    folder = surfaces.cuda_package(major, downloads)
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, "-c", CUDA_SURFACE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    surface, status = json.loads(done.stdout)
    assert status != [0] or Path("/dev/nvidia0").exists()
    for name, method in inspect.getmembers(FakeCuda, inspect.isfunction):
        if name.startswith("cuda"):  # the imitation takes what the real one does
            assert len(inspect.signature(method).parameters) - 1 == len(surface[name]), name
    found = uses.of_cuda()
    assert {use.member for use in found} >= {"cudaMallocHost", "cudaStreamBeginCapture", "cudaGraphLaunch"}
    wrong = []
    for use in found:
        if use.owner != "cudart":
            if use.member not in surface[use.owner]:
                wrong.append(use)
        elif use.member not in surface or use.arguments not in (None, len(surface[use.member])):
            wrong.append(use)
    assert wrong == []
