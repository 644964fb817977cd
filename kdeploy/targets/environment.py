"""The environment on a device: kdeploy's device side in a virtual environment of its own."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kdeploy
from kdeploy import artifacts, events
from kdeploy.errors import KdeployError, Unavailable, UserError
from kdeploy.machine.host import installed_version
from kdeploy.targets.base import Target
from kdeploy.targets.channel import Channel, connected
from kdeploy.targets.refusals import refusal
from kdeploy.targets.sending import send
from kdeploy.targets.wheel import requirements, write_wheel

_ARCHITECTURES = ("aarch64", "x86_64")
_PYTHON = (3, 10)
_NO_EXTRA = ("onnxruntime", "pytorch")
"""Engines whose runtime every environment has, or none on a device."""
_NEEDED_BYTES = 700 << 20
"""What an environment takes while it is made: about 350 MiB in the end, and the wheels beside it."""
_OLDEST_LIBC, _NEWEST_LIBC = 17, 50


def greet(channel: Channel, target: Target) -> dict[str, Any]:
    """What the device is. Raises UserError where kdeploy can't work on it at all."""
    found = channel.ask("hello", own=target.brings_kdeploy)
    if found["architecture"] not in _ARCHITECTURES:
        raise UserError(
            f"{target.text} is a {found['architecture']}: kdeploy works on 64-bit Arm (aarch64) and x86-64. A 64-bit "
            "board with a 32-bit system needs the 64-bit one."
        )
    if found["bits"] != 64:  # as on a Raspberry Pi whose kernel alone is a 64-bit one
        raise UserError(f"{target.text} has a {found['bits']}-bit Python: kdeploy needs a 64-bit system there.")
    if tuple(found["python"][:2]) < _PYTHON:
        version = ".".join(map(str, found["python"]))
        raise UserError(f"{target.text} has Python {version}: kdeploy needs 3.10 or newer there. Update its system.")
    return found


def require(channel: Channel, target: Target) -> dict[str, Any]:
    """Have this very kdeploy in the device's environment. Raises Unavailable where there is no environment yet."""
    found = greet(channel, target)
    if found["busy_s"] is not None:  # even asking would disturb what is measured
        raise refusal({"error": "busy", "since_s": found["busy_s"]}, target.text)
    if target.brings_kdeploy:
        _require_own(channel, target)
        return found
    if not found["environment"] or "requirements" not in found["state"]:
        raise Unavailable(f"{target.text} has no environment for kdeploy yet. Type: kdeploy target setup {target.text}")
    extras = frozenset(found["state"].get("extras", []))
    if found["state"]["requirements"] != requirements(extras):
        raise Unavailable(
            f"The environment on {target.text} was made for another version of kdeploy. "
            f"Type: kdeploy target setup {target.text}"
        )
    _bring_code(channel)
    return found


def setup_command(found: Mapping[str, Any], target: Target) -> str:
    """What makes the environment of a device as it is, to which another --extra can be added; empty for an image."""
    if target.brings_kdeploy:
        return ""
    extras = [f"--extra {extra}" for extra in found["state"].get("extras", [])]
    return " ".join(["kdeploy target setup", target.text, *extras])


@dataclass(frozen=True)
class Abilities:
    """engines: those whose runtime the device has. instruction_sets: of its processor. setup: see `setup_command`."""

    engines: tuple[str, ...]
    instruction_sets: frozenset[str]
    setup: str

    def remedy(self, missing: Iterable[str]) -> str:
        """The end of a message: what to type for these runtimes to be there, too; an image has to be built anew."""
        extras = [f" --extra {engine}" for engine in sorted(missing) if engine not in _NO_EXTRA]
        return f" Type: {self.setup}{''.join(extras)}" if self.setup else ""


def abilities(target: Target) -> Abilities:
    """What the device can run. Raises Unavailable as `require` does."""
    program = (
        "import json; from kdeploy import engines, machine\n"
        "there = [name for name in engines.names() if engines.find(name).available().ok]\n"
        "print(json.dumps([there, sorted(machine.instruction_sets())]))"
    )
    with connected(target) as channel:
        found = require(channel, target)
        names, sets = channel.ask("ask", program=program)["found"]
    return Abilities(tuple(names), frozenset(sets), setup_command(found, target))


def set_up(channel: Channel, target: Target, extras: frozenset[str], *, carry: bool) -> str:
    """Make the environment, or make it anew. Returns where its packages came from: "index" or "carried".

    extras: of kdeploy, to be installed too. carry: wheels are brought from here without asking the device's network.
    Raises UserError for a device that kdeploy can't work on or that has no room, Unavailable where packages can't be
    had.
    """
    require_no_image(target)
    found = greet(channel, target)
    if found["busy_s"] is not None:
        raise refusal({"error": "busy", "since_s": found["busy_s"]}, target.text)
    if found["free_bytes"] < _NEEDED_BYTES:
        raise UserError(
            f"{target.text} has {found['free_bytes'] >> 20} MiB free in {found['folder']}, and an environment needs "
            f"{_NEEDED_BYTES >> 20} MiB. Make room there."
        )
    if not found["libc"]:
        raise UserError(
            f"{target.text} has another C library than GNU's, as Alpine Linux has: ONNX Runtime is not built for it. "
            "Use Debian, Ubuntu or Raspberry Pi OS."
        )
    needed = requirements(extras)
    if not found["in_home"]:
        events.warn(f"The home folder on {target.text} can't be written: all goes to {found['folder']}.")
    channel.ask("state", state={})
    with events.task("make the environment"):
        # A Jetson has TensorRT among its system's packages, and no wheel from an index would do.
        channel.ask("venv", system_packages=found["tensorrt"] and "tensorrt" not in extras)
    source = _install(channel, target, found, needed, carry=carry)
    _bring_code(channel)
    channel.ask("state", state={"requirements": needed, "extras": sorted(extras), "packages": source})
    return source


def require_no_image(target: Target) -> None:
    """Raises UserError for a target that comes with its environment."""
    if target.brings_kdeploy:
        raise UserError(f"{target.text} is an image, which brings its own kdeploy: there is nothing to set up.")


def _require_own(channel: Channel, target: Target) -> None:
    program = "import json, kdeploy, kdeploy.targets; print(json.dumps(kdeploy.__version__))"
    try:
        version = channel.ask("ask", program=program)["found"]
    except Unavailable:
        raise Unavailable(
            f"{target.text}: its python3 has no kdeploy. Build the image from docker/edge-arm64.Dockerfile, or install "
            "kdeploy in it."
        ) from None
    if version != kdeploy.__version__:
        raise Unavailable(f"{target.text} has kdeploy {version}, and here is {kdeploy.__version__}: build it anew.")


def _bring_code(channel: Channel) -> None:
    with tempfile.TemporaryDirectory(prefix="kdeploy-wheel-") as folder:
        wheel = write_wheel(Path(folder))
        channel.ask("code", wheel=send(channel, [wheel])[wheel])


def _install(channel: Channel, target: Target, found: Mapping[str, Any], needed: Sequence[str], *, carry: bool) -> str:
    arguments = ["--no-compile", "--only-binary", ":all:", *needed]
    with tempfile.TemporaryDirectory(prefix="kdeploy-wheels-") as temporary:
        folder = Path(temporary)
        pip = _pip_wheel(folder)
        digest = send(channel, [pip])[pip]
        why = "--wheels"
        if not carry:
            quick = ["--retries", "1", "--timeout", "10"]
            with events.task("install on the device, from its package index"):
                done = channel.ask("pip", pip=digest, arguments=[*quick, *arguments], wheels={})
            if done["status"] == 0:
                return "index"
            why = _complaint(done["said"])
        events.decided("packages", "carried along from here", why)
        wheels = _downloaded(folder / "wheels", found, needed)
        hashes = {path.name: artifacts.sha256_file(path) for path in wheels}
        try:
            send(channel, wheels)
            with events.task("install on the device, from what was carried along"):
                done = channel.ask("pip", pip=digest, arguments=arguments, wheels=hashes)
        except KdeployError:
            channel.ask("forget", files=list(hashes.values()))  # they may be what filled its disk
            raise
        channel.ask("forget", files=list(hashes.values()))  # the environment has them now
    if done["status"] != 0:
        raise Unavailable(f"{target.text}: pip could not install there: {_complaint(done['said'])}")
    return "carried"


def _pip_wheel(folder: Path) -> Path:
    """The pip that Python itself brings for new environments; where a system took it away, one from the index."""
    specification = importlib.util.find_spec("ensurepip")
    if specification is not None and specification.origin is not None:
        bundled = sorted(Path(specification.origin).parent.glob("_bundled/pip-*.whl"))
        if bundled:
            return bundled[-1]
    _run_pip(["download", "--no-deps", "--dest", str(folder), "pip"], "pip")
    return next(iter(folder.glob("pip-*.whl")))


def _downloaded(folder: Path, found: Mapping[str, Any], needed: Sequence[str]) -> list[Path]:
    """Wheels for the device's Python and C library, by this machine's pip and its index."""
    version = ".".join(map(str, found["python"][:2]))
    glibc = int((found["libc"] or f"2.{_NEWEST_LIBC}").partition(".")[2].partition(".")[0])
    machine = found["architecture"]
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(min(glibc, _NEWEST_LIBC), _OLDEST_LIBC - 1, -1)]
    platforms = [word for tag in [*tags, f"manylinux2014_{machine}"] for word in ("--platform", tag)]
    built_for = ["--python-version", version, "--implementation", "cp", "--only-binary", ":all:"]
    with events.task(f"download wheels for Python {version} on {machine}"):
        what = f"wheels for Python {version} on {machine} with the C library 2.{glibc}"
        _run_pip(["download", "--dest", str(folder), *built_for, *platforms, *needed], what)
    return sorted(folder.glob("*.whl"))


def _run_pip(arguments: Sequence[str], what: str) -> None:
    if installed_version("pip") is None:  # to look for its module would have setuptools meddle with distutils
        raise Unavailable(f"{what} can't be downloaded: this environment has no pip. Type: python -m ensurepip")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise Unavailable(f"{what} can't be downloaded here either: {_complaint(done.stderr)}")


def _complaint(said: str) -> str:
    """What pip complains of, without its advice on itself: why it found nothing before that it found nothing."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and "[notice]" not in line]
    telling = [line for line in lines if "Could not find" in line or "No matching" in line or "onnection" in line]
    errors = [line for line in lines if line.startswith("ERROR: ")]
    found = (telling or errors or lines[-1:] or ["it said nothing"])[0]
    return re.sub(r"^(ERROR|WARNING): ", "", found)[:300]
