"""Devices to work on."""

from collections.abc import Iterator

import pytest

from tests.targets.loopback import Loopback, until


@pytest.fixture
def loopback(tmp_path, monkeypatch) -> Iterator[Loopback]:
    """A device without an environment."""
    device = Loopback(tmp_path / "device")
    monkeypatch.setenv("KDEPLOY_SSH", str(device.ssh))
    monkeypatch.setenv("KDEPLOY_LEASE_S", "4")
    yield device
    until(lambda: not device.processes())


@pytest.fixture
def ready(loopback) -> Loopback:
    """A device with an environment."""
    loopback.make_ready()
    return loopback
