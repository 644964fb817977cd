import copy

import pytest
import torch
import torch.nn.functional as F

import kdeploy.methods
from kdeploy.errors import UserError
from kdeploy.methods import Needs, Outputs, Shapes
from kdeploy.methods.hssakd import distilled, joint_cross_entropy, joint_labels, taught_by_one_another
from tests.methods.expectations import STUDENT, TEACHER, Expectations, random_inputs
from tests.methods.golden import S, T, assert_golden, leaf

EXPECTED = Expectations()

Y = torch.tensor([2, 0])
ONE = 2 * S(8, 3), [S(8, 12), 1.5 * S(8, 12)]  # logits and those of two heads: 2 images, 4 rotations, 3 classes
TWO = 3 * T(8, 3), [T(8, 12), 2 * T(8, 12)]


def cast(answers, dtype):
    return answers[0].to(dtype), [head.to(dtype) for head in answers[1]]


def leaves(answers):
    return leaf(answers[0]), [leaf(head) for head in answers[1]]


def built(student=STUDENT, teacher=TEACHER, **options):
    torch.manual_seed(0)
    method = kdeploy.methods.create("hssakd", **options)
    method.build(student, teacher)
    return method.double()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_golden_offline(dtype):
    one, two = cast(ONE, dtype), cast(TWO, dtype)
    terms = distilled(one, two, 3.0)
    assert_golden(F.cross_entropy(one[0][::4], Y) + sum(terms.values()), 2.2032029172)
    assert_golden(F.cross_entropy(two[0][::4], Y) + joint_cross_entropy(two[1], Y), 6.7541676876)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_golden_online(dtype):
    one, two = cast(ONE, dtype), cast(TWO, dtype)
    assert_golden(F.cross_entropy(one[0][::4], Y), 0.9057067931195)
    assert_golden(F.cross_entropy(two[0][::4], Y), 1.270486607820)
    assert_golden(joint_cross_entropy(one[1], Y), 5.630760555763)
    assert_golden(joint_cross_entropy(two[1], Y), 5.483681079739)
    assert_golden(distilled(one, two, 3.0)["hssakd/logits"], 0.08757495308570)
    assert_golden(distilled(two, one, 3.0)["hssakd/logits"], 0.08716980998311)
    assert_golden(distilled(one, two, 3.0)["hssakd/heads"], 1.209921170979)
    assert_golden(distilled(two, one, 3.0)["hssakd/heads"], 1.215583511697)
    backbones = F.cross_entropy(one[0][::4], Y) + F.cross_entropy(two[0][::4], Y)
    for peers in ((one, two), (two, one)):
        terms = taught_by_one_another(peers, Y, 3.0)
        assert_golden(backbones + terms["hssakd/labels"], 13.29063503644)
        assert_golden(terms["hssakd/logits"] + terms["hssakd/heads"], 2.600249445745)
        assert_golden(backbones + sum(terms.values()), 15.89088448219)


def test_golden_through_the_public_interface():
    """With heads that give the golden tensors whatever they see, and without heads, which leaves the logits' part."""
    method = kdeploy.methods.create("hssakd").double()
    assert_golden(method(Outputs(ONE[0]), Outputs(TWO[0]), Y), 0.08757495308570)
    method.student_heads, method.teacher_heads = (
        torch.nn.ModuleList([torch.nn.Identity()] * 2),
        torch.nn.ModuleList([torch.nn.Identity()] * 2),
    )
    alone = F.cross_entropy(ONE[0][::4], Y)
    assert_golden(alone + method(Outputs(*ONE), Outputs(*TWO), Y), 2.2032029172)
    assert_golden(method.phase_loss(method.phases()[0], Outputs(*TWO), target=Y), 5.483681079739)
    method.peer_heads = torch.nn.ModuleList([method.student_heads, method.teacher_heads])
    both = alone + F.cross_entropy(TWO[0][::4], Y)
    terms = method.peer_terms([Outputs(*ONE), Outputs(*TWO)], Y)
    assert_golden(both + sum(terms.values()), 15.89088448219)


def test_joint_labels():
    assert joint_labels(Y).tolist() == [8, 9, 10, 11, 0, 1, 2, 3]


def test_three_peers_learn_from_the_mean_of_the_others():
    three = [ONE, TWO, (ONE[0] * TWO[0], [a * b for a, b in zip(ONE[1], TWO[1], strict=True)])]
    terms = taught_by_one_another(three, Y, 3.0)
    for name in ("hssakd/logits", "hssakd/heads"):
        pairs = [distilled(three[i], three[k], 3.0)[name] for i in range(3) for k in range(3) if i != k]
        torch.testing.assert_close(terms[name], sum(pairs) / 2)
    torch.testing.assert_close(terms["hssakd/labels"], sum(joint_cross_entropy(heads, Y) for _, heads in three))


def test_the_target_side_gets_no_gradient():
    """A peer's gradient comes from its own loss alone: what it is a target for does not reach it."""
    one, two = leaves(ONE), leaves(TWO)
    sum(distilled(one, two, 3.0).values()).backward()
    assert two[0].grad is None
    assert all(head.grad is None for head in two[1])
    gradient = one[0].grad.clone()
    one[0].grad = None
    sum(taught_by_one_another([one, two], Y, 3.0).values()).backward()
    torch.testing.assert_close(one[0].grad, gradient)
    other = distilled(leaves(TWO), ONE, 3.0)
    assert sum(other.values()) > 0


def test_labels_do_not_reach_the_student_s_heads_offline():
    method = built()
    inputs = random_inputs(method.needs, adapted=True)
    losses = [method(inputs.student, inputs.teacher, target) for target in (inputs.target, 4 - inputs.target, None)]
    assert losses[0] == losses[1] == losses[2]


def test_gradient_of_the_heads_goes_on_into_the_student():
    method = built()
    inputs = random_inputs(method.needs, adapted=True)
    features = [leaf(feature) for feature in inputs.student.features]
    method.terms(Outputs(inputs.student.logits, features), inputs.teacher)["hssakd/heads"].backward()
    assert all(feature.grad.abs().max() > 0 for feature in features)


def test_first_the_teacher_s_heads_are_trained_and_then_they_stay():
    method = built()
    (phase,) = method.phases()
    assert (phase.epochs, phase.lr, phase.milestones, phase.student) == (100, 0.05, (30, 60, 90), False)
    inputs = random_inputs(method.needs)
    features = [leaf(feature) for feature in inputs.teacher.features]
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    first = method.phase_loss(phase, Outputs(inputs.teacher.logits, features), target=inputs.target)
    for _ in range(20):
        optimizer.zero_grad()
        loss = method.phase_loss(phase, Outputs(inputs.teacher.logits, features), target=inputs.target)
        loss.backward()
        optimizer.step()
    assert loss < 0.9 * first
    assert all(feature.grad is None for feature in features)
    assert all(parameter.grad is None for parameter in method.student_heads.parameters())
    method.end_phase(phase)
    method.train()
    before = copy.deepcopy(method.teacher_heads.state_dict())
    method(random_inputs(method.needs, adapted=True).student, inputs.teacher).backward()
    assert all(torch.equal(value, before[name]) for name, value in method.teacher_heads.state_dict().items())
    assert method.student_heads[0].training
    assert not method.teacher_heads[0].training


def test_a_head_for_each_stage_ends_at_the_last_one_s_width():
    method = built()
    heads = method.student_heads
    assert [head[-1].in_features for head in heads] == [4, 4, 4]
    assert {head[-1].out_features for head in heads} == {20}
    sizes = [
        head[0](torch.zeros(4, *shape, dtype=torch.float64)).shape
        for head, shape in zip(heads, STUDENT.features, strict=True)
    ]
    assert sizes == [(4, 4, 2, 2)] * 3


def test_heads_of_networks_that_say_how_they_go_on():
    made = []

    def onward(channels, wide):
        def make():
            made.append(torch.nn.Conv2d(channels, wide, 3))
            return made[-1]

        return make

    told = Shapes(5, [(2, 8, 8), (4, 4, 4)], onward=[onward(2, 4), onward(4, 4)])
    method = built(told, Shapes(5, [(3, 8, 8), (6, 4, 4)]))
    assert [head[0] for head in method.student_heads] == made
    assert not any(head[0] in made for head in method.teacher_heads)


def test_milestones_follow_the_length():
    assert kdeploy.methods.create("hssakd", head_epochs=10).phases()[0].milestones == (3, 6, 9)
    assert kdeploy.methods.create("hssakd", head_epochs=1).phases()[0].milestones == (1,)


def test_needs():
    assert kdeploy.methods.find("hssakd").needs == Needs(features="all", labels=True, rotations=4)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"head_epochs": 0}])
def test_impossible_options(options):
    with pytest.raises(UserError, match="hssakd: "):
        kdeploy.methods.create("hssakd", **options)


def test_what_it_cannot_do_without():
    method = kdeploy.methods.create("hssakd")
    with pytest.raises(UserError, match="name as many taps"):
        method.build(STUDENT, Shapes(5, [(2, 4, 4)]))
    with pytest.raises(UserError, match="name taps"):
        method.build(Shapes(5), TEACHER)
    with pytest.raises(UserError, match="name as many taps"):
        method.build_peers([STUDENT, Shapes(5, [(2, 4, 4)])])
    with pytest.raises(ValueError, match="build_peers before"):
        method.peer_terms([Outputs(*ONE), Outputs(*TWO)], Y)
    with pytest.raises(ValueError, match="before a loss of its heads"):
        method.phase_loss(method.phases()[0], Outputs(*TWO), target=Y)
    with pytest.raises(ValueError, match="needs the labels"):
        built().phase_loss(method.phases()[0], random_inputs(method.needs).teacher)
    with pytest.raises(UserError, match="was given 2 features"):
        built()(Outputs(*ONE), Outputs(*TWO), Y)
