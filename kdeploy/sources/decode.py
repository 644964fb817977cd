"""Pictures to one array, in threads: Pillow lets go of Python's lock while it decodes."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdeploy import events
from kdeploy.errors import KdeployError, UserError
from kdeploy.machine import cores, memory_bytes

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM")
_GRAY = ("1", "L")
_COLOUR = ("RGB", "RGBA", "RGBX", "P", "PA", "LA", "CMYK", "YCbCr")
_PIXEL_LIMIT = 89_478_485  # where Pillow begins to warn of a decompression bomb: a quarter of a GiB as RGB
_SMALL = 64 * 64  # below this many pixels, threads wait for Python's lock longer than they decode
_CHUNK = 128
_NAMED = 3


@dataclass(frozen=True)
class Picture:
    """An image still to be decoded: `where` names it in messages."""

    where: str
    open: Callable[[], Image.Image]


@dataclass(frozen=True)
class _Outcome:
    """What became of a file: whether it was gray, or why it could not be used."""

    gray: bool = False
    broken: str | None = None
    other_size: tuple[int, int] | None = None


def open_image(content: bytes) -> Image.Image:
    """Open an image file's bytes with one of the formats that kdeploy reads; its pixels are decoded later."""
    return Image.open(io.BytesIO(content), formats=_FORMATS)


def decode(pictures: Sequence[Picture], size: int | None, broken: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Decode all pictures into `[N, H, W, C]`, C = 1 where every one is gray, else 3 (RGB, alpha dropped).

    size: resize to this height and width; None: all must have one size. broken: "stop" raises a UserError that
    names up to three unreadable ones, "skip" leaves them out with a warning. Also returned is the index of each
    image in `pictures`. EXIF orientation is not applied. A UserError, too, where the images would take more than
    half of this machine's memory.
    """
    first = _first_size(pictures)
    width, height = (size, size) if size is not None else first
    _refuse_too_much(len(pictures), width, height)
    out = np.empty((len(pictures), height, width, 3), dtype=np.uint8)
    workers = 1 if first[0] * first[1] < _SMALL else min(8, cores())
    outcomes = _decode_all(pictures, out, workers, resize=size is not None)

    ends = list(zip(pictures, outcomes, strict=True))
    failures = [f"{picture.where} ({end.broken})" for picture, end in ends if end.broken]
    _report(failures, len(pictures), broken)
    for picture, end in ends:
        if end.other_size is not None:
            sizes = f"{end.other_size[0]}x{end.other_size[1]} pixels, others {width}x{height}"
            raise UserError(f"Images differ in size: {picture.where} has {sizes}; set data.size to resize all of them.")

    kept = np.array([number for number, end in enumerate(outcomes) if not end.broken], dtype=np.int64)
    if failures:
        out = out[kept]
    gray = all(end.gray for end in outcomes if not end.broken)
    return (np.ascontiguousarray(out[..., :1]) if gray else out), kept


def _first_size(pictures: Sequence[Picture]) -> tuple[int, int]:
    reason = ""
    for picture in pictures:
        try:
            with _open(picture) as image:
                return image.size
        except KdeployError:
            raise
        except Exception as error:  # counted and named when all are decoded
            reason = reason or f"{picture.where} ({_reason(error)})"
    raise UserError(f"None of the {len(pictures)} images can be read, the first is {reason}.")


def _refuse_too_much(count: int, width: int, height: int) -> None:
    needed = count * width * height * 3
    memory = memory_bytes()
    if needed > memory // 2:
        raise UserError(
            f"{count} images of {width}x{height} pixels take {needed / 2**30:.1f} GiB decoded, more than half of this "
            f"machine's {memory / 2**30:.1f} GiB of memory; set data.size to a smaller one."
        )


def _decode_all(pictures: Sequence[Picture], out: NDArray[np.uint8], workers: int, *, resize: bool) -> list[_Outcome]:
    def chunk(start: int) -> list[_Outcome]:
        numbers = range(start, min(start + _CHUNK, len(pictures)))
        return [_decode_one(pictures[number], out[number], resize=resize) for number in numbers]

    outcomes: list[_Outcome] = []
    with events.task(f"reading {len(pictures)} images", len(pictures)) as bar, ThreadPoolExecutor(workers) as pool:
        for done in pool.map(chunk, range(0, len(pictures), _CHUNK)):
            outcomes += done
            bar.advance(len(done))
    return outcomes


def _decode_one(picture: Picture, slot: NDArray[np.uint8], *, resize: bool) -> _Outcome:
    height, width = slot.shape[:2]
    try:
        with _open(picture) as image:
            gray = image.mode in _GRAY
            if not gray and image.mode not in _COLOUR:
                return _Outcome(broken=f"pixels of type {image.mode} are not 8 bits a channel")
            pixels = image.convert("L" if gray else "RGB")
    except KdeployError:
        raise
    except Exception as error:  # Pillow's plugins raise anything on broken data: OSError, SyntaxError, struct.error ...
        return _Outcome(broken=_reason(error))
    if pixels.size != (width, height):
        if not resize:
            return _Outcome(gray=gray, other_size=pixels.size)
        pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    slot[...] = np.asarray(pixels).reshape(height, width, -1)
    return _Outcome(gray=gray)


def _open(picture: Picture) -> Image.Image:
    image = picture.open()
    if image.width * image.height > _PIXEL_LIMIT:
        raise ValueError(f"{image.width}x{image.height} pixels are too many")
    return image


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
