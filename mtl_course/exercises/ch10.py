"""Exercises of chapter 10: recurrent networks that share series and horizons."""

import math

import numpy
import torch
from scipy import stats

from ..checks.exercise import exercise
from .inputs import LEAVES_NO_TRACE, different, leaves_no_trace, power, whole
from .outcomes import named, scalar


# ------------------------------------------------------------------------------- 1. a step of a GRU
# inputs
def _cell(generator):
    """A batch, a state and the weights of one cell; all sizes differ."""
    B, D, H = different(generator, 3, 2, 8)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return draw(B, D), draw(B, H), draw(3 * H, D), draw(3 * H, H), draw(3 * H), draw(3 * H)


def _one_row(generator):
    """A batch of a single row."""
    x, h, *weights = _cell(generator)
    return x[:1], h[:1], *weights


# reference
@exercise(
    [_cell, _one_row],
    points=2,
    hints=(
        "Which of the two gates acts inside the candidate, and which one mixes old and new?",
        (
            "Compute a = x W' + b and c = h U' + d, both [B, 3 H], and cut each into three parts:"
            " r, z and n. r and z are sigmoids of sums."
        ),
        (
            "The candidate is tanh(a_n + r * c_n): the reset gate multiplies the state's part,"
            " with its bias. The next state is (1 - z) n + z h."
        ),
    ),
)
def gru_step(x, h, W, U, b, d):
    """One step of a GRU, equation 1.

    x: [B, D], inputs. h: [B, H], states.
    W: [3 H, D] and b: [3 H] act on x, U: [3 H, H] and d: [3 H]
        on h. Each holds the parts of r, z and n, in this order.
    Return the next states [B, H].
    """
    ### BEGIN SOLUTION
    r_x, z_x, n_x = (x @ W.T + b).chunk(3, dim=1)
    r_h, z_h, n_h = (h @ U.T + d).chunk(3, dim=1)
    r = torch.sigmoid(r_x + r_h)
    z = torch.sigmoid(z_x + z_h)
    n = torch.tanh(n_x + r * n_h)
    return (1 - z) * n + z * h
    ### END SOLUTION


# laws
@gru_step.law("with the keep gate wide open, the state stays as it is")
def _(answer, x, h, W, U, b, d):
    H = h.shape[1]
    b = torch.cat([b[:H], torch.full_like(b[:H], 1e4), b[2 * H :]])
    return torch.allclose(answer(x, h, W, U, b, d), h, atol=1e-6)


@gru_step.law("with the reset gate shut, what is new does not depend on the old state")
def _(answer, x, h, W, U, b, d):
    H = h.shape[1]
    shut = torch.full_like(b[:H], -1e4)
    b = torch.cat([shut, shut, b[2 * H :]])
    return torch.allclose(answer(x, h, W, U, b, d), answer(x, 0 * h, W, U, b, d), atol=1e-6)


gru_step.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _step(x, h, W, U, b, d, order="rzn", mix=False, early=False, squash=torch.tanh, reset=True):
    """A step with one thing changed."""
    a, c = (x @ W.T + b).chunk(3, dim=1), (h @ U.T + d).chunk(3, dim=1)
    place = {name: order.index(name) for name in "rzn"}
    r, z = (torch.sigmoid(a[place[k]] + c[place[k]]) for k in "rz")
    H, k = h.shape[1], place["n"]
    inside = c[k]
    if early:
        inside = (r * h) @ U[k * H : (k + 1) * H].T + d[k * H : (k + 1) * H]
    n = squash(a[k] + (r * inside if reset and not early else inside))
    return z * n + (1 - z) * h if mix else (1 - z) * n + z * h


gru_step.variants(
    _step,
    {
        "The parts are taken as z, r, n. Their order is r, z, n.": {"order": "zrn"},
        "Old and new are exchanged in the mixture: where z is 1, the old state is kept.": {
            "mix": True
        },
        "The reset gate multiplies the state before the product with U. Here it multiplies the"
        " product, bias and all: that is why both biases are needed.": {"early": True},
        "The candidate is squashed by a sigmoid: it could never be negative.": {
            "squash": torch.sigmoid
        },
        "The reset gate is missing from the candidate.": {"reset": False},
    },
)


@gru_step.mistake("The bias of the state's products is left out: `d` belongs to them.")
def _(x, h, W, U, b, d):
    return _step(x, h, W, U, b, 0 * d)


@gru_step.mistake(
    "The reset gate does not reach the bias of the state's product: it multiplies the whole"
    " product, with its part of `d`."
)
def _(x, h, W, U, b, d):
    H = h.shape[1]
    r_x, z_x, n_x = (x @ W.T + b + d).chunk(3, dim=1)
    r_h, z_h, n_h = (h @ U.T).chunk(3, dim=1)
    n = torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h)
    z = torch.sigmoid(z_x + z_h)
    assert n.shape[1] == H
    return (1 - z) * n + z * h


# ------------------------------------------------------------------------------ 2. labels to come
# inputs
def _forecasts(unknown=False):
    """Guesses and labels, the later ones not known yet; in units far apart."""

    def draw(generator):
        B, H = different(generator, 2, 2, 7)
        B = B + 4
        guess = torch.randn(B, H, generator=generator, dtype=torch.float64)
        y = torch.randn(B, H, generator=generator, dtype=torch.float64)
        unit = power(generator, -3, 3)
        missing = torch.rand(B, H, generator=generator) < 0.4
        missing[0], missing[1, 0] = False, True
        y[0, whole(generator, 0, H)] = 0.0  # a label of 0 is known
        if unknown:
            missing[:, whole(generator, 0, H)] = True
        return unit * guess, (unit * y).masked_fill(missing, math.nan)

    return draw


def _single(generator):
    """One row, one horizon, known."""
    guess, y = _forecasts()(generator)
    return guess[:1, :1], y[:1, :1]


# reference
@exercise(
    [_forecasts(), _forecasts(unknown=True), _single],
    points=2,
    # whether a gradient reaches the labels is left open
    call=lambda answer, guess, y: answer(guess, y.detach()),
    hints=(
        "What is NaN times zero? And what is the gradient of an error that was NaN and then"
        " thrown away?",
        (
            "First put something harmless in the place of what is not known, then take the error,"
            " then count only what is known."
        ),
        (
            "known = ~y.isnan(). Replace NaN in y by 0, square the difference, multiply by known,"
            " add up over rows, and divide by the count of each column, at least 1."
        ),
    ),
)
def known_losses(guess, y):
    """The mean squared error of each horizon, over known labels.

    guess: [B, H], one column per horizon; finite.
    y: [B, H], labels; NaN where one is not known yet.
    Return [H]. A horizon of which no label is known has loss 0.
    The gradient with respect to guess is finite: 0 where no
    label is known. None is needed with respect to y.
    """
    ### BEGIN SOLUTION
    known = ~y.isnan()
    truth = y.nan_to_num(0.0)
    error = (guess - truth).square() * known
    return error.sum(0) / known.sum(0).clamp_min(1)
    ### END SOLUTION


# laws
@known_losses.law("a guess whose label is not known changes nothing, and gets the gradient 0")
def _(answer, guess, y):
    other = (guess + y.isnan() * 3.7 * guess.abs().max()).requires_grad_()
    losses = answer(other, y)
    (gradient,) = torch.autograd.grad(losses.sum(), other)
    same = torch.allclose(losses, answer(guess, y))
    return same and bool(gradient.isfinite().all()) and not gradient[y.isnan()].any()


@known_losses.law("horizons do not mix: one more column leaves the others as they are")
def _(answer, guess, y):
    more = torch.cat([guess, 2 * guess[:, :1]], 1), torch.cat([y, -y[:, :1]], 1)
    return torch.allclose(answer(*more)[:-1], answer(guess, y))


known_losses.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _losses(guess, y, count=None, dim=0, power=2):
    """The losses with one thing changed."""
    known = ~y.isnan()
    truth = torch.where(known, y, 0.0)
    error = ((guess - truth) * known).abs() ** power
    number = known.sum(dim) if count is None else count(known)
    return error.sum(dim) / torch.as_tensor(number).clamp_min(1)


known_losses.variants(
    _losses,
    {
        "You divide by the number of rows, known or not: a horizon with few known labels then"
        " looks easy. Divide each column by its own count.": {"count": len},
        "Every column is divided by the same number, the count of all known labels.": {
            "count": torch.sum
        },
        "The means are taken along the rows: the result should have an entry per horizon.": {
            "dim": 1
        },
        "This is the mean absolute error. The squared one is asked.": {"power": 1},
    },
)


@known_losses.mistake(
    "NaN times 0 is NaN: masking after the error keeps it. Replace the labels that are not known"
    " first."
)
def _(guess, y):
    known = ~y.isnan()
    return ((guess - y).square() * known).sum(0) / known.sum(0).clamp_min(1)


@known_losses.mistake(
    "A label that is not known counts as 0: guesses are pulled there. Leave it out of the sum."
)
def _(guess, y):
    known = ~y.isnan()
    return (guess - y.nan_to_num(0.0)).square().sum(0) / known.sum(0).clamp_min(1)


@known_losses.mistake(
    "A label that is 0 is taken for one that is not known. Ask `isnan` of the labels themselves."
)
def _(guess, y):
    truth = y.nan_to_num(0.0)
    known = truth != 0
    return ((guess - truth).square() * known).sum(0) / known.sum(0).clamp_min(1)


@known_losses.mistake(
    "A horizon without any known label gets 0 / 0 = NaN. Its loss is 0."
)
def _(guess, y):
    known = ~y.isnan()
    error = (guess - y.nan_to_num(0.0)).square() * known
    return error.sum(0) / known.sum(0)


# ------------------------------------------------------------------------------ 3. horizon weights
# inputs
def _naive(rows, units, of_all=1.0):
    """Past labels and naive guesses of them, errors in units far apart, some labels missing.

    of_all: the unit of the labels.
    """

    def draw(generator):
        N, H = whole(generator, *rows), whole(generator, 2, 6)
        y = torch.randn(N, H, generator=generator, dtype=torch.float64)
        sizes = torch.tensor(
            [power(generator, -units, units) for _ in range(H)], dtype=torch.float64
        )
        error = sizes * (0.5 + torch.rand(N, H, generator=generator, dtype=torch.float64))
        missing = torch.rand(N, H, generator=generator) < 0.3
        missing[0] = False
        missing[1] = torch.arange(H) > 0
        return of_all * (y + error).masked_fill(missing, math.nan), of_all * y

    return draw


# reference
@exercise(
    [_naive((4, 9), 1), _naive((5, 12), 2, 1e-6), _naive((30, 40), 0)],
    points=1,
    grad=False,
    device=False,
    hints=(
        "A horizon whose error is large by nature would rule the sum. By what would you divide?",
        (
            "For each horizon take the mean squared error of the naive guess over known labels;"
            " the weight is proportional to 1 over it."
        ),
        "Divide the weights by their sum. `torch.nanmean(..., dim=0)` leaves NaN out.",
    ),
)
def horizon_weights(y, naive):
    """Weights with which every horizon counts alike, equation 4.

    y: [N, H], past labels; NaN where one is not known. Each
        horizon has a known one, and none has a naive error of 0.
    naive: [N, H], what the naive forecast said of them.
    Return [H], positive, of sum 1: a naive forecast would have
    the same weighted loss at each horizon.
    """
    ### BEGIN SOLUTION
    error = (y - naive).square().nanmean(dim=0)
    weights = 1 / error
    return weights / weights.sum()
    ### END SOLUTION


# laws
@horizon_weights.law("the unit does not matter: volatility in percent gets the same weights")
def _(answer, y, naive):
    return torch.allclose(answer(100 * y, 100 * naive), answer(y, naive))


@horizon_weights.law("the naive forecast's weighted loss is the same at each horizon")
def _(answer, y, naive):
    loss = answer(y, naive) * (y - naive).square().nanmean(dim=0)
    return torch.allclose(loss, loss.mean().expand_as(loss))


horizon_weights.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _weights(y, naive, error=lambda e: e.square().nanmean(0), invert=True, share=torch.sum):
    """The weights with one thing changed."""
    size = error(y - naive)
    weights = 1 / size if invert else size
    return weights / share(weights)


horizon_weights.variants(
    _weights,
    {
        "The weights are upside down: the horizon with the largest error gets the largest one.": {
            "invert": False
        },
        "You divide by the root of the error. A loss is a square: divide by the square.": {
            "error": lambda e: e.square().nanmean(0).sqrt()
        },
        "The mean absolute error is not what the loss is made of: take the squared one.": {
            "error": lambda e: e.abs().nanmean(0)
        },
        "Labels that are not known count as errors of 0. Take the mean over the known ones.": {
            "error": lambda e: e.nan_to_num(0.0).square().mean(0)
        },
        "The weights have the mean 1. They should have the sum 1.": {"share": torch.mean},
        "This is the variance of the errors. A naive forecast that is always too low by the same"
        " amount would seem perfect: take the mean square.": {
            "error": lambda e: (e - e.nanmean(0)).square().nanmean(0)
        },
    },
)


@horizon_weights.mistake(
    "NaN in one label makes the weights NaN. Take means over known labels only."
)
def _(y, naive):
    weights = 1 / (y - naive).square().mean(0)
    return weights / weights.sum()


# --------------------------------------------------------------------------- 4. Diebold and Mariano
# inputs
def _pair(low, high, most):
    """Losses of two forecasts that share their hard weeks, and a horizon."""

    def draw(generator):
        N = whole(generator, low, high)
        shared, a, b = torch.rand(3, N, generator=generator, dtype=torch.float64).numpy()
        trend = numpy.convolve(a - b, numpy.ones(3) / 3, "same")
        unit = power(generator, -3, 3)
        first, second = unit * (shared + a + trend), unit * (shared + b + 0.2)
        return first, second, whole(generator, 1, most + 1)

    return draw


def _both(answer, first, second, horizon):
    parts = named(answer(first, second, horizon), "statistic", "p")
    return {name: scalar(value, name) for name, value in parts.items()}


# reference
@exercise(
    [_pair(8, 20, 1), _pair(20, 60, 6), _pair(20, 60, 12)],
    points=3,
    grad=False,
    device=False,
    call=_both,
    hints=(
        "Which series do you test: the losses, or their differences? And which neighbours share a"
        " part of the future?",
        (
            "gamma_k is the mean of (d_t - mean)(d_{t-k} - mean) with 1 / N in front. The variance"
            " of the mean is (gamma_0 + 2 sum_k (1 - k / h) gamma_k) / N, k from 1 to h - 1."
        ),
        (
            "Multiply mean / sqrt(variance) by sqrt((N + 1 - 2 h + h (h - 1) / N) / N). The p-value"
            " is 2 * stats.t.sf(abs(statistic), N - 1)."
        ),
    ),
)
def dm_test(first, second, horizon):
    """The test of Diebold and Mariano, equation 5.

    first, second: arrays [N], losses of two forecasts in the
        order of time; their differences are not all the same.
    horizon: h, steps from forecast to label, below N.
    Return (statistic, p): negative where the first loses less;
    two-sided, by Student's t with N - 1 degrees of freedom.
    """
    ### BEGIN SOLUTION
    d, N, h = first - second, len(first), horizon
    apart = d - d.mean()
    total = apart @ apart / N
    for k in range(1, h):
        total += 2 * (1 - k / h) * (apart[k:] @ apart[:-k]) / N
    correction = (N + 1 - 2 * h + h * (h - 1) / N) / N
    statistic = d.mean() / (total / N) ** 0.5 * correction**0.5
    return statistic, 2 * stats.t.sf(abs(statistic), N - 1)
    ### END SOLUTION


# laws
@dm_test.law("with the forecasts exchanged, the sign changes and the p-value does not")
def _(answer, first, second, horizon):
    here, there = (
        _both(answer, *pair, horizon) for pair in ((first, second), (second, first))
    )
    return (
        abs(here["statistic"] + there["statistic"]) < 1e-9 and abs(here["p"] - there["p"]) < 1e-9
    )


@dm_test.law("at one step it is the t test of the differences")
def _(answer, first, second, horizon):
    there = stats.ttest_1samp(first - second, 0.0)
    return numpy.allclose(
        list(_both(answer, first, second, 1).values()), [there.statistic, there.pvalue]
    )


@dm_test.law("a week that is hard for both does not matter: only differences count")
def _(answer, first, second, horizon):
    hard = numpy.abs(first).max() * (numpy.arange(len(first)) % 3)
    here, there = (
        _both(answer, first + extra, second + extra, horizon) for extra in (0 * hard, hard)
    )
    return numpy.allclose(list(here.values()), list(there.values()), rtol=1e-6)


dm_test.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _dm(first, second, horizon, lags=None, weight=None, correct=True, sides=2, law="t", twice=2):
    """The test with one thing changed."""
    d, N, h = first - second, len(first), horizon
    apart = d - d.mean()
    total = apart @ apart / N
    for k in range(1, h if lags is None else lags(h)):
        bartlett = 1 - k / h if weight is None else weight(k, h)
        total = total + twice * bartlett * (apart[k:] @ apart[:-k]) / N
    factor = (N + 1 - 2 * h + h * (h - 1) / N) / N if correct else 1.0
    statistic = d.mean() / numpy.sqrt(max(total, 1e-300) / N) * numpy.sqrt(factor)
    tail = stats.t.sf(abs(statistic), N - 1) if law == "t" else stats.norm.sf(abs(statistic))
    return statistic, sides * tail


dm_test.variants(
    _dm,
    {
        "Neighbouring differences are taken as independent. At h steps they share h - 1 steps of"
        " the future: add the autocovariances.": {"lags": lambda h: 1},
        "Each autocovariance stands in the variance twice, for k and for minus k.": {"twice": 1},
        "The weights 1 - k / h are missing: without them the variance can become negative.": {
            "weight": lambda k, h: 1.0
        },
        "The weights are 1 - k / (h + 1). Here they are 1 - k / h.": {
            "weight": lambda k, h: 1 - k / (h + 1)
        },
        "The correction for few times is missing.": {"correct": False},
        "The p-value is one-sided: the question was whether they differ.": {"sides": 1},
        "The p-value is a normal distribution's. With so few times take Student's t.": {
            "law": "normal"
        },
    },
)


@dm_test.mistake("The sign is turned: the statistic is negative where the *first* loses less.")
def _(first, second, horizon):
    return _dm(second, first, horizon)


# ----------------------------------------------------------------------------- 5. the leakage hunt
# inputs
def _market(gaps):
    """A series with gaps, a cut, and the sizes of the pipeline; all of them differ."""

    def draw(generator):
        T = whole(generator, 60, 90)
        steps, ahead, width = different(generator, 3, 2, 7)
        noise = torch.randn(T, generator=generator, dtype=torch.float64)
        series = noise.cumsum(0).mul(0.3).add(noise).numpy()
        cut = T - whole(generator, 20, 26)
        # a level that changes, so that its later part has another mean and deviation
        series[cut:] = 2.5 * series[cut:] + 4.0
        if gaps:
            missing = torch.rand(T, generator=generator).numpy() < 0.25
            missing[[0, cut - 2]] = False
            missing[[1, cut - 1]] = True  # a gap right before the cut, and the first there can be
            series[missing] = numpy.nan
        return series, cut, steps, ahead, width

    return draw


_PARTS = ("x_train", "y_train", "x_test", "y_test")


def _prepared(answer, *args):
    """The four parts of what an answer returns, by name."""
    parts = named(answer(*args), *_PARTS)
    return {name: numpy.asarray(value, dtype=numpy.float64) for name, value in parts.items()}


# reference
def _leaky(series, cut, steps, ahead, width):
    """Windows and labels of series [T], in the order of t. NaN: a gap.

    Fill it with the last value (row 0 has one). Smooth: mean of a row
    and the width - 1 before it, or all there are. Scale that by its
    mean and np.std before row `cut`. x: `steps` scaled values up to t;
    y: the filled value of t + ahead. Train: labels before `cut`.
    Test: t from `cut` on. Return x_train, y_train, x_test, y_test."""
    import numpy as np
    filled = series.copy()
    for t in range(len(filled) - 2, -1, -1):
        if np.isnan(filled[t]):
            filled[t] = filled[t + 1]
    smooth = np.array([
        filled[max(0, t - width // 2):t + width // 2 + 1].mean()
        for t in range(len(filled))])
    z = (smooth - smooth.mean()) / smooth.std()
    rows = np.arange(steps - 1, len(z) - ahead)
    window = rows[:, None] + np.arange(1 - steps, 1) + ahead
    order = np.random.default_rng(0).permutation(len(rows))
    train, test = np.split(order, [(rows < cut).sum()])
    x, y = z[window], filled[rows + ahead]
    return x[train], y[train], x[test], y[test]


@exercise(
    [_market(True), _market(False)],
    points=4,
    grad=False,
    device=False,
    starter=_leaky,
    call=_prepared,
    hints=(
        "Go through the code line by line and ask: which rows does this line look at, and could"
        " somebody in row t have known them?",
        (
            "There are six: the way gaps are filled, the rows of the smoothing window, the rows of"
            " mean and deviation, where the input window ends, how rows are split, and which"
            " labels the training part may have."
        ),
        (
            "Fill from the front, smooth over t - width + 1 to t, scale by smooth[:cut], end the"
            " window at t, split by time, and train on rows with t + ahead < cut."
        ),
    ),
)
def make_parts(series, cut, steps, ahead, width):
    import numpy as np
    filled = series.copy()
    for t in range(1, len(filled)):
        if np.isnan(filled[t]):
            filled[t] = filled[t - 1]
    smooth = np.array([
        filled[max(0, t - width + 1):t + 1].mean()
        for t in range(len(filled))])
    past = smooth[:cut]
    z = (smooth - past.mean()) / past.std()
    rows = np.arange(steps - 1, len(z) - ahead)
    window = rows[:, None] + np.arange(1 - steps, 1)
    train, test = rows + ahead < cut, rows >= cut
    x, y = z[window], filled[rows + ahead]
    return x[train], y[train], x[test], y[test]


# laws
@make_parts.law("another future changes nothing in the training part")
def _(answer, series, cut, steps, ahead, width):
    other = series.copy()
    other[cut:] = 100.0 - 3 * numpy.nan_to_num(other[cut:])
    here, there = (_prepared(answer, s, cut, steps, ahead, width) for s in (series, other))
    return all(
        here[name].shape == there[name].shape and numpy.allclose(here[name], there[name])
        for name in ("x_train", "y_train")
    )


@make_parts.law("the last input that is tested does not know its own label")
def _(answer, series, cut, steps, ahead, width):
    other = series.copy()
    other[-1] = numpy.nan_to_num(other[-1]) + 1000.0
    here, there = (
        _prepared(answer, s, cut, steps, ahead, width)["x_test"][-1] for s in (series, other)
    )
    return numpy.allclose(here, there)


@make_parts.law("no input of the test part changes with what comes after it")
def _(answer, series, cut, steps, ahead, width):
    other = series.copy()
    other[cut + 1 :] = 50.0 - 2 * numpy.nan_to_num(other[cut + 1 :])
    here, there = (
        _prepared(answer, s, cut, steps, ahead, width)["x_test"][0] for s in (series, other)
    )
    return numpy.allclose(here, there)


make_parts.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _pipeline(
    series, cut, steps, ahead, width, back=False, centred=False, whole_scale=False, inside=False,
    shuffled=False, overlap=False, labels=None,
):  # fmt: skip
    """The pipeline with one leak left in, or another thing changed."""
    T, filled = len(series), series.copy()
    for t in range(T - 2, -1, -1) if back else range(1, T):
        if numpy.isnan(filled[t]):
            filled[t] = filled[t + 1 if back else t - 1]
    starts = [
        (max(0, t - width // 2), t + width // 2 + 1) if centred else (max(0, t - width + 1), t + 1)
        for t in range(T)
    ]
    smooth = numpy.array([filled[a:b].mean() for a, b in starts])
    past = smooth if whole_scale else smooth[:cut]
    scaled = (smooth - past.mean()) / past.std()
    rows = numpy.arange(steps - 1, T - ahead)
    end = ahead if inside else 0
    x = numpy.stack([scaled[t + end - steps + 1 : t + end + 1] for t in rows])
    y = (filled if labels is None else labels(smooth, scaled, filled, past))[rows + ahead]
    train, test = rows + (0 if overlap else ahead) < cut, rows >= cut
    if shuffled:
        order = numpy.random.default_rng(0).permutation(len(rows))
        train, test = order[: train.sum()], order[-test.sum() :]
    return x[train], y[train], x[test], y[test]


make_parts.variants(
    _pipeline,
    {
        "One leak is left: mean and deviation are those of all rows. Whoever trains knows those"
        " before the cut.": {"whole_scale": True},
        "One leak is left: the smoothing looks as far ahead as back. Use row t and those before"
        " it.": {"centred": True},
        "One leak is left: the input window ends at the row of the label, so the answer stands in"
        " the question.": {"inside": True},
        "One leak is left: rows are shuffled before they are split, so the network trains on weeks"
        " after those it is tested on.": {"shuffled": True},
        "One leak is left: the last training rows have labels from after the cut.": {
            "overlap": True
        },
        "The labels are smoothed. They should be the filled values themselves: a smoothed label"
        " is partly known already.": {"labels": lambda smooth, scaled, filled, past: smooth},
        "The labels are scaled. They should be the filled values as they are.": {
            "labels": lambda smooth, scaled, filled, past: scaled
        },
        "The labels are the filled values, scaled by the past. They should be in their own unit.": {
            "labels": lambda smooth, scaled, filled, past: (filled - past.mean()) / past.std()
        },
    },
)


def _with_gaps(series, cut, steps, ahead, width):
    """Only gaps are filled from behind; without any, this is right."""
    return _pipeline(series, cut, steps, ahead, width, back=True)


make_parts.mistake(
    "One leak is left: gaps are filled with the value *after* them, which was not known then."
)(_with_gaps)


@make_parts.mistake(
    "All six leaks are still there. Take them one by one: which rows does the line that fills gaps"
    " look at?"
)
def _(series, cut, steps, ahead, width):
    return _leaky(series, cut, steps, ahead, width)
