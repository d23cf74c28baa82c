"""Gradient balancing: from the Gram matrix of the task gradients to one weight a task.

Let g_1, ..., g_T be the gradients of the task losses with respect to the shared parameters, and G =
[g_i . g_j] their Gram matrix. Every method here is a pure function ``G -> w`` ([T, T] to [T],
float64, CPU) and the update direction is d = w_1 g_1 + ... + w_T g_T. No method needs the gradients
themselves, which have millions of entries; G has T x T.

All of them work on gradients of any scale: tolerances are relative to G, never absolute. The
methods that solve a quadratic program do it on the cosines C = [G_ij / (|g_i| |g_j|)], so that a
task with gradients a million times smaller than another's is still resolved.
"""

import numpy as np
import torch
from scipy.optimize import minimize, nnls
from torch import Tensor

# Eigenvalues below this share of the largest one are rounding errors of a float64 Gram matrix, not
# directions.
RANK_TOLERANCE = 1e-12


def gram(gradients: Tensor) -> Tensor:
    """Gram matrix [T, T] (float64) of task gradients [T, P]."""
    g = gradients.to(torch.float64)
    return g @ g.T


def _checked(G: Tensor) -> np.ndarray:
    """G as a symmetric float64 array; ValueError that names the task if an entry is not finite."""
    if G.ndim != 2 or G.shape[0] != G.shape[1]:
        raise ValueError(f"A Gram matrix is square, [T, T]; this one has shape {tuple(G.shape)}.")
    array = G.detach().to("cpu", torch.float64).numpy()
    bad = np.flatnonzero(~np.isfinite(array.diagonal()))
    if bad.size or not np.isfinite(array).all():
        raise ValueError(
            f"The gradient of task {', '.join(map(str, bad)) or '?'} is not finite. Look at that"
            " task's loss."
        )
    return (array + array.T) / 2


def _normalised(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Norms |g_t| [T] and cosines [T, T]; a task whose gradient is zero gets norm 1 and cosines 0."""
    norms = np.sqrt(np.clip(array.diagonal(), 0, None))
    norms = np.where(norms > 0, norms, 1.0)
    return norms, array / np.outer(norms, norms)


def _root(C: np.ndarray) -> np.ndarray:
    """A with A^T A = C for a positive semi-definite C of any rank."""
    values, vectors = np.linalg.eigh(C)
    return np.sqrt(np.clip(values, 0, None))[:, None] * vectors.T


def mgda(G: Tensor) -> Tensor:
    """Weights of the shortest convex combination: argmin_{w >= 0, sum w = 1} w^T G w.

    It is zero exactly where no direction improves every task (Pareto stationarity). Source: Sener
    and Koltun, "Multi-task learning as multi-objective optimization", NeurIPS 2018, after Désidéri
    2012.
    """
    array = _checked(G)
    zero = array.diagonal() == 0
    if zero.any():
        return torch.from_numpy(zero / zero.sum())
    norms, C = _normalised(array)
    # For w = c p with p on the simplex, |A w|^2 + (sum w - 1)^2 = c^2 |A p|^2 + (c - 1)^2: at every
    # c the same p is best.
    row = norms.min() / norms
    y, _ = nnls(np.vstack([_root(C), row]), np.append(np.zeros(len(C)), 1.0))
    w = y / norms
    return torch.from_numpy(w / w.sum())


def pcgrad(G: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Each gradient is projected onto the normal plane of every other one that it conflicts with;
    the results are added.

    The order of the projections is drawn anew for each task from `generator`, as in the paper.
    Source: Yu et al., "Gradient surgery for multi-task learning", NeurIPS 2020, algorithm 1.
    """
    array = _checked(G)
    T = len(array)
    orders = torch.rand(T, T, generator=generator).argsort(dim=1).numpy()
    return torch.from_numpy(_pcgrad_in_order(array, orders))


def _pcgrad_in_order(array: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """PCGrad for given orders [T, T]: row i lists the tasks that gradient i is held against, first
    to last.
    """
    rows = np.arange(len(array))
    squares = np.where(array.diagonal() > 0, array.diagonal(), 1.0)
    W = np.eye(len(array))  # row i: gradient i as a combination of all
    for j in orders.T:
        dot = np.einsum("it,ti->i", W, array[:, j])
        conflict = (dot < 0) & (j != rows)
        W[rows, j] -= np.where(conflict, dot / squares[j], 0.0)
    return W.sum(axis=0)


def cagrad(G: Tensor, c: float = 0.5) -> Tensor:
    """The direction within a ball of radius c |g_0| around the mean gradient g_0 that helps the
    worst task most.

    Solved in its dual, min over w on the simplex of w^T G p + c |g_0| sqrt(w^T G w) with p = (1/T,
    ..., 1/T). Source: Liu, Liu, Jin, Stone and Liu, "Conflict-averse gradient descent", NeurIPS
    2021. ValueError for a negative c.
    """
    if c < 0:
        raise ValueError(f"c is {c}; it is the radius of a ball and cannot be negative.")
    array = _checked(G)
    T = len(array)
    p = np.full(T, 1 / T)
    scale = array.trace() / T
    radius = c * np.sqrt(max(p @ array @ p, 0.0))
    if radius <= RANK_TOLERANCE * np.sqrt(scale):
        return torch.from_numpy(p)
    K, radius = array / scale, radius / np.sqrt(scale)

    def objective(w):
        norm = np.sqrt(max(w @ K @ w, RANK_TOLERANCE))
        return w @ K @ p + radius * norm, K @ p + radius * (K @ w) / norm

    found = minimize(
        objective,
        p,
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * T,
        options={"ftol": 1e-14, "maxiter": 500},
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(T)},
    )
    w = np.clip(found.x, 0, None)
    return torch.from_numpy(p + radius / np.sqrt(max(w @ K @ w, RANK_TOLERANCE)) * w)


def imtl_g(G: Tensor) -> Tensor:
    """The direction with the same projection on every unit gradient: G w proportional to |g_t|,
    with sum w = 1.

    Source: Liu et al., "Towards impartial multi-task learning", ICLR 2021. Where the weights that
    solve it sum to zero they cannot be normalised, and equal weights are returned.
    """
    array = _checked(G)
    norms, C = _normalised(array)
    # A ridge, not a pseudo-inverse: that would cut off the very direction that solves it where
    # gradients become opposite.
    w = (
        np.linalg.solve(C + RANK_TOLERANCE * np.eye(len(C)), (array.diagonal() > 0).astype(float))
        / norms
    )
    total = w.sum()
    if abs(total) <= RANK_TOLERANCE * np.abs(w).sum():
        return torch.full((len(array),), 1 / len(array), dtype=torch.float64)
    return torch.from_numpy(w / total)


def aligned_mtl(G: Tensor) -> Tensor:
    """Rotate the gradients as little as possible to an orthogonal system of equal lengths, then
    take their mean.

    Source: Senushkin et al., "Independent component alignment for multi-task learning", CVPR 2023
    (scale by the smallest singular value that is not zero). Towards the Pareto front that singular
    value, and with it the update, goes to zero; where it is exactly zero the next one takes its
    place.
    """
    array = _checked(G)
    T = len(array)
    values, vectors = np.linalg.eigh(array)
    kept = values > RANK_TOLERANCE * max(values[-1], 0.0)
    if not kept.any():
        return torch.full((T,), 1 / T, dtype=torch.float64)
    values, vectors = values[kept], vectors[:, kept]
    balance = np.sqrt(values.min()) * (vectors / np.sqrt(values)) @ vectors.T
    return torch.from_numpy(balance @ np.full(T, 1 / T))


def nash_mtl(G: Tensor, iterations: int = 100) -> Tensor:
    """Nash's bargaining solution: w > 0 with G w = 1 / w, so that every task gains in proportion.

    It minimises the convex, self-concordant w^T G w / 2 - sum log w, here by damped Newton steps,
    which need no line search. Source: Navon et al., "Multi-task learning as a bargaining game",
    ICML 2022. Tasks without a gradient get the weight 0.
    """
    array = _checked(G)
    has = array.diagonal() > 0
    norms, C = _normalised(array[np.ix_(has, has)])
    # Opposite gradients admit no bargain: the ridge bounds the weights there, and is far below the
    # cosines elsewhere.
    C = C + 1e-10 * np.eye(len(C))
    y = np.full(len(C), 1 / np.sqrt(max(len(C), 1)))
    for _ in range(iterations):
        slope = C @ y - 1 / y
        step = np.linalg.solve(C + np.diag(1 / y**2), slope)
        decrement = np.sqrt(max(slope @ step, 0.0))
        y = y - step / (1 + decrement if decrement > 0.25 else 1.0)
        if decrement < 1e-10:
            break
    w = np.zeros(len(array))
    w[has] = y / norms
    return torch.from_numpy(w)


def _onto_dual_cone(array: np.ndarray, U: np.ndarray) -> np.ndarray:
    """Row k: weights of the projection of sum_t U[k, t] g_t onto {d : d . g_t >= 0 for all t}.

    The projection is sum_t v_t g_t with v = argmin_{v >= u} v^T G v; with v = u + s it is
    non-negative least squares.
    """
    norms, C = _normalised(array)
    A = _root(C)
    rows = []
    for u in U * norms:
        s, _ = nnls(A, -A @ u)
        rows.append((u + s) / norms)
    return np.array(rows)


def upgrad(G: Tensor) -> Tensor:
    """Project each gradient onto the cone of directions that conflict with none, then take the
    mean.

    Source: Quinton and Rey, "Jacobian descent for multi-objective optimization", 2024.
    """
    array = _checked(G)
    return torch.from_numpy(_onto_dual_cone(array, np.eye(len(array)) / len(array)).sum(axis=0))


def dualproj(G: Tensor) -> Tensor:
    """Project the mean gradient onto the cone of directions that conflict with none.

    Source: Lopez-Paz and Ranzato, "Gradient episodic memory for continual learning", NeurIPS 2017.
    """
    array = _checked(G)
    return torch.from_numpy(_onto_dual_cone(array, np.full((1, len(array)), 1 / len(array)))[0])
