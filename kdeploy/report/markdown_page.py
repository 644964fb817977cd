"""A report as a Markdown page: for `benchmarks/results/`, pull requests and wikis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdeploy.report import figures
from kdeploy.report.data import ReportData
from kdeploy.report.markdown import aggregate_to_markdown, to_markdown
from kdeploy.report.rows import Row
from kdeploy.report.seeds import Mean


def page(report: ReportData, per_seed: Mapping[int, Sequence[Row]]) -> str:
    """The tables of a run, or of several seeds of one, with the machine and the revision they came from.

    per_seed: the rows of each seed; one seed gives one table.
    """
    parts = [f"# {report.title}", report.about]
    if len(per_seed) > 1:
        parts += [
            f"Means over seeds {_listed(per_seed)}, in brackets 95 % t intervals over the seeds. A teacher that keeps "
            "its own seed is one network for all of them: its accuracy does not vary."
        ]
        parts += [aggregate_to_markdown(report.seeds)]
        parts += [_gain(report.gain)] if report.gain is not None else []
        parts += [_gain(gain, f" ({role})") for role, gain in report.further_gains.items()]
    for seed, rows in per_seed.items():
        parts += [f"## Seed {seed}", to_markdown(rows)]
    for device in report.devices:
        parts += [f"## On {device.name}", to_markdown(device.rows), device.outdated_note or ""]
        parts += [machine_lines(device.machine)]
    parts += ["## Gates" + (f" (seed {report.seed})" if len(per_seed) > 1 else ""), _gates(report)]
    parts += ["\n".join(f"- {failure}" for failure in report.int8_failures)]
    parts += ["## Machine", _machine(report)]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _listed(per_seed: Mapping[int, Sequence[Row]]) -> str:
    return ", ".join(str(seed) for seed in per_seed)


def _gain(gain: Mean, whose: str = "") -> str:
    interval = "" if gain.low is None or gain.high is None else f" [{100 * gain.low:+.2f}, {100 * gain.high:+.2f}]"
    return (
        f"Distilled over alone{whose}: **{100 * gain.value:+.2f} points**{interval} "
        f"(mean of {gain.seeds} seeds paired by seed, 95 % t interval)."
    )


def _gates(report: ReportData) -> str:
    lines = ["| gate | asked for | measured | verdict |", "|:--|:--|:--|:--|"]
    for gate in report.gates:
        lines.append(f"| {gate.name} | {gate.bound} | {gate.value} | {'holds' if gate.passed else '**fails**'} |")
    return "\n".join(lines)


def _machine(report: ReportData) -> str:
    made = {"kdeploy": f"{report.kdeploy}, revision {report.revision or 'not known'}", "written": report.created}
    return machine_lines(report.machine, **made)


def machine_lines(machine: Mapping[str, Any], **more: str) -> str:
    """What of a machine's fingerprint bears on figures, and what the caller adds: a line each."""
    cores = machine.get("cores")
    usable = cores.get("usable") if isinstance(cores, dict) else cores
    facts = {
        "processor": f"{machine.get('processor')}, {usable} cores",
        "instruction sets": ", ".join(machine.get("instruction_sets", ())),
        "memory": figures.size(machine.get("memory_bytes")),
        "virtual machine": "yes" if machine.get("virtual_machine") else "no",
        "system": f"{machine.get('os')}, Linux {machine.get('kernel')}, Python {machine.get('python')}",
        "packages": ", ".join(
            f"{name} {version}" for name, version in machine.get("packages", {}).items() if version is not None
        ),
        **more,
    }
    return "\n".join(f"- {name}: {fact}" for name, fact in facts.items())
