"""A verb carried out on a device: what it needs goes there once, it runs, and what it made comes home whole."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdeploy import artifacts, events
from kdeploy.errors import SETUP, KdeployError, Unavailable, UserError
from kdeploy.targets import environment
from kdeploy.targets.base import Target
from kdeploy.targets.channel import Channel, Lost
from kdeploy.targets.refusals import Gone
from kdeploy.targets.relay import Replay
from kdeploy.targets.sending import send

LEASE_S = 60.0
"""How long a device goes on by itself when the connection has dropped."""
LEASE = "KDEPLOY_LEASE_S"
"""The environment variable for another."""
_BEAT_S = 2.0
_AGAIN_S = 1.0
_SILENCE_S = 30.0
"""A device that answers no sign of life for so long hangs, or its connection does without saying so."""
_KEPT = 1 << 20
"""How many characters are kept of what the verb wrote to standard error: its end."""


@dataclass(frozen=True)
class Work:
    """words: the verb and its arguments, as they are typed there. files: paths there, and the files here. outputs:
    files or folders that the verb writes there."""

    words: Sequence[str]
    files: Mapping[str, Path] = field(default_factory=dict)
    outputs: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """status: the verb's own. out, err: what it printed. files: paths there, and where they lie here for now."""

    status: int
    out: str
    err: str
    files: Mapping[str, Path]


@contextmanager
def carried_out(target: Target, work: Work) -> Iterator[Done]:
    """Carry `work` out and yield what came of it; its files lie in a temporary folder for the length of the block.

    Whatever ends the wait here, Ctrl-C among it, ends the work there, and nothing of it is left. A connection that
    drops is taken up again within the lease. Raises Unavailable where the device can't be reached, has no environment,
    is busy, or was out of reach for longer than the lease, and UserError where it ran out of memory or of disk.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kdeploy-target-")))
        link = stack.enter_context(_Link(target))
        job = f"job-{uuid.uuid4().hex[:12]}"
        sent = _sent(link, list(work.files.values()))
        try:
            _start(link, job, work, sent)
            ended, err = _followed(link, job)
            status = _status(ended, err, target)
            files, out = _fetched(link, job, work.outputs, folder)
        except Gone:
            raise _over(target, link.lease_s) from None
        except BaseException:
            _end(link, job, target)
            raise
        _end(link, job, target)
        yield Done(status, out, err, files)


def _sent(link: _Link, files: Sequence[Path]) -> dict[Path, str]:
    while True:
        try:
            return send(link.channel, files)
        except Lost:
            link.again()


def _start(link: _Link, job: str, work: Work, sent: Mapping[Path, str]) -> None:
    files = {path: sent[file] for path, file in work.files.items()}
    variables = {**work.environment, SETUP: link.setup_command}
    asked = {"words": list(work.words), "files": files, "environment": variables, "lease_s": link.lease_s}
    while True:
        try:
            link.channel.ask("start", job=job, **asked)
            return
        except Lost:  # perhaps it began: the device knows it by its name
            link.again()


class _Link:
    """A connection to a device with its environment, taken up again where it drops. Use as a context manager."""

    channel: Channel
    setup_command: str

    def __init__(self, target: Target) -> None:
        self._target = target
        self._stack = ExitStack()
        self.lease_s = _lease_s()

    def connect(self) -> None:
        """In place of the connection that there was. Raises KdeployError or Lost where it can't be had."""
        self._stack.close()
        self.channel = self._stack.enter_context(self._target.connect())

    def again(self) -> None:
        """Connect again. Raises Unavailable when the lease is over before that succeeds."""
        self._stack.close()
        if not self._target.outlives:
            raise Unavailable(f"{self._target.text} ended in the middle of the work.")
        until = self.channel.heard_s + self.lease_s
        left = max(0.0, until - time.monotonic())
        events.warn(f"The connection to {self._target.text} dropped: trying again for {left:.0f} s.")
        while time.monotonic() < until:
            try:
                self.connect()
                environment.greet(self.channel, self._target)
            except (KdeployError, Lost):
                self._stack.close()
                time.sleep(_AGAIN_S)
                continue
            events.say(f"connected to {self._target.text} again")
            return
        raise _over(self._target, self.lease_s)

    def __enter__(self) -> _Link:
        try:
            self.connect()
            found = environment.require(self.channel, self._target)
            self.setup_command = environment.setup_command(found, self._target)
        except Lost:
            self._stack.close()
            raise Unavailable(f"The connection to {self._target.text} dropped. Try it again.") from None
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()


def _followed(link: _Link, job: str) -> tuple[dict[str, Any], str]:
    """Show what a job says until it ends; its last message, and what it wrote to standard error."""
    positions = {"events": 0, "stderr": 0}
    err = ""
    with Replay() as replay:
        while True:
            try:
                link.channel.ask("follow", job=job, patience_s=link.lease_s, **positions)
                while True:
                    link.channel.tell("beat")
                    for message in _messages(link, min(_BEAT_S, link.lease_s / 4)):
                        if "ended" in message:
                            return message, err
                        positions[message["new"]] = message["position"]
                        if message["new"] == "events":
                            replay.hear(message["text"])
                        else:
                            err = (err + message["text"])[-_KEPT:]
            except Lost:
                link.again()


def _messages(link: _Link, seconds: float) -> Iterator[dict[str, Any]]:
    """News of the job for so long; answers to beats are a sign of life, no news."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        message = link.channel.hear(left)
        if message is None:
            break
        if "new" in message or "ended" in message:
            yield message
    if time.monotonic() - link.channel.heard_s > _SILENCE_S:
        raise Lost


def _fetched(link: _Link, job: str, outputs: Sequence[str], folder: Path) -> tuple[dict[str, Path], str]:
    """All files of a job, whole, and what it printed. Raises Gone where the device has none of it any more."""
    while True:
        try:
            found = link.channel.ask("results", job=job, outputs=list(outputs))
            size = sum(size for _, size in found["files"].values())
            with events.task("fetch the results", size) as bar:
                return {
                    name: _fetch(link.channel, job, name, folder / str(number), about, bar)
                    for number, (name, about) in enumerate(found["files"].items())
                }, found["stdout"]
        except Lost:
            link.again()


def _fetch(channel: Channel, job: str, name: str, target: Path, about: tuple[str, int], bar: events.Progress) -> Path:
    digest, size = about
    channel.tell("beat")
    channel.fetch_file(job, name, target)
    if artifacts.sha256_file(target) != digest:
        raise UserError(f"{name} came back damaged. Is something still writing to it on the device?")
    bar.advance(size)
    return target


def _end(link: _Link, job: str, target: Target) -> None:
    """Have the device end a job at once; where it can't be reached it does so by itself."""
    if not target.outlives:
        return  # it ends with the connection
    for connect in (False, True):  # anew where the old one is cut, or was left in the middle of a file
        try:
            if connect:
                link.connect()
                link.channel.ask("hello", own=target.brings_kdeploy)
            link.channel.ask("cancel", job=job)
            return
        except (Lost, KdeployError):
            continue
    events.warn(f"{target.text} can't be reached: it ends the run by itself within {link.lease_s:.0f} s.")


def _status(ended: Mapping[str, Any], err: str, target: Target) -> int:
    """The verb's exit status. Raises UserError where it did not come to one of its own."""
    status = ended["status"]
    if status is None:
        raise Unavailable(
            f"{target.text}: the run there was ended by something else than kdeploy: the device was restarted, ran out "
            "of memory, or ends what a user runs when the connection drops (KillUserProcesses in logind.conf)."
        )
    if status == -9:
        why = "its memory most likely ran out; try a smaller batch"
        raise UserError(f"{target.text}: the run there was killed: {why}.")
    if status < 0:
        raise Unavailable(f"{target.text}: the run there was ended by signal {-status}.\n{err}".rstrip())
    if status != 0 and not err.strip() and ended["free_bytes"] < 1 << 20:
        raise UserError(f"{target.text}: its disk is full. Make room there; `kdeploy target clean` removes our cache.")
    return int(status)


def _lease_s() -> float:
    asked = os.environ.get(LEASE) or str(LEASE_S)
    try:
        lease_s = float(asked)
    except ValueError:
        lease_s = 0.0
    if not 1 <= lease_s <= 3600:
        raise UserError(f"{LEASE} is {asked!r}: it must be a number of seconds from 1 to 3600.")
    return lease_s


def _over(target: Target, lease_s: float) -> Unavailable:
    return Unavailable(
        f"{target.text} was out of reach for longer than {lease_s:.0f} s, and has ended the run by itself; nothing of "
        "it is left there. Start it again."
    )
