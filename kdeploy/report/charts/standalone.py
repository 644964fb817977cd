"""A chart of the page as a file of its own: light colours, and no CSS variables, which drawing programs do not know."""

from __future__ import annotations

import re
from functools import cache

from kdeploy.report.packaged import packaged

_RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
_VARIABLE = re.compile(r"var\(--([\w-]+)(?:,\s*var\(--([\w-]+)\))?\)")
_SIZE = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')


def standalone(drawing: str) -> str:
    """An SVG file from a chart as `charts.svg.markup` gives it, with its size, its style and a background."""
    text = str(drawing)  # of a Markup, which would escape what it is joined with
    found = _SIZE.search(text)
    if found is None:
        raise ValueError("A chart states its size as viewBox.")
    width, height = found.groups()
    opened, _, rest = text.partition(">")
    sized = opened.replace("<svg", f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"', 1)
    background = f'<rect width="{width}" height="{height}" fill="{_colours()["card"]}"/>'
    return f"{sized}><style>{_style()}</style>{background}{rest}\n"


@cache
def _colours() -> dict[str, str]:
    """The light colours, by name: the first rule of the style sheet."""
    rule = _RULE.search(packaged("colours.css"))
    assert rule is not None
    return dict(re.findall(r"--([\w-]+): (#\w+);", rule[2]))


@cache
def _style() -> str:
    """The charts' rules with every variable resolved; rules that speak of a network's colour once for each network."""
    rules = [(selector.strip(), body.strip()) for selector, body in _RULE.findall(packaged("charts.css"))]
    roles = {selector: body for selector, body in rules if body.startswith("--role")}
    written = ["svg{font-family:system-ui,sans-serif}"]
    for selector, body in rules:
        if selector in roles:
            continue
        written.append(_rule(selector, body, role=None))
        if "var(--role" in body:
            written += [_rule(f"{selector}{each}", body, role=_network(said)) for each, said in roles.items()]
    return "".join(written)


def _network(body: str) -> str:
    """The colour's name in `--role: var(--teacher);`."""
    found = _VARIABLE.search(body)
    assert found is not None
    return found[1]


def _rule(selector: str, body: str, role: str | None) -> str:
    def colour(found: re.Match[str]) -> str:
        name, otherwise = found.groups()
        known = (role or otherwise or "soft") if name == "role" else name
        return _colours()[known]

    return f"{selector}{{{_VARIABLE.sub(colour, body)}}}"
