"""From a YAML file and `--set` overrides to a checked recipe; every error names its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from kdeploy.errors import UserError, nearest
from kdeploy.plugins import is_subclass
from kdeploy.recipe import checks
from kdeploy.recipe.catalogue import find
from kdeploy.recipe.schema import Recipe

Place = Mapping[tuple[str | int, ...], str]
"""Where each value of a recipe was written: "recipe.yaml, line 3" or "--set a.b"."""

_PATHS = (("data", "root"), ("teacher", "checkpoint"), ("student", "checkpoint"))


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
    text: str = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)
    return text


def read_yaml(file: Path) -> tuple[dict[str, Any], Place]:
    """The content of a YAML file as plain data, and where each value was written."""
    try:
        text = file.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}.") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{file}{line}: this is not valid YAML: {error.problem}.") from None
    except yaml.YAMLError as error:
        raise UserError(f"{file}: this is not valid YAML: {error}.") from None
    if not isinstance(content, dict):
        raise UserError(f"{file}: a recipe is a mapping of keys such as name, data, teacher; this file is not.")
    return content, dict(_lines(node, (), file))


def _lines(
    node: yaml.Node | None, at: tuple[str | int, ...], file: Path
) -> Iterable[tuple[tuple[str | int, ...], str]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*at, key.value)
            yield here, f"{file}, line {key.start_mark.line + 1}"
            yield from _lines(value, here, file)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            here = (*at, number)
            yield here, f"{file}, line {value.start_mark.line + 1}"
            yield from _lines(value, here, file)


def _make_absolute(content: dict[str, Any], base: Path) -> None:
    for section, key in _PATHS:
        part = content.get(section)
        if isinstance(part, dict) and isinstance(part.get(key), str):
            part[key] = str((base / Path(part[key]).expanduser()).resolve())


def _apply(content: dict[str, Any], places: dict[tuple[str | int, ...], str], override: str) -> None:
    """Set one `a.b.c=value` in `content`; list entries by number."""
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise UserError(f"--set {override!r} must be written a.b=value, for example --set distill.epochs=5.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override!r}: the value is not valid YAML: {error}.") from None
    if tuple(keys) in _PATHS and isinstance(value, str):
        value = str(Path(value).expanduser().resolve())
    target: Any = content
    for depth, key in enumerate(keys[:-1]):
        target = _enter(target, key, override, ".".join(keys[: depth + 1]))
    last: str | int = keys[-1]
    if isinstance(target, list):
        last = _index(target, keys[-1], override)
    elif not isinstance(target, dict):
        raise UserError(f"--set {override!r}: {'.'.join(keys[:-1])} is a single value and has no {keys[-1]!r}.")
    target[last] = value
    places[tuple(int(key) if key.isdigit() else key for key in keys)] = f"--set {dotted.strip()}"


def _enter(target: Any, key: str, override: str, dotted: str) -> Any:
    if isinstance(target, list):
        return target[_index(target, key, override)]
    if not isinstance(target, dict):
        raise UserError(f"--set {override!r}: {dotted} is not a mapping.")
    if target.get(key) is None:
        target[key] = {}
    return target[key]


def _index(target: list[Any], key: str, override: str) -> int:
    if not key.isdigit() or int(key) >= len(target):
        raise UserError(f"--set {override!r}: the list has entries 0 to {len(target) - 1}, not {key!r}.")
    return int(key)


def _place(location: Sequence[str | int], places: Place, file: Path) -> str:
    """The closest written place of a location: its own, or that of what it lies in."""
    for length in range(len(location), 0, -1):
        if tuple(location[:length]) in places:
            return places[tuple(location[:length])]
    return str(file)


def _explain(error: ValidationError, places: Place, file: Path) -> str:
    """One sentence for each thing that is wrong, each with its place and the nearest valid name."""
    sentences = []
    for problem in error.errors():
        location = tuple(part for part in problem["loc"] if not _is_branch(part))
        dotted = ".".join(str(part) for part in location)
        where = _place(location, places, file)
        if problem["type"] == "extra_forbidden":
            known = _fields(location[:-1])
            sentences.append(f"{where}: there is no key {dotted!r}.{nearest(str(location[-1]), known)}")
        elif problem["type"] == "missing":
            sentences.append(f"{where}: the key {dotted!r} is missing.")
        else:
            given = "" if isinstance(problem["input"], dict | list) else f" (given: {problem['input']!r})"
            message = problem["msg"].removeprefix("Value error, ")
            sentences.append(f"{where}: {dotted or 'the recipe'}: {message}{given}.")
    return "\n".join(dict.fromkeys(sentences))


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
