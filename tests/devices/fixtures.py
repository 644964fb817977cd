"""The emulated machine as fixtures, for all tests that carry the mark arm64."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.devices import wheels
from tests.devices.debian import CannotEmulate, compile_python, emulate, make_root, need_programs
from tests.devices.machine import Machine, add_user
from tests.devices.network import carry_network

PACKAGES = ("python3", "python3-venv", "libgomp1", "ca-certificates")
SITE = "/opt/kdeploy"  # on the machine; what `device_site` gives


@pytest.fixture(scope="session")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A running machine with a 64-bit Arm processor, this worker's own; its root file system is shared by all workers.

    Tests leave their traces on it: take `clean_device`, or call `reset()` first.
    """
    try:
        emulate("arm64")
        need_programs("sshd", "ssh", "ssh-keygen", "unshare", "nsenter")
        root = _shared(tmp_path_factory) / "arm64-root"
        with _made_once(root, _make_arm64_root):
            machine = Machine(root, tmp_path_factory.mktemp("device") / "machine")
            try:
                machine.start()
                yield machine
            finally:
                machine.stop()
    except CannotEmulate as error:
        if os.environ.get("KDEPLOY_REQUIRE_ARM64") == "1":
            pytest.fail(f"No emulated arm64 machine: {error}", pytrace=False)
        pytest.skip(f"no emulated arm64 machine: {error}")


@pytest.fixture
def clean_device(device: Machine) -> Iterator[Machine]:
    """The machine as it was when it was started: no process, an empty home, connected and online; left so, too."""
    device.reset()
    yield device
    device.reset()


@pytest.fixture(scope="session")
def device_wheels(device: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder, here, with kdeploy's wheel and all that its device side needs, for the machine's processor."""
    folder = _shared(tmp_path_factory) / "arm64-wheels"
    with _made_once(folder, lambda new: wheels.download(new, "aarch64")):
        yield folder


@pytest.fixture(scope="session")
def device_site(device: Machine, device_wheels: Path) -> Iterator[str]:
    """The wheels' contents on the machine: a folder for PYTHONPATH, in which kdeploy and ONNX Runtime lie."""

    def unpack(new: Path) -> None:
        wheels.unpack(device_wheels, new)
        compile_python(device.root, new)

    with _made_once(device.root / SITE.lstrip("/"), unpack):
        yield SITE


def _make_arm64_root(folder: Path) -> None:
    make_root(folder, "arm64", PACKAGES)
    compile_python(folder)
    add_user(folder / "etc", folder / "etc")
    carry_network(folder)


def _shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary folder that all workers of pytest-xdist have in common."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@contextmanager
def _made_once(folder: Path, make: Callable[[Path], None]) -> Iterator[None]:
    """A folder that the first process which wants it makes, and the last one removes.

    Each holds a shared lock while it uses the folder; who makes or removes it holds the lock alone.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        while not folder.exists():
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():  # another process may have made it while we waited
                unfinished = folder.with_name(f"{folder.name}.unfinished")
                shutil.rmtree(unfinished, ignore_errors=True)  # of a process that failed
                make(unfinished)
                unfinished.rename(folder)
            fcntl.flock(lock, fcntl.LOCK_SH)  # not at once: it may be removed in between, and we begin again
        try:
            yield
        finally:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # others use it
                return
            shutil.rmtree(folder)
