from __future__ import annotations

from pathlib import Path

import pytest

from kdeploy.machine import conditions

STAT = """cpu  300 0 0 0 0 0 0 0 0 0
cpu0 100 10 20 9000 50 3 4 5 0 0
cpu1 200 0 0 9000 0 0 0 0 0 0
intr 12345
"""


def tree(root: Path, files: dict[str, str]) -> Path:
    """A recorded /proc and /sys."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def test_processor_time_leaves_out_idling_and_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditions.os, "sysconf", lambda name: 100)
    found = conditions.read(tree(tmp_path, {"proc/stat": STAT, "proc/vmstat": "pgpgin 5\npswpin 3\npswpout 4"}))
    assert found.processor_s == {0: pytest.approx(1.42), 1: pytest.approx(2.0)}
    assert found.stolen_s == pytest.approx(0.05)
    assert found.swapped_pages == 7


def test_clocks_governors_and_temperatures(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand",
            "sys/devices/system/cpu/cpu3/cpufreq/scaling_cur_freq": "2400000",
            "sys/devices/system/cpu/cpu3/cpufreq/scaling_governor": "performance",
            "sys/devices/system/cpu/cpufreq/boost": "1",
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
            "sys/class/thermal/thermal_zone0/temp": "61250",
            "sys/class/thermal/thermal_zone1/type": "gpu-thermal",
            "sys/class/thermal/thermal_zone2/type": "below-zero",
            "sys/class/thermal/thermal_zone2/temp": "-4000",
        },
    )
    found = conditions.read(root)
    assert found.frequency_mhz == {0: 1500.0, 3: 2400.0}
    assert conditions.frequencies_mhz([3, 9], root) == {3: 2400.0}
    assert found.governors == ("ondemand", "performance")
    assert found.temperature_c == {"cpu-thermal (thermal_zone0)": 61.25, "below-zero (thermal_zone2)": -4.0}


def test_throttling_of_an_x86_of_a_jetson_and_by_cooling(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3",
            "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_max_time_ms": "8",
            "sys/class/hwmon/hwmon1/oc1_event_cnt": "2",
            "sys/class/thermal/cooling_device0/type": "cpufreq-cpu0",
            "sys/class/thermal/cooling_device0/cur_state": "4",
            "sys/class/thermal/cooling_device1/type": "pwm-fan",
            "sys/class/thermal/cooling_device1/cur_state": "3",
        },
    )
    found = conditions.read(root)
    assert found.throttle_counts == {
        "devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": 3,
        "class/hwmon/hwmon1/oc1_event_cnt": 2,
    }
    assert found.throttle_states == {"cpufreq-cpu0 (cooling_device0)": 4}


@pytest.mark.parametrize("folder", ["soc/soc:firmware", "soc@107c000000/soc@107c000000:firmware"])
def test_a_raspberry_pis_flags(tmp_path: Path, folder: str) -> None:
    found = conditions.read(tree(tmp_path, {f"sys/devices/platform/{folder}/get_throttled": "0x50004"}))
    assert found.throttle_states == {
        "under-voltage": 0,
        "clock capped": 0,
        "throttled": 1,
        "soft temperature limit": 0,
    }
    assert found.throttle_counts["under-voltage since boot"] == 1
    assert found.throttle_counts["clock capped since boot"] == 0


def test_what_a_machine_does_not_tell_is_named(tmp_path: Path) -> None:
    found = conditions.read(tree(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": "error"}))
    assert found.unread() == [
        "the clock's frequency",
        "the frequency governor",
        "temperatures",
        "throttling",
        "the load of other programs",
        "swapping",
    ]


def test_this_machine_is_read() -> None:
    first = conditions.read()
    second = conditions.read()
    assert second.at_s > first.at_s
    assert sum(second.processor_s.values()) >= sum(first.processor_s.values()) > 0
