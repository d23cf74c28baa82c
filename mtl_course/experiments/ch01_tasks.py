"""Chapter 1: what the number of tasks buys, with the number of examples per task held fixed.

Two experiments. The schools are dealt into groups of T, and each group learns together: the tasks
share a common vector. And a toy in which the tasks share two directions out of twenty, which have
to be learned. Needs no Jupyter.
"""

from collections.abc import Sequence

import numpy as np
import torch

from ..multitask.linear import mean_regularised, normal_equations
from .ch01 import VALIDATION, _r2, _with_bias, deal

COUNTS = (1, 2, 4, 8, 16, 32)  # schools that learn together
LARGEST = 36  # training pupils that `deal` keeps free: the schools are those of the main experiment
# what every count of schools may choose from: how firmly a school is held to the common vector, and
# the common vector to zero. With one school, all of this is ridge regression.
LAMBDAS = torch.logspace(-1, 3, 9, dtype=torch.float64)
MUS = torch.tensor([1e-6, 1.0, 3.0, 10.0, 30.0, 100.0], dtype=torch.float64)
INPUTS, SHARED, EXAMPLES, NOISE = 20, 2, 12, 0.5  # of the toy


def by_number(
    x: np.ndarray,
    y: np.ndarray,
    task: np.ndarray,
    seeds: Sequence[int],
    n: int = 6,
    counts: Sequence[int] = COUNTS,
) -> dict[int, np.ndarray]:
    """Test R2 of schools that learn in groups of T, for each T.

    The same schools are tested whatever T is: they are dealt at random into groups of T, and each
    group is solved for itself. lam and mu serve all groups of a T. They are chosen on the
    validation pupils of all the schools, so that more tasks buy no better choice.

    Args:
        x: [N, d], as `data.load` gives it.
        y: [N].
        task: [N].
        seeds: one order of the pupils and one deal of the schools each.
        n: training pupils per school.
        counts: values of T; each divides the largest, which is the number of schools used.

    Returns:
        T -> [seeds].

    Raises:
        ValueError: if there are too few large schools, or a count does not divide the largest.
    """
    schools = max(counts)
    if any(schools % count for count in counts):
        raise ValueError(f"each of {tuple(counts)} must divide {schools}.")
    scores = {count: [] for count in counts}
    for seed in seeds:
        dealt, target, real = deal(x, y, task, seed, LARGEST)
        if len(dealt) < schools:
            raise ValueError(f"{schools} large schools are needed; there are {len(dealt)}.")
        some = torch.tensor(np.random.RandomState([seed, 3]).permutation(len(dealt))[:schools])
        # Standardised by the pupils of all schools, whatever T is, as in `ch01.compare`.
        z, t = (part[0, some] for part in _with_bias(dealt[None], target[None], n, None))
        tested = real[some].clone()
        tested[:, : LARGEST + VALIDATION] = False
        choosing = slice(LARGEST, LARGEST + VALIDATION)
        a, b = normal_equations(z[:, :n], t[:, :n])
        for count in counts:
            a_groups = a.view(-1, count, *a.shape[1:])
            b_groups = b.view(-1, count, b.shape[1])
            lam, mu = (grid.reshape(-1, 1) for grid in torch.meshgrid(LAMBDAS, MUS, indexing="ij"))
            w = mean_regularised(a_groups, b_groups, lam, mu)[1]
            w = w.reshape(len(lam), schools, -1)  # [choices, schools, d]
            error = (torch.einsum("spd,gsd->gsp", z, w) - t) ** 2
            best = error[..., choosing].mean((1, 2)).argmin()
            scores[count].append(_r2(error[best][None], t[None], tested[None]).item())
    return {count: np.array(values) for count, values in scores.items()}


def shared_plane(X: np.ndarray, Y: np.ndarray, r: int, lam: float, rounds: int = 30) -> np.ndarray:
    """Linear tasks whose weights lie in one r-dimensional subspace, which is learned with them.

    The tasks are linear networks with one trunk B [d, r] and a head v_t [r] each, w_t = B v_t. They
    minimise

        sum_t ( ||y_t - X_t B v_t||^2 + lam ||v_t||^2 ) + lam d ||B||^2

    in turns: given the trunk, every head is a small ridge regression; given the heads, the trunk is
    one ridge regression of all tasks. (Strengths as for heads with entries of variance 1 and a
    trunk with entries of variance 1 / d.) The start is the method of moments.

    Args:
        X: [T, n, d].
        Y: [T, n].
        r: dimensions of the subspace.
        lam: ridge strength of the heads, above 0; the variance of the noise is a good choice.
        rounds: how often both are solved.

    Returns:
        The tasks' weights [T, d].

    Source:
        Tripuraneni, Jin and Jordan, "Provable meta-learning of linear representations", ICML 2021,
        for the model and the start; the ridge terms are ours.
    """
    T, n, d = X.shape
    moment = np.einsum("tn,tni,tnj->ij", Y**2, X, X)
    B = np.linalg.eigh(moment)[1][:, -r:]  # trunk [d, r]
    for _ in range(rounds):
        F = X @ B  # features [T, n, r]
        V = np.stack([_ridge(f, y, lam) for f, y in zip(F, Y, strict=True)])
        Z = np.einsum("tr,tnd->tnrd", V, X).reshape(T * n, r * d)
        B = _ridge(Z, Y.ravel(), lam * d).reshape(r, d).T
    return V @ B.T


def _ridge(X, y, lam):
    return np.linalg.solve(X.T @ X + lam * np.eye(X.shape[1]), X.T @ y)


def toy_tasks(seed: int, T: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """T tasks of the toy: X [T, n, d], Y [T, n], true weights [T, d], the shared plane [d, r]."""
    draw = np.random.RandomState(seed)
    plane = np.linalg.qr(draw.normal(size=(INPUTS, SHARED)))[0]
    truth = draw.normal(size=(T, SHARED)) @ plane.T
    X = draw.normal(size=(T, EXAMPLES, INPUTS))
    Y = (X @ truth[..., None])[..., 0] + NOISE * draw.normal(size=(T, EXAMPLES))
    return X, Y, truth, plane


def toy_by_number(seeds: Sequence[int], counts: Sequence[int]) -> dict[str, np.ndarray]:
    """Squared error of the weights, method -> [seeds, counts]: alone, together, plane known.

    Each method has the ridge strength that is best for it on average over such tasks.
    """
    found = {"alone": [], "together": [], "plane known": []}
    heads = NOISE**2  # over a variance of 1 of the heads' entries
    for seed in seeds:
        row = {name: [] for name in found}
        for T in counts:
            X, Y, truth, plane = toy_tasks(seed, T)
            pairs = list(zip(X, Y, strict=True))
            weights = {
                "alone": np.stack([_ridge(*one, heads * INPUTS / SHARED) for one in pairs]),
                "together": shared_plane(X, Y, SHARED, heads),
                "plane known": np.stack([_ridge(a @ plane, b, heads) @ plane.T for a, b in pairs]),
            }
            for name, w in weights.items():
                row[name].append(((w - truth) ** 2).sum(1).mean())
        for name, values in row.items():
            found[name].append(values)
    return {name: np.array(values) for name, values in found.items()}
