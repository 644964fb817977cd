"""The sections of the report in their order, one file each; its template is in `templates/sections/`."""

from kdeploy.report.sections import (
    checks,
    devices,
    footprint,
    layers,
    notes,
    provenance,
    results,
    seeds,
    sensitivity,
    steadiness,
    tradeoff,
    training,
)
from kdeploy.report.sections.base import Section

SECTIONS: tuple[Section, ...] = (
    results.SECTION,
    devices.SECTION,
    notes.SECTION,
    seeds.SECTION,
    tradeoff.SECTION,
    steadiness.SECTION,
    footprint.SECTION,
    layers.SECTION,
    training.SECTION,
    checks.SECTION,
    sensitivity.SECTION,
    provenance.SECTION,
)
