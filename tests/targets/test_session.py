"""A job on a device: its files, its words, its end, and what becomes of it when the connection drops."""

import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from kdeploy import events
from kdeploy.errors import Unavailable, UserError
from kdeploy.targets import parse, session
from kdeploy.targets.session import Work, carried_out
from tests.targets.loopback import TARGET, until


@pytest.fixture
def verb(ready) -> Callable[[str], None]:
    """Has `python -m kdeploy` on the device run this program, instead of the command line."""
    (package,) = ready.kept.glob("venv/lib/python*/site-packages/kdeploy")

    def use(program: str) -> None:
        (package / "__main__.py").write_text(program)

    return use


WORK = Work([])


class Listener:
    """Keeps what the library says."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def decided(self, what, value, why):
        self.heard.append(f"{what}: {value}")

    def warned(self, text):
        self.heard.append(text)

    def said(self, text):
        self.heard.append(text)

    def task(self, description, total):
        return events._Deaf().task(description, total)


@pytest.fixture
def heard():
    listener = Listener()
    with events.listening(listener):
        yield listener.heard


def at_the_same_time(action: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=action)
    thread.start()
    return thread


def carry(work: Work = WORK) -> None:
    """Carry out what is not to come to a good end."""
    with carried_out(parse(TARGET), work):
        pytest.fail("it came to a good end")


COUNTING = """
import pathlib, time
for number in range({count}):
    pathlib.Path('said').open('a').write(f'{{number}}\\n')
    time.sleep(0.1)
print(pathlib.Path('said').read_text().count('\\n'))
"""


def test_files_go_there_once_and_results_come_home(ready, verb, tmp_path):
    verb("""
import pathlib, sys
text = pathlib.Path('deep/in.txt').read_text()
pathlib.Path('out/more').mkdir(parents=True)
pathlib.Path('out/more/a.txt').write_text(text * 2)
pathlib.Path('out/b.txt').write_text('b')
pathlib.Path('not-asked-for').write_text('c')
print(sys.argv[1:])
""")
    (tmp_path / "in.txt").write_text("abc")
    work = Work(["one", "two words"], {"deep/in.txt": tmp_path / "in.txt"}, ["out"])
    for _ in range(2):
        with carried_out(parse(TARGET), work) as done:
            assert (done.status, done.out.strip()) == (0, "['one', 'two words']")
            assert {name: path.read_text() for name, path in done.files.items()} == {
                "out/more/a.txt": "abcabc",
                "out/b.txt": "b",
            }
        assert not ready.jobs()
    assert sorted(path.name for path in ready.kept.iterdir()) == ["files", "state.json", "venv"]


def test_a_file_is_sent_once(ready, verb, tmp_path, monkeypatch):
    verb("")
    (tmp_path / "large").write_bytes(os.urandom(3 << 20))
    sent = []
    real = session.Channel.send_file
    monkeypatch.setattr(
        session.Channel, "send_file", lambda self, path, *more: (sent.append(path), real(self, path, *more))
    )
    for _ in range(2):
        with carried_out(parse(TARGET), Work([], {"a": tmp_path / "large", "b": tmp_path / "large"})):
            pass
    assert sent == [tmp_path / "large"]


def test_the_status_and_what_was_printed_come_home(ready, verb):
    verb("import sys; print('out'); print('kdeploy: no.', file=sys.stderr); sys.exit(3)")
    with carried_out(parse(TARGET), Work([])) as done:
        assert (done.status, done.out, done.err) == (3, "out\n", "kdeploy: no.\n")


def test_progress_comes_live(ready, verb, heard):
    """The job goes on only when what it said has been heard here."""
    verb(f"""
import os, pathlib, time
from kdeploy import events
from kdeploy.targets import relay
with relay.recording(pathlib.Path(os.environ['KDEPLOY_EVENTS'])):
    events.say('half of it')
    while not pathlib.Path({str(ready.folder / "go")!r}).exists():
        time.sleep(0.02)
""")

    def go() -> None:
        until(lambda: "half of it" in heard)
        (ready.folder / "go").touch()

    thread = at_the_same_time(go)
    with carried_out(parse(TARGET), Work([])) as done:
        assert done.status == 0
    thread.join()


def test_a_connection_that_drops_is_taken_up_again_where_it_was(ready, verb, heard):
    verb(COUNTING.format(count=40))

    def drop() -> None:
        until(ready.jobs)
        time.sleep(0.5)
        ready.cut()
        time.sleep(1.5)
        ready.restore()

    thread = at_the_same_time(drop)
    with carried_out(parse(TARGET), Work([], {}, ["said"])) as done:
        assert done.out == "40\n", "the same process has counted on"
        assert done.files["said"].read_text().splitlines() == [str(number) for number in range(40)]
    thread.join()
    assert any("dropped: trying again" in line for line in heard)
    assert f"connected to {TARGET} again" in heard


def test_after_the_lease_the_device_ends_the_run_by_itself(ready, verb, heard):
    verb(COUNTING.format(count=10_000))
    began = threading.Event()

    def drop() -> None:
        until(ready.jobs)
        time.sleep(0.5)
        ready.cut()
        began.set()

    thread = at_the_same_time(drop)
    with pytest.raises(Unavailable, match="out of reach for longer than 4 s, and has ended the run"):
        carry()
    thread.join()
    until(lambda: not ready.jobs(), 10)
    until(lambda: not ready.processes(), 10)
    ready.restore()


def test_who_comes_back_after_the_lease_is_told_so(ready, verb, monkeypatch):
    """As with a laptop that slept: the clock here thinks that there is time left."""
    verb(COUNTING.format(count=10_000))

    def drop() -> None:
        until(ready.jobs)
        (job,) = ready.jobs()
        (job / "beat").unlink()
        until(lambda: not ready.jobs())
        ready.cut()
        ready.restore()

    thread = at_the_same_time(drop)
    with pytest.raises(Unavailable):
        carry()
    thread.join()


@pytest.mark.parametrize("connected", [True, False])
def test_an_interruption_here_ends_it_there_at_once(ready, verb, heard, connected):
    """A child of the verb that ignores SIGTERM and has a session of its own ends too."""
    verb("""
import subprocess, sys, time
subprocess.Popen([sys.executable, '-c', 'import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)'],
                 start_new_session=True)
time.sleep(600)
""")
    main = threading.get_ident()

    def interrupt() -> None:
        until(lambda: any("SIG_IGN" in line for line in ready.processes()))
        if not connected:
            ready.cut()
            until(lambda: any("trying again" in line for line in heard))
        signal.pthread_kill(main, signal.SIGINT)

    thread = at_the_same_time(interrupt)
    with pytest.raises(KeyboardInterrupt):
        carry()
    thread.join()
    if connected:
        assert not ready.jobs()
        until(lambda: not ready.processes(), 2)
    else:
        assert heard[-1] == f"{TARGET} can't be reached: it ends the run by itself within 4 s."
        until(lambda: not ready.processes(), 12)
        ready.restore()


def test_one_job_at_a_time(ready, verb):
    verb("import time; time.sleep(600)")

    def second() -> None:
        until(ready.jobs)
        with pytest.raises(Unavailable, match="busy with another measurement") as refused:
            carry()
        assert refused.value.exit_status == 5
        signal.pthread_kill(main, signal.SIGINT)

    main = threading.get_ident()
    thread = at_the_same_time(second)
    with pytest.raises(KeyboardInterrupt):
        carry()
    thread.join()


def test_what_a_power_cut_left_is_cleared_away(ready, verb):
    (ready.kept / "job-left").mkdir()
    verb("")
    with carried_out(parse(TARGET), Work([])) as done:
        assert done.status == 0
    assert not ready.jobs()


def test_a_run_that_is_killed_is_taken_for_one_without_memory(ready, verb):
    verb("import os; os.kill(os.getpid(), 9)")
    with pytest.raises(UserError, match="memory most likely ran out"):
        carry()
    assert not ready.jobs()


def test_a_damaged_result_is_no_result(ready, verb, monkeypatch):
    verb("open('out', 'w').write('x')")
    real = session.Channel.fetch_file

    def damaged(self, job, name, target):
        real(self, job, name, target)
        target.write_text("y")

    monkeypatch.setattr(session.Channel, "fetch_file", damaged)
    with pytest.raises(UserError, match="came back damaged"):
        carry(Work([], {}, ["out"]))
    assert not ready.jobs()


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside"])
def test_nothing_leaves_the_folder_of_its_job(ready, verb, tmp_path, path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(Unavailable, match="outside its job"):
        carry(Work([], {path: tmp_path / "file"}))
    assert not ready.jobs()
