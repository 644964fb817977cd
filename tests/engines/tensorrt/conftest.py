from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.engines.tensorrt import surfaces


@pytest.fixture(scope="session")
def downloads(request: pytest.FixtureRequest) -> Path:
    """Where wheels stay between test runs: pytest's own cache folder."""
    folder: Path = request.config.cache.mkdir("tensorrt")
    return folder


@pytest.fixture(scope="session", params=surfaces.WHEELS)
def version(request: pytest.FixtureRequest) -> str:
    """Each version of TensorRT in turn."""
    value: str = request.param
    return value


@pytest.fixture(scope="session")
def surface(version: str, downloads: Path) -> dict[str, Any]:
    """What that version's real extension module offers."""
    return surfaces.tensorrt_surface(version, downloads)
