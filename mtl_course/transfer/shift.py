"""How far two domains are apart, and whether the classes' shares differ: no target label needed."""

import numpy as np
import torch
from torch import Tensor

from .alignment import require_features


def target_shares(
    labels: Tensor, predicted: Tensor, predicted_target: Tensor, classes: int
) -> Tensor:
    """Shares of the classes in an unlabelled target, from what a classifier says there (BBSE).

    If only the shares differ, the target's predictions are a mixture of the columns of the source's
    confusion matrix: sum_j P(says i | is j) q_j = share of i among the target's predictions. This
    solves for q, sets what comes out negative to 0, and scales the sum to 1.

    Args:
        labels: classes of held-out source examples, int64 [n]; every class occurs.
        predicted: what the classifier says of them, int64 [n].
        predicted_target: what it says of the target, int64 [m].
        classes: how many there are.

    Returns:
        q, float64 [classes]; divide by the source's shares for importance weights.

    Raises:
        ValueError: for no example, lengths that differ, a label out of range, a class without a
            source example, or a classifier that confuses so much that nothing can be solved.

    Source:
        Lipton, Wang and Smola, "Detecting and correcting for label shift with black box
        predictors", ICML 2018, section 3 (with P(says i | is j) in the place of P(says i, is j)).

    Example:
        >>> labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
        >>> predicted = torch.tensor([0, 0, 0, 1, 1, 1, 1, 0])  # right in three of four
        >>> says = torch.tensor([0, 0, 1, 1])  # half and half: so is the target
        >>> target_shares(labels, predicted, says, classes=2)
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    if not len(labels) or not len(predicted_target):
        raise ValueError("Shares need at least one example of the source and of the target.")
    if len(labels) != len(predicted):
        raise ValueError(f"There are {len(labels)} labels but {len(predicted)} predictions.")
    for name, values in (
        ("labels", labels),
        ("predicted", predicted),
        ("predicted_target", predicted_target),
    ):
        if values.min() < 0 or values.max() >= classes:
            raise ValueError(f"`{name}` has a class outside 0 to {classes - 1}.")
    table = torch.zeros(classes, classes, dtype=torch.float64)
    table.index_put_((predicted.cpu(), labels.cpu()), table.new_ones(()), accumulate=True)
    counts = table.sum(dim=0)
    if (counts == 0).any():
        absent = (counts == 0).nonzero()[:, 0].tolist()
        raise ValueError(f"The source's held-out examples have none of the classes {absent}.")
    table = table / counts
    if torch.linalg.cond(table) > 1e6:
        raise ValueError(
            "The classifier's confusion matrix cannot be inverted: two mixtures of classes look the"
            " same to it. Hold out more examples, or use a better classifier."
        )
    says = torch.bincount(predicted_target.cpu(), minlength=classes).double()
    shares = torch.linalg.solve(table, says / says.sum()).clamp_min(0)
    return shares / shares.sum()


def proxy_a_distance(source: Tensor, target: Tensor, seed: int = 0) -> float:
    """The proxy A-distance: 2 (1 - 2 e), where e is the error of a classifier of the domain.

    A logistic regression on standardised features, fitted to half of each domain and tested on the
    other half, each domain counting half. 0: it cannot tell them apart. 2: it never errs. What it
    gives belongs to linear classifiers, and is a lower bound for richer ones.

    Args:
        source: features of the source's examples [n, d]; n is 4 or more.
        target: features of the target's examples [m, d]; m is 4 or more.
        seed: of the halves.

    Returns:
        Its value; not below 0.

    Raises:
        ValueError: for features of other shapes or widths, fewer than four examples, or a value
            that is not finite; it names the domain.

    Source:
        Ben-David, Blitzer, Crammer and Pereira, "Analysis of representations for domain
        adaptation", NeurIPS 2006.

    Example:
        >>> here = torch.arange(40.0)[:, None]
        >>> proxy_a_distance(here, here + 1000)
        2.0
    """
    from sklearn.linear_model import LogisticRegression

    require_features(source, target, least=4)
    draw = np.random.default_rng(seed)
    train, test = [], []
    for domain, x in enumerate((source, target)):
        order = draw.permutation(len(x))
        x = x.detach().cpu().double().numpy()
        half = len(x) // 2
        train.append((x[order[:half]], domain))
        test.append((x[order[half:]], domain))
    inputs = np.concatenate([x for x, _ in train])
    domains = np.concatenate([np.full(len(x), domain) for x, domain in train])
    mean, deviation = inputs.mean(0), inputs.std(0)
    deviation[deviation == 0] = 1.0  # a constant feature says nothing
    model = LogisticRegression(class_weight="balanced", max_iter=2000)
    model.fit((inputs - mean) / deviation, domains)
    errors = [1 - model.score((x - mean) / deviation, np.full(len(x), d)) for x, d in test]
    return max(0.0, 2 * (1 - 2 * float(np.mean(errors))))
