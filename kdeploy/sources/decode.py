"""Pictures to one array, in threads: Pillow lets go of Python's lock while it decodes."""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdeploy import events
from kdeploy.errors import KdeployError, UserError
from kdeploy.machine import cores

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
class Survey:
    """What is known of pictures once each was decoded.

    count: how many there are; shape: height, width and channels (1 where every one is gray, else 3), the size after
    resizing; kept: int64 `[N]`, the places of those that can be read, ascending; failures: why the others cannot.
    """

    count: int
    shape: tuple[int, int, int]
    kept: NDArray[np.int64]
    failures: tuple[str, ...]

    def report(self, broken: str) -> None:
        """broken: "stop" raises a UserError that names up to three unreadable pictures, "skip" warns of them."""
        if not self.failures:
            return
        more = ", ..." if len(self.failures) > _NAMED else ""
        named = ", ".join(self.failures[:_NAMED])
        text = f"{len(self.failures)} of {self.count} images cannot be read: {named}{more}"
        if broken == "stop":
            raise UserError(f"{text}. Repair or remove them, or set data.broken: skip to go on without them.")
        if len(self.failures) == self.count:
            raise UserError(f"{text}. Nothing is left to train on.")
        events.warn(f"{text}; going on without them.")


@dataclass(frozen=True)
class _Outcome:
    """What became of a file: whether it was gray, or why it could not be used."""

    gray: bool = False
    broken: str | None = None
    other_size: tuple[int, int] | None = None


def open_image(content: bytes) -> Image.Image:
    """Open an image file's bytes with one of the formats that kdeploy reads; its pixels are decoded later."""
    return Image.open(io.BytesIO(content), formats=_FORMATS)


def decode(
    pictures: Sequence[Picture], size: int | tuple[int, int] | None, broken: str, *, keep: bool = True
) -> tuple[NDArray[np.uint8] | None, Survey]:
    """Decode all pictures into `[N, H, W, C]`, C = 1 where every one is gray, else 3 (RGB, alpha dropped).

    size: resize to this height and width, one for both or a pair; None: all must have one size. broken: see
    `Survey.report`. keep: False decodes each only to see what it is, and gives None for the array. EXIF orientation is
    not applied.
    """
    native = first_size(pictures)
    height, width = (native[1], native[0]) if size is None else (size, size) if isinstance(size, int) else size
    if width * height > _PIXEL_LIMIT:
        raise UserError(f"data.size: images of {width}x{height} pixels are too many; {_PIXEL_LIMIT} are the most.")
    out = np.empty((len(pictures), height, width, 3), dtype=np.uint8) if keep else None
    scratch = (height, width, 3)
    outcomes = _decode_all(pictures, out, scratch, threads(native), resize=size is not None)

    ends = list(zip(pictures, outcomes, strict=True))
    kept = np.array([number for number, end in enumerate(outcomes) if not end.broken], dtype=np.int64)
    gray = all(end.gray for end in outcomes if not end.broken)
    survey = Survey(
        len(pictures),
        (height, width, 1 if gray else 3),
        kept,
        tuple(f"{picture.where} ({end.broken})" for picture, end in ends if end.broken),
    )
    survey.report(broken)
    for picture, end in ends:
        if end.other_size is not None:
            sizes = f"{end.other_size[0]}x{end.other_size[1]} pixels, others {width}x{height}"
            raise UserError(f"Images differ in size: {picture.where} has {sizes}; set data.size to resize all of them.")
    if out is None:
        return None, survey
    if survey.failures:
        out = out[kept]
    return (np.ascontiguousarray(out[..., :1]) if gray else out), survey


def decode_into(picture: Picture, slot: NDArray[np.uint8], *, resize: bool) -> None:
    """Decode one picture, of which a survey is known, into `slot` `[H, W, C]`; a UserError where it has changed."""
    end = _decode_one(picture, slot, resize=resize)
    if end.broken or end.other_size is not None:
        why = end.broken or "another size"
        raise UserError(f"{picture.where} has changed since this run began ({why}); start the run again.")


def threads(size: tuple[int, int]) -> int:
    """How many threads decode images of this width and height: one in a worker process, which has others beside it."""
    small = size[0] * size[1] < _SMALL
    return 1 if small or multiprocessing.parent_process() is not None else min(8, cores())


def first_size(pictures: Sequence[Picture]) -> tuple[int, int]:
    """Width and height of the first picture that can be opened; a UserError where none can."""
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


def _decode_all(
    pictures: Sequence[Picture],
    out: NDArray[np.uint8] | None,
    shape: tuple[int, int, int],
    workers: int,
    *,
    resize: bool,
) -> list[_Outcome]:
    def chunk(start: int) -> list[_Outcome]:
        numbers = range(start, min(start + _CHUNK, len(pictures)))
        slots = np.empty((len(numbers), *shape), dtype=np.uint8) if out is None else out[start : numbers.stop]
        return [_decode_one(pictures[number], slots[number - start], resize=resize) for number in numbers]

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
            if slot.shape[2] == 1 and not gray:
                return _Outcome(broken="no longer gray")
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
