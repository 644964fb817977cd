"""Devices to work on."""

from collections.abc import Iterator

import pytest

from tests.targets.loopback import Loopback, until


@pytest.fixture(scope="session")
def made_ready(tmp_path_factory) -> Loopback:
    """A device with an environment, to be copied."""
    device = Loopback(tmp_path_factory.mktemp("ready") / "device")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDEPLOY_SSH", str(device.ssh))
        device.make_ready()
    return device


@pytest.fixture
def loopback(tmp_path, monkeypatch) -> Iterator[Loopback]:
    """A device without an environment."""
    device = Loopback(tmp_path / "device")
    monkeypatch.setenv("KDEPLOY_SSH", str(device.ssh))
    monkeypatch.setenv("KDEPLOY_LEASE_S", "4")
    yield device
    until(lambda: not device.processes())


@pytest.fixture
def ready(loopback, made_ready) -> Loopback:
    """A device with an environment."""
    loopback.make_like(made_ready)
    return loopback
