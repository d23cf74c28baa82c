"""Was this row in the training set? What an attacker reads off a model's answers.

The attacker trains models of its own on other draws of the same population. How sure *they* are of
a row that they never saw says how easy the row is; what the attacked model adds to that says that
it has seen the row.
"""

import torch
from torch import Tensor


def confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """How sure a model is of the right answer: its log odds.

    log(p / (1 - p)) of the probability p of the right label. Unlike the loss it does not crowd at
    zero for rows that fit well, and those of several tasks may be added up.

    Args:
        logits: [..., N], of a yes.
        labels: [N], 0 or 1.

    Returns:
        [..., N].

    Raises:
        ValueError: shapes that do not belong together, or a label that is not 0 or 1.

    Source:
        Carlini et al., "Membership inference attacks from first principles", IEEE S&P 2022,
        section IV.

    Example:
        >>> confidence(torch.tensor([2.0, 2.0]), torch.tensor([1, 0])).tolist()
        [2.0, -2.0]
    """
    if labels.dim() != 1 or logits.shape[-1:] != labels.shape:
        raise ValueError(
            f"Logits {list(logits.shape)} and labels {list(labels.shape)} do not belong together:"
            " [..., N] and [N] are wanted."
        )
    if ((labels != 0) & (labels != 1)).any():
        raise ValueError("A label must be 0 or 1.")
    return logits * (2 * labels - 1).to(logits.dtype)


def calibrated(scores: Tensor, member: Tensor) -> Tensor:
    """Each model's scores minus what other models say that did not train on the row.

    Every model is attacked in turn, and the others serve its attacker. A score above zero says:
    more sure than models that have not seen the row.

    Args:
        scores: [R, N], model by model, such as `confidence`.
        member: bool [R, N]; whether a model trained on a row.

    Returns:
        [R, N].

    Raises:
        ValueError: shapes that differ, a mask that is not bool, or a row that too few models have
            not seen: nothing to compare with.

    Source:
        Watson et al., "On the importance of difficulty calibration in membership inference
        attacks", ICLR 2022.

    Example:
        >>> scores = torch.tensor([[3.0, 1.0], [1.0, 4.0], [2.0, 2.0]])
        >>> member = torch.tensor([[True, False], [False, True], [False, False]])
        >>> calibrated(scores, member)[0].tolist()  # row 0: 3 - (1 + 2) / 2
        [1.5, -1.0]
    """
    if scores.dim() != 2 or scores.shape != member.shape or member.dtype != torch.bool:
        raise ValueError(
            f"scores [R, N] and a bool mask [R, N] are wanted; they are {list(scores.shape)} and"
            f" {list(member.shape)}, {member.dtype}."
        )
    out = (~member).to(scores.dtype)
    others = out.sum(0) - out  # of each model: how many others did not see the row
    if (others == 0).any():
        model, row = (int(i) for i in (others == 0).nonzero()[0])
        raise ValueError(
            f"Every model but {model} trained on row {row}, or there is no other: its attacker has"
            " nothing to compare with. Train more models."
        )
    return scores - ((scores * out).sum(0) - scores * out) / others


def caught(scores: Tensor, member: Tensor, alarms: float = 0.01) -> float:
    """The share of members that an attacker names, with few outsiders named wrongly.

    The mean over all rows (an AUC) hides that a few rows are recognised with certainty. So ask
    what is found while at most this share of the outsiders is named.

    Args:
        scores: [N]; more means member.
        member: bool [N].
        alarms: false alarms, in [0, 1).

    Returns:
        The true positive rate. An attacker who guesses has `alarms`.

    Raises:
        ValueError: shapes, a NaN, a share outside [0, 1), or no member or no outsider.

    Source:
        Carlini et al., "Membership inference attacks from first principles", IEEE S&P 2022,
        section III.

    Example:
        >>> scores = torch.tensor([4.0, 2.0, 3.0, 1.0])
        >>> caught(scores, torch.tensor([True, True, False, False]), alarms=0.0)
        0.5
    """
    if scores.dim() != 1 or scores.shape != member.shape or member.dtype != torch.bool:
        raise ValueError(
            f"scores [N] and a bool mask [N] are wanted; they are {list(scores.shape)} and"
            f" {list(member.shape)}, {member.dtype}."
        )
    if not 0 <= alarms < 1:
        raise ValueError(f"alarms is a share in [0, 1); it is {alarms}.")
    if scores.isnan().any():
        raise ValueError("A score is NaN: it has no place in an order.")
    if not member.any() or member.all():
        raise ValueError("There must be members and outsiders.")
    outside = scores[~member].sort(descending=True).values
    cut = outside[int(alarms * len(outside))]  # so many outsiders at most lie above it
    return float((scores[member] > cut).double().mean())
