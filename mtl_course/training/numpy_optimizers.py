"""Gradient descent, momentum and Adam in NumPy: what `torch.optim` does, in a few lines each.

An optimizer holds the parameters (float arrays, changed in place) and what it must remember between
two steps. The tests compare a hundred steps of each with torch's.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class GradientDescent:
    """``theta <- theta - rate * g``. Nothing to remember.

    Args:
        params: float arrays theta, changed in place by ``step(gradients)``.
        rate: the learning rate.

    Example:
        >>> theta = np.array([1.0, -2.0])
        >>> GradientDescent([theta], rate=0.5).step([np.array([1.0, 1.0])])
        >>> theta.tolist()
        [0.5, -2.5]
    """

    def __init__(self, params: Sequence[NDArray], rate: float):
        self.params, self.rate = list(params), rate

    def step(self, gradients: Sequence[NDArray]) -> None:
        """Change the parameters in place; one gradient per parameter, in order and of its shape."""
        for theta, g in zip(self.params, gradients, strict=True):
            theta -= self.rate * g


class Momentum:
    """Heavy ball: ``v <- momentum * v + g``, then ``theta <- theta - rate * v``.

    v is 0 at the start. A constant gradient is followed at 1 / (1 - momentum) times the rate.

    Args:
        params: float arrays theta, changed in place by ``step(gradients)``.
        rate: the learning rate.
        momentum: in [0, 1), how much of v stays.

    Source:
        Polyak, "Some methods of speeding up the convergence of iteration methods", USSR Comput.
        Math. Math. Phys. 4(5), 1964, in the form of `torch.optim.SGD`, in which the rate stands
        outside v.

    Example:
        >>> theta = np.zeros(1)
        >>> optimizer = Momentum([theta], rate=1.0, momentum=0.5)
        >>> for _ in range(3):
        ...     optimizer.step([np.ones(1)])
        ...     print(theta)
        [-1.]
        [-2.5]
        [-4.25]
    """

    def __init__(self, params: Sequence[NDArray], rate: float, momentum: float = 0.9):
        self.params, self.rate, self.momentum = list(params), rate, momentum
        self.v = [np.zeros_like(theta) for theta in self.params]

    def step(self, gradients: Sequence[NDArray]) -> None:
        """As in `GradientDescent`."""
        for theta, g, v in zip(self.params, gradients, self.v, strict=True):
            v *= self.momentum
            v += g
            theta -= self.rate * v


class Adam:
    """``theta <- theta - rate * m / sqrt(s)`` with running means m of g and s of g squared.

    Both means are corrected for their start at zero.

    Args:
        params: float arrays theta, changed in place by ``step(gradients)``.
        rate: the learning rate: about the length of a step in each entry.
        betas: how much of m and of s stays at a step.
        epsilon: added to sqrt(s).
        corrected: False leaves the bias correction out, to see what it is for.

    Source:
        Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1 (their v
        is this s).

    Example:
        >>> theta = np.zeros(2)
        >>> Adam([theta], rate=0.01).step([np.array([1e-3, -1e3])])
        >>> print(theta.round(4))  # the first step has the size of the rate, whatever the gradient
        [-0.01  0.01]
    """

    def __init__(
        self,
        params: Sequence[NDArray],
        rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        corrected: bool = True,
    ):
        self.params, self.rate, self.betas = list(params), rate, betas
        self.epsilon, self.corrected = epsilon, corrected
        self.m = [np.zeros_like(theta) for theta in self.params]
        self.s = [np.zeros_like(theta) for theta in self.params]
        self.steps = 0

    def step(self, gradients: Sequence[NDArray]) -> None:
        """As in `GradientDescent`."""
        self.steps += 1
        b1, b2 = self.betas
        c1, c2 = (1 - b1**self.steps, 1 - b2**self.steps) if self.corrected else (1.0, 1.0)
        for theta, g, m, s in zip(self.params, gradients, self.m, self.s, strict=True):
            m += (1 - b1) * (g - m)
            s += (1 - b2) * (g**2 - s)
            theta -= self.rate * (m / c1) / (np.sqrt(s / c2) + self.epsilon)
