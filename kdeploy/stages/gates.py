"""Which bounds held. A gate that did not is written down; the run goes on, and ends with status 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdeploy import artifacts, parity
from kdeploy.bench.artifacts import role_of
from kdeploy.recipe.networks import STUDENT, baseline_role
from kdeploy.report.data import Gate
from kdeploy.stages.base import Run, spec
from kdeploy.stages.engines import PYTORCH
from kdeploy.stages.precisions import CARD_VERSION, INTEGER

FILE = "gates.json"
_EXPORTED = "-onnxruntime-float32"
"""End of the row that speaks of a network's float32 ONNX file."""


class Gates:
    """Writes `gates.json`: the parity of each exported file, and the recipe's gates, decided on validation."""

    name = "gates"

    def inputs(self, run: Run) -> Mapping[str, Any]:
        files = run.files("export/*.json", "networks/*/history.json")
        seen = {str(path.relative_to(run.folder)): artifacts.sha256_file(path) for path in files}
        return {"gates": spec(run.recipe.gates), "seen": seen}

    def run(self, run: Run) -> Sequence[Path]:
        asked = run.recipe.gates
        gates = [
            *_parity(run.files("export/*.parity.json")),
            *_drops(_cards(run), asked.int8_drop_points),
            *_gain(run.folder / "networks", asked.student_gain_points),
        ]
        target = run.folder / FILE
        artifacts.write_json(target, {"schema_version": 1, "gates": [gate.model_dump() for gate in gates]})
        return [target]


def read(folder: Path) -> list[Gate]:
    """The gates of a run; none where the run has not come so far."""
    path = folder / FILE
    return [Gate.model_validate(gate) for gate in artifacts.read_json(path)["gates"]] if path.is_file() else []


def failed_rows(folder: Path) -> set[str]:
    """The rows that a failed gate speaks of; with a network's float32 file, all engines that were made from it."""
    failed = {gate.row for gate in read(folder) if not gate.passed}
    wrong = {row.removesuffix(_EXPORTED) for row in failed if row.endswith(_EXPORTED)}
    built = [path.name for path in (folder / "engines").glob("*") if f"-{PYTORCH}" not in path.name]
    return failed.union(row for row in built if role_of(row) in wrong)


def _parity(records: Sequence[Path]) -> list[Gate]:
    gates = []
    for path in records:
        record = parity.Parity.model_validate(artifacts.read_json(path))
        role, label = path.name.removesuffix(".parity.json").split(".", 1)
        card = _card(path.with_name(f"{role}.{label}.json"))
        rows = [f"{role}-onnxruntime-{label}"] if card is None else card["rows"]
        bound = "finite outputs of the right shape"
        if record.tolerance is not None:
            bound = f"within {record.tolerance:g} of torch's scale, cosine at least {record.min_cosine_similarity}"
        value = "; ".join(record.reasons) or _figures(record)
        gates += [
            Gate(name=f"parity of {role}.{label}.onnx", row=row, bound=bound, value=value, passed=record.passed)
            for row in rows
        ]
    return gates


def _cards(run: Run) -> list[Mapping[str, Any]]:
    """What is known of each file of lower precision."""
    found = [_card(path) for path in run.files("export/*.json") if not path.name.endswith(".parity.json")]
    return [card for card in found if card is not None]


def _card(path: Path) -> Mapping[str, Any] | None:
    """What `stages.quantize` left beside a file; None where there is none, or one of an older kdeploy, whose file no
    engine is built from any more."""
    card: Mapping[str, Any] = artifacts.read_json(path) if path.is_file() else {}
    return card if card.get("schema_version") == CARD_VERSION else None


def _figures(record: parity.Parity) -> str:
    return (
        f"{record.relative_difference:.1e} of the scale, cosine {record.cosine_similarity:.6f}, "
        f"{record.top1_agreement:.1%} same class on {record.samples} {record.images or 'images'}"
    )


def _drops(cards: Sequence[Mapping[str, Any]], bound: float | None) -> list[Gate]:
    """int8 and mixed against float32, in points of accuracy on the same validation images; mixed has its own budget.

    Without validation images it must name float32's class on all but as many points of the synthesised images: on
    those, it cannot have lost more.
    """
    gates = []
    for card in cards:
        precision = card["precision"]
        allowed = card["budget_points"] if precision == "mixed" else bound
        if precision not in INTEGER or allowed is None:
            continue
        asked, value, drop = (_of_validation if "validation" in card else _of_agreement)(card, allowed)
        gates += [
            Gate(name=f"{precision}_drop_points", row=row, bound=asked, value=value, passed=drop <= allowed + 1e-9)
            for row in card["rows"]
        ]
    return gates


def _of_validation(card: Mapping[str, Any], bound: float) -> tuple[str, str, float]:
    """What is asked for, what was measured, and the loss in points."""
    validation, precision = card["validation"], card["precision"]
    drop = 100 * (validation["float32"] - validation[precision])
    measured = f"{-drop:+.2f} points on {validation['samples']} validation images"
    return f"{precision} within {bound:g} points of float32, or above", measured, drop


def _of_agreement(card: Mapping[str, Any], bound: float) -> tuple[str, str, float]:
    """The same, by the classes that int8 and float32 name."""
    found = card["agreement"]
    measured = f"{found['share']:.2%} of {found['samples']} {found['images']}"
    return (
        f"{card['precision']} names float32's class on at least {100 - bound:g} %",
        measured,
        100 * (1 - found["share"]),
    )


def _gain(networks: Path, bound: float | None) -> list[Gate]:
    """Each distilled student against the same student alone, on validation."""
    if bound is None:
        return []
    gates = []
    for student in sorted(networks.glob(f"{STUDENT}*/history.json")):
        role = student.parent.name
        alone = networks / baseline_role(role) / "history.json"
        if not alone.is_file():
            continue
        gain = 100 * (_selected(artifacts.read_json(student)) - _selected(artifacts.read_json(alone)))
        gates.append(
            Gate(
                name="student_gain_points",
                row=f"{role}-pytorch",
                bound=f"distilled at least {bound:g} points above alone",
                value=f"{gain:+.2f} points on validation",
                passed=gain >= bound - 1e-9,
            )
        )
    return gates


def _selected(history: Mapping[str, Any]) -> float:
    epoch = "last" if history["selected"] == "last" else "chosen"
    return float(history[epoch]["validation_accuracy"])
