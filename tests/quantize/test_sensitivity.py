from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from kdeploy.quantize.running import Running
from kdeploy.quantize.schemes import SCHEMES
from kdeploy.quantize.sensitivity import by_cost, keep_until, layer_costs
from kdeploy.quantize.static import calibrate
from kdeploy.report.charts import sensitivity as chart
from kdeploy.report.charts.standalone import standalone
from kdeploy.report.data import LayerCost
from tests.quantize import small

IMAGES = small.images(64, seed=2)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """Calibrated on small images: what the second convolution adds up from them is cut off."""
    path = small.saved(tmp_path_factory.mktemp("small"))
    return calibrate(path, scheme=SCHEMES["x86-vnni"], images=small.images(8) / 2)


@pytest.fixture(scope="module")
def costs(calibrated):
    labels = Running(calibrated.float32).run(IMAGES).argmax(axis=1)
    return layer_costs(calibrated, IMAGES, labels, output="logits")


def test_each_layer_is_measured_once_and_alone(calibrated, costs):
    assert [cost.layer for cost in costs] == calibrated.layers
    assert [cost.place for cost in costs] == list(range(len(costs)))
    assert {cost.operator for cost in costs} == {"Conv", "Add", "Mul", "GlobalAveragePool", "Gemm"}
    assert all(cost.divergence >= 0 for cost in costs)
    # Labels that float32 gets right: what is lost is what is named differently.
    for cost in costs:
        assert cost.accuracy_points == pytest.approx(100 * (cost.same_class - 1))


def test_the_worst_comes_first(costs):
    ordered = by_cost(costs)
    assert [cost.divergence for cost in ordered] == sorted((cost.divergence for cost in costs), reverse=True)
    assert ordered[0].divergence > 4 * ordered[-1].divergence


def test_layers_stay_float32_until_the_score_holds_and_no_longer(calibrated, costs):
    expected = Running(calibrated.float32).run(IMAGES)

    def score(model):
        return -float(np.abs(Running(model).run(IMAGES) - expected).mean())

    everything, nothing = score(calibrated.int8()), score(calibrated.int8(keep_float=frozenset(calibrated.layers)))
    assert nothing > -1e-5
    assert everything < -0.02
    model, steps = keep_until(calibrated, costs, score, everything / 2)
    assert [len(step.kept_float32) for step in steps] == list(range(len(steps)))
    assert steps[-1].kept_float32 == tuple(cost.layer for cost in by_cost(costs)[: len(steps) - 1])
    assert all(step.score < everything / 2 for step in steps[:-1])
    assert score(model) == steps[-1].score >= everything / 2
    assert 1 < len(steps) <= len(costs)
    kept = {node.name for node in model.graph.node if node.name in steps[-1].kept_float32}
    assert kept == set(steps[-1].kept_float32)
    assert len(keep_until(calibrated, costs, score, everything)[1]) == 1  # holds as it is


def test_the_plot_stands_alone_and_names_every_layer(costs):
    layers = [LayerCost.model_validate(cost.to_json()) for cost in costs]
    drawn = chart.draw("costs", layers, title="a <title>", kept=[costs[0].layer])
    root = ElementTree.fromstring(standalone(drawn))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    for cost in costs:
        assert f"{cost.layer} · {cost.operator}" in texts
    bars = [one for one in root.iter("{http://www.w3.org/2000/svg}rect") if one.get("class") in ("bar", "kept")]
    assert len(bars) == len(costs)
    longest = max(bars, key=lambda bar: float(bar.get("width")))
    assert bars.index(longest) == max(range(len(costs)), key=lambda place: costs[place].divergence)
