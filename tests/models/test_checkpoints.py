"""Other people's weights: read without running code, and every way in which they can be wrong."""

import io
import os
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from kdeploy import models
from kdeploy.artifacts import sha256_file
from kdeploy.errors import UserError
from kdeploy.models.checkpoints import load_into, read_weights
from kdeploy.models.classifier import Classifier
from kdeploy.recipe.schema import NetworkSpec, RenameSpec

AKAMASTER = (RenameSpec(pattern=r"^module\.", replace=""), RenameSpec(pattern=r"^linear\.", replace="fc."))
TINY = NetworkSpec(model="resnet8", width=0.125)


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    return models.create(TINY, classes=3).state_dict()


def spec(path: Path, **changes: object) -> NetworkSpec:
    return NetworkSpec(model="resnet8", width=0.125, checkpoint=str(path), **changes)


@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"state_dict": w, "epoch": 3}, lambda w: {"model": w}])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_torch_file_is_read_bare_or_wrapped(tmp_path: Path, weights, wrap, legacy: bool):
    torch.save(wrap(weights), tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    read = read_weights(tmp_path / "w.pt")
    assert list(read) == list(weights)
    assert all(torch.equal(read[key], weights[key]) for key in weights)


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin"])
def test_safetensors_is_read_by_any_name(tmp_path: Path, weights, name: str):
    save_file(weights, tmp_path / name)
    assert torch.equal(read_weights(tmp_path / name)["fc.weight"], weights["fc.weight"])


class RunsCode:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, legacy: bool):
    path, witness = tmp_path / "evil.pt", tmp_path / "witness"
    torch.save({"state_dict": RunsCode(witness)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError, match=r"refused: it asks Python for \w+\.mkdir, and loading that could run any code"):
        read_weights(path)
    assert not witness.exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # torch's, where the flipped byte is the protocol
@pytest.mark.parametrize("legacy", [False, True])
def test_a_flipped_byte_never_gives_anything_but_weights_or_a_user_error(tmp_path: Path, legacy: bool):
    path = tmp_path / "w.pt"
    torch.save({"state_dict": {"fc.weight": torch.ones(2, 3)}}, path, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    refused = 0
    for position in np.random.default_rng(0).integers(0, len(whole), 100):
        broken = bytearray(whole)
        broken[position] ^= 0xFF
        path.write_bytes(broken)
        try:
            assert all(isinstance(value, torch.Tensor) for value in read_weights(path).values())
        except UserError:
            refused += 1
    assert refused > 10


def test_a_plain_pickle_with_code_is_refused(tmp_path: Path):
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(RunsCode(tmp_path / "witness"), protocol=2))
    with pytest.raises(UserError):
        read_weights(tmp_path / "evil.pkl")
    assert not (tmp_path / "witness").exists()


def test_a_whole_pickled_network_is_refused(tmp_path: Path):
    torch.save(nn.Linear(2, 2), tmp_path / "network.pt")
    with pytest.raises(UserError, match=r"asks Python for torch\.nn\.modules\.linear\.Linear"):
        read_weights(tmp_path / "network.pt")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.999])
def test_a_truncated_file_is_a_user_error(tmp_path: Path, weights, kind: str, share: float):
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt")
    if kind == "safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match=r"w\.(pt|safetensors)"):
        read_weights(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"just some text, not a checkpoint", "not a checkpoint|damaged"),
        (b"PK\x03\x04 and then nothing of a zip", "cut off"),
        (b"\xff" * 400, "not a checkpoint|damaged"),
    ],
)
def test_a_foreign_file_is_named(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_weights(tmp_path / "w.pt")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"There is no checkpoint .*none\.pt"):
        read_weights(tmp_path / "none.pt")
    with pytest.raises(UserError, match="is a folder"):
        read_weights(tmp_path)


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], {}, torch.zeros(3)])
def test_a_file_without_a_state_dict_is_named(tmp_path: Path, content: object):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(UserError, match="holds no state dict"):
        read_weights(tmp_path / "w.pt")


def test_a_relative_checkpoint_counts_from_the_base_and_its_hash_is_checked(tmp_path: Path, weights):
    save_file(weights, tmp_path / "w.safetensors")
    right = sha256_file(tmp_path / "w.safetensors")
    network = models.create(TINY, classes=3)
    load_into(network, spec(Path("w.safetensors"), sha256=right), base=tmp_path)
    assert torch.equal(network.state_dict()["fc.weight"], weights["fc.weight"])
    with pytest.raises(UserError, match=rf"has SHA-256 {right}, and the recipe asks for {'0' * 64}"):
        load_into(network, spec(Path("w.safetensors"), sha256="0" * 64), base=tmp_path)


def test_wrong_keys_are_named_with_the_rules_that_would_help(tmp_path: Path, weights):
    path = tmp_path / "w.safetensors"
    renamed = {"module." + key.replace("fc.", "linear."): value for key, value in weights.items()}
    save_file(renamed, path)
    network = models.create(TINY, classes=3)
    with pytest.raises(UserError, match=r"missing: conv1\.weight, .* more; unexpected: module\.") as caught:
        load_into(network, spec(path), base=tmp_path)
    rules = re.findall(r"pattern: '(.+?)', replace: '(.*?)'", str(caught.value))
    told = tuple(RenameSpec(pattern=pattern, replace=replace) for pattern, replace in rules)
    assert told == AKAMASTER
    load_into(network, spec(path, rename=told), base=tmp_path)
    assert torch.equal(network.state_dict()["fc.bias"], weights["fc.bias"])


def test_other_shapes_are_named_and_the_network_is_left_alone(tmp_path: Path, weights):
    path = tmp_path / "w.safetensors"
    save_file(weights, path)
    network = models.create(TINY, classes=5)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(UserError, match=r"of another shape: fc\.weight \(is \(3, 8\), wants \(5, 8\)\), fc\.bias"):
        load_into(network, spec(path), base=tmp_path)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_files_from_before_num_batches_tracked_load(tmp_path: Path, weights):
    path = tmp_path / "w.safetensors"
    save_file({key: value for key, value in weights.items() if not key.endswith("num_batches_tracked")}, path)
    load_into(models.create(TINY, classes=3), spec(path), base=tmp_path)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (RenameSpec(pattern="(", replace=""), "no valid rule"),
        (RenameSpec(pattern="^fc", replace=r"\2"), "no valid rule"),
        (RenameSpec(pattern="^.*$", replace="same"), "one key 'same' of 'conv1.weight' and 'bn1.weight'"),
    ],
)
def test_a_broken_rule_is_named(tmp_path: Path, weights, rule: RenameSpec, message: str):
    torch.save(weights, tmp_path / "w.pt")
    with pytest.raises(UserError, match=re.escape(message)):
        load_into(models.create(TINY, classes=3), spec(tmp_path / "w.pt", rename=(rule,)), base=tmp_path)


@pytest.fixture
def shared() -> Path:
    if "KDEPLOY_SHARED" not in os.environ:
        pytest.skip("KDEPLOY_SHARED does not say where the shared data are")
    return Path(os.environ["KDEPLOY_SHARED"])


def test_somebody_else_s_resnet20_knows_cifar10(shared: Path):
    theirs = NetworkSpec(
        model="resnet20",
        options={"shortcut": "A"},
        checkpoint="models/cifar10-akamaster/resnet20-12fca82f.th",
        rename=AKAMASTER,
    )
    network = models.create(theirs, classes=10)
    load_into(network, theirs, base=shared)
    classifier = Classifier(network, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)).eval()
    images, labels = _cifar_test(shared / "data/cifar10-jpeg/test.zip", per_class=50)
    with torch.no_grad():
        right = (classifier(images).argmax(1) == labels).float().mean().item()
    assert right > 0.7


def _cifar_test(path: Path, per_class: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`[N, 3, 32, 32]` in [0, 1] and `[N]`, classes numbered in the order of the folders' names."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        folders = sorted({name.split("/")[-2] for name in names})
        picked = [name for folder in folders for name in [n for n in names if f"/{folder}/" in n][:per_class]]
        images = [np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in picked]
    labels = [folders.index(name.split("/")[-2]) for name in picked]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255, torch.tensor(labels)
