"""Images for real, built by Buildah from a base that debootstrap makes and from wheels: neither needs a registry."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.cli.answer import in_a_process, short
from tests.devices.debian import CannotEmulate, compile_python, emulate, make_root, need_programs, need_root
from tests.images.buildah import Store, download


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """An empty store of images; the tests that want one are skipped where nothing can be built."""
    try:
        need_root()
        need_programs("buildah", "debootstrap", "dpkg-deb", "unshare")
    except CannotEmulate as error:
        _without(error)
    store = Store(tmp_path_factory.mktemp("images") / "store")
    yield store
    store.remove()


@pytest.fixture(scope="session")
def edge(store: Store, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image that docker/edge-arm64.Dockerfile makes."""
    try:
        emulate("arm64")
    except CannotEmulate as error:
        _without(error)
    return _built(store, tmp_path_factory.mktemp("edge"), "edge-arm64.Dockerfile", "arm64")


@pytest.fixture(scope="session")
def train(store: Store, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image that docker/train.Dockerfile makes, with a PyTorch for the processor if the index has one."""
    return _built(store, tmp_path_factory.mktemp("train"), "train.Dockerfile", "amd64", "[train]")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short quickstart's folder, made here and not in an image; whoever has the images' number may write in it."""
    folder = tmp_path_factory.mktemp("run")
    answer = in_a_process(["run", "quickstart", *short()], folder)
    assert answer.status == 0, answer.err
    os.chown(folder, 1000, 1000)
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """An empty folder of the images' user."""
    folder = tmp_path / "work"
    folder.mkdir()
    os.chown(folder, 1000, 1000)
    return folder


def _without(error: CannotEmulate) -> NoReturn:
    if os.environ.get("KDEPLOY_REQUIRE_IMAGES") == "1":
        pytest.fail(f"No images: {error}", pytrace=False)
    pytest.skip(f"no images: {error}")


def _built(store: Store, folder: Path, dockerfile: str, architecture: str, extra: str = "") -> str:
    base, image = (f"localhost/{name}:{architecture}" for name in ("base", dockerfile.removesuffix(".Dockerfile")))
    make_root(folder / "root", architecture, ("python3", "python3-venv"))
    compile_python(folder / "root")
    store.import_root(folder / "root", architecture, base)
    shutil.rmtree(folder / "root")
    download(folder / "wheels", architecture, extra)
    store.build(dockerfile, architecture, base, folder / "wheels", image)
    shutil.rmtree(folder / "wheels")
    return image
