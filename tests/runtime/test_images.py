from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdeploy.engines.base import Preprocessing
from kdeploy.errors import UserError
from kdeploy.runtime.images import read_image


def wanting(height: int, width: int, channels: int) -> Preprocessing:
    return Preprocessing(
        in_graph=True, height=height, width=width, channels=channels, mean=(0.0,) * channels, std=(1.0,) * channels
    )


def save(path: Path, pixels, **options) -> Path:
    Image.fromarray(np.asarray(pixels)).save(path, **options)
    return path


def test_a_picture_of_the_right_size_comes_as_it_is(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    result = read_image(save(tmp_path / "a.png", pixels), wanting(5, 7, 3))
    np.testing.assert_array_equal(result, pixels)
    assert result.dtype == np.uint8


def test_gray_to_rgb_and_back(tmp_path):
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    path = save(tmp_path / "gray.png", pixels)
    np.testing.assert_array_equal(read_image(path, wanting(2, 3, 1))[..., 0], pixels)
    np.testing.assert_array_equal(read_image(path, wanting(2, 3, 3)), np.repeat(pixels[..., None], 3, axis=-1))


def test_sixteen_bit_gray_is_scaled_not_clipped(tmp_path):
    path = save(tmp_path / "deep.png", np.array([[0, 257 * 100, 65535]], dtype=np.uint16))
    np.testing.assert_array_equal(read_image(path, wanting(1, 3, 1))[0, :, 0], [0, 100, 255])


def test_resizing_is_antialiased(tmp_path):
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (64, 32))
    result = read_image(save(tmp_path / "stripes.png", stripes), wanting(8, 8, 1))
    assert result.shape == (8, 8, 1)
    assert np.abs(result.astype(int) - 128).max() <= 8  # the edges see half a filter


def test_turned_upright_as_exif_says(tmp_path):
    pixels = np.zeros((4, 2, 3), dtype=np.uint8)
    pixels[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned a quarter to the right
    path = save(tmp_path / "turned.png", pixels, exif=exif)
    result = read_image(path, wanting(2, 4, 3))
    np.testing.assert_array_equal(result[:, 3], np.full((2, 3), 255))
    np.testing.assert_array_equal(result[:, :3], np.zeros((2, 3, 3)))


def refused(path: Path) -> str:
    with pytest.raises(UserError) as error:
        read_image(path, wanting(8, 8, 3))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_missing(tmp_path):
    assert "There is no image file" in refused(tmp_path / "none.png")
    assert "There is no image file" in refused(tmp_path)


def test_no_picture(tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("not a picture")
    assert "no picture format" in refused(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "webp", "tiff"])
def test_truncated(tmp_path, suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    path = save(tmp_path / f"cut.{suffix}", pixels)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "cannot be read as an image" in refused(path)


def test_broken_bytes_never_end_in_a_traceback(tmp_path):
    draw = np.random.default_rng(0)
    original = save(tmp_path / "a.png", draw.integers(0, 256, (9, 9, 3), dtype=np.uint8)).read_bytes()
    path = tmp_path / "broken.png"
    outcomes = set()
    for _ in range(200):
        content = bytearray(original)
        content[draw.integers(len(content))] ^= int(draw.integers(1, 256))
        path.write_bytes(content)
        try:
            outcomes.add(str(read_image(path, wanting(8, 8, 3)).shape))
        except UserError:
            outcomes.add("refused")
    assert outcomes == {"refused", "(8, 8, 3)"}


def test_decompression_bomb(tmp_path):
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 12_000, 12_000, 8, 0, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    assert "unpacks to more than" in refused(path)


def test_float_pictures_are_refused(tmp_path):
    path = save(tmp_path / "float.tiff", np.zeros((4, 4), dtype=np.float32))
    assert "mode F" in refused(path)
