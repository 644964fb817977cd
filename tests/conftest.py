"""What every room's tests share."""

import os
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Several workers share the cores: one thread each, for torch and for what the tests start. Set before torch loads.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data and models that KDEPLOY_SHARED names; the test is skipped where it is not set."""
    if "KDEPLOY_SHARED" not in os.environ:
        pytest.skip("KDEPLOY_SHARED is not set: no shared data and models here")
    return Path(os.environ["KDEPLOY_SHARED"])
