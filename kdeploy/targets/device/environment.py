"""The virtual environment on the device."""

import json
import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

from kdeploy.targets.device.base import Refused
from kdeploy.targets.device.store import Store

Run = Callable[[List[str], Dict[str, str]], Tuple[int, str]]
"""Runs a command with more environment: its status, and the end of what it said."""


class Environment:
    """own: this Python is the environment, as in a container that has kdeploy."""

    def __init__(self, store: Store, run: Run, own: bool) -> None:
        self._store, self._run, self._own = store, run, own
        self._venv = store.folder / "venv"
        self.python = sys.executable if own else str(self._venv / "bin" / "python")

    def exists(self) -> bool:
        return self._own or Path(self.python).exists()

    def make(self, system_packages: bool) -> None:
        """Make it anew, without pip: ours is brought along."""
        shutil.rmtree(str(self._venv), ignore_errors=True)
        self._store.make()
        command = [sys.executable, "-m", "venv", "--without-pip", str(self._venv)]
        command += ["--system-site-packages"] if system_packages else []
        status, said = self._run(command, {})
        if status != 0:
            raise Refused("failed", command=" ".join(command), said=said)

    def pip(self, pip: str, arguments: List[str], wheels: Dict[str, str]) -> Dict[str, Any]:
        """Run a pip wheel, that is kept here, in it; wheels: names of files and their hashes."""
        with tempfile.TemporaryDirectory(prefix="wheels-", dir=str(self._store.folder)) as folder:
            for name, digest in wheels.items():
                self._store.link(digest, Path(folder) / name)
            carried = ["--no-index", "--find-links", folder] if wheels else []
            beside = os.path.join(folder, "pip.whl")
            self._store.link(pip, Path(beside))
            # Its cache would be left lying outside of our folder, and is of no more use.
            command = [self.python, os.path.join(beside, "pip"), "install", "--no-cache-dir", *carried, *arguments]
            status, said = self._run(command, {"TMPDIR": folder, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
        return {"status": status, "said": said}

    def needs_code(self, wheel: str) -> bool:
        """Whether it has another kdeploy than that of this wheel. Raises Refused where it is no environment."""
        mark = self._packages() / "kdeploy.sha256"
        return not (mark.exists() and mark.read_text() == wheel)

    def put_code(self, wheel: str) -> None:
        """Have the kdeploy of this wheel in it; no pip is needed for pure Python."""
        packages = self._packages()
        mark = packages / "kdeploy.sha256"
        if mark.exists():
            mark.unlink()
        for old in [packages / "kdeploy", *packages.glob("kdeploy-*.dist-info")]:
            shutil.rmtree(str(old), ignore_errors=True)
        with zipfile.ZipFile(str(self._store.kept(wheel))) as archive:
            archive.extractall(str(packages))
        mark.write_text(wheel)

    def ask(self, program: str) -> Any:
        """Run a few lines in it and return the JSON that they print last. Raises Refused where that fails."""
        status, said = self._run([self.python, "-c", program], {})
        for line in reversed(said.splitlines() if status == 0 else []):
            try:
                return json.loads(line)
            except ValueError:  # a warning on standard error
                continue
        raise Refused("broken", said=said[-2000:])

    def _packages(self) -> Path:
        found = sorted((self._venv / "lib").glob("python*/site-packages"))
        if not found:
            raise Refused("broken", said="it has no site-packages")
        return found[0]
