"""The processor as Linux describes it: its name and the instruction sets that matter to inference and training."""

from __future__ import annotations

import re
from dataclasses import dataclass

MEANINGFUL = frozenset(
    {
        "avx2",  # x86: 256-bit integers
        "avx512f",  # x86: 512-bit registers
        "avx512_vnni",  # x86: int8 dot product, 512-bit
        "avx_vnni",  # x86: int8 dot product, 256-bit
        "avx512_bf16",  # x86: bfloat16 dot product
        "amx_bf16",  # x86: bfloat16 tiles
        "amx_int8",  # x86: int8 tiles
        "asimd",  # arm64: NEON
        "asimddp",  # arm64: NEON int8 dot product
        "i8mm",  # arm64: int8 matrix multiply
        "bf16",  # arm64: bfloat16 dot product and matrix multiply
        "sve",  # arm64: scalable vectors
    }
)
"""Names as in the `flags` (x86) and `Features` (arm64) lines of `/proc/cpuinfo`."""

# arm64 kernels print numbers; these are the cores of the boards people deploy to (MIDR_EL1 implementer and part).
_ARM_CORES = {
    ("0x41", "0xd03"): "Cortex-A53",
    ("0x41", "0xd04"): "Cortex-A35",
    ("0x41", "0xd05"): "Cortex-A55",
    ("0x41", "0xd07"): "Cortex-A57",
    ("0x41", "0xd08"): "Cortex-A72",
    ("0x41", "0xd09"): "Cortex-A73",
    ("0x41", "0xd0a"): "Cortex-A75",
    ("0x41", "0xd0b"): "Cortex-A76",
    ("0x41", "0xd0c"): "Neoverse-N1",
    ("0x41", "0xd40"): "Neoverse-V1",
    ("0x41", "0xd41"): "Cortex-A78",
    ("0x41", "0xd42"): "Cortex-A78AE",
    ("0x41", "0xd49"): "Neoverse-N2",
    ("0x41", "0xd4f"): "Neoverse-V2",
}


@dataclass(frozen=True)
class Processor:
    """What `/proc/cpuinfo` says."""

    model: str
    board: str | None
    instruction_sets: frozenset[str]
    virtual: bool
    """x86 only: a hypervisor announces itself in the flags."""
    family: str | None
    """x86 or arm by the form of the text, None where it is neither; under user-mode emulation it may be the host's."""


def parse_cpuinfo(text: str) -> Processor:
    """Read the text of `/proc/cpuinfo`.

    Only instruction sets that every listed core has are counted: a process may be scheduled on any of them.
    """
    fields: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, separator, value = line.partition(":")
        if separator:
            fields.setdefault(key.strip(), []).append(value.strip())
    features = fields.get("flags") or fields.get("Features") or []
    per_core = [frozenset(line.split()) for line in features]
    common = frozenset.intersection(*per_core) if per_core else frozenset[str]()
    family = "x86" if "flags" in fields else "arm" if "Features" in fields else None
    return Processor(
        model=_model(fields),
        board=fields["Model"][0] if "Model" in fields else None,
        instruction_sets=common & MEANINGFUL,
        virtual="hypervisor" in common,
        family=family,
    )


def _model(fields: dict[str, list[str]]) -> str:
    if "model name" in fields:
        return re.sub(r"\s+", " ", fields["model name"][0])
    pairs = zip(fields.get("CPU implementer", []), fields.get("CPU part", []), strict=False)
    # dict.fromkeys: each kind of core once, in the order of the text (big.LITTLE has two).
    kinds = dict.fromkeys(_ARM_CORES.get(pair, f"arm {pair[0]}:{pair[1]}") for pair in pairs)
    return " + ".join(kinds) or "unknown"
