"""Does a yes come as easily to one group as to another? Rates, their gap, a cut per group."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor


class Rates(NamedTuple):
    """What happens to one group: see `group_rates`."""

    rows: int
    yes: float
    true_positive: float
    false_positive: float


def _checked(
    values: Tensor, truth: Tensor, groups: Tensor, names: Sequence[str]
) -> dict[str, Tensor]:
    """Name -> bool [N], the rows of each group; ValueError where one has no yes or no no."""
    if values.dim() != 1 or not values.shape == truth.shape == groups.shape:
        raise ValueError(
            "Answers, truth and groups must be [N]; they are"
            f" {list(values.shape)}, {list(truth.shape)} and {list(groups.shape)}."
        )
    if ((truth != 0) & (truth != 1)).any():
        raise ValueError("The truth must be 0 or 1.")
    if len(names) < 2 or len(set(names)) != len(names):
        raise ValueError(f"At least two groups, each with a name of its own; got {list(names)}.")
    if ((groups < 0) | (groups >= len(names))).any():
        raise ValueError(f"Groups are numbered from 0 to {len(names) - 1}, as their names are.")
    rows = {name: groups == k for k, name in enumerate(names)}
    for name, ours in rows.items():
        if not ours.any():
            raise ValueError(f"The group {name!r} has no example, so nothing is known of it.")
        for label, word in ((1, "true yes"), (0, "true no")):
            if not (truth[ours] == label).any():
                rate = "true positive" if label else "false positive"
                raise ValueError(
                    f"The group {name!r} has no example of a {word}: its {rate} rate is unknown."
                )
    return rows


def group_rates(
    said: Tensor, truth: Tensor, groups: Tensor, names: Sequence[str]
) -> dict[str, Rates]:
    """True and false positive rate of each group, and how often it gets a yes.

    Args:
        said: [N], bool or 0 and 1; what the model answers after a cut.
        truth: [N], 0 or 1.
        groups: int [N], the number of each row's group.
        names: of the groups, in the order of their numbers. A group without a row is an error, and
            not a group that is left out.

    Returns:
        Name -> Rates(rows, yes, true_positive, false_positive); the last three in [0, 1].

    Raises:
        ValueError: shapes, an answer or a truth other than 0 and 1, numbers beyond the names, a
            group with no example, or one with no true yes or no true no.

    Example:
        >>> import torch
        >>> said, truth = torch.tensor([1, 0, 1, 0]), torch.tensor([1, 0, 1, 0])
        >>> rates = group_rates(said, truth, torch.tensor([0, 0, 1, 1]), ["a", "b"])
        >>> rates["b"]
        Rates(rows=2, yes=0.5, true_positive=1.0, false_positive=0.0)
    """
    rows = _checked(said, truth, groups, names)
    if ((said != 0) & (said != 1)).any():
        raise ValueError("An answer must be 0 or 1: cut the scores first.")

    def share(ours):
        return float(said[ours].double().mean())

    return {
        name: Rates(
            int(ours.sum()), share(ours), share(ours & (truth == 1)), share(ours & (truth == 0))
        )
        for name, ours in rows.items()
    }


def odds_gap(rates: Mapping[str, Rates]) -> float:
    """How far answers are from equalised odds: the largest difference between two groups.

    Equalised odds asks that groups have the same true positive rate and the same false positive
    rate. The gap is the larger of the two differences; 0 is what was asked.

    Args:
        rates: from `group_rates`, two groups at least.

    Returns:
        In [0, 1].

    Raises:
        ValueError: fewer than two groups, or a rate that is NaN.

    Source:
        Hardt, Price and Srebro, "Equality of opportunity in supervised learning", NeurIPS 2016,
        definition 2.1.

    Example:
        >>> odds_gap({"a": Rates(10, 0.5, 0.75, 0.2), "b": Rates(10, 0.5, 0.5, 0.1)})
        0.25
    """
    if len(rates) < 2:
        raise ValueError("A gap needs two groups at least.")
    kinds = ("true_positive", "false_positive")
    columns = [[getattr(r, kind) for r in rates.values()] for kind in kinds]
    if any(math.isnan(value) for column in columns for value in column):
        raise ValueError("A rate is NaN: of that group nothing is known.")
    return max(max(column) - min(column) for column in columns)


def group_cuts(
    scores: Tensor, truth: Tensor, groups: Tensor, names: Sequence[str], rate: float
) -> dict[str, float]:
    """A cut for each group, so that all have the same true positive rate.

    Choose the cuts on validation rows. A row is called yes where its score reaches its group's cut.
    The model stays as it is; whoever uses the cuts must know each person's group.

    Args:
        scores: [N].
        truth: [N], 0 or 1.
        groups: int [N], the number of each row's group.
        names: of the groups, in the order of their numbers.
        rate: in (0, 1], the true positive rate that each group shall have at least.

    Returns:
        Name -> cut, the highest with which the group has that rate.

    Raises:
        ValueError: as `group_rates`, a rate outside (0, 1], or a score that is NaN.

    Source:
        Hardt, Price and Srebro, "Equality of opportunity in supervised learning", NeurIPS 2016,
        section 3.2 (equal opportunity).

    Example:
        >>> import torch
        >>> scores = torch.tensor([3.0, 1.0, 0.0, 2.0, 0.5, 0.0])
        >>> truth = torch.tensor([1, 1, 0, 1, 1, 0])
        >>> group_cuts(scores, truth, torch.tensor([0, 0, 0, 1, 1, 1]), ["a", "b"], rate=0.5)
        {'a': 3.0, 'b': 2.0}
    """
    rows = _checked(scores, truth, groups, names)
    if not 0 < rate <= 1:
        raise ValueError(f"rate must be in (0, 1]; it is {rate}.")
    if scores.isnan().any():
        raise ValueError("A score is NaN: it has no place in an order.")
    cuts = {}
    for name, ours in rows.items():
        best = scores[ours & (truth == 1)].sort(descending=True).values
        # so many true yeses must reach it; rounding must not ask for one more
        cuts[name] = float(best[math.ceil(rate * len(best) - 1e-9) - 1])
    return cuts
