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
    """The graph in which every task is tied to every other, with weight 1 / T.

    Its Laplacian is ``I - 1 1^T / T``, so that the penalty is the squared distance of the tasks to
    their mean.

    Args:
        tasks: their number T.
        like: a tensor whose dtype and device the graph is to have.

    Returns:
        S [T, T], with a diagonal of zeros.

    Example:
        >>> complete(2, like=torch.zeros(1)).tolist()
        [[0.0, 0.5], [0.5, 0.0]]
    """
    return (1 - torch.eye(tasks, dtype=like.dtype, device=like.device)) / tasks


def nearest(S: Tensor, k: int) -> Tensor:
    """Keep the edges from each task to its k most similar ones.

    An edge stays if either end chose it, so the result is symmetric.

    Args:
        S: similarities [T, T].
        k: number of neighbours that a task chooses, 1 <= k < T.

    Returns:
        [T, T], the symmetric part of S on the edges that stay and 0 elsewhere.

    Raises:
        ValueError: k is out of that range, or a similarity is NaN, which is not more or less than
            another.

    Example:
        >>> S = torch.tensor([[0.0, 5.0, 1.0], [5.0, 0.0, 4.0], [1.0, 4.0, 0.0]])
        >>> nearest(S, 1).tolist()  # the third task chose the second, which did not choose it
        [[0.0, 5.0, 0.0], [5.0, 0.0, 4.0], [0.0, 4.0, 0.0]]
    """
    if not 1 <= k < len(S):
        raise ValueError(f"k must be between 1 and {len(S) - 1}; it is {k}.")
    eye = torch.eye(len(S), dtype=torch.bool, device=S.device)
    if S.masked_fill(eye, 0).isnan().any():
        raise ValueError("A similarity is NaN, so the most similar tasks are not determined.")
    neighbours = S.masked_fill(eye, -torch.inf).topk(k).indices
    chosen = torch.zeros_like(eye).scatter_(1, neighbours, True)
    return torch.where(chosen | chosen.T, (S + S.T) / 2, 0)


def laplacian(S: Tensor) -> Tensor:
    """Graph Laplacian ``D - S`` of the symmetric part of S, with D the diagonal of degrees.

    ``(W * (Q @ W)).sum()`` with ``Q = laplacian(S)`` is the sum over pairs of ``(S_ij + S_ji) / 2 *
    ||w_i - w_j||^2``, every pair counted once.

    Args:
        S: similarities [..., T, T], not negative; the diagonal is ignored.

    Returns:
        [..., T, T], symmetric; each row sums to 0.

    Raises:
        ValueError: a similarity is not finite, or negative, which would reward tasks for being
            apart without limit.

    Example:
        >>> Q = laplacian(torch.tensor([[0.0, 2.0, 0.0], [2.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))
        >>> Q.tolist()
        [[2.0, -2.0, 0.0], [-2.0, 3.0, -1.0], [0.0, -1.0, 1.0]]
        >>> W = torch.tensor([[0.0], [1.0], [3.0]])
        >>> (W * (Q @ W)).sum().item()  # 2 (0 - 1)^2 + 1 (1 - 3)^2
        6.0
    """
    eye = torch.eye(S.shape[-1], dtype=torch.bool, device=S.device)
    S = ((S + S.mT) / 2).masked_fill(eye, 0)
    if not S.isfinite().all():
        raise ValueError("A similarity is NaN or infinite, so the tasks have no graph.")
    if (S < 0).any():
        raise ValueError(
            "A similarity is negative, so the penalty has no minimum."
            " Clip it at 0, or drop that edge."
        )
    return torch.diag_embed(S.sum(-1)) - S


def relation(W: Tensor, floor: Tensor | float = 0.0) -> Tensor:
    """Best relation matrix for given weights: the root of ``W W^T + floor I``, of trace 1.

    Among all positive semi-definite matrices Omega of trace 1 it has the least
    ``tr(inverse(Omega) (W W^T + floor I))``. Omega_st is positive where two tasks' weights point
    the same way, and negative where they are opposed.

    Args:
        W: weights [..., T, d], one row per task.
        floor: >= 0; a number, or a tensor of the leading dimensions.

    Returns:
        Omega [..., T, T].

    Source:
        Zhang and Yeung, "A convex formulation for learning task relationships in multi-task
        learning", UAI 2010.

    Example:
        >>> W = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
        >>> omega = relation(W)  # the first two are opposed, the third has nothing to do with them
        >>> (torch.round(omega, decimals=3) + 0).tolist()  # + 0: no minus zero
        [[0.207, -0.207, 0.0], [-0.207, 0.207, 0.0], [0.0, 0.0, 0.586]]
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
    """Learn weights W and their relation matrix Omega together.

    They minimise, over W and all positive semi-definite Omega of trace 1,

        sum_t ||y_t - X_t w_t||^2 + mu ||W||^2 + lam tr(inverse(Omega) W W^T).

    The problem is convex in both together; each step solves it for W and then for Omega. For the
    best Omega the last term is lam times the squared sum of W's singular values: tasks are drawn
    into few common directions.

    Args:
        a: the tasks' A [..., T, d, d], as from `linear.normal_equations`.
        b: [..., T, d], from the same.
        lam: > 0; a number, or a tensor of the leading dimensions.
        mu: >= 0; the same.
        steps: how often W and Omega take turns.
        floor: of Omega's spectrum, relative to the mean squared size of the first solution's rows.
            It keeps Omega invertible: W has at most d directions, so with more tasks than features
            it would not be.

    Returns:
        W [..., T, d] and Omega [..., T, T].

    Raises:
        torch.linalg.LinAlgError: the system is singular (as for `linear.related_ridge`).

    Source:
        Zhang and Yeung, UAI 2010, equation 7, with ``mu = lambda_1 / 2`` and ``lam = lambda_2 /
        2``; there each task's sum is a mean.

    Example:
        >>> a = torch.eye(2, dtype=torch.float64).expand(2, 2, 2)  # alone, the weights would be b
        >>> b = torch.tensor([[1.0, 0.2], [1.0, -0.2]], dtype=torch.float64)
        >>> W, omega = learn_relation(a, b, lam=0.3, mu=0.0)
        >>> print(f"{b[0, 1] / b[0, 0]:.2f} -> {W[0, 1] / W[0, 0]:.2f}")  # the difference goes
        0.20 -> 0.00
        >>> torch.round(omega, decimals=2).tolist()
        [[0.5, 0.5], [0.5, 0.5]]
    """
    T = b.shape[-2]
    lam, mu = (
        torch.as_tensor(strength, dtype=a.dtype, device=a.device)[..., None, None]
        for strength in (lam, mu)
    )
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
