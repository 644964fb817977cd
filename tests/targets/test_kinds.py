"""Targets as they are typed."""

import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from kdeploy import targets
from kdeploy.errors import Unavailable, UserError
from kdeploy.targets.kinds import container, ssh


def test_this_machine_is_no_other_target():
    assert targets.parse("local") is None


@pytest.mark.parametrize(
    ("text", "host", "user", "port", "name"),
    [
        ("ssh://pi@raspberrypi.local", "raspberrypi.local", "pi", None, "raspberrypi.local"),
        ("ssh://pi@192.168.1.7:2222", "192.168.1.7", "pi", 2222, "192.168.1.7-2222"),
        ("ssh://MyBoard", "MyBoard", None, None, "MyBoard"),
        ("ssh://MyBoard/", "MyBoard", None, None, "MyBoard"),
        ("ssh://pi@[fe80::1%eth0]:22", "fe80::1%eth0", "pi", 22, "fe80::1%eth0-22"),
        ("ssh://first.last%40example.org@host", "host", "first.last@example.org", None, "host"),
    ],
)
def test_a_device_over_ssh(text, host, user, port, name):
    found = targets.parse(text)
    assert isinstance(found, ssh.Ssh)
    assert (found.text, found.host, found.user, found.port, found.name) == (text, host, user, port, name)


def test_the_words_of_ssh(monkeypatch):
    monkeypatch.setenv("KDEPLOY_SSH", "ssh -F 'other config'")
    words = ssh.parse("ssh://pi@[::1]:2222")._command("print('a')")
    assert words[:3] == ["ssh", "-F", "other config"]
    assert words[words.index("--") + 1] == "::1"
    assert [words[words.index(option) + 1] for option in ("-p", "-l")] == ["2222", "pi"]
    assert not [word for word in words if "HostKeyChecking" in word or "KnownHosts" in word]


@pytest.mark.parametrize(
    "text",
    [
        "ssh://",
        "ssh:pi@host",
        "ssh://-oProxyCommand=touch",
        "ssh://-l@host",
        "ssh://pi@-host",
        "ssh://pi@..",
        "ssh://pi@host/folder",
        "ssh://pi@host?x",
        "ssh://pi@host:99999",
        "ssh://pi@host:0",
        "ssh://pi@host:ssh",
        "ssh://pi@ho st",
        "ssh://pi@host;reboot",
        "ssh://@host",
        "ssh://[::1",
    ],
)
def test_what_is_no_device(text):
    with pytest.raises(UserError, match="must be written ssh://USER@HOST"):
        targets.parse(text)


@pytest.mark.parametrize("text", ["ssh://pi:se:cret@host", "ssh://pi:secret@host/folder", "ssh://pi:secret@host:x"])
def test_a_password_is_refused_and_not_repeated(text):
    with pytest.raises(UserError, match=r"ssh://pi:\*\*\*@host.*leave it out, ssh asks for it") as refused:
        targets.parse(text)
    assert "cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "image", "platform", "name"),
    [
        ("container:edge", "edge", None, "edge"),
        ("container:localhost/kdeploy/edge-arm64:latest", "localhost/kdeploy/edge-arm64:latest", None, None),
        ("container:edge@linux/arm64", "edge", "linux/arm64", "edge"),
        ("container:edge@linux/arm/v7", "edge", "linux/arm/v7", "edge"),
        ("container:host:5000/edge@sha256:ab12@linux/arm64", "host:5000/edge@sha256:ab12", "linux/arm64", None),
        ("container:edge@sha256:ab12", "edge@sha256:ab12", None, "edge-sha256-ab12"),
    ],
)
def test_a_container(text, image, platform, name):
    found = targets.parse(text)
    assert isinstance(found, container.Container)
    assert (found.text, found.image, found.platform) == (text, image, platform)
    assert "/" not in found.name
    assert found.name == (name or found.name)


@pytest.mark.parametrize("text", ["container:", "container:--privileged", "container:a b"])
def test_what_is_no_image(text):
    with pytest.raises(UserError, match="must be written container:IMAGE"):
        targets.parse(text)


def test_a_container_tool_that_there_is_not(monkeypatch):
    monkeypatch.setenv("KDEPLOY_CONTAINER", "dokcer")
    with (
        pytest.raises(UserError, match="'dokcer': choose from docker, podman, buildah"),
        container.parse("container:edge").connect(),
    ):
        pass


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("shh://pi@host", "Did you mean 'ssh'"),
        ("containr:edge", "Did you mean 'container'"),
        ("pi@host", "A target is local, container:IMAGE"),
        ("", "'' is no target"),
    ],
)
def test_an_unknown_kind(text, said):
    with pytest.raises(UserError, match="is no target") as refused:
        targets.parse(text)
    assert said in str(refused.value)


@pytest.fixture
def tool(tmp_path, monkeypatch) -> Path:
    """A docker and a buildah that note what they are asked, and run the program in no container at all."""
    noted = tmp_path / "noted"
    for name in ("docker", "buildah"):
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(
            f'#!/bin/sh\necho {name} "$@" | head -n 1 >> {noted}\n'
            'case "$* " in *missing*) echo "image not known" >&2; exit 125;; esac\n'
            f'for last; do :; done\ncase "$1" in run) exec {sys.executable} -c "$last";; esac\n'
        )
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return noted


@pytest.mark.parametrize("name", ["docker", "buildah"])
def test_a_container_is_removed_however_it_ends(tool, monkeypatch, name):
    monkeypatch.setenv("KDEPLOY_CONTAINER", name)
    with suppress(KeyboardInterrupt), container.parse("container:edge").connect() as channel:
        assert channel.ask("hello", own=True)["architecture"]
        raise KeyboardInterrupt
    with pytest.raises(Unavailable, match="container:missing"), container.parse("container:missing").connect():
        pass
    lines = tool.read_text().splitlines()
    made = {word for line in lines for word in line.split() if word.startswith("kdeploy-") and " rm " not in line}
    removed = {line.split()[-1] for line in lines if " rm " in line}
    assert len(made) == 2
    assert removed == made
