"""Exercises of chapter 24: Build and ship."""

import torch

from ..checks.exercise import exercise
from .inputs import whole


# ------------------------------------------------------------------------------- 1. weighted mean
def _values_and_weights(g):
    """Values of either sign, and positive weights whose sum is not one."""
    n = whole(g, 2, 7)
    return torch.randn(n, generator=g), torch.rand(n, generator=g) + 0.1


@exercise(
    [_values_and_weights],
    points=1,
    hints=(
        "How would you average three values, if the first counted twice?",
        "Add up weight times value, then divide by the sum of the weights:"
        " `(w * v).sum() / w.sum()`.",
    ),
)
def build_and_ship_mean(values, weights):
    """The mean of `values` [n] with `weights` [n], which are
    positive and need not sum to one. Return a scalar tensor.
    """
    ### BEGIN SOLUTION
    return (weights * values).sum() / weights.sum()
    ### END SOLUTION


@build_and_ship_mean.law("does not change when all weights are doubled")
def _(answer, values, weights):
    return torch.allclose(answer(values, 2 * weights), answer(values, weights))


@build_and_ship_mean.mistake("The weights need not sum to one: divide by their sum.")
def _(values, weights):
    return (weights * values).sum()


@build_and_ship_mean.mistake("You leave the weights out: each value counts as its weight says.")
def _(values, weights):
    return values.mean()
