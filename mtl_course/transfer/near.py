"""A logistic regression that stays near the weights of another one."""

import torch
from torch import Tensor
from torch.nn import functional as F

STEPS = 500  # of Newton's method; ten are plenty unless the centre is far off


def logistic_near(
    x: Tensor, labels: Tensor, strength: float, centre: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Weights and level of a logistic regression that is pulled towards given weights.

    Minimises the sum of the cross-entropies plus strength / 2 times the squared distance of the
    weights from the centre. The level is free. A small strength is a regression of its own, a large
    one keeps the centre's order of the rows and fits the level only.

    Args:
        x: [N, D], one row per example, in columns of about the same scale.
        labels: [N], 0 or 1.
        strength: of the pull, positive; it is weighed against the sum over rows.
        centre: [D], the weights to stay near; None for 0, which is a ridge penalty.

    Returns:
        Weights [D] and level, a scalar, float64. The logit of a row is x @ weights + level.

    Raises:
        ValueError: shapes that do not fit, no rows, something that is not finite, a label that is
            neither 0 nor 1, labels that are all alike, or a strength that is not positive.
        FloatingPointError: Newton's method did not come to rest.

    Example:
        >>> x, labels = torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.tensor([0, 1, 0, 1])
        >>> weights, level = logistic_near(x, labels, 1e6, centre=torch.tensor([2.0]))
        >>> round(weights.item(), 3), round(level.item(), 3)
        (2.0, -3.0)
    """
    if x.dim() != 2 or labels.shape != x.shape[:1]:
        raise ValueError(
            f"x of the shape {list(x.shape)} and labels of {list(labels.shape)}:"
            " they must be [N, D] and [N]."
        )
    x, labels = x.detach().double(), labels.detach().double()
    if labels.isnan().any():
        row = int(labels.isnan().nonzero()[0])
        raise ValueError(
            f"The outcome of row {row} is not known (NaN), censored or missing:"
            " fit on rows whose outcome is known."
        )
    if (bad := (labels != 0) & (labels != 1)).any():
        row = int(bad.nonzero()[0])
        raise ValueError(f"Row {row} has the label {float(labels[row]):g}; it must be 0 or 1.")
    if not 0 < labels.sum() < len(labels):
        raise ValueError("All labels are alike, or there are no rows: no finite level fits.")
    if not 0 < strength < float("inf"):
        raise ValueError(f"The strength must be positive and finite; it is {strength!r}.")
    D = x.shape[1]
    centre = x.new_zeros(D) if centre is None else centre.detach().to(x)
    if centre.shape != (D,):
        raise ValueError(f"The centre has the shape {list(centre.shape)}; x has {D} columns.")
    if not (x.isfinite().all() and centre.isfinite().all()):
        raise ValueError("x and centre must be finite; fill in what is missing first.")
    rows = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
    pull = x.new_full((D + 1,), strength)
    pull[D] = 0
    aim = torch.cat([centre, x.new_zeros(1)])

    def value(w):
        loss = F.binary_cross_entropy_with_logits(rows @ w, labels, reduction="sum")
        return loss + (pull * (w - aim) ** 2).sum() / 2

    share = labels.mean()
    w = aim.clone()
    w[D] = (share / (1 - share)).log() - (x @ centre).mean()
    now, damping = value(w), 0.0
    for _ in range(STEPS):
        p = (rows @ w).sigmoid()
        slope = rows.T @ (p - labels) + pull * (w - aim)
        bend = (rows * (p * (1 - p))[:, None]).T @ rows + torch.diag(pull)
        scale = bend.diagonal().mean()
        # a level far off bends nothing, so a little is added always, and more after a step uphill
        bend.diagonal().add_((damping + 1e-9) * scale)
        step = torch.linalg.solve(bend, slope)
        new, promised = value(w - step), (step * slope).sum()
        if new <= now:
            w, now, damping = w - step, new, damping / 10
        else:
            damping = max(10 * damping, 1e-6)
        if promised <= 1e-12 * (1 + now):
            return w[:D], w[D]
    raise FloatingPointError(
        f"Newton's method did not come to rest in {STEPS} steps:"
        " bring the columns of x to about the same scale."
    )
