"""Chapter 7: does a measure taken before joint training predict which tasks help each other? Schools with linear models, rivers with networks.

Both experiments keep one fixed test set; a seed draws who trains (and how networks start). Affinities see training data only, groups and
strengths are chosen on validation data, gains are measured on the test data, once. Needs no Jupyter.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import torch
from torch import Tensor, nn

from .. import affinity, data
from ..data.splits import per_class, split_per_task
from ..grouping import Groups, best_groups, spectral_groups
from ..relations import gram, ridge
from ..runtime import device as fastest
from ..task_graph import complete, laplacian, learn_relation, nearest, related_ridge
from ..tasks import delta_m

# ------------------------------------------------------------------------------------------------------ schools, linear models
PUPIL = ("standLRT", "girl", "vr_top", "vr_bottom")  # columns of exam that differ between the pupils of one school
POOL, TEST = 36, 24  # pupils of a school to train and validate on, and at least as many for the test
VALIDATION = 12
OWN = torch.logspace(0, 2, 24, dtype=torch.float64)  # strengths of a single-task ridge and of the pooled one
TIES, ALONE = torch.logspace(0, 3, 6, dtype=torch.float64), torch.tensor([1.0, 3.0, 10.0, 30.0], dtype=torch.float64)  # lam, mu of joint methods: 24 pairs
NEIGHBOURS = 5
STRUCTURES = ("as they are", "two camps")


@dataclass(frozen=True)
class Schools:
    """Training, validation and test pupils of S draws and T schools, padded: x [S, T, P, d], y [S, T, P], and which of them are real."""

    x: Tensor
    y: Tensor
    train: Tensor
    validation: Tensor
    test: Tensor
    intake: Tensor  # mean inputs of the training pupils, [S, T, d - 1]


def schools(seeds: Sequence[int], n: int = 12, structure: str = "as they are", device="cpu") -> Schools:
    """Draws of n training and `VALIDATION` validation pupils of every large school; the test pupils are the same in all draws.

    Inputs and target are standardised with the training pupils of the draw, and a bias is added. structure "two camps": every second school
    counts its scores from the other end (the sign of y is turned), so that there are two groups to be found.
    """
    if structure not in STRUCTURES:
        raise ValueError(f"structure must be one of {', '.join(STRUCTURES)}; it is {structure!r}.")
    table = data.load("exam")
    names = [str(name) for name in table.names]
    x, y, task = torch.tensor(table.x[:, [names.index(c) for c in PUPIL]]), torch.tensor(table.y), np.array(table.task)
    large = np.isin(task, np.flatnonzero(np.bincount(task) >= POOL + TEST))
    pool, test = split_per_task(np.where(large, task, task.max() + 1)[large], POOL, seed=0)
    rows = np.flatnonzero(large)
    pool, test = rows[pool], rows[test]
    kept = np.unique(task[pool])
    draws = []
    for seed in seeds:
        train = pool[per_class(task[pool], n, seed)]
        both = pool[per_class(task[pool], n + VALIDATION, seed)]
        draws.append((train, np.setdiff1d(both, train), test))
    longest = max(np.bincount(task[test]))
    found = [[_padded(part, task, kept, size) for part, size in zip(draw, (n, VALIDATION, longest), strict=True)] for draw in draws]
    index = torch.tensor(np.stack([np.concatenate(parts, axis=1) for parts in found]))  # [S, T, P], -1 where there is no pupil
    role = torch.cat([torch.full((size,), k) for k, size in enumerate((n, VALIDATION, longest))])
    x, y = x[index], y[index]
    mean, spread = x[:, :, :n].mean((1, 2), keepdim=True), x[:, :, :n].std((1, 2), keepdim=True)
    x, y = (x - mean) / spread, y - y[:, :, :n].mean((1, 2), keepdim=True)
    if structure == "two camps":
        y[:, 1::2] *= -1
    real = index >= 0
    intake = x[:, :, :n].mean(2)
    x = torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)
    return Schools(*(part.to(device) for part in (x, y, *(real & (role == k) for k in range(3)), intake)))


def _padded(rows, task, kept, length):
    own = [rows[task[rows] == t] for t in kept]
    return np.stack([np.pad(r, (0, length - len(r)), constant_values=-1) for r in own])


def statistics(pupils: Schools) -> tuple[Tensor, Tensor]:
    """A [S, T, d, d] and b [S, T, d] of the training pupils."""
    weight = pupils.train.to(pupils.x)
    return gram(pupils.x * weight[..., None], pupils.y * weight)


def errors(pupils: Schools, W: Tensor, part: Tensor) -> Tensor:
    """Mean squared error of each school on the pupils of `part`: weights W [..., S, T, d] -> [..., S, T]."""
    squares = (torch.einsum("stpd,...std->...stp", pupils.x, W) - pupils.y) ** 2
    return (squares * part).sum(-1) / part.sum(-1)


def choose(pupils: Schools, W: Tensor) -> tuple[Tensor, Tensor]:
    """Of candidate weights W [trials, S, T, d], each draw's best by validation error over all schools: weights [S, T, d], trial [S]."""
    best = errors(pupils, W, pupils.validation).mean(-1).argmin(0)
    return W[best, torch.arange(len(best), device=best.device)], best


def _grid(like: Tensor) -> tuple[Tensor, Tensor]:
    """The 24 pairs (lam, mu) that a joint method tries: two tensors [24]."""
    lam, mu = torch.meshgrid(TIES.to(like), ALONE.to(like), indexing="ij")
    return lam.flatten(), mu.flatten()


def tied(pupils: Schools, S: Tensor) -> Tensor:
    """Weights [S, T, d] of schools tied along the graph S [T, T] or [S, T, T], strengths chosen on validation pupils."""
    a, b = statistics(pupils)
    lam, mu = (s[:, None, None, None] for s in _grid(a))
    eye = torch.eye(a.shape[1]).to(a)
    return choose(pupils, related_ridge(a, b, lam * laplacian(S) + mu * eye))[0]


def school_methods(pupils: Schools) -> dict[str, Tensor]:
    """Method -> chosen weights [S, T, d]: every method tries 24 settings on the validation pupils. "relation" is Omega [S, T, T]."""
    a, b = statistics(pupils)
    T = a.shape[1]
    own = OWN.to(a)
    weights = {"single task": choose(pupils, ridge(a, b, own[:, None, None]))[0]}
    pooled = ridge(a.sum(1), b.sum(1), own[:, None]).unsqueeze(2).expand(-1, -1, T, -1)
    weights["pooled"] = choose(pupils, pooled)[0]
    weights["all to all"] = tied(pupils, complete(T, a))
    weights["same intake"] = tied(pupils, neighbours(affinity.closeness(pupils.intake)))
    weights["same weights"] = tied(pupils, neighbours(affinity.closeness(weights["single task"])))
    lam, mu = _grid(a)
    W, omega = learn_relation(a, b, lam[:, None] / T, mu[:, None], steps=8)
    weights["learned relation"], best = choose(pupils, W)
    weights["relation"] = omega[best, torch.arange(len(best), device=best.device)]
    return weights


def neighbours(closeness: Tensor) -> Tensor:
    """The graph [S, T, T] in which every school is tied to its `NEIGHBOURS` closest ones, with degree about 1."""
    return torch.stack([(nearest(c - c.min() + 1, NEIGHBOURS) > 0).to(c) / NEIGHBOURS for c in closeness])


def r2(pupils: Schools, W: Tensor) -> np.ndarray:
    """Test R2 of each draw over all test pupils together, [S]."""
    squares = (torch.einsum("stpd,std->stp", pupils.x, W) - pupils.y) ** 2
    mean = (pupils.y * pupils.test).sum((1, 2)) / pupils.test.sum((1, 2))
    total = ((pupils.y - mean[:, None, None]) ** 2 * pupils.test).sum((1, 2))
    return (1 - (squares * pupils.test).sum((1, 2)) / total).cpu().numpy()


def school_gains(pupils: Schools, setting: Tensor | None = None) -> tuple[np.ndarray, Tensor]:
    """Gain of each school from each other one, [S, T, T] in per cent of its single-task test RMSE: row i, trained as a pair with column j.

    A pair is tied by mean-regularised learning, whose strengths are chosen once for all pairs of a draw, as those of single-task learning
    are for all schools; setting [S]: the trials to take instead. The diagonal is 0. Also returns the trials that were taken.
    """
    a, b = statistics(pupils)
    S, T = a.shape[:2]
    alone = errors(pupils, choose(pupils, ridge(a, b, OWN.to(a)[:, None, None]))[0], pupils.test).sqrt().cpu().numpy()
    i, j = (torch.tensor(k) for k in np.triu_indices(T, 1))
    pair_a, pair_b = torch.stack([a[:, i], a[:, j]], 2), torch.stack([b[:, i], b[:, j]], 2)  # [S, pairs, 2, ...]
    lam, mu = (s[:, None, None] for s in _grid(a))
    eye = torch.eye(2).to(a)
    K = lam * laplacian(complete(2, a)) + mu * eye
    best, lowest, taken = torch.zeros(S, T, T).to(a), torch.full((S,), torch.inf).to(a), torch.zeros(S, dtype=torch.int64, device=a.device)
    off = ~torch.eye(T, dtype=torch.bool, device=a.device)
    for trial, k in enumerate(K):  # one at a time: all of them at once would need much memory
        W = related_ridge(pair_a, pair_b, k)
        full = torch.zeros(T, S, T, a.shape[-1]).to(a)  # [company, S, school, d]
        full[j, :, i], full[i, :, j] = W[:, :, 0].movedim(1, 0), W[:, :, 1].movedim(1, 0)
        validation = errors(pupils, full, pupils.validation).movedim(0, -1)  # [S, school, company]
        score = validation[:, off].mean(-1) if setting is None else (setting != trial).to(a)
        better = score < lowest
        if better.any():
            test = errors(pupils, full, pupils.test).movedim(0, -1)
            best, taken = torch.where(better[:, None, None], test, best), torch.where(better, trial, taken)
        lowest = torch.minimum(score, lowest)
    gains = affinity.relative_gain(alone[:, :, None], best.sqrt().cpu().numpy())
    gains[:, np.arange(T), np.arange(T)] = 0
    return gains, taken


def school_affinities(pupils: Schools, weights: dict[str, Tensor], rate: float = 0.1) -> dict[str, np.ndarray]:
    """Affinity -> symmetric matrices [S, T, T], from training pupils only. Gradients are taken at the pooled model."""
    a, b = statistics(pupils)
    n = pupils.train.sum(-1)
    w = weights["pooled"]
    g = 2 * (torch.einsum("stde,ste->std", a, w) - b) / n[..., None]  # gradients of the mean squared errors
    stepped = (w[:, :1] - rate * g)[:, :, None].expand(-1, -1, a.shape[1], -1)  # [S, stepping task, task, d]
    before = errors(pupils, w, pupils.train)
    after = torch.stack([errors(pupils, stepped[:, i], pupils.train) for i in range(a.shape[1])], 1)
    omega = weights["relation"]
    found = {
        "intake": affinity.closeness(pupils.intake),
        "own weights": affinity.closeness(weights["single task"]),
        "gradient cosine": affinity.cosines(g @ g.mT),
        "lookahead": 1 - after / before[:, None],
        "learned relation": affinity.cosines(omega),
    }
    return {name: affinity.both_ways(S.cpu().numpy()) for name, S in found.items()}


def hub(pupils: Schools) -> dict[str, np.ndarray]:
    """A star: the largest school, with all of its pupils, tied to every other one. What the others get from it, by test R2, [S] each.

    The strengths are chosen with the hub as it is, and kept when the sign of its scores is turned ("hub turned"), or chosen anew. "cosine" and "distance": mean gradient
    cosine at the start (all weights 0) and mean distance of intake between the hub and the others, as it is and turned.
    """
    T = pupils.x.shape[1]
    at = int(pupils.test[0].sum(-1).argmax())
    others = [t for t in range(T) if t != at]
    train = pupils.train.clone()
    train[:, at] = (pupils.train | pupils.validation | pupils.test)[:, at]
    honest = replace(pupils, train=train)
    y = pupils.y.clone()
    y[:, at] *= -1
    a, b = statistics(honest)
    star = torch.zeros(T, T).to(a)
    star[at], star[:, at] = 1.0, 1.0
    star[at, at] = 0
    lam, mu = (s[:, None, None, None] for s in _grid(a))
    K = lam * laplacian(star) + mu * torch.eye(T).to(a)
    leaves = Schools(pupils.x[:, others], pupils.y[:, others], *(part[:, others] for part in (pupils.train, pupils.validation, pupils.test, pupils.intake)))
    W, best = choose(leaves, related_ridge(a, b, K)[:, :, others])
    found = {"hub as it is": r2(leaves, W)}
    found["no hub"] = r2(leaves, choose(leaves, ridge(a[:, others], b[:, others], OWN.to(a)[:, None, None]))[0])
    far = (pupils.intake[:, others] - pupils.intake[:, [at]]).norm(dim=-1).mean(-1).cpu().numpy()
    for name, case in (("as it is", honest), ("turned", replace(honest, y=y))):
        a, b = statistics(case)
        if name == "turned":
            found["hub turned"] = r2(leaves, related_ridge(a, b, K[best, 0])[:, others])
            found["turned and chosen anew"] = r2(leaves, choose(leaves, related_ridge(a, b, K)[:, :, others])[0])
        cosines = affinity.cosines(b @ b.mT)  # at w = 0 the gradient of a school is -2 b / n
        found[f"cosine, {name}"] = cosines[:, at, others].mean(-1).cpu().numpy()
        found[f"distance, {name}"] = far
    return found


# ------------------------------------------------------------------------------------------------------ rivers, networks
GAUGES = ("CHSI2", "NASI2", "EADM7", "SCLM7", "CLKM7", "VALI2", "NAPM7", "DLDI4")
BLOCK, GAP = 300, 108  # hours: inputs reach 60 hours back and targets 48 ahead, so hours 108 apart have nothing in common


@dataclass(frozen=True)
class Plan:
    """Sizes of the experiment with networks."""

    hours: int = 400
    width: int = 32  # hidden units a task: a network for k tasks has k times as many
    steps: int = 250
    every: int = 25
    batch: int = 50
    rates: tuple[float, ...] = (5e-3, 2e-2)


CPU, GPU = Plan(), Plan(hours=1000, width=64, steps=1000, every=50, batch=200, rates=(2e-3, 5e-3, 1e-2, 2e-2))
PLANS = {"cpu": CPU, "gpu": GPU}


@dataclass(frozen=True)
class Rivers:
    """One draw: standardised inputs [N, 64] and targets [N, 8] of the training, validation and test hours."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def rivers(plan: Plan, seed: int, device="cpu") -> Rivers:
    """`plan.hours` random training hours; validation and test hours are the same for every seed.

    The record is cut into blocks of `BLOCK` hours, of which two of four train, one validates and one tests, in turn; the first `GAP`
    hours of each are left out, so that no hour of one part is in the inputs or targets of another.
    """
    ds = data.load("rf1")
    xs, ys, parts = [], [], []
    for half in ("train", "test"):
        x, y = ds[f"x_{half}"], ds[f"y_{half}"]
        hour = np.arange(len(x))
        good = np.isfinite(x).all(1) & np.isfinite(y).all(1) & (y[:, 1] < 20) & (hour % BLOCK >= GAP)
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
    """N networks of one size side by side: a hidden layer with ReLU and one linear output a task. x [N, B, d] -> [N, B, tasks]."""

    def __init__(self, inputs: int, hidden: int, outputs: int, seeds: Sequence[int]):
        super().__init__()
        layers = []
        for seed in seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                layers.append([p.detach() for layer in (nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)) for p in (layer.weight.T, layer.bias[None])])
        self.w1, self.b1, self.w2, self.b2 = (nn.Parameter(torch.stack(p)) for p in zip(*layers, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(torch.baddbmm(self.b1, x, self.w1))
        return torch.baddbmm(self.b2, hidden, self.w2)


def train(draws: Sequence[Rivers], jobs: Sequence[tuple[int, Sequence[int]]], plan: Plan, rate: float, watch=None) -> tuple[np.ndarray, np.ndarray]:
    """Train one network a job (draw, group of targets), all groups of one size, side by side with Adam on the sum of the tasks' losses.

    Each network keeps the weights that were best on its validation hours. watch(networks, step), if given, sees them every `plan.every`
    steps, from step 0. Returns validation and test RMSE [jobs, size], in standard deviations of the training hours.
    """
    size = len(jobs[0][1])
    device = draws[0].train[0].device
    nets = Many(64, plan.width * size, size, [1000 * draw + 8 * len(group) + min(group) for draw, group in jobs]).to(device)
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
        validation, test = (_squares(nets, draws, jobs, part).sqrt().cpu().numpy() for part in ("validation", "test"))
    return validation, test


def _squares(nets, draws, jobs, part):
    """Mean squared error [jobs, size] on one part. Job by job: the hidden units of all networks at once are too many for a cache."""
    found = []
    for k, (d, group) in enumerate(jobs):
        x, y = getattr(draws[d], part)
        hidden = torch.addmm(nets.b1[k], x, nets.w1[k]).relu_()
        found.append(((torch.addmm(nets.b2[k], hidden, nets.w2[k]) - y[:, list(group)]) ** 2).mean(0))
    return torch.stack(found)


Known = dict[tuple[int, tuple[int, ...], float], list[np.ndarray]]  # draw, group, rate -> validation and test RMSE of the group's targets


def scores(draws: Sequence[Rivers], jobs: Sequence[tuple[int, tuple[int, ...]]], plan: Plan, known: Known) -> list[list[list[np.ndarray]]]:
    """Validation and test RMSE of every job at each rate of the plan: ``[rate][job][part]``.

    Trains what `known` does not hold yet, and adds it: a group of one draw is the same network in every split that it is part of.
    """
    for rate in plan.rates:
        new = sorted({job for job in jobs if (*job, rate) not in known})
        for size in sorted({len(group) for _, group in new}):
            alike = [job for job in new if len(job[1]) == size]
            for job, *rmse in zip(alike, *train(draws, alike, plan, rate), strict=True):
                known[(*job, rate)] = rmse
    return [[known[(*job, rate)] for job in jobs] for rate in plan.rates]


def fit_groups(draws: Sequence[Rivers], groups: Sequence[Groups], plan: Plan, known: Known) -> tuple[np.ndarray, np.ndarray]:
    """Train the networks of a split into groups, `groups[s]` in draw s; validation and test RMSE of each target, [S, 8] each.

    A draw tries every rate of the plan, for all of its networks alike, and keeps the one with the lowest mean validation error.
    """
    jobs = [(s, tuple(g)) for s, split in enumerate(groups) for g in split]
    found = np.zeros((len(plan.rates), 2, len(draws), len(GAUGES)))
    for at_rate, rmse in zip(found, scores(draws, jobs, plan, known), strict=True):
        for (s, g), parts in zip(jobs, rmse, strict=True):
            at_rate[:, s, list(g)] = parts
    best = found[:, 0].mean(-1).argmin(0)  # [S]
    validation, test = found[best, :, np.arange(len(draws))].swapaxes(0, 1)
    return validation, test


def pair_gains(draws: Sequence[Rivers], plan: Plan, alone: tuple[np.ndarray, np.ndarray], known: Known) -> tuple[np.ndarray, np.ndarray]:
    """Gain of each target from the company of each other one, on validation and on test hours: [S, 8, 8] each, row i from column j.

    alone: validation and test RMSE [S, 8] of single-task networks. All 28 pairs of a draw share one rate, as the single networks do.
    """
    pairs = list(combinations(range(len(GAUGES)), 2))
    jobs = [(s, pair) for s in range(len(draws)) for pair in pairs]
    runs = np.array(scores(draws, jobs, plan, known)).reshape(len(plan.rates), len(draws), len(pairs), 2, 2).swapaxes(2, 3)
    best = runs[:, :, 0].mean((2, 3)).argmin(0)
    rmse = runs[best, np.arange(len(draws))]  # [S, 2, pairs, 2]
    gains = np.zeros((2, len(draws), len(GAUGES), len(GAUGES)))
    for k in range(2):
        for p, (i, j) in enumerate(pairs):
            gains[k, :, i, j] = affinity.relative_gain(alone[k][:, i], rmse[:, k, p, 0])
            gains[k, :, j, i] = affinity.relative_gain(alone[k][:, j], rmse[:, k, p, 1])
    return gains[0], gains[1]


def look_ahead(draws: Sequence[Rivers], plan: Plan, known: Known) -> dict[str, np.ndarray]:
    """Lookahead affinity and gradient cosine [S, 8, 8], averaged over the training of one network for all targets, at the middle rate.

    Both are taken on the draw's training hours, for the shared layer; row i is the task that steps.
    """
    sums = {"lookahead": np.zeros((len(draws), 8, 8)), "gradient cosine": np.zeros((len(draws), 8, 8))}
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
            J = torch.stack([torch.cat([g.flatten() for g in torch.autograd.grad(loss, shared, retain_graph=True)]) for loss in found])
            sums["gradient cosine"][s] += affinity.cosines(J @ J.T).cpu().numpy()

    jobs = [(s, tuple(range(8))) for s in range(len(draws))]
    for job, *rmse in zip(jobs, *train(draws, jobs, plan, rate, watch), strict=True):
        known[(*job, rate)] = rmse
    moments = plan.steps // plan.every + 1
    return {name: total / moments for name, total in sums.items()}


def river_delta_m(alone: np.ndarray, together: np.ndarray) -> np.ndarray:
    """`tasks.delta_m` of each draw in per cent, from test RMSE [S, 8]; positive: better than one network a target."""
    lower_is_better = dict.fromkeys(GAUGES, False)
    return np.array([delta_m(dict(zip(GAUGES, t, strict=True)), dict(zip(GAUGES, a, strict=True)), lower_is_better) for a, t in zip(alone, together, strict=True)])


def groupings(draws: Sequence[Rivers], validation_gains: np.ndarray, look: dict[str, np.ndarray], k: int = 3) -> dict[str, list[Groups]]:
    """Way to group -> the groups of each draw, k at most: one by each measure, and at random for comparison."""
    order = np.random.RandomState(0)
    sizes = [len(part) for part in np.array_split(range(len(GAUGES)), k)]
    found = {
        "all in one": [[list(range(len(GAUGES)))] for _ in draws],
        "by pairwise gains": [best_groups(gains, k) for gains in validation_gains],
        "by lookahead": [best_groups(Z.T, k) for Z in look["lookahead"]],
        "spectral, by cosine": [spectral_groups(torch.tensor(affinity.both_ways(C)).clamp_min(1e-6), k) for C in look["gradient cosine"]],
        "at random": [],
    }
    for _ in draws:
        found["at random"].append([sorted(part.tolist()) for part in np.split(order.permutation(len(GAUGES)), np.cumsum(sizes)[:-1])])
    return found


def river_study(plan: Plan, seeds: Sequence[int], device="cpu") -> dict:
    """The whole experiment with networks: RMSE [S, 8], pairwise gains and affinities [S, 8, 8], groups and delta-m of each way to group."""
    draws = [rivers(plan, seed, device) for seed in seeds]
    single = [[[t] for t in range(len(GAUGES))] for _ in draws]
    known: Known = {}
    alone = fit_groups(draws, single, plan, known)
    on_validation, on_test = pair_gains(draws, plan, alone, known)
    look = look_ahead(draws, plan, known)
    targets = np.stack([np.corrcoef(draw.train[1].cpu().numpy().T) for draw in draws])
    ways = groupings(draws, on_validation, look)
    gain = {way: river_delta_m(alone[1], fit_groups(draws, groups, plan, known)[1]) for way, groups in ways.items()}
    affinities = {"target correlation": abs(targets), **look, "gain on validation": on_validation}
    return {"single": alone[1], "gains": on_test, "affinities": affinities, "groups": ways, "delta_m": gain}


def run(profile: str, seeds: Sequence[int]) -> dict:
    """Both experiments as plain lists: ``cpu`` as the chapter shows them; ``gpu`` with more pupils, wider networks and longer training."""
    device = fastest()
    results = {"schools": {}, "river": {}}
    for n in (12,) if profile == "cpu" else (6, 12, 24):
        setting = None
        for structure in STRUCTURES:
            pupils = schools(seeds, n, structure, device)
            weights = school_methods(pupils)
            gains, setting = school_gains(pupils, setting)
            symmetric = affinity.both_ways(gains)
            agreement = {
                name: [affinity.rank_correlation(s, g) for s, g in zip(S, symmetric, strict=True)] for name, S in school_affinities(pupils, weights).items()
            }
            scores = {name: r2(pupils, W).tolist() for name, W in weights.items() if name != "relation"}
            results["schools"][f"{structure}, {n} pupils"] = {"r2": scores, "rank correlation": agreement, "reliability": affinity.reliability(symmetric)}
    study = river_study(PLANS[profile], seeds, device)
    symmetric = affinity.both_ways(study["gains"])
    results["river"] = {
        "single": study["single"].tolist(),
        "gains": study["gains"].tolist(),
        "groups": study["groups"],
        "delta_m": {way: gain.tolist() for way, gain in study["delta_m"].items()},
        "rank correlation": {
            name: [affinity.rank_correlation(s, g) for s, g in zip(affinity.both_ways(S), symmetric, strict=True)] for name, S in study["affinities"].items()
        },
    }
    return results
