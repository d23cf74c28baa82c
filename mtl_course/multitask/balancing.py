"""Gradient balancing: from the Gram matrix of the task gradients to one weight per task.

Let g_1, ..., g_T be the gradients of the task losses with respect to the shared parameters, and
G = [g_i . g_j] their Gram matrix. Every method here is a pure function ``G -> w`` ([T, T] to [T],
float64, CPU), and the update direction is d = w_1 g_1 + ... + w_T g_T. No method needs the
gradients themselves, which have millions of entries; G has T x T. `METHODS` lists them all.

All of them work on gradients of any scale: tolerances are relative to G, never absolute. The
methods that solve a quadratic program do it on the cosines C = [G_ij / (|g_i| |g_j|)], so that a
task whose gradients are a million times smaller than another's is still resolved.

Every example has the same two gradients, (-4, 1, 1) and (6, 1, 1). They conflict: their dot product
is -22, and a step along their sum (2, 2, 2) makes the first loss worse. Each example shows the
weights w and the direction d = w J.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.optimize import brentq, nnls
from torch import Tensor

# Eigenvalues below this share of the largest one are rounding errors of a float64 Gram matrix, not
# directions.
RANK_TOLERANCE = 1e-12
EPSILON = np.finfo(np.float64).eps
# A sum of gradients below this share of their lengths has no direction that can be relied upon: the
# rounding of its Gram matrix is 1e-8 of them.
CANCELLED = 1e-6


# ---------------------------------------------------------------------------- what all methods need
def gram(gradients: Tensor) -> Tensor:
    """Gram matrix of task gradients: all their dot products.

    Args:
        gradients: [T, P], row t the gradient of task t; any float type.

    Returns:
        G [T, T], float64, on the device of `gradients`.

    Example:
        >>> J = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
        >>> gram(J).tolist()
        [[18.0, -22.0], [-22.0, 38.0]]
    """
    J = gradients.to(torch.float64)
    return J @ J.T


def normalised(G):
    """Norms |g_t| [..., T] and cosines [..., T, T], from Gram matrices [..., T, T].

    A task whose gradient is zero gets the norm 1 and cosines 0. G may be a tensor or an array: the
    body uses only what both have.
    """
    norms = G.diagonal(0, -2, -1).clip(0) ** 0.5
    norms = norms + (norms == 0)
    return norms, G / (norms[..., :, None] * norms[..., None, :])


def _checked(G: Tensor) -> np.ndarray:
    """G as a symmetric float64 array; an error if it is not square, or has an infinity or NaN."""
    if G.ndim != 2 or G.shape[0] != G.shape[1]:
        raise ValueError(f"A Gram matrix is square, [T, T]; this one has shape {tuple(G.shape)}.")
    array = G.detach().to("cpu", torch.float64).numpy()
    bad = np.flatnonzero(~np.isfinite(array.diagonal()))
    if bad.size or not np.isfinite(array).all():
        tasks = ", ".join(map(str, bad)) or "?"
        raise FloatingPointError(
            f"The gradient of task {tasks} is not finite. Look at that task's loss."
        )
    return (array + array.T) / 2


def _root(C: np.ndarray) -> np.ndarray:
    """A with A^T A = C for a positive semi-definite C of any rank.

    What is zero but for rounding is made zero, the column of a task without a gradient too: its
    root would not be small, and non-negative least squares would lean on it.
    """
    values, vectors = np.linalg.eigh(C)
    values = np.where(values > 4 * len(C) * EPSILON * values[-1], values, 0)
    return np.sqrt(values)[:, None] * vectors.T * (C.diagonal() > 0)


# -------------------------------------------------------------------------------------- the methods
def mgda(G: Tensor) -> Tensor:
    """Weights of the shortest convex combination: argmin_{w >= 0, sum w = 1} w^T G w.

    The combination is zero exactly where no direction improves every task (Pareto stationarity).

    Args:
        G: Gram matrix [T, T] of the task gradients.

    Returns:
        Weights [T], float64, on the CPU; they are not negative and sum to 1.

    Raises:
        ValueError: G is not square.
        FloatingPointError: an entry of G is not finite; names the task.

    Source:
        Sener and Koltun, "Multi-task learning as multi-objective optimization", NeurIPS 2018, after
        Désidéri 2012.

    Example:
        >>> J = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)
        >>> w = mgda(gram(J))
        >>> torch.round(w, decimals=4).tolist()
        [0.6, 0.4]
        >>> (torch.round(w @ J, decimals=4) + 0).tolist()  # + 0: no minus zero
        [0.0, 1.0, 1.0]
    """
    array = _checked(G)
    zero = array.diagonal() == 0
    if zero.any():
        return torch.from_numpy(zero / zero.sum())
    norms, C = normalised(array)
    return torch.from_numpy(_shortest(_root(C) * norms))


def pcgrad(G: Tensor, orders: Tensor | Sequence[Sequence[int]] | None = None) -> Tensor:
    """Add up the gradients, each one projected off every other that it conflicts with.

    A projected gradient lies in the normal plane of the gradient that it was last projected off; a
    later projection may undo an earlier one in part, so with three tasks the order matters.

    Args:
        G: Gram matrix [T, T] of the task gradients.
        orders: row i lists the tasks that gradient i is held against, first to last, as in [T, T]
            or as T lists (i itself is skipped); default: drawn anew by torch's own generator, as in
            the paper. `PCGrad` draws them from a generator of its own.

    Returns:
        Weights [T], float64, on the CPU; none is below 1.

    Raises:
        ValueError: G is not square, or there is not one order for each task.
        FloatingPointError: an entry of G is not finite; names the task.

    Source:
        Yu et al., "Gradient surgery for multi-task learning", NeurIPS 2020, algorithm 1.

    Example:
        >>> J = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)
        >>> w = pcgrad(gram(J))  # with two tasks there is only one order
        >>> torch.round(w, decimals=4).tolist()
        [2.2222, 1.5789]
        >>> torch.round(w @ J, decimals=4).tolist()
        [0.5848, 3.8012, 3.8012]
    """
    array = _checked(G)
    T = len(array)
    orders = np.asarray(_drawn_orders(T, None) if orders is None else orders)
    if len(orders) != T:
        raise ValueError(f"There are {len(orders)} orders for {T} tasks; each task needs its own.")
    W = np.eye(T)  # row i: the i-th projected gradient as a combination of all
    for i, projected in enumerate(W):
        for j in orders[i]:
            # The inner product of the i-th projected gradient and g_j.
            dot = projected @ array[j]
            if j != i and dot < 0 < array[j, j]:
                projected[j] -= dot / array[j, j]
    return torch.from_numpy(W.sum(axis=0))


def _drawn_orders(tasks: int, generator: torch.Generator | None) -> Tensor:
    """A random order of all tasks in each of the `tasks` rows."""
    return torch.rand(tasks, tasks, generator=generator).argsort(dim=1)


class PCGrad:
    """`pcgrad` as a method G -> w that draws its orders from a generator of its own.

    So a run does not depend on what else draws random numbers. Its `state_dict` is part of the
    checkpoints of `fit_tasks`.

    Args:
        seed: of the generator.

    Example:
        >>> J = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)
        >>> torch.round(PCGrad(seed=0)(gram(J)) @ J, decimals=4).tolist()
        [0.5848, 3.8012, 3.8012]
        >>> G = torch.eye(8) - 0.1  # with more tasks the draws matter, and a seed repeats them
        >>> torch.equal(PCGrad(seed=1)(G), PCGrad(seed=1)(G))
        True
    """

    def __init__(self, seed: int = 0):
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, G: Tensor) -> Tensor:
        """Weights [T] for newly drawn orders."""
        return pcgrad(G, _drawn_orders(len(G), self.generator))

    def state_dict(self) -> dict[str, Tensor]:
        """The state of the generator."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Draw on as the generator of this state would."""
        self.generator.set_state(state["generator"])


def cagrad(G: Tensor, c: float = 0.5) -> Tensor:
    """The direction within a ball around the mean gradient that helps the worst task most.

    The ball has the radius c |g_0|, with g_0 the mean gradient. Solved in its dual: the minimum
    over w on the simplex of w^T G p + c |g_0| sqrt(w^T G w), with p = (1/T, ..., 1/T).

    Args:
        G: Gram matrix [T, T] of the task gradients.
        c: radius of the ball in units of |g_0|, >= 0; 0 gives the mean gradient.

    Returns:
        Weights [T], float64, on the CPU.

    Raises:
        ValueError: c is negative or NaN, or G is not square.
        FloatingPointError: an entry of G is not finite; names the task.

    Source:
        Liu, Liu, Jin, Stone and Liu, "Conflict-averse gradient descent", NeurIPS 2021.

    Example:
        >>> J = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)
        >>> w = cagrad(gram(J))
        >>> torch.round(w, decimals=2).tolist()
        [0.7, 0.5]
        >>> torch.round(w @ J, decimals=2).tolist()
        [0.18, 1.2, 1.2]
    """
    if not c >= 0:
        raise ValueError(f"c is {c}; it is the radius of a ball and cannot be negative.")
    array = _checked(G)
    T = len(array)
    p = np.full(T, 1 / T)
    norms, C = normalised(array)
    A = _root(C) * norms  # a column per task, A^T A = G
    mean = A @ p
    radius = c * np.linalg.norm(mean)
    if radius <= RANK_TOLERANCE * norms.max():
        return torch.from_numpy(p)
    # r |A w| is the least r (|A w|^2 / s + s) / 2 over s > 0. For a given s the best w is that of
    # the shortest combination of the gradients, each moved by s / r times their mean; s = |A w| is
    # where the sum of both stops falling.
    length = np.linalg.norm

    def mixture(s):
        return _shortest(A + (s / radius) * mean[:, None])

    # Where a combination of the gradients is zero it has no direction: no step helps every task,
    # and the nearest one that harms none is the best, if it is in the ball.
    harmless = _onto_dual_cone(array, p[None])[0]
    in_ball = length(A @ (harmless - p)) <= radius
    low, high = 1e-9 * norms[array.diagonal() > 0].min(), norms.max()
    w = mixture(low)
    if length(A @ w) > low:
        slope = lambda log_s: np.log(length(A @ mixture(np.exp(log_s)))) - log_s  # noqa: E731
        w = mixture(np.exp(brentq(slope, np.log(low), np.log(high) + 1, xtol=1e-14, rtol=1e-14)))
    cancelled = length(A @ w) <= CANCELLED * (norms @ w)
    if cancelled and in_ball:
        return torch.from_numpy(harmless)
    candidates = [p + radius / max(length(A @ w), low) * w, *([harmless] if in_ball else [])]
    return torch.from_numpy(max(candidates, key=lambda w: (A.T @ (A @ w)).min()))


def _shortest(A: np.ndarray) -> np.ndarray:
    """argmin |A w| over w >= 0 with sum w = 1, for columns of any length."""
    norms = np.linalg.norm(A, axis=0)
    if not norms.all():
        return (norms == 0) / (norms == 0).sum()
    # For w = c p with p on the simplex, |A w|^2 + (sum w - 1)^2 = c^2 |A p|^2 + (c - 1)^2: at every
    # c the same p is best.
    y, _ = nnls(np.vstack([A / norms, norms.min() / norms]), np.append(np.zeros(len(A)), 1.0))
    w = y / norms
    return w / w.sum()


def imtl_g(G: Tensor) -> Tensor:
    """The direction with the same projection on every unit gradient.

    G w is proportional to the norms |g_t|, with sum w = 1. Where the weights that solve it sum to
    zero they cannot be normalised, and equal weights are returned.

    Args:
        G: Gram matrix [T, T] of the task gradients.

    Returns:
        Weights [T], float64, on the CPU; they sum to 1, and may be negative.

    Raises:
        ValueError: G is not square.
        FloatingPointError: an entry of G is not finite; names the task.

    Source:
        Liu et al., "Towards impartial multi-task learning", ICLR 2021.

    Example:
        >>> J = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)
        >>> w = imtl_g(gram(J))
        >>> torch.round(w, decimals=4).tolist()
        [0.5923, 0.4077]
        >>> torch.round(w @ J, decimals=4).tolist()
        [0.0767, 1.0, 1.0]
    """
    array = _checked(G)
    norms, C = normalised(array)
    has_gradient = (array.diagonal() > 0).astype(float)
    # A ridge, not a pseudo-inverse: that would cut off the very direction that solves it where
    # gradients become opposite.
    w = np.linalg.solve(C + RANK_TOLERANCE * np.eye(len(C)), has_gradient) / norms
    total = w.sum()
    if abs(total) <= RANK_TOLERANCE * np.abs(w).sum():
        return torch.full((len(array),), 1 / len(array), dtype=torch.float64)
    return torch.from_numpy(w / total)


def aligned_mtl(G: Tensor) -> Tensor:
    """The mean of the gradients after they were turned to a right-angled system of one length.

    The system is the nearest one, and its common length is the smallest singular value of the
    gradients that is not zero. Towards the Pareto front that singular value, and with it the
    update, goes to zero; where it is exactly zero the next one takes its place.

    Args:
        G: Gram matrix [T, T] of the task gradients.

    Returns:
        Weights [T], float64, on the CPU.

    Raises:
        ValueError: G is not square.
        FloatingPointError: an entry of G is not finite; names the task.

    Source:
        Senushkin et al., "Independent component alignment for multi-task learning", CVPR 2023.

    Example:
        >>> J = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)
        >>> w = aligned_mtl(gram(J))
        >>> torch.round(w, decimals=4).tolist()
        [0.5591, 0.4083]
        >>> torch.round(w @ J, decimals=4).tolist()
        [0.2133, 0.9673, 0.9673]
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
    """Nash's bargaining solution: w > 0 with G w = 1 / w, so that all gain in proportion.

    It minimises the convex, self-concordant w^T G w / 2 - sum log w, here by damped Newton steps,
    which need no line search.

    Args:
        G: Gram matrix [T, T] of the task gradients.
        iterations: at most so many Newton steps; ten are usual.

    Returns:
        Weights [T], float64, on the CPU; positive, but 0 for a task without a gradient.

    Raises:
        ValueError: G is not square.
        FloatingPointError: an entry of G is not finite; names the task.

    Source:
        Navon et al., "Multi-task learning as a bargaining game", ICML 2022.

    Example:
        >>> J = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)
        >>> w = nash_mtl(gram(J))
        >>> torch.round(w, decimals=4).tolist()
        [0.5915, 0.4071]
        >>> torch.round(w @ J, decimals=4).tolist()
        [0.0766, 0.9985, 0.9985]
        >>> torch.round(gram(J) @ w * w, decimals=4).tolist()  # G w = 1 / w
        [1.0, 1.0]
    """
    array = _checked(G)
    has_gradient = array.diagonal() > 0
    norms, C = normalised(array[np.ix_(has_gradient, has_gradient)])
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
    w[has_gradient] = y / norms
    return torch.from_numpy(w)


def fairgrad(G: Tensor, alpha: float = 2.0, iterations: int = 2000) -> Tensor:
    """FairGrad: a bargain with a power, w > 0 with w = (G w)^-alpha.

    The larger alpha, the fairer to the task that gains least.

    The direction it gives makes the sum of (gain of task t)^(1 - alpha) / (1 - alpha) largest for
    its length. alpha = 1 is Nash's bargain. Towards 0 it is the plain sum, or where that hurts a
    task `dualproj`; towards infinity `mgda`, which looks at the task that gains least alone. Only
    with alpha = 1 is it scale-free. Near the front the update gets shorter with alpha < 1, and
    *longer* with alpha > 1.

    Solved by Newton steps on a convex function of w, each one as long as keeps it falling.

    Args:
        G: Gram matrix [T, T] of the task gradients.
        alpha: > 0.
        iterations: at most so many Newton steps; ten or twenty are usual, hundreds where gradients
            are opposite.

    Returns:
        Weights [T], float64, on the CPU; positive, but 0 for a task without a gradient.

    Raises:
        ValueError: alpha is not a positive number, or G is not square.
        FloatingPointError: an entry of G is not finite; names the task.

    Source:
        Ban and Ji, "Fair resource allocation in multi-task learning", ICML 2024.

    Example:
        >>> J = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)
        >>> w = fairgrad(gram(J))
        >>> torch.round(w, decimals=4).tolist()
        [0.4714, 0.3195]
        >>> torch.round(w @ J, decimals=4).tolist()
        [0.0313, 0.7908, 0.7908]
        >>> torch.round((gram(J) @ w) ** 2 * w, decimals=4).tolist()  # w = (G w)^-alpha
        [1.0, 1.0]
    """
    if not 0 < alpha < np.inf:
        raise ValueError(f"alpha is {alpha}; it is a positive number.")
    array = _checked(G)
    has_gradient = array.diagonal() > 0
    norms, C = normalised(array[np.ix_(has_gradient, has_gradient)])
    # With y = norms * w it is C y = norms^(p - 1) y^-p; the powers are taken as logarithms, which
    # do not overflow. The ridge is that of `nash_mtl`.
    C, p, lengths = C + 1e-10 * np.eye(len(C)), 1 / alpha, np.log(norms)
    y = np.exp((p - 1) / (p + 1) * lengths)  # solves it where the gradients are at right angles
    last = np.inf
    for _ in range(iterations):
        wanted = np.exp((p - 1) * lengths - p * np.log(y))
        bend = p * wanted / y
        # Newton's step, in units in which the matrix has ones on its diagonal.
        unit = 1 / np.sqrt(C.diagonal() + bend)
        H = (C + np.diag(bend)) * unit[:, None] * unit
        step = unit * np.linalg.solve(H, unit * (C @ y - wanted))
        # The largest relative fall of a weight bounds the growth of the second derivative, and so
        # says how far along the step the function falls for certain.
        fall = max((step / y).max(initial=0.0), 0.0)
        y = y - step * ((1 - (1 + p * fall) ** -alpha) / fall if fall > 1e-8 else 1.0)
        y = np.maximum(y, 1e-290)  # the logarithm of a weight that a large alpha makes vanish
        change = np.abs(step / y).max(initial=0.0)
        if change < 1e-10 or (last < 1e-4 and change > last / 2):  # or as near as rounding lets it
            break
        last = change
    w = np.zeros(len(array))
    w[has_gradient] = y / norms
    return torch.from_numpy(w)


def _onto_dual_cone(array: np.ndarray, U: np.ndarray) -> np.ndarray:
    """Row k: weights of the projection of sum_t U[k, t] g_t onto {d : d . g_t >= 0 for all t}.

    The projection is sum_t v_t g_t with v = argmin_{v >= u} v^T G v; with v = u + s it is
    non-negative least squares.
    """
    norms, C = normalised(array)
    # The ridge keeps opposite gradients apart, which least squares could not tell otherwise; what
    # it changes is far below the cosines.
    A = np.vstack([_root(C), 1e-7 * np.eye(len(C))])
    has_gradient = array.diagonal() > 0
    if not has_gradient.any():
        return U
    rows = []
    for u in U * norms:
        s = np.zeros(len(C))
        right = np.append(-A[: len(C)] @ u, np.zeros(len(C)))
        s[has_gradient], _ = nnls(np.ascontiguousarray(A[:, has_gradient]), right)
        rows.append((u + s) / norms)
    return np.array(rows)


def upgrad(G: Tensor) -> Tensor:
    """The mean of the gradients, each one projected onto what conflicts with no task.

    The directions that conflict with no task are a cone, and each projection is onto the whole of
    it, so their mean conflicts with none either. For two tasks it is half of PCGrad's update.

    Args:
        G: Gram matrix [T, T] of the task gradients.

    Returns:
        Weights [T], float64, on the CPU; none is below 1 / T.

    Raises:
        ValueError: G is not square.
        FloatingPointError: an entry of G is not finite; names the task.

    Source:
        Quinton and Rey, "Jacobian descent for multi-objective optimization", 2024.

    Example:
        >>> J = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)
        >>> w = upgrad(gram(J))
        >>> torch.round(w, decimals=4).tolist()
        [1.1111, 0.7895]
        >>> torch.round(w @ J, decimals=4).tolist()
        [0.2924, 1.9006, 1.9006]
    """
    array = _checked(G)
    return torch.from_numpy(_onto_dual_cone(array, np.eye(len(array)) / len(array)).sum(axis=0))


def dualproj(G: Tensor) -> Tensor:
    """The mean gradient, projected onto the directions that conflict with no task.

    Args:
        G: Gram matrix [T, T] of the task gradients.

    Returns:
        Weights [T], float64, on the CPU; none is below 1 / T.

    Raises:
        ValueError: G is not square.
        FloatingPointError: an entry of G is not finite; names the task.

    Source:
        Lopez-Paz and Ranzato, "Gradient episodic memory for continual learning", NeurIPS 2017.

    Example:
        >>> J = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)
        >>> w = dualproj(gram(J))
        >>> torch.round(w, decimals=4).tolist()
        [0.6111, 0.5]
        >>> torch.round(w @ J, decimals=4).tolist()
        [0.5556, 1.1111, 1.1111]
    """
    array = _checked(G)
    return torch.from_numpy(_onto_dual_cone(array, np.full((1, len(array)), 1 / len(array)))[0])


# ----------------------------------------------------------------------------------------- the list
METHODS: dict[str, Callable[[Tensor], Tensor]] = {
    # the shortest mixture: Sener and Koltun, NeurIPS 2018
    "mgda": mgda,
    # project each gradient off those it conflicts with, one by one: Yu et al., NeurIPS 2020
    "pcgrad": pcgrad,
    # near the mean, best for the worst task: Liu et al., NeurIPS 2021
    "cagrad": cagrad,
    # the same projection on every unit gradient: Liu et al., ICLR 2021
    "imtl_g": imtl_g,
    # the nearest right-angled system: Senushkin et al., CVPR 2023
    "aligned_mtl": aligned_mtl,
    # the bargaining solution: Navon et al., ICML 2022
    "nash_mtl": nash_mtl,
    # Nash's bargain with a power that favours the task that gains least: Ban and Ji, ICML 2024
    "fairgrad": fairgrad,
    # project each gradient onto what conflicts with none: Quinton and Rey, 2024
    "upgrad": upgrad,
    # project the mean onto what conflicts with none: Lopez-Paz and Ranzato, NeurIPS 2017
    "dualproj": dualproj,
}
"""Every method by its name, G [T, T] -> w [T]; experiments, benchmark and tests read it.

A method that is added here shows up in all of them. Its idea and its source are in its docstring.
"""


def method(name: str, seed: int = 0) -> Callable[[Tensor], Tensor]:
    """The method of this name, to be called with one Gram matrix after the other.

    What draws random numbers, PCGrad, does so from a generator of its own.

    Args:
        name: one of `METHODS`.
        seed: of that generator; the other methods draw nothing.

    Returns:
        Function from G [T, T] to weights [T].

    Raises:
        ValueError: there is no such method; lists those that there are.

    Example:
        >>> J = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)
        >>> for name in METHODS:
        ...     print(f"{name:12}", *(f"{w:.2f}" for w in method(name)(gram(J))))
        mgda         0.60 0.40
        pcgrad       2.22 1.58
        cagrad       0.70 0.50
        imtl_g       0.59 0.41
        aligned_mtl  0.56 0.41
        nash_mtl     0.59 0.41
        fairgrad     0.47 0.32
        upgrad       1.11 0.79
        dualproj     0.61 0.50
    """
    if name not in METHODS:
        raise ValueError(f"There is no method {name!r}; there are {', '.join(METHODS)}.")
    return PCGrad(seed) if name == "pcgrad" else METHODS[name]
