"""Run as a script in a process of its own: load one TensorRT extension module and print its surface as JSON.

    python dump.py FOLDER/tensorrt.so

Classes with their methods, arguments and properties, enumerations with their members, functions. The arguments are
read from the docstrings that pybind11 writes, as compiled functions have no other signature. One process serves one
version: two extension modules of the same name do not fit into one.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import re
import sys
from types import ModuleType
from typing import Any

_SIGNATURE = re.compile(r"^(?:\d+\. )?(?P<name>\w+)\((?P<arguments>.*)\) -> (?P<returns>.+)$", re.MULTILINE)
_OPENING, _CLOSING = "([{<", ")]}>"


def load(path: str) -> ModuleType:
    """The extension module at this path, under the name that its initialiser has."""
    loader = importlib.machinery.ExtensionFileLoader("tensorrt", path)
    specification = importlib.util.spec_from_file_location("tensorrt", path, loader=loader)
    assert specification is not None
    module = importlib.util.module_from_spec(specification)
    loader.exec_module(module)
    return module


def split(text: str) -> list[str]:
    """Arguments at the commas that stand in no brackets and no quotes."""
    parts, depth, quoted = [""], 0, False
    for previous, character in zip(" " + text, text, strict=False):
        quoted ^= character == "'"
        depth += character in _OPENING
        depth -= character in _CLOSING and previous != "-"  # the arrow of a callable's type
        if character == "," and not depth and not quoted:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def signatures(documentation: str | None) -> list[dict[str, Any]]:
    """Each overload: its arguments (name, type, required) and what it returns."""
    found = []
    for match in _SIGNATURE.finditer(documentation or ""):
        if "*args, **kwargs" in match["arguments"]:
            continue  # the line that announces overloads
        arguments = []
        for part in split(match["arguments"]):
            declared, _, default = part.partition(" = ")
            name, _, kind = declared.partition(": ")
            arguments.append({"name": name, "type": kind, "required": not default})
        found.append({"arguments": arguments, "returns": match["returns"]})
    return found


def describe_class(kind: type) -> dict[str, Any]:
    if hasattr(kind, "__members__"):
        return {"kind": "enum", "members": sorted(kind.__members__)}
    methods, properties, classes, constants = {}, {}, {}, []
    for name in dir(kind):
        if name.startswith("_") and name != "__init__":
            continue
        value = next(vars(base)[name] for base in kind.__mro__ if name in vars(base))
        if isinstance(value, property):
            returned = signatures(f"get{value.fget.__doc__ or ''}") if value.fget else []
            properties[name] = {
                "settable": value.fset is not None,
                "type": returned[0]["returns"] if returned else None,
            }
        elif isinstance(value, type):
            classes[name] = describe_class(value)
        elif callable(value):
            methods[name] = signatures(value.__doc__)
        else:
            constants.append(name)
    return {
        "kind": "class",
        "methods": methods,
        "properties": properties,
        "classes": classes,
        "constants": constants,
    }


def surface(module: ModuleType) -> dict[str, Any]:
    """Every public name of the module."""
    described: dict[str, Any] = {}
    for name, value in vars(module).items():
        if name.startswith("_"):
            continue
        if isinstance(value, type):
            described[name] = describe_class(value)
        elif callable(value):
            described[name] = {"kind": "function", "signatures": signatures(value.__doc__)}
    return described


if __name__ == "__main__":
    sys.stdout.write(json.dumps(surface(load(sys.argv[1]))))
