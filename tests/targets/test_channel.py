"""Our end of a connection: what is said before we speak, and what is said in place of an answer."""

import os
import shlex
import signal
import sys
import time

import pytest

from kdeploy.errors import Unavailable
from kdeploy.targets import channel as channels
from kdeploy.targets.channel import Channel, Lost


def saying(script: str):
    """A command that runs this before the Python there, as a login shell does."""
    return lambda program: ["sh", "-c", f"{script}\nexec {shlex.quote(sys.executable)} -c {shlex.quote(program)}"]


def greeted(command) -> None:
    with Channel(command, "pi@host") as channel:
        assert "architecture" in channel.ask("hello", own=False)


def test_a_login_shell_may_print_much():
    greeted(saying("echo Welcome; seq 100000; printf 'no end of line'"))


def test_a_large_standard_error_stops_nothing():
    greeted(saying("head -c 1000000 /dev/zero | tr '\\0' e >&2"))


@pytest.mark.parametrize("sign", ["'", "\n", "\\", "!", "$", "`"])
def test_every_shell_takes_the_program_in_single_quotes(sign):
    """fish, csh and sh differ in what these mean there."""
    assert sign not in channels._BOOTSTRAP


def why(script: str, try_first: str = "") -> str:
    with pytest.raises(Unavailable) as refused, Channel(lambda _: ["sh", "-c", script], "pi@host", try_first):
        pass
    assert refused.value.exit_status == 5
    return str(refused.value)


@pytest.mark.parametrize(
    ("said", "status", "sentence"),
    [
        (
            "All that you do is recorded.\\nNo trespassing.\\npi@host: Permission denied (publickey).",
            255,
            "pi@host can't be reached: pi@host: Permission denied (publickey). Try first whether this works: ssh host",
        ),
        (
            "@@@@@\\nWARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!\\nHost key verification failed.",
            255,
            "pi@host can't be reached: Host key verification failed. Try first whether this works: ssh host",
        ),
        (
            "kex_exchange_identification: read: Connection reset by peer\\nConnection reset by 10.0.0.1 port 22",
            255,
            "pi@host can't be reached: kex_exchange_identification: read: Connection reset by peer; Connection reset "
            "by 10.0.0.1 port 22. Try first whether this works: ssh host",
        ),
        (
            "",
            255,
            "pi@host can't be reached: the connection ended with status 255. Try first whether this works: ssh host",
        ),
    ],
)
def test_an_error_of_ssh_is_one_sentence(said, status, sentence):
    assert why(f"printf '{said}\\n' >&2; exit {status}", "ssh host") == sentence


@pytest.mark.parametrize(
    "script",
    [
        "echo 'bash: line 1: exec: python3: not found' >&2; exit 126",
        "echo 'fish: Unknown command: python3' >&2; exit 127",
        "echo 'python3: Command not found.' >&2; exit 1",
    ],
)
def test_a_device_without_python(script):
    assert "has no python3. Install it there, for instance: sudo apt install python3" in why(script)


def test_a_python_of_long_ago():
    assert "kdeploy needs 3.10 or newer" in why("echo 'SyntaxError: invalid syntax' >&2; exit 1")


def test_a_command_that_is_not_installed():
    with (
        pytest.raises(Unavailable, match="there is no nossh here"),
        Channel(lambda program: ["nossh", program], "pi@host"),
    ):
        pass


def test_a_device_that_hangs_is_not_waited_for_in_vain(monkeypatch):
    with Channel(saying(""), "pi@host") as channel:
        channel.ask("hello", own=False)
        os.kill(channel._process.pid, signal.SIGSTOP)
        monkeypatch.setattr(Channel._fill, "__defaults__", (0.3,))
        with pytest.raises(Lost):
            channel.ask("hello", own=False)
        channel._process.kill()


def test_what_takes_long_announces_itself(monkeypatch, tmp_path):
    """A shorter patience than the work takes, and a shorter interval of signs of life than that."""
    monkeypatch.setenv("HOME", str(tmp_path))
    with Channel(saying(""), "pi@host") as channel:
        channel.ask("hello", own=True)
        monkeypatch.setattr(Channel._fill, "__defaults__", (3.5,))
        assert channel.ask("ask", program="import time; time.sleep(5); print(1)")["found"] == 1


def test_a_file_left_in_the_middle_ends_the_connection(tmp_path, monkeypatch):
    (tmp_path / "large").write_bytes(b"x" * 100)
    with Channel(saying(""), "pi@host") as channel:
        with pytest.raises(KeyboardInterrupt):
            channel.send_file(tmp_path / "large", "0" * 64, lambda size: signal.raise_signal(signal.SIGINT))
        with pytest.raises(Lost):
            channel.ask("hello", own=False)


def test_a_command_that_does_not_end_is_ended():
    """As an ssh that still asks for a password: SIGTERM lets it show again what is typed."""
    began = time.monotonic()
    with pytest.raises(Unavailable):
        Channel(
            lambda _: ["sh", "-c", "exec 1>&-; trap 'echo ended >&2; exit 1' TERM; while :; do sleep 0.1; done"], "host"
        )
    assert time.monotonic() - began < 30
