"""Running Python in a subprocess in which chosen packages are not installed."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

_SITECUSTOMIZE = '''
import sys
from importlib.machinery import PathFinder

ABSENT = {absent!r}


class Without:
    """Finds what PathFinder finds, except the packages that are to be absent."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in ABSENT else PathFinder.find_spec(name, path, target)

    @staticmethod
    def find_distributions(*context):
        found = PathFinder.find_distributions(*context)
        return (each for each in found if each.name.lower().replace("-", "_") not in ABSENT)

    @staticmethod
    def invalidate_caches():
        PathFinder.invalidate_caches()


sys.meta_path[sys.meta_path.index(PathFinder)] = Without
'''


def run_without(absent: Iterable[str], arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run this Python with `arguments` in the empty `folder`, as if the packages `absent` were not installed.

    absent: import names; a distribution of the same name is hidden too.
    """
    hook = folder / ".site"
    hook.mkdir(exist_ok=True)
    (hook / "sitecustomize.py").write_text(_SITECUSTOMIZE.format(absent=sorted(absent)), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(hook), "NO_COLOR": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
