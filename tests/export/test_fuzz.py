"""Thousands of damaged ONNX files: each is opened or refused in a sentence, and nothing hangs or dies."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from kdeploy.export.opening import Limits, Opener
from kdeploy.quantize.schemes import SCHEMES
from kdeploy.quantize.static import quantize
from tests.export.theirs import SHAPE, network, write

LIMITS = Limits(memory_bytes=2 << 30, seconds=10)
FAST, MANY = 150, 4000
_TAGS = (0x08, 0x0A, 0x12, 0x1A, 0x22, 0x2A, 0x32, 0x3A)
"""The beginnings of protobuf's first fields: bytes that make a parser read something else."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> list[bytes]:
    """Real files: with and without softmax, raw images, fixed batch, int8, and one with data beside it."""
    folder = tmp_path_factory.mktemp("whole")
    made = [
        write(folder / "plain.onnx"),
        write(folder / "fixed.onnx", batch=1, opset=12, softmax=True),
        write(folder / "raw.onnx", dtype=TensorProto.UINT8, last=True),
    ]
    images = np.random.default_rng(0).standard_normal((8, *SHAPE)).astype(np.float32)
    quantize(made[0], folder / "int8.onnx", scheme=SCHEMES["x86-vnni"], images=images)
    onnx.save(network(), folder / "outside.onnx", save_as_external_data=True, location="data.bin", size_threshold=0)
    return [path.read_bytes() for path in (*made, folder / "int8.onnx", folder / "outside.onnx")]


def damaged(whole: list[bytes], random: np.random.Generator) -> bytes:
    """One of the files with one to four of: bits flipped, a number blown up, a part cut, doubled, moved or foreign."""
    content = bytearray(whole[random.integers(len(whole))])
    for _ in range(random.integers(1, 5)):
        if len(content) < 16:
            break
        at, length = int(random.integers(len(content))), int(random.integers(1, 64))
        kind = random.integers(8)
        if kind == 0:
            content[at] ^= 1 << int(random.integers(8))
        elif kind == 1:
            content[at] = int(random.choice(_TAGS))
        elif kind == 2:  # a varint that says 2^63
            content[at : at + 1] = b"\xff" * 9 + b"\x01"
        elif kind == 3:
            del content[at : at + length]
        elif kind == 4:
            content[at:at] = content[at : at + length]
        elif kind == 5:
            content = content[: max(at, 8)]
        elif kind == 6:
            other = whole[random.integers(len(whole))]
            begin = int(random.integers(len(other)))
            content[at : at + length] = other[begin : begin + length]
        else:
            content[at : at + length] = random.bytes(length)
    return bytes(content)


def assault(whole: list[bytes], count: int, seed: int, folder: Path) -> tuple[int, int]:
    """How many of `count` damaged files were opened, and refused."""
    random = np.random.default_rng(seed)
    opened = refused = 0
    path = folder / "damaged.onnx"
    with Opener(LIMITS) as opener:
        for number in range(count):
            path.write_bytes(damaged(whole, random))
            said = opener.refusal(path)
            if said is None:
                opened += 1
                continue
            refused += 1
            sentence = f"file {number} of seed {seed}: {said!r}"
            assert str(path) in said, sentence
            assert "\n" not in said, sentence
            assert said.endswith("."), sentence
            assert len(said) < 1000, sentence
    return opened, refused


def test_damaged_files_are_opened_or_refused(whole, tmp_path):
    begun = time.monotonic()
    opened, refused = assault(whole, FAST, 0, tmp_path)
    assert opened + refused == FAST
    assert refused > FAST // 2, "the damage is real"
    assert opened > 0, "and not everything is refused"
    assert time.monotonic() - begun < FAST * LIMITS.seconds


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_thousands_of_damaged_files(seed, whole, tmp_path):
    opened, refused = assault(whole, MANY // 2, seed, tmp_path)
    assert opened + refused == MANY // 2
    assert refused > opened > 0
