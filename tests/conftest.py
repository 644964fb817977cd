"""What every room's tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Fixtures; here and nowhere else, so that there is one machine for each worker.
from tests.devices.fixtures import clean_device, device, device_site, device_wheels  # noqa: F401
from tests.targets.fixtures import loopback, made_ready, ready  # noqa: F401

if "PYTEST_XDIST_WORKER" in os.environ:
    # Several workers share the cores: one thread each, for torch and for what the tests start. Set before torch loads.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


LONGEST_FIRST = (
    "tests/test_readme.py",
    "tests/training/effects/test_perturbed_ensemble.py",
    "tests/training/effects/test_online_ensemble.py",
    "tests/training/test_processes.py",
    "tests/training/test_killed.py",
)
"""Files that take minutes: begun last, they would leave the other worker without work."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(place)))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data and models that KDEPLOY_SHARED names; the test is skipped where it is not set."""
    if "KDEPLOY_SHARED" not in os.environ:
        pytest.skip("KDEPLOY_SHARED is not set: no shared data and models here")
    return Path(os.environ["KDEPLOY_SHARED"])


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of the tests' own: nothing of the user's is read or written."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("KDEPLOY_CACHE")
    os.environ["KDEPLOY_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["KDEPLOY_CACHE"]
    else:
        os.environ["KDEPLOY_CACHE"] = before
