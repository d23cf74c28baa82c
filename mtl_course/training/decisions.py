"""What a chance is worth to whoever has to decide, and chances for another share of yeses."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .ranking import _checked


def _known(chances: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float64 and bool [N]; ValueError, which speaks of unknown outcomes by name."""
    if labels.is_floating_point() and labels.shape == chances.shape and labels.isnan().any():
        count, row = int(labels.isnan().sum()), int(labels.isnan().nonzero()[0][0])
        raise ValueError(
            f"{count} of {len(labels)} outcomes are not known (NaN), the first in row {row}:"
            " censored or missing. Judge on rows whose outcome is known,"
            " `known = ~labels.isnan()`, and say how many you left out."
        )
    chances, labels = _checked(chances, labels, "Chances")
    if (bad := (chances < 0) | (chances > 1)).any():
        row = int(bad.nonzero()[0])
        raise ValueError(
            f"Row {row} has the chance {float(chances[row]):g}, not in 0 to 1: are these logits?"
        )
    return chances, labels


def net_benefit(chances: Tensor, labels: Tensor, cuts: float | Sequence[float]) -> Tensor:
    """Benefit of treating those whose chance reaches a cut, in true positives per row.

    Treating at a chance of c or more says that one yes found is worth (1 - c) / c treatments that
    were not needed. So each of these costs c / (1 - c).

    Args:
        chances: [N], between 0 and 1.
        labels: [N], 0 or 1.
        cuts: c, or K of them, each above 0 and below 1.

    Returns:
        Float64, a scalar for one cut, [K] for several: (TP - FP c / (1 - c)) / N. Treating nobody
        has 0, and treating all has `net_benefit(torch.ones(N), labels, cuts)`.

    Raises:
        ValueError: shapes other than [N], no rows, a NaN, an outcome that is not known, a label
            that is neither 0 nor 1, a chance outside of [0, 1], or a cut that is not between.

    Source:
        Vickers and Elkin, "Decision curve analysis: a novel method for evaluating prediction
        models", Medical Decision Making 26, 2006.

    Example:
        >>> chances, labels = torch.tensor([0.9, 0.6, 0.3, 0.1]), torch.tensor([1, 0, 1, 0])
        >>> net_benefit(chances, labels, [0.2, 0.5]).tolist()
        [0.4375, 0.0]
    """
    chances, labels = _known(chances, labels)
    c = torch.as_tensor(cuts, dtype=torch.float64, device=chances.device)
    if c.dim() > 1 or not ((c > 0) & (c < 1)).all():
        raise ValueError(f"A cut must lie between 0 and 1; cuts is {cuts!r}.")
    treated = chances >= c[..., None]
    right, wrong = (treated & labels).sum(-1), (treated & ~labels).sum(-1)
    return (right - wrong * c / (1 - c)) / len(labels)


def move_base_rate(chances: Tensor, before: float, now: float) -> Tensor:
    """Chances for another share of yeses, all else equal: the odds change by one factor.

    Right where rows with a yes look as they did, and rows with a no too, and only how many there
    are of each has changed. The order of the chances stays.

    Args:
        chances: any shape, between 0 and 1.
        before: the share of yeses that the chances were made for, above 0 and below 1.
        now: the share that they shall have, above 0 and below 1.

    Returns:
        As `chances`: odds times [now / (1 - now)] / [before / (1 - before)], as chances again.

    Raises:
        ValueError: a NaN, a chance outside of [0, 1], or a share that is not between 0 and 1.

    Source:
        Saerens, Latinne and Decaestecker, "Adjusting the outputs of a classifier to new a priori
        probabilities", Neural Computation 14, 2002.

    Example:
        >>> move_base_rate(torch.tensor([0.0, 0.2, 0.5, 1.0]), 0.2, 0.5).tolist()
        [0.0, 0.5, 0.800000011920929, 1.0]
    """
    if not ((chances >= 0) & (chances <= 1)).all():
        raise ValueError("Chances must lie between 0 and 1, and none may be NaN.")
    for name, share in (("before", before), ("now", now)):
        if not 0 < share < 1:
            raise ValueError(f"A share of yeses must lie between 0 and 1; {name} is {share!r}.")
    yes, no = chances * (now / before), (1 - chances) * ((1 - now) / (1 - before))
    return yes / (yes + no)
