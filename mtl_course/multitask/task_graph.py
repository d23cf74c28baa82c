"""Tasks as the nodes of a graph: its Laplacian, linear tasks held together along its edges, and a
relation matrix learned from data.

Similarities S [T, T] are not negative and their diagonal is ignored. All solutions work on the
statistics of `linear.normal_equations`; leading dimensions (seeds, strengths) are solved together,
on any device.
"""

import torch
from torch import Tensor

from .linear import related_ridge


def complete(tasks: int, like: Tensor) -> Tensor:
    """The graph in which every task is tied to every other with weight 1/T, as S [T, T] in the type
    of `like`.

    Its Laplacian is ``I - 1 1^T / T``, so that the penalty is the squared distance of the tasks to
    their mean.
    """
    return (1 - torch.eye(tasks, dtype=like.dtype, device=like.device)) / tasks


def nearest(S: Tensor, k: int) -> Tensor:
    """Keep each task's k most similar tasks, S [T, T] -> [T, T]. An edge stays if either end chose
    it, so the result is symmetric.

    ValueError unless 1 <= k < T.
    """
    if not 1 <= k < len(S):
        raise ValueError(f"k must be between 1 and {len(S) - 1}; it is {k}.")
    eye = torch.eye(len(S), dtype=torch.bool, device=S.device)
    chosen = torch.zeros_like(eye).scatter_(1, S.masked_fill(eye, -torch.inf).topk(k).indices, True)
    return torch.where(chosen | chosen.T, (S + S.T) / 2, 0)


def laplacian(S: Tensor) -> Tensor:
    """Graph Laplacian ``D - S`` [..., T, T], with the degrees on the diagonal of D, of the
    symmetric part of S.

    ``(W * (Q @ W)).sum()`` with ``Q = laplacian(S)`` is ``sum over pairs of (S_ij + S_ji) / 2 *
    ||w_i - w_j||^2``, every pair counted once. ValueError for a negative similarity, which would
    reward tasks for being apart without limit.
    """
    eye = torch.eye(S.shape[-1], dtype=torch.bool, device=S.device)
    S = ((S + S.mT) / 2).masked_fill(eye, 0)
    if (S < 0).any():
        raise ValueError(
            "A similarity is negative, so the penalty has no minimum. Clip it at 0, or drop that"
            " edge."
        )
    return torch.diag_embed(S.sum(-1)) - S


def relation(W: Tensor, floor: Tensor | float = 0.0) -> Tensor:
    """Best relation matrix for given weights: Omega [..., T, T], the root of ``W W^T + floor I``
    scaled to trace 1.

    Among all positive semi-definite matrices of trace 1 it has the least ``tr(inverse(Omega) (W W^T
    + floor I))``. W: [..., T, d], one row a task. Omega_st is positive where two tasks' weights
    point the same way, and negative where they are opposed. Source: Zhang and Yeung, "A convex
    formulation for learning task relationships in multi-task learning", UAI 2010.
    """
    values, vectors = _spectrum(W, floor)
    roots = values / values.sum(-1, keepdim=True)
    return (vectors * roots[..., None, :]) @ vectors.mT


def learn_relation(
    a: Tensor,
    b: Tensor,
    lam: Tensor | float,
    mu: Tensor | float,
    steps: int = 30,
    floor: float = 1e-6,
) -> tuple[Tensor, Tensor]:
    """Learn weights W [..., T, d] and their relation matrix Omega [..., T, T] together, from

        sum_t ||y_t - X_t w_t||^2 + mu ||W||^2 + lam tr(inverse(Omega) W W^T),  Omega positive semi-definite with trace 1.

    a, b: as from `linear.normal_equations`; lam > 0 and mu >= 0: numbers, or tensors of the leading
    dimensions. The problem is convex in both together; each of the `steps` solves it for W and then
    for Omega. `floor`, relative to the mean squared size of the first solution's rows, keeps Omega
    invertible: W has at most d directions, so with more tasks than features it would not be. For
    the best Omega the last term is lam times the squared sum of W's singular values: tasks are
    drawn into few common directions. Source: Zhang and Yeung, UAI 2010, equation 7, with ``mu =
    lambda_1 / 2`` and ``lam = lambda_2 / 2``; there each task's sum is a mean.
    """
    lam, mu = (
        torch.as_tensor(s, dtype=a.dtype, device=a.device)[..., None, None] for s in (lam, mu)
    )
    T = b.shape[-2]
    eye = torch.eye(T, dtype=a.dtype, device=a.device)
    W = related_ridge(a, b, (mu + lam * T) * eye)  # Omega = I / T, no relation
    floor = floor * (W**2).sum(-1).mean(-1)
    for _ in range(steps):
        values, vectors = _spectrum(W, floor)
        inverse = (vectors * (values.sum(-1, keepdim=True) / values)[..., None, :]) @ vectors.mT
        W = related_ridge(a, b, mu * eye + lam * inverse)
    return W, relation(W, floor)


def _spectrum(W: Tensor, floor: Tensor | float) -> tuple[Tensor, Tensor]:
    """Eigenvalues [..., T] and eigenvectors [..., T, T] of the root of ``W W^T + floor I``."""
    values, vectors = torch.linalg.eigh(W @ W.mT)
    floor = torch.as_tensor(floor, dtype=W.dtype, device=W.device)
    return (values.clamp_min(0) + floor[..., None]).sqrt(), vectors
