"""Linear tasks that lean on each other: from single-task ridge through mean-regularised learning to
one pooled model.

Everything is computed from the Gram matrix ``A_t = X_t^T X_t`` and the vector ``b_t = X_t^T y_t``
of each task, so tasks may have different numbers of examples, and leading dimensions (seeds,
strengths) are solved together, on any device.
"""

import torch
from torch import Tensor


def normal_equations(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Sufficient statistics of least squares: x [..., n, d], y [..., n] -> A [..., d, d] and b
    [..., d].
    """
    return x.mT @ x, (x.mT @ y.unsqueeze(-1)).squeeze(-1)


def ridge(a: Tensor, b: Tensor, strength: Tensor | float) -> Tensor:
    """Minimiser of ``||y - X w||^2 + strength ||w||^2``, as w [..., d].

    a: [..., d, d], b: [..., d] as from `normal_equations`; strength >= 0: a number, or a tensor
        that broadcasts against the leading dimensions. With the statistics of each task it is
        single-task learning; with ``a.sum(-3), b.sum(-2)`` it pools the tasks of `a` [..., T, d,
        d]. Raises torch.linalg.LinAlgError where the system is singular (strength 0 and too few
        examples).
    """
    return _solve(a + _diagonal(strength, a), b)


def mean_regularised(
    a: Tensor, b: Tensor, lam: Tensor | float, mu: Tensor | float = 0.0
) -> tuple[Tensor, Tensor]:
    """Mean-regularised multi-task ridge regression in closed form. Task t has the weights ``w_t =
    w_0 + v_t``, which minimise

        sum_t ( ||y_t - X_t (w_0 + v_t)||^2 + lam ||v_t||^2 ) + mu ||w_0||^2.

    a: [..., T, d, d], b: [..., T, d] as from `normal_equations`; lam > 0 and mu >= 0: numbers, or
        tensors that broadcast against the leading dimensions ``...``. Returns w_0 [..., d] and W
        [..., T, d], whose rows are the w_t.

    lam -> 0 gives single-task least squares, lam -> infinity one pooled ridge of strength mu, mu ->
    infinity single-task ridge of strength lam. T systems of size d and one shared system of size d
    are solved, never one of size T d. Raises torch.linalg.LinAlgError where w_0 is not determined
    (mu 0 and too few examples in all tasks together). Source: Evgeniou and Pontil, "Regularized
    multi-task learning", KDD 2004, with the squared loss; chapter 1, equations 6 to 8.
    """
    lam = torch.as_tensor(lam, dtype=a.dtype, device=a.device).unsqueeze(
        -1
    )  # against the dimension of the tasks
    own = a + _diagonal(lam, a)
    s_a = torch.linalg.solve(own, a)  # (A_t + lam I)^-1 A_t
    s_b = _solve(own, b)  # (A_t + lam I)^-1 b_t
    shared = (lam[..., None, None] * s_a).sum(-3)
    w_0 = _solve(shared + _diagonal(mu, shared), (lam[..., None] * s_b).sum(-2))
    v = s_b - (s_a @ w_0[..., None, :, None]).squeeze(-1)
    return w_0, w_0.unsqueeze(-2) + v


def related_ridge(a: Tensor, b: Tensor, K: Tensor) -> Tensor:
    """Linear tasks tied by any quadratic penalty, in closed form: W [..., T, d], whose rows
    minimise

        sum_t ||y_t - X_t w_t||^2 + sum_st K_st (w_s . w_t).

    a: [..., T, d, d], b: [..., T, d] as from `linear.normal_equations`; K: [..., T, T], symmetric,
        without negative eigenvalues. ``K = lam * I`` is single-task ridge, ``K = lam * laplacian(S)
        + mu * I`` holds neighbours in a graph together, and ``K = lam * inverse(Omega)`` is what a
        relation matrix asks for. One system of size T d is solved. Raises torch.linalg.LinAlgError
        where the system is singular (mu 0 and too few examples in all tasks that hang together).
        Source: Evgeniou, Micchelli and Pontil, "Learning multiple tasks with kernel methods", JMLR
        6, 2005.
    """
    T, d = b.shape[-2:]
    lead = torch.broadcast_shapes(a.shape[:-3], b.shape[:-2], K.shape[:-2])
    eye = torch.eye(d, dtype=a.dtype, device=a.device)
    system = (K[..., :, None, :, None] * eye[:, None]).expand(*lead, T, d, T, d).clone()
    system.diagonal(dim1=-4, dim2=-2).add_(a.movedim(-3, -1))  # the blocks of the tasks themselves
    right = b.expand(*lead, T, d).reshape(*lead, T * d, 1)
    factor = torch.linalg.cholesky(system.reshape(*lead, T * d, T * d))
    return torch.cholesky_solve(right, factor).reshape(*lead, T, d)


def _diagonal(strength: Tensor | float, like: Tensor) -> Tensor:
    strength = torch.as_tensor(strength, dtype=like.dtype, device=like.device)
    return strength[..., None, None] * torch.eye(
        like.shape[-1], dtype=like.dtype, device=like.device
    )


def _solve(a: Tensor, b: Tensor) -> Tensor:
    """The vectors x [..., d] with ``a x = b``; leading dimensions broadcast."""
    return torch.linalg.solve(a, b.unsqueeze(-1).expand(*a.shape[:-1], 1)).squeeze(-1)
