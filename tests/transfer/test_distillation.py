"""Distillation against torch's own divergence, finite differences and the limits in closed form."""

import copy
import math
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtl_course.data.batches import Table
from mtl_course.multitask.fit import fit_tasks
from mtl_course.multitask.sharing import HardSharing
from mtl_course.training.loop import fit
from mtl_course.transfer.distillation import (
    FeatureMatch,
    agreement,
    distilled_tasks,
    kd_loss,
    kd_losses,
    mixed_loss,
    pooled_logits,
    soft_targets,
    teacher_outputs,
)


def logits(seed, n=5, classes=4, scale=3.0):
    g = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n, classes, generator=g, dtype=torch.float64)


# --------------------------------------------------------------------------------------- the loss
@pytest.mark.parametrize("T", [0.5, 1.0, 4.0, 20.0])
def test_the_loss_is_torchs_own_divergence_times_the_square(T):
    z, v = logits(0), logits(1)
    want = T**2 * nn.KLDivLoss(reduction="batchmean", log_target=True)(
        F.log_softmax(z / T, 1), F.log_softmax(v / T, 1)
    )
    torch.testing.assert_close(kd_loss(z, v, T), want)


def test_the_loss_is_the_sum_by_hand():
    q, p = torch.tensor([[0.5, 0.5]]).double(), torch.tensor([[0.9, 0.1]]).double()
    by_hand = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    assert float(kd_loss(q.log(), p.log(), 1.0)) == pytest.approx(by_hand)
    assert float(kd_loss(p.log(), p.log() + 7.0, 3.0)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("T", [1.0, 3.0, 50.0])
def test_the_gradient_is_the_temperature_times_the_difference_of_the_probabilities(T):
    z, v = logits(2).requires_grad_(), logits(3)
    (g,) = torch.autograd.grad(kd_loss(z, v, T), z)
    want = T * (soft_targets(z, T) - soft_targets(v, T)) / len(z)
    torch.testing.assert_close(g, want)
    assert torch.autograd.gradcheck(lambda z: kd_loss(z, v, T), z)


def test_hot_the_gradient_is_that_of_the_squared_distance_of_centred_logits():
    z, v = logits(4).requires_grad_(), logits(5)
    C, centred = z.shape[1], (lambda u: u - u.mean(1, keepdim=True))
    squares = (centred(z) - centred(v)).square().sum(1).mean() / (2 * C)
    (limit,) = torch.autograd.grad(squares, z, retain_graph=True)
    errors = []
    for T in (1e2, 1e3):
        loss = kd_loss(z, v, T)
        (g,) = torch.autograd.grad(loss, z, retain_graph=True)
        errors.append(float((g - limit).norm() / limit.norm()))
        assert loss.item() == pytest.approx(squares.item(), rel=10 / T)
    assert errors[0] < 0.05 and errors[1] == pytest.approx(errors[0] / 10, rel=0.1)


def test_without_the_square_the_gradient_would_shrink():
    z, v = logits(6).requires_grad_(), logits(7)
    norms = [float(torch.autograd.grad(kd_loss(z, v, T), z)[0].norm()) for T in (50.0, 100.0)]
    assert norms[1] == pytest.approx(norms[0], rel=0.05), "and not a quarter of it"


def test_no_gradient_reaches_the_teacher():
    z, v = logits(0).requires_grad_(), logits(1).requires_grad_()
    (kd_loss(z, v) + mixed_loss(z, v, torch.zeros(5, dtype=torch.long))).backward()
    assert v.grad is None and z.grad is not None


def test_a_class_that_the_teacher_rules_out_counts_nothing():
    z, v = logits(0), logits(1)
    v[:, 2] = -math.inf
    p, q = F.softmax(v, 1), F.log_softmax(z, 1)
    keep = [0, 1, 3]
    want = (p[:, keep] * (p[:, keep].log() - q[:, keep])).sum(1).mean()
    torch.testing.assert_close(kd_loss(z, v, 1.0), want)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_logits_in_half_precision_give_a_loss_in_single(dtype):
    z, v = logits(0).to(dtype), logits(1).to(dtype)
    loss = kd_loss(z, v, 2.0)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, kd_loss(z.float(), v.float(), 2.0))
    assert soft_targets(z).dtype == torch.float32


def test_the_mix_has_the_labels_at_temperature_one_and_forgives_their_absence():
    z, v, y = logits(0), logits(1), torch.tensor([0, 1, 2, 3, 0])
    soft, hard = kd_loss(z, v, 3.0), F.cross_entropy(z, y)
    torch.testing.assert_close(mixed_loss(z, v, y, 3.0, 0.3), 0.3 * soft + 0.7 * hard)
    torch.testing.assert_close(mixed_loss(z, v, y, alpha=0.0), hard)
    some = y.clone()
    some[2:] = -100
    torch.testing.assert_close(mixed_loss(z, v, some, alpha=0.0), F.cross_entropy(z[:2], y[:2]))
    none = torch.full_like(y, -100)
    torch.testing.assert_close(mixed_loss(z, v, none, 3.0, 0.3), 0.3 * soft)


def test_agreement_is_a_share_and_knows_when_it_does_not():
    z = torch.eye(3)
    assert float(agreement(z, 5 * z)) == 1 and float(agreement(z, z.roll(1, 0))) == 0
    z[0, 0] = math.nan
    assert math.isnan(agreement(z, torch.eye(3)))


# ---------------------------------------------------------------------------------------- features
def test_features_are_compared_through_the_regressor():
    g = torch.Generator().manual_seed(0)
    s, t = torch.randn(6, 3, generator=g), torch.randn(6, 5, generator=g)
    match = FeatureMatch(3, 5)
    want = (match.regressor(s) - t).square().mean()
    torch.testing.assert_close(match(s, t), want)
    s.requires_grad_(), t.requires_grad_()
    match(s, t).backward()
    assert t.grad is None and s.grad is not None
    assert all(p.grad is not None for p in match.parameters())


def test_maps_are_compared_pixel_by_pixel():
    s, t = torch.randn(2, 3, 4, 6), torch.randn(2, 5, 4, 6)
    maps, rows = FeatureMatch(3, 5, maps=True), FeatureMatch(3, 5)
    rows.regressor.weight.data = maps.regressor.weight.data[:, :, 0, 0].clone()
    rows.regressor.bias.data = maps.regressor.bias.data.clone()
    flat = [u.movedim(1, 3).flatten(0, 2) for u in (s, t)]
    torch.testing.assert_close(maps(s, t), rows(*flat))


@pytest.mark.parametrize(
    "student, teacher, says",
    [
        ((6, 4), (6, 5), r"The student's features have shape \(6, 4\) where \[B, 3\]"),
        ((6, 3), (6, 4), r"The teacher's features have shape \(6, 4\) where \[B, 5\]"),
        ((6, 3), (4, 5), "ask both for the same rows"),
        ((6, 3, 2, 2), (6, 5, 2, 2), "maps=True for maps"),
    ],
)
def test_features_of_another_shape_are_refused(student, teacher, says):
    with pytest.raises(ValueError, match=says):
        FeatureMatch(3, 5)(torch.zeros(student), torch.zeros(teacher))


def test_maps_of_other_sides_are_refused():
    with pytest.raises(ValueError, match="match maps of the same sides"):
        FeatureMatch(3, 5, maps=True)(torch.zeros(2, 3, 4, 4), torch.zeros(2, 5, 2, 2))


# ---------------------------------------------------------------------------------------- teachers
def teacher_with_norm():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))


def test_a_teacher_answers_in_evaluation_mode_and_is_left_as_it_was():
    teacher, x = teacher_with_norm(), torch.randn(7, 3)
    teacher.train()
    teacher[2].eval()
    before, modes = copy.deepcopy(teacher.state_dict()), [m.training for m in teacher.modules()]
    z = teacher_outputs(teacher, x, batch=2)
    assert not z.requires_grad and all(p.grad is None for p in teacher.parameters())
    assert [m.training for m in teacher.modules()] == modes
    after = teacher.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    torch.testing.assert_close(z, teacher.eval()(x).detach())


def test_a_student_trained_through_fit_never_moves_its_teacher():
    teacher, x = teacher_with_norm(), torch.randn(40, 3)
    before, z = copy.deepcopy(teacher.state_dict()), teacher_outputs(teacher, x)
    student = nn.Linear(3, 4)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    history = fit(student, (x, z), (x, z), kd_loss, optimizer, epochs=30, progress=False)
    assert history.train[-1] < history.train[0] / 2
    assert all(torch.equal(teacher.state_dict()[name], t) for name, t in before.items())


def test_teachers_of_single_tasks_teach_the_heads_of_one_student():
    torch.manual_seed(0)
    x = torch.randn(60, 3)
    teachers = {"kind": nn.Linear(3, 5), "size": nn.Linear(3, 2)}
    targets = teacher_outputs(teachers, x)
    assert {task: z.shape[1] for task, z in targets.items()} == {"kind": 5, "size": 2}
    student = HardSharing(nn.Linear(3, 4), {"size": nn.Linear(4, 2), "kind": nn.Linear(4, 5)})
    tasks, table = distilled_tasks(student.heads, temperature=2.0), Table(x, targets)
    optimizer = torch.optim.Adam(student.parameters(), lr=0.05)
    history = fit_tasks(student, tasks, table, table, optimizer, epochs=60, progress=False)
    assert min(history.best.values()) > 0.95
    losses = kd_losses(student(x), targets, 2.0)
    for task in teachers:
        torch.testing.assert_close(losses[task], kd_loss(student(x)[task], targets[task], 2.0))
        torch.testing.assert_close(tasks[task].loss(student(x)[task], targets[task]), losses[task])


def test_pooled_teachers_pull_like_the_mean_of_the_teachers():
    z, several = logits(0).requires_grad_(), [logits(k) for k in (1, 2, 3)]
    for weights, shares in ((None, [1 / 3] * 3), ((1, 0, 3), [0.25, 0, 0.75])):
        pooled = pooled_logits(several, 2.5, weights)
        mean = sum(s * soft_targets(v, 2.5) for s, v in zip(shares, several, strict=True))
        torch.testing.assert_close(soft_targets(pooled, 2.5), mean)
        (one,) = torch.autograd.grad(kd_loss(z, pooled, 2.5), z)
        losses = sum(s * kd_loss(z, v, 2.5) for s, v in zip(shares, several, strict=True))
        (each,) = torch.autograd.grad(losses, z)
        torch.testing.assert_close(one, each)
    torch.testing.assert_close(
        soft_targets(pooled_logits([several[0]], 2.0), 2.0), soft_targets(several[0], 2.0)
    )


# ---------------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize("T", [0, -1.0, math.inf, math.nan])
def test_a_temperature_must_be_above_zero(T):
    z = torch.zeros(2, 3)
    calls = [
        lambda: kd_loss(z, z, T),
        lambda: soft_targets(z, T),
        lambda: mixed_loss(z, z, torch.zeros(2, dtype=torch.long), T),
        lambda: pooled_logits([z], T),
        lambda: distilled_tasks(["a"], T),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"The temperature is .*; it divides"):
            call()


@pytest.mark.parametrize(
    "teacher, error, says",
    [
        (torch.zeros(5, 3), ValueError, "student has 4 classes and the teacher 3: pick the"),
        (torch.zeros(3, 4), ValueError, "student answers 5 rows and the teacher 3"),
        (torch.zeros(5), ValueError, r"Logits are \[N, C\]; .* \(5, 4\), the teacher's \(5,\)"),
        (torch.zeros(5, dtype=torch.long), TypeError, "before the softmax, not labels"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(teacher, error, says):
    z = torch.zeros(5, 4)
    for call in (kd_loss, agreement):
        with pytest.raises(error, match=says):
            call(z, teacher)
    with pytest.raises(error, match="Task 'b': .*" + says):
        kd_losses({"a": z, "b": z}, {"b": teacher, "a": z})


def test_what_is_not_finite_is_named():
    z, v = torch.zeros(5, 4), torch.zeros(5, 4)
    v[3, 1] = math.nan
    with pytest.raises(FloatingPointError, match=r"The teacher's logits are not finite.* row 3"):
        kd_loss(z, v)

    class Broken(nn.Module):
        def forward(self, x):
            return x / (x - 2)

    x = torch.tensor([[1.0], [3.0], [2.0]])
    with pytest.raises(FloatingPointError, match="teacher's logits are not finite, first in row 2"):
        teacher_outputs(Broken(), x)
    with pytest.raises(FloatingPointError, match=r"logits of the teacher of 'right' .* row 2"):
        teacher_outputs({"left": nn.Identity(), "right": Broken()}, x)
    both = HardSharing(nn.Identity(), {"left": nn.Identity(), "right": Broken()})
    with pytest.raises(FloatingPointError, match="teacher's logits of 'right'"):
        teacher_outputs(both, x)


def test_dicts_of_teachers_that_do_not_fit_are_refused():
    z = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="heads for a, b and the teachers teach a, c"):
        kd_losses({"a": z, "b": z}, {"a": z, "c": z})
    with pytest.raises(ValueError, match="There is no teacher"):
        teacher_outputs({}, z)
    both = HardSharing(nn.Identity(), {"left": nn.Identity(), "right": nn.Identity()})
    with pytest.raises(ValueError, match="teacher of 'a' gives several outputs, left, right"):
        teacher_outputs({"a": both}, z)


@pytest.mark.parametrize(
    "teachers, weights, says",
    [
        ([], None, "these have []"),
        ([torch.zeros(2, 3), torch.zeros(2, 4)], None, "same rows and classes"),
        ([torch.zeros(2, 3)] * 2, [1.0], "2 teachers need as many weights"),
        ([torch.zeros(2, 3)] * 2, [1.0, -1.0], "not negative"),
        ([torch.zeros(2, 3)] * 2, [0.0, 0.0], "of a sum above 0"),
    ],
)
def test_pools_that_cannot_be_are_refused(teachers, weights, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        pooled_logits(teachers, 2.0, weights)


def test_a_share_outside_zero_and_one_is_refused():
    z = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"alpha is 1\.5"):
        mixed_loss(z, z, torch.zeros(2, dtype=torch.long), alpha=1.5)
