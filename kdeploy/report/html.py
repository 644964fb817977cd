"""One self-contained HTML file: no network, no library, nothing that a reader has to trust."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import jinja2
from markupsafe import Markup

from kdeploy.artifacts import write_text
from kdeploy.report import figures
from kdeploy.report.columns import heading
from kdeploy.report.data import ReportData
from kdeploy.report.described import described
from kdeploy.report.emulated import emulated_lines
from kdeploy.report.headline import headlines
from kdeploy.report.packaged import packaged
from kdeploy.report.sections import SECTIONS
from kdeploy.report.sections.results import measured_on

_STYLES = ("colours.css", "charts.css", "report.css")


def write_report(target: Path, report: ReportData) -> None:
    """Write the report, whole or not at all. Every name in it is escaped; a content security policy backs that up."""
    write_text(target, render(report))


def render(report: ReportData) -> str:
    """The report's HTML: its head, and the sections that this run has something for."""
    script = packaged("report.js")
    environment = _environment()
    sections = []
    for section in SECTIONS:
        content = section.content(report)
        if content is not None:
            template = environment.get_template(f"sections/{section.name}.html.j2")
            sections.append((section, Markup(template.render(report=report, **content))))
    return environment.get_template("report.html.j2").render(
        report=report,
        headlines=headlines(report),
        emulated=emulated_lines(report.rows),
        sections=sections,
        measured_on=measured_on(report.measurements),
        style=Markup("".join(map(packaged, _STYLES))),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kdeploy.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": figures.percent,
        "milliseconds": figures.milliseconds,
        "significant": figures.significant,
        "seconds": figures.seconds,
        "size": figures.size,
        "described": described,
        "heading": heading,
    }
    return environment
