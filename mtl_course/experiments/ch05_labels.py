"""Chapter 5: two digits in one image, and a share of one digit's labels drawn at random.

Which weight does each way to add the two losses give the spoilt task, and what does that do to the
clean one? The labels of the left digit are spoilt in the training and in the validation images, as
nobody would know which are wrong; the test labels are clean. Needs no Jupyter.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..data.batches import Table
from ..multitask import weighting
from ..records.pieces import kept
from .ch06_digits import CPU, Plan, fit, tables, test_accuracy

SPOILT, CLEAN = "left", "right"
SEARCH, ALONE = "searched", "clean task alone"


@dataclass(frozen=True)
class LabelsPlan:
    """Sizes of the experiment.

    Args:
        digits: sizes of data, network and training.
        shares: of the spoilt task's labels that are drawn at random.
        rate: of Adam, for every run.
        weights: of the spoilt task's loss that the searched sum tries; the clean one's is 1.
    """

    digits: Plan = field(default_factory=lambda: CPU)
    shares: tuple[float, ...] = (0.0, 0.5, 0.9)
    rate: float = 10**-2.5
    weights: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


METHODS: dict[str, Callable[[], weighting.Weighting]] = {
    "equal": weighting.EqualWeights,
    "uncertainty": lambda: weighting.Uncertainty([False, False]),
    "geometric mean": weighting.GeometricMean,
    "DWA": weighting.DWA,
    "GradNorm": lambda: weighting.GradNorm(2),
    "FAMO": lambda: weighting.FAMO(tasks=2),
}


class Watched(weighting.Weighting):
    """Another weighting, and what it does: the share of the first task in each step's weights.

    Args:
        inner: the weighting that combines the losses.
    """

    def __init__(self, inner: weighting.Weighting):
        super().__init__()
        self.inner, self.shares = inner, []
        self.wants_losses_after_step = inner.wants_losses_after_step

    def before_backward(self, losses: Tensor, shared) -> None:
        self.inner.before_backward(losses, shared)

    def forward(self, losses: Tensor) -> Tensor:
        copy = losses.detach().clone().requires_grad_()
        (weights,) = torch.autograd.grad(self.inner(copy), copy)
        self.shares.append(float(weights[0] / weights.sum()))
        return self.inner(losses)

    def after_step(self, losses: Tensor) -> None:
        self.inner.after_step(losses)

    def end_epoch(self, losses: Tensor) -> None:
        self.inner.end_epoch(losses)


def spoilt(table: Table, share: float, seed: int) -> Table:
    """The same images, with a random share of the left digit's labels drawn anew, each class alike.

    A label drawn anew may be the right one by chance.
    """
    right = table.targets[SPOILT]
    draw = torch.Generator().manual_seed(seed)
    wrong = torch.rand(len(right), generator=draw) < share
    random = torch.randint(10, (len(right),), generator=draw)
    labels = torch.where(wrong.to(right.device), random.to(right.device), right)
    return Table(table.x, table.targets | {SPOILT: labels})


def one_seed(plan: LabelsPlan, share: float, seed: int) -> dict[str, dict[str, float]]:
    """Method -> clean test accuracy of each task, in per cent, and the spoilt task's mean "weight".

    The weight is its share of the two, mean over all steps. `SEARCH` is the sum whose weight
    validation images chose, with the labels as they are there; `ALONE` has no spoilt task.
    """
    parts = tables(plan.digits, seed)
    seen = parts | {
        part: spoilt(parts[part], share, 2 * seed + k)
        for k, part in enumerate(("train", "validation"))
    }

    def judged(method: weighting.Weighting) -> tuple[float, dict[str, float]]:
        watched = Watched(method)
        model, validation = fit(watched, plan.rate, plan.digits, seed, seen)
        row = {task: round(100 * a, 3) for task, a in test_accuracy(model, parts).items()}
        return validation, row | {"weight": round(float(np.mean(watched.shares)), 4)}

    rows = {method: judged(build())[1] for method, build in METHODS.items()}
    runs = [judged(weighting.Fixed([w, 1.0])) for w in plan.weights]
    rows[SEARCH] = max(runs, key=lambda run: run[0])[1]
    alone, _ = fit(None, plan.rate, plan.digits, seed, parts, names=[CLEAN])
    return rows | {ALONE: {CLEAN: round(100 * test_accuracy(alone, parts)[CLEAN], 3)}}


def run(
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: LabelsPlan | None = None,
) -> dict:
    """Share (as text) -> one entry per seed, as `one_seed` gives them. Plain JSON.

    About 8 seconds per seed and share on one thread.
    """
    plan = plan or LabelsPlan()
    results = {f"{share:g}": [] for share in plan.shares}
    for seed in seeds:
        for share in plan.shares:
            piece = kept(f"{plan}, {share:g}, seed {seed}", one_seed, plan, share, seed)
            results[f"{share:g}"].append(piece)
            line = ", ".join(f"{m} {row[CLEAN]:.1f}" for m, row in piece.items())
            report(f"seed {seed}, {share:.0%} spoilt, clean task: {line}")
    return results
