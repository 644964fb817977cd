"""The program that is sent to a device: the files of `device/` in one, run without being installed there."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

PACKAGE = "kdeploy.targets.device"
_MODULES = ("base", "store", "watching", "jobs", "environment", "wire", "agent")
"""Each after those that it imports."""
# No file is written for it: the packages are made of nothing, so that the modules' own imports find each other.
_TEMPLATE = """
import sys, types
from pathlib import Path

SOURCES = {sources}
PARTS = {package!r}.split(".")


def load():
    for length in range(1, len(PARTS) + 1):
        package = types.ModuleType(".".join(PARTS[:length]))
        package.__path__ = []
        sys.modules[package.__name__] = package
    for name, text in SOURCES:
        module = types.ModuleType({package!r} + "." + name)
        sys.modules[module.__name__] = module
        exec(compile(text, name + ".py", "exec"), module.__dict__)
    return lambda name: sys.modules[{package!r} + "." + name]


def main(program, greeting):
    load()("agent").main(program, greeting)


if __name__ == "__main__":
    load()("watching").watch(Path(sys.argv[1]))
"""


@cache
def program() -> bytes:
    """Its text. As `__main__` it watches the job that is its argument; its `main` serves a connection."""
    folder = resources.files(PACKAGE)
    sources = [(name, (folder / f"{name}.py").read_text(encoding="utf-8")) for name in _MODULES]
    return _TEMPLATE.format(sources=json.dumps(sources), package=PACKAGE).encode()
