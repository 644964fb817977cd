"""A device over the system's OpenSSH, with the person's own configuration, keys and known hosts."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from kdeploy.errors import UserError
from kdeploy.targets.channel import Channel

USAGE = "ssh://USER@HOST[:PORT]"
COMMAND = "KDEPLOY_SSH"
"""The environment variable for another ssh command, such as `ssh -F other_config`; as Git has GIT_SSH_COMMAND."""
_SEEN_DEAD = ("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3")
"""A pulled cable is noticed after a quarter of a minute, well within a lease. Nothing is asked of the known hosts: they
are the person's own business, as are a password and a new host's key, for which ssh asks on the terminal."""


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
        with Channel(self._command, self.text.removeprefix("ssh://")) as channel:
            yield channel

    def _command(self, program: str) -> Sequence[str]:
        ssh = shlex.split(os.environ.get(COMMAND) or "ssh")
        port = [] if self.port is None else ["-p", str(self.port)]
        user = [] if self.user is None else ["-l", self.user]
        # `exec`: no shell stays between; -T: no terminal there, whose echo would mix with what is said.
        return [*ssh, "-T", *_SEEN_DEAD, *port, *user, "--", self.host, f"exec python3 -c {shlex.quote(program)}"]


def parse(text: str) -> Ssh:
    """`ssh://pi@raspberrypi.local:22`; the host may be a name from the person's own configuration."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    # A host that begins with a dash would be an option of ssh.
    wrong = not host or host.startswith("-") or (parts.username or "").startswith("-")
    if wrong or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise UserError(f"{text!r} must be written {USAGE}, as in ssh://pi@raspberrypi.local.")
    if parts.password is not None:
        raise UserError(f"{text.replace(parts.password, '***')} has a password in it: leave it out, ssh asks for it.")
    written = parts.netloc.rpartition("@")[2]  # as it was typed: names in a configuration may have capitals
    return Ssh(text, written.partition(":")[0] if not written.startswith("[") else str(host), parts.username, port)
