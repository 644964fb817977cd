"""The first process of the emulated machine, in namespaces of its own: it mounts what the machine has, and waits.

    python boot.py ROOT ETC DISK_BYTES

What it mounts is seen by nobody outside, and is gone with it; so are all processes of the machine, whatever they do.
It ends when its standard input does, that is with the tests, however these end.

ROOT: the root file system, which stays unchanged. ETC: a folder with the files below. DISK_BYTES: room for home and
/tmp together, which are one file system in memory. Not a module of the project: only the standard library is imported.
"""

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

# Owned by root and not writable by others up to /, as sshd wants it of a folder that it makes the root; /tmp is not.
MOUNTED = Path("/mnt")
SECRETS = Path("/run/secrets-of-sshd")  # host_key, authorized_keys and sshd_config, copied from ETC
USER, USER_ID = "pi", 1000


def main(root: Path, etc: Path, disk_bytes: int) -> None:
    # Numbered as outside: /proc still shows the namespace that we came from.
    number = Path("/proc/self").readlink()
    _loopback()
    socket.sethostname("raspberrypi")
    for file in ("passwd", "group"):  # sshd looks its users up out here
        _mount("--bind", etc / file, f"/etc/{file}")
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")  # /run/sshd leaves no trace; no name service cache
    Path("/run/sshd").mkdir(mode=0o755)
    SECRETS.mkdir(mode=0o755)
    for file in ("host_key", "authorized_keys", "sshd_config"):
        (SECRETS / file).write_bytes((etc / file).read_bytes())
        (SECRETS / file).chmod(0o600 if file == "host_key" else 0o644)

    _mount("--bind", root, MOUNTED)
    _mount("-o", "remount,bind,ro", MOUNTED)
    _mount("-t", "proc", "proc", MOUNTED / "proc")
    _mount("--bind", etc / "cpuinfo", MOUNTED / "proc/cpuinfo")
    _mount("--bind", "/sys", MOUNTED / "sys")
    _mount("-o", "remount,bind,ro", MOUNTED / "sys")
    _devices()
    _disk(disk_bytes)

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans come to us; the kernel buries them
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()
    sys.stdin.read()


def _devices() -> None:
    devices = MOUNTED / "dev"
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", devices)
    for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx"):
        (devices / name).touch()
        _mount("--bind", f"/dev/{name}", devices / name)
    (devices / "pts").mkdir()
    _mount("--bind", "/dev/pts", devices / "pts")
    (devices / "shm").mkdir()
    _mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", devices / "shm")
    for name, aim in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        (devices / name).symlink_to(f"/proc/self/{aim}")


def _disk(size_bytes: int) -> None:
    home = MOUNTED / "home"
    _mount("-t", "tmpfs", "-o", f"mode=755,size={size_bytes}", "tmpfs", home)
    (home / USER).mkdir(mode=0o700)
    os.chown(home / USER, USER_ID, USER_ID)
    (home / ".tmp").mkdir()
    (home / ".tmp").chmod(0o1777)
    for folder in ("tmp", "var/tmp"):
        _mount("--bind", home / ".tmp", MOUNTED / folder)


def _loopback() -> None:
    """Bring up `lo` of the namespace that we are in, which has no other network: SIOCSIFFLAGS, IFF_UP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x1))


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
