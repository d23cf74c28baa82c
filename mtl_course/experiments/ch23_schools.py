"""Chapter 23: schools that learn together without handing over a pupil.

Chapter 1's mean-regularised objective, solved in rounds: the server sends a centre, every school
answers with its own weights, the server averages. And Ditto, whose centre is the pooled model.
Needs no Jupyter.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..multitask.linear import mean_regularised, normal_equations, ridge
from . import ch01

METHODS = ("single", "pooled", "joint", "Ditto")


def answer(a: Tensor, b: Tensor, lam: float, centre: Tensor) -> Tensor:
    """Each school's reply to a centre: its own least squares, pulled towards the centre.

    Args:
        a: [..., T, d, d], as `normal_equations` gives it; it stays at the school.
        b: [..., T, d], the same.
        lam: > 0, the pull.
        centre: [..., d].

    Returns:
        [..., T, d].
    """
    eye = torch.eye(a.shape[-1], dtype=a.dtype)
    right = b + lam * centre.unsqueeze(-2)
    return torch.linalg.solve(a + lam * eye, right.unsqueeze(-1)).squeeze(-1)


def federated(a: Tensor, b: Tensor, lam: float, rounds: int) -> tuple[Tensor, Tensor]:
    """Centre and weights after so many rounds, from a centre of zeros."""
    centre = torch.zeros_like(b[..., 0, :])
    for _ in range(rounds):
        centre = answer(a, b, lam, centre).mean(-2)
    return centre, answer(a, b, lam, centre)


def ditto(a: Tensor, b: Tensor, lam: float) -> tuple[Tensor, Tensor]:
    """The pooled least squares, which stays where it is, and each school's reply to it."""
    centre = ridge(a.sum(-3), b.sum(-2), ch01.MU)
    return centre, answer(a, b, lam, centre)


def statistics(seed: int, pupils: int) -> dict[str, Tensor]:
    """One draw of the Exam data: "a" [T, d, d] and "b" [T, d] of every school's training pupils.

    And "x" [T, P, d], with a column of ones last, "y" [T, P] and "real" [T, P], of all pupils, in
    units of the training pupils. The first `pupils` train, the next `ch01.VALIDATION` choose.
    """
    x, y, real = ch01.deal(*ch01.exam(), seed, max(ch01.SIZES))
    seen, target = x[:, :pupils], y[:, :pupils]
    x = (x - seen.mean((0, 1))) / seen.std((0, 1))
    y = (y - target.mean()) / target.std()
    x = torch.cat([x, torch.ones_like(x[..., :1])], -1)
    a, b = normal_equations(x[:, :pupils], y[:, :pupils])
    return {"a": a, "b": b, "x": x, "y": y, "real": real}


def compare(seeds: Sequence[int], pupils: int) -> dict[str, np.ndarray]:
    """Method -> test R2 [seeds]; every method chooses its strength on the same pupils."""
    results = {method: [] for method in METHODS}
    for seed in seeds:
        s = statistics(seed, pupils)
        a, b, x, y = (s[k] for k in ("a", "b", "x", "y"))
        chosen = slice(pupils, pupils + ch01.VALIDATION)
        tested = s["real"].clone()
        tested[:, : max(ch01.SIZES) + ch01.VALIDATION] = False
        T = len(a)
        for method in METHODS:
            tried = []
            for lam in ch01.STRENGTHS.tolist():
                if method == "single":
                    W = ridge(a, b, lam)
                elif method == "pooled":
                    W = ridge(a.sum(0), b.sum(0), lam).expand(T, -1)
                elif method == "joint":
                    W = mean_regularised(a, b, lam, ch01.MU)[1]
                else:
                    W = ditto(a, b, lam)[1]
                squares = (y - torch.einsum("tpd,td->tp", x, W)).square()
                tried.append((float(squares[:, chosen].mean()), squares))
            _, squares = min(tried, key=lambda pair: pair[0])
            spread = (y[tested] - y[tested].mean()).square().sum()
            results[method].append(float(1 - squares[tested].sum() / spread))
    return {method: np.array(values) for method, values in results.items()}
