"""Image files to one array, in threads: Pillow lets go of Python's lock while it decodes."""

from __future__ import annotations

import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdeploy import events
from kdeploy.errors import UserError
from kdeploy.sources.tree import ImageFile

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM")
_GRAY = ("1", "L")
_COLOUR = ("RGB", "RGBA", "RGBX", "P", "PA", "LA", "CMYK", "YCbCr")
_PIXEL_LIMIT = 89_478_485  # where Pillow begins to warn of a decompression bomb: a quarter of a GiB as RGB
_CHUNK = 128
_NAMED = 3


@dataclass(frozen=True)
class _Outcome:
    """What became of a file: whether it was gray, or why it could not be used."""

    gray: bool = False
    broken: str | None = None
    other_size: tuple[int, int] | None = None


def decode(files: list[ImageFile], size: int | None, broken: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Decode all files into `[N, H, W, C]`, C = 1 where every image is gray, else 3 (RGB, alpha dropped).

    size: resize to this height and width; None: all images must have one size. broken: "stop" raises a UserError
    that names up to three unreadable files, "skip" leaves them out with a warning. Also returned is the index of
    each image in `files`. EXIF orientation is not applied. A UserError, too, where the images would take more
    than half of this machine's memory.
    """
    width, height = (size, size) if size is not None else _first_size(files)
    _refuse_too_much(len(files), width, height)
    out = np.empty((len(files), height, width, 3), dtype=np.uint8)
    outcomes = _decode_all(files, out, resize=size is not None)

    failures = [f"{file.where} ({end.broken})" for file, end in zip(files, outcomes, strict=True) if end.broken]
    _report(failures, len(files), broken)
    for file, end in zip(files, outcomes, strict=True):
        if end.other_size is not None:
            sizes = f"{end.other_size[0]}x{end.other_size[1]} pixels, others {width}x{height}"
            raise UserError(f"Images differ in size: {file.where} has {sizes}; set data.size to resize all of them.")

    kept = np.array([number for number, end in enumerate(outcomes) if not end.broken], dtype=np.int64)
    if failures:
        out = out[kept]
    gray = all(end.gray for end in outcomes if not end.broken)
    return (np.ascontiguousarray(out[..., :1]) if gray else out), kept


def _first_size(files: list[ImageFile]) -> tuple[int, int]:
    for file in files:
        try:
            with _open(file) as picture:
                return picture.size
        except Exception:  # whatever is wrong with it is reported when all files are decoded
            continue
    raise UserError(f"None of the {len(files)} image files can be read, {files[0].where} for one.")


def _refuse_too_much(count: int, width: int, height: int) -> None:
    needed = count * width * height * 3
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory // 2:
        raise UserError(
            f"{count} images of {width}x{height} pixels take {needed / 2**30:.1f} GiB decoded, more than half of this "
            f"machine's {memory / 2**30:.1f} GiB of memory; set data.size to a smaller one."
        )


def _decode_all(files: list[ImageFile], out: NDArray[np.uint8], *, resize: bool) -> list[_Outcome]:
    def chunk(start: int) -> list[_Outcome]:
        numbers = range(start, min(start + _CHUNK, len(files)))
        return [_decode_one(files[number], out[number], resize=resize) for number in numbers]

    outcomes: list[_Outcome] = []
    workers = min(8, os.cpu_count() or 1)
    with events.task(f"reading {len(files)} images", len(files)) as bar, ThreadPoolExecutor(workers) as pool:
        for done in pool.map(chunk, range(0, len(files), _CHUNK)):
            outcomes += done
            bar.advance(len(done))
    return outcomes


def _decode_one(file: ImageFile, slot: NDArray[np.uint8], *, resize: bool) -> _Outcome:
    height, width = slot.shape[:2]
    try:
        with _open(file) as picture:
            gray = picture.mode in _GRAY
            if not gray and picture.mode not in _COLOUR:
                return _Outcome(broken=f"pixels of type {picture.mode} are not 8 bits a channel")
            if not resize and picture.size != (width, height):
                picture.load()
                return _Outcome(gray=gray, other_size=picture.size)
            pixels = picture.convert("L" if gray else "RGB")
    except Exception as error:  # Pillow's plugins raise anything on broken data: OSError, SyntaxError, struct.error ...
        return _Outcome(broken=_reason(error))
    if pixels.size != (width, height):
        pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    slot[...] = np.asarray(pixels).reshape(height, width, -1)
    return _Outcome(gray=gray)


def _open(file: ImageFile) -> Image.Image:
    picture = Image.open(io.BytesIO(file.read()), formats=_FORMATS)
    if picture.width * picture.height > _PIXEL_LIMIT:
        raise ValueError(f"{picture.width}x{picture.height} pixels are too many")
    return picture


def _reason(error: Exception) -> str:
    text = str(error)
    return "not an image" if "cannot identify image file" in text else (text or type(error).__name__)


def _report(failures: list[str], total: int, broken: str) -> None:
    if not failures:
        return
    more = ", ..." if len(failures) > _NAMED else ""
    text = f"{len(failures)} of {total} images cannot be read: {', '.join(failures[:_NAMED])}{more}"
    if broken == "stop":
        raise UserError(f"{text}. Repair or remove them, or set data.broken: skip to go on without them.")
    if len(failures) == total:
        raise UserError(f"{text}. Nothing is left to train on.")
    events.warn(f"{text}; going on without them.")
