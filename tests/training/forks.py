"""Runs kdeploy's command line in processes forked from one that has loaded torch: what was killed is soon there again.

Reads {"words": [...], "dies": [where, number]} a line, answers with the process id, and with its exit status when it
has ended. Where it dies: see `_die`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path


class Forks:
    """The other end: starts such a process, and the command lines in it."""

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.training.forks"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, *words: str, dies: tuple[str, int] | None = None) -> int:
        """The process id of `kdeploy WORDS`; dies: by itself, there, in the checkpoint of this number."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"words": words, "dies": dies}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def status(self) -> int:
        """The exit status of the last one, once it has ended; minus the signal that killed it."""
        return self._answer()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


def _die(where: str, number: int) -> None:
    """Let this process be killed while it writes a checkpoint: half written, or between its two renames."""
    write, rename, left = Path.write_bytes, Path.replace, [number]

    def now(place: str) -> bool:
        return where == place and left[0] == 0

    def write_bytes(path: Path, content: bytes) -> int:
        is_checkpoint = path.name.startswith(".state-") and path.suffix == ".pt"
        left[0] -= is_checkpoint
        if is_checkpoint and now("half"):
            write(path, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return write(path, content)

    def replace(path: Path, target: Path) -> Path:
        if target.name == "state.pt" and now("between"):
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(path, target)

    Path.write_bytes, Path.replace = write_bytes, replace  # type: ignore[method-assign]


def _carry_out(words: list[str], dies: tuple[str, int] | None) -> None:
    from kdeploy.cli.main import _run

    if dies:
        _die(*dies)
    said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(said, stream)
    sys.argv = ["kdeploy", *words]
    status = _run()
    sys.stdout.flush()
    os._exit(status)


def main() -> None:

    import kdeploy.cli.main
    import kdeploy.pipeline
    import kdeploy.stages.train
    import kdeploy.training.procedures.offline  # noqa: F401 - loaded once, for all that are forked

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _carry_out(**json.loads(line))
        print(child, flush=True)  # noqa: T201 - the protocol
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
