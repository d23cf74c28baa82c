"""Exercises of chapter 9: partial labels, a product of chances, calibration, gates, and a leak."""

import torch
from torch.nn import functional as F

from ..checks.exercise import exercise
from .inputs import (
    LEAVES_NO_TRACE,
    different,
    leaves_no_trace,
    shuffled,
    task_names,
    uniform,
    whole,
)
from .outcomes import scalar


# -------------------------------------------------------------------------------- 1. partial labels
# inputs
def _partial(kind):
    """Logits and labels of two to four tasks; -1 is an unknown label, and weights are far apart.

    kind: "sure" has logits whose sigmoid rounds to 0 or 1, some of them on the wrong side.
    """

    def draw(g):
        n = 1 if kind == "one" else whole(g, 6, 12)
        names = task_names(g, whole(g, 2, 5))
        scale = 300 if kind == "sure" else 2
        logits = {t: scale * torch.randn(n, generator=g, dtype=torch.float64) for t in names}
        labels = {}
        for place, name in enumerate(names):
            y = (torch.rand(n, generator=g) < 0.5).long()
            unknown = torch.rand(n, generator=g) < 0.25 + 0.15 * place
            if n > 1:
                kept, lost = different(g, 2, 0, n)
                unknown[kept], unknown[lost] = False, True
                if kind == "sure":
                    logits[name][kept], y[kept] = uniform(g, 800, 2000), 0
            labels[name] = torch.where(unknown, -1, y)
        if kind == "none":
            name = names[whole(g, 0, len(names))]
            labels[name] = torch.full_like(labels[name], -1)
        if all(bool((y < 0).all()) for y in labels.values()):
            labels[names[0]][0] = 1  # without any label the loss is a constant, and has no gradient
        weights = {name: uniform(g, 0.2, 1.0) * 10.0 ** whole(g, -1, 2) for name in names}
        return logits, shuffled(g, labels), shuffled(g, weights)

    return draw


# reference
@exercise(
    [_partial("plain"), _partial("none"), _partial("one"), _partial("sure")],
    points=2,
    hints=(
        "By how many rows do you divide, for a task that has labels on few of them?",
        (
            "Per task: `known = labels[t] >= 0`, the cross-entropy of those rows alone, its mean"
            " over them (0 without any), times the task's weight."
        ),
    ),
)
def partial_cross_entropy(logits, labels, weights):
    """The loss of equation 1: a weighted sum over tasks of each
    one's mean cross-entropy.

    logits: dict task -> [N]. labels: dict task -> int64 [N], 0
        or 1, or -1 where the label is not known. weights: dict task
        -> float. The dicts have the same tasks, in any order.
    Return the scalar sum_t weights[t] * mean, where the mean is
    over the rows whose label for task t is known. A task without
    any adds 0, and gradients are finite.
    """
    ### BEGIN SOLUTION
    total = 0.0
    for name, z in logits.items():
        y = labels[name]
        known = y >= 0
        each = F.binary_cross_entropy_with_logits(
            z[known], y[known].to(z), reduction="sum")
        total = total + weights[name] * each / max(int(known.sum()), 1)
    return total
    ### END SOLUTION


# laws
@partial_cross_entropy.law("what is predicted where no label is known does not matter")
def _(answer, logits, labels, weights):
    other = {t: torch.where(labels[t] < 0, z + 3, z) for t, z in logits.items()}
    one, two = answer(logits, labels, weights), answer(other, labels, weights)
    return torch.allclose(torch.as_tensor(one), torch.as_tensor(two), rtol=1e-6)


@partial_cross_entropy.law("the same rows twice over change nothing")
def _(answer, logits, labels, weights):
    z, y = ({t: v.repeat(2) for t, v in d.items()} for d in (logits, labels))
    one, two = answer(logits, labels, weights), answer(z, y, weights)
    return torch.allclose(torch.as_tensor(one), torch.as_tensor(two), rtol=1e-6)


partial_cross_entropy.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _sum_of_means(logits, labels, weights, rows="known", weigh=True, one=False):
    """The answer with one thing changed."""
    total, count = 0.0, 0
    for name, z in logits.items():
        y = labels[name]
        known = y >= 0
        part = F.binary_cross_entropy_with_logits(z[known], y[known].to(z), reduction="sum")
        by = {"known": max(int(known.sum()), 1), "all": len(z), "none": 1}[rows]
        by, count = (1, count + int(known.sum())) if one else (by, count)
        total = total + (weights[name] if weigh else 1.0) * part / by
    return total / max(count, 1) if one else total


partial_cross_entropy.variants(
    _sum_of_means,
    {
        "You divide by all N rows. Then a task counts the less, the fewer labels it has: divide by"
        " the rows whose label is known.": {"rows": "all"},
        "You add up over the rows. Then a task counts the more, the more labels it has: take the"
        " mean over its known rows.": {"rows": "none"},
        "The weights are left out.": {"weigh": False},
        "One mean over the labels of all tasks together: the task with most labels decides. Take a"
        " mean per task, then add.": {"one": True},
    },
)


@partial_cross_entropy.mistake(
    "-1 is taken for a label, so unknown rows pull the logit down without end. Leave them out."
)
def _(logits, labels, weights):
    losses = F.binary_cross_entropy_with_logits
    return sum(weights[t] * losses(z, labels[t].to(z)) for t, z in logits.items())


@partial_cross_entropy.mistake(
    "Unknown labels are counted as 0. Nobody said that: leave these rows out of the mean."
)
def _(logits, labels, weights):
    return sum(
        weights[t] * F.binary_cross_entropy_with_logits(z, labels[t].clamp(min=0).to(z))
        for t, z in logits.items()
    )


@partial_cross_entropy.mistake(
    "The dicts are paired by position, and they come in different orders: take labels and weights"
    " by the task's name."
)
def _(logits, labels, weights):
    total = 0.0
    for z, y, w in zip(logits.values(), labels.values(), weights.values(), strict=True):
        known = y >= 0
        each = F.binary_cross_entropy_with_logits(z[known], y[known].to(z), reduction="sum")
        total = total + w * each / max(int(known.sum()), 1)
    return total


@partial_cross_entropy.mistake(
    "A task without any known label makes the whole loss NaN: the mean of nothing is 0 / 0. Such a"
    " task adds 0."
)
def _(logits, labels, weights):
    total = 0.0
    for t, z in logits.items():
        known = labels[t] >= 0
        y = labels[t][known].to(z)
        total = total + weights[t] * F.binary_cross_entropy_with_logits(z[known], y)
    return total


@partial_cross_entropy.mistake(
    "The sigmoid of a large logit rounds to 0 or 1, and the log of 0 is infinite: take the"
    " cross-entropy of the logits themselves, as `binary_cross_entropy_with_logits` does."
)
def _(logits, labels, weights):
    total = 0.0
    for t, z in logits.items():
        known = labels[t] >= 0
        if known.any():
            p, y = torch.sigmoid(z[known]), labels[t][known]
            total = total - weights[t] * (y * p.log() + (1 - y) * (1 - p).log()).mean()
    return total


# ------------------------------------------------------------------------ 2. the product of chances
# inputs
def _offers(kind):
    """Pairs that were offered; liked is -1 where a pair was not seen."""

    def draw(g):
        n = 1 if kind == "one" else whole(g, 5, 12)
        scale = 60.0 if kind == "sure" else 1.5
        a, b = scale * torch.randn(2, n, generator=g, dtype=torch.float64)
        seen = (torch.rand(n, generator=g) < 0.6).long()
        liked = (torch.rand(n, generator=g) < 0.5).long()
        if n > 1:  # every kind of row, in places that are drawn
            places = torch.randperm(n, generator=g)
            seen[places[:3]] = torch.tensor([1, 1, 0])
            liked[places[:3]] = torch.tensor([1, 0, 0])
            if kind == "sure":  # both chances round to 1, and exp(-logit) to 0; the label is 0
                a[places[1]], b[places[1]] = (uniform(g, 800, 2000) for _ in range(2))
        return a, b, seen, torch.where(seen == 1, liked, -1)

    return draw


# reference
@exercise(
    [_offers("plain"), _offers("sure"), _offers("one")],
    points=2,
    hints=(
        "Which rows does the second loss run over, and what is its label for a pair that nobody"
        " has seen?",
        (
            "With p = sigmoid(a) sigmoid(b): log p is a sum of two `logsigmoid`. For log(1 - p)"
            " use 1 - p = (1 - sigmoid(a)) + sigmoid(a) (1 - sigmoid(b))."
        ),
        (
            "Both terms of that sum have logs made of `logsigmoid(-a)`, `logsigmoid(a)` and"
            " `logsigmoid(-b)`; `torch.logaddexp` adds them without leaving the logs."
        ),
    ),
)
def product_loss(a, b, seen, liked):
    """The loss of equation 4: cross-entropy of "seen" plus that of
    "seen and liked", each a mean over all N rows.

    a, b: logits [N] of P(seen) and of P(liked | seen).
    seen: int64 [N], 0 or 1. liked: int64 [N], 0 or 1, and -1 where
        it is not known, because the row was not seen.
    Return a scalar. It is exact for logits of any size: a chance
    may round to 0 or 1, its log must not.
    """
    ### BEGIN SOLUTION
    both = seen * liked
    log_p = F.logsigmoid(a) + F.logsigmoid(b)
    rest = F.logsigmoid(a) + F.logsigmoid(-b)
    log_not = torch.logaddexp(F.logsigmoid(-a), rest)
    first = F.binary_cross_entropy_with_logits(a, seen.to(a))
    return first - (both * log_p + (1 - both) * log_not).mean()
    ### END SOLUTION


# laws
@product_loss.law("what stands for `liked` in rows that were not seen does not matter")
def _(answer, a, b, seen, liked):
    other = torch.where(seen == 1, liked, 1)
    return torch.allclose(answer(a, b, seen, other), answer(a, b, seen, liked), rtol=1e-6)


@product_loss.law("P(liked | seen) learns from rows that were not seen, too")
def _(answer, a, b, seen, liked):
    b = b.detach().clamp(-5, 5).requires_grad_()
    (gradient,) = torch.autograd.grad(answer(a.detach().clamp(-5, 5), b, seen, liked), b)
    return bool((gradient[seen == 0] > 0).all())


product_loss.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _terms(a, b):
    log_p = F.logsigmoid(a) + F.logsigmoid(b)
    return log_p, torch.logaddexp(F.logsigmoid(-a), F.logsigmoid(a) + F.logsigmoid(-b))


def _two(a, b, seen, liked, both=lambda s, y: s * y, first=1.0, combine=torch.mean, rows=None):
    """The answer with one thing changed."""
    log_p, log_not = _terms(a, b)
    target = both(seen, liked)
    each = -(target * log_p + (1 - target) * log_not)
    if rows is not None:
        each = each[rows(seen)]
    seeing = F.binary_cross_entropy_with_logits(a, seen.to(a), reduction="none")
    return first * combine(seeing) + combine(each)


product_loss.variants(
    _two,
    {
        "Rows that were not seen have -1 in `liked`, and you take it for a label. A pair that was"
        " not seen is not seen and liked: its label is 0.": {"both": lambda s, y: y},
        "The cross-entropy of \"seen\" is missing. The product alone cannot tell which of its two"
        " factors is small.": {"first": 0.0},
        "The losses are added up over the rows: take the mean over all of them.": {
            "combine": torch.sum
        },
    },
)


@product_loss.mistake(
    "The second loss runs over the seen rows only. Then it learns nothing from what nobody saw,"
    " and that is what the product is for: take all rows."
)
def _(a, b, seen, liked):
    log_p, log_not = _terms(a, b)
    both = seen * liked
    each = -(both * log_p + (1 - both) * log_not) * seen
    return F.binary_cross_entropy_with_logits(a, seen.to(a)) + each.sum() / seen.sum().clamp(min=1)


@product_loss.mistake(
    "The second loss is that of P(liked | seen) alone. Multiply it by P(seen) first: the label"
    " says whether a pair was seen *and* liked."
)
def _(a, b, seen, liked):
    first = F.binary_cross_entropy_with_logits(a, seen.to(a))
    return first + F.binary_cross_entropy_with_logits(b, (seen * liked).to(b))


@product_loss.mistake(
    "You add the logits and take the sigmoid once. The chances are multiplied, not the odds:"
    " sigmoid(a) sigmoid(b) is not sigmoid(a + b)."
)
def _(a, b, seen, liked):
    first = F.binary_cross_entropy_with_logits(a, seen.to(a))
    return first + F.binary_cross_entropy_with_logits(a + b, (seen * liked).to(b))


@product_loss.mistake(
    "Two losses on two heads, the second on the seen rows: a sensible network, and not this one."
    " Here the second loss is that of the product, over all rows."
)
def _(a, b, seen, liked):
    first = F.binary_cross_entropy_with_logits(a, seen.to(a))
    each = F.binary_cross_entropy_with_logits(b, liked.clamp(min=0).to(b), reduction="none") * seen
    return first + each.sum() / seen.sum().clamp(min=1)


@product_loss.mistake(
    "Where logits are large the product rounds to 0 or 1 and its log is lost (or cut off). Stay"
    " with logs: `logsigmoid`, and `logaddexp` for the log of 1 - p."
)
def _(a, b, seen, liked):
    p = torch.sigmoid(a) * torch.sigmoid(b)
    first = F.binary_cross_entropy_with_logits(a, seen.to(a))
    return first + F.binary_cross_entropy(p, (seen * liked).to(p))


# ----------------------------------------------------------------------------------- 3. calibration
# inputs
def _said(kind):
    """Chances, labels and a number of bins; some bins are empty, and some chances are 0 or 1."""

    def draw(g):
        n = 1 if kind == "one" else whole(g, 12, 40)
        bins = whole(g, 4 if kind == "uneven" else 2, 12)
        chances = torch.rand(n, generator=g, dtype=torch.float64)
        chances = (0.25 + 0.5 * chances**3) if kind == "uneven" else chances
        place = chances * bins  # none on a border between two bins
        chances = (place.floor() + 0.1 + 0.8 * (place - place.floor())) / bins
        labels = (torch.rand(n, generator=g, dtype=torch.float64) < 0.2 + 0.5 * chances).long()
        if kind == "edges":
            first, last = different(g, 2, 0, n)
            chances[first], chances[last] = 0.0, 1.0
            labels[last] = 0
            low, high = [row for row in range(n) if row not in (first, last)][:2]
            # gaps of the other sign: all others in the last bin, and all in the bin before it
            chances[high], labels[high] = 1 - 0.2 / bins, 1
            chances[low] = (bins - 1.5) / bins
            labels[((chances * bins).long() - bins + 1.5).abs() < 1] = 1
        return chances, labels, bins

    return draw


def _number(answer, *args):
    return {"gap": scalar(answer(*args), "the gap")}


# reference
@exercise(
    [_said("plain"), _said("edges"), _said("uneven"), _said("one")],
    points=2,
    grad=False,
    device=False,
    call=_number,
    hints=(
        "Which rows share a bin? And what do you compare within one?",
        (
            "Bin of a row: `(chances * bins).long()`, at most `bins - 1`. In each bin that has"
            " rows: its share of all rows, times |mean chance - mean label|."
        ),
    ),
)
def calibration_gap(chances, labels, bins):
    """The calibration error of equation 6, in equal-width bins.

    chances: [N] in [0, 1]. labels: int64 [N], 0 or 1.
    bins: how many; bin k has the chances from k / bins up to
        (k + 1) / bins, and the last one has 1, too. No other
        chance lies on a border. A bin may be empty.
    Return a number: the mean over the N rows of |mean chance -
    share of ones| in the row's bin.
    """
    ### BEGIN SOLUTION
    place = (chances * bins).long().clamp(max=bins - 1)
    total = 0.0
    for k in place.unique():
        here = place == k
        gap = (chances[here] - labels[here]).mean()
        total = total + here.sum() / len(chances) * gap.abs()
    return total
    ### END SOLUTION


# laws
@calibration_gap.law("is 0 for the share of ones as everybody's chance")
def _(answer, chances, labels, bins):
    same = torch.full_like(chances, float(labels.double().mean()))
    return abs(float(answer(same, labels, bins))) < 1e-6


@calibration_gap.law("does not depend on the order of the rows")
def _(answer, chances, labels, bins):
    turned = answer(chances.flip(0), labels.flip(0), bins)
    return abs(float(turned) - float(answer(chances, labels, bins))) < 1e-6


calibration_gap.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _gap(chances, labels, bins, size=torch.abs, weigh=True, middle=False, last=True, over=1.0):
    """The answer with one thing changed."""
    place = (chances * bins).long()
    place = place.clamp(max=bins - 1) if last else place
    gaps, counts = [], []
    for k in range(bins):
        here = place == k
        if here.any():
            said = (k + 0.5) / bins if middle else chances[here].mean()
            gaps.append(size(said - labels[here].double().mean()))
            counts.append(here.sum() / len(chances) if weigh else torch.tensor(1.0))
    if not gaps:
        return torch.zeros(())
    gaps, counts = torch.stack(gaps), torch.stack(counts)
    return (gaps * counts).sum() / (1.0 if weigh else counts.sum())


calibration_gap.variants(
    _gap,
    {
        "All bins count alike, however many rows they have. It is a mean over rows: weigh each bin"
        " by its share of them.": {"weigh": False},
        "Gaps of opposite sign cancel: take the absolute value in each bin.": {
            "size": lambda gap: gap
        },
        "The gaps are squared: the mean of their absolute values is asked for.": {
            "size": torch.square
        },
        "You compare with the middle of the bin. Take the mean of the chances that are in it.": {
            "middle": True
        },
        "A chance of exactly 1 falls out of the bins: it belongs to the last one.": {"last": False},
    },
)


@calibration_gap.mistake(
    "You compare one mean with one mean, over all rows. Too high here and too low there would"
    " cancel: compare bin by bin."
)
def _(chances, labels, bins):
    return (chances - labels).mean().abs()


@calibration_gap.mistake(
    "An empty bin has no mean: 0 / 0 is NaN, and it spoils the sum. Leave out bins without rows."
)
def _(chances, labels, bins):
    place = (chances * bins).long().clamp(max=bins - 1)
    total = chances.new_zeros(())
    for k in range(bins):
        here = place == k
        gap = (chances[here] - labels[here]).mean()
        total = total + here.sum() / len(chances) * gap.abs()
    return total


# ------------------------------------------------------------------------- 4. a gate that collapses
# inputs
def _gates(kind):
    """Logits of a gate over at least two experts; "collapsed" sends every row to one of them."""

    def draw(g):
        rows, experts = different(g, 2, 2, 9)
        rows = 1 if kind == "one" else rows
        logits = torch.randn(rows, experts, generator=g, dtype=torch.float64)
        if kind == "collapsed":
            logits[:, whole(g, 0, experts)] += 6.0
        return (logits,)

    return draw


# reference
@exercise(
    [_gates("plain"), _gates("collapsed"), _gates("one")],
    points=2,
    hints=(
        "Two numbers per expert: for how many rows is it the best, and how much does the gate give"
        " it on average?",
        (
            "Shares: count `chances.argmax(1)` with `torch.bincount(..., minlength=E)` and divide"
            " by the rows. Means: `chances.mean(0)`. Then E times the sum of their products."
        ),
    ),
)
def balance_penalty(logits):
    """The balance loss of equation 9 for one gate.

    logits: [B, E], of B rows and E experts; no row has a tie.
    Return the scalar E sum_e share_e mean_e, where share_e is the
    share of the rows whose best expert is e, and mean_e the mean
    over the rows of the softmax. Gradients reach the logits
    through mean_e.
    """
    ### BEGIN SOLUTION
    B, E = logits.shape
    chances = logits.softmax(1)
    shares = torch.bincount(logits.argmax(1), minlength=E) / B
    return E * (shares * chances.mean(0)).sum()
    ### END SOLUTION


# laws
@balance_penalty.law("is 1 where each expert is the best for as many rows as any other")
def _(answer, logits):
    E = logits.shape[1]
    even = 2 * torch.eye(E, dtype=logits.dtype, device=logits.device)
    return torch.allclose(answer(even), even.new_ones(()))


@balance_penalty.law("is E where one expert takes all rows for sure, and less if it is unsure")
def _(answer, logits):
    E = logits.shape[1]
    one = torch.zeros_like(logits)
    one[:, -1] = 1.0
    sure, unsure = answer(1000 * one), answer(one)
    return abs(float(sure) - E) < 1e-6 and float(unsure) < E - 1e-3


balance_penalty.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _balance(logits, axis=1, factor=None, shares=None, means=lambda p: p.mean(0)):
    """The answer with one thing changed."""
    B, E = logits.shape
    p = logits.softmax(axis)
    hard = torch.bincount(logits.argmax(1), minlength=E) / B
    first = hard if shares is None else shares(p)
    return (E if factor is None else factor) * (first * means(p)).sum()


balance_penalty.variants(
    _balance,
    {
        "The softmax runs over the rows: each row's chances must sum to one over the experts.": {
            "axis": 0
        },
        "The factor E is missing: with it, 1 means balanced for any number of experts.": {
            "factor": 1.0
        },
        "You use the mean chances twice. Top-1 routing sends a row to its best expert, however"
        " narrowly it wins: count the rows.": {"shares": lambda p: p.mean(0)},
        "You use the shares of the rows twice. A count has no gradient, so the gate would learn"
        " nothing: one of the factors is the mean chance.": {
            "means": lambda p: torch.bincount(p.argmax(1), minlength=p.shape[1]) / len(p)
        },
    },
)


@balance_penalty.mistake("You count rows where shares are asked for: divide by their number B.")
def _(logits):
    E = logits.shape[1]
    counts = torch.bincount(logits.argmax(1), minlength=E)
    return E * (counts * logits.softmax(1).mean(0)).sum()


# ------------------------------------------------------------------------- 5. the leaked popularity
# inputs
def _log(g):
    """Ratings in no order of time; some films have one rating, some rows are for a test."""
    film, liked, time, train = _stamped(g)
    return film, liked, (time - time.min()).double(), train


def _stamped(g):
    """The time in seconds since 1970: whole numbers that float32 cannot tell apart."""
    n = whole(g, 14, 26)
    film = torch.randint(0, whole(g, 3, 6), (n,), generator=g)
    film[0] = int(film.max()) + 1
    liked = (torch.rand(n, generator=g) < 0.55).double()
    time = torch.randperm(n, generator=g) * 3 + 880_000_000
    train = torch.rand(n, generator=g) < 0.7
    train[different(g, 1, 1, n)[0]] = True
    return film, liked, time, train


def _any_float(answer, *args):
    """The features, those in other floats than the labels' as float64."""
    features = answer(*args)
    whether = isinstance(features, torch.Tensor) and features.is_floating_point()
    return features.double() if whether else features


# reference
def _leaky(film, liked, time, train):
    """What was known of each row's film before the row: [N, 2].

    film: int64 [N]. liked: float [N], 0 or 1. time: [N], when the
        rating was given; no two are equal, rows are in no order.
    train: bool [N]; False for rows that a model is judged on.
        What they say must not get into any feature, not even
        that they exist.
    Return float [N, 2], for training and test rows alike: how
    many ratings of this film could be known at that time, and the
    mean of their `liked`, 0.5 if there are none.
    """
    features = liked.new_full((len(film), 2), 0.5)
    for row in range(len(film)):
        known = film == film[row]
        features[row, 0] = known.sum()
        if known.any():
            features[row, 1] = liked[known].mean()
    return features


@exercise(
    [_log, _stamped],
    points=2,
    grad=False,
    device=False,
    call=_any_float,
    starter=_leaky,
    hints=(
        "Take one row and ask of each rating in `known`: could you have had it at that time? Is it"
        " the very answer?",
        "Three leaks: the row itself, later rows, and test rows. Two conditions close all three.",
        "`known = (film == film[row]) & train & (time < time[row])`.",
    ),
)
def film_features(film, liked, time, train):
    features = liked.new_full((len(film), 2), 0.5)
    for row in range(len(film)):
        known = (film == film[row]) & train & (time < time[row])
        features[row, 0] = known.sum()
        if known.any():
            features[row, 1] = liked[known].mean()
    return features


# laws
@film_features.law("a rating's own answer is in none of its features")
def _(answer, film, liked, time, train):
    features = answer(film, liked, time, train)
    for row in range(0, len(film), 5):
        other = liked.clone()
        other[row] = 1 - other[row]
        if not torch.equal(answer(film, other, time, train)[row], features[row]):
            return False
    return True


@film_features.law("other answers in the test change no feature")
def _(answer, film, liked, time, train):
    other = torch.where(train, liked, 1 - liked)
    return torch.equal(answer(film, other, time, train), answer(film, liked, time, train))


@film_features.law("what comes last in time changes no feature of what came before")
def _(answer, film, liked, time, train):
    last = int(time.argmax())
    rest = torch.arange(len(film)) != last
    fewer = answer(film[rest], liked[rest], time[rest], train[rest])
    return torch.equal(fewer, answer(film, liked, time, train)[rest])


film_features.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _features(film, liked, time, train, past=True, allowed=True, equal=False, none=0.5, rows=False):
    """The features with one thing changed."""
    features = liked.new_full((len(film), 2), none)
    for row in range(len(film)):
        known = film == film[row]
        if rows:
            known &= torch.arange(len(film)) < row
        if past:
            known &= (time <= time[row]) if equal else (time < time[row])
        if allowed:
            known &= train
        features[row, 0] = known.sum()
        if known.any():
            features[row, 1] = liked[known].mean()
    return features


film_features.variants(
    _features,
    {
        "The row itself is among what is known of it: an earlier time is earlier, not equal.": {
            "equal": True
        },
        "Test rows are among what is known: their answers get into the features of others. Only"
        " training rows count.": {"allowed": False},
        "Later ratings count, and the row itself: at that time nobody could know them. Look at"
        " `time`.": {"past": False},
        "A film without ratings has a mean of 0.5, as the docstring says.": {"none": 0.0},
        "Earlier *rows* are not earlier in time: they stand in no order. Compare `time`.": {
            "past": False,
            "rows": True,
        },
    },
)


@film_features.mistake(
    "Nothing is mended yet. Take one row and ask of each rating in `known`: could you have had it"
    " then, and may you use it?"
)
def _(film, liked, time, train):
    return _leaky(film, liked, time, train)


@film_features.mistake(
    "The row itself is left out, but later and test rows still count. Could you have known them?"
)
def _(film, liked, time, train):
    features = liked.new_full((len(film), 2), 0.5)
    for row in range(len(film)):
        known = film == film[row]
        known[row] = False
        features[row, 0] = known.sum()
        if known.any():
            features[row, 1] = liked[known].mean()
    return features


@film_features.mistake(
    "The mean is clean, but the count still runs over all ratings of the film. How popular it will"
    " be is something that nobody knew then."
)
def _(film, liked, time, train):
    features = _features(film, liked, time, train)
    features[:, 0] = torch.bincount(film)[film].to(features.dtype)
    return features
