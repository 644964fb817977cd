"""How methods are found: the folder's files, and what a user defines elsewhere."""

import pytest
import torch

import kdeploy.methods
from kdeploy.errors import UserError
from kdeploy.methods import Context, Method, Outputs
from tests.methods.golden import zs, zt


class LogitMSE(Method):
    """The mean squared difference of logits `[B, C]`, times `scale`: a method from outside the package."""

    paper = "none"
    year = 2026
    formula = "scale * mean (z_s - z_t)^2"

    def __init__(self, *, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def terms(
        self,
        student: Outputs,
        teacher: Outputs,
        target: torch.Tensor | None = None,
        context: Context | None = None,
    ) -> dict[str, torch.Tensor]:
        return {"mse": self.scale * (student.logits - teacher.logits.detach()).square().mean()}


OUTSIDE = f"python:{__name__}:LogitMSE"


def test_private_files_are_no_methods():
    names = kdeploy.methods.names()
    assert {"kd", "dkd", "dist", "nkd", "pkt", "rkd", "sp", "cc", "nst", "pefd"} <= set(names)
    assert not any(name.startswith(("-", "_")) or name in ("base", "init") for name in names)


def test_method_from_outside():
    method = kdeploy.methods.create(OUTSIDE, scale=2.0)
    torch.testing.assert_close(method(Outputs(zs), Outputs(zt)), 2 * (zs - zt).square().mean())
    assert kdeploy.methods.options(OUTSIDE) == {"scale": 1.0}


@pytest.mark.parametrize(
    ("name", "message"),
    [("dkdd", "Did you mean 'dkd'"), ("python:collections:OrderedDict", "is not a distillation method")],
)
def test_what_is_no_method(name, message):
    with pytest.raises(UserError, match=message):
        kdeploy.methods.find(name)


def test_unknown_option_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'temperature'"):
        kdeploy.methods.create("kd", temprature=2.0)
