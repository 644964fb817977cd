"""What this machine can do for kdeploy, what stands in the way, and the command that puts it right."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from kdeploy import events
from kdeploy.errors import install_command, on_device
from kdeploy.machine import boards, conditions, host, installed
from kdeploy.machine.boards.judging import judge_board, read_power_mode
from kdeploy.machine.boards.schema import Board
from kdeploy.machine.findings import Finding as Finding

if TYPE_CHECKING:
    from kdeploy.engines.base import Availability

_NOT_FOR_USERS = frozenset({"dev"})
_NOT_FOR_DEVICES = frozenset({"hf", "onnx", "simplify", "timm", "train"})
"""Extras for what is done before a device comes into it."""
_VNNI = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


class Diagnosis(BaseModel):
    """Everything `kdeploy doctor` found, in the order in which it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    machine: dict[str, Any]
    """`kdeploy.machine.fingerprint()`."""
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that stand in the way."""
        return tuple(finding for finding in self.findings if finding.level == "problem")


def examine(board: str | None = None) -> Diagnosis:
    """Look at this machine and at what is installed. Never raises for what it finds broken.

    board: the name or file of a profile that it is compared with; None: that of the board which it is, if one is known.
    Raises a UserError for a profile that there is not, or can't be read.
    """
    asked = None if board is None else boards.find(board)
    with events.task("Looking at this machine and what is installed"):
        machine = host.fingerprint()
        findings = [
            *judge_machine(machine),
            *judge_processor(host.instruction_sets(), machine["architecture"]),
            *_against_profile(asked, machine),
            judge_python(sys.version_info[:2]),
            *judge_onnxruntime(installed.onnxruntime_distributions(), installed.onnxruntime()),
            *judge_engines(_engines()),
            *_judge_training(),
            *judge_extras(_extras()),
        ]
    return Diagnosis(machine=machine, findings=tuple(findings))


def _against_profile(asked: Board | None, machine: Mapping[str, Any]) -> Iterator[Finding]:
    known = boards.recognise(machine)
    board = asked or known
    if board is not None:
        same = known is not None and known.name == board.name
        yield from judge_board(board, machine, conditions.read(), read_power_mode(), recognised=same)


def judge_machine(machine: Mapping[str, Any]) -> Iterator[Finding]:
    """What of the machine itself bears on a measurement, from its fingerprint."""
    gibibytes = machine["memory_bytes"] / 2**30
    name = " · ".join(filter(None, [machine["board"], machine["processor"], machine["architecture"]]))
    usable, logical = machine["cores"]["usable"], machine["cores"]["logical"]
    yield Finding(level="ok", what="machine", detail=f"{name}; {usable} of {logical} cores, {gibibytes:.1f} GiB memory")
    if machine["emulation"]:
        yield Finding(
            level="problem",
            what="emulation",
            detail=f"This process seems to be emulated ({machine['emulation']}): its timings mean nothing.",
            fix="Measure on the real device.",
        )
    if machine["governor"] not in (None, "performance"):
        yield Finding(
            level="note",
            what="frequency governor",
            detail=f"It is {machine['governor']!r}: the clock follows the load, and short measurements scatter.",
            fix="sudo cpupower frequency-set --governor performance",
        )
    if machine["virtual_machine"]:
        detail = "A virtual machine: neighbours on the same host may disturb timings; prefer longer measurements."
        yield Finding(level="note", what="virtual machine", detail=detail)


def judge_processor(instruction_sets: frozenset[str], architecture: str) -> Iterator[Finding]:
    """What the instruction sets mean for int8 inference and for training in bfloat16."""
    found = ", ".join(sorted(instruction_sets)) or "none of those that matter"
    yield Finding(level="ok", what="instruction sets", detail=found)
    yield _judge_int8(instruction_sets, architecture)
    fast = sorted(instruction_sets & _BFLOAT16)
    if fast:
        detail = f"Training in bfloat16 is accelerated by the processor ({', '.join(fast)})."
        yield Finding(level="ok", what="bfloat16", detail=detail)
    else:
        detail = "The processor computes no bfloat16: training on it stays in float32."
        yield Finding(level="note", what="bfloat16", detail=detail)


def _judge_int8(instruction_sets: frozenset[str], architecture: str) -> Finding:
    if vnni := sorted(instruction_sets & _VNNI):
        detail = f"Scheme x86-vnni: uint8 activations, full 8-bit weights ({', '.join(vnni)} add into 32 bits)."
        return Finding(level="ok", what="int8", detail=detail)
    if "avx2" in instruction_sets:
        # vpmaddubsw adds two products into 16 bits and saturates; ONNX Runtime's advice is `reduce_range`.
        detail = (
            "Scheme x86-avx2: weights in 7 bits, because without VNNI products are added in 16 bits and may saturate."
        )
        return Finding(level="note", what="int8", detail=detail)
    if "asimddp" in instruction_sets:
        detail = "Scheme arm64: int8 activations and weights (NEON dot product)."
        return Finding(level="ok", what="int8", detail=detail)
    if "asimd" in instruction_sets:
        detail = (
            "Scheme arm64, but without NEON's dot product: int8 saves size, seldom time. Measure it against float32."
        )
        return Finding(level="note", what="int8", detail=detail)
    detail = f"No int8 acceleration is known on this {architecture} processor: prefer float32 engines."
    return Finding(level="note", what="int8", detail=detail)


def judge_python(version: tuple[int, int]) -> Finding:
    """Whether this Python carries all of kdeploy."""
    detail = f"Python {platform.python_version()}"
    if version >= (3, 11):
        return Finding(level="ok", what="python", detail=detail)
    return Finding(
        level="note",
        what="python",
        detail=f"{detail}: the device side works; distilling and exporting are tested on 3.11 and newer.",
        fix="To train here, make the virtual environment with Python 3.11 or newer.",
    )


def judge_onnxruntime(distributions: Mapping[str, str], imported: installed.OnnxRuntime | str) -> Iterator[Finding]:
    """ONNX Runtime as installed (name and version of each distribution) and as imported."""
    if clash := installed.onnxruntime_clash(distributions):
        detail, fix = clash
        yield Finding(level="problem", what="onnxruntime", detail=f"{detail}.", fix=fix)
    if isinstance(imported, str):
        detail = f"It cannot be imported ({imported})." if distributions else "It is not installed."
        fix = installed.onnxruntime_again(distributions)
        yield Finding(level="problem", what="onnxruntime", detail=detail, fix=fix)
        return
    providers = ", ".join(imported.providers)
    yield Finding(level="ok", what="onnxruntime", detail=f"{imported.version}; execution providers: {providers}")


def judge_engines(engines: Mapping[str, Availability]) -> Iterator[Finding]:
    """Which engines can be used here."""
    for name, found in engines.items():
        if found.ok:
            yield Finding(level="ok", what=f"engine {name}", detail=found.version or "available")
        else:
            yield Finding(
                level="note", what=f"engine {name}", detail=found.reason or "not available", fix=found.install
            )


def judge_torch(torch: installed.Torch | str | None) -> Iterator[Finding]:
    """torch, its devices, and torchvision beside it."""
    if torch is None:
        detail = "Not installed: this machine can run, bench and bundle engines, not distil."
        yield Finding(level="note", what="torch", detail=detail, fix="pip install 'kdeploy[train]'")
        return
    if isinstance(torch, str):
        yield Finding(
            level="problem",
            what="torch",
            detail=f"It is installed but cannot be imported ({torch}).",
            fix="pip install --force-reinstall torch torchvision",
        )
        return
    build = f"built for CUDA {torch.cuda_build}" if torch.cuda_build else "a CPU-only build"
    yield Finding(
        level="ok", what="torch", detail=f"{torch.version}, {build}; devices: {', '.join(['cpu', *torch.gpus])}"
    )
    if torch.nvidia_driver and not torch.gpus:
        yield Finding(
            level="problem",
            what="torch and the GPU",
            detail=f"There is an NVIDIA driver, but torch ({build}) can use no GPU.",
            fix="Choose the command for this driver at https://pytorch.org/get-started/locally",
        )
    yield from _judge_torchvision(torch)


def _judge_torchvision(torch: installed.Torch) -> Iterator[Finding]:
    if torch.torchvision is None:
        yield Finding(level="note", what="torchvision", detail="Not installed.", fix="pip install 'kdeploy[train]'")
    elif torch.torchvision_error is None:
        yield Finding(level="ok", what="torchvision", detail=torch.torchvision)
    else:
        index = "" if torch.cuda_build else " --index-url https://download.pytorch.org/whl/cpu"
        yield Finding(
            level="note",
            what="torchvision",
            detail=f"The compiled part of {torch.torchvision} does not load with torch {torch.version}: models, data "
            f"sets and transforms work in kdeploy, box operators do not ({torch.torchvision_error}).",
            fix=f"pip install --force-reinstall --no-deps torchvision=={torch.torchvision.partition('+')[0]}{index}",
        )


def judge_extras(missing: Mapping[str, list[str]]) -> Iterator[Finding]:
    """What each extra of kdeploy lacks, with the command that installs it."""
    for extra, packages in missing.items():
        if extra in _NOT_FOR_USERS:
            continue
        if packages:
            yield Finding(
                level="note",
                what=f"kdeploy[{extra}]",
                detail=f"missing: {', '.join(packages)}",
                fix=install_command(extra),
            )
        else:
            yield Finding(level="ok", what=f"kdeploy[{extra}]", detail="all installed")


def _engines() -> dict[str, Availability]:
    from kdeploy import engines  # here, not above: engines look at this machine themselves

    found = {name: engines.find(name).available() for name in engines.names()}
    return {name: one for name, one in found.items() if one.ok or not (on_device() and name == "pytorch")}


def _judge_training() -> Iterator[Finding]:
    """Nothing on a device that has no torch: it needs none."""
    torch = installed.torch()
    if torch is not None or not on_device():
        yield from judge_torch(torch)


def _extras() -> dict[str, list[str]]:
    missing = installed.missing_by_extra(installed.own_requirements())
    return {name: packages for name, packages in missing.items() if not (on_device() and name in _NOT_FOR_DEVICES)}
