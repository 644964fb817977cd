"""Small tables of the verbs that list things: payload for JSON, table for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from kdeploy.stages.model_rows import Row

Listing = tuple[dict[str, Any], Table]


def plain_table(titles: Sequence[str], rows: Sequence[Sequence[str | Text]], right: Sequence[str] = ()) -> Table:
    """A table without lines between the rows; the columns named in `right` are aligned to the right."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for title in titles:
        table.add_column(title, justify="right" if title in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return table


def facts(rows: Sequence[tuple[str, str]]) -> Table:
    """Names and values, one below the other."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    return table


def entry(text: str, *details: str) -> Text:
    """A cell with a line of text and, below it, lines of details."""
    cell = Text(text)
    for detail in filter(None, details):
        cell.append(f"\n{detail}", style="dim")
    return cell


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
    titles = ("network", "model", "parameters", "last epoch", "chosen epoch", "agrees")
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
    caption(
        table,
        "Accuracy on validation, which chose the epoch; agrees: share of it on which the teacher says the same. "
        f"Weights: {folder / 'networks'}/<network>/<network>.safetensors",
    )
    return {"schema_version": 1, "run": str(folder), "networks": networks}, table


def _epoch(history: dict[str, Any] | None, kind: str) -> str:
    if history is None:
        return "not trained here"
    return f"{_share(history[kind]['validation_accuracy'])} ({history[kind]['epoch'] + 1})"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def caption(table: Table, text: str) -> None:
    """A sentence below a table."""
    table.caption = Text(text)
    table.caption_justify = "left"


def files_table(written: Sequence[Path], against: str = "torch") -> Listing:
    """ONNX files, all of one folder, with their size and parity; `against` is what the float32 ones were made from."""
    from kdeploy import artifacts, parity
    from kdeploy.report import figures

    files, rows = [], []
    for path in written:
        record = parity.Parity.model_validate(artifacts.read_json(parity.record_path(path)))
        files.append({"path": str(path), "size_bytes": path.stat().st_size, "parity": record.model_dump(mode="json")})
        verdict = "holds" if record.passed else "FAILED"
        difference = "-" if record.relative_difference is None else f"{record.relative_difference:.1e}"
        agreement = _share(record.top1_agreement)
        rows.append((path.name, figures.size(path.stat().st_size), verdict, difference, agreement, str(record.samples)))
    titles = ("file", "size", "parity", "differs by", "same class", "inputs")
    table = plain_table(titles, rows, right=("size", *titles[3:]))
    caption(
        table,
        f"In {written[0].parent}. Parity: float32 against {against}, in ONNX Runtime, the others against float32; "
        "the largest difference as a share of the outputs' scale.",
    )
    return {"schema_version": 1, "files": files}, table


def agreement_table(rows: Sequence[Row]) -> Listing:
    """Engines of one model: how often each names the class that the float32 file names, and the right one."""
    from kdeploy.report import figures

    cells = [
        (
            row.engine,
            row.precision if row.scheme is None else f"{row.precision} ({row.scheme})",
            f"{figures.percent(row.agreement)} {_among(row.agreement, row.samples)}",
            f"{figures.percent(row.accuracy)} {figures.interval(row.low, row.high)}".strip(),
            figures.size(row.size_bytes),
        )
        for row in rows
    ]
    titles = ("engine", "precision", "agreement", "accuracy", "size")
    table = plain_table(titles, cells, right=titles[2:])
    if rows:
        caption(
            table,
            f"On {rows[0].samples} {rows[0].images}, with 95 % intervals. Agreement: the same class as the float32 "
            f"file. In {Path(rows[0].path).parent}.",
        )
    return {"engines": [row.as_json() for row in rows]}, table


def _among(share: float, samples: int) -> str:
    from kdeploy.bench.statistics import wilson
    from kdeploy.report import figures

    return figures.interval(*wilson(round(share * samples), samples))
