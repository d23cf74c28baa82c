"""Streams of tasks: labels and competing classes, the reservoir, Fisher and EWC against closed forms, distillation, learning, scores."""

import copy
from functools import partial

import pytest
import torch
from scipy.stats import chi2
from torch import nn
from torch.nn import functional as F

from mtl_course import continual
from mtl_course.continual import (
    Distillation,
    Ewc,
    Replay,
    Reservoir,
    distillation_loss,
    ewc_penalty,
    fisher_diagonal,
    split_classes,
)
from mtl_course.models import Classifier, mlp


def clusters(n=30, classes=6, seed=0):
    """Six Gaussian clouds in four dimensions: inputs [n * classes, 4] and labels."""
    g = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(classes, 4, generator=torch.Generator().manual_seed(99))
    y = torch.arange(classes).repeat(n)
    return centres[y] + 0.3 * torch.randn(len(y), 4, generator=g), y


def stream(known=True, order=(3, 1, 5, 0, 2, 4), per=2):
    return split_classes(clusters(), clusters(n=10, seed=1), order, per, known)


def network(seed=0, classes=6):
    torch.manual_seed(seed)
    return Classifier(mlp([4, 16]), 16, classes)


SGD = partial(torch.optim.SGD, lr=0.1)


# -------------------------------------------------------------------------------------------------------------------- stream
def test_tasks_have_the_classes_of_the_order_renumbered():
    (x, y), tasks = clusters(), stream()
    assert len(tasks) == 3 and tasks.per == 2
    for t, (inputs, labels) in enumerate(tasks.train):
        assert labels.unique().tolist() == [2 * t, 2 * t + 1]
        for label, old in zip((2 * t, 2 * t + 1), ((3, 1), (5, 0), (2, 4))[t], strict=True):
            assert torch.equal(inputs[labels == label], x[y == old])


@pytest.mark.parametrize("order", [(0, 1, 1, 2), (0, 1, 2), (0, 1, 2, 7)])
def test_an_order_that_cannot_be_is_refused(order):
    with pytest.raises(ValueError, match="order"):
        stream(order=order)


def test_classes_left_out_of_the_order_are_left_out():
    tasks = stream(order=(4, 2))
    assert len(tasks) == 1 and len(tasks.train[0][1]) == 60


def test_who_competes():
    logits, y = torch.zeros(3, 6), torch.tensor([0, 3, 5])
    told = stream(True).compete(logits, y, 1).isfinite()
    assert told.tolist() == [[True, True] + 4 * [False], [False, False, True, True, False, False], 4 * [False] + [True, True]]
    untold = stream(False).compete(logits, y, 1).isfinite()
    assert untold.tolist() == 3 * [[True] * 4 + [False] * 2]
    assert stream(True).classes(1) == slice(2, 4) and stream(False).classes(1) == slice(0, 4)


# ----------------------------------------------------------------------------------------------------------------- reservoir
def test_a_reservoir_is_a_uniform_sample_of_the_stream():
    n, size, repeats = 20, 5, 3000
    items, counts = torch.arange(n), torch.zeros(n)
    for seed in range(repeats):
        box = Reservoir(size, seed)
        for part in items.split(7):  # in pieces, as tasks come
            box.add(part[:, None], part)
        assert len(box) == size and len(set(box.y.tolist())) == size and torch.equal(box.x[:, 0], box.y)
        counts[box.y] += 1
    expected = repeats * size / n
    # Counts of a sample without replacement: each has variance expected x (1 - size / n), and they sum to a constant.
    statistic = float(((counts - expected) ** 2).sum() / (expected * (1 - size / n)) * (n - 1) / n)
    assert chi2.ppf(1e-4, n - 1) < statistic < chi2.ppf(1 - 1e-4, n - 1), counts


def test_a_reservoir_holds_everything_until_it_is_full_and_draws_from_what_it_holds():
    box = Reservoir(8)
    box.add(torch.arange(5.0)[:, None], torch.arange(5))
    assert len(box) == 5 and box.y[:5].tolist() == [0, 1, 2, 3, 4]
    x, y = box.draw(100)
    assert set(y.tolist()) == set(range(5)) and torch.equal(x[:, 0].long(), y)
    with pytest.raises(ValueError, match="at least one"):
        Reservoir(0)


# -------------------------------------------------------------------------------------------------------------- Fisher and EWC
def test_fisher_of_a_linear_classifier_is_its_closed_form_and_the_hessian():
    torch.manual_seed(0)
    model, x = nn.Linear(3, 4).double(), torch.randn(50, 3, dtype=torch.float64)
    found = fisher_diagonal(model, x)
    p = model(x).softmax(dim=1).detach()
    torch.testing.assert_close(found["weight"], torch.einsum("nc,nd->cd", p * (1 - p), x**2) / 50)
    torch.testing.assert_close(found["bias"], (p * (1 - p)).mean(dim=0))
    # For a generalised linear model the Fisher information is the Hessian of the loss, whatever the labels are.
    y = torch.randint(4, (50,))
    hessian = torch.func.hessian(lambda w: F.cross_entropy(F.linear(x, w, model.bias), y))(model.weight.detach())
    torch.testing.assert_close(found["weight"], hessian.reshape(12, 12).diagonal().reshape(4, 3))


def test_fisher_of_a_network_is_what_a_loop_over_examples_and_labels_gives(monkeypatch):
    model, x = network().double(), clusters()[0][:9].double()
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for one in x:
        log_p = model(one[None])[0, 2:5].log_softmax(dim=0)
        for c in range(3):
            for (name, _), g in zip(model.named_parameters(), torch.autograd.grad(log_p[c], list(model.parameters()), retain_graph=True)):
                expected[name] += log_p[c].exp().detach() * g**2 / 9
    found = fisher_diagonal(model, x, slice(2, 5))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    assert (found["head.weight"][5] == 0).all(), "a class that does not compete has no say"


def test_sequential_ewc_with_strength_one_is_the_joint_fit_of_a_linear_gaussian_model():
    """Inputs whose second moment is diagonal: then the diagonal Laplace approximation is exact, for three tasks of equal size."""
    torch.manual_seed(0)
    n, d = 40, 4
    tasks = []
    for _ in range(3):
        x = torch.linalg.qr(torch.randn(n, d, dtype=torch.float64))[0] * (1 + 3 * torch.rand(d, dtype=torch.float64))
        tasks.append((x, x @ torch.randn(d, dtype=torch.float64) + 0.3 * torch.randn(n, dtype=torch.float64)))
    w, anchor, fisher = torch.zeros(d, dtype=torch.float64), {}, {}
    for x, y in tasks:

        def loss(w, x=x, y=y, anchor=anchor, fisher=fisher):
            return (y - x @ w).square().mean() / 2 + (ewc_penalty({"w": w}, anchor, fisher, 1.0) if anchor else 0)

        gradient, curvature = torch.func.grad(loss)(w), torch.func.hessian(loss)(w)
        w = w - torch.linalg.solve(curvature, gradient)  # one Newton step is exact
        anchor = {"w": w}
        fisher = {"w": x.square().mean(dim=0) + fisher.get("w", 0)}  # of y ~ N(x . w, 1)
    joint = torch.linalg.lstsq(*(torch.cat(part) for part in zip(*tasks, strict=True))).solution
    torch.testing.assert_close(w, joint)


def test_penalty_is_zero_at_the_anchor_and_rises_with_its_closed_form():
    anchor, fisher = {"a": torch.tensor([1.0, -2.0])}, {"a": torch.tensor([3.0, 0.5])}
    assert ewc_penalty(anchor, anchor, fisher, 7.0) == 0
    moved = {"a": torch.tensor([2.0, 0.0], requires_grad=True), "new": torch.ones(5)}
    penalty = ewc_penalty(moved, anchor, fisher, 2.0)
    assert float(penalty) == pytest.approx(3 * 1 + 0.5 * 4)
    assert torch.autograd.grad(penalty, moved["a"])[0].tolist() == pytest.approx([6.0, 2.0])


def test_ewc_keeps_one_anchor_and_adds_up_the_fisher_diagonals():
    tasks, model, memory = stream(False), network(), Ewc(10.0, samples=20)
    memory.end_task(model, tasks, 0)
    first = memory.fisher
    with torch.no_grad():
        model.head.bias += 1
    memory.end_task(model, tasks, 1)
    assert torch.equal(memory.anchor["head.bias"], model.head.bias) and memory.anchor["head.bias"] is not model.head.bias
    assert all((memory.fisher[name] >= first[name]).all() for name in first) and memory.numbers == 2 * sum(p.numel() for p in model.parameters())
    logits = model(tasks.train[2][0])
    assert memory.loss(model, tasks.train[2][0], logits, 2) == 0


# ------------------------------------------------------------------------------------------------------- distillation, replay
def test_distillation_is_zero_at_the_old_outputs_and_nearly_a_squared_error_of_logits_at_high_temperature():
    old, new = torch.randn(2, 7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert float(distillation_loss(old, old)) == pytest.approx(0, abs=1e-12)
    gap = (new - old) - (new - old).mean(dim=1, keepdim=True)
    assert float(distillation_loss(new, old, 1e4)) == pytest.approx(float(gap.square().sum(dim=1).mean() / 8), rel=1e-3)


def test_distillation_holds_the_old_network_frozen_and_each_tasks_classes_apart_where_the_task_is_told():
    for known in (True, False):
        tasks, model = stream(known), network()
        memory = Distillation(tasks, 2.0)
        memory.end_task(model, tasks, 1)
        with torch.no_grad():
            model.head.bias += torch.tensor([1.0, 1, 0, 0, 5, 5])  # the same shift for both classes of task 0
        x = tasks.train[2][0]
        loss = memory.loss(model, x, model(x), 2)
        assert float(loss) == pytest.approx(0, abs=1e-5) if known else float(loss) > 0.1
        assert not any(p.requires_grad for p in memory.old.parameters()) and memory.numbers == sum(p.numel() for p in model.parameters())


def test_replay_takes_the_loss_of_old_examples_among_their_own_competitors():
    tasks, model = stream(True), network()
    memory = Replay(tasks, 4)
    assert memory.numbers == 0
    memory.end_task(model, tasks, 0)
    x, y = memory.buffer.x, memory.buffer.y
    assert set(y.tolist()) <= {0, 1} and memory.numbers == 4 * 5
    drawn = [memory.loss(model, x, None, 1).detach() for _ in range(200)]
    own = F.cross_entropy(model(x)[:, :2], y)
    assert float(torch.stack(drawn).mean()) == pytest.approx(float(own), rel=0.15)


# ------------------------------------------------------------------------------------------------------------------ learning
def test_learning_one_task_after_another_forgets_and_replay_of_everything_does_not():
    plain, held = (continual.learn(network(), stream(False), SGD, kept, epochs=10) for kept in ([], [Replay(stream(False), 1000)]))
    assert plain.diagonal().min() > 0.9 and plain[-1, 0] < 0.2 and (plain.triu(1) == 0).all()
    assert continual.average_accuracy(held) > 0.9
    assert continual.learn_jointly(network(), stream(False), SGD, epochs=10).min() > 0.9


def test_a_zero_strength_and_no_memory_are_fine_tuning_bit_for_bit():
    tasks = stream(True)
    rows = [continual.learn(m := network(), tasks, SGD, kept) for kept in ([], [Ewc(0.0)], [Distillation(tasks, 0.0)])]
    models = []
    for kept in ([], [Ewc(0.0)], [Distillation(tasks, 0.0)]):
        m = network()
        rows.append(continual.learn(m, tasks, SGD, kept))
        models.append(m)
    assert all(torch.equal(rows[0], row) for row in rows)
    for other in models[1:]:
        for a, b in zip(models[0].parameters(), other.parameters()):
            torch.testing.assert_close(a, b)


def test_a_run_repeats_with_its_seed_and_not_with_another():
    a, b, c = (network() for _ in range(3))
    for model, seed in ((a, 0), (b, 0), (c, 1)):
        continual.learn(model, stream(), SGD, seed=seed)
    assert torch.equal(a.head.weight, b.head.weight) and not torch.equal(a.head.weight, c.head.weight)


def test_a_penalty_that_blows_up_is_said():
    with pytest.raises(FloatingPointError, match="task 1.*strength"):
        continual.learn(network(), stream(), SGD, [Ewc(1e6)])


def test_augmentation_reaches_the_tasks_own_examples():
    seen = []

    def augment(x, generator):
        seen.append(x.shape)
        return x + 0 * torch.rand((), generator=generator)

    continual.learn(network(), stream(), SGD, epochs=1, augment=augment)
    assert len(seen) == 3 * 2


def test_one_task_alone_has_labels_from_zero():
    alone = continual.only(stream(), 2)
    assert len(alone) == 1 and alone.train[0][1].unique().tolist() == [0, 1] and alone.known
    R = continual.learn(network(), alone, SGD, epochs=10)
    assert R.shape == (1, 1) and float(R) > 0.9


def test_memories_can_be_combined():
    tasks, model = stream(False), network()
    kept = [Replay(tasks, 5), Ewc(1.0), Distillation(tasks, 1.0)]
    before = copy.deepcopy(model)
    continual.learn(model, tasks, SGD, kept, epochs=1)
    assert all(memory.numbers > 0 for memory in kept) and not torch.equal(before.head.weight, model.head.weight)


# -------------------------------------------------------------------------------------------------------------------- scores
def test_scores_by_hand():
    R = torch.tensor([[0.9, 0.5, 0.4], [0.95, 0.8, 0.6], [0.7, 0.75, 1.0]], dtype=torch.float64)
    assert continual.average_accuracy(R) == pytest.approx(2.45 / 3)
    assert continual.backward_transfer(R) == pytest.approx(((0.7 - 0.9) + (0.75 - 0.8)) / 2)
    assert continual.forgetting(R) == pytest.approx(((0.95 - 0.7) + (0.8 - 0.75)) / 2)
    assert continual.forward_transfer(R, torch.tensor([0.1, 0.45, 0.5], dtype=torch.float64)) == pytest.approx(((0.5 - 0.45) + (0.6 - 0.5)) / 2)


def test_forgetting_is_at_least_minus_backward_transfer():
    for seed in range(20):
        R = torch.rand(5, 5, generator=torch.Generator().manual_seed(seed))
        assert continual.forgetting(R) >= -continual.backward_transfer(R) - 1e-6
