"""From a YAML file and `--set` overrides to a checked recipe; every error names its place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from kdeploy.errors import UserError, nearest
from kdeploy.plugins import is_subclass
from kdeploy.recipe import checks
from kdeploy.recipe.catalogue import RecipeFile, find
from kdeploy.recipe.schema import Recipe

Location = tuple[str | int, ...]
"""Where a value stands in a recipe: ("engines", 0, "precision")."""
Place = Mapping[Location, str]
"""Where each value of a recipe was written: "recipe.yaml, line 3" or "--set a.b"."""

_WORDS = {
    "model_type": "a mapping of keys",
    "tuple_type": "a list",
    "invalid_key": "a key that is text",
    "too_short": "longer",
}
_PATHS = (
    ("data", "root"),
    ("teacher", "checkpoint"),
    ("teacher", "cache", "folder"),
    ("teachers", "*", "checkpoint"),
    ("student", "checkpoint"),
    ("distill", "assistants", "*", "checkpoint"),
)
"""Where a recipe holds paths; * stands for each entry of a list."""


class _Loader(yaml.SafeLoader):
    """Safe, and 1e-3 is a number, as in YAML 1.2; in the YAML 1.1 of PyYAML it is text."""


class _Dumper(yaml.SafeDumper):
    """Quotes the text that `_Loader` would read as a number."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
    )


def _escape_line_breaks(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Text with one of YAML's own line breaks in double quotes, where it is escaped and not folded to a space."""
    style = '"' if any(mark in text for mark in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _escape_line_breaks)


def load(reference: str, overrides: Sequence[str] = ()) -> Recipe:
    """Load, override and check a recipe.

    reference: a file, or a shipped recipe's name; overrides: `a.b=value`, the value read as YAML. Relative
    paths in the file start from the file's folder, those in overrides from the current one; the recipe
    returned holds absolute ones. Raises UserError with the file, the line and the nearest valid name.
    """
    file = find(reference)
    content, lines = read_yaml(file)
    places = dict(lines)
    _make_absolute(content, file.parent)
    for override in overrides:
        _apply(content, places, override)
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise UserError(_explain(error, places, file)) from None
    checks.check(recipe, lambda location: _place(location, places, file))
    return recipe


def dump(recipe: Recipe) -> str:
    """The recipe as YAML with nothing left to a default."""
    text: str = yaml.dump(
        recipe.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100
    )
    return text


def read_yaml(file: RecipeFile) -> tuple[dict[str, Any], Place]:
    """The content of a YAML file as plain data, and where each value was written."""
    try:
        text = file.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=_Loader)
        content = yaml.load(text, Loader=_Loader)  # a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}.") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{file}{line}: this is not valid YAML: {error.problem}.") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: what looks like a date and is none
        raise UserError(f"{file}: this is not valid YAML: {error}.") from None
    if not isinstance(content, dict):
        raise UserError(f"{file}: a recipe is a mapping of keys such as name, data, teacher; this file is not.")
    places: dict[Location, str] = {}
    _note_lines(node, (), file, places, seen=set())
    return content, places


def _note_lines(
    node: yaml.Node | None, at: Location, file: RecipeFile, places: dict[Location, str], seen: set[int]
) -> None:
    """Note the line of each key and entry; a part that `*alias` repeats is noted at its first place only."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    children: Iterable[tuple[str | int, yaml.Node, yaml.Node]] = ()
    if isinstance(node, yaml.MappingNode):
        children = ((key.value, key, value) for key, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        children = ((number, value, value) for number, value in enumerate(node.value))
    for name, written, value in children:
        here = (*at, name)
        line = f"{file}, line {written.start_mark.line + 1}"
        if here in places:
            raise UserError(f"{line}: the key {name!r} is here a second time; the first is at {places[here]}.")
        places[here] = line
        _note_lines(value, here, file, places, seen)


def _make_absolute(content: dict[str, Any], base: Path) -> None:
    for *sections, key in _PATHS:
        for part in _parts(content, sections):
            if isinstance(part.get(key), str):
                part[key] = str((base / Path(part[key]).expanduser()).resolve())


def _parts(part: Any, sections: Sequence[str]) -> Iterable[dict[str, Any]]:
    """The mappings that lie at these sections of a part of a recipe, as far as they are there."""
    if not sections:
        if isinstance(part, dict):
            yield part
        return
    first, *rest = sections
    if first == "*":
        entries = part if isinstance(part, list) else list(part.values()) if isinstance(part, dict) else []
    else:
        entries = [part.get(first)] if isinstance(part, dict) else []
    for entry in entries:
        yield from _parts(entry, rest)


def _apply(content: dict[str, Any], places: dict[Location, str], override: str) -> None:
    """Set one `a.b.c=value` in `content`; list entries by number."""
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise UserError(f"--set {override!r} must be written a.b=value, for example --set distill.epochs=5.")
    try:
        value = yaml.load(text, Loader=_Loader)  # a SafeLoader
    except (yaml.YAMLError, ValueError) as error:
        problem = getattr(error, "problem", None) or error
        raise UserError(f"--set {override!r}: the value is not valid YAML: {problem}.") from None
    value = _with_absolute_paths(keys, value)
    target: Any = content
    for depth, key in enumerate(keys[:-1]):
        target = _enter(target, key, override, ".".join(keys[:depth]))
    last: str | int = keys[-1]
    if isinstance(target, list):
        last = _index(target, keys[-1], override)
    elif not isinstance(target, dict):
        raise UserError(_no_inside(override, ".".join(keys[:-1]), keys[-1]))
    target[last] = value
    location = tuple(int(key) if key.isdigit() else key for key in keys)
    for place in [place for place in places if place[: len(location)] == location]:
        del places[place]
    places[location] = f"--set {dotted.strip()}"


def _with_absolute_paths(keys: Sequence[str], value: Any) -> Any:
    """The value of an override with the paths in it, which start from the current folder, made absolute."""
    nested = value
    for key in reversed(keys):
        nested = {key: nested}
    _make_absolute(nested, Path.cwd())
    for key in keys:
        nested = nested[key]
    return nested


def _enter(target: Any, key: str, override: str, dotted: str) -> Any:
    """What lies under `key` of `target`, whose own name is `dotted`; made where it is missing."""
    if isinstance(target, list):
        return target[_index(target, key, override)]
    if not isinstance(target, dict):
        raise UserError(_no_inside(override, dotted, key))
    if target.get(key) is None:
        target[key] = {}
    return target[key]


def _no_inside(override: str, dotted: str, key: str) -> str:
    return f"--set {override!r}: {dotted} is a single value and has no {key!r}."


def _index(target: list[Any], key: str, override: str) -> int:
    if not key.isdigit() or int(key) >= len(target):
        raise UserError(f"--set {override!r}: the list has entries 0 to {len(target) - 1}, not {key!r}.")
    return int(key)


def _place(location: Location, places: Place, file: RecipeFile) -> str:
    """The closest written place of a location: its own, that of what lies in it, or that of what it lies in."""
    inside = [place for place in places if location and place[: len(location)] == location]
    around = [location[:length] for length in range(len(location) - 1, 0, -1)]
    found = next((at for at in [location, *inside, *around] if at in places), None)
    return str(file) if found is None else places[found]


def _explain(error: ValidationError, places: Place, file: RecipeFile) -> str:
    """One sentence for each place where something is wrong, with the nearest valid name."""
    wrong: dict[Location, list[ErrorDetails]] = {}
    for problem in error.errors():
        wrong.setdefault(_location(problem), []).append(problem)
    return "\n".join(
        f"{_place(location, places, file)}: {_sentence(location, problems)}"
        for location, problems in wrong.items()
        if not any(other != location and other[: len(location)] == location for other in wrong)
    )


def _location(problem: ErrorDetails) -> Location:
    """Where the problem lies, without the names of a union's branches that pydantic puts in."""
    location = problem["loc"]
    keys = 1 if problem["type"] in ("extra_forbidden", "missing") else 0  # at the end stands what the user wrote
    branches = location[: len(location) - keys]
    return (*(part for part in branches if not _is_branch(part)), *location[len(branches) :])


def _sentence(location: Location, problems: Sequence[ErrorDetails]) -> str:
    """What is wrong at one place. Several problems: the value has none of the forms that it may have."""
    dotted = ".".join(str(part) for part in location) or "the recipe"
    first = problems[0]
    if first["type"] == "extra_forbidden":
        return f"there is no key {dotted!r}.{nearest(str(location[-1]), _fields(location[:-1]))}"
    if first["type"] == "missing":
        return f"the key {dotted!r} is missing."
    ours = [problem for problem in problems if problem["type"] == "value_error"]
    if ours:
        return f"{dotted}: {ours[0]['msg'].removeprefix('Value error, ')}."
    forms = [_WORDS.get(problem["type"], problem["msg"]) for problem in problems]
    forms = [form.removeprefix("Input should be ").replace("String should match", "text of") for form in forms]
    given = "" if isinstance(first["input"], dict | list) else f" (given: {first['input']!r})"
    return f"{dotted} must be {' or '.join(forms)}{given}."


def _is_branch(part: str | int) -> bool:
    """Whether pydantic put the name of a union's branch into a location, where no key stands."""
    return isinstance(part, str) and (
        part.startswith(("tuple[", "literal[", "function-", "constrained-"))
        or part in ("str", "int", "bool", "float")
        or part[:1].isupper()
    )


def _fields(location: Sequence[str | int]) -> list[str]:
    """The field names of the part of the schema at a location."""
    model: Any = Recipe
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        inside = next((found for found in _models(annotation)), None)
        if inside is None:
            return []
        model = inside
    return list(model.model_fields)


def _models(annotation: Any) -> Iterable[type[BaseModel]]:
    if is_subclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
