from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kdeploy import engines
from kdeploy.bench.inputs import layout_of_manifest
from kdeploy.bench.spans import spans
from kdeploy.engines.base import InParts, Session
from tests.engines import models


class Sleeper(Session):
    """An engine whose copies take 2 ms and whose inference takes 5."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        raise AssertionError("the parts are asked for")

    def run_in_parts(self, images: NDArray[Any]) -> InParts:
        self.seen.append(images.shape)
        time.sleep(0.007)
        return InParts(np.zeros((len(images), 3), np.float32), 5_000_000, 2_000_000)

    def describe(self) -> dict[str, Any]:
        return {}


def test_the_parts_are_the_engines_and_the_whole_is_the_clocks() -> None:
    session = Sleeper()
    found = spans(session, layout_of_manifest(models.manifest()), None, 0.01)
    assert (found.copies_ms, found.inference_ms) == (2.0, 5.0)
    assert found.whole_ms >= 7.0
    assert found.count == len(session.seen) >= 16
    assert set(session.seen) == {(1, 8, 8, 1)}


@pytest.mark.parametrize("in_graph", [True, False])
def test_a_real_engine_tells_its_copies(tmp_path, in_graph: bool) -> None:
    folder = models.build(tmp_path / "engine", in_graph=in_graph)
    with engines.open_engine(folder, threads=1) as session:
        layout = layout_of_manifest(models.manifest(in_graph=in_graph))
        images = models.images(5)
        found = spans(session, layout, images, 0.05)
        ready = layout.prepare(images[:1])
        np.testing.assert_array_equal(session.run_in_parts(ready).outputs, session.run(ready))
    assert found.preprocess_ms is not None
    assert found.copies_ms is not None
    parts = (found.preprocess_ms, found.copies_ms, found.inference_ms, found.postprocess_ms)
    assert min(parts) >= 0
    assert sum(parts) == pytest.approx(found.whole_ms, rel=0.5)


def test_an_engine_that_does_not_know_its_copies_says_so() -> None:
    class Plain(Sleeper):
        def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
            return np.zeros((len(images), 3), np.float32)

        run_in_parts = Session.run_in_parts

    found = spans(Plain(), layout_of_manifest(models.manifest()), None, 0.01)
    assert found.copies_ms is None
    assert found.inference_ms > 0
