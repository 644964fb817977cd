"""Small tables of the verbs that list things: payload for JSON, table for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

Listing = tuple[dict[str, Any], Table]


def plain_table(titles: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> Table:
    """A table without lines between the rows; the columns named in `right` are aligned to the right."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for title in titles:
        table.add_column(title, justify="right" if title in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    return table


def networks_table(folder: Path) -> Listing:
    """The trained networks of a run: epochs, accuracy on validation, parameters, and where they lie."""
    from kdeploy import artifacts

    networks = []
    for path in sorted(folder.glob("networks/*/*.safetensors")):
        role = path.parent.name
        if path.stem != role:
            continue  # the other epoch's weights
        card = artifacts.read_json(path.with_suffix(".json"))
        history_file = path.parent / "history.json"
        history = artifacts.read_json(history_file) if history_file.is_file() else None
        networks.append(
            {
                "role": role,
                "model": card["model"],
                "parameters": card["parameters"],
                "macs": card["macs"],
                "history": history,
                "weights": str(path),
            }
        )
    titles = ("network", "model", "parameters", "last epoch", "epoch chosen on validation", "agrees with teacher")
    rows = [
        (
            network["role"],
            network["model"],
            f"{network['parameters']:,}",
            _epoch(network["history"], "last"),
            _epoch(network["history"], "chosen"),
            _share((network["history"] or {}).get("teacher_agreement")),
        )
        for network in networks
    ]
    table = plain_table(titles, rows, right=titles[2:])
    table.caption = f"Accuracy on validation. Weights under {folder / 'networks'}"
    table.caption_justify = "left"
    return {"schema_version": 1, "run": str(folder), "networks": networks}, table


def _epoch(history: dict[str, Any] | None, kind: str) -> str:
    if history is None:
        return "not trained here"
    return f"{_share(history[kind]['validation_accuracy'])} (epoch {history[kind]['epoch'] + 1})"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def files_table(written: Sequence[Path]) -> Listing:
    """ONNX files with their size and parity."""
    from kdeploy import artifacts, parity
    from kdeploy.report import figures

    files, rows = [], []
    for path in written:
        record = parity.Parity.model_validate(artifacts.read_json(parity.record_path(path)))
        files.append({"path": str(path), "size_bytes": path.stat().st_size, "parity": record.model_dump(mode="json")})
        verdict = "holds" if record.passed else "FAILED"
        difference = "-" if record.relative_difference is None else f"{record.relative_difference:.1e}"
        agreement = _share(record.top1_agreement)
        rows.append((str(path), figures.size(path.stat().st_size), verdict, difference, agreement, str(record.samples)))
    titles = ("file", "size", "parity", "largest difference", "same class", "inputs")
    return {"schema_version": 1, "files": files}, plain_table(titles, rows, right=titles[3:])
