"""The rows of one network's table of engines: ours, and others' int8 beside them."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from interleaved import Call

from kdeploy import engines
from kdeploy.engines.base import images_at_once
from kdeploy.engines.onnxruntime import OnnxRuntime
from kdeploy.recipe.schema import EngineSpec
from kdeploy.stages.engines import BuildEngine
from kdeploy.stages.model import ModelRun, built
from kdeploy.stages.precisions import made_of_float32
from kdeploy.stages.quantize import Quantize

FURTHER = (
    EngineSpec(engine="pytorch", options={"compile": True}, variant="compiled"),
    EngineSpec(engine="onnxruntime", precision="float16"),
    EngineSpec(engine="openvino", precision="bfloat16"),
)
TFLITE = {"float32": "pretrainedResnet.tflite", "int8": "pretrainedResnet_quant.tflite"}
Opener = Callable[[], Call]


@dataclass(frozen=True)
class Row:
    """One line of a network's table. opener: opens it in a process; predict: classes of images; files: what ships."""

    opener: Opener
    predict: Callable[[np.ndarray], np.ndarray]
    files: tuple[Path, ...]


def build_further(run: ModelRun) -> None:
    """The engines beside those that every engine and precision of a command line give."""
    for label, spec in made_of_float32(FURTHER).items():
        run.do(Quantize(run.recipe.name, label, spec))
    for spec in FURTHER:
        run.do(BuildEngine(run.recipe.name, spec))


def ours(run: ModelRun) -> dict[str, Row]:
    """The engine folders of kdeploy, torch eager among them."""
    rows = {}
    further = [run.folder / "engines" / BuildEngine(run.recipe.name, one).row for one in FURTHER]
    for folder in [*built(run), *further]:
        manifest = engines.read_manifest(folder)
        files = tuple(folder / name for name in manifest.files)
        rows[" ".join(filter(None, (manifest.engine, manifest.precision, manifest.variant)))] = Row(
            partial(open_folder, folder, run.asked.shape), partial(predict_folder, folder), files
        )
    return rows


def peers(run: ModelRun, folder: Path) -> dict[str, Row]:
    """Others' int8 of the same float32 file, calibrated on the same images."""
    source, images = run.written[0], run.splits.train.images
    theirs = folder / "peers"
    theirs.mkdir()
    made = {
        "onnxruntime int8, its quantiser's defaults": quantised_by_onnxruntime(source, images, theirs),
        "openvino int8, NNCF's defaults": quantised_by_nncf(source, images, theirs),
    }
    openers = {".onnx": open_onnx, ".xml": open_openvino}
    return {
        key: Row(
            partial(openers[path.suffix], path, run.asked.shape),
            partial(predict_by, openers[path.suffix], path),
            (path,) if path.suffix == ".onnx" else (path, path.with_suffix(".bin")),
        )
        for key, path in made.items()
    }


def mlperf_tiny(folder: Path) -> dict[str, Row]:
    """MLPerf Tiny's two files through LiteRT; their classes are in the order of CIFAR-10's folders."""
    return {
        f"LiteRT {precision}, MLPerf Tiny's ResNet-8": Row(
            partial(open_tflite, folder / name, timed=True), partial(predict_by_litert, folder / name), (folder / name,)
        )
        for precision, name in TFLITE.items()
    }


def quantised_by_onnxruntime(source: Path, images: np.ndarray, folder: Path) -> Path:
    """`quantize_static` as it comes."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    name = input_name(source)

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # it is not typed
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.left, None)
            return None if image is None else {name: image[None]}

    target = folder / "onnxruntime.onnx"
    with redirect_stdout(io.StringIO()):
        quantize_static(source, target, Reader())
    return target


def quantised_by_nncf(source: Path, images: np.ndarray, folder: Path) -> Path:
    """`nncf.quantize` as it comes."""
    import nncf
    import openvino

    with redirect_stdout(io.StringIO()):
        model = nncf.quantize(openvino.Core().read_model(source), nncf.Dataset(list(images[:, None])))
    target = folder / "openvino.xml"
    openvino.save_model(model, target, compress_to_fp16=False)
    return target


def input_name(path: Path) -> str:
    with OnnxRuntime().open_file(path, threads=1) as session:
        return session.input_name


def open_folder(folder: Path, shape: tuple[int, int, int]) -> Call:
    session = engines.open_engine(folder, threads=1)
    return partial(session.run, image(shape))


def open_onnx(path: Path, shape: tuple[int, int, int] | None) -> Call:
    session = OnnxRuntime().open_file(path, threads=1)
    return partial(session.run, image(shape)) if shape else session.run


def open_openvino(path: Path, shape: tuple[int, int, int] | None) -> Call:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()

    def run(images: np.ndarray) -> np.ndarray:
        request.infer({0: images}, share_inputs=True)
        return np.array(request.get_output_tensor(0).data)

    return partial(run, image(shape)) if shape else run


def open_tflite(path: Path, *, timed: bool = False) -> Call:
    """Takes uint8 `[1, 32, 32, 3]`, of which the file wants float32, or int8 from -128."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(images: np.ndarray) -> np.ndarray:
        pixels = images.astype(np.float32) if taken["dtype"] == np.float32 else (images.astype(np.int16) - 128)
        interpreter.set_tensor(taken["index"], pixels.astype(taken["dtype"], copy=False))
        interpreter.invoke()
        return interpreter.get_tensor(given["index"])

    return partial(run, image((3, 32, 32))) if timed else run


def image(shape: tuple[int, int, int]) -> np.ndarray:
    """One seeded image `[1, H, W, C]`."""
    channels, height, width = shape
    return np.random.default_rng(0).integers(0, 256, (1, height, width, channels), dtype=np.uint8)


def predict_folder(folder: Path, images: np.ndarray) -> np.ndarray:
    with engines.open_engine(folder, threads=1) as session:
        return classes_of(session.run, images)


def predict_by(opener: Callable[..., Call], path: Path, images: np.ndarray) -> np.ndarray:
    return classes_of(opener(path, None), images)


def predict_by_litert(path: Path, images: np.ndarray) -> np.ndarray:
    return classes_of(open_tflite(path), images, batch=1)


def classes_of(run: Callable[[np.ndarray], np.ndarray], images: np.ndarray, batch: int | None = None) -> np.ndarray:
    batch = batch or images_at_once(images.shape[1], images.shape[2])
    parts = (run(images[begin : begin + batch]) for begin in range(0, len(images), batch))
    return np.concatenate([part.argmax(axis=1) for part in parts])
