"""Running the real command line."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A quickstart of seconds: the same stages, smaller networks, few epochs, hardly any measuring.
SHORT = {
    "teacher.model": "resnet8",
    "teacher.width": "1",
    "teacher.train.epochs": "3",
    "distill.epochs": "2",
    "bench.min_time_s": "0.05",
    "bench.min_count": "8",
}
COMMAND = [sys.executable, "-c", "from kdeploy.cli.main import main; main()"]


def short(**changed: str) -> list[str]:
    """The words that make a quickstart short; `changed` names fields with _ for the dots and __ for a _."""
    named = {name.replace("__", "/").replace("_", ".").replace("/", "_"): value for name, value in changed.items()}
    return [word for name, value in {**SHORT, **named}.items() for word in ("--set", f"{name}={value}")]


@dataclass(frozen=True)
class Answer:
    """What a command answered."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def said(self) -> str:
        """The one thing said on standard error, without the name in front."""
        assert "Traceback" not in self.err
        return self.err.rpartition("kdeploy: ")[2].strip()


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "FORCE_COLOR")}
    return {**kept, "OMP_NUM_THREADS": "1", **more}


def in_a_process(words: Sequence[str], folder: Path, **more: str) -> Answer:
    """Run the command in a process of its own, in `folder`."""
    done = subprocess.run(
        [*COMMAND, *words], cwd=folder, env=environment(**more), capture_output=True, text=True, timeout=900
    )
    return Answer(done.returncode, done.stdout, done.stderr)
