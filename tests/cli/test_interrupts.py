"""Ctrl-C and SIGTERM, in the middle of training and of measuring: what continues it, and nothing left behind."""

import re
import shlex
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from kdeploy.cli import main
from tests.cli.answer import COMMAND, environment, in_a_process, short

MARK = "KDEPLOY_TEST_MARK"


class Started:
    """A command under way; its processes are known by a mark in their environment."""

    def __init__(self, words: list[str], folder: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [*COMMAND, *words],
            cwd=folder,
            env=environment(**{MARK: self.mark}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def when(self, ready: Callable[[], bool], send: signal.Signals) -> tuple[int, str]:
        """Send a signal as soon as something is so; the exit status and standard error."""
        deadline = time.monotonic() + 120
        while not ready():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        self.process.send_signal(send)
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err

    def processes(self) -> list[str]:
        """The command lines of the processes that the command has."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self.mark}".encode() in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:  # gone, or somebody else's
                continue
        return found

    def measuring(self) -> bool:
        return any("kdeploy.bench.child" in line for line in self.processes())

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture
def started(tmp_path):
    begun = []

    def start(words: list[str], folder: Path = tmp_path) -> Started:
        begun.append(Started(words, folder))
        return begun[-1]

    yield start
    for one in begun:
        one.end()


def test_training_goes_on_after_ctrl_c(tmp_path, started):
    words = ["distill", "quickstart", *short(teacher_train_epochs="9", distill_epochs="1", distill_baseline="none")]
    running = started([*words, "--fresh"])
    metrics = tmp_path / "runs/quickstart/networks/teacher/metrics.jsonl"
    status, err = running.when(metrics.is_file, signal.SIGINT)
    assert status == 130
    assert err.splitlines()[-1] == f"kdeploy: interrupted. To go on: {shlex.join(['kdeploy', *words])}"
    assert "Traceback" not in err
    assert running.processes() == []
    assert not list(tmp_path.rglob("teacher.safetensors"))
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()], "no temporary files are left"
    before = metrics.read_text()

    answer = in_a_process([*words, "--resume"], tmp_path)
    assert answer.status == 0, answer.err
    assert re.search(r"- teacher: continues after epoch \d+ of 9", answer.err)
    assert metrics.read_text().startswith(before), "epochs that were done are not done again"
    assert len(metrics.read_text().splitlines()) == 9


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_measuring_leaves_no_process_behind(sent, status, finished, started):
    engine = "runs/quickstart/engines/student-onnxruntime-float32"
    running = started(["bench", engine, "--min-time", "300"], finished[0])
    answered, err = running.when(running.measuring, sent)
    assert answered == status
    assert err.splitlines()[-1] == f"kdeploy: interrupted. To go on: kdeploy bench {engine} --min-time 300"
    assert "Traceback" not in err
    assert running.processes() == []


def test_a_signal_that_is_ignored_stays_ignored(monkeypatch):
    """As nohup has it: the terminal may go."""
    monkeypatch.setattr(main, "_run", lambda: 0)
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with pytest.raises(SystemExit):
            main.main()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is not before[signal.SIGTERM]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
