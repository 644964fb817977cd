"""torchvision's and timm's networks, and torchvision beside a torch that it was not compiled for."""

import subprocess
import sys
import textwrap
import urllib.error

import pytest
import torch

from kdeploy import events, models
from kdeploy.errors import Unavailable, UserError
from kdeploy.recipe.schema import NetworkSpec
from kdeploy.torchvision_compat import import_torchvision


def run(code: str) -> None:
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_torchvision_works_whatever_torch_it_was_compiled_for():
    run("""
        import sys
        from kdeploy.torchvision_compat import import_torchvision
        assert "torch" not in sys.modules
        torchvision = import_torchvision()
        import torch
        from torchvision import datasets
        from torchvision.transforms import v2
        assert import_torchvision() is torchvision is sys.modules["torchvision"]
        assert v2.functional.horizontal_flip(torch.tensor([[1, 2]])).tolist() == [[2, 1]]
        assert torchvision.models.resnet18(num_classes=3).fc.out_features == 3
    """)


def test_where_the_operators_are_missing_both_schemas_are_declared_once():
    run("""
        import importlib, sys
        import torch
        from kdeploy import torchvision_compat
        try:
            import torchvision
            fits = True
        except RuntimeError:
            fits = False
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            if not fits:
                del sys.modules[name]
        torchvision_compat.import_torchvision()
        torchvision_compat.import_torchvision()
        assert len(torchvision_compat._declared) == (0 if fits else 1)
        torch.ops.torchvision.nms, torch.ops.torchvision.qnms
    """)


def test_another_failure_of_the_import_passes_through(monkeypatch: pytest.MonkeyPatch):
    def broken(name: str) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(RuntimeError, match="something else"):
        import_torchvision()


@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_a_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch, package: str):
    import_torchvision()
    monkeypatch.setitem(sys.modules, package, None)
    extra = {"torchvision": "train", "timm": "timm"}[package]
    with pytest.raises(Unavailable, match=rf"pip install 'kdeploy\[{extra}\]'"):
        models.check(f"{package}:resnet18")


def test_a_torchvision_network_is_built_for_the_classes():
    network = models.create(NetworkSpec(model="torchvision:mnasnet0_5", options={"dropout": 0.1}), classes=7).eval()
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


def test_torchvision_s_limits_are_told():
    with pytest.raises(UserError, match="takes 3 channels, and these images have 1"):
        models.create(NetworkSpec(model="torchvision:resnet18"), classes=7, channels=1)
    with pytest.raises(UserError, match=r"does not take the options {'depth': 9}"):
        models.create(NetworkSpec(model="torchvision:resnet18", options={"depth": 9}), classes=7)
    with pytest.raises(UserError, match=r"no weights 'IMAGENET1K_V7'\. Did you mean 'IMAGENET1K_V1'"):
        models.create(NetworkSpec(model="torchvision:resnet18", options={"weights": "IMAGENET1K_V7"}), classes=7)


def test_published_weights_offline_are_a_user_error(monkeypatch: pytest.MonkeyPatch):
    def offline(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(UserError, match=r"could not be downloaded .*name a local file as checkpoint"):
        models.create(NetworkSpec(model="torchvision:mnasnet0_5", options={"pretrained": True}), classes=7)


def test_published_weights_come_with_a_new_head(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    torch.manual_seed(1)
    published = import_torchvision().models.mnasnet0_5(num_classes=1000).state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *args, **kwargs: published)
    spec = NetworkSpec(model="torchvision:mnasnet0_5", options={"pretrained": True})
    with caplog.at_level("DEBUG", logger=events._logger.name):
        state = models.create(spec, classes=7).state_dict()
    anew = [key for key in state if state[key].shape != published[key].shape]
    assert anew == ["classifier.1.weight", "classifier.1.bias"]
    assert all(torch.equal(state[key], published[key]) for key in state if key not in anew)
    assert "classifier.1.weight, classifier.1.bias" in caplog.text


class TestTimm:
    @pytest.fixture(autouse=True)
    def _timm(self) -> None:
        import_torchvision()
        pytest.importorskip("timm")

    def test_a_network_is_built_for_classes_and_channels(self):
        network = models.create(NetworkSpec(model="timm:resnet10t"), classes=7, channels=1).eval()
        assert network(torch.zeros(1, 1, 32, 32)).shape == (1, 7)

    def test_an_unknown_name_or_option_is_told(self):
        with pytest.raises(UserError, match=r"timm has no network 'resnet10tt'\. Did you mean 'resnet10t'"):
            models.check("timm:resnet10tt")
        with pytest.raises(UserError, match=r"does not take the options {'no_such': 1}"):
            models.create(NetworkSpec(model="timm:resnet10t", options={"no_such": 1}), classes=7)

    def test_published_weights_offline_are_a_user_error(self, monkeypatch: pytest.MonkeyPatch):
        def offline(*args: object, **kwargs: object) -> None:
            raise ConnectionError("Name or service not known")

        monkeypatch.setattr("timm.models._builder.load_pretrained", offline)
        with pytest.raises(UserError, match=r"timm:resnet10t could not be had \(ConnectionError"):
            models.create(NetworkSpec(model="timm:resnet10t", options={"pretrained": True}), classes=7)
