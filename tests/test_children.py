"""Child processes that end with their block, also where a signal comes while they are being started."""

import os
import signal
import subprocess
import time

import pytest

from kdeploy import children

SLEEP = ["sleep", "600"]


class Asked(BaseException):
    """What our handlers raise."""


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_child_ends_with_the_block():
    with children.child_process(SLEEP) as child:
        assert is_alive(child.pid)
    assert not is_alive(child.pid)
    with pytest.raises(KeyError), children.child_process(SLEEP) as child:
        raise KeyError
    assert not is_alive(child.pid)


def test_what_the_child_started_ends_too():
    with children.child_process(["sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE) as child:
        grandchild = int(child.stdout.readline())
        assert is_alive(grandchild)
    deadline = time.monotonic() + 10
    while is_alive(grandchild) and time.monotonic() < deadline:  # until its new parent has taken notice
        time.sleep(0.01)
    assert not is_alive(grandchild)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_it_is_started_does_not_lose_it(monkeypatch, number):
    """The signal comes between the start of the process and the return of Popen."""
    begun = []
    real = subprocess.Popen.__init__

    def interrupted(self, *arguments, **options):
        real(self, *arguments, **options)
        begun.append(self.pid)
        signal.raise_signal(number)

    def asked(number, frame):
        raise Asked

    monkeypatch.setattr(subprocess.Popen, "__init__", interrupted)
    before = signal.signal(number, asked)
    try:
        with pytest.raises(Asked), children.child_process(SLEEP):
            pytest.fail("the block is not entered")
        assert signal.getsignal(number) is asked
    finally:
        signal.signal(number, before)
    assert len(begun) == 1
    assert not is_alive(begun[0])
