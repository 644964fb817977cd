"""What a target is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from kdeploy.targets.channel import Channel


class Target(Protocol):
    """A place that kdeploy can work at, other than this process."""

    @property
    def text(self) -> str:
        """As it is typed: `ssh://pi@raspberrypi.local`."""

    @property
    def name(self) -> str:
        """A name for folders: `raspberrypi.local`."""

    @property
    def brings_kdeploy(self) -> bool:
        """Whether its Python has kdeploy already, as in an image; else `kdeploy target setup` brings it there."""

    @property
    def outlives(self) -> bool:
        """Whether what runs there lives on when the connection drops, so that it can be taken up again."""

    @contextmanager
    def connect(self) -> Iterator[Channel]:
        """Open a connection. Raises Unavailable where the place can't be reached."""
