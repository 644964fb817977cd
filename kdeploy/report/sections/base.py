"""What a section of the report is, and a figure in it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from kdeploy.report.charts.standalone import standalone
from kdeploy.report.data import ReportData
from kdeploy.report.formats.tables import Table, to_csv


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    name: str
    """Its template, `templates/sections/<name>.html.j2`, and its anchor."""
    title: str
    content: Callable[[ReportData], Mapping[str, Any] | None]
    """What the template is filled with, beside `report`; None: this run has nothing to show, and it is left out."""


@dataclass(frozen=True)
class Figure:
    """A drawing, and the data that it shows, each with a link that saves it."""

    name: str
    """Of the files that are saved: `accuracy-latency`."""
    title: str
    wide: Markup
    table: Table
    narrow: Markup | None = None
    """For screens as wide as a phone, so that text keeps its size; None: one drawing for all."""

    @property
    def svg(self) -> str:
        """The drawing as a `data:` address."""
        return data_address("image/svg+xml", standalone(self.wide))

    @property
    def csv(self) -> str:
        """The data as a `data:` address."""
        return data_address("text/csv", to_csv(self.table))


def figure(name: str, title: str, wide: Markup | None, table: Table, narrow: Markup | None = None) -> Figure | None:
    """A figure; None where nothing was drawn."""
    return None if wide is None else Figure(name, title, wide, table, narrow)


def data_address(kind: str, text: str) -> str:
    """A file inside a link."""
    return f"data:{kind};base64,{base64.b64encode(text.encode()).decode()}"
