"""What methods keep of earlier tasks: a fair reservoir, Fisher and EWC, distillation, replay."""

import pytest
import torch
from scipy.stats import chi2
from stream_tools import clusters, network, stream
from torch import nn
from torch.nn import functional as F

from mtl_course.streams.memories import (
    DarkReplay,
    Distillation,
    Ewc,
    Replay,
    Reservoir,
    distillation_loss,
    ewc_penalty,
    fisher_diagonal,
)


# ---------------------------------------------------------------------------------------- reservoir
def test_a_reservoir_is_a_uniform_sample_of_the_stream():
    n, size, repeats = 20, 5, 3000
    items, counts = torch.arange(n), torch.zeros(n)
    for seed in range(repeats):
        box = Reservoir(size, seed)
        for part in items.split(7):  # in pieces, as tasks come
            box.add(part[:, None], part)
        assert (
            len(box) == size
            and len(set(box.y.tolist())) == size
            and torch.equal(box.x[:, 0], box.y)
        )
        counts[box.y] += 1
    expected = repeats * size / n
    # Counts of a sample without replacement: each has variance expected x (1 - size / n), and they
    # sum to a constant.
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


# ----------------------------------------------------------------------------------- Fisher and EWC
def test_fisher_of_a_linear_classifier_is_its_closed_form_and_the_hessian():
    torch.manual_seed(0)
    model, x = nn.Linear(3, 4).double(), torch.randn(50, 3, dtype=torch.float64)
    found = fisher_diagonal(model, x)
    p = model(x).softmax(dim=1).detach()
    torch.testing.assert_close(found["weight"], torch.einsum("nc,nd->cd", p * (1 - p), x**2) / 50)
    torch.testing.assert_close(found["bias"], (p * (1 - p)).mean(dim=0))
    # For a generalised linear model the Fisher information is the Hessian of the loss, whatever the
    # labels are.
    y = torch.randint(4, (50,))
    hessian = torch.func.hessian(lambda w: F.cross_entropy(F.linear(x, w, model.bias), y))(
        model.weight.detach()
    )
    torch.testing.assert_close(found["weight"], hessian.reshape(12, 12).diagonal().reshape(4, 3))


def test_fisher_of_a_network_is_what_a_loop_over_examples_and_labels_gives():
    model, x = network().double(), clusters()[0][:9].double()
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for one in x:
        log_p = model(one[None])[0, 2:5].log_softmax(dim=0)
        for c in range(3):
            gradients = torch.autograd.grad(log_p[c], list(model.parameters()), retain_graph=True)
            for (name, _), g in zip(model.named_parameters(), gradients, strict=True):
                expected[name] += log_p[c].exp().detach() * g**2 / 9
    found = fisher_diagonal(model, x, slice(2, 5))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    assert (found["head.weight"][5] == 0).all(), "a class that does not compete has no say"


def test_sequential_ewc_with_strength_one_is_the_joint_fit_of_a_linear_gaussian_model():
    """Inputs whose second moment is diagonal: then the diagonal Laplace approximation is exact, for
    three tasks of equal size.
    """
    torch.manual_seed(0)
    n, d = 40, 4
    tasks = []
    for _ in range(3):
        x = torch.linalg.qr(torch.randn(n, d, dtype=torch.float64))[0] * (
            1 + 3 * torch.rand(d, dtype=torch.float64)
        )
        tasks.append(
            (x, x @ torch.randn(d, dtype=torch.float64) + 0.3 * torch.randn(n, dtype=torch.float64))
        )
    w, anchor, fisher = torch.zeros(d, dtype=torch.float64), {}, {}
    for x, y in tasks:

        def loss(w, x=x, y=y, anchor=anchor, fisher=fisher):
            return (y - x @ w).square().mean() / 2 + (
                ewc_penalty({"w": w}, anchor, fisher, 1.0) if anchor else 0
            )

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
    assert (
        torch.equal(memory.anchor["head.bias"], model.head.bias)
        and memory.anchor["head.bias"] is not model.head.bias
    )
    assert all((memory.fisher[name] >= first[name]).all() for name in first)
    assert memory.numbers == 2 * sum(p.numel() for p in model.parameters())
    logits = model(tasks.train[2][0])
    assert memory.loss(model, tasks.train[2][0], logits, 2) == 0


# ----------------------------------------------------------------------------- distillation, replay
def test_distillation_is_zero_at_the_old_outputs_and_a_squared_error_at_high_temperature():
    old, new = torch.randn(2, 7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert float(distillation_loss(old, old)) == pytest.approx(0, abs=1e-12)
    gap = (new - old) - (new - old).mean(dim=1, keepdim=True)
    assert float(distillation_loss(new, old, 1e4)) == pytest.approx(
        float(gap.square().sum(dim=1).mean() / 8), rel=1e-3
    )


def test_distillation_keeps_the_old_network_frozen_and_the_classes_of_told_tasks_apart():
    for task_known in (True, False):
        tasks, model = stream(task_known), network()
        memory = Distillation(tasks, 2.0)
        memory.end_task(model, tasks, 1)
        with torch.no_grad():
            model.head.bias += torch.tensor(
                [1.0, 1, 0, 0, 5, 5]
            )  # the same shift for both classes of task 0
        x = tasks.train[2][0]
        loss = memory.loss(model, x, model(x), 2)
        assert float(loss) == pytest.approx(0, abs=1e-5) if task_known else float(loss) > 0.1
        assert not any(p.requires_grad for p in memory.old.parameters())
        assert memory.numbers == sum(p.numel() for p in model.parameters())


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


# ------------------------------------------------------------------------------------------- DER++
def test_dark_replay_stores_the_logits_of_the_images_it_keeps_for_the_classes_that_competed():
    tasks, model, memory = stream(False), network().double(), DarkReplay(stream(False), 7, 0.5)
    tasks = memory.stream = type(tasks)(
        *([(x.double(), y) for x, y in half] for half in (tasks.train, tasks.test)),
        tasks.classes_per_task,
        tasks.task_known,
    )
    memory.end_task(model, tasks, 0)
    first = [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3)
    memory.end_task(model, tasks, 1)
    per, box = tasks.classes_per_task, memory.buffer
    old = box.y // per == 0
    assert 0 < old.sum() < len(box), "both tasks are in the buffer"
    now = model(box.x).detach()
    with torch.no_grad():
        for p, q in zip(model.parameters(), first, strict=True):
            p.copy_(q)
    before = model(box.x).detach()
    torch.testing.assert_close(memory.logits[old][:, :per], before[old][:, :per])
    torch.testing.assert_close(memory.logits[~old][:, : 2 * per], now[~old][:, : 2 * per])
    assert (memory.logits[old][:, per:] == -torch.inf).all()
    assert memory.numbers == box.x.numel() + box.y.numel() + memory.logits.numel()


def test_dark_replay_is_replay_and_a_mean_squared_distance_over_what_competed():
    tasks, model = stream(False), network()
    dark, plain = DarkReplay(tasks, 6, 0.25, seed=3), Replay(tasks, 6, seed=3)
    for memory in (dark, plain):
        memory.end_task(model, tasks, 0)
    x = tasks.train[1][0][:4]
    assert dark.distance(model, 50) == 0
    with torch.no_grad():
        model.head.bias += 2.0  # every logit moves by two, so the distance is four
    torch.testing.assert_close(dark.distance(model, 50), torch.tensor(4.0))
    dark.buffer.generator.manual_seed(9)
    plain.buffer.generator.manual_seed(9)
    plus = dark.loss(model, x, None, 1) - plain.loss(model, x, None, 1)
    assert float(plus) == pytest.approx(0.25 * 4.0, abs=1e-4)
    gradients = torch.autograd.grad(dark.loss(model, x, None, 1), model.head.bias)[0]
    assert gradients[0] != 0 and torch.isfinite(gradients).all()


def test_a_buffer_that_takes_nothing_of_a_task_keeps_its_logits():
    tasks, model = stream(False), network()
    memory = DarkReplay(tasks, 1, 1.0, seed=0)
    memory.end_task(model, tasks, 0)
    memory.buffer.seen = 10**9  # from now on nothing is taken
    logits = memory.logits.clone()
    memory.end_task(model, tasks, 1)
    torch.testing.assert_close(memory.logits, logits)
