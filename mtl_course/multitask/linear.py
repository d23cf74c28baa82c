"""Linear tasks that lean on each other: from single-task ridge through mean-regularised learning to
one pooled model.

Everything is computed from the Gram matrix ``A_t = X_t^T X_t`` and the vector ``b_t = X_t^T y_t``
of each task, so tasks may have different numbers of examples, and leading dimensions (seeds,
strengths) are solved together, on any device.
"""

import torch
from torch import Tensor


def normal_equations(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Sufficient statistics of least squares: A = X^T X and b = X^T y.

    Args:
        x: inputs [..., n, d].
        y: targets [..., n].

    Returns:
        A [..., d, d] and b [..., d].

    Example:
        >>> a, b = normal_equations(torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 3.0]))
        >>> a.tolist(), b.tolist()
        ([[5.0]], [7.0])
    """
    return x.mT @ x, (x.mT @ y.unsqueeze(-1)).squeeze(-1)


def ridge(a: Tensor, b: Tensor, strength: Tensor | float) -> Tensor:
    """Minimiser of ``||y - X w||^2 + strength ||w||^2``.

    With the statistics of each task it is single-task learning; with ``a.sum(-3), b.sum(-2)`` it
    pools the tasks of `a` [..., T, d, d].

    Args:
        a: A [..., d, d], as from `normal_equations`.
        b: [..., d], from the same.
        strength: >= 0; a number, or a tensor that broadcasts against the leading dimensions.

    Returns:
        w [..., d].

    Raises:
        torch.linalg.LinAlgError: the system is singular (strength 0 and too few examples).

    Example:
        >>> a, b = torch.tensor([[4.0]]), torch.tensor([2.0])
        >>> ridge(a, b, torch.tensor([0.0, 4.0])).tolist()  # two strengths at once
        [[0.5], [0.25]]
    """
    return _solve(a + _diagonal(strength, a), b)


def mean_regularised(
    a: Tensor, b: Tensor, lam: Tensor | float, mu: Tensor | float = 0.0
) -> tuple[Tensor, Tensor]:
    """Mean-regularised multi-task ridge regression, in closed form.

    Task t has the weights ``w_t = w_0 + v_t``, which minimise

        sum_t ( ||y_t - X_t (w_0 + v_t)||^2 + lam ||v_t||^2 ) + mu ||w_0||^2.

    lam -> 0 gives single-task least squares, lam -> infinity one pooled ridge of strength mu, mu ->
    infinity single-task ridge of strength lam. T systems of size d and one shared system of size d
    are solved, never one of size T d.

    Args:
        a: the tasks' A [..., T, d, d], as from `normal_equations`.
        b: [..., T, d], from the same.
        lam: > 0; a number, or a tensor that broadcasts against the leading dimensions ``...``.
        mu: >= 0; the same.

    Returns:
        w_0 [..., d], and W [..., T, d] with the rows w_t.

    Raises:
        torch.linalg.LinAlgError: w_0 is not determined (mu 0 and too few examples in all tasks
            together).

    Source:
        Evgeniou and Pontil, "Regularized multi-task learning", KDD 2004, with the squared loss;
        chapter 1, equations 6 to 8.

    Example:
        >>> a, b = torch.ones(2, 1, 1), torch.tensor([[1.0], [3.0]])  # alone: 1 and 3
        >>> w_0, W = mean_regularised(a, b, lam=1.0)
        >>> w_0.tolist(), W.tolist()  # each comes halfway to their mean
        ([2.0], [[1.5], [2.5]])
    """
    # One dimension more, against that of the tasks.
    lam = torch.as_tensor(lam, dtype=a.dtype, device=a.device).unsqueeze(-1)
    system = a + _diagonal(lam, a)
    s_a = torch.linalg.solve(system, a)  # (A_t + lam I)^-1 A_t
    s_b = _solve(system, b)  # (A_t + lam I)^-1 b_t
    shared = (lam[..., None, None] * s_a).sum(-3)
    w_0 = _solve(shared + _diagonal(mu, shared), (lam[..., None] * s_b).sum(-2))
    v = s_b - (s_a @ w_0[..., None, :, None]).squeeze(-1)
    return w_0, w_0.unsqueeze(-2) + v


def related_ridge(a: Tensor, b: Tensor, K: Tensor) -> Tensor:
    """Linear tasks tied by any quadratic penalty, in closed form.

    The rows w_t of W minimise

        sum_t ||y_t - X_t w_t||^2 + sum_st K_st (w_s . w_t).

    ``K = lam * I`` is single-task ridge, ``K = lam * laplacian(S) + mu * I`` holds neighbours in a
    graph together, and ``K = lam * inverse(Omega)`` is what a relation matrix asks for. One system
    of size T d is solved.

    Args:
        a: the tasks' A [..., T, d, d], as from `normal_equations`.
        b: [..., T, d], from the same.
        K: [..., T, T], symmetric, without negative eigenvalues.

    Returns:
        W [..., T, d].

    Raises:
        torch.linalg.LinAlgError: the system is singular (too few examples in all tasks that hang
            together, and no penalty on their common weights).

    Source:
        Evgeniou, Micchelli and Pontil, "Learning multiple tasks with kernel methods", JMLR 6, 2005.

    Example:
        >>> a, b = torch.ones(2, 1, 1), torch.tensor([[1.0], [3.0]])  # alone: 1 and 3
        >>> together = torch.tensor([[0.5, -0.5], [-0.5, 0.5]])  # the Laplacian of one edge
        >>> W = related_ridge(a, b, together)
        >>> torch.round(W, decimals=4).tolist()
        [[1.5], [2.5]]
    """
    T, d = b.shape[-2:]
    lead = torch.broadcast_shapes(a.shape[:-3], b.shape[:-2], K.shape[:-2])
    eye = torch.eye(d, dtype=a.dtype, device=a.device)
    system = (K[..., :, None, :, None] * eye[:, None]).expand(*lead, T, d, T, d).clone()
    # The blocks of the tasks themselves.
    system.diagonal(dim1=-4, dim2=-2).add_(a.movedim(-3, -1))
    right = b.expand(*lead, T, d).reshape(*lead, T * d, 1)
    factor = torch.linalg.cholesky(system.reshape(*lead, T * d, T * d))
    return torch.cholesky_solve(right, factor).reshape(*lead, T, d)


def _diagonal(strength: Tensor | float, like: Tensor) -> Tensor:
    """``strength * I`` [..., d, d] for strengths [...], in the type of `like` [..., d, d]."""
    strength = torch.as_tensor(strength, dtype=like.dtype, device=like.device)
    eye = torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)
    return strength[..., None, None] * eye


def _solve(a: Tensor, b: Tensor) -> Tensor:
    """The vectors x [..., d] with ``a x = b``; leading dimensions broadcast."""
    return torch.linalg.solve(a, b.unsqueeze(-1).expand(*a.shape[:-1], 1)).squeeze(-1)
