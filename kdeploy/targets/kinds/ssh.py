"""A device over the system's OpenSSH, with the person's own configuration, keys and known hosts."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import unquote

from kdeploy.errors import UserError
from kdeploy.targets.channel import Channel
from kdeploy.targets.sharing import shared

USAGE = "ssh://USER@HOST[:PORT]"
COMMAND = "KDEPLOY_SSH"
"""The environment variable for another ssh command, such as `ssh -F other_config`; as Git has GIT_SSH_COMMAND."""
_SEEN_DEAD = ("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3", "-o", "ConnectTimeout=15")
"""A pulled cable is noticed after a quarter of a minute, well within a lease. Nothing is asked of the known hosts: they
are the person's own business, as are a password and a new host's key, for which ssh asks on the terminal."""

# A name that begins with a dash would be an option of ssh, and one of dots a folder of ours. As it was typed: names in
# a configuration may have capitals.
_WRITTEN = re.compile(
    r"ssh://(?:(?P<user>[\w%+][\w.%+-]*)@)?"
    r"(?:\[(?P<address>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<host>\w[\w.+~-]*))(?::(?P<port>\d{1,5})?)?/?"
)
_PASSWORD = re.compile(r"(//[^/:@]*):[^/]*@")


@dataclass(frozen=True)
class Ssh:
    """user, port: None for what the configuration says."""

    text: str
    host: str
    user: str | None
    port: int | None
    brings_kdeploy: bool = False
    outlives: bool = True

    @property
    def name(self) -> str:
        return self.host if self.port is None else f"{self.host}-{self.port}"

    @contextmanager
    def connect(self) -> Iterator[Channel]:
        """Open a connection."""
        try_first = shlex.join([*self._ssh(), self.host, "true"])
        with Channel(self._command, self.text.removeprefix("ssh://"), try_first) as channel:
            yield channel

    def _command(self, program: str) -> Sequence[str]:
        # `exec`: no shell stays between; -T: no terminal there, whose echo would mix with what is said.
        ssh = self._ssh()
        options = ["-T", *_SEEN_DEAD, *shared(ssh, self.host)]
        return [*ssh, *options, "--", self.host, f"exec python3 -c {shlex.quote(program)}"]

    def _ssh(self) -> list[str]:
        port = [] if self.port is None else ["-p", str(self.port)]
        user = [] if self.user is None else ["-l", self.user]
        return [*shlex.split(os.environ.get(COMMAND) or "ssh"), *port, *user]


def parse(text: str) -> Ssh:
    """`ssh://pi@raspberrypi.local:22`; the host may be a name from the person's own configuration."""
    shown = _PASSWORD.sub(r"\1:***@", text)
    if shown != text:
        raise UserError(f"{shown!r} has a password in it: leave it out, ssh asks for it.")
    found = _WRITTEN.fullmatch(text)
    port = int(found["port"] or 0) if found else 0
    if found is None or port > 65535 or (found["port"] and port == 0):
        raise UserError(f"{text!r} must be written {USAGE}, as in ssh://pi@raspberrypi.local.")
    user = None if found["user"] is None else unquote(found["user"])
    return Ssh(text, found["address"] or found["host"], user, port or None)
