"""Scores that guess, from one forward pass, how well a source will transfer to a target.

All look at the labelled examples of the target through a source that stays as it is. `nce` and
`leep` need the source's own classes: what its old head says. `h_score` and `logme` need its
features, so they also score a source that was made without labels. Nothing is trained. Everything
is computed in float64, and higher is better everywhere.

A score promises an order of sources for one target, so that is what it is held against:
`rank_per_target`, with its interval over targets (`task_bootstrap`); what following it costs
(`regret`); and whether it knows which source fits *which* target, or only which source is good
(`permuted`).
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import kendalltau, rankdata, spearmanr
from torch import Tensor


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
    z, _ = _classes(source_labels, "source_labels")
    y, _ = _classes(labels, "labels")
    _same_length(len(z), len(y), "source_labels")
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
    theta = _matrix(probabilities, "probabilities")
    y, classes = _classes(labels, "labels")
    _same_length(len(theta), len(y), "probabilities")
    if (theta < 0).any() or not torch.allclose(theta.sum(dim=1), theta.new_ones(()), atol=1e-4):
        raise ValueError(
            "probabilities has rows that are no distribution (not negative, sum one): are they"
            " logits? Take their softmax first."
        )
    theta = theta / theta.sum(dim=1, keepdim=True)
    joint = _one_hot(y, classes).T @ theta / len(y)  # [Y, Z]
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
    f = _matrix(features, "features", rows=2)
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
    f = _matrix(features, "features", rows=2)
    y, classes = _classes(labels, "labels", least=2)
    _same_length(len(f), len(y), "features")
    f = f - f.mean(dim=0)
    size = f.abs().max()
    if size == 0:
        raise ValueError("features are the same for all examples: they tell no class from another.")
    f = f / size  # so that squares of tiny and of huge features stay finite
    hot = _one_hot(y, classes)
    counts = hot.sum(dim=0)
    means = hot.T @ f / counts[:, None]  # [classes, d]
    between = means.T @ (means * (counts / len(y))[:, None])
    if shrunk:
        covariance, share = ledoit_wolf(f)
        return (1 - share) * float(_solved(covariance, between).trace())
    return float(_solved(f.T @ f / len(f), between).trace())


@dataclass(frozen=True)
class Evidence:
    """What `evidence` returns: one entry per column of the targets.

    Args:
        log: [K], log evidence of the column divided by the number of examples.
        alpha: [K], precision of the prior on the weights where the evidence is largest. Infinite
            where the features are of no use.
        beta: [K], precision of the noise. Infinite where the features fit without noise.
        steps: [K], steps of the iteration until the evidence stood still.
        converged: [K], whether it did.

    Example:
        >>> found = evidence([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [0.9, 2.1, 3.2])
        >>> list(found.log.shape), found.converged.tolist()
        ([1], [True])
    """

    log: Tensor
    alpha: Tensor
    beta: Tensor
    steps: Tensor
    converged: Tensor


def evidence(
    features: ArrayLike, targets: ArrayLike, tolerance: float = 1e-9, steps: int = 1000
) -> Evidence:
    """The largest evidence of linear models from features to targets, column by column.

    The model is ``y = F w + noise`` with w from N(0, I / alpha) and noise from N(0, 1 / beta). Its
    evidence, the density of y with w integrated out, is that of N(0, I / beta + F F^T / alpha). A
    fixed-point iteration finds the alpha and beta that make it largest. With the singular values
    s_k of F everything depends on their ratio r = alpha / beta alone, so one number per column is
    iterated and a step costs O(d).

    Args:
        features: [N, d].
        targets: [N] or [N, K], numbers: one hot labels, or those of a regression.
        tolerance: a column is done when a step changes its evidence by less, in nats per example.
        steps: most steps.

    Returns:
        An `Evidence`. Its log is infinite for a column that fewer directions than examples fit
        exactly: noise of size zero is then infinitely likely.

    Raises:
        ValueError: features or targets that are not finite or of another shape, lengths that
            differ, features that are zero, a column of the targets that is zero; names it.

    Source:
        You et al., "LogME: practical assessment of pre-trained models for transfer learning", ICML
        2021, equations 2 to 4 and algorithm 1; the iteration is MacKay's (1992).

    Example:
        >>> F = torch.tensor([[1.0], [2.0], [-1.0], [-2.0]])
        >>> good = evidence(F, [1.1, 1.9, -1.0, -2.0])
        >>> bad = evidence(F, [1.0, -1.0, 1.0, -1.0])
        >>> bool(good.log > bad.log), bool(good.converged)
        (True, True)
    """
    f = _matrix(features, "features")
    y = torch.as_tensor(targets).detach().to("cpu", torch.float64)
    y = y[:, None] if y.ndim == 1 else y
    y = _matrix(y, "targets")
    _same_length(len(f), len(y), "features")
    scales = y.square().mean(dim=0).sqrt()
    if not scales.all():
        column = int((scales == 0).nonzero()[0])
        raise ValueError(f"Column {column} of targets is zero: it has no evidence to speak of.")
    size = f.abs().max()
    if size == 0:
        raise ValueError("features are all zero: there is nothing to predict from.")
    u, s, _ = torch.linalg.svd(f / size, full_matrices=False)
    keep = s > s[0] * max(f.shape) * torch.finfo(s.dtype).eps
    s2, u = s[keep].square()[:, None], u[:, keep]  # [k, 1], [N, k]
    y = y / scales
    z2 = (u.T @ y).square()  # [k, K], the part of y along each direction
    outside = (y - u @ (u.T @ y)).square().sum(dim=0)  # what no weights can fit
    if len(s2) == len(y):
        outside = torch.zeros_like(outside)  # every direction is there: what is left is rounding
    return _iterate(s2, z2, outside, len(y), size, scales, tolerance, steps)


def _iterate(s2, z2, outside, N, size, scales, tolerance, steps):
    """The fixed-point iteration of `evidence`, for all columns at once; shapes as there."""
    fits = (len(s2) < N) & (outside <= 1e-24 * N)  # exactly, and with directions to spare
    ratio, log = s2.mean().expand(len(outside)), torch.full_like(outside, -torch.inf)
    taken, converged = torch.zeros(len(outside), dtype=torch.int64), fits.clone()
    for step in range(1, steps + 1):
        rest = ratio / (ratio + s2)  # the share of each direction that stays unexplained, [k, K]
        beta = N / ((rest * z2).sum(dim=0) + outside)  # the best one for this ratio
        now = (rest.log().sum(dim=0) / N + beta.log() - np.log(2 * np.pi) - 1) / 2
        moving = ~converged
        taken[moving] = step
        converged |= (now - log).abs() < tolerance
        log = torch.where(moving, now, log)
        if converged.all():
            break
        error = (rest.square() * z2).sum(dim=0) + outside
        weights = (s2 * z2 / (ratio + s2).square()).sum(dim=0)  # squared length of the mean w
        used = (1 - rest).sum(dim=0)  # effective number of weights
        free = rest.sum(dim=0) + (N - len(s2))  # N - used, without its rounding
        new = torch.where(weights > 0, used / weights * (error / free), torch.inf)
        ratio = torch.where(converged, ratio, new.clamp(1e-290, 1e290))
    beta = torch.where(fits, torch.inf, N / ((ratio / (ratio + s2) * z2).sum(dim=0) + outside))
    # back to the units of the features and targets that were given
    return Evidence(
        log=torch.where(fits, torch.inf, log - scales.log()),
        alpha=ratio * beta * (size / scales).square(),
        beta=beta / scales.square(),
        steps=taken,
        converged=converged,
    )


def logme(features: ArrayLike, labels: ArrayLike) -> float:
    """LogME: mean over the classes of the log evidence of "this class or not".

    Args:
        features: [N, d], what the source's trunk gives.
        labels: int [N], the target's. Classes that do not occur play no part.

    Returns:
        The score in nats per example, as `evidence` has it for each class. Infinite where features
        of lower rank than N fit a class exactly.

    Raises:
        ValueError: as for `evidence`; labels that are no whole numbers, or only one class.
        FloatingPointError: the iteration did not come to rest for a class; names it.

    Source:
        You et al., "LogME: practical assessment of pre-trained models for transfer learning", ICML
        2021, algorithm 1.

    Example:
        >>> x = [[1.0, 0.2], [0.9, -0.1], [-0.1, 1.1], [0.1, 0.9], [1.1, 0.0], [0.0, 1.0]]
        >>> logme(x, [0, 0, 1, 1, 0, 1]) > logme(x, [0, 1, 0, 1, 0, 1])
        True
    """
    y, classes = _classes(labels, "labels", least=2)
    found = evidence(features, _one_hot(y, classes))
    if not found.converged.all():
        column = int((~found.converged).nonzero()[0])
        name = torch.as_tensor(labels).unique()[column]
        raise FloatingPointError(f"The evidence of class {name} did not come to rest.")
    return float(found.log.mean())


def probe_score(features: ArrayLike, labels: ArrayLike, strength: float | None = None) -> float:
    """A linear probe's accuracy on examples that it has not seen, each left out in turn.

    The probe is ridge regression to one-hot labels, whose predictions without an example follow in
    closed form from the fit with all: no probe is fitted twice. It says "can a line read the
    classes off these features?" with the labels at hand alone.

    Args:
        features: [N, d]. Columns are standardised first; constant ones play no part.
        labels: int [N]. A class with one example cannot be right: without it, it is unknown.
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
    f = _matrix(features, "features", rows=2)
    y, classes = _classes(labels, "labels", least=2)
    _same_length(len(f), len(y), "features")
    strength = f.shape[1] if strength is None else strength
    if not strength > 0:
        raise ValueError(f"strength is {strength}; a ridge needs one above 0.")
    spread = f.std(dim=0)
    f = (f - f.mean(dim=0)) / torch.where(spread > 1e-12 * f.abs().amax(dim=0), spread, torch.inf)
    f = torch.cat([f, f.new_ones(len(f), 1)], dim=1)  # an intercept
    gram, hot = f @ f.T, _one_hot(y, classes)
    hat = torch.linalg.solve(gram + strength * torch.eye(len(f), dtype=f.dtype), gram)
    leverage = hat.diagonal()[:, None]
    without = (hat @ hot - leverage * hot) / (1 - leverage)  # row i: predicted without example i
    return float((without.argmax(dim=1) == y).double().mean())


# ------------------------------------------------------------------ does a score predict the gains?
def rank_per_target(scores: ArrayLike, gains: ArrayLike, kind: str = "spearman") -> NDArray:
    """Rank correlation of a score with the gains, over the sources of each target.

    Args:
        scores: [S, T], of source s for target t. NaN where a pair has none: it is left out, and so
            is one whose score is infinite, such as an exact fit's `logme`.
        gains: [S, T], what fine-tuning from s gained on t; NaN as well.
        kind: "spearman" or "kendall".

    Returns:
        [T], each from -1 to 1; NaN for a target with fewer than three sources or without any order.

    Raises:
        ValueError: matrices of different shapes, or another `kind`.

    Example:
        >>> scores = [[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]]
        >>> gains = [[0.1, 0.1], [0.2, 0.2], [0.9, 0.3]]
        >>> rank_per_target(scores, gains).round(6).tolist()
        [1.0, -1.0]
    """
    scores, gains = _two(scores, gains)
    if kind not in ("spearman", "kendall"):
        raise ValueError(f'kind is "spearman" or "kendall", not {kind!r}.')
    correlate = spearmanr if kind == "spearman" else kendalltau
    values = []
    for score, gain in zip(scores.T, gains.T, strict=True):
        both = np.isfinite(score) & np.isfinite(gain)
        a, b = score[both], gain[both]
        flat = both.sum() < 3 or np.ptp(a) == 0 or np.ptp(b) == 0
        values.append(np.nan if flat else float(correlate(a, b).statistic))
    return np.array(values)


def regret(scores: ArrayLike, gains: ArrayLike) -> NDArray:
    """What it costs to take the source with the highest score instead of the best one.

    Args:
        scores: [S, T]; NaN where a pair has none: it is not chosen, nor is one that is infinite.
        gains: [S, T]; NaN where a pair was not run: it is not chosen either.

    Returns:
        [T], the best gain minus the chosen source's, at least 0. Of equal scores the first counts.

    Raises:
        ValueError: matrices of different shapes, or a target without any pair; names it.

    Example:
        >>> regret([[1.0, 3.0], [2.0, 2.0]], [[0.5, 0.1], [0.2, 0.4]]).round(6).tolist()
        [0.3, 0.3]
    """
    scores, gains = _two(scores, gains)
    both = np.isfinite(scores) & np.isfinite(gains)
    if not both.any(axis=0).all():
        raise ValueError(f"Target {int(np.argmin(both.any(axis=0)))} has no source to choose from.")
    chosen = np.where(both, scores, -np.inf).argmax(axis=0)
    best = np.where(np.isfinite(gains), gains, -np.inf).max(axis=0)
    return best - gains[chosen, np.arange(gains.shape[1])]


def task_bootstrap(
    values: ArrayLike, level: float = 0.95, rounds: int = 5000, seed: int = 0
) -> tuple[float, float]:
    """An interval for the mean over tasks, by drawing the tasks anew.

    The tasks are the units: another study would have had others. Seeds of one task are no
    substitute, since they all ask about the same task. With five tasks the interval is rough, and
    too narrow rather than too wide.

    Args:
        values: [T], one per task. NaN is left out.
        level: share of the draws that the interval holds.
        rounds: number of draws.
        seed: of the draws.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: fewer than two values.

    Source:
        Efron and Tibshirani, "An introduction to the bootstrap", Chapman and Hall 1993, chapter 13
        (the percentile interval).

    Example:
        >>> low, high = task_bootstrap([0.9, 0.7, 0.8, 0.4, 0.9])
        >>> 0.4 < low < 0.74 < high < 0.9
        True
    """
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        raise ValueError(f"{len(values)} task has no spread: an interval needs two at least.")
    drawn = np.random.default_rng(seed).integers(len(values), size=(rounds, len(values)))
    means = values[drawn].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def permuted(
    scores: ArrayLike, gains: ArrayLike, what: str, rounds: int = 2000, seed: int = 0
) -> float:
    """P-value of the mean rank correlation if names are exchanged, as in Mantel's test.

    Entries of one source share its features, and those of one target its labels, so they are not
    independent. Exchanging whole rows or whole columns of the scores keeps that dependence.

    Args:
        scores: [S, T].
        gains: [S, T].
        what: "sources" exchanges the rows: does the score know anything of the sources? "targets"
            exchanges the columns: does it know which source fits *this* target, or would the scores
            of another target have served as well?
        rounds: number of exchanges; the observed one counts as one of them.
        seed: of the draws.

    Returns:
        The share of exchanges with a mean correlation at least as high; at least 1 / rounds.

    Raises:
        ValueError: matrices of different shapes, or another `what`.

    Source:
        Mantel, Cancer Research 27, 1967, for square matrices.

    Example:
        >>> gains = np.arange(7.0)[:, None] + np.array([0.0, 1.0, 2.0])  # one order for all
        >>> permuted(gains, gains, "sources", rounds=200) < 0.05
        True
        >>> permuted(gains, gains, "targets", rounds=200)
        1.0
    """
    scores, gains = _two(scores, gains)
    if what not in ("sources", "targets"):
        raise ValueError(f'what is "sources" or "targets", not {what!r}.')
    axis = 0 if what == "sources" else 1
    rng = np.random.default_rng(seed)
    orders = [np.arange(scores.shape[axis])]  # the first is as observed
    orders += [rng.permutation(scores.shape[axis]) for _ in range(rounds - 1)]
    if np.isfinite(scores).all() and np.isfinite(gains).all():
        # a column keeps its ranks wherever its entries go, so they are found once
        a, b = _unit_ranks(scores), _unit_ranks(gains)
        means = [np.nanmean((np.take(a, order, axis=axis) * b).sum(axis=0)) for order in orders]
    else:
        means = [
            np.nanmean(rank_per_target(np.take(scores, order, axis=axis), gains))
            for order in orders
        ]
    return float(np.mean(np.array(means) >= means[0] - 1e-12))


def _unit_ranks(values: NDArray) -> NDArray:
    """Ranks within each column, centred and of length 1; NaN in a column without order."""
    ranks = rankdata(values, axis=0)
    ranks = ranks - ranks.mean(axis=0)
    length = np.sqrt((ranks**2).sum(axis=0))
    return ranks / np.where(length > 0, length, np.nan)


# ------------------------------------------------------------------------------------------- inputs
def _matrix(values, name: str, rows: int = 1) -> Tensor:
    """[N, d] in float64 on the CPU; ValueError that names it for anything else."""
    x = torch.as_tensor(values).detach().to("cpu", torch.float64)
    if x.ndim != 2 or len(x) < rows or x.shape[1] == 0:
        raise ValueError(
            f"{name} has shape {list(x.shape)}; it takes [N, columns] with N at least {rows}."
        )
    if not x.isfinite().all():
        row, column = (~x.isfinite()).nonzero()[0].tolist()
        raise ValueError(f"{name} is {x[row, column]} in row {row}, column {column}.")
    return x


def _classes(labels, name: str, least: int = 1) -> tuple[Tensor, int]:
    """Labels as 0, 1, ... without gaps, and how many classes occur."""
    y = torch.as_tensor(labels).detach().cpu()
    if y.ndim != 1 or len(y) == 0 or y.is_floating_point() or y.is_complex():
        raise ValueError(
            f"{name} has shape {list(y.shape)} and type {y.dtype}; it takes whole numbers [N]."
        )
    present, number = y.unique(return_inverse=True)
    if len(present) < least:
        raise ValueError(f"{name} has only class {present[0]}: there is nothing to tell apart.")
    return number, len(present)


def _one_hot(y: Tensor, classes: int) -> Tensor:
    return torch.nn.functional.one_hot(y, classes).to(torch.float64)


def _same_length(rows: int, labels: int, name: str) -> None:
    if rows != labels:
        raise ValueError(f"{name} has {rows} rows, but there are {labels} labels or targets.")


def _solved(C: Tensor, B: Tensor) -> Tensor:
    """C^+ B: directions in which C has nothing but rounding are left out."""
    return torch.linalg.pinv(C, hermitian=True, rtol=len(C) * torch.finfo(C.dtype).eps) @ B


def _two(scores, gains):
    scores, gains = np.asarray(scores, dtype=float), np.asarray(gains, dtype=float)
    if scores.ndim != 2 or scores.shape != gains.shape:
        raise ValueError(
            f"scores and gains are matrices [sources, targets] of one shape, not {scores.shape} and"
            f" {gains.shape}."
        )
    return scores, gains
