"""`kdeploy bench --target container:IMAGE`: the same verb in a container, here of the image for boards."""

from pathlib import Path

import pytest

from tests.cli.answer import in_a_process
from tests.images.buildah import Store

pytestmark = pytest.mark.images
BUNDLE = "runs/quickstart/quickstart.kdz"


@pytest.fixture
def settings(store: Store, tmp_path: Path) -> dict[str, str]:
    """The environment in which Buildah, started by kdeploy, finds the tests' own store."""
    configuration = tmp_path / "storage.conf"
    configuration.write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{store.folder / "root"}"\nrunroot = "{store.folder / "run"}"\n'
    )
    return {
        "CONTAINERS_STORAGE_CONF": str(configuration),
        "BUILDAH_ISOLATION": "chroot",
        "KDEPLOY_CONTAINER": "buildah",
    }


def test_a_bundle_is_measured_in_a_container(edge: str, run: Path, settings: dict[str, str]) -> None:
    target = f"container:{edge}@linux/arm64"
    here = in_a_process(["bench", BUNDLE, "--quick", "--json", "-"], run).json["measurements"][0]
    done = in_a_process(["bench", BUNDLE, "--target", target, "--json", "-"], run, **settings)
    assert done.status == 0, done.err
    (found,) = done.json["measurements"]
    assert found["machine"]["architecture"] == "aarch64"
    assert found["emulated"]
    assert found["latency"] == []
    assert found["size_bytes"] == here["size_bytes"]
    assert found["accuracy"]["predictions"] == here["accuracy"]["predictions"]


def test_an_image_without_kdeploy_says_so(edge: str, run: Path, settings: dict[str, str]) -> None:
    done = in_a_process(["bench", BUNDLE, "--target", "container:localhost/base:arm64@linux/arm64"], run, **settings)
    assert done.status == 5
    assert "its python3 has no kdeploy" in done.said


def test_an_image_that_there_is_not_is_said_in_a_sentence(store: Store, run: Path, settings: dict[str, str]) -> None:
    done = in_a_process(["bench", BUNDLE, "--target", "container:localhost/nothing"], run, **settings)
    assert done.status == 5
    assert "can't start from this image" in done.said
