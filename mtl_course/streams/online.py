"""Models that learn from a stream one example at a time, tested on each before it is learned.

A learner has `predict(x)`, the forecast for inputs [d] (a float), and `learn(x, y)`, called with
the truth afterwards.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Learner(Protocol):
    """What `prequential` needs of a model."""

    def predict(self, x: NDArray) -> float:
        """The forecast for inputs [d]."""
        ...

    def learn(self, x: NDArray, y: float) -> None:
        """Take the truth for inputs [d]."""
        ...


def prequential(learner: Learner, x: NDArray, y: NDArray) -> NDArray:
    """Errors of a learner that forecasts each target before it learns it.

    Args:
        learner: changed in place.
        x: inputs [T, d], in their order of arrival.
        y: targets [T].

    Returns:
        Errors [T], target minus forecast, in the targets' unit.

    Raises:
        ValueError: there are no examples, or not as many targets as inputs.
        FloatingPointError: a forecast is not finite; it names the example, and the rate of a
            learner that has one.

    Source:
        Gama, Sebastião and Rodrigues, "On evaluating stream learning algorithms", Machine Learning
        90, 2013.

    Example:
        A level of 8 that is learned by halves.

        >>> from mtl_course.streams import OnlineSgd, prequential
        >>> ones = np.ones((4, 1))
        >>> prequential(OnlineSgd(np.zeros(1), rate=1.0), ones, 8 * ones[:, 0]).tolist()
        [8.0, 4.0, 2.0, 1.0]
    """
    if len(x) != len(y) or not len(y):
        raise ValueError(
            f"There are {len(x)} inputs and {len(y)} targets; as many of each are needed, and at"
            " least one."
        )
    errors = np.empty(len(y))
    for t, (inputs, target) in enumerate(zip(x, y, strict=True)):
        errors[t] = target - learner.predict(inputs)
        if not np.isfinite(errors[t]):
            rate = f" with a rate of {learner.rate:g}" if hasattr(learner, "rate") else ""
            raise FloatingPointError(
                f"The error of example {t} is not finite{rate}."
                " Lower the rate; look for inputs and targets that are not finite."
            )
        learner.learn(inputs, target)
    return errors


class Linear:
    """A linear forecast w . x that never learns.

    It is what the others start from, and the static model with the weights of a fit.

    Args:
        w: weights [d]; they are copied.

    Example:
        >>> from mtl_course.streams import Linear
        >>> model = Linear([2.0, -1.0])
        >>> model.learn(np.ones(2), 100.0)
        >>> model.predict(np.array([3.0, 1.0]))
        5.0
    """

    def __init__(self, w: NDArray):
        self.w = np.array(w, dtype=float)

    def predict(self, x: NDArray) -> float:
        """The forecast for inputs [d]."""
        return float(self.w @ x)

    def learn(self, x: NDArray, y: float) -> None:
        """Nothing is learned."""


class OnlineSgd(Linear):
    """A gradient step on each example, divided by the size of its inputs.

    ``w += rate * error * x / (1 + |x|^2)``. A rate between 0 and 2 shrinks the error on the example
    just seen (normalised least mean squares, in adaptive filtering).

    Args:
        w: the weights to start from, [d].
        rate: of the step.

    Example:
        >>> from mtl_course.streams import OnlineSgd
        >>> model = OnlineSgd(np.zeros(1), rate=1.0)
        >>> model.learn(np.ones(1), 8.0)
        >>> model.predict(np.ones(1))
        4.0
    """

    def __init__(self, w: NDArray, rate: float):
        super().__init__(w)
        self.rate = rate

    def learn(self, x: NDArray, y: float) -> None:
        """One step on the squared error of this example."""
        self.w += self.rate * (y - self.predict(x)) * x / (1 + x @ x)


class Rls(Linear):
    """Recursive least squares with a forgetting factor.

    After n examples w minimises

    ``sum_t forgetting^(n - t) (y_t - w . x_t)^2 + forgetting^n ridge |w - w_0|^2``,

    in O(d^2) per example instead of a fit from the start.

    Args:
        w: the weights w_0 to start from, [d].
        forgetting: 1 forgets nothing; about 1 / (1 - forgetting) examples are remembered.
        ridge: how strongly w is held to w_0.

    Raises:
        ValueError: the forgetting factor is outside (0, 1], or the ridge is not positive.

    Example:
        Nothing is known but that w is near 0, with the weight of one example: the mean of 0 and 8.

        >>> from mtl_course.streams import Rls
        >>> model = Rls(np.zeros(1), ridge=1.0)
        >>> model.learn(np.ones(1), 8.0)
        >>> model.predict(np.ones(1))
        4.0
    """

    def __init__(self, w: NDArray, forgetting: float = 1.0, ridge: float = 1.0):
        if not 0 < forgetting <= 1 or ridge <= 0:
            raise ValueError(
                "forgetting must lie in (0, 1] and ridge above 0;"
                f" they are {forgetting} and {ridge}."
            )
        super().__init__(w)
        self.forgetting, self.P = forgetting, np.eye(len(self.w)) / ridge

    def learn(self, x: NDArray, y: float) -> None:
        """Update w and P, the inverse of the weighted second moments."""
        Px = self.P @ x
        gain = Px / (self.forgetting + x @ Px)
        self.w += gain * (y - self.predict(x))
        self.P = (self.P - np.outer(gain, Px)) / self.forgetting


class Window(Linear):
    """Ridge regression towards the first weights, on the last examples alone.

    It is fitted anew after every example.

    Args:
        w: the weights that it is held to, [d].
        length: how many examples it keeps.
        ridge: how strongly it is held to w.

    Example:
        With one example kept, the 100 is forgotten: the mean of 0 and 2.

        >>> from mtl_course.streams import Window
        >>> model = Window(np.zeros(1), length=1)
        >>> for target in (100.0, 2.0):
        ...     model.learn(np.ones(1), target)
        >>> model.predict(np.ones(1))
        1.0
    """

    def __init__(self, w: NDArray, length: int, ridge: float = 1.0):
        super().__init__(w)
        self.start, self.length, self.ridge = self.w.copy(), length, ridge
        self.x: list[NDArray] = []
        self.y: list[float] = []

    def learn(self, x: NDArray, y: float) -> None:
        """Fit the last examples, this one among them."""
        self.x, self.y = [*self.x, x][-self.length :], [*self.y, y][-self.length :]
        X = np.array(self.x)
        residual = np.array(self.y) - X @ self.start
        normal = X.T @ X + self.ridge * np.eye(X.shape[1])
        self.w = self.start + np.linalg.solve(normal, X.T @ residual)
