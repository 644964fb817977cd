"""A run that might have been: what the report's tests show."""

from __future__ import annotations

import numpy as np

from kdeploy.bench.results import Accuracy, Latency, Measurement, Percentile
from kdeploy.parity.record import Parity
from kdeploy.report.data import Epoch, Gate, LayerCost, Made, ReportData, Sensitivity, Stage
from kdeploy.report.rows import rows_from

CLASSES = tuple(f"{digit}" for digit in range(10))
LABELS = np.random.default_rng(0).integers(0, 10, 360)
MACHINE = {
    "processor": "Intel(R) Xeon(R) Processor @ 2.10GHz",
    "cores": 2,
    "instruction_sets": ["AVX2", "AVX-512", "AVX-512 VNNI"],
    "memory_bytes": 8_330_000_000,
    "kernel": "6.8.0-45-generic",
    "python": "3.11.9",
    "onnxruntime": "1.31.0",
    "container": "none",
}


def measurement(
    role: str,
    engine: str,
    precision: str,
    *,
    p50_ms: float,
    correct: int,
    size_bytes: int,
    parameters: int | None,
    macs: int | None,
    calls: int = 1200,
    machine=MACHINE,
) -> Measurement:
    draw = np.random.default_rng(sum(map(ord, role + engine + precision)))
    calm = p50_ms * draw.lognormal(0.0, draw.uniform(0.012, 0.045), calls)
    disturbed = draw.random(calls) < 0.04
    samples = np.where(disturbed, calm * (1.04 + draw.exponential(draw.uniform(0.05, 0.2), calls)), calm)
    predictions = LABELS.copy()
    wrong = np.random.default_rng(7).permutation(360)[: 360 - correct]
    predictions[wrong] = (predictions[wrong] + 1) % 10
    return Measurement(
        name=f"{role}-{engine}-{precision}",
        role=role,
        engine=engine,
        precision=precision,
        artifact=f"{sum(map(ord, role)):064x}",
        size_bytes=size_bytes,
        parameters=parameters,
        macs=macs,
        load_ms=20.0,
        first_inference_ms=4 * p50_ms,
        threads=1,
        latency=(latency(1, samples), latency(32, samples[:100] * 20)),
        accuracy=accuracy(predictions, correct),
        session={"version": "1.31.0"},
        machine=machine,
        measured_at="2026-02-03T10:11:12+00:00",
    )


def latency(batch: int, samples) -> Latency:
    def percentile(share: float) -> Percentile:
        value = float(np.quantile(samples, share))
        return Percentile(value_ms=value, low_ms=0.99 * value, high_ms=1.02 * value)

    duration_s = float(samples.sum()) / 1000
    return Latency(
        batch=batch,
        count=len(samples),
        warmup_count=20,
        duration_s=duration_s,
        p50=percentile(0.5),
        p90=percentile(0.9),
        p99=percentile(0.99) if len(samples) >= 662 else None,
        throughput_per_s=batch * len(samples) / duration_s,
        samples_ms=tuple(float(sample) for sample in samples),
    )


def accuracy(predictions, correct: int) -> Accuracy:
    samples = len(predictions)
    share, z = correct / samples, 1.959964
    centre = (share + z * z / (2 * samples)) / (1 + z * z / samples)
    reach = z / (1 + z * z / samples) * (share * (1 - share) / samples + z * z / (4 * samples**2)) ** 0.5
    per_class = {name: float((predictions[int(name) == LABELS] == int(name)).mean()) for name in CLASSES}
    return Accuracy(
        split="test",
        samples=samples,
        correct=correct,
        value=share,
        low=centre - reach,
        high=centre + reach,
        per_class=per_class,
        predictions=tuple(int(value) for value in predictions),
    )


def measurements() -> list[Measurement]:
    """In no particular order, as files come from a folder."""
    student = {"parameters": 20_070, "macs": 460_000}
    teacher = {"parameters": 1_078_000, "macs": 41_200_000}
    return [
        measurement("student", "onnxruntime", "int8", p50_ms=0.0412, correct=351, size_bytes=38_912, **student),
        measurement("student", "onnxruntime", "float32", p50_ms=0.0587, correct=352, size_bytes=92_160, **student),
        measurement("alone", "pytorch", "float32", p50_ms=0.981, correct=345, size_bytes=88_064, calls=500, **student),
        measurement("teacher", "onnxruntime", "float32", p50_ms=0.872, correct=357, size_bytes=4_330_000, **teacher),
        measurement("student", "pytorch", "float32", p50_ms=0.992, correct=352, size_bytes=88_064, **student),
        measurement("teacher", "pytorch", "float32", p50_ms=4.31, correct=357, size_bytes=4_352_000, **teacher),
    ]


def report(**changes) -> ReportData:
    found = measurements()
    content = {
        "title": "quickstart",
        "about": "A teacher for handwritten digits, and a student 50 times smaller that learns from it.",
        "created": "2026-02-03 10:14 UTC",
        "kdeploy": "0.1.0",
        "revision": "4d03b34a7f0c2e5b",
        "seed": 0,
        "recipe_yaml": "name: quickstart\nseed: 0\ndata:\n  source: sklearn-digits\n  validation: 0.1\n",
        "baseline": "teacher-pytorch-float32",
        "shipped": "student-onnxruntime-int8",
        "rows": rows_from(found, baseline="teacher-pytorch-float32"),
        "measurements": found,
        "curves": {"teacher": curve(20, 0.985, 3), "alone": curve(30, 0.957, 1), "student": curve(30, 0.974, 2)},
        "parity": {
            "student.float32.onnx": parity(2.1e-7, 0.9999999, 1.0, 1e-4),
            "student.int8.onnx": parity(0.051, 0.99871, 0.992, None),
        },
        "gates": [
            Gate(
                name="parity of student.float32.onnx",
                row="student-onnxruntime-float32",
                bound="within 0.0001 of torch's scale, cosine at least 0.9999",
                value="difference 2.1e-07, cosine 1.000000",
                passed=True,
            ),
            Gate(
                name="int8 drop",
                row="student-onnxruntime-int8",
                bound="at most 1.0 points below float32, on validation",
                value="0.3 points",
                passed=True,
            ),
        ],
        "provenance": [
            Stage(name="train/teacher", seconds=61.2, outputs={"networks/teacher/teacher.safetensors": "ab" * 32}),
            Stage(name="train/student", seconds=38.4, outputs={"networks/student/student.safetensors": "cd" * 32}),
            Stage(name="export/student", seconds=4.1, outputs={"export/student.float32.onnx": "ef" * 32}),
        ],
        "machine": MACHINE,
        "warnings": [],
        "paths": {"run": "runs/quickstart", "bundle": "runs/quickstart/quickstart.kdz"},
    }
    return ReportData.model_validate(content | changes)


def curve(epochs: int, final: float, seed: int) -> tuple[Epoch, ...]:
    draw = np.random.default_rng(seed)
    rise = 1 - np.exp(-np.arange(1, epochs + 1) / (epochs / 6))
    noise = draw.normal(0, 0.006, epochs) * np.linspace(1.6, 0.2, epochs)
    return tuple(
        Epoch(
            epoch=place + 1,
            train_loss=float(2.3 * (1 - rise[place]) + 0.06 + abs(noise[place])),
            validation_accuracy=float(np.clip(0.1 + (final - 0.1) * rise[place] / rise[-1] + noise[place], 0, 1)),
            lr=float(0.05 * (1 + np.cos(np.pi * place / epochs))),
        )
        for place in range(epochs)
    )


def parity(difference: float, cosine: float, agreement: float, tolerance: float | None) -> Parity:
    return Parity(
        samples=256,
        batches=(1, 2, 32),
        compared="centred log-probabilities",
        max_abs_difference=10 * difference,
        relative_difference=difference,
        cosine_similarity=cosine,
        top1_agreement=agreement,
        tolerance=tolerance,
        min_cosine_similarity=None if tolerance is None else 0.9999,
        passed=True,
        reasons=(),
    )


def whole_report(**changes) -> ReportData:
    """The same with everything that a report can show: memory, verdicts, layers, sensitivity and lineage."""
    found = [judged(one, place) for place, one in enumerate(measurements())]
    content = {
        "measurements": found,
        "rows": rows_from(found, baseline="teacher-pytorch-float32"),
        "sensitivity": [sensitivity()],
        "lineage": LINEAGE,
    }
    return report(**(content | changes))


def judged(one: Measurement, place: int) -> Measurement:
    valid = one.name != "alone-pytorch-float32"
    torch = one.engine == "pytorch"
    more = {
        "memory": {"peak_bytes": (310 if torch else 61) * 2**20 + one.size_bytes, "runtime_bytes": 48 * 2**20},
        "verdict": {
            "valid": valid,
            "reasons": () if valid else ("the medians of its halves are 7.1 % apart, over 5 %",),
            "warnings": ("temperatures",),
        },
        "layers": None if torch else layers(seed=place, reaches=9 if one.role == "student" else 24),
    }
    return Measurement.model_validate(one.model_dump() | more)


def layers(seed: int, reaches: int) -> list[dict[str, object]]:
    draw = np.random.default_rng(seed)
    operators = [("Conv", "Relu", "Add")[place % 3] for place in range(reaches)] + ["GlobalAveragePool", "Gemm"]
    times = draw.lognormal(1.0, 0.6, len(operators)) * [9.0 if name == "Conv" else 1.0 for name in operators]
    return [
        {"name": f"/block.{place}/{name}", "operator": name, "median_us": time, "share": time / times.sum()}
        for place, (name, time) in enumerate(zip(operators, times.tolist(), strict=True))
    ]


def sensitivity() -> Sensitivity:
    draw = np.random.default_rng(5)
    costs = [
        LayerCost(
            layer=f"/block.{place}/Conv",
            operator="Conv",
            divergence=float(draw.lognormal(-8, 1.5)),
            same_class=0.99,
            accuracy_points=float(draw.normal(-0.1, 0.2)),
        )
        for place in range(9)
    ]
    return Sensitivity(name="student, x86-vnni", layers=tuple(costs), kept_float32=("/block.0/Conv",))


def made(name: str, file: str, seed: str, stage: str | None, *made_from: str, ships: bool = False) -> Made:
    return Made(name=name, file=file, sha256=seed * 32, stage=stage, made_from=made_from, ships=ships)


_TEACHER, _STUDENT = "networks/teacher/teacher.safetensors", "networks/student/student.safetensors"
_FLOAT32, _INT8 = "export/student.float32.onnx", "export/student.int8.onnx"
_ENGINE = "engines/student-onnxruntime-int8/model.onnx"
LINEAGE = (
    made("checkpoint of teacher", "teacher.pt", "1f", None, ships=True),
    made("teacher", _TEACHER, "ab", "networks/teacher", "teacher.pt", ships=True),
    made("teacher · PyTorch float32", "engines/teacher-pytorch/teacher.safetensors", "ab", "engines/a", _TEACHER),
    made("student", _STUDENT, "cd", "networks/student", _TEACHER, ships=True),
    made("student · ONNX float32", _FLOAT32, "ef", "export/student", _STUDENT, ships=True),
    made("student · ONNX int8", _INT8, "09", "quantize/student", _FLOAT32, ships=True),
    made("student · ONNX Runtime int8", _ENGINE, "09", "engines/b", _INT8, ships=True),
    made("bundle", "quickstart.kdz", "77", "bundle", _ENGINE, ships=True),
)
