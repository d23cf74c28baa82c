"""Chapter 1: what the number of tasks buys, with the number of examples per task held fixed.

Three experiments. The schools are dealt into groups of T, and each group learns together: the
tasks share a common vector. Then one school of every group has random scores. And a toy in which
the tasks share two directions out of twenty, which have to be learned. Needs no Jupyter.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

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
    scores = {count: [] for count in counts}
    for seed in seeds:
        z, t, tested = _schools(x, y, task, seed, n, counts)
        for count in counts:
            w = _weights(z[:, :n], t[:, :n], count)
            scores[count].append(_score(z, t, w, tested, torch.ones(len(t), dtype=bool)))
    return {count: np.array(values) for count, values in scores.items()}


def one_random(
    x: np.ndarray,
    y: np.ndarray,
    task: np.ndarray,
    seeds: Sequence[int],
    n: int = 6,
    counts: Sequence[int] = (2, 4, 8, 32),
) -> dict[str, np.ndarray]:
    """Test R2 of the other schools where one school of every group of T has random scores.

    The schools and their groups are those of `by_number`. The training scores of the first school
    of every group are drawn from the training scores of all schools, without regard to who got
    them. Only the other schools are tested, and only their validation pupils choose lam and mu.

    Args:
        x: [N, d], as `data.load` gives it.
        y: [N].
        task: [N].
        seeds: one order of the pupils, one deal of the schools and one draw of the scores each.
        n: training pupils per school.
        counts: values of T, two or more; each divides the largest.

    Returns:
        Case -> [seeds, counts]. "all real": nobody's scores are random; "one random"; "left out":
        the first school of every group does not take part; "alone": nobody learns together.

    Raises:
        ValueError: as `by_number`.
    """
    scores = {case: [] for case in ("all real", "one random", "left out", "alone")}
    for seed in seeds:
        z, t, tested = _schools(x, y, task, seed, n, counts)
        draw = np.random.RandomState([seed, 4])
        row = {case: [] for case in scores}
        for count in counts:
            others = torch.arange(len(t)) % count > 0
            mixed = t[:, :n].flatten()[torch.tensor(draw.permutation(len(t) * n))].view(-1, n)
            random = torch.where(others[:, None], t[:, :n], mixed)
            weights = {
                "all real": _weights(z[:, :n], t[:, :n], count),
                "one random": _weights(z[:, :n], random, count),
                "left out": _weights(z[:, :n] * others[:, None, None], t[:, :n], count),
                "alone": _weights(z[:, :n], t[:, :n], 1),
            }
            for case, w in weights.items():
                row[case].append(_score(z, t, w, tested, others))
        for case, values in row.items():
            scores[case].append(values)
    return {case: np.array(values) for case, values in scores.items()}


def _schools(x, y, task, seed, n, counts) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs [T, P, d] and scores [T, P] of as many schools as the largest count; who is tested."""
    schools = max(counts)
    if any(schools % count for count in counts):
        raise ValueError(f"each of {tuple(counts)} must divide {schools}.")
    dealt, target, real = deal(x, y, task, seed, LARGEST)
    if len(dealt) < schools:
        raise ValueError(f"{schools} large schools are needed; there are {len(dealt)}.")
    some = torch.tensor(np.random.RandomState([seed, 3]).permutation(len(dealt))[:schools])
    # Standardised by the pupils of all schools, whatever T is, as in `ch01.compare`.
    z, t = (part[0, some] for part in _with_bias(dealt[None], target[None], n, None))
    tested = real[some].clone()
    tested[:, : LARGEST + VALIDATION] = False
    return z, t, tested


def _weights(z: Tensor, t: Tensor, count: int) -> Tensor:
    """Weights of all schools [choices, T, d] where each `count` of them learn together.

    A school whose inputs are zeros takes no part: it adds nothing to equation 8.
    """
    a, b = normal_equations(z, t)
    a, b = a.view(-1, count, *a.shape[1:]), b.view(-1, count, b.shape[1])
    lam, mu = (grid.reshape(-1, 1) for grid in torch.meshgrid(LAMBDAS, MUS, indexing="ij"))
    return mean_regularised(a, b, lam, mu)[1].reshape(len(lam), len(t), -1)


def _score(z: Tensor, t: Tensor, w: Tensor, tested: Tensor, schools: Tensor) -> float:
    """Test R2 over some schools [T], with the choice that is best on their validation pupils."""
    error = (torch.einsum("spd,gsd->gsp", z, w) - t) ** 2
    best = error[:, schools, LARGEST : LARGEST + VALIDATION].mean((1, 2)).argmin()
    return _r2(error[best][None], t[None], (tested & schools[:, None])[None]).item()


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
