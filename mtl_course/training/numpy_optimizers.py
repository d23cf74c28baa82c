"""Gradient descent, momentum and Adam in NumPy: what `torch.optim` does, in a few lines each.

An optimizer holds the parameters (float arrays, changed in place) and what it must remember between
two steps. The tests compare a hundred steps of each with torch's.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class GradientDescent:
    """``theta <- theta - rate * g``. Nothing to remember."""

    def __init__(self, parameters: Sequence[NDArray], rate: float):
        self.parameters, self.rate = list(parameters), rate

    def step(self, gradients: Sequence[NDArray]) -> None:
        """Change the parameters in place. gradients: one array a parameter, in the same order and
        of the same shape.
        """
        for theta, g in zip(self.parameters, gradients, strict=True):
            theta -= self.rate * g


class Momentum:
    """Heavy ball: ``v <- momentum * v + g``, then ``theta <- theta - rate * v``, with v = 0 at the
    start.

    A constant gradient is followed at 1 / (1 - momentum) times the rate. Source: Polyak, USSR
    Comput. Math. Math. Phys. 4(5), 1964, in the form of `torch.optim.SGD`, in which the rate stands
    outside v.
    """

    def __init__(self, parameters: Sequence[NDArray], rate: float, momentum: float = 0.9):
        self.parameters, self.rate, self.momentum = list(parameters), rate, momentum
        self.v = [np.zeros_like(theta) for theta in self.parameters]

    def step(self, gradients: Sequence[NDArray]) -> None:
        """As in `GradientDescent`."""
        for theta, g, v in zip(self.parameters, gradients, self.v, strict=True):
            v *= self.momentum
            v += g
            theta -= self.rate * v


class Adam:
    """``theta <- theta - rate * m / sqrt(s)`` with running means m of g and s of g squared, both
    corrected for their start at zero.

    Source: Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1
    (their v is this s). `corrected=False` leaves the bias correction out, to see what it is for.
    """

    def __init__(
        self,
        parameters: Sequence[NDArray],
        rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        corrected: bool = True,
    ):
        self.parameters, self.rate, self.betas = list(parameters), rate, betas
        self.epsilon, self.corrected = epsilon, corrected
        self.m = [np.zeros_like(theta) for theta in self.parameters]
        self.s = [np.zeros_like(theta) for theta in self.parameters]
        self.steps = 0

    def step(self, gradients: Sequence[NDArray]) -> None:
        """As in `GradientDescent`."""
        self.steps += 1
        b1, b2 = self.betas
        c1, c2 = (1 - b1**self.steps, 1 - b2**self.steps) if self.corrected else (1.0, 1.0)
        for theta, g, m, s in zip(self.parameters, gradients, self.m, self.s, strict=True):
            m += (1 - b1) * (g - m)
            s += (1 - b2) * (g**2 - s)
            theta -= self.rate * (m / c1) / (np.sqrt(s / c2) + self.epsilon)
