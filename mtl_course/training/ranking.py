"""How good chances and scores for a yes or no are: in order, in size, and after a cut.

`auc` asks whether the yeses come first, `calibration_error` whether 70 % means 70 %, and
`precision_recall_f1` what a cut between yes and no finds and misses. Chapter 9 defines all of them.
"""

from typing import NamedTuple

import torch
from torch import Tensor


def _checked(values: Tensor, labels: Tensor, what: str) -> tuple[Tensor, Tensor]:
    """Both as float64 and bool [N]; ValueError if they cannot be compared."""
    if values.shape != labels.shape or values.dim() != 1:
        raise ValueError(
            f"{what} of the shape {list(values.shape)} and labels of {list(labels.shape)}:"
            " both must be [N]."
        )
    if not len(labels):
        raise ValueError("There are no rows.")
    values, labels = values.detach().double(), labels.detach().double()
    if (bad := values.isnan()).any():
        raise ValueError(f"Row {int(bad.nonzero()[0])} of the {what.lower()} is NaN.")
    if (bad := (labels != 0) & (labels != 1)).any():
        row = int(bad.nonzero()[0])
        raise ValueError(f"Row {row} has the label {float(labels[row]):g}; it must be 0 or 1.")
    return values, labels == 1


def auc(scores: Tensor, labels: Tensor) -> Tensor:
    """Area under the ROC curve: how often a yes has a higher score than a no.

    The share of all pairs of a yes and a no in which the yes has the higher score; equal scores
    count half. Only the order of the scores matters: 0.5 is chance, 1 is perfect.

    Args:
        scores: [N]; logits or chances, anything in which more means yes.
        labels: [N], 0 or 1.

    Returns:
        Scalar in [0, 1], float64.

    Raises:
        ValueError: shapes other than [N], no rows, a NaN, a label that is neither 0 nor 1, or
            labels that are all alike: then there is no pair.

    Source:
        Hanley and McNeil, "The meaning and use of the area under a receiver operating
        characteristic (ROC) curve", Radiology 143, 1982.

    Example:
        >>> auc(torch.tensor([0.9, 0.4, 0.4, 0.1]), torch.tensor([1, 1, 0, 0])).item()
        0.875
    """
    scores, labels = _checked(scores, labels, "Scores")
    yes, no = scores[labels], scores[~labels].sort().values
    if not len(yes) or not len(no):
        raise ValueError("All labels are alike, so there is no pair of a yes and a no to order.")
    below, upto = (torch.searchsorted(no, yes, right=right) for right in (False, True))
    return (below + upto).double().mean() / (2 * len(no))


class Cut(NamedTuple):
    """What a cut between yes and no finds: see `precision_recall_f1`."""

    precision: float
    recall: float
    f1: float


def precision_recall_f1(predicted: Tensor, labels: Tensor) -> Cut:
    """How much of what is called yes is; how much of what is yes is called so; both in one.

    Args:
        predicted: [N], bool, or 0 and 1: what is called yes.
        labels: [N], 0 or 1.

    Returns:
        precision = TP / (TP + FP), recall = TP / (TP + FN), and their harmonic mean f1 =
        2 TP / (2 TP + FP + FN), with TP true positives, FP false ones, FN false negatives.

    Raises:
        ValueError: shapes other than [N], no rows, entries that are neither 0 nor 1, nothing that
            is called yes, or nothing that is: the first has no precision, the second no recall.

    Example:
        >>> cut = precision_recall_f1(torch.tensor([1, 1, 0, 0]), torch.tensor([1, 0, 1, 1]))
        >>> cut.precision, round(cut.recall, 3), cut.f1
        (0.5, 0.333, 0.4)
    """
    predicted, labels = _checked(predicted, labels, "Predictions")
    if (bad := (predicted != 0) & (predicted != 1)).any():
        row = int(bad.nonzero()[0])
        raise ValueError(
            f"Row {row} is called {float(predicted[row]):g}, which is neither 0 nor 1: cut first."
        )
    predicted = predicted == 1
    found, called, true = (int(v.sum()) for v in (predicted & labels, predicted, labels))
    if not called or not true:
        what, lost = ("is called yes", "precision") if not called else ("is yes", "recall")
        raise ValueError(f"Nothing {what}, so there is no {lost}.")
    return Cut(found / called, found / true, 2 * found / (called + true))


class Bins(NamedTuple):
    """Rows with like chances, bin by bin: see `calibration_curve`."""

    counts: Tensor
    chances: Tensor
    shares: Tensor


def calibration_curve(chances: Tensor, labels: Tensor, bins: int = 10) -> Bins:
    """Bin by bin what a network says and what comes true: a reliability diagram.

    Args:
        chances: [N], between 0 and 1.
        labels: [N], 0 or 1.
        bins: of equal width between 0 and 1; a chance on a border belongs to the upper bin.

    Returns:
        For each bin that has rows, in order: how many, their mean chance, and the share of them
        whose label is 1.

    Raises:
        ValueError: as `auc`, for a chance outside of [0, 1], or fewer than one bin.

    Example:
        >>> chances, labels = torch.tensor([0.1, 0.1, 0.8, 0.6]), torch.tensor([0, 1, 1, 1])
        >>> found = calibration_curve(chances, labels, bins=2)
        >>> found.counts.tolist(), found.shares.tolist()
        ([2, 2], [0.5, 1.0])
    """
    chances, labels = _checked(chances, labels, "Chances")
    if (bad := (chances < 0) | (chances > 1)).any():
        row = int(bad.nonzero()[0])
        raise ValueError(
            f"Row {row} has the chance {float(chances[row]):g}, not in 0 to 1: are these logits?"
        )
    if bins < 1:
        raise ValueError(f"There must be at least one bin; bins is {bins}.")
    place = (chances * bins).long().clamp(max=bins - 1)
    counts = torch.bincount(place, minlength=bins)
    sums = (
        torch.bincount(place, weights=values, minlength=bins)
        for values in (chances, labels.double())
    )
    some = counts > 0
    said, true = (total[some] / counts[some] for total in sums)
    return Bins(counts[some], said, true)


def calibration_error(chances: Tensor, labels: Tensor, bins: int = 10) -> Tensor:
    """Expected calibration error: by how much chances miss what comes true, on average.

    The mean over all rows of |mean chance - share of yes| in the row's bin, with the bins of
    `calibration_curve`. 0 is calibrated. It says nothing of the order: the same chance for all
    rows, if it is the share of yes, has no error.

    Args:
        chances: [N], between 0 and 1.
        labels: [N], 0 or 1.
        bins: of equal width between 0 and 1.

    Returns:
        Scalar in [0, 1], float64.

    Raises:
        ValueError: as `calibration_curve`.

    Source:
        Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017,
        equation 3.

    Example:
        >>> chances, labels = torch.tensor([0.1, 0.1, 0.8, 0.6]), torch.tensor([0, 1, 1, 1])
        >>> round(calibration_error(chances, labels, bins=2).item(), 3)
        0.35
    """
    counts, said, true = calibration_curve(chances, labels, bins)
    return (counts * (said - true).abs()).sum() / counts.sum()
