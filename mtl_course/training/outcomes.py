"""Outcomes that are known for some: dead by a day or not, and a loss over those who are known.

`died_by` makes labels out of follow-up times, NaN where the patient was lost before the day.
`known_losses` is the loss of several yes-or-no tasks whose labels are missing in places.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def died_by(time: Tensor, died: Tensor, horizons: float | Sequence[float]) -> Tensor:
    """Whether each patient died by a day; NaN where follow-up ended before it (censored).

    Who died by the day is a 1, also on the day itself. Who was seen alive on the day or later is a
    0. Who was last seen alive before it may have died since: nobody knows.

    Args:
        time: [N], days until death, or until the patient was last known to live.
        died: [N], 1 or True if `time` ends with death, else 0.
        horizons: the day, or H days, in the unit of `time`.

    Returns:
        Float [N], or [N, H] for several days, with 0, 1 or NaN. A day's labels never contradict
        those of a later one.

    Raises:
        ValueError: shapes other than [N], no rows, a time that is missing, infinite or negative, a
            `died` that is neither 0 nor 1, no day, or a day that is not positive.

    Example:
        >>> time, died = torch.tensor([10.0, 40.0, 90.0, 20.0]), torch.tensor([1, 1, 0, 0])
        >>> died_by(time, died, 30).tolist()
        [1.0, 0.0, 0.0, nan]
    """
    if time.shape != died.shape or time.dim() != 1:
        raise ValueError(
            f"Times of the shape {list(time.shape)} and deaths of {list(died.shape)}:"
            " both must be [N]."
        )
    if not len(time):
        raise ValueError("There are no rows.")
    time, died = time.detach().double(), died.detach().double()
    if (bad := ~time.isfinite() | (time < 0)).any():
        row = int(bad.nonzero()[0])
        raise ValueError(
            f"Row {row} has the time {float(time[row]):g}: it must be known, finite and at least 0."
            " Leave out patients without follow-up."
        )
    if (bad := (died != 0) & (died != 1)).any():
        row = int(bad.nonzero()[0])
        raise ValueError(
            f"Row {row} says {float(died[row]):g} for whether the patient died; it must be 0 or 1."
        )
    days = torch.as_tensor(horizons, dtype=time.dtype, device=time.device)
    if days.dim() > 1 or not days.numel():
        raise ValueError(f"horizons must be a day or a list of days, not {horizons!r}.")
    if not ((days > 0) & days.isfinite()).all():
        raise ValueError(f"A horizon must be a positive number of days; horizons is {horizons!r}.")
    at, ended = (time, died) if days.dim() == 0 else (time[:, None], died[:, None])
    dead = (ended == 1) & (at <= days)
    lost = (ended == 0) & (at < days)
    return dead.double().masked_fill(lost, torch.nan)


def known_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of each task over the rows whose label is known.

    Args:
        logits: [N, T], one column per task.
        labels: [N, T], 0, 1, or NaN where nobody knows.

    Returns:
        [T]. A task without a known label has the loss 0, and no gradient. What is said where no
        label is known does not matter.

    Raises:
        ValueError: shapes that differ or are not [N, T], or a label other than 0, 1 and NaN.

    Example:
        >>> labels = torch.tensor([[1.0, torch.nan], [torch.nan, torch.nan]])
        >>> [round(loss, 4) for loss in known_losses(torch.zeros(2, 2), labels).tolist()]
        [0.6931, 0.0]
    """
    if logits.shape != labels.shape or logits.dim() != 2:
        raise ValueError(
            f"Logits of the shape {list(logits.shape)} and labels of {list(labels.shape)}:"
            " both must be [N, T]."
        )
    known = ~labels.isnan()
    if (bad := known & (labels != 0) & (labels != 1)).any():
        row, task = bad.nonzero()[0].tolist()
        raise ValueError(
            f"Row {row} has the label {float(labels[row, task]):g} for task {task};"
            " it must be 0, 1, or NaN where it is not known."
        )
    # NaN times 0 is NaN: the labels are replaced, and the logits masked, before the loss is taken
    logits = torch.where(known, logits, 0)
    labels = torch.where(known, labels, 0).to(logits.dtype)
    losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return (losses * known).sum(0) / known.sum(0).clamp_min(1)
