"""Files to a device, each once: they are known there by their content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdeploy import artifacts, events
from kdeploy.targets.channel import Channel


def send(channel: Channel, files: Sequence[Path]) -> dict[Path, str]:
    """Have the files on the device and return their SHA-256; what is there already is not sent again."""
    hashes = {path: artifacts.sha256_file(path) for path in files}
    missing = set(channel.ask("missing", files=sorted(set(hashes.values())))["missing"])
    wanted = {digest: path for path, digest in hashes.items() if digest in missing}
    if wanted:
        with events.task("send to the device", sum(path.stat().st_size for path in wanted.values())) as bar:
            for digest, path in wanted.items():
                channel.send_file(path, digest, bar.advance)
    return hashes
