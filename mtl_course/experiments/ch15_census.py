"""Chapter 15: a table with two domains. Who earns more than 50,000 dollars, learned from men only.

The target are women, of whom far fewer do: a label shift as it occurs. Needs no Jupyter.
"""

from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .. import data
from ..data.census import census_tasks
from ..networks.trunks import Classifier, mlp
from ..transfer.adaptation import reversal_schedule
from ..transfer.alignment import mmd
from ..transfer.shift import target_shares
from .common import seeded, standardised

PEOPLE = 4000  # of each sex to train on; as many women for the test, half as many men held out


@cache
def table() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs without the column of sex [N, 34], income [N] (1 above 50,000 dollars), and sex."""
    x, labels = census_tasks()
    column = data.load("adult").names.tolist().index("gender: Male")
    return np.delete(x, column, axis=1), labels["income"], x[:, column] == 1


def people(seed: int) -> dict[str, Tensor]:
    """Draws without replacement, in units of the training men's mean and deviation.

    Returns:
        "x", "y": men to train on. "x_held", "y_held": further men. "x_target": women, without
        their income. "x_test", "y_test": further women, to be judged on.
    """
    x, y, male = table()
    draw = np.random.default_rng(seed)
    men, women = (draw.permutation(np.flatnonzero(rows)) for rows in (male, ~male))
    rows = {
        "": men[:PEOPLE],
        "_held": men[PEOPLE : PEOPLE * 3 // 2],
        "_target": women[:PEOPLE],
        "_test": women[PEOPLE : 2 * PEOPLE],
    }
    like = torch.from_numpy(x[rows[""]])
    parts = {
        f"x{end}": standardised(torch.from_numpy(x[some]), like, limit=5).float()
        for end, some in rows.items()
    }
    return parts | {f"y{end}": torch.from_numpy(y[rows[end]]) for end in ("", "_held", "_test")}


def train(
    x: Tensor, y: Tensor, x_target: Tensor, strength: float, seed: int, steps: int = 300
) -> Classifier:
    """A network with one hidden layer; `strength` is that of MMD, 0 for none."""
    model = seeded(lambda: Classifier(mlp([x.shape[1], 64]), 64, 2), seed)
    optimizer = torch.optim.Adam(model.parameters(), 0.003)
    g = torch.Generator().manual_seed(seed)
    for step in range(steps):
        rows = torch.randint(len(x), (128,), generator=g)
        others = torch.randint(len(x_target), (128,), generator=g)
        if strength:
            here, there = model.trunk(torch.cat([x[rows], x_target[others]])).split(128)
            now = strength * reversal_schedule(step / steps)
            loss = F.cross_entropy(model.head(here), y[rows]) + now * mmd(here, there)
        else:
            loss = F.cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def reweighted(chances: Tensor, shares: Tensor, source: Tensor) -> Tensor:
    """Chances of the classes [N, C] where they have other shares than in the source.

    By Bayes' rule each is multiplied by the ratio of the shares, and the sum is made 1 again.
    """
    weighted = chances * (shares / source).to(chances.dtype)
    return weighted / weighted.sum(dim=1, keepdim=True)


@torch.no_grad()
def judged(chances: Tensor, y: Tensor) -> dict[str, float]:
    """Log loss and accuracy of chances [N, C]."""
    return {
        "log loss": float(F.nll_loss(chances.clamp_min(1e-9).log(), y)),
        "accuracy": float((chances.argmax(dim=1) == y).float().mean()),
    }


def one_draw(seed: int, strength: float = 10.0) -> dict[str, dict[str, float]]:
    """Method -> log loss and accuracy on women that nothing was fitted to, and shares.

    "share": of the women that the estimate says earn so much, where there is one; of "truth", the
    true share in the test, which only the judging reads.
    """
    parts = people(seed)
    x, y, x_target = parts["x"], parts["y"], parts["x_target"]
    plain, aligned = (train(x, y, x_target, s, seed) for s in (0.0, strength))
    with torch.no_grad():
        chances = plain(parts["x_test"]).softmax(dim=1)
        held, bare = (plain(z).argmax(dim=1) for z in (parts["x_held"], x_target))
        moved = aligned(parts["x_test"]).softmax(dim=1)
    shares = target_shares(parts["y_held"], held, bare, classes=2)
    source = torch.bincount(y, minlength=2).double() / len(y)
    truth = torch.bincount(parts["y_test"], minlength=2).double() / len(parts["y_test"])
    share = {"share": float(shares[1])}
    corrected = reweighted(chances, shares, source)
    return {
        "men's network": judged(chances, parts["y_test"]) | {"share": float(source[1])},
        "MMD": judged(moved, parts["y_test"]),
        "shares corrected": judged(corrected, parts["y_test"]) | share,
        "true shares alone": judged(truth.expand(PEOPLE, 2), parts["y_test"])
        | {"share": float(truth[1])},
    }
