"""What can be asked of ONNX Runtime, and how it is told."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from kdeploy.engines._options import Options
from kdeploy.engines._providers import PROVIDERS, Provider, Value
from kdeploy.errors import nearest

Level = Literal["none", "basic", "extended", "layout", "all"]
_LEVELS: dict[Level, str] = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",
    "all": "ORT_ENABLE_ALL",
}
FOR_ONE_PROCESSOR: frozenset[Level] = frozenset({"layout", "all"})
"""Levels that lay weights out in blocks as wide as the registers of the processor at hand."""
_AFFINITY = r"(?:\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*)(?:;\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*)*"


class OnnxRuntimeOptions(Options):
    """The options of the engine `onnxruntime`."""

    graph: Literal["exported", "optimised", "ort"] = "exported"
    """exported: the file as it is, optimised as it opens; optimised: optimised once, at build; ort: that, in ONNX
    Runtime's own format, which a minimal build reads, with the configuration file for such a build beside it."""
    optimisation: Level = "all"
    inter_op_threads: int = Field(1, ge=1)
    """More than 1: branches of the graph run side by side, on so many threads."""
    spinning: bool = True
    """Workers spin between operators: the runtime's default and its lowest latency, at the price of busy cores. Set
    in any case, so that a change of that default does not change our measurements."""
    arena: bool = True
    """Memory is kept between runs."""
    memory_pattern: bool = True
    """Memory is allocated in one piece where shapes repeat."""
    affinity: str = ""
    """Processors of each worker thread, numbered from 1, workers apart by semicolons: 2;3 or 2-3;4. One entry fewer
    than there are threads, for the caller's own is not a worker."""
    provider: str = "cpu"
    provider_options: dict[str, Value] = Field(default_factory=dict)
    allow_fallback: bool = False
    """Nodes that the provider does not take may run on others. From the CPU none falls back."""

    @field_validator("affinity")
    @classmethod
    def _affinity_reads(cls, affinity: str) -> str:
        if affinity and not re.fullmatch(_AFFINITY, affinity):
            raise ValueError(f"{affinity!r} must be processors by worker, such as 2;3 or 2-3;4")
        if affinity and any(int(number) < 1 for number in re.findall(r"\d+", affinity)):
            raise ValueError(f"{affinity!r} names a processor 0, and they are numbered from 1")
        return affinity

    @field_validator("provider")
    @classmethod
    def _provider_exists(cls, provider: str) -> str:
        if provider not in PROVIDERS:
            raise ValueError(f"there is no execution provider {provider!r}.{nearest(provider, PROVIDERS).rstrip('.')}")
        return provider

    @model_validator(mode="after")
    def _fits_together(self) -> OnnxRuntimeOptions:
        self.asked.check(self.provider_options)
        if self.graph != "exported" and self.provider != "cpu":
            raise ValueError(f"a graph is optimised offline for the CPU, not for {self.provider}: leave `graph` out")
        return self

    @property
    def asked(self) -> Provider:
        """The provider that was asked for."""
        return PROVIDERS[self.provider]

    def session_options(self, threads: int, *, optimisation: Level) -> Any:
        """ONNX Runtime's SessionOptions for these options at this level. Raises ValueError for a wrong affinity."""
        import onnxruntime

        made = onnxruntime.SessionOptions()
        made.log_severity_level = 3  # errors: what is wrong with a file comes back as an exception
        made.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[optimisation])
        # XNNPACK has threads of its own, which ONNX Runtime's would only disturb.
        made.intra_op_num_threads = 1 if self.provider == "xnnpack" else threads
        made.inter_op_num_threads = self.inter_op_threads
        side_by_side = self.inter_op_threads > 1
        modes = onnxruntime.ExecutionMode
        made.execution_mode = modes.ORT_PARALLEL if side_by_side else modes.ORT_SEQUENTIAL
        made.enable_cpu_mem_arena = self.arena
        made.enable_mem_pattern = self.memory_pattern
        for pool in ("intra_op", "inter_op"):
            made.add_session_config_entry(f"session.{pool}.allow_spinning", str(int(self.spinning)))
        if self.affinity:
            workers = len(self.affinity.split(";"))
            if workers != threads - 1:
                raise ValueError(
                    f"the affinity {self.affinity!r} names processors for {workers} workers, and {threads} threads "
                    f"have {threads - 1}"
                )
            made.add_session_config_entry("session.intra_op_thread_affinities", self.affinity)
        return made
