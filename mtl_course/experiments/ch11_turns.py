"""Chapter 11, priorities: weights, orders, and a stop per task, on a frozen pretrained encoder.

Three tasks over reviews share a small network on the features of all-MiniLM-L6-v2, from few labels.
*Recommend* is the one that matters. It may weigh more, come first or last, or each task may leave
the sum once it no longer gains. Needs no Jupyter.
"""

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..records.pieces import kept
from .ch11_encoder import Top, states_of
from .ch11_tasks import TASKS, score, task_loss
from .common import seeded

FIRST = "recommend"
TOGETHER, WEIGHT, EARLY, LATE, REST, ALONE = (
    "together",
    "recommend weighs 5 times",
    "recommend first",
    "recommend last",
    "a stop per task",
    "each alone",
)
WAYS = (TOGETHER, WEIGHT, EARLY, LATE, REST, ALONE)
Turn = Callable[[int, Mapping[str, int]], Collection[str]]


@dataclass(frozen=True)
class Plan:
    """Sizes and settings.

    Args:
        pool: reviews that all splits are drawn from, themselves drawn once.
        length: tokens of the longest of them: they are read whole.
        labels: reviews to train on.
        validation: reviews that choose rates and stops.
        features: of the shared hidden layer.
        priority: weight of the other two tasks' losses beside that of `FIRST`.
        rates: of Adam, that every way may try.
        steps: of Adam.
        looks: how often validation looks, evenly spread.
        batch: reviews per step.
    """

    pool: int = 1400
    length: int = 32
    labels: int = 300
    validation: int = 300
    features: int = 64
    priority: float = 0.2
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
    steps: int = 200
    looks: int = 10
    batch: int = 32


@cache
def features_of(pool: int, length: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Frozen features [pool, 384] of reviews, of deviation 1 overall, and labels by task."""
    encoder, states, there, targets = states_of(pool, length, 5)
    with torch.no_grad():
        parts = zip(states.split(100), there.split(100), strict=True)
        z = torch.cat([Top(encoder, 5, ()).features(*part) for part in parts])
    return z / z.std(), targets


class Small(nn.Module):
    """A hidden layer for all tasks, and a head for each that begins at 0."""

    def __init__(self, inputs: int, features: int, tasks: Sequence[str]):
        super().__init__()
        self.trunk = nn.Linear(inputs, features)
        self.heads = nn.ModuleDict({n: nn.Linear(features, TASKS[n]) for n in tasks})
        for head in self.heads.values():
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def forward(self, z: Tensor) -> dict[str, Tensor]:
        """Task -> outputs [B, classes]."""
        h = F.relu(self.trunk(z))
        return {name: head(h) for name, head in self.heads.items()}


def scores(model: Small, z: Tensor, targets: Mapping[str, Tensor]) -> dict[str, float]:
    """Task -> score of a network on rows z with these labels."""
    with torch.no_grad():
        outputs = {n: y.numpy() for n, y in model(z).items()}
    return {
        n: score(n, y[:, 0] if y.shape[1] == 1 else y, targets[n].numpy())
        for n, y in outputs.items()
    }


def turns(plan: Plan) -> dict[str, Turn]:
    """Way -> (step, task -> step of its best look so far) -> the tasks whose losses count.

    With a stop per task, a loss counts no more after a look that did not better the task's score.
    It counts again if a later look does, and all count where none is left.
    """
    half, look = plan.steps // 2, plan.steps // plan.looks

    def early(step, best):
        return (FIRST,) if step <= half else TASKS

    def late(step, best):
        return TASKS if step <= half else (FIRST,)

    def rest(step, best):
        seen = (step - 1) // look * look  # the last look
        return [name for name in TASKS if best.get(name, seen) == seen] or TASKS

    return {EARLY: early, LATE: late, REST: rest}


def train(
    plan: Plan,
    z: Tensor,
    targets: Mapping[str, Tensor],
    rows: Mapping[str, Tensor],
    rate: float,
    seed: int,
    weights: Mapping[str, float],
    turn: Turn | None = None,
) -> dict:
    """One network at one rate: task -> (best validation score, step, the network as it was then).

    Args:
        plan: sizes.
        z: features of all reviews.
        targets: task -> labels of all reviews, the stars standardised.
        rows: "train" and "validation".
        rate: of Adam.
        seed: of the start and the batches.
        weights: task -> what its loss counts; these are the tasks.
        turn: whose losses count at a step; None: all, always.
    """
    model = seeded(lambda: Small(z.shape[1], plan.features, list(weights)), seed)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    g, best = torch.Generator().manual_seed(seed), {}
    held = {name: targets[name][rows["validation"]] for name in weights}
    for step in range(1, plan.steps + 1):
        some = rows["train"][torch.randint(len(rows["train"]), (plan.batch,), generator=g)]
        on = turn(step, {n: row[1] for n, row in best.items()}) if turn else weights
        outputs = model(z[some])
        loss = sum(
            w * task_loss(n, outputs[n], targets[n][some]) for n, w in weights.items() if n in on
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % (plan.steps // plan.looks) == 0:
            found = scores(model, z[rows["validation"]], held)
            better = [n for n, s in found.items() if n not in best or s > best[n][0]]
            state = copy.deepcopy(model) if better else None
            best |= {n: (found[n], step, state) for n in better}
    return best


def one_way(plan: Plan, z, targets, rows, seed, weights, turn: Turn | None = None) -> dict:
    """Task -> "test" score, "rate" and "step", each as validation chose them for this task."""
    tried = {r: train(plan, z, targets, rows, r, seed, weights, turn) for r in plan.rates}
    results = {"test": {}, "rate": {}, "step": {}}
    for name in weights:
        rate = max(tried, key=lambda r, name=name: tried[r][name][0])
        _, step, model = tried[rate][name]
        test = {n: y[rows["test"]] for n, y in targets.items()}
        results["test"][name] = scores(model, z[rows["test"]], test)[name]
        results["rate"][name], results["step"][name] = rate, step
    return results


def one_seed(plan: Plan, seed: int) -> dict:
    """Way -> what `one_way` gives, on the split of one seed."""
    z, targets = features_of(plan.pool, plan.length)
    order = torch.randperm(plan.pool, generator=torch.Generator().manual_seed(seed))
    held = plan.labels + plan.validation
    rows = {
        "train": order[: plan.labels],
        "validation": order[plan.labels : held],
        "test": order[held:],
    }
    stars = targets["stars"]
    known = stars[rows["train"]]
    targets = targets | {"stars": (stars - known.mean()) / known.std()}
    alike, given = dict.fromkeys(TASKS, 1.0), (plan, z, targets, rows, seed)
    results = {
        TOGETHER: one_way(*given, alike),
        WEIGHT: one_way(*given, dict.fromkeys(TASKS, plan.priority) | {FIRST: 1.0}),
    }
    results |= {way: one_way(*given, alike, turn) for way, turn in turns(plan).items()}
    singles = [one_way(*given, {task: 1.0}) for task in TASKS]
    merged = {key: {} for key in singles[0]}
    for row in singles:
        for key, values in row.items():
            merged[key] |= values
    return results | {ALONE: merged}


def run_turns(
    seeds: Sequence[int], report: Callable[[str], None] = print, *, plan: Plan | None = None
) -> dict:
    """Weights, orders and stops, for every seed. Plain JSON.

    Args:
        seeds: of splits, starts and batches.
        report: takes a line of progress.
        plan: sizes; None takes those of the record.

    Returns:
        "labels", how many there were, and "seeds": what `one_seed` gives, for each.
    """
    plan, rows = plan or Plan(), []
    for seed in seeds:
        rows.append(kept(f"{plan}, seed {seed}", one_seed, plan, seed))
        told = [f"{way} {rows[-1][way]['test'][FIRST]:.3f}" for way in WAYS]
        report(f"seed {seed}, AUC of {FIRST}: {', '.join(told)}")
    mean = np.mean([row[TOGETHER]["test"][FIRST] for row in rows])
    report(f"together, mean of the seeds: {mean:.3f}")
    return {"labels": plan.labels, "seeds": rows}
