"""RAPL, on recorded trees of /sys/class/powercap."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdeploy.bench.energy.base import NotMeasured
from kdeploy.bench.energy.sources.rapl import Rapl
from tests.bench.energy.trees import write, zone


@pytest.fixture
def server(tmp_path):
    """Two packages with memory, their parts, the platform, and the second view of a package through its MMIO."""
    files = (
        zone("0", "package-0", 12_345_678_901)
        | zone("0:0", "core", 999)
        | zone("0:1", "dram", 2_000_000, range_uj=65_712_999_613)
        | zone("1", "package-1", 42)
        | zone("1:0", "uncore", 999)
        | zone("1:1", "dram", 7)
        | zone("2", "psys", 5_500_000)
    )
    mmio = {name.replace("/intel-rapl:0/", "/intel-rapl-mmio:0/"): text for name, text in files.items()}
    return write(tmp_path, files | {name: text for name, text in mmio.items() if "mmio" in name})


def test_packages_memory_and_platform(server):
    found = Rapl().find(server)
    assert found.absent == {}
    assert [(meter.name, meter.scope) for meter in found.meters] == [
        ("rapl package-0", "package"),
        ("rapl package-0 dram", "memory"),
        ("rapl package-1", "package"),
        ("rapl package-1 dram", "memory"),
        ("rapl psys", "platform"),
    ]
    assert {meter.unit for meter in found.meters} == {"joules"}
    package, memory = found.meters[:2]
    assert package.read() == pytest.approx(12_345.678901)
    assert package.range_joules == pytest.approx(262_143.328850)
    assert memory.range_joules == pytest.approx(65_712.999613)


def test_a_reading_is_of_now(server):
    package = Rapl().find(server).meters[0]
    write(server, {"sys/class/powercap/intel-rapl:0/energy_uj": "12345679901"})
    assert package.read() == pytest.approx(12_345.679901)


def test_a_die_of_a_package(tmp_path):
    (meter,) = Rapl().find(write(tmp_path, zone("0", "package-0-die-1", 1))).meters
    assert (meter.name, meter.scope) == ("rapl package-0-die-1", "package")


def test_unreadable_for_this_user(server, monkeypatch):
    """Since 2020 only root reads energy_uj. The tests may run as root, so the refusal is played."""
    read_text = Path.read_text

    def refuse(path, *arguments, **named):
        if path.name == "energy_uj" and "rapl:0/" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path, *arguments, **named)

    monkeypatch.setattr(Path, "read_text", refuse)
    found = Rapl().find(server)
    file = server / "sys/class/powercap/intel-rapl:0/energy_uj"
    assert list(found.absent) == ["rapl package-0"]
    assert found.absent["rapl package-0"].startswith(f"{file} can't be read by this user")
    assert found.absent["rapl package-0"].endswith(f"sudo chmod a+r {file}")
    assert "rapl package-1" in [meter.name for meter in found.meters]


def test_a_counter_that_disappears(server):
    package = Rapl().find(server).meters[0]
    (server / "sys/class/powercap/intel-rapl:0/energy_uj").unlink()
    with pytest.raises(NotMeasured, match="energy_uj: No such file or directory"):
        package.read()


def test_a_counter_that_is_no_number(server):
    write(server, {"sys/class/powercap/intel-rapl:2/energy_uj": "n/a"})
    assert "holds 'n/a', not a number" in Rapl().find(server).absent["rapl psys"]


def test_hidden_by_a_container(tmp_path):
    folder = tmp_path / "sys/class/powercap"
    folder.mkdir(parents=True)
    (folder / "intel-rapl:0").symlink_to("../../devices/virtual/powercap/intel-rapl/intel-rapl:0")
    found = Rapl().find(tmp_path)
    assert found.meters == ()
    assert "measure outside of the container" in found.absent["rapl intel-rapl:0"]


def test_a_machine_without(tmp_path):
    found = Rapl().find(tmp_path)
    assert found.meters == ()
    assert found.absent["rapl"].endswith("type: sudo modprobe intel_rapl_msr")
