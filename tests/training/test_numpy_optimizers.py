"""The optimizers by hand against torch.optim; what the theory says about a quadratic."""

import numpy as np
import pytest
import torch

from mtl_course.training.numpy_optimizers import Adam, GradientDescent, Momentum

PAIRS = {
    "gd": (lambda p: GradientDescent(p, 0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    "momentum": (
        lambda p: Momentum(p, 0.05, 0.9),
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    ),
    "adam": (lambda p: Adam(p, 0.02), lambda p: torch.optim.Adam(p, lr=0.02)),
    "adam, other settings": (
        lambda p: Adam(p, 0.02, (0.5, 0.9), 1e-3),
        lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.5, 0.9), eps=1e-3),
    ),
}


def problem(seed):
    """A small network's parameters, and its loss and gradients by torch, in double precision."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(20, 4, generator=g, dtype=torch.float64)
    y = torch.randn(20, 2, generator=g, dtype=torch.float64)
    start = [
        torch.randn(4, 5, generator=g, dtype=torch.float64),
        torch.randn(5, generator=g, dtype=torch.float64),
        torch.randn(5, 2, generator=g).double(),
    ]

    def gradients(parameters):
        leaves = [torch.as_tensor(p).detach().clone().requires_grad_() for p in parameters]
        loss = ((torch.tanh(x @ leaves[0] + leaves[1]) @ leaves[2] - y) ** 2).mean()
        return torch.autograd.grad(loss, leaves)

    return start, gradients


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("seed", range(3))
def test_a_hundred_steps_are_torchs(name, seed):
    ours, theirs = PAIRS[name]
    start, gradients = problem(seed)
    mine, other = [p.numpy().copy() for p in start], [p.clone().requires_grad_() for p in start]
    by_hand, by_torch = ours(mine), theirs(other)
    for _ in range(100):
        by_hand.step([g.numpy() for g in gradients(mine)])
        for p, g in zip(other, gradients(other), strict=True):
            p.grad = g
        by_torch.step()
    apart = [np.abs(m - o.detach().numpy()).max() for m, o in zip(mine, other, strict=True)]
    moved = [np.abs(m - s.numpy()).max() for m, s in zip(mine, start, strict=True)]
    assert max(apart) < 1e-7 and max(moved) > 0.1


def test_the_first_step_of_adam_has_the_size_of_the_rate_whatever_the_gradient():
    for size in (1e-4, 1.0, 1e4):
        theta = np.zeros(3)
        Adam([theta], 0.01, epsilon=1e-30).step([size * np.array([1.0, -2.0, 3.0])])
        np.testing.assert_allclose(theta, [-0.01, 0.01, -0.01], rtol=1e-6)


def test_without_the_correction_the_first_step_is_too_long():
    theta = np.zeros(1)
    Adam([theta], 0.01, epsilon=1e-30, corrected=False).step([np.ones(1)])
    np.testing.assert_allclose(theta, [-0.01 * 0.1 / np.sqrt(0.001)], rtol=1e-6)


def test_gradient_descent_converges_below_two_over_the_curvature_and_not_above():
    for rate, small in ((1.9 / 5, True), (2.1 / 5, False)):
        theta = np.array([1.0, 1.0])
        optimizer = GradientDescent([theta], rate)
        for _ in range(200):
            optimizer.step([np.array([1.0, 5.0]) * theta])
        assert (np.abs(theta).max() < 1e-3) == small


def test_momentum_multiplies_the_rate_of_a_constant_gradient():
    theta = np.zeros(1)
    optimizer = Momentum([theta], 0.1, 0.9)
    for _ in range(300):
        before = theta.copy()
        optimizer.step([np.ones(1)])
    np.testing.assert_allclose(before - theta, 0.1 / (1 - 0.9), rtol=1e-6)


def test_a_missing_gradient_is_an_error():
    with pytest.raises(ValueError):
        Adam([np.zeros(2), np.zeros(3)]).step([np.zeros(2)])
