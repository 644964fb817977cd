"""`kdeploy export PLAN.build.json`: what a device does of an export; the rest was done where torch is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdeploy.cli.tables import Listing

if TYPE_CHECKING:
    from kdeploy.engines.base import Manifest


def build_engines(plan: Path, out: Path, json_: str | None) -> None:
    """Build the engines of a plan, and show them."""
    from kdeploy.cli.output import emit, talking
    from kdeploy.stages import builds

    with talking():
        rows = [build.row for build in builds.read(plan).builds]
        built = builds.carry_out(plan, out)
    payload, table = built_table([described(row, one) for row, one in zip(rows, built, strict=True)], str(out))
    emit(json_, {"schema_version": 1, **payload}, table)


def described(row: str, manifest: Manifest) -> dict[str, Any]:
    """JSON-able: what is shown of an engine that was just built."""
    return {
        "row": row,
        "engine": manifest.engine,
        "precision": manifest.precision,
        "scheme": manifest.scheme,
        "size_bytes": manifest.size_bytes,
        "check": manifest.details.get("check"),
        "built_on": manifest.details["built_on"],
    }


def built_table(built: Sequence[Mapping[str, Any]], folder: str) -> Listing:
    """Engines as they were built: how far each is from its graph, and on what device that was seen."""
    from kdeploy.cli.tables import caption, plain_table
    from kdeploy.report import figures

    cells = []
    for one in built:
        check = one["check"] or {}
        differs = check.get("max_relative_difference")
        scheme = f" ({one['scheme']})" if one["scheme"] else ""
        cosine = check.get("cosine_similarity")
        cells.append(
            (
                one["row"],
                f"{one['precision']}{scheme}",
                "n/a" if differs is None else f"{differs:.1e}",
                "n/a" if cosine is None else f"{cosine:.5f}",
                figures.size(one["size_bytes"]),
            )
        )
    titles = ("engine", "precision", "differs by", "cosine", "size")
    table = plain_table(titles, cells, right=titles[2:])
    if built:
        where = " · ".join(map(str, dict.fromkeys(built[0]["built_on"].values())))
        reference = next((one["check"]["reference"] for one in built if one["check"]), "their graphs")
        caption(table, f"Built on {where}, and compared there with {reference}, on seeded images. In {folder}.")
    return {"engines": list(built)}, table
