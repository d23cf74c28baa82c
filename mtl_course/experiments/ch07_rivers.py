"""Chapter 7, rivers with networks: one network a group of targets, all groups of one size trained
side by side. Needs no Jupyter.

One fixed test set; a draw says which hours train, and how networks start. Rates and groups are
chosen on validation hours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor, nn

from .. import data
from ..multitask import affinity
from ..multitask.grouping import Groups, best_groups, spectral_groups
from ..training.tasks import delta_m

GAUGES = ("CHSI2", "NASI2", "EADM7", "SCLM7", "CLKM7", "VALI2", "NAPM7", "DLDI4")
BLOCK, GAP = (
    300,
    108,
    # hours: inputs reach 60 hours back and targets 48 ahead, so hours 108 apart have nothing in common
)


@dataclass(frozen=True)
class Plan:
    """Sizes of the experiment with networks."""

    hours: int = 400
    width: int = 32  # hidden units a task: a network for k tasks has k times as many
    steps: int = 250
    every: int = 25
    batch: int = 50
    rates: tuple[float, ...] = (5e-3, 2e-2)


CPU, GPU = (
    Plan(),
    Plan(hours=1000, width=64, steps=1000, every=50, batch=200, rates=(2e-3, 5e-3, 1e-2, 2e-2)),
)
PLANS = {"cpu": CPU, "gpu": GPU}


@dataclass(frozen=True)
class Rivers:
    """One draw: standardised inputs [N, 64] and targets [N, 8] of the training, validation and test
    hours.
    """

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def rivers(plan: Plan, seed: int, device="cpu") -> Rivers:
    """`plan.hours` random training hours; validation and test hours are the same for every seed.

    The record is cut into blocks of `BLOCK` hours, of which two of four train, one validates and
    one tests, in turn; the first `GAP` hours of each are left out, so that no hour of one part is
    in the inputs or targets of another.
    """
    ds = data.load("rf1")
    xs, ys, parts = [], [], []
    for half in ("train", "test"):
        x, y = ds[f"x_{half}"], ds[f"y_{half}"]
        hour = np.arange(len(x))
        good = (
            np.isfinite(x).all(1) & np.isfinite(y).all(1) & (y[:, 1] < 20) & (hour % BLOCK >= GAP)
        )
        xs.append(x[good])
        ys.append(y[good])
        parts.append(np.array([0, 1, 0, 2])[hour[good] // BLOCK % 4])
    x, y, part = np.concatenate(xs), np.concatenate(ys), np.concatenate(parts)
    rows = [np.flatnonzero(part == k) for k in range(3)]
    rows[0] = np.random.RandomState(seed).permutation(rows[0])[: plan.hours]
    x, y = (torch.tensor(v, dtype=torch.float32, device=device) for v in (x, y))
    z = ((x - x[rows[0]].mean(0)) / x[rows[0]].std(0).clamp_min(1e-6)).clamp(-5, 5)
    t = (y - y[rows[0]].mean(0)) / y[rows[0]].std(0).clamp_min(1e-6)
    return Rivers(*((z[r], t[r]) for r in rows))


class Many(nn.Module):
    """N networks of one size side by side: a hidden layer with ReLU and one linear output a task. x
    [N, B, d] -> [N, B, tasks].
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, seeds: Sequence[int]):
        super().__init__()
        layers = []
        for seed in seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                layers.append(
                    [
                        p.detach()
                        for layer in (nn.Linear(inputs, hidden), nn.Linear(hidden, outputs))
                        for p in (layer.weight.T, layer.bias[None])
                    ]
                )
        self.w1, self.b1, self.w2, self.b2 = (
            nn.Parameter(torch.stack(p)) for p in zip(*layers, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(torch.baddbmm(self.b1, x, self.w1))
        return torch.baddbmm(self.b2, hidden, self.w2)


def train(
    draws: Sequence[Rivers],
    jobs: Sequence[tuple[int, Sequence[int]]],
    plan: Plan,
    rate: float,
    watch=None,
) -> tuple[np.ndarray, np.ndarray]:
    """Train one network a job (draw, group of targets), all groups of one size, side by side with
    Adam on the sum of the tasks' losses.

    Each network keeps the weights that were best on its validation hours. watch(networks, step), if
    given, sees them every `plan.every` steps, from step 0. Returns validation and test RMSE [jobs,
    size], in standard deviations of the training hours.
    """
    size = len(jobs[0][1])
    device = draws[0].train[0].device
    nets = Many(
        64,
        plan.width * size,
        size,
        [1000 * draw + 8 * len(group) + min(group) for draw, group in jobs],
    ).to(device)
    x = torch.stack([draw.train[0] for draw in draws])
    y = torch.stack([draws[d].train[1][:, list(g)] for d, g in jobs])
    of_job = torch.tensor([d for d, _ in jobs], device=device)
    optimizer = torch.optim.Adam(nets.parameters(), lr=rate, fused=True)
    lowest = torch.full((len(jobs),), torch.inf, device=device)
    best = [p.detach().clone() for p in nets.parameters()]
    order = np.random.RandomState(0)
    for step in range(plan.steps + 1):
        if step % plan.every == 0:
            if watch is not None:
                watch(nets, step)
            with torch.no_grad():
                error = _squares(nets, draws, jobs, "validation").mean(1)
                for kept, p in zip(best, nets.parameters(), strict=True):
                    kept[error < lowest] = p[error < lowest]
            lowest = torch.minimum(lowest, error)
        rows = torch.tensor(order.permutation(plan.hours)[: plan.batch], device=device)
        loss = ((nets(x[:, rows][of_job]) - y[:, rows]) ** 2).mean(1).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        for kept, p in zip(best, nets.parameters(), strict=True):
            p.copy_(kept)
        validation, test = (
            _squares(nets, draws, jobs, part).sqrt().cpu().numpy()
            for part in ("validation", "test")
        )
    return validation, test


def _squares(nets, draws, jobs, part):
    """Mean squared error [jobs, size] on one part. Job by job: the hidden units of all networks at
    once are too many for a cache.
    """
    found = []
    for k, (d, group) in enumerate(jobs):
        x, y = getattr(draws[d], part)
        hidden = torch.addmm(nets.b1[k], x, nets.w1[k]).relu_()
        found.append(
            ((torch.addmm(nets.b2[k], hidden, nets.w2[k]) - y[:, list(group)]) ** 2).mean(0)
        )
    return torch.stack(found)


Known = dict[
    tuple[int, tuple[int, ...], float], list[np.ndarray]
]  # draw, group, rate -> validation and test RMSE of the group's targets


def scores(
    draws: Sequence[Rivers], jobs: Sequence[tuple[int, tuple[int, ...]]], plan: Plan, known: Known
) -> list[list[list[np.ndarray]]]:
    """Validation and test RMSE of every job at each rate of the plan: ``[rate][job][part]``.

    Trains what `known` does not hold yet, and adds it: a group of one draw is the same network in
    every split that it is part of.
    """
    for rate in plan.rates:
        new = sorted({job for job in jobs if (*job, rate) not in known})
        for size in sorted({len(group) for _, group in new}):
            alike = [job for job in new if len(job[1]) == size]
            for job, *rmse in zip(alike, *train(draws, alike, plan, rate), strict=True):
                known[(*job, rate)] = rmse
    return [[known[(*job, rate)] for job in jobs] for rate in plan.rates]


def fit_groups(
    draws: Sequence[Rivers], groups: Sequence[Groups], plan: Plan, known: Known
) -> tuple[np.ndarray, np.ndarray]:
    """Train the networks of a split into groups, `groups[s]` in draw s; validation and test RMSE of
    each target, [S, 8] each.

    A draw tries every rate of the plan, for all of its networks alike, and keeps the one with the
    lowest mean validation error.
    """
    jobs = [(s, tuple(g)) for s, split in enumerate(groups) for g in split]
    found = np.zeros((len(plan.rates), 2, len(draws), len(GAUGES)))
    for at_rate, rmse in zip(found, scores(draws, jobs, plan, known), strict=True):
        for (s, g), parts in zip(jobs, rmse, strict=True):
            at_rate[:, s, list(g)] = parts
    best = found[:, 0].mean(-1).argmin(0)  # [S]
    validation, test = found[best, :, np.arange(len(draws))].swapaxes(0, 1)
    return validation, test


def pair_gains(
    draws: Sequence[Rivers], plan: Plan, alone: tuple[np.ndarray, np.ndarray], known: Known
) -> tuple[np.ndarray, np.ndarray]:
    """Gain of each target from the company of each other one, on validation and on test hours: [S,
    8, 8] each, row i from column j.

    alone: validation and test RMSE [S, 8] of single-task networks. All 28 pairs of a draw share one
        rate, as the single networks do.
    """
    pairs = list(combinations(range(len(GAUGES)), 2))
    jobs = [(s, pair) for s in range(len(draws)) for pair in pairs]
    runs = (
        np.array(scores(draws, jobs, plan, known))
        .reshape(len(plan.rates), len(draws), len(pairs), 2, 2)
        .swapaxes(2, 3)
    )
    best = runs[:, :, 0].mean((2, 3)).argmin(0)
    rmse = runs[best, np.arange(len(draws))]  # [S, 2, pairs, 2]
    gains = np.zeros((2, len(draws), len(GAUGES), len(GAUGES)))
    for k in range(2):
        for p, (i, j) in enumerate(pairs):
            gains[k, :, i, j] = affinity.relative_gain(alone[k][:, i], rmse[:, k, p, 0])
            gains[k, :, j, i] = affinity.relative_gain(alone[k][:, j], rmse[:, k, p, 1])
    return gains[0], gains[1]


def look_ahead(draws: Sequence[Rivers], plan: Plan, known: Known) -> dict[str, np.ndarray]:
    """Lookahead affinity and gradient cosine [S, 8, 8], averaged over the training of one network
    for all targets, at the middle rate.

    Both are taken on the draw's training hours, for the shared layer; row i is the task that steps.
    """
    sums = {
        "lookahead": np.zeros((len(draws), 8, 8)),
        "gradient cosine": np.zeros((len(draws), 8, 8)),
    }
    rate = plan.rates[(len(plan.rates) - 1) // 2]

    def watch(nets, step):
        for s, draw in enumerate(draws):
            x, y = draw.train
            w2, b2 = nets.w2[s].detach(), nets.b2[s].detach()

            def losses(shared, x=x, y=y, w2=w2, b2=b2):
                return ((torch.relu(x @ shared[0] + shared[1]) @ w2 + b2 - y) ** 2).mean(0)

            shared = [nets.w1[s], nets.b1[s]]
            sums["lookahead"][s] += affinity.lookahead(losses, shared, 0.01).cpu().numpy()
            shared = [p.detach().requires_grad_() for p in shared]
            found = losses(shared)
            J = torch.stack(
                [
                    torch.cat(
                        [g.flatten() for g in torch.autograd.grad(loss, shared, retain_graph=True)]
                    )
                    for loss in found
                ]
            )
            sums["gradient cosine"][s] += affinity.cosines(J @ J.T).cpu().numpy()

    jobs = [(s, tuple(range(8))) for s in range(len(draws))]
    for job, *rmse in zip(jobs, *train(draws, jobs, plan, rate, watch), strict=True):
        known[(*job, rate)] = rmse
    moments = plan.steps // plan.every + 1
    return {name: total / moments for name, total in sums.items()}


def river_delta_m(alone: np.ndarray, together: np.ndarray) -> np.ndarray:
    """`tasks.delta_m` of each draw in per cent, from test RMSE [S, 8]; positive: better than one
    network a target.
    """
    lower_is_better = dict.fromkeys(GAUGES, False)
    return np.array(
        [
            delta_m(
                dict(zip(GAUGES, t, strict=True)),
                dict(zip(GAUGES, a, strict=True)),
                lower_is_better,
            )
            for a, t in zip(alone, together, strict=True)
        ]
    )


def groupings(
    draws: Sequence[Rivers], validation_gains: np.ndarray, look: dict[str, np.ndarray], k: int = 3
) -> dict[str, list[Groups]]:
    """Way to group -> the groups of each draw, k at most: one by each measure, and at random for
    comparison.
    """
    order = np.random.RandomState(0)
    sizes = [len(part) for part in np.array_split(range(len(GAUGES)), k)]
    found = {
        "all in one": [[list(range(len(GAUGES)))] for _ in draws],
        "by pairwise gains": [best_groups(gains, k) for gains in validation_gains],
        "by lookahead": [best_groups(Z.T, k) for Z in look["lookahead"]],
        "spectral, by cosine": [
            spectral_groups(torch.tensor(affinity.both_ways(C)).clamp_min(1e-6), k)
            for C in look["gradient cosine"]
        ],
        "at random": [],
    }
    for _ in draws:
        found["at random"].append(
            [
                sorted(part.tolist())
                for part in np.split(order.permutation(len(GAUGES)), np.cumsum(sizes)[:-1])
            ]
        )
    return found


def river_study(plan: Plan, seeds: Sequence[int], device="cpu") -> dict:
    """The whole experiment with networks: RMSE [S, 8], pairwise gains and affinities [S, 8, 8],
    groups and delta-m of each way to group.
    """
    draws = [rivers(plan, seed, device) for seed in seeds]
    single = [[[t] for t in range(len(GAUGES))] for _ in draws]
    known: Known = {}
    alone = fit_groups(draws, single, plan, known)
    on_validation, on_test = pair_gains(draws, plan, alone, known)
    look = look_ahead(draws, plan, known)
    targets = np.stack([np.corrcoef(draw.train[1].cpu().numpy().T) for draw in draws])
    ways = groupings(draws, on_validation, look)
    gain = {
        way: river_delta_m(alone[1], fit_groups(draws, groups, plan, known)[1])
        for way, groups in ways.items()
    }
    affinities = {"target correlation": abs(targets), **look, "gain on validation": on_validation}
    return {
        "single": alone[1],
        "gains": on_test,
        "affinities": affinities,
        "groups": ways,
        "delta_m": gain,
    }
