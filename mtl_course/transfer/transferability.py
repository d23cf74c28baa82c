"""Scores that guess, from one forward pass, how well a source will transfer to a target.

All look at the labelled examples of the target through a source that stays as it is. `nce` and
`leep` need the source's own classes: what its old head says. `h_score` and `probe_score` need its
features, as `logme` does (in `linear_evidence`), so they also score a source that was made without
labels. Nothing is trained. Everything is computed in float64, and higher is better everywhere. What
a score is worth is told in `ranking`.
"""

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ._examples import classes_in, matrix, one_hot, same_length


# -------------------------------------------------------------------- through the source's old head
def nce(source_labels: ArrayLike, labels: ArrayLike) -> float:
    """NCE: minus the entropy of the target's labels that the source's answer leaves.

    ``sum over z, y of P(z, y) log P(y | z)``, with the shares P counted on the examples. It is 0
    where the source's answer settles the target's label, and at worst minus the entropy of the
    labels. A class of either task that does not occur adds nothing.

    Args:
        source_labels: int [N], for each example the class of the source task: a label, where one is
            known, else what the source's head answers.
        labels: int [N], the target's.

    Returns:
        The negative conditional entropy in nats, at most 0.

    Raises:
        ValueError: no examples, lengths that differ, or labels that are no whole numbers; names
            which.

    Source:
        Tran, Nguyen and Hassner, "Transferability and hardness of supervised classification tasks",
        ICCV 2019, equation 5.

    Example:
        >>> nce([0, 0, 1, 1], [2, 2, 5, 5])  # knows the answer
        0.0
        >>> print(f"{nce([0, 0, 1, 1], [2, 5, 2, 5]):.4f}")  # knows nothing: minus log 2
        -0.6931
    """
    z, _ = classes_in(source_labels, "source_labels")
    y, _ = classes_in(labels, "labels")
    same_length(len(z), len(y), "source_labels")
    joint = torch.zeros(int(z.max()) + 1, int(y.max()) + 1, dtype=torch.float64)
    joint.index_put_((z, y), torch.tensor(1.0, dtype=torch.float64), accumulate=True)
    joint = joint / len(y)
    given = joint / joint.sum(dim=1, keepdim=True)
    return float(torch.xlogy(joint, given).sum()) + 0.0  # not -0.0


def leep(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """LEEP: log likelihood of the labels, if they are guessed through the source's answers.

    The source's head says theta(x), a distribution over its own classes z. Counting what goes with
    what gives P(y | z); the guess for an example is ``sum over z of P(y | z) theta(x)_z``, and the
    score is the mean of the log of what it gives the true label. It is never below `nce` of answers
    drawn from theta, and never above 0.

    Args:
        probabilities: [N, Z], what the source's head says, after the softmax: rows that sum to one.
        labels: int [N], the target's. Classes that do not occur play no part.

    Returns:
        The mean log likelihood in nats, at most 0.

    Raises:
        ValueError: probabilities that are no [N, Z], are not finite, are negative or do not sum to
            one (logits?); no examples, lengths that differ, or labels that are no whole numbers.

    Source:
        Nguyen, Hassner, Seeger and Archambeau, "LEEP: a new measure to evaluate transferability of
        learned representations", ICML 2020, equations 1 and 2.

    Example:
        >>> sure = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
        >>> leep(sure, [0, 0, 1, 1])
        0.0
        >>> half = [[0.8, 0.2], [0.8, 0.2], [0.2, 0.8], [0.2, 0.8]]
        >>> print(f"{leep(half, [0, 0, 1, 1]):.4f}")  # log(0.8 * 0.8 + 0.2 * 0.2)
        -0.3857
    """
    theta = matrix(probabilities, "probabilities")
    y, classes = classes_in(labels, "labels")
    same_length(len(theta), len(y), "probabilities")
    if (theta < 0).any() or not torch.allclose(theta.sum(dim=1), theta.new_ones(()), atol=1e-4):
        raise ValueError(
            "probabilities has rows that are no distribution (not negative, sum one): are they"
            " logits? Take their softmax first."
        )
    theta = theta / theta.sum(dim=1, keepdim=True)
    joint = one_hot(y, classes).T @ theta / len(y)  # [Y, Z]
    seen = joint.sum(dim=0)
    given = joint / torch.where(seen > 0, seen, 1.0)  # P(y | z); a z that no example has adds 0
    guess = (given[y] * theta).sum(dim=1)
    return float(guess.log().mean().clamp_max(0.0)) + 0.0


# ----------------------------------------------------------------------- through the features alone
def ledoit_wolf(features: ArrayLike) -> tuple[Tensor, float]:
    """Covariance of the features, drawn towards a multiple of the identity.

    With few examples the largest directions of a covariance come out too large and the smallest too
    small, and its inverse magnifies that. The shrunk one is ``(1 - s) C + s m I`` with m the mean
    variance; the share s that is best on average follows from the data.

    Args:
        features: [N, d].

    Returns:
        The shrunk covariance [d, d], float64, and the share s, from 0 to 1.

    Raises:
        ValueError: features that are no [N, d] with two rows at least, or are not finite.

    Source:
        Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices",
        Journal of Multivariate Analysis 88, 2004, section 3.

    Example:
        >>> covariance, share = ledoit_wolf([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> covariance.tolist(), share
        ([[0.5, 0.0], [0.0, 0.5]], 0.0)
    """
    f = matrix(features, "features", rows=2)
    (N, d), f = f.shape, f - f.mean(dim=0)
    covariance = f.T @ f / N
    mean = covariance.diagonal().mean()
    target = mean * torch.eye(d, dtype=f.dtype)
    distance = (covariance - target).square().sum()
    # mean squared distance of the covariance of one example from that of all, over N
    noise = (f.square().sum(dim=1).square().mean() - covariance.square().sum()) / N
    share = float((noise / distance).clamp(0, 1)) if distance > 0 else 0.0
    return (1 - share) * covariance + share * target, share


def h_score(features: ArrayLike, labels: ArrayLike, shrunk: bool = True) -> float:
    """H-score: how much of the features' spread lies between the classes, in their own unit.

    ``tr(C^-1 B)``, with C the covariance of the features and B that of their class means. It does
    not change where the features are scaled or mixed linearly (`shrunk` bends that a little), and
    it is at most the number of classes minus one. With fewer examples than features the plain score
    is that maximum whatever the features are, since C then fits the examples exactly: that is what
    shrinkage mends.

    Args:
        features: [N, d], what the source's trunk gives. Constant columns add nothing.
        labels: int [N], the target's. Classes that do not occur play no part.
        shrunk: take C from `ledoit_wolf` and B times one minus its share, as Ibrahim et al. do;
            else the plain score, with the pseudo-inverse where C has no inverse.

    Returns:
        The score, at least 0.

    Raises:
        ValueError: features that are no [N, d], are not finite or are the same for all examples;
            lengths that differ, labels that are no whole numbers, or only one class.

    Source:
        Bao et al., "An information-theoretic approach to transferability in task transfer
        learning", ICIP 2019, definition 2; shrunk: Ibrahim, Ponomareva and Mazumder, "Newer is not
        always better", ECML PKDD 2022, section 3.

    Example:
        >>> x = [[1.0, 0.0], [1.0, 1.0], [-1.0, 0.0], [-1.0, 1.0]]
        >>> print(f"{h_score(x, [0, 0, 1, 1], shrunk=False):.3f}")  # the first feature tells all
        1.000
        >>> print(f"{h_score(x, [0, 1, 0, 1], shrunk=False):.3f}")  # so does the second
        1.000
        >>> print(f"{h_score(x, [0, 1, 1, 0], shrunk=False):.3f}")  # no linear one does
        0.000
    """
    f = matrix(features, "features", rows=2)
    y, classes = classes_in(labels, "labels", least=2)
    same_length(len(f), len(y), "features")
    f = f - f.mean(dim=0)
    size = f.abs().max()
    if size == 0:
        raise ValueError("features are the same for all examples: they tell no class from another.")
    f = f / size  # so that squares of tiny and of huge features stay finite
    hot = one_hot(y, classes)
    counts = hot.sum(dim=0)
    means = hot.T @ f / counts[:, None]  # [classes, d]
    between = means.T @ (means * (counts / len(y))[:, None])
    if shrunk:
        covariance, share = ledoit_wolf(f)
        return (1 - share) * float(_solved(covariance, between).trace())
    return float(_solved(f.T @ f / len(f), between).trace())


def probe_score(features: ArrayLike, labels: ArrayLike, strength: float | None = None) -> float:
    """A linear probe's accuracy on examples that it has not seen, each left out in turn.

    The probe is ridge regression to one-hot labels, whose predictions without an example follow in
    closed form from the fit with all: no probe is fitted twice. It says "can a line read the
    classes off these features?" with the labels at hand alone.

    Args:
        features: [N, d]. Columns are standardised first; constant ones play no part.
        labels: int [N]. A class with one example is hardly ever named: without it, nothing speaks
            for that class.
        strength: of the ridge, in units of one example; d if None.

    Returns:
        Share of the examples that are named right, from 0 to 1.

    Raises:
        ValueError: features that are no [N, d] or are not finite, lengths that differ, labels that
            are no whole numbers or of one class, or a strength that is not above 0.

    Source:
        Allen, "The relationship between variable selection and data augmentation and a method for
        prediction", Technometrics 16, 1974 (PRESS).

    Example:
        >>> x = [[1.0, 0.2], [0.9, -0.1], [-0.1, 1.1], [0.1, 0.9], [1.1, 0.0], [0.0, 1.0]]
        >>> probe_score(x, [0, 0, 1, 1, 0, 1])
        1.0
    """
    f = matrix(features, "features", rows=2)
    y, classes = classes_in(labels, "labels", least=2)
    same_length(len(f), len(y), "features")
    strength = f.shape[1] if strength is None else strength
    if not strength > 0:
        raise ValueError(f"strength is {strength}; a ridge needs one above 0.")
    spread = f.std(dim=0)
    f = (f - f.mean(dim=0)) / torch.where(spread > 1e-12 * f.abs().amax(dim=0), spread, torch.inf)
    f = torch.cat([f, f.new_ones(len(f), 1)], dim=1)  # an intercept
    gram, hot = f @ f.T, one_hot(y, classes)
    hat = torch.linalg.solve(gram + strength * torch.eye(len(f), dtype=f.dtype), gram)
    leverage = hat.diagonal()[:, None]
    without = (hat @ hot - leverage * hot) / (1 - leverage)  # row i: predicted without example i
    return float((without.argmax(dim=1) == y).double().mean())


def _solved(C: Tensor, B: Tensor) -> Tensor:
    """C^+ B: directions in which C has nothing but rounding are left out."""
    return torch.linalg.pinv(C, hermitian=True, rtol=len(C) * torch.finfo(C.dtype).eps) @ B
