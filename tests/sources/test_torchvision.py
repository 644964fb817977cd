import gzip
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from kdeploy import sources
from kdeploy.errors import Unavailable, UserError
from kdeploy.recipe.schema import DataSpec
from tests.sources.conftest import idx, random_pixels

compat = pytest.importorskip("kdeploy.torchvision_compat", reason="torchvision is not installed")


class Items:
    """A data set that gives its items one by one, like torchvision's FakeData."""

    def __init__(self, size: int = 6, shift: int = 0) -> None:
        self.size, self.shift = size, shift

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, number: int) -> tuple[Image.Image, int]:
        return Image.fromarray(random_pixels(5, 5, 3, seed=number + self.shift)), number % 2


class Strings(Items):
    def __getitem__(self, number: int) -> tuple[Image.Image, str]:  # type: ignore[override]
        return super().__getitem__(number)[0], "a caption"


class Street:
    """SVHN's manner: split=, `[N, C, H, W]`, labels."""

    classes = ("one", "two")

    def __init__(self, root: str, split: str = "train", download: bool = False) -> None:
        if split not in ("train", "val"):
            raise ValueError(f"Unknown value {split!r} for argument split.")
        self.data = random_pixels(8, 3, 4, 5, seed=split == "val")
        self.labels = np.arange(8) % 2


class Remote:
    """A set that has to be downloaded."""

    network = False

    def __init__(self, root: str, train: bool = True, download: bool = False) -> None:
        if not download and not (Path(root) / "here").exists():
            raise RuntimeError("Dataset not found.\nYou can use download=True to download it")
        if download and not Remote.network:
            raise OSError("<urlopen error [Errno -2] Name or service not known>")
        (Path(root) / "here").touch()
        self.data, self.targets = random_pixels(8, 4, 4), [n % 2 for n in range(8)]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for torchvision with sets of each manner."""
    sets = {"Items": Items, "Strings": Strings, "Street": Street, "Remote": Remote}
    datasets = SimpleNamespace(__all__=(*sets, "wrap_dataset"), wrap_dataset=len, **sets)
    monkeypatch.setattr(compat, "import_torchvision", lambda: SimpleNamespace(datasets=datasets))


def load(name: str, root: Path, **more: object) -> sources.Splits:
    spec = {"source": f"torchvision:{name}", "root": str(root), "validation": 0.25, **more}
    return sources.load(DataSpec.model_validate(spec), base=Path())


@pytest.mark.usefixtures("fake")
def test_items_are_read_one_by_one(tmp_path: Path) -> None:
    splits = load("Items", tmp_path, options={"size": 20, "shift": 5})
    assert splits.shape == (5, 5, 3)
    assert splits.classes == ("0", "1")
    whole = {random_pixels(5, 5, 3, seed=n + 5).tobytes(): n % 2 for n in range(20)}
    for part in (splits.train, splits.validation, splits.test):
        assert [whole.pop(image.tobytes()) for image in part.images] == part.labels.tolist()
    assert not whole


@pytest.mark.usefixtures("fake")
def test_channels_first_arrays_and_another_name_of_the_test_split(tmp_path: Path) -> None:
    splits = load("Street", tmp_path)
    assert splits.classes == ("one", "two")
    assert np.array_equal(splits.test.images, random_pixels(8, 3, 4, 5, seed=1).transpose(0, 2, 3, 1))


@pytest.mark.usefixtures("fake")
def test_a_set_that_is_there_is_not_downloaded(tmp_path: Path) -> None:
    (tmp_path / "here").touch()
    assert load("Remote", tmp_path, download=False).shape == (4, 4, 1)


@pytest.mark.usefixtures("fake")
def test_download_where_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Remote, "network", True)
    assert len(load("Remote", tmp_path / "new").test) == 8


@pytest.mark.usefixtures("fake")
def test_a_download_that_fails_says_where_files_go(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"Name or service not known.*by hand") as caught:
        load("Remote", tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.usefixtures("fake")
def test_a_set_that_is_absent_and_may_not_be_downloaded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\(Dataset not found\); set data\.download: true or put its files"):
        load("Remote", tmp_path, download=False)


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Itens", {}, "no data set 'Itens'. Did you mean 'Items'"),
        ("wrap_dataset", {}, "no data set 'wrap_dataset'"),
        ("Items", {"sice": 3}, "takes no 'sice'. Did you mean 'size'"),
        ("Street", {"split": "extra"}, "takes no 'split'"),
        ("Strings", {}, "not a set of images with one class each"),
    ],
)
def test_wrong_names_are_answered(tmp_path: Path, name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(name, tmp_path, options=options)


def test_the_real_mnist_reads_its_files(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 40), ("t10k", 10)):
        labels = np.arange(count, dtype=np.uint8) % 10
        for name, content in (("images-idx3", random_pixels(count, 28, 28)), ("labels-idx1", labels)):
            (raw / f"{part}-{name}-ubyte").write_bytes(idx(content))
            (raw / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(idx(content)))
    splits = load("MNIST", tmp_path, download=False)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [30, 10, 10]
    assert splits.classes[3] == "3 - three"
    assert np.array_equal(splits.test.images[..., 0], random_pixels(10, 28, 28))


def test_the_real_fake_data(tmp_path: Path) -> None:
    options = {"size": 60, "image_size": [3, 16, 12], "num_classes": 3}
    splits = load("FakeData", tmp_path, options=options)
    assert splits.shape == (16, 12, 3)
    assert len(splits.classes) == 3


def test_the_real_cifar10_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Dataset not found or corrupted"):
        load("CIFAR10", tmp_path, download=False)


class Checked:
    """CIFAR's manner: the constructor looks into every file that the set lists."""

    train_list = ("data_batch",)
    test_list = ("test_batch",)
    asked: tuple[bool, ...] = ()

    def __init__(self, root: str, train: bool = True, download: bool = False) -> None:
        if not all((Path(root) / name).exists() for name in (*self.train_list, *self.test_list)):
            raise RuntimeError("Dataset not found or corrupted.")
        Checked.asked = (*Checked.asked, train)
        self.data, self.targets = random_pixels(4, 4, 4), [0, 1, 0, 1]


@pytest.mark.usefixtures("fake")
def test_the_test_set_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = compat.import_torchvision().datasets
    monkeypatch.setattr(compat, "import_torchvision", lambda: SimpleNamespace(datasets=datasets))
    datasets.Checked, datasets.__all__ = Checked, (*datasets.__all__, "Checked")
    (tmp_path / "test_batch").touch()
    spec = DataSpec.model_validate({"source": "torchvision:Checked", "root": str(tmp_path), "download": False})
    splits = sources.load(spec, base=Path(), training_images=False)
    assert (len(splits.train), len(splits.test)) == (0, 4)
    assert Checked.asked == (False,)
    spec = DataSpec.model_validate({"source": "torchvision:Items", "root": str(tmp_path)})
    with pytest.raises(UserError, match="has no test split of its own, and training images must not be opened"):
        sources.load(spec, base=Path(), training_images=False)
