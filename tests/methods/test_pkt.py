import pytest
import torch

import kdeploy.methods
from kdeploy.errors import UserError
from kdeploy.methods import Outputs, Shapes
from kdeploy.methods._relations import cosine_probabilities
from tests.methods.expectations import Expectations
from tests.methods.golden import assert_golden, es, et, leaf, zs, zt

EXPECTED = Expectations(duplication=0.5, duplication_tolerance=1e-4)  # 1e-7 beside probabilities of half the size


def pkt(student=es, teacher=et):
    return kdeploy.methods.create("pkt")(Outputs(zs, embedding=student), Outputs(zt, embedding=teacher))


def rotation(size):
    return torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(0)).double())[0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_golden(dtype):
    assert_golden(pkt(es.to(dtype), et.to(dtype)), 0.0631724453)


def test_only_directions_count():
    factors = torch.tensor([[0.5], [3.0], [20.0], [1.0]], dtype=torch.float64)
    torch.testing.assert_close(pkt(factors * es, et / factors), pkt(), rtol=1e-5, atol=0)
    torch.testing.assert_close(pkt(es @ rotation(8), et @ rotation(16)), pkt(), rtol=1e-9, atol=0)
    order = [2, 0, 3, 1]
    torch.testing.assert_close(pkt(es[order], et[order]), pkt(), rtol=1e-12, atol=0)


def test_rows_are_probabilities():
    torch.testing.assert_close(cosine_probabilities(es, 1e-7).sum(dim=1), torch.ones(4, dtype=torch.float64))
    assert pkt() > 0


def test_a_zero_row_gets_no_gradient_and_spoils_no_other():
    student = leaf(torch.cat([torch.zeros(1, 8, dtype=torch.float64), es[1:]]))
    pkt(student).backward()
    assert torch.equal(student.grad[0], torch.zeros(8, dtype=torch.float64))
    assert (student.grad[1:].abs().sum(dim=1) > 0).all()


def test_embeddings_are_needed():
    with pytest.raises(ValueError, match="pkt needs the embeddings"):
        kdeploy.methods.create("pkt")(Outputs(zs), Outputs(zt))
    with pytest.raises(UserError, match="the teacher has none"):
        kdeploy.methods.create("pkt").build(Shapes(5, embedding=8), Shapes(5))
