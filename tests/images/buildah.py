"""Buildah, which builds Dockerfiles without a Docker engine, with a store of images that is the tests' own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parent.parent.parent
PYTHON = "3.11"  # Debian bookworm's, and that of the tested set
_PROCESSORS = {"amd64": "x86_64", "arm64": "aarch64"}  # as wheels call what Debian and container images call so
_CONTEXT = (
    "LICENSE",
    "README.md",
    "constraints.txt",
    "pyproject.toml",
    "kdeploy",
    "recipes",
    "docker",
    ".dockerignore",
)

# QEMU 7.2 shows an emulated program the host's /proc/cpuinfo. Where there are processors in /sys besides, the library
# by which ONNX Runtime reads both (cpuinfo) crashes on an x86 one's; where there are none, it only warns.
_HIDE_PROCESSORS = 'mount -t tmpfs tmpfs /sys/devices/system/cpu && exec "$@"'

_READ_ONLY = """
set -e
root=$1 work=$2 folder=$3 user=$4
shift 4
mount --bind "$root" "$root"
mount --bind "$work" "$root$folder"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t proc proc "$root/proc"
mount -o remount,bind,ro "$root"
exec chroot --userspec="$user" "$root" /usr/bin/env -i -C "$folder" "$@"
"""


@dataclass(frozen=True)
class Config:
    """What an image says of how it is started."""

    entrypoint: tuple[str, ...]
    environment: tuple[str, ...]
    user: str
    folder: str
    labels: dict[str, str]


class Store:
    """Images and containers in a folder that must not exist yet; `remove` it in the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._containers: dict[str, str] = {}

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def import_root(self, root: Path, architecture: str, image: str) -> None:
        """Make a root file system an image of one layer."""
        container = self._buildah("from", "--arch", architecture, "scratch")
        self._buildah("add", "--quiet", container, str(root), "/")
        self._buildah("config", "--arch", architecture, "--os", "linux", container)
        self._buildah("commit", "--quiet", "--rm", container, image)

    def build(self, dockerfile: str, architecture: str, base: str, wheels: Path, image: str) -> None:
        """Build one of docker/'s files as without a network: every package comes from the folder `wheels`."""
        context = self.folder.parent / f"context-{architecture}"
        shutil.rmtree(context, ignore_errors=True)
        context.mkdir(parents=True)
        for name in _CONTEXT:
            source = PROJECT / name
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, context / name)
        for wheel in wheels.glob("*.whl"):
            os.link(wheel, context / "docker/wheels" / wheel.name)
        arguments = ("--build-arg", f"BASE={base}", "--build-arg", "PIP_NO_INDEX=1")
        self._buildah(
            *("build", "--isolation", "chroot", "--platform", f"linux/{architecture}", *arguments),
            *("--file", str(context / "docker" / dockerfile), "--tag", image, str(context)),
        )
        shutil.rmtree(context)

    def config(self, image: str) -> Config:
        found = json.loads(self._buildah("inspect", "--type", "image", image))["OCIv1"]["config"]
        return Config(
            tuple(found["Entrypoint"]), tuple(found["Env"]), found["User"], found["WorkingDir"], found["Labels"]
        )

    def layer_bytes(self, image: str) -> list[int]:
        """The size of each layer, the base's first, as a registry keeps it: compressed by gzip."""
        folder = self.folder.parent / "pushed"
        self._buildah("push", "--quiet", image, f"oci:{folder}:image")
        blobs = folder / "blobs/sha256"
        index = json.loads((folder / "index.json").read_text())
        manifest = json.loads((blobs / index["manifests"][0]["digest"].removeprefix("sha256:")).read_text())
        assert all(layer["mediaType"].endswith("tar+gzip") for layer in manifest["layers"])
        shutil.rmtree(folder)
        return [layer["size"] for layer in manifest["layers"]]

    def run(self, image: str, work: Path, words: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        """Run a command in a container of the image, as its user, with `work` mounted where the image works."""
        command = [
            *("unshare", "--mount", "sh", "-c", _HIDE_PROCESSORS, "sh"),
            *(*self._command, "run", "--isolation", "chroot", "--volume", f"{work}:{self.config(image).folder}"),
            *(self._container(image), "--", *words),
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=900)

    def run_read_only(
        self, image: str, work: Path, words: Sequence[str], entrypoint: Sequence[str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Start the image with a read-only root file system, as `docker run --read-only --tmpfs /tmp IMAGE WORDS`.

        Buildah itself has no such thing, so the mounts are made here, in a namespace of their own.
        """
        config = self.config(image)
        root = self._buildah("mount", self._container(image))
        command = [
            *("unshare", "--mount", "sh", "-c", _READ_ONLY, "sh", root, str(work), config.folder, config.user),
            *(*config.environment, *(entrypoint or config.entrypoint), *words),
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=900)

    def _container(self, image: str) -> str:
        if image not in self._containers:
            self._containers[image] = self._buildah("from", "--quiet", image).splitlines()[-1]
        return self._containers[image]

    @property
    def _command(self) -> list[str]:
        places = ["--root", str(self.folder / "root"), "--runroot", str(self.folder / "run")]
        return ["buildah", *places, "--storage-driver", "vfs"]

    def _buildah(self, *arguments: str) -> str:
        # Of the environment only this: what a build runs would see all of it, such as pip's settings.
        kept = {name: os.environ[name] for name in ("HOME", "PATH", "TMPDIR") if name in os.environ}
        command = [*self._command, *arguments]
        done = subprocess.run(command, env=kept, capture_output=True, text=True, check=False)
        if done.returncode:
            ended = f"buildah {' '.join(arguments)} ended with {done.returncode}"
            raise RuntimeError(f"{ended}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        return done.stdout.strip()


def download(folder: Path, architecture: str, extra: str = "") -> None:
    """Put the tested versions of what kdeploy needs to be built and run into a new folder, as wheels."""
    folder.mkdir()
    platforms = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder), "--only-binary=:all:"),
            *(f"--platform={platform}_{_PROCESSORS[architecture]}" for platform in platforms),
            *(f"--python-version={PYTHON}", "--constraint", str(PROJECT / "constraints.txt")),
            *("hatchling", f"{PROJECT}{extra}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"pip download ended with {done.returncode}:\n{done.stderr[-4000:]}")
