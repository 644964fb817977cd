"""The catalogue of sources, and the record of a result."""

from __future__ import annotations

import numpy as np
import pytest

from kdeploy.bench.energy import Energy, find_meters, sources
from kdeploy.bench.energy.base import Trace, Window
from kdeploy.bench.energy.results import Sampled, Sampling, energy_of
from tests.bench.energy.trees import chip, write, zone

SECOND = 1_000_000_000
SAMPLING = Sampling(period_s=0.1, rounds=200, cpu_share=0.001, reading_ms={"rapl package-0": 0.03})
IDLE, LOAD = Window(0, 5 * SECOND), Window(5 * SECOND, 15 * SECOND)


def package(power_w, until_s=20.0, failure=None):
    """A counter read every 100 ms; power_w: a function of the time in seconds."""
    times = np.arange(0, until_s, 0.1)
    joules = 1000 + np.concatenate([[0.0], np.cumsum(power_w(times)[:-1] * 0.1)])
    trace = Trace((times * SECOND).round().astype(np.int64), joules, "joules")
    return Sampled("rapl package-0", "package", "the package", trace, failure)


def test_every_source_is_found_by_its_file():
    assert sources.names() == ["ina3221", "nvml", "rapl", "raspberry_pi"]
    assert [sources.find(name).name for name in sources.names()] == sources.names()


def test_a_new_source_is_one_new_file(tmp_path, monkeypatch):
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "joulescope.py").write_text(
        "from kdeploy.bench.energy.base import Found, Source\n\n\n"
        "class Joulescope(Source):\n    name = 'joulescope'\n\n"
        "    def find(self, root):\n        return Found(absent={self.name: 'nothing on USB'})\n"
    )
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(folder)])
    assert find_meters(tmp_path).absent["joulescope"] == "nothing on USB"


def test_meters_and_reasons_of_all_sources(tmp_path):
    root = write(tmp_path, zone("0", "package-0", 5) | chip(2, {1: ("VDD_IN", "5000", "1000")}))
    found = find_meters(root)
    assert [meter.name for meter in found.meters] == ["ina3221 VDD_IN", "rapl package-0"]
    assert set(found.absent) == {"nvml", "raspberry_pi"}
    assert set(find_meters(tmp_path / "empty").absent) == set(sources.names())


def test_gross_and_net(tmp_path):
    sampled = package(lambda times: np.where(times < 4.95, 10.0, 35.0))
    energy = energy_of([sampled], {"nvml": "no NVIDIA driver is loaded"}, SAMPLING, LOAD, IDLE, 1000)
    (found,) = energy.meters
    assert found.joules == pytest.approx(350.0)
    assert (found.seconds, found.inferences) == (10.0, 1000)
    assert found.idle.watts == pytest.approx(10.0)
    assert found.joules_per_inference.value == pytest.approx(0.35)
    assert found.net_joules_per_inference.value == pytest.approx(0.25)
    assert found.joules_per_inference.low <= 0.35 + 1e-9
    assert found.joules_per_inference.high >= 0.35 - 1e-9
    assert energy.absent == {"nvml": "no NVIDIA driver is loaded"}
    assert Energy.model_validate_json(energy.model_dump_json()) == energy


def test_the_interval_of_net_has_the_idle_power_in_it():
    waves = package(lambda times: 20 + np.where(times < 5, 4.0, 0.0) * np.sin(times * 9))
    (found,) = energy_of([waves], {}, SAMPLING, LOAD, IDLE, 10).meters
    gross = found.joules_per_inference.high - found.joules_per_inference.low
    net = found.net_joules_per_inference.high - found.net_joules_per_inference.low
    assert gross < 1e-6
    assert net > 0.1
    assert found.net_joules_per_inference.low < 0 < found.net_joules_per_inference.high


@pytest.mark.parametrize(
    ("idle", "why"), [(None, "the machine was not measured at rest"), (Window(0, SECOND), "20 are needed")]
)
def test_without_idle_there_is_no_net(idle, why):
    (found,) = energy_of([package(lambda times: 5 + 0 * times)], {}, SAMPLING, LOAD, idle, 10).meters
    assert (found.idle, found.net_joules_per_inference) == (None, None)
    assert why in found.idle_absent
    assert found.joules_per_inference.value == pytest.approx(5.0)


def test_a_dead_meter_is_absent_with_both_reasons():
    sampled = package(lambda times: 5 + 0 * times, until_s=9.0, failure="energy_uj: Input/output error")
    energy = energy_of([sampled], {}, SAMPLING, LOAD, IDLE, 10)
    assert energy.meters == ()
    assert energy.absent == {
        "rapl package-0": "its readings end 6.10 s before the measurement does; energy_uj: Input/output error"
    }


def test_energy_of_nothing_is_a_bug():
    with pytest.raises(ValueError, match="0 inferences"):
        energy_of([], {}, SAMPLING, LOAD, None, 0)
