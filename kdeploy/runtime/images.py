"""A picture file to the pixels that a network was trained on."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from kdeploy.engines.base import Preprocessing
from kdeploy.errors import UserError


def read_image(path: Path, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Read a picture as uint8 `[H, W, C]`, in the height, width and channels of `preprocessing`.

    The picture is turned upright as its EXIF orientation says, converted to gray (C = 1) or RGB (C = 3; a
    transparent picture loses its transparency), and the whole of it is resized to height x width with an
    antialiased bilinear filter: nothing is cropped, so a picture of another shape is stretched.
    Raises a UserError that names the file where it is missing, broken, no picture, or a decompression bomb.
    """
    if not path.is_file():
        raise UserError(f"There is no image file {path}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                picture = _eight_bit(opened)
                upright = ImageOps.exif_transpose(picture)
                pixels = upright.convert("L" if preprocessing.channels == 1 else "RGB")
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UserError(
            f"{path} unpacks to more than {Image.MAX_IMAGE_PIXELS:,} pixels; give a smaller picture."
        ) from None
    except Exception as error:  # Pillow's decoders raise nearly anything on broken files: OSError, SyntaxError, ...
        raise UserError(f"{path} cannot be read as an image: {_sentence(error)}.") from None
    size = (preprocessing.width, preprocessing.height)
    if pixels.size != size:
        pixels = pixels.resize(size, Image.Resampling.BILINEAR)
    array = np.asarray(pixels, dtype=np.uint8)
    return array.reshape(preprocessing.height, preprocessing.width, preprocessing.channels)


def _eight_bit(picture: Image.Image) -> Image.Image:
    """Refuse float and 32-bit pictures, whose range nobody knows; scale 16-bit gray to 8 bits."""
    if picture.mode.startswith("I;16"):
        values = np.asarray(picture).astype(np.uint32)
        scaled = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
        scaled.info.update(picture.info)
        return scaled
    if picture.mode in ("I", "F"):
        raise ValueError(f"its pixels are of Pillow's mode {picture.mode}, not 8 or 16 bits")
    return picture


def _sentence(error: Exception) -> str:
    if "cannot identify image file" in str(error):
        return "its content is no picture format that Pillow knows"
    return str(error).rstrip(".") or type(error).__name__
