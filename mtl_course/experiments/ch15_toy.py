"""Chapter 15's toy, drawn: two domains, a boundary, and what the head sees. Needs no Jupyter."""

import numpy as np
import torch
from torch import Tensor, nn

from .. import plots

Labelled = tuple[Tensor, Tensor]  # inputs [n, 2] and labels [n], 0 or 1


def show_plane(ax, model: nn.Module, source: Labelled, target: Labelled) -> None:
    """Draw the inputs of both domains, and the boundary between the classes as a dashed line.

    Circles and crosses are the source's classes 0 and 1, squares and plus signs the target's.
    """
    for (x, y), role, marks in ((source, "source", "ox"), (target, "target", "s+")):
        for c in (0, 1):
            style = {"color": plots.ROLES[role], "ms": 5, "mew": 1.5, "ls": ""}
            ax.plot(*x[y == c].T, marks[c], alpha=0.8, **style)
    across, up = torch.meshgrid(
        torch.linspace(-2.2, 3.6, 80), torch.linspace(-2.6, 2.6, 80), indexing="xy"
    )
    with torch.no_grad():
        logits = model(torch.stack([across, up], dim=2).view(-1, 2)).view(80, 80, 2)
    ahead = np.asarray(logits[:, :, 1] - logits[:, :, 0])
    ax.contour(across, up, ahead, levels=[0.0], colors="black", linestyles="--")
    ax.set(xlim=(-2.2, 3.6), ylim=(-2.6, 2.6), xlabel="first input", ylabel="second input")


def show_scores(ax, model: nn.Module, source: Labelled, target: Labelled) -> None:
    """Draw how the head's scores, class 1 against class 0, are spread in both domains."""
    edges = np.linspace(-1, 1, 21)
    for (x, _), role, style in ((source, "source", "-"), (target, "target", "--")):
        with torch.no_grad():
            score = torch.tanh((model(x)[:, 1] - model(x)[:, 0]) / 4)
        counts, _ = np.histogram(np.asarray(score), edges)
        ax.stairs(counts, edges, color=plots.ROLES[role], ls=style, lw=2, label=role)
    ax.axvline(0, color="black", ls="--", lw=1)
    ax.set(xlim=(-1, 1), ylim=(0, 80), xticks=(-1, -0.5, 0, 0.5, 1), ylabel="examples")
    ax.set_xlabel("score, from class 0 to class 1")
    ax.legend(fontsize=9, loc="upper center")
