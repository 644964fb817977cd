from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.engines.tensorrt import surfaces
from tests.engines.tensorrt.world import World, install


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
    if why := surfaces.why_none(version):
        pytest.skip(why)
    return surfaces.tensorrt_surface(version, downloads)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, surface: dict[str, Any], version: str, tmp_path: Path) -> World:
    """A machine with that version of TensorRT, imitated."""
    monkeypatch.setenv("KDEPLOY_CACHE", str(tmp_path / "cache"))
    return install(monkeypatch, surface, version)
