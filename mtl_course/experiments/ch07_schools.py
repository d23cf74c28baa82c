"""Chapter 7, schools with linear models: many draws at once, as a leading axis S of every tensor.

One fixed test set; a draw says who trains. Affinities see training pupils only, strengths are
chosen on validation pupils. Needs no Jupyter.
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

# Columns of exam that differ between the pupils of one school.
PUPIL = ("standLRT", "girl", "vr_top", "vr_bottom")
# Pupils of a school to train and validate on, and at least as many for the test.
POOL, TEST = 36, 24
VALIDATION = 12
# Strengths of a single-task ridge and of the pooled one.
OWN = torch.logspace(0, 2, 24, dtype=torch.float64)
# lam and mu of joint methods: 24 pairs.
TIES = torch.logspace(0, 3, 6, dtype=torch.float64)
ALONE = torch.tensor([1.0, 3.0, 10.0, 30.0], dtype=torch.float64)
NEIGHBOURS = 5
STRUCTURES = ("as they are", "two camps")


@dataclass(frozen=True)
class Schools:
    """The pupils of S draws and T schools, padded to P, and which of them play which part.

    Args:
        x: [S, T, P, d].
        y: [S, T, P].
        train: bool [S, T, P].
        validation: bool [S, T, P].
        test: bool [S, T, P].
        intake: mean inputs of the training pupils, [S, T, d - 1].
    """

    x: Tensor
    y: Tensor
    train: Tensor
    validation: Tensor
    test: Tensor
    intake: Tensor


def schools(
    seeds: Sequence[int],
    n: int = 12,
    structure: str = "as they are",
    device: torch.device | str = "cpu",
) -> Schools:
    """Draws of n training and `VALIDATION` validation pupils of every large school.

    The test pupils are the same in all draws. Inputs and target are standardised with the training
    pupils of the draw, and a bias is added.

    Args:
        seeds: one draw each.
        n: training pupils per school.
        structure: "two camps": every second school counts its scores from the other end (the sign
            of y is turned), so that there are two groups to be found.
        device: where the pupils go.

    Raises:
        ValueError: if there is no such structure.
    """
    if structure not in STRUCTURES:
        raise ValueError(f"structure must be one of {', '.join(STRUCTURES)}; it is {structure!r}.")
    table = data.load("exam")
    names = [str(name) for name in table.names]
    x = torch.tensor(table.x[:, [names.index(c) for c in PUPIL]])
    y, task = torch.tensor(table.y), np.array(table.task)
    large = np.isin(task, np.flatnonzero(np.bincount(task) >= POOL + TEST))
    pool, test = split_per_task(np.where(large, task, task.max() + 1)[large], POOL, seed=0)
    rows = np.flatnonzero(large)
    pool, test = rows[pool], rows[test]
    kept = np.unique(task[pool])
    sizes = n, VALIDATION, max(np.bincount(task[test]))
    draws = []
    for seed in seeds:
        train = pool[per_class(task[pool], n, seed)]
        both = pool[per_class(task[pool], n + VALIDATION, seed)]
        parts = train, np.setdiff1d(both, train), test
        padded = [_padded(part, task, kept, k) for part, k in zip(parts, sizes, strict=True)]
        draws.append(np.concatenate(padded, axis=1))
    index = torch.tensor(np.stack(draws))  # [S, T, P], -1 where there is no pupil
    role = torch.cat([torch.full((size,), k) for k, size in enumerate(sizes)])
    x, y = x[index], y[index]
    mean, spread = x[:, :, :n].mean((1, 2), keepdim=True), x[:, :, :n].std((1, 2), keepdim=True)
    x, y = (x - mean) / spread, y - y[:, :, :n].mean((1, 2), keepdim=True)
    if structure == "two camps":
        y[:, 1::2] *= -1
    intake = x[:, :, :n].mean(2)
    x = torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)
    parts = [(index >= 0) & (role == k) for k in range(3)]
    return Schools(*(values.to(device) for values in (x, y, *parts, intake)))


def _padded(rows, task, kept, length):
    """The rows of each school that is kept, filled up with -1 to one length: [T, length]."""
    by_school = [rows[task[rows] == t] for t in kept]
    return np.stack([np.pad(r, (0, length - len(r)), constant_values=-1) for r in by_school])


def statistics(pupils: Schools) -> tuple[Tensor, Tensor]:
    """A [S, T, d, d] and b [S, T, d] of the training pupils."""
    weight = pupils.train.to(pupils.x)
    return normal_equations(pupils.x * weight[..., None], pupils.y * weight)


def errors(pupils: Schools, W: Tensor, part: Tensor) -> Tensor:
    """Mean squared error [..., S, T] of each school on a part, by weights W [..., S, T, d]."""
    squares = (torch.einsum("stpd,...std->...stp", pupils.x, W) - pupils.y) ** 2
    return (squares * part).sum(-1) / part.sum(-1)


def choose(pupils: Schools, W: Tensor) -> tuple[Tensor, Tensor]:
    """Each draw's best of the candidate weights W [trials, S, T, d], by validation error.

    The error is the mean over all schools. Returns weights [S, T, d] and trial [S].
    """
    best = errors(pupils, W, pupils.validation).mean(-1).argmin(0)
    return W[best, torch.arange(len(best), device=best.device)], best


def strengths(like: Tensor) -> tuple[Tensor, Tensor]:
    """The 24 pairs (lam, mu) that a joint method tries: two tensors [24]."""
    lam, mu = torch.meshgrid(TIES.to(like), ALONE.to(like), indexing="ij")
    return lam.flatten(), mu.flatten()


def tied(pupils: Schools, S: Tensor) -> Tensor:
    """Weights [S, T, d] of schools tied along the graph S [T, T] or [S, T, T].

    The strengths are chosen on validation pupils.
    """
    a, b = statistics(pupils)
    lam, mu = (s[:, None, None, None] for s in strengths(a))
    eye = torch.eye(a.shape[1]).to(a)
    return choose(pupils, related_ridge(a, b, lam * laplacian(S) + mu * eye))[0]


def school_methods(pupils: Schools) -> dict[str, Tensor]:
    """Method -> chosen weights [S, T, d], and "relation", which is Omega [S, T, T].

    Every method tries 24 settings on the validation pupils.
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
    lam, mu = strengths(a)
    W, omega = learn_relation(a, b, lam[:, None] / T, mu[:, None], steps=8)
    weights["learned relation"], best = choose(pupils, W)
    weights["relation"] = omega[best, torch.arange(len(best), device=best.device)]
    return weights


def neighbours(closeness: Tensor) -> Tensor:
    """The graph [S, T, T] that ties every school to its `NEIGHBOURS` closest ones.

    The degrees are about 1.
    """
    tied_to = [nearest(c - c.min() + 1, NEIGHBOURS) > 0 for c in closeness]
    return torch.stack(tied_to).to(closeness) / NEIGHBOURS


def r2(pupils: Schools, W: Tensor) -> np.ndarray:
    """Test R2 of each draw over all test pupils together, [S]."""
    squares = (torch.einsum("stpd,std->stp", pupils.x, W) - pupils.y) ** 2
    mean = (pupils.y * pupils.test).sum((1, 2)) / pupils.test.sum((1, 2))
    total = ((pupils.y - mean[:, None, None]) ** 2 * pupils.test).sum((1, 2))
    return (1 - (squares * pupils.test).sum((1, 2)) / total).cpu().numpy()


def school_gains(pupils: Schools, setting: Tensor | None = None) -> tuple[np.ndarray, Tensor]:
    """Gain of each school from each other one, in per cent of its single-task test RMSE.

    A pair is tied by mean-regularised learning, whose strengths are chosen once for all pairs of a
    draw, as those of single-task learning are for all schools.

    Args:
        pupils: of S draws.
        setting: [S], the trials to take instead.

    Returns:
        Gains [S, T, T], row i trained as a pair with column j, 0 on the diagonal; and the trials
        that were taken [S].
    """
    a, b = statistics(pupils)
    S, T = a.shape[:2]
    single, _ = choose(pupils, ridge(a, b, OWN.to(a)[:, None, None]))
    alone = errors(pupils, single, pupils.test).sqrt().cpu().numpy()
    i, j = (torch.tensor(k) for k in np.triu_indices(T, 1))
    pair_a = torch.stack([a[:, i], a[:, j]], 2)  # [S, pairs, 2, d, d]
    pair_b = torch.stack([b[:, i], b[:, j]], 2)
    lam, mu = (s[:, None, None] for s in strengths(a))
    eye = torch.eye(2).to(a)
    K = lam * laplacian(complete(2, a)) + mu * eye
    best = torch.zeros(S, T, T).to(a)
    lowest = torch.full((S,), torch.inf).to(a)
    taken = torch.zeros(S, dtype=torch.int64, device=a.device)
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
            best = torch.where(better[:, None, None], test, best)
            taken = torch.where(better, trial, taken)
        lowest = torch.minimum(score, lowest)
    gains = affinity.relative_gain(alone[:, :, None], best.sqrt().cpu().numpy())
    gains[:, np.arange(T), np.arange(T)] = 0
    return gains, taken


def school_affinities(
    pupils: Schools, weights: dict[str, Tensor], rate: float = 0.1
) -> dict[str, np.ndarray]:
    """Affinity -> symmetric matrices [S, T, T], from training pupils only.

    Gradients are taken at the pooled model; `rate` is that of the step of "lookahead".
    """
    a, b = statistics(pupils)
    n, T = pupils.train.sum(-1), a.shape[1]
    w = weights["pooled"]
    # Gradients of the mean squared errors, [S, T, d].
    g = 2 * (torch.einsum("stde,ste->std", a, w) - b) / n[..., None]
    # [S, stepping task, task, d]
    stepped = (w[:, :1] - rate * g)[:, :, None].expand(-1, -1, T, -1)
    start = errors(pupils, w, pupils.train)
    after = torch.stack([errors(pupils, stepped[:, i], pupils.train) for i in range(T)], 1)
    omega = weights["relation"]
    matrices = {
        "intake": affinity.closeness(pupils.intake),
        "own weights": affinity.closeness(weights["single task"]),
        "gradient cosine": affinity.cosines(g @ g.mT),
        "lookahead": 1 - after / start[:, None],
        "learned relation": affinity.cosines(omega),
    }
    return {name: affinity.both_ways(S.cpu().numpy()) for name, S in matrices.items()}


def hub(pupils: Schools) -> dict[str, np.ndarray]:
    """A star: the largest school, with all of its pupils, tied to every other one.

    What the others get from it, by test R2. The strengths are chosen with the hub as it is, and
    kept when the sign of its scores is turned ("hub turned"), or chosen anew.

    Returns:
        Values per draw [S]: R2 of "hub as it is", "no hub", "hub turned" and "turned and chosen
        anew"; "cosine" and "distance", as it is and turned: mean gradient cosine at the start (all
        weights 0) and mean distance of intake between the hub and the others.
    """
    T = pupils.x.shape[1]
    at = int(pupils.test[0].sum(-1).argmax())
    others = [t for t in range(T) if t != at]
    train = pupils.train.clone()
    train[:, at] = (pupils.train | pupils.validation | pupils.test)[:, at]
    honest = replace(pupils, train=train)
    y = pupils.y.clone()
    y[:, at] *= -1
    turned = replace(honest, y=y)
    leaves = Schools(*(values[:, others] for values in vars(pupils).values()))
    a, b = statistics(honest)
    star = torch.zeros(T, T).to(a)
    star[at], star[:, at] = 1.0, 1.0
    star[at, at] = 0
    lam, mu = (s[:, None, None, None] for s in strengths(a))
    K = lam * laplacian(star) + mu * torch.eye(T).to(a)
    W, best = choose(leaves, related_ridge(a, b, K)[:, :, others])
    single, _ = choose(leaves, ridge(a[:, others], b[:, others], OWN.to(a)[:, None, None]))
    results = {"hub as it is": r2(leaves, W), "no hub": r2(leaves, single)}
    a, b = statistics(turned)
    results["hub turned"] = r2(leaves, related_ridge(a, b, K[best, 0])[:, others])
    anew, _ = choose(leaves, related_ridge(a, b, K)[:, :, others])
    results["turned and chosen anew"] = r2(leaves, anew)
    far = (pupils.intake[:, others] - pupils.intake[:, [at]]).norm(dim=-1).mean(-1).cpu().numpy()
    for name, case in (("as it is", honest), ("turned", turned)):
        _, b = statistics(case)
        cosines = affinity.cosines(b @ b.mT)  # at w = 0 the gradient of a school is -2 b / n
        results[f"cosine, {name}"] = cosines[:, at, others].mean(-1).cpu().numpy()
        results[f"distance, {name}"] = far
    return results
