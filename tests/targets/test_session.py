"""A job on a device: its files, its words, its end, and what becomes of it when the connection drops."""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

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


SAYS_ONCE = """
import os, pathlib, time
with pathlib.Path({place!r}).open('a') as began:
    began.write('began\\n')
time.sleep(0.5)
"""


@pytest.mark.parametrize("do", ["missing", "start", "follow", "results"])
def test_an_answer_that_is_lost_is_asked_for_again_and_nothing_runs_twice(ready, verb, monkeypatch, do, heard):
    verb(SAYS_ONCE.format(place=str(ready.folder / "began")))
    real, lost = session.Channel.ask, []

    def ask(self, what, **details):
        answer = real(self, what, **details)
        if what == do and not lost and not details.get("files"):  # the code is a file that goes there first
            lost.append(do)
            raise session.Lost
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(session.Channel, "ask", ask)
        patch.setenv("KDEPLOY_LEASE_S", "20")
        with carried_out(parse(TARGET), Work([])) as done:
            assert done.status == 0
    assert lost
    assert (ready.folder / "began").read_text() == "began\n"
    assert not ready.jobs()


def test_an_answer_that_is_lost_at_the_very_end_costs_nothing(ready, verb, monkeypatch):
    verb("print('done')")
    real = session.Channel.ask

    def ask(self, what, **details):
        if what == "cancel" and self is first[0]:
            raise session.Lost
        return real(self, what, **details)

    first: list[session.Channel] = []
    known = session.Channel.tell
    monkeypatch.setattr(session.Channel, "tell", lambda self, *a, **k: (first.append(self), known(self, *a, **k))[1])
    monkeypatch.setattr(session.Channel, "ask", ask)
    with carried_out(parse(TARGET), Work([])) as done:
        assert done.out == "done\n"
    assert not ready.jobs()


def test_an_interruption_while_a_file_is_sent_leaves_nothing(ready, verb, tmp_path, monkeypatch):
    verb("")
    (tmp_path / "large").write_bytes(os.urandom(3 << 20))
    before = set((ready.kept / "files").iterdir())
    real = session.Channel.send_file

    def interrupted(self, path, sha256, told):
        real(self, path, sha256, lambda size: signal.raise_signal(signal.SIGINT))

    monkeypatch.setattr(session.Channel, "send_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        carry(Work([], {"a": tmp_path / "large"}))
    until(lambda: not ready.processes(), 5)
    assert set((ready.kept / "files").iterdir()) == before
    assert not ready.jobs()


def test_an_interruption_while_results_come_home_ends_the_job_at_once(ready, verb, heard, monkeypatch):
    verb("open('out', 'wb').write(b'[' * (8 << 20))")
    whole = session.Channel._file

    def interrupted(self):
        manager = whole(self)
        manager.__enter__()
        raise KeyboardInterrupt

    monkeypatch.setattr(session.Channel, "_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        carry(Work([], {}, ["out"]))
    assert not ready.jobs()
    assert not [line for line in heard if "can't be reached" in line]


def test_an_interruption_before_the_device_has_answered_ends_it_too(ready, verb, monkeypatch):
    """The answer to the start, with the job's name in it, is not waited for."""
    verb("import time; time.sleep(600)")
    real = session.Channel.answer
    numbers = []

    def tell(self, do, **details):
        number = known(self, do, **details)
        if do == "start":
            numbers.append(number)
        return number

    def answer(self, number):
        found = real(self, number)
        if number in numbers:
            raise KeyboardInterrupt
        return found

    known = session.Channel.tell
    monkeypatch.setattr(session.Channel, "tell", tell)
    monkeypatch.setattr(session.Channel, "answer", answer)
    with pytest.raises(KeyboardInterrupt):
        carry()
    assert numbers
    assert not ready.jobs()


def test_a_system_that_ends_all_of_a_users_processes_is_named(ready, verb):
    """As logind does with KillUserProcesses, or a restart that is over within the lease."""
    verb("import time; time.sleep(600)")

    def end() -> None:
        until(lambda: [line for line in ready.processes() if "-m kdeploy" in line])
        for entry in os.scandir("/proc"):
            if entry.name.isdigit() and f"{ready.kept}/job-" in command_line(entry.name):
                os.kill(int(entry.name), signal.SIGKILL)

    thread = at_the_same_time(end)
    with pytest.raises(Unavailable, match=r"ended by something else than kdeploy.*KillUserProcesses"):
        carry()
    thread.join()
    assert not ready.jobs()


def command_line(process: str) -> str:
    try:
        with open(f"/proc/{process}/cmdline") as stream:  # noqa: PTH123
            return stream.read()
    except OSError:
        return ""


def test_an_environment_whose_python_cannot_be_started_says_so(ready, verb):
    python = ready.kept / "venv" / "bin" / "python"
    python.unlink()
    python.write_text("no program")
    with carried_out(parse(TARGET), Work([])) as done:
        assert done.status == 127
        assert "python can't be started: Permission denied" in done.err


def test_of_a_flood_on_standard_error_the_end_comes_home(ready, verb):
    verb("import sys; sys.stderr.write('noise\\n' * 700_000); sys.exit('kdeploy: the end')")
    with carried_out(parse(TARGET), Work([])) as done:
        assert done.err.endswith("kdeploy: the end\n")
        assert len(done.err) <= 1 << 20


def test_letters_are_not_cut_in_two(ready, verb):
    text = "Grüße" * 1000
    verb(f"""
import os, time
for byte in {text!r}.encode() + b'\\n':
    os.write(2, bytes([byte]))
""")
    with carried_out(parse(TARGET), Work([])) as done:
        assert done.err.strip() == text


def test_while_one_measures_the_code_is_not_changed(ready, verb):
    verb("import time; time.sleep(600)")
    (mark,) = ready.kept.glob("venv/lib/python*/site-packages/kdeploy.sha256")
    main = threading.get_ident()

    def second() -> None:
        until(ready.jobs)
        mark.write_text("another version")
        with pytest.raises(Unavailable, match="busy with another measurement"):
            carry()
        assert mark.read_text() == "another version"
        signal.pthread_kill(main, signal.SIGINT)

    thread = at_the_same_time(second)
    with pytest.raises(KeyboardInterrupt):
        carry()
    thread.join()


@pytest.mark.parametrize("lease", ["no number", "0", "-1", "1e9", "nan"])
def test_a_lease_that_is_none(ready, monkeypatch, lease):
    monkeypatch.setenv("KDEPLOY_LEASE_S", lease)
    with pytest.raises(UserError, match="must be a number of seconds"):
        carry()


@pytest.fixture
def small_disk(ready) -> Iterator[Path]:
    """The device's folder on a disk of 16 MiB besides what is there; only root can make one."""
    used = sum(path.lstat().st_size for path in ready.kept.rglob("*"))
    moved = ready.folder / "moved"
    ready.kept.rename(moved)
    ready.kept.mkdir()
    size = f"size={used * 2 + (16 << 20)}"
    mount = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(ready.kept)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no disk can be made here")
    shutil.copytree(moved, ready.kept, symlinks=True, dirs_exist_ok=True)
    yield ready.kept
    until(lambda: not ready.processes())
    subprocess.run(["umount", "-l", str(ready.kept)], check=True)


def test_a_file_that_the_device_has_no_room_for(ready, small_disk, tmp_path):
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(1 << 28)
    with pytest.raises(UserError, match=r"No space left on device in .*\.kdeploy-target .*Make room there"):
        carry(Work(["--version"], {"large": tmp_path / "large"}))
    assert not [path for path in (small_disk / "files").iterdir() if path.name.startswith(".")]


def test_a_run_that_fills_the_disk(ready, small_disk):
    """Neither its status nor its words find room."""
    (package,) = ready.kept.glob("venv/lib/python*/site-packages/kdeploy")
    (package / "__main__.py").write_text("""
with open('fills', 'wb') as stream:
    try:
        while True:
            stream.write(bytes(1 << 16))
            stream.flush()
    except OSError:
        raise SystemExit('kdeploy: no room.' * 10_000)
""")
    with pytest.raises(UserError, match="its disk is full"):
        carry()
    assert not ready.jobs()
