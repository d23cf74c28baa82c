"""Chapter 7, schools with linear models: many draws at once, as a leading axis S of every tensor.
Needs no Jupyter.

One fixed test set; a draw says who trains. Affinities see training pupils only, strengths are
chosen on validation pupils.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .. import data
from ..data.splits import per_class, split_per_task
from ..multitask import affinity
from ..multitask.linear import normal_equations, related_ridge, ridge
from ..multitask.task_graph import complete, laplacian, learn_relation, nearest

PUPIL = (
    "standLRT",
    "girl",
    "vr_top",
    "vr_bottom",
)  # columns of exam that differ between the pupils of one school
POOL, TEST = (
    36,
    24,
)  # pupils of a school to train and validate on, and at least as many for the test
VALIDATION = 12
OWN = torch.logspace(
    0, 2, 24, dtype=torch.float64
)  # strengths of a single-task ridge and of the pooled one
TIES, ALONE = (
    torch.logspace(0, 3, 6, dtype=torch.float64),
    torch.tensor([1.0, 3.0, 10.0, 30.0], dtype=torch.float64),
)  # lam, mu of joint methods: 24 pairs
NEIGHBOURS = 5
STRUCTURES = ("as they are", "two camps")


@dataclass(frozen=True)
class Schools:
    """Training, validation and test pupils of S draws and T schools, padded: x [S, T, P, d], y [S,
    T, P], and which of them are real.
    """

    x: Tensor
    y: Tensor
    train: Tensor
    validation: Tensor
    test: Tensor
    intake: Tensor  # mean inputs of the training pupils, [S, T, d - 1]


def schools(
    seeds: Sequence[int], n: int = 12, structure: str = "as they are", device="cpu"
) -> Schools:
    """Draws of n training and `VALIDATION` validation pupils of every large school; the test pupils
    are the same in all draws.

    Inputs and target are standardised with the training pupils of the draw, and a bias is added.
    structure "two camps": every second school counts its scores from the other end (the sign of y
    is turned), so that there are two groups to be found.
    """
    if structure not in STRUCTURES:
        raise ValueError(f"structure must be one of {', '.join(STRUCTURES)}; it is {structure!r}.")
    table = data.load("exam")
    names = [str(name) for name in table.names]
    x, y, task = (
        torch.tensor(table.x[:, [names.index(c) for c in PUPIL]]),
        torch.tensor(table.y),
        np.array(table.task),
    )
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
    found = [
        [
            _padded(part, task, kept, size)
            for part, size in zip(draw, (n, VALIDATION, longest), strict=True)
        ]
        for draw in draws
    ]
    index = torch.tensor(
        np.stack([np.concatenate(parts, axis=1) for parts in found])
    )  # [S, T, P], -1 where there is no pupil
    role = torch.cat([torch.full((size,), k) for k, size in enumerate((n, VALIDATION, longest))])
    x, y = x[index], y[index]
    mean, spread = x[:, :, :n].mean((1, 2), keepdim=True), x[:, :, :n].std((1, 2), keepdim=True)
    x, y = (x - mean) / spread, y - y[:, :, :n].mean((1, 2), keepdim=True)
    if structure == "two camps":
        y[:, 1::2] *= -1
    real = index >= 0
    intake = x[:, :, :n].mean(2)
    x = torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)
    return Schools(
        *(part.to(device) for part in (x, y, *(real & (role == k) for k in range(3)), intake))
    )


def _padded(rows, task, kept, length):
    own = [rows[task[rows] == t] for t in kept]
    return np.stack([np.pad(r, (0, length - len(r)), constant_values=-1) for r in own])


def statistics(pupils: Schools) -> tuple[Tensor, Tensor]:
    """A [S, T, d, d] and b [S, T, d] of the training pupils."""
    weight = pupils.train.to(pupils.x)
    return normal_equations(pupils.x * weight[..., None], pupils.y * weight)


def errors(pupils: Schools, W: Tensor, part: Tensor) -> Tensor:
    """Mean squared error of each school on the pupils of `part`: weights W [..., S, T, d] -> [...,
    S, T].
    """
    squares = (torch.einsum("stpd,...std->...stp", pupils.x, W) - pupils.y) ** 2
    return (squares * part).sum(-1) / part.sum(-1)


def choose(pupils: Schools, W: Tensor) -> tuple[Tensor, Tensor]:
    """Of candidate weights W [trials, S, T, d], each draw's best by validation error over all
    schools: weights [S, T, d], trial [S].
    """
    best = errors(pupils, W, pupils.validation).mean(-1).argmin(0)
    return W[best, torch.arange(len(best), device=best.device)], best


def _grid(like: Tensor) -> tuple[Tensor, Tensor]:
    """The 24 pairs (lam, mu) that a joint method tries: two tensors [24]."""
    lam, mu = torch.meshgrid(TIES.to(like), ALONE.to(like), indexing="ij")
    return lam.flatten(), mu.flatten()


def tied(pupils: Schools, S: Tensor) -> Tensor:
    """Weights [S, T, d] of schools tied along the graph S [T, T] or [S, T, T], strengths chosen on
    validation pupils.
    """
    a, b = statistics(pupils)
    lam, mu = (s[:, None, None, None] for s in _grid(a))
    eye = torch.eye(a.shape[1]).to(a)
    return choose(pupils, related_ridge(a, b, lam * laplacian(S) + mu * eye))[0]


def school_methods(pupils: Schools) -> dict[str, Tensor]:
    """Method -> chosen weights [S, T, d]: every method tries 24 settings on the validation pupils.
    "relation" is Omega [S, T, T].
    """
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
    """The graph [S, T, T] in which every school is tied to its `NEIGHBOURS` closest ones, with
    degree about 1.
    """
    return torch.stack(
        [(nearest(c - c.min() + 1, NEIGHBOURS) > 0).to(c) / NEIGHBOURS for c in closeness]
    )


def r2(pupils: Schools, W: Tensor) -> np.ndarray:
    """Test R2 of each draw over all test pupils together, [S]."""
    squares = (torch.einsum("stpd,std->stp", pupils.x, W) - pupils.y) ** 2
    mean = (pupils.y * pupils.test).sum((1, 2)) / pupils.test.sum((1, 2))
    total = ((pupils.y - mean[:, None, None]) ** 2 * pupils.test).sum((1, 2))
    return (1 - (squares * pupils.test).sum((1, 2)) / total).cpu().numpy()


def school_gains(pupils: Schools, setting: Tensor | None = None) -> tuple[np.ndarray, Tensor]:
    """Gain of each school from each other one, [S, T, T] in per cent of its single-task test RMSE:
    row i, trained as a pair with column j.

    A pair is tied by mean-regularised learning, whose strengths are chosen once for all pairs of a
    draw, as those of single-task learning are for all schools; setting [S]: the trials to take
    instead. The diagonal is 0. Also returns the trials that were taken.
    """
    a, b = statistics(pupils)
    S, T = a.shape[:2]
    alone = (
        errors(pupils, choose(pupils, ridge(a, b, OWN.to(a)[:, None, None]))[0], pupils.test)
        .sqrt()
        .cpu()
        .numpy()
    )
    i, j = (torch.tensor(k) for k in np.triu_indices(T, 1))
    pair_a, pair_b = (
        torch.stack([a[:, i], a[:, j]], 2),
        torch.stack([b[:, i], b[:, j]], 2),
    )  # [S, pairs, 2, ...]
    lam, mu = (s[:, None, None] for s in _grid(a))
    eye = torch.eye(2).to(a)
    K = lam * laplacian(complete(2, a)) + mu * eye
    best, lowest, taken = (
        torch.zeros(S, T, T).to(a),
        torch.full((S,), torch.inf).to(a),
        torch.zeros(S, dtype=torch.int64, device=a.device),
    )
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
            best, taken = (
                torch.where(better[:, None, None], test, best),
                torch.where(better, trial, taken),
            )
        lowest = torch.minimum(score, lowest)
    gains = affinity.relative_gain(alone[:, :, None], best.sqrt().cpu().numpy())
    gains[:, np.arange(T), np.arange(T)] = 0
    return gains, taken


def school_affinities(
    pupils: Schools, weights: dict[str, Tensor], rate: float = 0.1
) -> dict[str, np.ndarray]:
    """Affinity -> symmetric matrices [S, T, T], from training pupils only. Gradients are taken at
    the pooled model.
    """
    a, b = statistics(pupils)
    n = pupils.train.sum(-1)
    w = weights["pooled"]
    g = (
        2 * (torch.einsum("stde,ste->std", a, w) - b) / n[..., None]
    )  # gradients of the mean squared errors
    stepped = (w[:, :1] - rate * g)[:, :, None].expand(
        -1, -1, a.shape[1], -1
    )  # [S, stepping task, task, d]
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
    """A star: the largest school, with all of its pupils, tied to every other one. What the others
    get from it, by test R2, [S] each.

    The strengths are chosen with the hub as it is, and kept when the sign of its scores is turned
    ("hub turned"), or chosen anew. "cosine" and "distance": mean gradient cosine at the start (all
    weights 0) and mean distance of intake between the hub and the others, as it is and turned.
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
    leaves = Schools(
        pupils.x[:, others],
        pupils.y[:, others],
        *(
            part[:, others]
            for part in (pupils.train, pupils.validation, pupils.test, pupils.intake)
        ),
    )
    W, best = choose(leaves, related_ridge(a, b, K)[:, :, others])
    found = {"hub as it is": r2(leaves, W)}
    found["no hub"] = r2(
        leaves, choose(leaves, ridge(a[:, others], b[:, others], OWN.to(a)[:, None, None]))[0]
    )
    far = (pupils.intake[:, others] - pupils.intake[:, [at]]).norm(dim=-1).mean(-1).cpu().numpy()
    for name, case in (("as it is", honest), ("turned", replace(honest, y=y))):
        a, b = statistics(case)
        if name == "turned":
            found["hub turned"] = r2(leaves, related_ridge(a, b, K[best, 0])[:, others])
            found["turned and chosen anew"] = r2(
                leaves, choose(leaves, related_ridge(a, b, K)[:, :, others])[0]
            )
        cosines = affinity.cosines(b @ b.mT)  # at w = 0 the gradient of a school is -2 b / n
        found[f"cosine, {name}"] = cosines[:, at, others].mean(-1).cpu().numpy()
        found[f"distance, {name}"] = far
    return found
