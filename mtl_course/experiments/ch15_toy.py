"""Chapter 15's toy, drawn: the features of a small network, of two domains. Needs no Jupyter."""

import numpy as np
import torch
from torch import Tensor, nn

from .. import plots


@torch.no_grad()
def show_features(
    ax, model: nn.Module, source: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor]
) -> None:
    """Draw the features of two classes in two domains, and the head's boundary.

    Args:
        ax: matplotlib's axes.
        model: a `Classifier` with two features and two classes.
        source: inputs [n, 2] and labels [n], 0 or 1: circles and crosses.
        target: the same: squares and plus signs.
    """
    sides = ((source, plots.COLORS[5], "ox"), (target, plots.COLORS[1], "s+"))
    for (x, y), color, marks in sides:
        z = model.trunk(x)
        for c in (0, 1):
            ax.plot(*z[y == c].T, marks[c], color=color, ms=5, mew=1.5, ls="")
    w = model.head.weight[1] - model.head.weight[0]
    bias = model.head.bias[1] - model.head.bias[0]
    # The boundary w . z + bias = 0, from its point nearest to the origin on, to both sides.
    nearest, along = -bias * w / (w @ w), torch.stack([-w[1], w[0]]) / w.norm()
    ends = torch.stack([nearest - 4 * along, nearest + 4 * along])
    ax.plot(*np.asarray(ends).T, "k--", lw=1.5)
    ax.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), xlabel="first feature", ylabel="second feature")
