"""A container of an image that has kdeploy in it, by Docker, Podman or Buildah."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kdeploy.errors import Unavailable, UserError
from kdeploy.targets.channel import Channel

USAGE = "container:IMAGE[@linux/arm64]"
COMMAND = "KDEPLOY_CONTAINER"
"""The environment variable that chooses docker, podman or buildah; else the first of them that works."""
_TOOLS = {"docker": ["docker", "version"], "podman": ["podman", "version"], "buildah": ["buildah", "version"]}
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
_PROCESSORS = "/sys/devices/system/cpu"
"""Hidden from an emulated container. QEMU before 8.2 shows it the host's /proc/cpuinfo, and ONNX Runtime's library for
both crashes on an x86 one when there are processors here, too; where there are none it only warns."""
_HIDE = f'mount -t tmpfs tmpfs {_PROCESSORS} && exec "$@"'
_PLATFORM = re.compile(r"(.+)@(linux/[a-z0-9]+(?:/v\d)?)")


@dataclass(frozen=True)
class Container:
    """platform: None for the image's own."""

    text: str
    image: str
    platform: str | None
    brings_kdeploy: bool = True
    outlives: bool = False

    @property
    def name(self) -> str:
        """As of a file: `kdeploy-edge-arm64` of `localhost/kdeploy/edge-arm64:latest`."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.image.removeprefix("localhost/")).strip("-")

    @property
    def _is_emulated(self) -> bool:
        architecture = (self.platform or "").partition("/")[2].partition("/")[0]
        return architecture != "" and _ARCHITECTURES.get(architecture, architecture) != platform.machine()

    @contextmanager
    def connect(self) -> Iterator[Channel]:
        """Start a container, which is removed when the connection ends."""
        tool = _tool()
        with self._in_buildah() if tool == "buildah" else self._run_by(tool) as channel:
            yield channel

    @contextmanager
    def _run_by(self, tool: str) -> Iterator[Channel]:
        name = f"kdeploy-{uuid.uuid4().hex[:12]}"
        hidden = ["--tmpfs", f"{_PROCESSORS}:ro"] if self._is_emulated else []
        wanted = [*hidden, *(["--platform", self.platform] if self.platform else [])]
        hardened = ["--read-only", "--tmpfs", "/tmp:exec", "--network", "none", "--cap-drop", "ALL"]
        start = [tool, "run", "--rm", "-i", "--init", "--name", name, *wanted, *hardened]
        python = [*start, "--entrypoint", "python3", self.image, "-c"]
        try:
            with Channel(lambda program: [*python, program], self.text) as channel:
                yield channel
        finally:
            _quietly(tool, "rm", "-f", name)

    @contextmanager
    def _in_buildah(self) -> Iterator[Channel]:
        wanted = ["--platform", self.platform] if self.platform else []
        name = f"kdeploy-{uuid.uuid4().hex[:12]}"
        try:
            made = subprocess.run(
                ["buildah", "from", "--name", name, *wanted, self.image],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
            )
            if made.returncode != 0:
                raise Unavailable(f"{self.text}: buildah can't start from this image: {made.stderr.strip()}")
            apart = ["unshare", "--mount", "sh", "-c", _HIDE, "sh"] if self._is_emulated else []
            python = [*apart, "buildah", "run", name, "--", "python3", "-c"]
            with Channel(lambda program: [*python, program], self.text) as channel:
                yield channel
        finally:
            _quietly("buildah", "rm", name)


def parse(text: str) -> Container:
    """`container:kdeploy/edge@linux/arm64`; an image by its digest is `container:name@sha256:…@linux/arm64`."""
    image = text.partition(":")[2]
    if not image or image.startswith("-") or any(sign.isspace() for sign in image):
        raise UserError(f"{text!r} must be written {USAGE}, as in container:kdeploy-edge@linux/arm64.")
    found = _PLATFORM.fullmatch(image)
    return Container(text, found[1], found[2]) if found else Container(text, image, None)


def _tool() -> str:
    if asked := os.environ.get(COMMAND):
        if asked not in _TOOLS:
            raise UserError(f"{COMMAND} is {asked!r}: choose from {', '.join(_TOOLS)}.")
        return asked
    for tool, works in _TOOLS.items():
        if shutil.which(tool) and _quietly(*works):
            return tool
    raise Unavailable("A container needs Docker, Podman or Buildah, and none of them works here.")


def _quietly(*command: str) -> bool:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return done.returncode == 0
