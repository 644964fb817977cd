import copy

import pytest
import torch

import kdeploy.methods
from kdeploy.errors import UserError
from kdeploy.methods import Context, Outputs, Shapes
from kdeploy.methods.crd import noise_contrastive
from tests.methods.expectations import STUDENT, TEACHER, Expectations, build, random_inputs
from tests.methods.expectations import prepare as prepare_labels
from tests.methods.golden import assert_golden, es, et, leaf, zs, zt

LABELS = torch.arange(40) % 5


def prepare(method):
    """With a first batch behind it, which sets the constants Z: they have no gradient."""
    prepare_labels(method)
    method.build(TEACHER, TEACHER)
    random_inputs(method.needs).loss(method.double())


META = {"test_no_tensor_is_made_on_another_device": "torch has no random numbers on meta"}
EXPECTED = [
    # 32 negatives are all of the other classes, each once; 64 are drawn with replacement, others in each half
    Expectations(
        options={"negatives": count},
        identity=None,
        duplication_tolerance=tolerance,
        prepare=prepare,
        exempt=META,
    )
    for count, tolerance in ((32, 1e-9), (64, 0.02))
]


def made(**options):
    torch.manual_seed(0)
    method = kdeploy.methods.create("crd", **{"negatives": 8, "dimension": 16, **options}).double()
    method.build(Shapes(5, embedding=8), Shapes(5, embedding=16))
    method.prepare(LABELS)
    return method.double()


def step(method, index=(0, 11, 22, 33), number=0, student=es, teacher=et):
    context = Context(index=torch.tensor(index), step=number)
    return method(Outputs(zs, embedding=student), Outputs(zt, embedding=teacher), context=context)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_golden(dtype):
    scores = (0.03 * torch.arange(36, dtype=torch.float64) + 0.01).reshape(4, 9).to(dtype)
    assert_golden(noise_contrastive(scores, 50), 11.91138332799)


def test_closed_form_against_the_memory():
    method = made()
    before = copy.deepcopy(method)
    value = step(method)
    with torch.no_grad():
        index = torch.tensor([0, 11, 22, 33])
        ours = torch.nn.functional.normalize(before.student_embed(es))
        theirs = torch.nn.functional.normalize(before.teacher_embed(et))
        picked = before._samples(index, method.seed)
        expected = 0.0
        for vectors, memory in ((ours, before.teacher_memory), (theirs, before.student_memory)):
            scores = (torch.einsum("bkd,bd->bk", memory[picked], vectors) / 0.07).exp()
            expected += noise_contrastive(scores / (scores.mean() * 40), 40)
        torch.testing.assert_close(value, torch.as_tensor(expected))
        mixed = torch.nn.functional.normalize((before.student_memory[index] + ours) / 2)
    torch.testing.assert_close(method.student_memory[index], mixed)
    others = [number for number in range(40) if number not in index]
    assert torch.equal(method.student_memory[others], before.student_memory[others])
    assert not method.student_memory.requires_grad
    assert not torch.equal(method.teacher_memory[index], before.teacher_memory[index])


def test_memory_stays_on_the_unit_sphere_and_starts_uniform():
    method = made(dimension=128)
    assert method.student_memory.abs().max() <= (128 / 3) ** -0.5
    torch.testing.assert_close(method.student_memory.norm(dim=1).mean().item(), 1.0, rtol=0.05, atol=0)
    for number in range(5):
        step(method, number=number)
    torch.testing.assert_close(method.student_memory[[0, 11, 22, 33]].norm(dim=1), torch.ones(4, dtype=torch.float64))


def test_normalizers_are_set_by_the_first_batch_and_kept():
    method = made()
    assert torch.equal(method.normalizers, torch.zeros(2, dtype=torch.float64))
    step(method)
    first = method.normalizers.clone()
    assert (first > 0).all()
    step(method, number=1, student=-es)
    assert torch.equal(method.normalizers, first)


def test_evaluation_changes_nothing():
    method = made().eval()
    before = copy.deepcopy(method.state_dict())
    step(method)
    assert all(torch.equal(value, method.state_dict()[key]) for key, value in before.items())


@pytest.mark.parametrize("negatives", [8, 32, 64])
def test_negatives_are_of_other_classes(negatives):
    method = made(negatives=negatives)
    index = torch.tensor([0, 1, 17, 39])
    seen = set()
    for number in range(60):
        picked = method._samples(index, number)
        assert picked.shape == (4, 1 + negatives)
        assert torch.equal(picked[:, 0], index)
        assert (LABELS[picked[:, 1:]] != LABELS[index, None]).all()
        if negatives <= 32:
            assert all(len(row.unique()) == negatives for row in picked[:, 1:])
        seen |= set(picked[0, 1:].tolist())
    assert len(seen) == 32  # all of the other classes come up


def test_negatives_depend_on_the_step_and_survive_a_checkpoint():
    method = made()
    method.eval()
    assert step(method, number=3) == step(method, number=3)
    assert step(method, number=3) != step(method, number=4)
    torch.manual_seed(99)
    other = kdeploy.methods.create("crd", negatives=8, dimension=16).double()
    other.build(Shapes(5, embedding=8), Shapes(5, embedding=16))
    other.prepare(LABELS)
    other.double().eval()
    assert step(other, number=3) != step(method, number=3)
    other.load_state_dict(method.state_dict())
    assert step(other, number=3) == step(method, number=3)


def test_teachers_layer_learns_and_the_teacher_does_not():
    method, teacher = made(), leaf(et)
    step(method, teacher=teacher).backward()
    assert teacher.grad is None
    assert method.teacher_embed.weight.grad.abs().max() > 0


def test_training_pulls_a_sample_to_its_own_memory():
    torch.manual_seed(0)
    method, student = made(), leaf(es)
    optimizer = torch.optim.SGD([student, *method.parameters()], lr=0.05)
    losses = []
    for number in range(40):
        loss = step(method, number=number, student=student)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_weight_of_the_tables():
    assert kdeploy.methods.create("crd").default_weight == 0.8


@pytest.mark.parametrize("options", [{"negatives": 0}, {"temperature": 0.0}, {"momentum": 2.0}, {"dimension": 0}])
def test_impossible_options(options):
    with pytest.raises(UserError, match="crd: "):
        kdeploy.methods.create("crd", **options)


def test_what_it_cannot_do_without():
    with pytest.raises(UserError, match="two or more"):
        kdeploy.methods.create("crd").prepare(torch.zeros(10, dtype=torch.int64))
    with pytest.raises(UserError, match="embedding"):
        kdeploy.methods.create("crd").build(STUDENT, Shapes(5))
    method = kdeploy.methods.create("crd")
    with pytest.raises(ValueError, match="build and prepare"):
        step(method)
    build(method)
    with pytest.raises(ValueError, match="build and prepare"):
        step(method)
    with pytest.raises(ValueError, match="index"):
        made()(Outputs(zs, embedding=es), Outputs(zt, embedding=et))
