import json
import os

import pytest

from kdeploy import machine
from kdeploy.machine import host
from kdeploy.machine.processor import Processor

ARM = Processor("Cortex-A72", None, frozenset({"asimd"}), False, "arm")
X86 = Processor("AMD EPYC", None, frozenset({"avx2"}), True, "x86")


def test_fingerprint_is_json_and_of_this_machine():
    fingerprint = json.loads(json.dumps(machine.fingerprint(), allow_nan=False))
    assert fingerprint["architecture"] == os.uname().machine
    assert fingerprint["cores"]["usable"] == machine.cores()
    assert fingerprint["memory_bytes"] == machine.memory_bytes()
    assert set(fingerprint["instruction_sets"]) == machine.instruction_sets()
    assert fingerprint["packages"]["numpy"] == host.installed_version("numpy")
    assert len(fingerprint["load_average"]) == 3
    assert {"openvino", "tensorrt"} <= set(fingerprint["packages"])
    assert fingerprint["nvidia_driver"] is None or fingerprint["nvidia_driver"][0].isdigit()


def test_usable_cores_respect_the_affinity_mask():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert machine.cores() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("text", "quota"), [("max 100000", None), (None, None), ("", None), ("150000 100000", 1.5), ("200000 100000", 2.0)]
)
def test_cpu_quota(text, quota):
    assert host.parse_cpu_quota(text) == quota


def test_a_containers_limits_count(monkeypatch):
    files = {"/sys/fs/cgroup/cpu.max": "50000 100000", "/sys/fs/cgroup/memory.max": "1048576"}
    monkeypatch.setattr(host, "_read", files.get)
    assert host.cores() == 1
    assert host.memory_bytes() == 1048576


def test_a_package_that_is_not_installed_has_no_version():
    assert host.installed_version("kdeploy-no-such-package") is None


@pytest.mark.parametrize(
    ("processor", "architecture", "commands", "hint"),
    [
        (X86, "x86_64", ["/sbin/init\0splash", "bash"], None),
        (ARM, "aarch64", [None, "bash"], None),
        (ARM, "armv7l", [], None),
        (X86, "aarch64", [], "aarch64 on a processor of the x86 family"),
        (ARM, "aarch64", ["/usr/bin/qemu-aarch64-static\0/bin/sh"], "qemu-aarch64-static"),
        (X86, "aarch64", ["/usr/bin/qemu-aarch64"], "qemu-aarch64 on a processor of the x86 family"),
        (Processor("VirtualApple @ 2.50GHz", None, frozenset(), False, "x86"), "x86_64", [], "Rosetta"),
    ],
)
def test_emulation(processor, architecture, commands, hint):
    assert host.emulation(processor, architecture, commands) == hint


def test_a_real_processor_is_not_emulated():
    assert host.emulated() is None
    assert host.fingerprint()["emulation"] is None


def test_this_process_is_looked_at_by_its_thread(monkeypatch):
    """QEMU hides itself in /proc/self; a login by ssh has no other process that it emulates."""
    monkeypatch.setattr(host, "_read", {"/proc/thread-self/cmdline": "/usr/bin/qemu-aarch64-static\0python3"}.get)
    assert host.emulated().startswith("qemu-aarch64-static")
