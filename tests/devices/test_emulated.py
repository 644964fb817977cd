"""The emulated machine is what other tests take it for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kdeploy import machine
from tests.devices.machine import HOME, Machine

pytestmark = pytest.mark.arm64


def python(device, program, *, site=""):
    done = device.run(f"PYTHONPATH={site} python3 -", input=program)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_its_processor(device):
    assert device.run("uname -m").stdout == "aarch64\n"
    assert python(device, "import platform; print(platform.machine())") == "aarch64"


def test_its_user_is_not_root(device):
    assert device.run("id -un; pwd").stdout == "pi\n/home/pi\n"
    assert device.run("touch /usr/here").returncode == 1


def test_another_key_is_refused(device, tmp_path):
    # The host's, which the client takes for the user's: it is a key, but not the one that is let in.
    config = (device.folder / "ssh_config").read_text().replace("user_key", "host_key")
    (tmp_path / "ssh_config").write_text(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(device), "ssh_command", f"ssh -F {tmp_path / 'ssh_config'}")
        done = device.run("true")
    assert done.returncode == 255
    assert "Permission denied" in done.stderr


def test_kdeploy_sees_that_it_is_emulated(device, device_site):
    program = "import json\nfrom kdeploy.machine import fingerprint\nprint(json.dumps(fingerprint()))"
    found = json.loads(python(device, program, site=device_site))
    assert (found["architecture"], found["processor"]) == ("aarch64", "Cortex-A76")
    assert found["emulation"].startswith("qemu-aarch64")
    assert found["packages"]["onnxruntime"] == machine.fingerprint()["packages"]["onnxruntime"]


def test_its_doctor_warns_that_timings_mean_nothing(device, device_site):
    program = "import sys\nsys.argv = ['kdeploy', 'doctor']\nfrom kdeploy.cli.main import main\nmain()"
    assert "its timings mean nothing" in " ".join(python(device, program, site=device_site).split())


def test_what_is_detached_lives_on_when_the_connection_is_cut(clean_device):
    sleeping = detach_sleep(clean_device)
    clean_device.cut()
    assert clean_device.run("true").returncode == 255
    assert sleeping in clean_device.processes()
    clean_device.restore()
    assert clean_device.run("true").returncode == 0
    assert sleeping in clean_device.processes()


def detach_sleep(device):
    """Start `sleep` on the machine, with nothing that ties it to its connection; the process, once it is that."""
    assert device.run("setsid sleep 1000 > /dev/null 2>&1 < /dev/null &").returncode == 0
    deadline = time.monotonic() + 10
    while True:
        # Ends: before, it is a shell and then setsid, with `sleep` among its arguments.
        found = [each for each in device.processes() if each.command.endswith("/usr/bin/sleep sleep 1000")]
        if found:
            return found[0]
        assert time.monotonic() < deadline, device.processes()
        time.sleep(0.01)


def test_a_frozen_connection_hangs_until_it_is_thawed(clean_device):
    clean_device.freeze()
    with pytest.raises(subprocess.TimeoutExpired):
        clean_device.run("true", timeout_s=3)
    clean_device.thaw()
    assert clean_device.run("true").returncode == 0


def test_its_disk_can_be_full(clean_device):
    with clean_device.disk(free_bytes=1_000_000):
        done = clean_device.run("head -c 2000000 /dev/zero > file")
        assert "No space left on device" in done.stderr
        assert clean_device.path(HOME).joinpath("file").stat().st_size < 1_000_000 + 4096  # whole pages of memory
    assert clean_device.run("head -c 2000000 /dev/zero > file").returncode == 0


def test_online_it_reaches_a_package_index(clean_device):
    pip = "PYTHONPATH=$(echo /usr/share/python-wheels/pip-*.whl) python3 -m pip"
    done = clean_device.run(f"{pip} download --no-deps --retries 0 mdurl")
    assert done.returncode == 0, done.stderr
    assert [name for name in clean_device.files() if name.startswith("mdurl-")]


def test_offline_it_finds_no_name_and_reaches_no_host(clean_device):
    clean_device.offline()
    resolve = "import socket\ntry: socket.getaddrinfo('pypi.org', 443)\nexcept socket.gaierror: print('unknown')"
    assert python(clean_device, resolve) == "unknown"
    # Nor any host by its number; the loopback alone is there.
    connect = "import socket\ntry: socket.create_connection(('192.0.2.1', 443))\nexcept OSError as e: print(e.strerror)"
    assert python(clean_device, connect) == "Network is unreachable"
    assert python(clean_device, "import socket; socket.create_server(('127.0.0.1', 0)); print('served')") == "served"


def test_nothing_of_it_is_left_when_it_stops(device, tmp_path):
    mounts = Path("/proc/mounts").read_text()
    other = Machine(device.root, tmp_path / "other")
    other.start()
    try:
        sleeping = detach_sleep(other)
    finally:
        other.stop()
    gone(sleeping.number)
    assert Path("/proc/mounts").read_text() == mounts
    assert "raspberrypi" not in os.uname().nodename
    assert not list((device.root / "home").iterdir())


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.devices.machine import Machine
from tests.devices.test_emulated import detach_sleep
machine = Machine(Path(sys.argv[1]), Path(sys.argv[2]))
machine.start()
print(detach_sleep(machine).number, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_nothing_of_it_is_left_when_the_tests_are_killed(device, tmp_path):
    project = Path(__file__).parent.parent.parent
    command = [sys.executable, "-c", KILLED, str(device.root), str(tmp_path / "other")]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    gone(int(done.stdout))


def gone(number):
    deadline = time.monotonic() + 10
    while Path(f"/proc/{number}").exists():
        assert time.monotonic() < deadline, f"Process {number} lives on."
        time.sleep(0.01)
