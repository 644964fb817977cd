"""Making a teacher cache: its cost is said first, then one pass a view, kept under a hash of what decides it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdeploy import events
from kdeploy.artifacts import sha256_json, write_json
from kdeploy.caches import cache_folder
from kdeploy.errors import UserError
from kdeploy.loading import Batch, Views
from kdeploy.methods.base import Needs
from kdeploy.recipe.schema import CacheSpec
from kdeploy.training.setup import Setup
from kdeploy.training.teacher_cache.cached import Cached
from kdeploy.training.teacher_cache.shards import Layout, Shards, write_speed
from kdeploy.training.teacher_cache.tensors import by_name
from kdeploy.training.teaching import Live
from kdeploy.training.views import Tapped

_BATCH = 256
_HANDFUL = 16
_TOLERANCE = {torch.bfloat16: 0.02, torch.float16: 0.02, torch.float32: 1e-3}
"""How far kept outputs may lie from fresh ones, as a share of their norm. The same teacher in bfloat16 moves by under
0.01 from one batch size to another; another teacher, or another view of the sample, by 0.3 and more."""


def open_cache(
    live: Live,
    tapped: Tapped,
    needs: Sequence[Needs],
    views: Views,
    spec: CacheSpec,
    setup: Setup,
    made_from: Mapping[str, Any],
) -> Cached:
    """The outputs of `live` that these needs ask for, for all views; what is not there yet is made first.

    made_from: what decides the outputs beside the view's number, JSON-able: the teacher's weights, the images, the
    transforms. Its hash names the folder, so that a stale cache is never found. A few samples are computed afresh each
    time. Raises UserError where these differ from what is kept, and where the disk has no room.
    """
    assert views.count is not None
    folder = (Path(spec.folder) if spec.folder else cache_folder("teachers")) / sha256_json(made_from)[:16]
    found = _forward(live, tapped, needs, views, setup, 0, torch.arange(2))
    shards = Shards(folder, {name: _layout(tensor, spec, setup) for name, tensor in found.items()}, len(views))
    missing = {
        view: names
        for view in range(views.count)
        if (names := [name for name in shards.layouts if not shards.has(view, name)])
    }
    if missing:
        _announce(shards, missing, views.count)
        write_json(folder / "made-from.json", made_from)
        _make(live, tapped, needs, views, setup, shards, missing)
    else:
        events.say(f"teacher cache: {views.count} views found in {folder}")
    _compare(live, tapped, needs, views, setup, shards)
    return Cached(shards, tapped, needs)


def _forward(
    live: Live, tapped: Tapped, needs: Sequence[Needs], views: Views, setup: Setup, view: int, index: Tensor
) -> dict[str, Tensor]:
    """What the teacher gives for one view of these samples, by the names of the tensors."""
    data = views.data
    index = index.to(data.labels.device)
    batch = Batch(setup.images(views.images(view, index)), data.labels[index], index, view)
    with setup.fabric.autocast():
        return by_name(tapped, needs, live.outputs(batch))


def _layout(tensor: Tensor, spec: CacheSpec, setup: Setup) -> Layout:
    """How a tensor is stored: `auto` keeps bfloat16 as it is, which loses nothing, and rounds float32 to float16."""
    auto = torch.bfloat16 if setup.precision == "bfloat16" else torch.float16
    stored = auto if spec.dtype == "auto" else getattr(torch, spec.dtype)
    return Layout(tuple(tensor.shape[1:]), stored, tensor.dtype)


def _announce(shards: Shards, missing: Mapping[int, list[str]], views: int) -> None:
    """Say what the cache will take, and refuse where the disk has no room."""
    needed = sum(shards.size_bytes(name) for names in missing.values() for name in names)
    speed = write_speed(shards.folder)
    free = shutil.disk_usage(shards.folder).free
    what = ", ".join(sorted({name for names in missing.values() for name in names}))
    events.say(
        f"teacher cache: {len(missing)} of {views} views of {shards.samples:,} samples to make ({what}), "
        f"{_size(needed)} in {shards.folder}; this disk takes {speed / 1e6:,.0f} MB/s, "
        f"so {needed / speed:.0f} s of writing beside the teacher's passes"
    )
    if needed > 0.95 * free:
        raise UserError(
            f"The teacher cache needs {_size(needed)} and {shards.folder} has {_size(free)} free: set "
            "fewer teacher.cache.views, or teacher.cache.folder on another disk."
        )


def _size(count: int) -> str:
    """Bytes as megabytes, or gigabytes from one on."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _make(
    live: Live,
    tapped: Tapped,
    needs: Sequence[Needs],
    views: Views,
    setup: Setup,
    shards: Shards,
    missing: Mapping[int, list[str]],
) -> None:
    batches = torch.split(torch.arange(len(views)), _BATCH)
    with events.task("teacher cache", len(missing) * len(batches)) as bar:
        for view, names in missing.items():
            with shards.writing(view, names) as writer:
                for index in batches:
                    writer.append(_forward(live, tapped, needs, views, setup, view, index))
                    bar.advance(1, view=f"{view + 1}")


def _compare(live: Live, tapped: Tapped, needs: Sequence[Needs], views: Views, setup: Setup, shards: Shards) -> None:
    """Compute a random handful afresh and compare it with what is kept."""
    assert views.count is not None
    draw = random.Random()  # of its own, and a new one each time: it must not move the training's generators
    view = draw.randrange(views.count)
    index = torch.tensor(draw.sample(range(len(views)), min(_HANDFUL, len(views))))
    for name, fresh in _forward(live, tapped, needs, views, setup, view, index).items():
        kept = shards.read(view, name, index.to(fresh.device))
        apart = torch.linalg.vector_norm(kept.float() - fresh.float()) / torch.linalg.vector_norm(fresh.float())
        if not apart <= _TOLERANCE[shards.layouts[name].stored]:
            raise UserError(
                f"The teacher cache in {shards.folder} does not hold what this teacher says: {name} of view {view} "
                f"is {apart:.1%} away. Delete that folder; it will be made again."
            )
