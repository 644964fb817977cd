"""`kdeploy export` of models and ONNX files, as typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.export.theirs import write
from tests.stages.test_model import pictures

TINY = "python:tests.export.networks:tiny"


def test_a_model_with_images_becomes_engines_and_a_table(empty, kdeploy):
    for seed, name in enumerate("ab"):
        pictures(empty / "photos" / name, 10, seed)
    words = ["export", TINY, "--shape", "3x16x12", "--data", "photos", "--engine", "onnxruntime", "--out", "out"]
    answer = kdeploy(*words, "--precision", "float32", "--precision", "int8", "--scheme", "x86-avx2")
    assert answer.status == 0, answer.err
    assert "int8 (x86-avx2)" in answer.out
    assert "10 real images, with 95 % intervals" in " ".join(answer.out.split())
    assert "classes: 2 (the folders of photos" in answer.err
    assert "weights: random" in answer.err
    assert "photos holds 20 images: parity is shown on these" in " ".join(answer.err.split())
    bench = kdeploy("bench", "out", "--min-time", "0.01", "--min-count", "2", "--json", "-")
    assert {row["precision"] for row in bench.json["rows"]} == {"float32", "int8"}


def test_a_failed_parity_is_status_3_and_bisect_names_the_module(empty, kdeploy):
    words = ["export", "python:tests.export.networks:otherwise", "--shape", "3x16x12", "--classes", "3", "--bisect"]
    answer = kdeploy(*words, "--engine", "onnxruntime")
    assert answer.status == 3
    assert "FAILED" in answer.out
    shown = " ".join(answer.out.split())
    assert "the first node whose output leaves the tolerance is network.1/OtherwiseWhenTraced" in shown
    assert "of the module network.1" in shown
    assert "nothing is made from it" in answer.err
    assert not Path("exported/otherwise/engines").exists()
    assert Path("exported/otherwise/export/otherwise.float32.bisect.json").is_file()


@pytest.mark.slow
def test_simplified_by_a_tool_in_its_own_process(empty, kdeploy):
    pytest.importorskip("onnxslim")
    answer = kdeploy("export", TINY, "--shape", "3x16x12", "--classes", "3", "--simplify", "--out", "out")
    assert answer.status == 0, answer.err
    assert "simplified: " in answer.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([TINY, "--precision", "int8"], "int8 needs images to be calibrated and checked on, and random ones would not"),
        ([TINY, "--precision", "int9"], "There is no precision 'int9'. Did you mean 'int8'?"),
        ([TINY, "--scheme", "x86"], "There is no int8 scheme 'x86'."),
        (
            [TINY, "--engine", "pytorch", "--precision", "int8", "--data", "."],
            "The engine pytorch runs in float32 alone",
        ),
        (["theirs.onnx", "--engine", "pytorch"], "theirs.onnx is ONNX, which the engine pytorch does not run"),
        ([TINY, "--engine", "onnxrutime"], "There is no engine 'onnxrutime'. Did you mean 'onnxruntime'?"),
        ([TINY, "--data", "gone"], "There is no gone; --data takes a folder of images"),
        ([TINY, "--mean", "0.5"], "--mean and --std go together: give both."),
        ([TINY, "--mean", "a", "--std", "1"], "--mean 'a' must be numbers with commas, as in 0.5,0.5,0.5."),
        ([TINY, "--size", "any"], "--size: Input should be 'fixed', 'open' or 'resize'."),
        ([TINY, "--size", "resize", "--opset", "17"], "size: resize needs opset 18, whose Resize is antialiased."),
        ([TINY, "--preprocess", "none"], "--preprocess none is for ONNX files"),
        (["gone.onnx"], "There is no file gone.onnx."),
        (["theirs.onnx"], "nothing says how they are normalised: add --mean A,B,C --std A,B,C"),
        (["theirs.onnx", "--checkpoint", "x"], "theirs.onnx has its weights in it: leave --checkpoint out."),
        (["theirs.onnx", "--size", "open"], "--size open and --preprocess outside are for networks of torch."),
        (["theirs.onnx", "--preprocess", "none", "--mean", "1", "--std", "1"], "leave --mean and --std out."),
        (["theirs.onnx", "--preprocess", "none", "--classes", "7"], "gives 4 classes, and --classes says 7"),
        (["cut.onnx", "--preprocess", "none"], "cut.onnx (900 bytes) is not an ONNX file, or was cut short."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_one_sentence_and_status_2(words, sentence, empty, kdeploy):
    whole = write(empty / "theirs.onnx").read_bytes()
    (empty / "cut.onnx").write_bytes(whole[:900])
    answer = kdeploy("export", *words, "--out", "out") if "--out" not in words else kdeploy("export", *words)
    assert answer.status == 2, answer.err
    assert answer.out == ""
    assert sentence in answer.said
    assert len(answer.said.splitlines()) == 1
    assert not Path("out").exists(), "nothing was begun"
