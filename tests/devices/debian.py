"""A Debian root file system, of this machine's architecture or of another one that QEMU emulates."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SUITE = "bookworm"
APT_PACKAGES = ("debootstrap", "debian-archive-keyring", "qemu-user-static", "openssh-server", "openssh-client")
APT_COMMAND = f"apt-get install --no-install-recommends {' '.join(APT_PACKAGES)}"

_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_PROCESSORS = {"amd64": "x86_64", "arm64": "aarch64", "armhf": "arm"}  # as Linux and QEMU call what Debian calls so
_MACHINE_NUMBERS = {"aarch64": 0xB7, "arm": 0x28, "x86_64": 0x3E}  # e_machine of an ELF header


class CannotEmulate(Exception):
    """Something that the emulated machine needs is not here; the text says what, and what to type."""


def make_root(folder: Path, architecture: str, packages: Sequence[str]) -> None:
    """Make the root file system of a minimal Debian with `packages`, all without running one of its programs.

    Only debootstrap's first stage: the packages are unpacked, none is configured. So it needs no emulator, and there
    is no package database inside. It takes half a minute, most of it for downloads, and 300 MB.

    folder: must not exist yet, on a file system that allows device nodes. architecture: Debian's name of it.
    """
    need_root()
    need_programs("debootstrap", "dpkg-deb", "tar")
    command = ["debootstrap", "--foreign", f"--arch={architecture}", "--variant=minbase"]
    command += [f"--include={','.join(packages)}"] if packages else []
    command += [SUITE, str(folder)]
    command += [mirror] if (mirror := _mirror()) else []
    _run(command)
    try:
        _unpack(folder)
        _configure(folder)
    except BaseException:
        shutil.rmtree(folder)  # not left half made, to be taken for a whole one
        raise


def compile_python(root: Path, folder: Path | None = None) -> None:
    """Compile the modules in a folder of the root, or the standard library: packages do so when they are configured.

    Who is not root there cannot keep byte code, and Python starts slowly without. It is the same on every processor,
    so a Python of the same version here does it if there is one, in seconds; the emulated one takes a minute.
    """
    library = next((root / "usr/lib").glob("python3.[0-9]*"))
    inside = Path("/") / (folder or library).relative_to(root)
    arguments = ["-m", "compileall", "-q", "-j", "2", "-x", r"/(test|tests|idlelib|lib2to3|turtledemo)/"]
    for python in (sys.executable, shutil.which(library.name)):
        if python and _tag(python) == library.name.replace("python3.", "cpython-3"):
            _run([python, *arguments, "-s", str(root), "-p", "/", f"{root}{inside}"])
            return
    _run(["chroot", str(root), f"/usr/bin/{library.name}", *arguments, str(inside)])


def emulate(architecture: str) -> None:
    """Let this machine's kernel start programs of `architecture` through QEMU, from now on and in any root folder.

    Flag F: the kernel opens the emulator here and now, so that a chroot needs no copy of it. What is registered stays
    registered, as with the distribution's own service: it belongs to the kernel and to nobody's test run.
    """
    processor = _PROCESSORS[architecture]
    if processor == os.uname().machine or _registered(processor):
        return
    need_root()
    need_programs(f"qemu-{processor}-static")
    register = _BINFMT / "register"
    if not register.exists():
        found = subprocess.run(
            ["mount", "-t", "binfmt_misc", "binfmt_misc", str(_BINFMT)], capture_output=True, text=True, check=False
        )
        if found.returncode:
            raise CannotEmulate(
                f"{_BINFMT} cannot be mounted ({found.stderr.strip()}): in a container it takes --privileged, or "
                f"qemu-user-static registered on its host"
            )
    if _registered(processor):  # by the distribution, before it was mounted here
        return
    try:
        register.write_bytes(_registration(processor))
    except OSError as error:
        if not _registered(processor):  # another process may have been quicker
            raise CannotEmulate(f"{register} does not take qemu-{processor}-static: {error}") from error


def need_root() -> None:
    if os.geteuid() != 0:
        raise CannotEmulate(
            "this needs root: a machine of its own is mounted and started; type sudo before the command"
        )


def need_programs(*names: str) -> None:
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        raise CannotEmulate(f"there is no {' and no '.join(missing)} here; type: {APT_COMMAND}")


def _mirror() -> str | None:
    """Where this machine's own apt finds the release; None: it is another distribution, debootstrap knows a mirror."""
    if shutil.which("apt-get") is None:
        return None
    listed = _run(["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"])
    return next((line.split()[1] for line in listed.splitlines() if line.split()[0] == SUITE), None)


def _unpack(folder: Path) -> None:
    """Unpack what debootstrap has downloaded and left for its second stage.

    Not with `dpkg -x`: that replaces /bin and /lib, links in a Debian of today, by folders.
    """
    done = set((folder / "debootstrap/required").read_text().split())
    archives = folder / "var/cache/apt/archives"
    left = [archive for archive in sorted(archives.glob("*.deb")) if archive.name.split("_")[0] not in done]
    with ThreadPoolExecutor(max_workers=2) as pool:
        for _ in pool.map(lambda archive: _unpack_one(archive, folder), left):
            pass
    for archive in archives.glob("*.deb"):
        archive.unlink()
    shutil.rmtree(folder / "debootstrap")


def _unpack_one(archive: Path, folder: Path) -> None:
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE) as unpacking:
        subprocess.run(
            ["tar", "-x", "-f", "-", "-p", "--keep-directory-symlink", "-C", str(folder)],
            stdin=unpacking.stdout,
            check=True,
        )
    if unpacking.returncode:
        raise subprocess.CalledProcessError(unpacking.returncode, unpacking.args)


def _configure(folder: Path) -> None:
    """The little of what the packages' own scripts would do that is needed."""
    for name in ("passwd", "group"):
        shutil.copyfile(folder / f"usr/share/base-passwd/{name}.master", folder / "etc" / name)
        (folder / "etc" / name).chmod(0o644)
    # In a container debootstrap links it to /proc, which is itself once the folder has become the root.
    if (folder / "proc").is_symlink():
        (folder / "proc").unlink()
        (folder / "proc").mkdir()
    for name in ("tmp", "var/tmp", "dev/shm"):
        (folder / name).chmod(0o1777)
    folder.chmod(0o755)


def _registered(processor: str) -> bool:
    entry = _BINFMT / f"qemu-{processor}"
    return (
        entry.exists()
        and (text := entry.read_text().split("\n"))[0] == "enabled"
        and any(line.startswith("flags:") and "F" in line.split(":")[1] for line in text)
    )


def _registration(processor: str) -> bytes:
    """One line for the kernel: which first 20 bytes make an ELF program of this processor, and what runs it.

    ELF's class is 2 (64 bits) but for 32-bit Arm, the order of bytes little; of the file's type, 2 (executable) and 3
    (shared object), the last bit is not looked at. See the kernel's Documentation/admin-guide/binfmt-misc.rst. Flags:
    O opens the program for the emulator, P tells it the name that the program was started by, F opens it now.
    """
    wide = 1 if processor == "arm" else 2
    magic = (
        b"\x7fELF" + bytes([wide, 1, 1]) + bytes(9) + b"\x02\x00" + _MACHINE_NUMBERS[processor].to_bytes(2, "little")
    )
    mask = b"\xff" * 7 + b"\x00" + b"\xff" * 8 + b"\xfe\xff\xff\xff"
    escaped = ["".join(f"\\x{byte:02x}" for byte in part) for part in (magic, mask)]
    program = shutil.which(f"qemu-{processor}-static")
    return f":qemu-{processor}:M::{escaped[0]}:{escaped[1]}:{program}:OPF".encode()


def _tag(python: str) -> str:
    """The name that a Python gives its byte code, such as cpython-311."""
    return _run([python, "-c", "import sys; print(sys.implementation.cache_tag)"]).strip()


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout
