"""From a bundle and picture files to class names: the whole of what an application on the device needs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from kdeploy import events
from kdeploy.bundle import open_bundle
from kdeploy.engines import open_engine, read_manifest
from kdeploy.engines.base import Manifest, Session
from kdeploy.errors import UserError
from kdeploy.runtime.images import read_image
from kdeploy.runtime.preprocess import preprocess

TOP = 5


@dataclass(frozen=True)
class Prediction:
    """What the network says of one picture; `top` holds the likeliest classes, best first."""

    path: Path
    class_name: str
    probability: float
    top: tuple[tuple[str, float], ...]


class Predictor:
    """A bundle, verified and opened. Use as a context manager, or call `close`.

    >>> with Predictor.open(Path("quickstart.kdz")) as predictor:
    ...     predictor.predict([Path("digit-7.png")])
    """

    def __init__(self, session: Session, manifest: Manifest, resources: ExitStack) -> None:
        """Take over an opened session; `resources` is closed with it. Most callers want `open`."""
        self._session = session
        self._resources = resources
        self.manifest = manifest

    @classmethod
    def open(cls, bundle: Path, *, threads: int = 1) -> Predictor:
        """Verify and open a `.kdz` file.

        Raises a UserError where the bundle is missing or damaged, Unavailable where its engine is not installed.
        """
        with ExitStack() as resources:
            folder = resources.enter_context(open_bundle(bundle))
            session = resources.enter_context(open_engine(folder, threads=threads))
            return cls(session, read_manifest(folder), resources.pop_all())

    def predict(self, paths: Sequence[Path]) -> list[Prediction]:
        """Classify picture files one by one, in the order given.

        Raises a UserError that names the first file that cannot be read.
        """
        predictions = []
        with events.task("predict", len(paths)) as bar:
            for path in paths:
                predictions.append(self._predict_one(path))
                bar.advance()
        return predictions

    def _predict_one(self, path: Path) -> Prediction:
        images = read_image(path, self.manifest.preprocessing)[None]
        ready = images if self.manifest.preprocessing.in_graph else preprocess(images, self.manifest.preprocessing)
        output = self._session.run(ready)[0]
        classes = self.manifest.classes
        if output.shape != (len(classes),):
            raise UserError(f"The engine has {output.size} outputs for the {len(classes)} classes of its manifest.")
        probabilities = softmax(output) if self.manifest.output == "logits" else output
        order = np.argsort(-probabilities, kind="stable")[:TOP]
        top = tuple((classes[index], float(probabilities[index])) for index in order)
        return Prediction(path, top[0][0], top[0][1], top)

    def close(self) -> None:
        """Release the engine and remove the unpacked files."""
        self._resources.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Softmax over the last axis; the largest logit is taken off first, so nothing overflows."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: NDArray[np.float32] = powers / powers.sum(axis=-1, keepdims=True)
    return result
