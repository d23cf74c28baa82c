"""The balanced backward against a naive loop with one full backward pass a task."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtl_course.multitask import balancing
from mtl_course.multitask.backward import balanced_backward


def dense():
    return nn.Sequential(
        nn.Linear(6, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 5), nn.ReLU()
    ), torch.randn(7, 6)


def convolutional():
    trunk = nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    )
    return trunk, torch.randn(7, 2, 6, 6)


def problem(make, T=3, dtype=torch.float64):
    """A trunk, its input, and T tasks: regression for the even ones, three classes for the odd
    ones.
    """
    torch.manual_seed(0)
    trunk, x = make()
    heads = [nn.Linear(5, 3 if t % 2 else 1) for t in range(T)]
    for module in (trunk, *heads):
        module.to(dtype)
    x = x.to(dtype)
    classes, values = torch.randint(0, 3, (len(x),)), torch.randn(len(x), 1, dtype=dtype)
    loss = [
        (
            (lambda out: F.cross_entropy(out, classes))
            if t % 2
            else (lambda out: F.mse_loss(out, values))
        )
        for t in range(T)
    ]
    tasks = {f"task{t}": lambda z, t=t: loss[t](heads[t](z)) for t in range(T)}
    return trunk, x, nn.ModuleList(heads), tasks


def naive(trunk, x, heads, tasks, weigh):
    """Gradients [trunk], [heads], and weights: one backward pass of the whole network for each
    task.
    """
    shared, own = list(trunk.parameters()), list(heads.parameters())
    per_task = [torch.autograd.grad(loss_of(trunk(x)), shared) for loss_of in tasks.values()]
    J = torch.stack([torch.cat([g.flatten() for g in gradients]) for gradients in per_task])
    w = weigh(balancing.gram(J))
    combined = [
        sum(w[t].to(g[i]) * g[i] for t, g in enumerate(per_task)) for i in range(len(shared))
    ]
    return (
        combined,
        torch.autograd.grad(sum(loss_of(trunk(x)) for loss_of in tasks.values()), own),
        w,
    )


@pytest.mark.parametrize("make", [dense, convolutional])
@pytest.mark.parametrize(
    "weigh", [balancing.upgrad, balancing.nash_mtl, balancing.mgda], ids=lambda m: m.__name__
)
@pytest.mark.parametrize("T", [1, 2, 5, 9, 11])
def test_equals_a_naive_loop(make, weigh, T):
    trunk, x, heads, tasks = problem(make, T)
    combined, own, w = naive(trunk, x, heads, tasks, weigh)
    done = balanced_backward(trunk(x), tasks, trunk.parameters(), weigh)
    torch.testing.assert_close(done.weights, w, rtol=1e-8, atol=1e-10)
    for parameter, expected in zip(trunk.parameters(), combined, strict=True):
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-10, atol=1e-10)
    for parameter, expected in zip(
        heads.parameters(), own, strict=True
    ):  # balancing never touches the heads
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-10, atol=1e-12)


def test_adds_to_gradients_that_are_there():
    trunk, x, heads, tasks = problem(dense)
    balanced_backward(trunk(x), tasks, trunk.parameters(), balancing.upgrad)
    once = [p.grad.clone() for p in (*trunk.parameters(), *heads.parameters())]
    balanced_backward(trunk(x), tasks, trunk.parameters(), balancing.upgrad)
    for p, g in zip((*trunk.parameters(), *heads.parameters()), once, strict=True):
        torch.testing.assert_close(p.grad, 2 * g)


def test_a_task_without_a_loss_is_left_out():
    trunk, x, heads, tasks = problem(dense)
    without = {**tasks, "task1": lambda z: None}
    done = balanced_backward(trunk(x), without, trunk.parameters(), balancing.upgrad)
    assert done.tasks == ("task0", "task2") and done.gram.shape == (2, 2)
    assert all(p.grad is None for p in heads[1].parameters())


def test_a_head_that_ignores_the_features_gives_a_zero_gradient():
    trunk, x, _heads, tasks = problem(dense)
    constant = nn.Parameter(torch.ones((), dtype=torch.float64))
    done = balanced_backward(
        trunk(x), {**tasks, "bias": lambda z: constant**2}, trunk.parameters(), balancing.pcgrad
    )
    assert done.gram[3].abs().max() == 0 and constant.grad == 2


def test_frozen_and_unreached_parameters_get_no_gradient():
    trunk, x, _heads, tasks = problem(dense)
    trunk[0].weight.requires_grad_(False)
    elsewhere = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    balanced_backward(trunk(x), tasks, [*trunk.parameters(), elsewhere], balancing.upgrad)
    assert (
        trunk[0].weight.grad is None and elsewhere.grad is None and trunk[0].bias.grad is not None
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_its_task_and_writes_nothing(bad):
    trunk, x, heads, tasks = problem(dense)
    tasks["task1"] = lambda z: z.sum() * bad
    with pytest.raises(FloatingPointError, match="'task1' is not finite"):
        balanced_backward(trunk(x), tasks, trunk.parameters(), balancing.upgrad)
    assert all(p.grad is None for p in (*trunk.parameters(), *heads.parameters()))


def test_a_gradient_that_is_not_finite_names_its_task_and_leaves_the_trunk_alone():
    trunk, x, _heads, tasks = problem(dense)
    tasks["task1"] = lambda z: (z * 0).sum().sqrt()  # the loss is 0, its gradient 0 / 0
    message = "gradient of task 'task1' is not finite, though its loss is"
    with pytest.raises(FloatingPointError, match=message):
        balanced_backward(trunk(x), tasks, trunk.parameters(), balancing.upgrad)
    assert all(p.grad is None for p in trunk.parameters())


@pytest.mark.parametrize(
    "weights, words",
    [
        (
            [1.0, 1.0],
            (
                r"gave \[1.0, 1.0\] for the tasks task0, task1, task2; it must return one finite"
                r" weight for each, \[3\]"
            ),
        ),
        ([[1.0], [1.0], [1.0]], "one finite weight for each"),
        ([1.0, float("nan"), 1.0], "mine gave .*nan"),
    ],
)
def test_a_method_with_bad_weights_is_named_and_leaves_the_trunk_alone(weights, words):
    trunk, x, _heads, tasks = problem(dense)

    def mine(G):
        return torch.tensor(weights)

    with pytest.raises(ValueError, match=words):
        balanced_backward(trunk(x), tasks, trunk.parameters(), mine)
    assert all(p.grad is None for p in trunk.parameters())


def test_a_loss_that_is_not_a_scalar_and_a_batch_without_labels_are_refused():
    trunk, x, _heads, _tasks = problem(dense)
    with pytest.raises(ValueError, match=r"'raw' has shape \(7, 5\)"):
        balanced_backward(trunk(x), {"raw": lambda z: z}, trunk.parameters(), balancing.upgrad)
    with pytest.raises(ValueError, match="No task has a loss"):
        balanced_backward(trunk(x), {"a": lambda z: None}, trunk.parameters(), balancing.upgrad)


def test_no_graph_is_left():
    trunk, x, _heads, tasks = problem(convolutional)
    z = trunk(x)
    balanced_backward(z, tasks, trunk.parameters(), balancing.upgrad)
    with pytest.raises(RuntimeError, match="second time"):
        z.sum().backward()


@pytest.mark.parametrize("make", [dense, convolutional])
def test_approximate_mode_balances_at_the_features(make):
    trunk, x, _heads, tasks = problem(make)
    z = trunk(x)
    V = torch.stack(
        [
            torch.autograd.grad(loss_of(z), z, retain_graph=True)[0].flatten()
            for loss_of in tasks.values()
        ]
    )
    w = balancing.upgrad(balancing.gram(V))
    expected = torch.autograd.grad(
        sum(w[t] * loss_of(z) for t, loss_of in enumerate(tasks.values())), list(trunk.parameters())
    )
    done = balanced_backward(
        trunk(x), tasks, trunk.parameters(), balancing.upgrad, approximate=True
    )
    torch.testing.assert_close(done.weights, w)
    for parameter, gradient in zip(trunk.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("make", [dense, convolutional])
def test_bfloat16_autocast_stays_near_full_precision(make):
    trunk, x, heads, tasks = problem(make, dtype=torch.float32)
    balanced_backward(trunk(x), tasks, trunk.parameters(), balancing.upgrad)
    exact = torch.cat([p.grad.flatten() for p in trunk.parameters()])
    for p in (*trunk.parameters(), *heads.parameters()):
        p.grad = None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        balanced_backward(trunk(x), tasks, trunk.parameters(), balancing.upgrad)
    rough = torch.cat([p.grad.flatten() for p in trunk.parameters()])
    assert rough.dtype == torch.float32 and (rough - exact).norm() < 0.05 * exact.norm()


def test_a_scaler_scales_the_gradients_and_not_the_weights():
    trunk, x, heads, tasks = problem(dense, dtype=torch.float32)
    parameters = [*trunk.parameters(), *heads.parameters()]
    plain = balanced_backward(trunk(x), tasks, trunk.parameters(), balancing.nash_mtl)
    expected = [p.grad.clone() for p in parameters]
    for p in parameters:
        p.grad = None
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaled = balanced_backward(
        trunk(x), tasks, trunk.parameters(), balancing.nash_mtl, scaler=scaler
    )
    torch.testing.assert_close(scaled.weights, plain.weights, rtol=1e-4, atol=1e-6)
    scaler.unscale_(optimizer := torch.optim.SGD(parameters, lr=0.1))
    for p, g in zip(parameters, expected, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-4, atol=1e-6)
    scaler.step(optimizer)


@pytest.mark.parametrize("make", [dense, convolutional])
def test_float16_autocast_with_a_scaler_stays_near_full_precision(make):
    trunk, x, heads, tasks = problem(make, dtype=torch.float32)
    parameters = [*trunk.parameters(), *heads.parameters()]
    exact = balanced_backward(trunk(x), tasks, trunk.parameters(), balancing.imtl_g)
    expected = torch.cat([p.grad.flatten() for p in parameters])
    for p in parameters:
        p.grad = None
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    with torch.autocast("cpu", dtype=torch.float16):
        z = trunk(x)
        assert z.dtype == torch.float16
        rough = balanced_backward(z, tasks, trunk.parameters(), balancing.imtl_g, scaler=scaler)
    scaler.unscale_(torch.optim.SGD(parameters, lr=0.1))
    found = torch.cat([p.grad.flatten() for p in parameters])
    assert found.dtype == torch.float32 and (found - expected).norm() < 0.02 * expected.norm()
    torch.testing.assert_close(rough.weights, exact.weights, rtol=0, atol=0.02)


def test_an_overflow_under_a_scaler_skips_the_step():
    trunk, x, heads, tasks = problem(dense, dtype=torch.float32)
    parameters = [*trunk.parameters(), *heads.parameters()]
    before = [p.detach().clone() for p in parameters]
    scaler = torch.amp.GradScaler("cpu", init_scale=3e38)
    balanced_backward(trunk(x), tasks, trunk.parameters(), balancing.upgrad, scaler=scaler)
    scaler.step(torch.optim.SGD(parameters, lr=0.1))
    scaler.update()
    assert (
        all(torch.equal(p, b) for p, b in zip(parameters, before, strict=True))
        and scaler.get_scale() < 3e38
    )
