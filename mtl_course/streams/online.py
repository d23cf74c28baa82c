"""Models that learn from a stream one example at a time, and the error of testing each example
before it is learned.

A learner has `predict(x)`, the forecast for inputs [d] (a float), and `learn(x, y)`, called with
the truth afterwards.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Learner(Protocol):
    def predict(self, x: NDArray) -> float: ...

    def learn(self, x: NDArray, y: float) -> None: ...


def prequential(learner: Learner, x: NDArray, y: NDArray) -> NDArray:
    """Errors y - forecast [T] of a learner that sees x [T, d] in order: each target is forecast,
    then learned.

    Source: Gama, Sebastião and Rodrigues, "On evaluating stream learning algorithms", Machine
    Learning 90, 2013.
    """
    errors = np.empty(len(y))
    for t, (inputs, target) in enumerate(zip(x, y, strict=True)):
        errors[t] = target - learner.predict(inputs)
        learner.learn(inputs, target)
    return errors


class Linear:
    """A linear forecast w . x that never learns: what the others start from, and the static model
    with the weights of a fit.
    """

    def __init__(self, w: NDArray):
        self.w = np.array(w, dtype=float)

    def predict(self, x: NDArray) -> float:
        return float(self.w @ x)

    def learn(self, x: NDArray, y: float) -> None:
        pass


class OnlineSgd(Linear):
    """A gradient step on each example, divided by the size of its inputs: ``w += rate * error * x /
    (1 + |x|^2)``.

    A rate between 0 and 2 shrinks the error on the example just seen (normalised least mean
    squares, in adaptive filtering).
    """

    def __init__(self, w: NDArray, rate: float):
        super().__init__(w)
        self.rate = rate

    def learn(self, x: NDArray, y: float) -> None:
        self.w += self.rate * (y - self.predict(x)) * x / (1 + x @ x)


class Rls(Linear):
    """Recursive least squares with a forgetting factor: after n examples w minimises

    ``sum_t forgetting^(n - t) (y_t - w . x_t)^2 + forgetting^n ridge |w - w_0|^2``,

    in O(d^2) an example instead of a fit from the start. forgetting 1 forgets nothing; about 1 / (1
    - forgetting) examples are remembered. ValueError for a forgetting factor outside (0, 1] or a
    ridge that is not positive.
    """

    def __init__(self, w: NDArray, forgetting: float = 1.0, ridge: float = 1.0):
        if not 0 < forgetting <= 1 or ridge <= 0:
            raise ValueError(
                f"forgetting must lie in (0, 1] and ridge above 0; they are {forgetting} and"
                f" {ridge}."
            )
        super().__init__(w)
        self.forgetting, self.P = forgetting, np.eye(len(self.w)) / ridge

    def learn(self, x: NDArray, y: float) -> None:
        Px = self.P @ x
        gain = Px / (self.forgetting + x @ Px)
        self.w += gain * (y - self.predict(x))
        self.P = (self.P - np.outer(gain, Px)) / self.forgetting


class Window(Linear):
    """Ridge regression towards the first weights, fitted anew after every example to the last
    `length` of them.
    """

    def __init__(self, w: NDArray, length: int, ridge: float = 1.0):
        super().__init__(w)
        self.start, self.length, self.ridge = self.w.copy(), length, ridge
        self.x: list[NDArray] = []
        self.y: list[float] = []

    def learn(self, x: NDArray, y: float) -> None:
        self.x, self.y = [*self.x, x][-self.length :], [*self.y, y][-self.length :]
        X = np.array(self.x)
        residual = np.array(self.y) - X @ self.start
        self.w = self.start + np.linalg.solve(
            X.T @ X + self.ridge * np.eye(X.shape[1]), X.T @ residual
        )
