"""The execution providers of ONNX Runtime: by which name, from which package, and with which options.

Names and values as ONNX Runtime 1.31 takes them (https://onnxruntime.ai/docs/execution-providers/). Several of the
providers answer a wrong option with a line in the log and go on without themselves, on the CPU; so each is checked
here. What decides the precision is no option: it comes from the graph (`by_precision`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from kdeploy.engines.base import Precision
from kdeploy.errors import nearest

Value = bool | int | str
Kind = Literal["flag", "count", "text"] | tuple[str, ...]
"""What an option takes: true or false, a number from 0, any text, or one of these words."""

_BUILT = "no package brings it; build ONNX Runtime yourself with {}"


@dataclass(frozen=True)
class Provider:
    """One execution provider."""

    registered: str
    """Its name in ONNX Runtime."""
    package: str | None = None
    """The distribution that brings it, installed instead of `onnxruntime`; None: none for Linux."""
    otherwise: str = ""
    """How one comes by it where no package brings it."""
    options: Mapping[str, Kind] = field(default_factory=dict)
    flags: tuple[str, str] = ("0", "1")
    """How it spells false and true."""
    compiles: bool = False
    """It makes one node of all that it takes, and does not tell what that computes."""
    threads: str | None = None
    """Its option for the number of threads, where it has threads of its own."""
    by_precision: Mapping[Precision, Mapping[str, Value]] = field(default_factory=dict)
    """What pins it to the precision of the graph."""

    def check(self, given: Mapping[str, Value]) -> None:
        """Raise ValueError for an option that it does not have, or a value that the option does not take."""
        for name, value in given.items():
            if name not in self.options:
                known = nearest(name, self.options) or " It has none."
                raise ValueError(f"{self.registered} has no option {name!r}.{known.rstrip('.')}")
            if wanted := _refusal(self.options[name], value):
                raise ValueError(f"{self.registered} takes {wanted} as {name}, not {value!r}")

    def spell(self, given: Mapping[str, Value], precision: Precision, threads: int) -> dict[str, str]:
        """The options as ONNX Runtime takes them, with those that follow from precision and threads."""
        own: dict[str, Value] = {} if self.threads is None else {self.threads: threads}
        every = {**own, **self.by_precision.get(precision, {}), **given}
        return {name: self.flags[value] if isinstance(value, bool) else str(value) for name, value in every.items()}


def _refusal(kind: Kind, value: Value) -> str | None:
    """What the option wants, where the value is not it."""
    if isinstance(kind, tuple):
        return None if value in kind else f"one of {', '.join(kind)}"
    if kind == "flag":
        return None if isinstance(value, bool) else "true or false"
    if kind == "count":
        return None if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else "a number from 0"
    return None if isinstance(value, str) and value else "text"


PROVIDERS: Mapping[str, Provider] = {
    "cpu": Provider("CPUExecutionProvider", package="onnxruntime"),
    "cuda": Provider(
        "CUDAExecutionProvider",
        package="onnxruntime-gpu",
        options={
            "device_id": "count",
            "gpu_mem_limit": "count",
            "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
            "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
            "cudnn_conv_use_max_workspace": "flag",
            "cudnn_conv1d_pad_to_nc1d": "flag",
            "do_copy_in_default_stream": "flag",
            "use_ep_level_unified_stream": "flag",
            "enable_cuda_graph": "flag",
            "enable_skip_layer_norm_strict_mode": "flag",
            "prefer_nhwc": "flag",
            "fuse_conv_bias": "flag",
            "sdpa_kernel": "count",
            "tunable_op_enable": "flag",
            "tunable_op_tuning_enable": "flag",
            "tunable_op_max_tuning_duration_ms": "count",
        },
        # Left to itself it multiplies float32 in TF32, with 10 bits behind the point.
        by_precision={precision: {"use_tf32": False} for precision in ("float32", "float16", "int8")},
    ),
    "tensorrt": Provider(
        "TensorrtExecutionProvider",
        package="onnxruntime-gpu",
        compiles=True,
        options={
            "device_id": "count",
            "trt_max_workspace_size": "count",
            "trt_min_subgraph_size": "count",
            "trt_max_partition_iterations": "count",
            "trt_dla_enable": "flag",
            "trt_dla_core": "count",
            "trt_engine_cache_enable": "flag",
            "trt_engine_cache_path": "text",
            "trt_engine_cache_prefix": "text",
            "trt_engine_hw_compatible": "flag",
            "trt_weight_stripped_engine_enable": "flag",
            "trt_onnx_model_folder_path": "text",
            "trt_force_sequential_engine_build": "flag",
            "trt_context_memory_sharing_enable": "flag",
            "trt_layer_norm_fp32_fallback": "flag",
            "trt_timing_cache_enable": "flag",
            "trt_timing_cache_path": "text",
            "trt_force_timing_cache": "flag",
            "trt_detailed_build_log": "flag",
            "trt_build_heuristics_enable": "flag",
            "trt_sparsity_enable": "flag",
            "trt_builder_optimization_level": "count",
            "trt_auxiliary_streams": "count",
            "trt_tactic_sources": "text",
            "trt_extra_plugin_lib_paths": "text",
            "trt_profile_min_shapes": "text",
            "trt_profile_opt_shapes": "text",
            "trt_profile_max_shapes": "text",
            "trt_cuda_graph_enable": "flag",
            "trt_dump_subgraphs": "flag",
            "trt_dump_ep_context_model": "flag",
            "trt_ep_context_file_path": "text",
            "trt_ep_context_embed_mode": ("0", "1"),
        },
        by_precision={"float16": {"trt_fp16_enable": True}, "int8": {"trt_int8_enable": True}},
    ),
    "openvino": Provider(
        "OpenVINOExecutionProvider",
        package="onnxruntime-openvino",
        compiles=True,
        options={
            "device_type": "text",  # CPU, GPU, NPU, GPU.1, AUTO:GPU,CPU, HETERO:..., MULTI:...
            "device_luid": "text",
            "cache_dir": "text",
            "load_config": "text",
            "model_priority": ("LOW", "MEDIUM", "HIGH", "DEFAULT"),
            "num_of_threads": "count",
            "num_streams": "count",
            "enable_opencl_throttling": "flag",
            "enable_qdq_optimizer": "flag",
            "disable_dynamic_shapes": "flag",
            "reshape_input": "text",
            "layout": "text",
        },
        flags=("false", "true"),
        threads="num_of_threads",
        # ACCURACY: each operator in the precision that the graph gives it.
        by_precision={precision: {"precision": "ACCURACY"} for precision in ("float32", "float16", "int8")},
    ),
    "xnnpack": Provider(
        "XnnpackExecutionProvider",
        otherwise=_BUILT.format("--use_xnnpack"),
        options={"intra_op_num_threads": "count"},
        threads="intra_op_num_threads",
    ),
    "acl": Provider(
        "ACLExecutionProvider",
        otherwise=_BUILT.format("--use_acl"),
        flags=("false", "true"),
        by_precision={"float32": {"enable_fast_math": False}},  # fast math: float32 multiplied in bfloat16
    ),
    "qnn": Provider(
        "QNNExecutionProvider",
        package="onnxruntime-qnn",
        compiles=True,
        options={
            "backend_type": ("cpu", "gpu", "htp", "saver", "ir"),
            "backend_path": "text",
            "profiling_level": ("off", "basic", "detailed"),
            "profiling_file_path": "text",
            "rpc_control_latency": "count",
            "vtcm_mb": "count",
            "htp_performance_mode": (
                "burst",
                "balanced",
                "default",
                "high_performance",
                "high_power_saver",
                "low_balanced",
                "low_power_saver",
                "power_saver",
                "extreme_power_saver",
                "sustained_high_performance",
            ),
            "qnn_saver_path": "text",
            "qnn_context_priority": ("low", "normal", "normal_high", "high"),
            "htp_graph_finalization_optimization_mode": ("0", "1", "2", "3"),
            "soc_model": "count",
            "htp_arch": ("0", "68", "69", "73", "75"),
            "device_id": "count",
            "enable_htp_weight_sharing": "flag",
            "offload_graph_io_quantization": "flag",
        },
        by_precision={"float32": {"enable_htp_fp16_precision": False}},
    ),
    "coreml": Provider(
        "CoreMLExecutionProvider",
        otherwise="the package onnxruntime brings it on macOS",
        compiles=True,
        options={
            "ModelFormat": ("MLProgram", "NeuralNetwork"),
            "MLComputeUnits": ("ALL", "CPUOnly", "CPUAndGPU", "CPUAndNeuralEngine"),
            "RequireStaticInputShapes": "flag",
            "EnableOnSubgraphs": "flag",
            "SpecializationStrategy": ("Default", "FastPrediction"),
            "ProfileComputePlan": "flag",
            "ModelCacheDirectory": "text",
        },
        by_precision={"float32": {"AllowLowPrecisionAccumulationOnGPU": False}},
    ),
}
