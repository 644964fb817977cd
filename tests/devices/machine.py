"""The emulated machine: a root file system, processes and a network of its own, reached over real SSH."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.devices import boot
from tests.devices.debian import CannotEmulate, need_programs, need_root

DISK_BYTES = 2_000_000_000  # of the home and /tmp together; memory, taken as it is filled
HOME = f"/home/{boot.USER}"

_SSHD_CONFIG = f"""\
AuthorizedKeysFile {boot.SECRETS}/authorized_keys
ChrootDirectory {boot.MOUNTED}
HostKey {boot.SECRETS}/host_key
KbdInteractiveAuthentication no
PasswordAuthentication no
StrictModes no
Subsystem sftp internal-sftp
UsePAM no
"""

# QEMU before 8.2 shows the host's processor, and ONNX Runtime's library for it crashes on an x86 one. This is a
# Cortex-A76; QEMU computes all of what it has.
_CORE = """\
BogoMIPS\t: 100.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1
"""


@dataclass(frozen=True)
class Process:
    number: int  # as outside
    command: str


class Machine:
    """A machine with one user, `pi`, that SSH reaches on a port of 127.0.0.1, from `start` until `stop`.

    The tests accept the connections themselves and hand each to an sshd of its own (`sshd -i`), inside the machine's
    namespaces. A connection is thus there even when the machine has no network of its own.
    """

    host = "127.0.0.1"
    user = boot.USER
    home = HOME

    def __init__(self, root: Path, folder: Path) -> None:
        """root: from `make_root`; it is not changed. folder: for keys and logs; it must not exist."""
        self.root = root
        self.folder = folder
        self.port = 0
        self._boot: subprocess.Popen[str] | None = None
        self._first = 0  # the number outside of the machine's first process
        self._listener: socket.socket | None = None
        self._accepting: threading.Thread | None = None
        self._connections: list[subprocess.Popen[bytes]] = []
        self.accepted = 0  # connections, since it was started
        self._moving = threading.Event()
        self._online = True

    # Its life

    def start(self) -> None:
        need_root()
        need_programs("unshare", "nsenter", "mount", "sshd", "ssh", "ssh-keygen")
        self._write_files()
        with (self.folder / "boot.log").open("w") as log:
            self._boot = subprocess.Popen(
                # --kill-child: what kills unshare kills the machine.
                [
                    *("unshare", "--mount", "--propagation=private", "--uts", "--net", "--pid"),
                    *("--fork", "--kill-child"),
                    *(sys.executable, "-I", boot.__file__, str(self.root), str(self.folder), str(DISK_BYTES)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C in the terminal is for the tests
            )
        assert self._boot.stdout is not None
        number = self._boot.stdout.readline().strip()
        if not number:
            self.stop()
            raise CannotEmulate(
                "namespaces cannot be made, or nothing be mounted in them; in a container it takes --privileged:\n"
                + (self.folder / "boot.log").read_text()
            )
        self._first = int(number)
        self._moving.set()
        self.restore()

    def stop(self) -> None:
        self.cut()
        if self._boot is not None:
            self._boot.kill()
            self._boot.communicate()  # until its last process has closed the pipe
            self._boot = None
            self._first = 0

    def reset(self) -> None:
        """As it was when it was started: no process, an empty home, connected, with its network and its whole disk."""
        self.thaw()
        self._kill(lambda _: True)
        self.restore()
        self.online()
        self._resize(DISK_BYTES)
        for folder in (HOME, "/tmp", "/dev/shm"):
            for entry in self.path(folder).iterdir():
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()

    # Reaching it

    @property
    def target(self) -> str:
        return f"ssh://{self.user}@{self.host}:{self.port}"

    @property
    def ssh_command(self) -> str:
        """OpenSSH's client with this machine's key and host key, as KDEPLOY_SSH takes it."""
        return f"ssh -F {self.folder / 'ssh_config'}"

    def run(
        self, command: str, *, timeout_s: float = 120, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a line of shell on the machine, over SSH; its exit status is in the result, ssh's own 255 too."""
        return subprocess.run(
            [*self.ssh_command.split(), "-p", str(self.port), f"{self.user}@{self.host}", command],
            stdin=subprocess.DEVNULL if input is None else None,
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    # Looking inside, from outside: these need no connection

    def path(self, inside: str | Path) -> Path:
        """Where a path of the machine lies in this one's view, while the machine runs."""
        return Path(f"/proc/{self._first}/root{boot.MOUNTED}") / str(inside).lstrip("/")

    def files(self, inside: str | Path = HOME) -> list[str]:
        """All files and folders below one of the machine's, relative to it, sorted; [] where it does not exist."""
        folder = self.path(inside)
        return sorted(str(found.relative_to(folder)) for found in folder.rglob("*"))

    def processes(self) -> list[Process]:
        """What the user runs on the machine, sshd's own processes left out.

        What has just been told to end may still be there: await its end. The emulator's name comes first in a command.
        """
        return [process for process in self._all_processes() if not _is_sshd(process)]

    # What happens to devices

    def cut(self) -> None:
        """End all connections and let nobody in. What runs on the machine and minds no lost terminal lives on."""
        if self._listener is not None:
            assert self._accepting is not None
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread; a mere close would not
            self._moving.set()
            self._accepting.join()
            self._listener.close()
            self._listener = None
        self._kill(_is_sshd)
        for connection in self._connections:
            connection.wait()
        self._connections.clear()

    def restore(self) -> None:
        """Let connections in again, on the same port."""
        if self._listener is not None:
            return
        self._listener = socket.create_server((self.host, self.port))  # which sets SO_REUSEADDR
        self.port = self._listener.getsockname()[1]
        self._write_ssh_config()
        self._accepting = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._accepting.start()

    def freeze(self) -> None:
        """Let connections hang, those that there are and new ones: nothing comes or goes, nothing ends."""
        self._moving.clear()
        for process in self._sshd_processes():
            os.kill(process.number, signal.SIGSTOP)

    def thaw(self) -> None:
        for process in self._sshd_processes():
            os.kill(process.number, signal.SIGCONT)
        self._moving.set()

    def offline(self) -> None:
        """From the next connection on what is started has no network but loopback: no name found, no host reached."""
        self._online = False

    def online(self) -> None:
        """From the next connection on what is started has this machine's network, with its package index."""
        self._online = True

    @contextmanager
    def disk(self, free_bytes: int) -> Iterator[None]:
        """Only so much more fits into the home and /tmp, together, within the block."""
        state = os.statvfs(self.path("/home"))
        used_bytes = (state.f_blocks - state.f_bfree) * state.f_frsize
        self._resize(used_bytes + free_bytes)
        try:
            yield
        finally:
            self._resize(DISK_BYTES)

    # How

    def _write_files(self) -> None:
        self.folder.mkdir(parents=True)
        for key in ("host_key", "user_key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(self.folder / key)], check=True
            )
        shutil.copyfile(self.folder / "user_key.pub", self.folder / "authorized_keys")
        (self.folder / "sshd_config").write_text(_SSHD_CONFIG)
        add_user(Path("/etc"), self.folder)
        cpuinfo = [f"processor\t: {number}\n{_CORE}" for number in range(os.cpu_count() or 1)]
        (self.folder / "cpuinfo").write_text("\n".join(cpuinfo))

    def _write_ssh_config(self) -> None:
        host_key = (self.folder / "host_key.pub").read_text()
        (self.folder / "known_hosts").write_text(f"[{self.host}]:{self.port} {host_key}")
        (self.folder / "ssh_config").write_text(
            f"IdentityFile {self.folder / 'user_key'}\n"
            "IdentitiesOnly yes\n"
            "IdentityAgent none\n"
            f"UserKnownHostsFile {self.folder / 'known_hosts'}\n"
            "GlobalKnownHostsFile /dev/null\n"
            "StrictHostKeyChecking yes\n"
            "PreferredAuthentications publickey\n"
            "LogLevel ERROR\n"
        )

    def _accept(self, listener: socket.socket) -> None:
        sshd = shutil.which("sshd") or "sshd"  # it starts itself again, and wants its whole path for that
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # cut
                return
            self._moving.wait()
            self.accepted += 1
            with connection, (self.folder / "sshd.log").open("a") as log:
                self._connections.append(
                    subprocess.Popen(
                        [
                            *self._enter("--pid", *([] if self._online else ["--net"])),
                            *(sshd, "-i", "-e", "-f", str(boot.SECRETS / "sshd_config")),
                        ],
                        stdin=connection.fileno(),
                        stdout=connection.fileno(),
                        stderr=log,
                        start_new_session=True,
                    )
                )

    def _enter(self, *namespaces: str) -> list[str]:
        return ["nsenter", f"--target={self._first}", "--mount", "--uts", *namespaces, "--"]

    def _resize(self, size_bytes: int) -> None:
        home = str(boot.MOUNTED / "home")
        subprocess.run([*self._enter(), "mount", "-o", f"remount,size={size_bytes}", home], check=True)

    def _all_processes(self) -> list[Process]:
        """All of the machine's but its first, root's too."""
        ours = Path(f"/proc/{self._first}/ns/pid")
        if not self._first or not ours.is_symlink():
            return []
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal() or int(entry.name) == self._first:
                continue
            with suppress(OSError):  # it has ended meanwhile
                if (entry / "ns/pid").readlink() == ours.readlink():
                    begin, _, rest = (entry / "stat").read_text().rpartition(")")
                    if rest.split()[0] in "XZ":  # it has ended and waits for its parent
                        continue
                    command = (entry / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode()
                    # None for a moment while another program takes its place, or while it ends: its short name then.
                    found.append(Process(int(entry.name), command or f"{begin.partition('(')[2]}:"))
        return found

    def _sshd_processes(self) -> list[Process]:
        return [process for process in self._all_processes() if _is_sshd(process)]

    def _kill(self, wanted: Callable[[Process], bool]) -> None:
        """Kill until there is none: a process may just be starting another one."""
        deadline = time.monotonic() + 30
        while found := [process for process in self._all_processes() if wanted(process)]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"These processes of the emulated machine do not end: {found}")
            for process in found:
                with suppress(ProcessLookupError):
                    os.kill(process.number, signal.SIGKILL)
            time.sleep(0.01)


def add_user(etc: Path, into: Path) -> None:
    """Write the user and its group to copies of a folder's `passwd` and `group`."""
    entries = {
        "passwd": f"{boot.USER}:x:{boot.USER_ID}:{boot.USER_ID}::{HOME}:/bin/bash",
        "group": f"{boot.USER}:x:{boot.USER_ID}:",
    }
    for file, entry in entries.items():
        others = [line for line in (etc / file).read_text().splitlines() if line.split(":")[0] != boot.USER]
        (into / file).write_text("\n".join([*others, entry, ""]))


def _is_sshd(process: Process) -> bool:
    return process.command.startswith(("sshd:", "sshd-session:")) or "/sshd -i" in process.command
