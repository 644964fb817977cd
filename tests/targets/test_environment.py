"""What a device must be, and how its environment is made; its package index is a folder."""

import json
import signal
import socket
import threading
import zipfile
from pathlib import Path

import pytest

from kdeploy.errors import Unavailable, UserError
from kdeploy.targets import environment, parse
from kdeploy.targets.channel import connected
from kdeploy.targets.kinds.container import Container
from tests.targets.loopback import TARGET, Loopback, old_python, until

GOOD = {
    "architecture": "aarch64",
    "bits": 64,
    "python": [3, 11, 2],
    "libc": "2.36",
    "folder": "/home/pi/.kdeploy-target",
    "in_home": True,
    "busy_s": None,
    "environment": True,
    "tensorrt": False,
    "state": {},
    "free_bytes": 1 << 30,
}


class Device:
    """A channel to a device that only says what it is."""

    def __init__(self, **different):
        self.found = GOOD | different

    def ask(self, do, **details):
        assert do == "hello", "more was asked of a device that is not fit"
        return self.found


def refused(function, different: dict, *arguments, **options) -> str:
    with pytest.raises((UserError, Unavailable)) as error:
        function(Device(**different), parse(TARGET), *arguments, **options)
    return str(error.value)


@pytest.mark.parametrize(
    ("different", "said"),
    [
        ({"architecture": "armv7l"}, "is a armv7l: kdeploy works on 64-bit Arm (aarch64) and x86-64. A 64-bit board"),
        ({"bits": 32}, "has a 32-bit Python: kdeploy needs a 64-bit system there"),
        ({"python": [3, 9, 2]}, "has Python 3.9.2: kdeploy needs 3.10 or newer there"),
    ],
)
def test_a_device_that_kdeploy_cannot_work_on(different, said):
    assert said in refused(environment.greet, different)


@pytest.mark.parametrize("version", [(3, 6, 9), (3, 9, 2)])
def test_a_real_device_with_too_old_a_python_says_so(tmp_path, monkeypatch, version):
    device = Loopback(tmp_path / "device", old_python(tmp_path, version))
    monkeypatch.setenv("KDEPLOY_SSH", str(device.ssh))
    with (
        connected(parse(TARGET)) as channel,
        pytest.raises(UserError, match=f"has Python {'.'.join(map(str, version))}: kdeploy needs 3.10"),
    ):
        environment.require(channel, parse(TARGET))


@pytest.mark.parametrize(
    ("different", "said"),
    [
        ({"environment": False}, f"no environment for kdeploy yet. Type: kdeploy target setup {TARGET}"),
        ({}, f"no environment for kdeploy yet. Type: kdeploy target setup {TARGET}"),
        ({"state": {"requirements": ["numpy>=1"]}}, f"another version of kdeploy. Type: kdeploy target setup {TARGET}"),
        ({"busy_s": 12.3}, "busy with another measurement for 12 s"),
    ],
)
def test_an_environment_that_is_not_ready(different, said):
    assert said in refused(environment.require, different)


@pytest.mark.parametrize(
    ("different", "extras", "said"),
    [
        ({"free_bytes": 500 << 20}, (), "has 500 MiB free in /home/pi/.kdeploy-target, and an environment needs 700"),
        ({"busy_s": 3.0}, (), "busy with another measurement"),
        ({"libc": ""}, (), "has another C library than GNU's, as Alpine Linux has"),
        ({}, ("opnvino",), "kdeploy has no extra 'opnvino'"),
        ({"architecture": "riscv64"}, (), "is a riscv64"),
    ],
)
def test_nothing_is_touched_on_a_device_that_cannot_be_set_up(different, extras, said):
    assert said in refused(environment.set_up, different, frozenset(extras), carry=False)


def test_an_image_is_not_set_up():
    with pytest.raises(UserError, match="is an image, which brings its own kdeploy"):
        environment.set_up(Device(), Container("container:edge", "edge", None), frozenset(), carry=False)


def test_the_extras_that_are_there_stay_in_what_to_type():
    found = GOOD | {"state": {"extras": ["openvino", "tensorrt"]}}
    assert environment.setup_command(found, parse(TARGET)) == (
        f"kdeploy target setup {TARGET} --extra openvino --extra tensorrt"
    )


# A device with an index of packages


def tiny_wheel(folder: Path) -> Path:
    """A package of one line."""
    folder.mkdir(exist_ok=True)
    about = "tiny-1.0.dist-info"
    content = {
        "tiny.py": "there = True\n",
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    content[f"{about}/RECORD"] = "".join(f"{name},,\n" for name in [*content, f"{about}/RECORD"])
    path = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in content.items():
            archive.writestr(name, text)
    return path


def index(device: Loopback, folder: Path) -> None:
    """Where the device's pip looks."""
    (device.home / ".config" / "pip").mkdir(parents=True)
    (device.home / ".config" / "pip" / "pip.conf").write_text(f"[global]\nno-index = true\nfind-links = {folder}\n")


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> Path:
    """A folder with the one package that kdeploy needs here; neither side has another index."""
    wheel = tiny_wheel(tmp_path / "wheels")
    monkeypatch.setattr(environment, "requirements", lambda extras=frozenset(): ["tiny==1.0"])
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    return wheel.parent


def set_up(*, carry: bool = False) -> str:
    with connected(parse(TARGET)) as channel:
        return environment.set_up(channel, parse(TARGET), frozenset(), carry=carry)


def state(device: Loopback) -> dict:
    return json.loads((device.kept / "state.json").read_text())


def test_packages_come_from_the_index_there(loopback, tiny):
    index(loopback, tiny)
    assert set_up() == "index"
    assert state(loopback) == {"requirements": ["tiny==1.0"], "extras": [], "packages": "index"}
    (packages,) = loopback.kept.glob("venv/lib/python*/site-packages")
    assert (packages / "tiny.py").is_file()
    assert (packages / "kdeploy" / "__main__.py").is_file()
    assert sorted(path.name for path in loopback.kept.iterdir()) == ["files", "state.json", "venv"]
    assert not [name for name in (".cache", ".local") if (loopback.home / name).exists()], "a pip's cache, say"


def test_the_same_version_is_required_afterwards(loopback, tiny, monkeypatch):
    index(loopback, tiny)
    set_up()
    with connected(parse(TARGET)) as channel:
        environment.require(channel, parse(TARGET))
    monkeypatch.setattr(environment, "requirements", lambda extras=frozenset(): ["tiny==2.0"])
    with connected(parse(TARGET)) as channel, pytest.raises(Unavailable, match="made for another version"):
        environment.require(channel, parse(TARGET))


@pytest.mark.parametrize("carry", [False, True])
def test_wheels_are_carried_along_where_there_is_no_index(loopback, tiny, tmp_path, carry):
    (tmp_path / "nothing").mkdir()
    index(loopback, tiny if carry else tmp_path / "nothing")
    assert set_up(carry=carry) == "carried"
    assert state(loopback)["packages"] == "carried"
    assert list(loopback.kept.glob("venv/lib/python*/site-packages/tiny.py"))
    names = [zipfile.ZipFile(path).namelist() for path in (loopback.kept / "files").iterdir()]
    assert not [content for content in names if "tiny.py" in content], "they take room, and are of no more use"


def test_packages_that_are_nowhere(loopback, tiny, tmp_path):
    (tiny / "tiny-1.0-py3-none-any.whl").unlink()
    index(loopback, tiny)
    with pytest.raises(Unavailable, match=r"wheels for Python 3\.\d+ on \w+ .*can't be downloaded here either: .*tiny"):
        set_up()
    assert state(loopback) == {}
    with connected(parse(TARGET)) as channel, pytest.raises(Unavailable, match="no environment for kdeploy yet"):
        environment.require(channel, parse(TARGET))


def test_wheels_that_cannot_be_installed_there_are_not_kept(loopback, tiny):
    index(loopback, tiny)
    with (loopback.home / ".config" / "pip" / "pip.conf").open("a") as more:
        more.write("[install]\nrequire-hashes = true\n")
    with pytest.raises(Unavailable, match="pip could not install there: Hashes are required"):
        set_up(carry=True)
    assert state(loopback) == {}
    assert len(list((loopback.kept / "files").iterdir())) == 1, "pip's own"


def test_an_interruption_ends_the_pip_there(loopback, tiny):
    """Its index takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        (loopback.home / ".config" / "pip").mkdir(parents=True)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        (loopback.home / ".config" / "pip" / "pip.conf").write_text(f"[global]\nindex-url = {url}\n")
        main = threading.get_ident()

        def interrupt() -> None:
            with silent.accept()[0]:
                signal.pthread_kill(main, signal.SIGINT)
                until(lambda: not loopback.processes(), 5)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            set_up()
        thread.join()
        until(lambda: not loopback.processes(), 5)
        assert sorted(path.name for path in loopback.kept.iterdir()) == ["files", "state.json", "venv"]


def test_a_system_without_venv(loopback, tiny):
    """As Debian's, where that part is a package of its own."""
    hides = loopback.folder / "without"
    hides.mkdir()
    (hides / "venv.py").write_text("raise SystemExit('python3: No module named venv')")
    script = loopback.ssh.read_text().replace("env -i ", f"env -i PYTHONPATH={hides} ")
    loopback.ssh.write_text(script)
    with pytest.raises(Unavailable, match=r"No module named venv.* Type there: sudo apt install python3-venv"):
        set_up()


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (
            "Looking in links: x\nERROR: Could not find a version\nERROR: No matching distribution",
            "Could not find a version",
        ),
        (
            "WARNING: Retrying after connection broken by 'x'\nERROR: No matching",
            "Retrying after connection broken by 'x'",
        ),
        (
            "Collecting numpy\nERROR: THESE PACKAGES DO NOT MATCH THE HASHES\nx",
            "THESE PACKAGES DO NOT MATCH THE HASHES",
        ),
        ("Collecting numpy\n  Traceback\nOSError: broken\n\n[notice] A new release of pip", "OSError: broken"),
        ("", "it said nothing"),
    ],
)
def test_what_pip_complains_of(said, found):
    assert environment._complaint(said) == found


def test_the_wheels_fit_the_c_library(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(environment, "_run_pip", lambda arguments, what: asked.append((arguments, what)))
    environment._downloaded(tmp_path, GOOD | {"libc": "2.27", "python": [3, 10, 4]}, ["numpy"])
    ((arguments, what),) = asked
    assert "manylinux_2_27_aarch64" in arguments
    assert "manylinux_2_28_aarch64" not in arguments
    assert what == "wheels for Python 3.10 on aarch64 with the C library 2.27"
