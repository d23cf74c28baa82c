"""Chapter 7, rivers with networks: one network per group of targets, many trained side by side.

One fixed test set; a draw says which hours train, and how networks start. Rates and groups are
chosen on validation hours. What is trained is a `Job`: a group of targets in one draw. `Bench`
trains jobs and remembers their errors, since a group is the same network in every split that it is
part of. Needs no Jupyter.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..data.river import GAUGES, river_hours
from ..multitask import affinity
from ..multitask.grouping import Groups, best_groups, spectral_groups
from ..training.tasks import delta_m
from .common import seeded, standardised

# Inputs reach 60 hours back and targets 48 ahead, so hours 108 apart have nothing in common.
BLOCK, GAP = 300, 108


@dataclass(frozen=True)
class Plan:
    """Sizes of the experiment with networks.

    Args:
        hours: that train.
        width: hidden units per task: a network for k tasks has k times as many.
        steps: of Adam.
        every: steps between two looks at validation hours.
        batch: hours per step.
        rates: that every network may try.
    """

    hours: int = 400
    width: int = 32
    steps: int = 250
    every: int = 25
    batch: int = 50
    rates: tuple[float, ...] = (5e-3, 2e-2)


CPU = Plan()
GPU = Plan(hours=1000, width=64, steps=1000, every=50, batch=200, rates=(2e-3, 5e-3, 1e-2, 2e-2))
PLANS = {"cpu": CPU, "gpu": GPU}


@dataclass(frozen=True)
class Rivers:
    """One draw: standardised inputs [N, 64] and targets [N, 8] of each part's hours."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def rivers(plan: Plan, seed: int, device: torch.device | str = "cpu") -> Rivers:
    """`plan.hours` random training hours; the other parts are the same for every seed.

    The record is cut into blocks of `BLOCK` hours, of which two of four train, one validates and
    one tests, in turn; the first `GAP` hours of each are left out, so that no hour of one part is
    in the inputs or targets of another.
    """
    record = river_hours()
    inside = record.hour % BLOCK >= GAP
    part = np.array([0, 1, 0, 2])[record.hour[inside] // BLOCK % 4]
    x = torch.tensor(record.x[inside], dtype=torch.float32, device=device)
    y = torch.tensor(record.y[inside], dtype=torch.float32, device=device)
    train, validation, test = (np.flatnonzero(part == k) for k in range(3))
    train = np.random.RandomState(seed).permutation(train)[: plan.hours]
    x = standardised(x, x[train], limit=5)
    y = standardised(y, y[train])
    return Rivers(*((x[rows], y[rows]) for rows in (train, validation, test)))


class Job(NamedTuple):
    """One network to train: in which draw (0, 1, ...), and for which targets."""

    draw: int
    group: tuple[int, ...]


class Errors(NamedTuple):
    """RMSE of each of a network's targets, in standard deviations of the training hours."""

    validation: np.ndarray
    test: np.ndarray


class Many(nn.Module):
    """Networks of one size side by side: a hidden layer with ReLU, one linear output per task.

    x [networks, B, inputs] -> [networks, B, outputs].
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, seeds: Sequence[int]):
        super().__init__()

        def build() -> list[Tensor]:
            layers = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)
            return [p.detach() for layer in layers for p in (layer.weight.T, layer.bias[None])]

        networks = [seeded(build, seed) for seed in seeds]
        self.w1, self.b1, self.w2, self.b2 = (
            nn.Parameter(torch.stack(same)) for same in zip(*networks, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of each network for its own inputs."""
        hidden = torch.relu(torch.baddbmm(self.b1, x, self.w1))
        return torch.baddbmm(self.b2, hidden, self.w2)


def train(
    draws: Sequence[Rivers],
    jobs: Sequence[Job],
    plan: Plan,
    rate: float,
    watch: Callable[[Many, int], None] | None = None,
) -> list[Errors]:
    """Train the networks of these jobs side by side, with Adam on the sum of losses.

    Each network keeps the weights that were best on its validation hours.

    Args:
        draws: the data.
        jobs: all groups of one size.
        plan: sizes.
        rate: of Adam.
        watch: if given, sees the networks and the step every `plan.every` steps, from step 0.

    Returns:
        The errors of each job's network.
    """
    size, device = len(jobs[0].group), draws[0].train[0].device
    seeds = [1000 * job.draw + 8 * len(job.group) + min(job.group) for job in jobs]
    networks = Many(64, plan.width * size, size, seeds).to(device)
    x = torch.stack([draw.train[0] for draw in draws])
    y = torch.stack([draws[job.draw].train[1][:, list(job.group)] for job in jobs])
    draw_of = torch.tensor([job.draw for job in jobs], device=device)
    optimizer = torch.optim.Adam(networks.parameters(), lr=rate, fused=True)
    lowest = torch.full((len(jobs),), torch.inf, device=device)
    best = [p.detach().clone() for p in networks.parameters()]
    order = np.random.RandomState(0)
    for step in range(plan.steps + 1):
        if step % plan.every == 0:
            if watch is not None:
                watch(networks, step)
            with torch.no_grad():
                error = _squares(networks, draws, jobs, "validation").mean(1)
                for kept, p in zip(best, networks.parameters(), strict=True):
                    kept[error < lowest] = p[error < lowest]
            lowest = torch.minimum(lowest, error)
        rows = torch.tensor(order.permutation(plan.hours)[: plan.batch], device=device)
        loss = ((networks(x[:, rows][draw_of]) - y[:, rows]) ** 2).mean(1).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        for kept, p in zip(best, networks.parameters(), strict=True):
            p.copy_(kept)
        validation = _squares(networks, draws, jobs, "validation").sqrt().cpu().numpy()
        test = _squares(networks, draws, jobs, "test").sqrt().cpu().numpy()
    return [Errors(*pair) for pair in zip(validation, test, strict=True)]


def _squares(networks, draws, jobs, part):
    """Mean squared error [jobs, size] on one part.

    Job by job: the hidden units of all networks at once are too many for a cache.
    """
    squares = []
    for k, job in enumerate(jobs):
        x, y = getattr(draws[job.draw], part)
        hidden = torch.addmm(networks.b1[k], x, networks.w1[k]).relu_()
        outputs = torch.addmm(networks.b2[k], hidden, networks.w2[k])
        squares.append(((outputs - y[:, list(job.group)]) ** 2).mean(0))
    return torch.stack(squares)


class Bench:
    """Draws and a plan, and the errors of all networks that were trained on them so far."""

    def __init__(self, draws: Sequence[Rivers], plan: Plan):
        self.draws, self.plan = draws, plan
        self.errors: dict[tuple[Job, float], Errors] = {}

    def train(
        self,
        jobs: Iterable[Job],
        rate: float,
        watch: Callable[[Many, int], None] | None = None,
    ) -> None:
        """Train the jobs that were not yet trained at this rate; groups of one size together."""
        new = sorted({job for job in jobs if (job, rate) not in self.errors})
        for size in sorted({len(job.group) for job in new}):
            alike = [job for job in new if len(job.group) == size]
            errors = train(self.draws, alike, self.plan, rate, watch)
            self.errors |= {(job, rate): e for job, e in zip(alike, errors, strict=True)}

    def best(self, jobs: Sequence[Job]) -> dict[Job, Errors]:
        """The jobs' errors at the rate that is best for their draw, trained where need be.

        A draw tries every rate of the plan, for all of its networks alike, and keeps the one with
        the lowest validation error, mean over all targets of all its networks.
        """
        for rate in self.plan.rates:
            self.train(jobs, rate)
        chosen = {}
        for draw in range(len(self.draws)):
            mine = [job for job in jobs if job.draw == draw]
            means = {rate: self._validation_error(mine, rate) for rate in self.plan.rates}
            rate = min(means, key=means.get)
            chosen |= {job: self.errors[job, rate] for job in mine}
        return chosen

    def _validation_error(self, jobs: Sequence[Job], rate: float) -> float:
        """Mean over all targets of these jobs' networks."""
        errors = [self.errors[job, rate].validation for job in jobs]
        return np.concatenate(errors).mean(dtype=np.float64)


def fit_groups(bench: Bench, groups: Sequence[Groups]) -> Errors:
    """Train the networks of a split into groups, `groups[s]` in draw s.

    Returns:
        Validation and test RMSE of each target: [S, 8] each.
    """
    jobs = [Job(s, tuple(group)) for s, split in enumerate(groups) for group in split]
    validation, test = np.zeros((2, len(bench.draws), len(GAUGES)))
    for job, errors in bench.best(jobs).items():
        validation[job.draw, list(job.group)] = errors.validation
        test[job.draw, list(job.group)] = errors.test
    return Errors(validation, test)


def pair_gains(bench: Bench, alone: Errors) -> tuple[np.ndarray, np.ndarray]:
    """Gain of each target from the company of each other one, on validation and on test hours.

    All 28 pairs of a draw share one rate, as the single networks do.

    Args:
        bench: trains the pairs.
        alone: errors [S, 8] of single-task networks.

    Returns:
        [S, 8, 8] each, in per cent; row i from column j.
    """
    pairs = list(combinations(range(len(GAUGES)), 2))
    jobs = [Job(s, pair) for s in range(len(bench.draws)) for pair in pairs]
    on_validation, on_test = np.zeros((2, len(bench.draws), len(GAUGES), len(GAUGES)))
    for job, errors in bench.best(jobs).items():
        s, (i, j) = job
        for gains, single, pair in (
            (on_validation[s], alone.validation[s], errors.validation),
            (on_test[s], alone.test[s], errors.test),
        ):
            gains[i, j] = affinity.relative_gain(single[i], pair[0])
            gains[j, i] = affinity.relative_gain(single[j], pair[1])
    return on_validation, on_test


def look_ahead(bench: Bench) -> dict[str, np.ndarray]:
    """Lookahead affinity and gradient cosine [S, 8, 8], averaged over a training.

    It is that of one network for all targets, at the middle rate. Both are taken on the draw's
    training hours, for the shared layer; row i is the task that steps.
    """
    draws, plan = bench.draws, bench.plan
    totals = {name: np.zeros((len(draws), 8, 8)) for name in ("lookahead", "gradient cosine")}

    def watch(networks: Many, step: int) -> None:
        for s, draw in enumerate(draws):
            losses = _losses_of_shared(networks.w2[s].detach(), networks.b2[s].detach(), draw)
            shared = [networks.w1[s], networks.b1[s]]
            Z = affinity.lookahead(losses, shared, 0.01)
            totals["lookahead"][s] += Z.cpu().numpy()
            cosines = _gradient_cosines(losses, shared)
            totals["gradient cosine"][s] += cosines.cpu().numpy()

    rate = plan.rates[(len(plan.rates) - 1) // 2]
    bench.train([Job(s, tuple(range(8))) for s in range(len(draws))], rate, watch)
    moments = plan.steps // plan.every + 1
    return {name: total / moments for name, total in totals.items()}


def _losses_of_shared(w2: Tensor, b2: Tensor, draw: Rivers) -> Callable[[list[Tensor]], Tensor]:
    """The tasks' losses [8] on the draw's training hours, as a function of the shared layer."""
    x, y = draw.train

    def losses(shared: list[Tensor]) -> Tensor:
        w1, b1 = shared
        return ((torch.relu(x @ w1 + b1) @ w2 + b2 - y) ** 2).mean(0)

    return losses


def _gradient_cosines(losses: Callable[[list[Tensor]], Tensor], shared: list[Tensor]) -> Tensor:
    """Cosines [8, 8] between the tasks' gradients of the shared layer."""
    shared = [p.detach().requires_grad_() for p in shared]
    gradients = [torch.autograd.grad(loss, shared, retain_graph=True) for loss in losses(shared)]
    J = torch.stack([torch.cat([g.flatten() for g in row]) for row in gradients])
    return affinity.cosines(J @ J.T)


def river_delta_m(alone: np.ndarray, together: np.ndarray) -> np.ndarray:
    """`tasks.delta_m` of each draw in per cent, from test RMSE [S, 8]; positive is better.

    Better than one network per target, that is.
    """
    lower_is_better = dict.fromkeys(GAUGES, False)

    def of_draw(errors: np.ndarray, baseline: np.ndarray) -> float:
        by_gauge = [dict(zip(GAUGES, row, strict=True)) for row in (errors, baseline)]
        return delta_m(*by_gauge, lower_is_better)

    return np.array([of_draw(t, a) for t, a in zip(together, alone, strict=True)])


def groupings(
    validation_gains: np.ndarray, look: dict[str, np.ndarray], seeds: Sequence[int], k: int = 3
) -> dict[str, list[Groups]]:
    """Way to group -> the groups of each draw, k at most.

    One by each measure, all in one, and at random for comparison.

    Args:
        validation_gains: [S, 8, 8], as `pair_gains` gives them.
        look: as `look_ahead` gives it.
        seeds: of the random groups, one per draw.
        k: groups at most.
    """
    count, cosines = len(GAUGES), look["gradient cosine"]
    similar = [torch.tensor(affinity.both_ways(C)).clamp_min(1e-6) for C in cosines]
    orders = [np.random.RandomState(seed) for seed in seeds]
    return {
        "all in one": [[list(range(count))] for _ in validation_gains],
        "by pairwise gains": [best_groups(gains, k) for gains in validation_gains],
        "by lookahead": [best_groups(Z.T, k) for Z in look["lookahead"]],
        "spectral, by cosine": [spectral_groups(S, k) for S in similar],
        "at random": [_at_random(order, count, k) for order in orders],
    }


def _at_random(order: np.random.RandomState, count: int, k: int) -> Groups:
    """`count` targets dealt into k groups that are as even as can be."""
    return [sorted(group.tolist()) for group in np.array_split(order.permutation(count), k)]


def river_study(
    plan: Plan,
    seeds: Sequence[int],
    device: torch.device | str = "cpu",
    report: Callable[[str], None] | None = None,
) -> dict:
    """The whole experiment with networks, on one draw per seed.

    Returns:
        "single": test RMSE [S, 8] of one network per target; "gains" on the test hours [S, 8, 8];
        "affinities": measure -> [S, 8, 8]; "groups": way to group -> groups of each draw;
        "delta_m": way -> [S].
    """
    report = report or (lambda line: None)
    bench = Bench([rivers(plan, seed, device) for seed in seeds], plan)
    alone = fit_groups(bench, [[[t] for t in range(len(GAUGES))] for _ in seeds])
    report(f"rivers, one network per gauge: test RMSE {alone.test.mean():.3f}")
    on_validation, on_test = pair_gains(bench, alone)
    report(f"rivers, 28 pairs: mean gain {on_test.sum() / np.count_nonzero(on_test):.2f} %")
    look = look_ahead(bench)
    ways = groupings(on_validation, look, seeds)
    gains = {}
    for way, groups in ways.items():
        gains[way] = river_delta_m(alone.test, fit_groups(bench, groups).test)
        report(f"rivers, {way}: delta-m {gains[way].mean():.2f} %")
    targets = np.stack([np.corrcoef(draw.train[1].cpu().numpy().T) for draw in bench.draws])
    affinities = {"target correlation": abs(targets), **look, "gain on validation": on_validation}
    return {
        "single": alone.test,
        "gains": on_test,
        "affinities": affinities,
        "groups": ways,
        "delta_m": gains,
    }
