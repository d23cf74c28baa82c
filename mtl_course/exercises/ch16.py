"""Exercises of chapter 16: choosing and making a source."""

import math

import numpy as np
import torch
from torch.nn import functional as F

from ..checks.exercise import exercise
from .inputs import (
    LEAVES_NO_TRACE,
    different,
    labels,
    leaves_no_trace,
    power,
    shuffled,
    uniform,
    whole,
)
from .outcomes import named, scalar


def _score(answer, *args):
    return scalar(answer(*args), "the result")


# ----------------------------------------------------------------------------------------- 1. LEEP
# inputs
def _answers(sharp, unused=False):
    """What a source's head says of a target's examples, and their labels; a class is missing.

    sharp: how sure it is. unused: whether there is a source class that it never considers.
    """

    def draw(generator):
        n, old, new = whole(generator, 12, 20), *different(generator, 2, 3, 7)
        logits = sharp * torch.randn(n, old, generator=generator, dtype=torch.float64)
        if unused:
            logits[:, whole(generator, 0, old)] = -math.inf
        return logits.softmax(dim=1), labels(generator, n, new)

    return draw


# reference
@exercise(
    [_answers(1.0), _answers(4.0), _answers(1.0, unused=True)],
    points=2,
    grad=False,
    device=False,
    call=_score,
    hints=(
        "Which table do you need before you can guess a label? How would you count it, if the"
        " source were always sure?",
        (
            "The joint table: P(y, z) is the mean over all examples of theta_z where the label is"
            " y, and 0 elsewhere. Divide each column z by its sum: P(y | z)."
        ),
        (
            "An example's guess for its label y is the sum over z of P(y | z) theta_z. The score"
            " is the mean of the logs. Leave out columns whose sum is 0."
        ),
    ),
)
def leep_score(theta, labels):
    """LEEP of equation 3: a number, at most 0.

    theta: [N, Z], what the source's head says of each example of
        the target: rows that sum to one. A source class may have
        probability 0 for all examples: it adds nothing.
    labels: int64 [N], the target's classes. Some class between
        the smallest and the largest may not occur.
    """
    ### BEGIN SOLUTION
    hot = torch.nn.functional.one_hot(labels).to(theta)
    joint = hot.T @ theta
    given = joint / joint.sum(0)
    guess = given[labels] * theta
    return guess.nan_to_num(0.0).sum(1).log().mean()
    ### END SOLUTION


# laws
@leep_score.law("a source that is always sure and always right gets 0")
def _(answer, theta, labels):
    return abs(float(answer(F.one_hot(labels).to(theta), labels))) < 1e-6


@leep_score.law("a source that says the same of all examples gets minus the entropy of the labels")
def _(answer, theta, labels):
    shares = torch.bincount(labels).to(theta) / len(labels)
    same = theta[:1].expand(len(labels), -1).clone()
    return abs(float(answer(same, labels)) - float(torch.xlogy(shares, shares).sum())) < 1e-6


@leep_score.law("a set that is there twice has the same score")
def _(answer, theta, labels):
    twice = float(answer(torch.cat([theta, theta]), torch.cat([labels, labels])))
    return abs(twice - float(answer(theta, labels))) < 1e-6


leep_score.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _leep(theta, labels, given=lambda joint: joint / joint.sum(0), of="sum", log=True, soft=True):
    """LEEP with one thing changed."""
    hot = F.one_hot(labels).to(theta)
    counted = theta if soft else F.one_hot(theta.argmax(1), theta.shape[1]).to(theta)
    table = given(hot.T @ counted)
    guess = (table[labels] * theta).nan_to_num(0.0).sum(1)
    if of == "log of mean":
        return guess.mean().log()
    if of == "total":
        return guess.log().sum()
    return guess.log().mean() if log else guess.mean()


leep_score.variants(
    _leep,
    {
        "Each row of the table is divided by its sum, which gives P(z | y)."
        " To guess y from z you need P(y | z): divide each column.": {
            "given": lambda joint: joint / joint.sum(1, keepdim=True)
        },
        "The joint table is used as it is. It has to be conditioned on z:"
        " divide each column by its sum.": {"given": lambda joint: joint / joint.sum()},
        "This is the log of the mean guess. LEEP is the mean of the logs, a log likelihood.": {
            "of": "log of mean"
        },
        "The logs are added up: a larger target set would have a worse score. Take their mean.": {
            "of": "total"
        },
        "This is the mean guess itself: its log is missing.": {"log": False},
    },
)


@leep_score.mistake(
    "The table counts the source's most probable class alone, and guesses are soft."
    " Count with theta itself: an example that is 60 to 40 counts 0.6 and 0.4."
)
def _(theta, labels):
    return _leep(theta, labels, soft=False)


@leep_score.mistake(
    "This is NCE: source and example are reduced to the most probable class."
    " LEEP keeps the probabilities, both in the table and in the guess."
)
def _(theta, labels):
    sure = F.one_hot(theta.argmax(1), theta.shape[1]).to(theta)
    return _leep(sure, labels)


@leep_score.mistake(
    "The log is taken before the sum over z. First add up the guess for an example, then take its"
    " log."
)
def _(theta, labels):
    joint = F.one_hot(labels).to(theta).T @ theta
    given = joint / joint.sum(0)
    logs = given[labels].log().nan_to_num(0.0, 0.0, 0.0)
    return (logs * theta).sum(1).mean()


@leep_score.mistake(
    "A source class with probability 0 everywhere makes 0 / 0, and the score is NaN."
    " Such a class adds nothing."
)
def _(theta, labels):
    joint = F.one_hot(labels).to(theta).T @ theta
    return ((joint / joint.sum(0))[labels] * theta).sum(1).log().mean()


# --------------------------------------------------------------------------------- 2. the evidence
# inputs
def _regression(rows, columns):
    """Features, a target, and the two precisions, of any size."""

    def draw(generator):
        n, d = whole(generator, *rows), whole(generator, *columns)
        features = torch.randn(n, d, generator=generator, dtype=torch.float64)
        y = features @ torch.randn(d, generator=generator, dtype=torch.float64)
        y = y + torch.randn(n, generator=generator, dtype=torch.float64)
        alpha, beta = (
            float(torch.exp(torch.randn((), generator=generator, dtype=torch.float64)))
            for _ in range(2)
        )
        return features, y, alpha, beta

    return draw


def _far(generator):
    """Precisions a thousand times apart."""
    features, y, alpha, beta = _regression((5, 9), (2, 4))(generator)
    return features, y, alpha * power(generator, -2, 2), beta * power(generator, -1, 2)


def _many(generator):
    """So many examples with so little noise that the determinant is no float64 any more."""
    features, *_ = _regression((70, 76), (2, 5))(generator)
    alpha, beta = uniform(generator, 0.5, 2), 1e6 * uniform(generator, 0.5, 2)
    weights, noise = (
        torch.randn(size, generator=generator, dtype=torch.float64)
        for size in features.T.shape
    )
    return features, features @ weights / alpha**0.5 + noise / beta**0.5, alpha, beta


# reference
@exercise(
    [_regression((8, 12), (2, 5)), _regression((3, 6), (7, 10)), _far, _many],
    points=2,
    grad=False,
    device=False,
    call=_score,
    hints=(
        "y is a sum of two random vectors, F w and the noise. What is the covariance of each, and"
        " of their sum?",
        (
            "Cov(F w) = F F^T / alpha, Cov(noise) = I / beta. The log density of N(0, C) at y is"
            " minus half of N log(2 pi) + log det C + y^T C^-1 y."
        ),
        "torch.logdet(C), and torch.linalg.solve(C, y) for C^-1 y.",
    ),
)
def log_evidence(features, y, alpha, beta):
    """Log density of the targets, with all weights integrated out.

    The model is y = F w + noise: the weights are independent and
    normal with mean 0 and variance 1 / alpha, the noise with mean
    0 and variance 1 / beta.

    features: F [N, d], float64. y: [N]. alpha, beta: floats.
    Return log p(y | F, alpha, beta), a number; not divided by N.
    """
    ### BEGIN SOLUTION
    N = len(y)
    C = torch.eye(N).to(y) / beta + features @ features.T / alpha
    fit = y @ torch.linalg.solve(C, y)
    return -(N * math.log(2 * math.pi) + torch.logdet(C) + fit) / 2
    ### END SOLUTION


# laws
@log_evidence.law("it is a density: for one example it integrates to one")
def _(answer, features, y, alpha, beta):
    row = features[:1] / features[:1].norm()
    width = float((row.square().sum() / alpha + 1 / beta) ** 0.5)
    grid = torch.linspace(-6 * width, 6 * width, 13, dtype=y.dtype, device=y.device)
    density = [math.exp(float(answer(row, t[None], alpha, beta))) for t in grid]
    return abs(np.trapezoid(density, grid.cpu().numpy()) - 1) < 1e-3


@log_evidence.law("examples in another order have the same evidence")
def _(answer, features, y, alpha, beta):
    other = answer(features.flip(0), y.flip(0), alpha, beta)
    return abs(float(other) - float(answer(features, y, alpha, beta))) < 1e-6 * max(
        1.0, abs(float(other))
    )


log_evidence.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _density(F, y, alpha, beta, noise=1.0, prior=1.0, constant=1.0, det=0.5, fit=0.5):
    """The log density with one thing changed; noise and prior are variances."""
    N = len(y)
    C = noise * torch.eye(N).to(y) + prior * F @ F.T
    quadratic = y @ torch.linalg.solve(C, y)
    whole_constant = constant * N / 2 * math.log(2 * math.pi)
    return -whole_constant - det * torch.logdet(C) - fit * quadratic


def _changed(change):
    def wrong(F, y, alpha, beta):
        return _density(F, y, alpha, beta, **{"noise": 1 / beta, "prior": 1 / alpha} | change)

    return wrong


for _hint, _change in {
    "The constant -N/2 log(2 pi) is missing.": {"constant": 0.0},
    "The log determinant is missing: without it wide priors would cost nothing.": {"det": 0.0},
    "The log determinant counts half: it is the log of a square root.": {"det": 1.0},
    "The quadratic form counts half.": {"fit": 1.0},
    "The constant has N log(2 pi), halved like the rest.": {"constant": 2.0},
    "The sign of the log determinant is turned: a wider density is a lower one.": {"det": -0.5},
}.items():
    log_evidence.mistake(_hint)(_changed(_change))


@log_evidence.mistake(
    "The determinant itself leaves the range of floats when there are many examples. Its logarithm"
    " does not: take that without the determinant."
)
def _(F, y, alpha, beta):
    C = torch.eye(len(y)).to(y) / beta + F @ F.T / alpha
    return _density(F, y, alpha, beta, 1 / beta, 1 / alpha, det=0.0) - torch.det(C).log() / 2


@log_evidence.mistake(
    "alpha and beta are precisions: the variances are 1 / alpha and 1 / beta."
)
def _(F, y, alpha, beta):
    return _density(F, y, alpha, beta, noise=beta, prior=alpha)


@log_evidence.mistake("alpha and beta are exchanged: alpha belongs to the weights.")
def _(F, y, alpha, beta):
    return _density(F, y, alpha, beta, noise=1 / alpha, prior=1 / beta)


@log_evidence.mistake(
    "This is the log evidence per example. Here it is not divided by N; LogME does that afterwards."
)
def _(F, y, alpha, beta):
    return _density(F, y, alpha, beta, noise=1 / beta, prior=1 / alpha) / len(y)


@log_evidence.mistake(
    "This is the likelihood at the best weights, not their integral: it always prefers more"
    " features. Integrate: y is normal with covariance I / beta + F F^T / alpha."
)
def _(F, y, alpha, beta):
    A = alpha * torch.eye(F.shape[1]).to(y) + beta * F.T @ F
    rest = y - F @ torch.linalg.solve(A, beta * F.T @ y)
    return len(y) / 2 * math.log(beta / (2 * math.pi)) - beta / 2 * rest @ rest


@log_evidence.mistake(
    "The weights are left out of the covariance: this is the density of pure noise."
)
def _(F, y, alpha, beta):
    return _density(F, y, alpha, beta, noise=1 / beta, prior=0.0)


# ------------------------------------------------------------------------------- 3. ranks of tasks
# inputs
def _tasks(unit):
    """A score and gains of some sources for some targets, and draws of the targets.

    No two entries of a column are equal.
    """

    def draw(generator):
        sources, targets = different(generator, 2, 4, 9)
        gains = torch.randn(sources, targets, generator=generator, dtype=torch.float64)
        scores = gains + torch.randn(sources, targets, generator=generator, dtype=torch.float64)
        scores = unit * (scores + 10 * torch.randn(targets, generator=generator).double())
        rounds = whole(generator, 40, 60)
        draws = torch.randint(targets, (rounds, targets), generator=generator)
        return scores.exp() if unit == 1 else scores, gains, draws

    return draw


def _three(answer, *args):
    parts = named(answer(*args), "mean", "low", "high")
    return {name: scalar(part, name) for name, part in parts.items()}


# reference
@exercise(
    [_tasks(1), _tasks(1e-5)],
    points=2,
    grad=False,
    device=False,
    call=_three,
    hints=(
        "What is the unit that another study would have drawn anew: a source, a seed, a target?",
        (
            "Ranks of a column: argsort twice. Pearson's correlation of two columns of ranks is"
            " Spearman's. That gives one number per target; `draws` says whose mean to take."
        ),
        (
            "`means = rho[draws].mean(1)`, then the 2.5 % and the 97.5 % quantile of them."
            " The estimate itself is the mean over the targets, each once."
        ),
    ),
)
def rank_interval(scores, gains, draws):
    """Does a score order the sources as their gains do?

    scores, gains: float64 [S, T], of source s for target t. No
        two entries of a column are equal.
    draws: int64 [rounds, T], numbers of targets drawn with
        replacement, one bootstrap sample a row.
    Return (mean, low, high): the mean over the targets of
    Spearman's rank correlation over the sources; and the 2.5 %
    and 97.5 % quantiles (torch.quantile) of that mean in the
    bootstrap samples.
    """
    ### BEGIN SOLUTION
    a = scores.argsort(0).argsort(0).double()
    b = gains.argsort(0).argsort(0).double()
    a = a - a.mean(0)
    rho = (a * b).sum(0) / (a * a).sum(0)
    means = rho[draws].mean(1)
    return rho.mean(), means.quantile(0.025), means.quantile(0.975)
    ### END SOLUTION


# laws
@rank_interval.law("only the order counts: the cubes of the scores have the same")
def _(answer, scores, gains, draws):
    cubes = (scores / scores.abs().amax(0)) ** 3
    return _same(_three(answer, scores, gains, draws), _three(answer, cubes, gains, draws))


@rank_interval.law("a score of its own scale for each target has the same")
def _(answer, scores, gains, draws):
    scale = torch.arange(1, scores.shape[1] + 1).to(scores)
    return _same(_three(answer, scores, gains, draws), _three(answer, scores * scale, gains, draws))


@rank_interval.law("turned round it has the opposite, with its ends exchanged")
def _(answer, scores, gains, draws):
    one, other = (_three(answer, s, gains, draws) for s in (scores, -scores))
    turned = {"mean": -other["mean"], "low": -other["high"], "high": -other["low"]}
    return _same(one, turned)


rank_interval.law(LEAVES_NO_TRACE)(leaves_no_trace)


def _same(one, other):
    return all(abs(one[name] - other[name]) < 1e-6 for name in one)


# mistakes
def _ranks(M, dim=0):
    ranks = M.argsort(dim).argsort(dim).double()
    return ranks - ranks.mean(dim, keepdim=True)


def _cosine(a, b, dim=0):
    return (a * b).sum(dim) / ((a * a).sum(dim) * (b * b).sum(dim)).sqrt()


def _interval(rho, draws, low=0.025, high=0.975, of=None):
    means = rho[draws].mean(1)
    return (rho.mean() if of is None else of(means)), means.quantile(low), means.quantile(high)


@rank_interval.mistake("argsort once gives the order, not the ranks. argsort of that gives them.")
def _(scores, gains, draws):
    a, b = (M.argsort(0).double() for M in (scores, gains))
    return _interval(_cosine(a - a.mean(0), b - b.mean(0)), draws)


@rank_interval.mistake("This is Pearson's correlation of the values. Take their ranks first.")
def _(scores, gains, draws):
    return _interval(_cosine(scores - scores.mean(0), gains - gains.mean(0)), draws)


@rank_interval.mistake(
    "The gains are ranked, the scores are not: scores of any unit must give the same."
)
def _(scores, gains, draws):
    return _interval(_cosine(scores - scores.mean(0), _ranks(gains)), draws)


@rank_interval.mistake(
    "These are quantiles over the targets, not over the bootstrap samples:"
    " they say how much targets differ, not how sure their mean is."
)
def _(scores, gains, draws):
    rho = _cosine(_ranks(scores), _ranks(gains))
    return rho.mean(), rho.quantile(0.025), rho.quantile(0.975)


@rank_interval.mistake(
    "The samples are single targets. A bootstrap sample has T targets, and its statistic is their"
    " mean: average each row of `draws`."
)
def _(scores, gains, draws):
    rho = _cosine(_ranks(scores), _ranks(gains))
    drawn = rho[draws].flatten()
    return rho.mean(), drawn.quantile(0.025), drawn.quantile(0.975)


@rank_interval.mistake(
    "The estimate is the mean over the targets, each once. You give the mean of the samples."
)
def _(scores, gains, draws):
    return _interval(_cosine(_ranks(scores), _ranks(gains)), draws, of=lambda means: means.mean())


@rank_interval.mistake(
    "These quantiles leave out 10 %, so this is a 90 % interval. Leave out 2.5 % at each end."
)
def _(scores, gains, draws):
    return _interval(_cosine(_ranks(scores), _ranks(gains)), draws, 0.05, 0.95)


@rank_interval.mistake(
    "You rank over the targets, within each source. The question is which source to take for a"
    " target: rank over the sources, within each column."
)
def _(scores, gains, draws):
    if len(scores) < scores.shape[1]:
        draws = draws.clamp(max=len(scores) - 1)
    return _interval(_cosine(_ranks(scores, 1), _ranks(gains, 1), 1), draws)


@rank_interval.mistake(
    "All pairs are ranked together. Then a target whose scores are high as a whole makes its"
    " sources look good: rank within each target."
)
def _(scores, gains, draws):
    a, b = (M.flatten().argsort().argsort().double().view_as(M) for M in (scores, gains))
    return _interval(_cosine(a - a.mean(0), b - b.mean(0)), draws)


# -------------------------------------------------------------------------------------- 4. NT-Xent
# inputs
def _views(size, low=1.0, cold=False):
    """Two views of a few images, of any length, and a temperature.

    cold: a temperature of 0.01, and one image whose views nearly agree: exp(cos / tau) overflows.
    """

    def draw(generator):
        count, width = different(generator, 2, 2, 7)
        a, b = size * torch.randn(2, count, width, generator=generator)
        uneven = 1 + torch.arange(count)[:, None]
        if cold:
            b[0] = 2 * a[0] + 0.01 * size
            b[1] = -a[1] + 0.5 * b[1]  # the loss is far from 0
            return a * uneven, b, 0.01
        return a * uneven, b, low * (0.2 + float(torch.rand((), generator=generator)))

    return draw


# reference
@exercise(
    [_views(1.0), _views(1e-4), _views(1e3, low=3.0), _views(1.0, cold=True)],
    points=3,
    hints=(
        "How many views are there in a batch of B images, and which of them is a view's partner?",
        (
            "Stack both views to [2B, d] and make all rows one long. The cosines are one matrix"
            " product. The partner of view i is view i + B, and of i + B it is i."
        ),
        (
            "F.cross_entropy(logits, partner) does the rest, once the diagonal of the logits is"
            " minus infinity, so that no view finds itself."
        ),
    ),
)
def contrastive_loss(a, b, temperature):
    """NT-Xent of equation 7: a scalar tensor.

    a, b: [B, d], projections of two views of the same B images,
        row by row; B is at least 2, no row is zero. Their lengths
        do not count.
    temperature: tau, a positive float; 0.01 must do, too.
    Gradients reach both a and b.
    """
    ### BEGIN SOLUTION
    z = torch.cat([a, b])
    z = z / z.norm(dim=1, keepdim=True)
    logits = z @ z.T / temperature
    logits = logits.masked_fill(torch.eye(len(z)).to(z) > 0, -math.inf)
    partner = torch.arange(len(z)).roll(len(a)).to(z.device)
    return torch.nn.functional.cross_entropy(logits, partner)
    ### END SOLUTION


# laws
@contrastive_loss.law("views that are all alike give log(2B - 1), whatever the temperature")
def _(answer, a, b, temperature):
    same = torch.ones_like(a)
    return abs(float(answer(same, same, temperature)) - math.log(2 * len(a) - 1)) < 1e-4


@contrastive_loss.law("the two sides may be exchanged")
def _(answer, a, b, temperature):
    return torch.allclose(answer(a, b, temperature), answer(b, a, temperature), atol=1e-5)


contrastive_loss.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _nt_xent(
    a, b, tau, unit=True, own=False, shift=0, divide=True, sides=2, mean=torch.mean, only=None
):
    """The loss with one thing changed."""
    z = torch.cat([a, b])
    z = F.normalize(z, dim=1, eps=0.0) if unit else z
    logits = z @ z.T / tau if divide else z @ z.T * tau
    logits = logits if own else logits.masked_fill(torch.eye(len(z)).to(z) > 0, -math.inf)
    partner = torch.arange(len(z)).roll(len(a) + shift).to(z.device)
    losses = F.cross_entropy(logits, partner, reduction="none")
    return mean(losses[: len(a)] if sides == 1 else losses)


contrastive_loss.variants(
    _nt_xent,
    {
        "The rows are not made one long: dot products in place of cosines.": {"unit": False},
        "Each view may find itself, with a cosine of 1."
        " Take the diagonal out of the sum below the line.": {"own": True},
        "You multiply by the temperature; the cosines are divided by it.": {"divide": False},
        "Only the first views look for their partners. All 2B views do.": {"sides": 1},
        "The losses of the views are added up: take their mean.": {"mean": torch.sum},
    },
)


@contrastive_loss.mistake(
    "Each first view is told only from the second views of other images: B - 1 wrong answers."
    " NT-Xent tells it from all other views of the batch, 2B - 2."
)
def _(a, b, tau):
    a, b = (F.normalize(v, dim=1, eps=0.0) for v in (a, b))
    return F.cross_entropy(a @ b.T / tau, torch.arange(len(a)).to(a.device))


@contrastive_loss.mistake(
    "The partner is missing from the sum below the line: that sum runs over all other views,"
    " the partner too."
)
def _(a, b, tau):
    z = F.normalize(torch.cat([a, b]), dim=1, eps=0.0)
    logits = z @ z.T / tau
    partner = torch.arange(len(z)).roll(len(a)).to(z.device)
    alone = logits.gather(1, partner[:, None])[:, 0]
    hidden = torch.eye(len(z)).to(z) + F.one_hot(partner, len(z)).to(z)
    return (logits.masked_fill(hidden > 0, -math.inf).logsumexp(1) - alone).mean()


@contrastive_loss.mistake(
    "The value is right, but no gradient reaches the second views: nothing there is detached in"
    " SimCLR."
)
def _(a, b, tau):
    return _nt_xent(a, b.detach(), tau)


@contrastive_loss.mistake(
    "At a low temperature your exponentials overflow: exp(1 / 0.01) is no float32."
    " Stay with logarithms, as logsumexp and cross_entropy do."
)
def _(a, b, tau):
    z = F.normalize(torch.cat([a, b]), dim=1, eps=0.0)
    e = (z @ z.T / tau).exp().masked_fill(torch.eye(len(z)).to(z) > 0, 0.0)
    partner = torch.arange(len(z)).roll(len(a)).to(z.device)
    return -(e.gather(1, partner[:, None])[:, 0] / e.sum(1)).log().mean()


@contrastive_loss.mistake("The temperature has no effect: the cosines are to be divided by it.")
def _(a, b, tau):
    return _nt_xent(a, b, 1.0)


@contrastive_loss.mistake(
    "Rows are made one long by their squared length. Divide by the length itself."
)
def _(a, b, tau):
    z = torch.cat([a, b])
    z = z / z.square().sum(1, keepdim=True)
    logits = (z @ z.T / tau).masked_fill(torch.eye(len(z)).to(z) > 0, -math.inf)
    return F.cross_entropy(logits, torch.arange(len(z)).roll(len(a)).to(z.device))


# ------------------------------------------------------------------------ 5. a shortlist, honestly
# inputs
def _shop(unscored=0, weak=False, short=False):
    """Scores of some sources, and what each start would reach if it were tried.

    The score is right about half of the time; as LEEP it is at most 0. unscored: how many sources
    have none: whoever leaves them out after the list was cut takes another start, unless k is more
    than there are scores (short). weak: whether scratch beats all sources on validation, of which
    one is tried. Else whoever tries all, or none of score 0, takes another start.
    """

    def draw(generator):
        while True:
            scores, tried, k = drawn(generator)
            best, others = _pick(scores, tried, k), []
            if unscored and not short:
                others = [_late(scores, tried, k)]
            elif not weak and not short:
                below = {name: score for name, score in scores.items() if score}
                others = [_pick(scores, tried, len(scores)), _pick(below, tried, k)]
            if best not in others:
                return scores, tried, k

    def drawn(generator):
        count = whole(generator, 5, 9)
        places = different(generator, count, 0, 12)
        names = [f"net {'qfzabkcumxel'[place]}" for place in places]
        reached = torch.rand(count + 1, 2, generator=generator, dtype=torch.float64)
        scores = (reached[:-1, 0] + 0.5 * torch.rand(count, generator=generator)).tolist()
        scores = [score - max(scores) for score in scores]
        for place in different(generator, unscored, 0, count):
            scores[place] = math.nan
            reached[place, 0] = 2.0  # they would win, if they were paid for
        reached[-1, 0] = 3.0 if weak else -1.0
        tried = {n: tuple(r) for n, r in zip([*names, "scratch"], reached.tolist(), strict=True)}
        k = count if short else 1 if weak else whole(generator, 1, count - unscored - 1)
        scores = shuffled(generator, dict(zip(names, scores, strict=True)))
        return scores, shuffled(generator, tried), k

    return draw


def _both(answer, *args):
    parts = named(answer(*args), "name", "accuracy")
    return {"name": str(parts["name"]), "accuracy": scalar(parts["accuracy"], "accuracy")}


# reference
def _greedy(scores, tried, k):
    """Which start to deploy, and the accuracy that you may report.

    scores: dict source -> score, higher is better; NaN where the
        score is not defined, as LEEP without a head. Such sources
        are not tried.
    tried: dict start -> (validation accuracy, test accuracy) for
        every source, and for "scratch". Reading an entry is
        paying for its training.
    k: how many sources you can pay for. The best by score are
        tried (all that have a score, if they are fewer), and
        scratch, which always is.
    Return (name, accuracy) of the start with the best validation
    accuracy; no two are equal. The accuracy is an estimate for
    images that played no part in any choice.
    """
    shortlist = sorted(scores, key=scores.get, reverse=True)[:k]
    best = max(shortlist, key=lambda name: tried[name][1])
    return best, tried[best][1]


@exercise(
    [_shop(), _shop(unscored=2), _shop(weak=True), _shop(unscored=2, short=True)],
    points=2,
    grad=False,
    device=False,
    starter=_greedy,
    call=_both,
    hints=(
        "Which images chose the start? Which accuracy of it is still an honest one?",
        (
            "Three things are wrong: what the choice looks at, what it is made from, and how NaN"
            " is sorted (`nan > x` and `nan < x` are both false)."
        ),
        (
            "Leave out sources whose score is NaN before sorting, add \"scratch\" to the shortlist,"
            " choose by `tried[name][0]` and report `tried[best][1]`."
        ),
    ),
)
def pick_source(scores, tried, k):
    scored = [name for name in scores if not math.isnan(scores[name])]
    shortlist = sorted(scored, key=scores.get, reverse=True)[:k]
    best = max(["scratch", *shortlist], key=lambda name: tried[name][0])
    return best, tried[best][1]


# laws
@pick_source.law("other test images change no choice")
def _(answer, scores, tried, k):
    turned = {name: (validation, 1 - test) for name, (validation, test) in tried.items()}
    one, other = (_both(answer, dict(scores), t, k) for t in (tried, turned))
    return one["name"] == other["name"] and abs(one["accuracy"] + other["accuracy"] - 1) < 1e-9


class _Purse(dict):
    """A dict that counts which sources were looked up."""

    def __init__(self, content):
        super().__init__(content)
        self.paid = set()

    def __getitem__(self, name):
        self.paid.add(name)
        return super().__getitem__(name)


@pick_source.law("no more than k sources are paid for")
def _(answer, scores, tried, k):
    purse = _Purse(tried)
    answer(dict(scores), purse, k)
    return len(purse.paid - {"scratch"}) <= k


# mistakes
def _pick(scores, tried, k, by=0, report=1, scratch=True, more=0, reverse=True, drop=True):
    """The choice with one thing changed."""
    names = [n for n in scores if not (drop and math.isnan(scores[n]))]
    order = sorted(
        names, key=lambda n: -math.inf if math.isnan(scores[n]) else scores[n], reverse=reverse
    )
    shortlist = order[: k + more] + (["scratch"] if scratch else [])
    best = max(shortlist, key=lambda n: tried[n][by])
    return best, tried[best][report]


pick_source.variants(
    _pick,
    {
        "The test images choose the start, and are then reported: they are used twice."
        " Choose by validation accuracy.": {"by": 1},
        "The validation accuracy is reported. It chose the start, so it is the luckiest of several:"
        " report the test accuracy.": {"report": 0},
        "Scratch is left out. Where every source on the list hurts, only scratch tells you:"
        " it is always tried.": {"scratch": False},
        "The lowest scores are tried. Higher is better.": {"reverse": False},
        "More sources are tried than you can pay for: every entry of `tried` that is read counts,"
        " and k is the limit.": {"more": 1},
    },
)


@pick_source.mistake(
    "All sources are tried, not those with the k best scores: that is what you cannot pay for."
)
def _(scores, tried, k):
    return _pick(scores, tried, len(scores))


def _late(scores, tried, k):
    """Sources without a score are left out of the list that was cut already."""
    shortlist = sorted(scores, key=scores.get, reverse=True)[:k]
    names = ["scratch", *(name for name in shortlist if not math.isnan(scores[name]))]
    best = max(names, key=lambda name: tried[name][0])
    return best, tried[best][1]


pick_source.mistake(
    "Sources without a score are left out after the list was cut. They have used up tries by then,"
    " and NaN has disturbed the order: leave them out first."
)(_late)


@pick_source.mistake(
    "The source with the best score is taken without a look at what it reached. The score makes"
    " the shortlist; validation accuracy chooses from it, scratch included."
)
def _(scores, tried, k):
    best = max((n for n in scores if not math.isnan(scores[n])), key=scores.get)
    return best, tried[best][1]


@pick_source.mistake(
    "Only the NaN is mended. The start is still chosen by its test accuracy, which is then"
    " reported, and scratch is still left out."
)
def _(scores, tried, k):
    return _pick(scores, tried, k, by=1, scratch=False)


@pick_source.mistake(
    "Nothing is mended yet. Ask three things of the code: which images choose? from which starts?"
    " and where does sorting put NaN?"
)
def _(scores, tried, k):
    return _greedy(scores, tried, k)


@pick_source.mistake(
    "A source without a score is on the list: `sorted` leaves NaN wherever it stands, and what"
    " stands around it, too. Leave such sources out first."
)
def _(scores, tried, k):
    shortlist = sorted(scores, key=scores.get, reverse=True)[:k]
    best = max(["scratch", *shortlist], key=lambda name: tried[name][0])
    return best, tried[best][1]
