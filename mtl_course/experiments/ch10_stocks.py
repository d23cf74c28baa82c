"""Chapter 10, finance: the volatility of twenty stocks over 1, 4 and 12 weeks.

`everyone` gives all stocks the same short history and compares a GRU for each, one for all, linear
regressions on the same twelve weeks, and doing nothing. `newcomers` gives four stocks a short
history and sixteen a long one: a network of the sixteen is used as it is, and fine-tuned.
`long_run` asks Diebold and Mariano over eleven years. `returns` tries the network on returns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import data
from ..training.forecasts import diebold_mariano, means_ahead
from .ch10_many import Parameters, copies, head, states, train

METHODS = ("last 12 weeks", "HAR, own", "AR, own", "HAR, together", "GRU, own", "GRU, together")
NEW = ("last 12 weeks", "HAR, own", "GRU, own", "HAR of others", "GRU of others", "fine-tuned")
FLOOR = 0.002  # of a day's return: days without a trade have a logarithm, too


@dataclass(frozen=True)
class Plan:
    """Sizes and settings.

    Args:
        features: of the GRU's state.
        window: weeks that every method reads.
        horizons: weeks ahead.
        history: weeks of every stock, in `everyone`.
        new: weeks of a new stock, in `newcomers`.
        source: weeks of the stocks that a source is made from.
        newcomers: how many stocks are new.
        test: weeks from the origin on at which forecasts are made.
        long: the same in `long_run`.
        batch: windows per step of one network.
        rates: that every network may try.
        stops: numbers of steps that validation chooses among.
        strengths: of the ridge penalty of linear regressions.
    """

    features: int = 16
    window: int = 12
    horizons: tuple[int, ...] = (1, 4, 12)
    history: tuple[int, ...] = (52, 104, 416)
    new: tuple[int, ...] = (26, 52, 104)
    source: int = 416
    newcomers: int = 4
    test: int = 52
    long: int = 572
    batch: int = 64
    rates: tuple[float, ...] = (0.003, 0.01, 0.03)
    stops: tuple[int, ...] = (0, 10, 25, 50, 100)
    strengths: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)


# -------------------------------------------------------------------------------------------- data
@dataclass(frozen=True)
class Weeks:
    """Weekly series of the stocks, without gaps.

    Args:
        level: logarithm of the volatility of a day, [T, S].
        returns: logarithmic returns of each week, [T, S].
        names: of the stocks, [S].
        date: the first day of each week, [T].
    """

    level: NDArray
    returns: NDArray
    names: list[str]
    date: NDArray


def weeks(start: str = "1997-01-01") -> Weeks:
    """Daily prices to weekly log volatility and returns, from `start` on."""
    ds = data.load("stocks")
    returns = np.diff(np.log(ds["prices"]), axis=0)
    day = np.array(ds["date"], dtype="datetime64[D]")[1:]
    inside = day >= np.datetime64(start)
    week, place = np.unique(day[inside].astype("datetime64[W]"), return_inverse=True)
    days = np.bincount(place)[:, None]
    squares, sums = np.zeros((2, len(week), returns.shape[1]))
    np.add.at(squares, place, returns[inside] ** 2)
    np.add.at(sums, place, returns[inside])
    level = 0.5 * np.log(squares / days + FLOOR**2)
    names = [str(name) for name in ds["names"]]
    return Weeks(level, sums, names, week.astype("datetime64[D]"))


def origin_of(plan: Plan, series: Weeks, seed: int) -> int:
    """The first week that is not known, drawn by the seed."""
    least = max(*plan.history, plan.source)
    most = len(series.level) - plan.test - max(plan.horizons)
    return int(np.random.default_rng(seed).integers(least, most))


@dataclass(frozen=True)
class Task:
    """What S stocks tell up to an origin, in units of their own past.

    Args:
        x: windows of the known weeks [S, N, W, D].
        y: labels [S, N, H]; 0 where they are not known.
        fit: bool [N, H], labels to train on while settings are chosen.
        valid: bool [N, H], labels to choose by: windows and labels that come later.
        known: bool [N, H], all labels that are known at the origin.
        new: windows to forecast from [S, M, W, D].
        truth: their labels [S, M, H], in the same units.
        deviation: [S], of each stock's past.
    """

    x: Tensor
    y: Tensor
    fit: Tensor
    valid: Tensor
    known: Tensor
    new: Tensor
    truth: Tensor
    deviation: NDArray

    @property
    def together(self) -> "Task":
        """All stocks' windows as those of one: S is 1."""
        count = len(self.x)
        rows = [m.repeat(count, 1) for m in (self.fit, self.valid, self.known)]
        parts = [a.flatten(0, 1)[None] for a in (self.x, self.y, self.new, self.truth)]
        return Task(*parts[:2], *rows, *parts[2:], self.deviation)


def task(
    plan: Plan,
    inputs: NDArray,
    target: NDArray,
    origin: int,
    history: int,
    test: int | None = None,
) -> Task:
    """Windows and labels of stocks with `history` known weeks before the origin.

    Args:
        plan: settings.
        inputs: [T, S, D].
        target: [T, S], the series whose means ahead are forecast.
        origin: the first week that is not known.
        history: known weeks; mean and deviation of a stock are theirs.
        test: weeks at which forecasts are made, from the last known one on; None: the plan's.
    """
    past = slice(origin - history, origin)
    test = plan.test if test is None else test

    def scaled(values, by):
        return (values - by[past].mean(0)) / by[past].std(0)

    z, horizons = scaled(inputs, inputs), np.array(plan.horizons)
    labels = means_ahead(scaled(target, target), plan.horizons)
    rows = np.arange(origin - history + plan.window - 1, origin)
    later = np.arange(origin - 1, origin - 1 + test)
    cut = origin - max(8, history // 5)  # from here on, weeks to choose settings by

    def windows(last):
        return np.moveaxis(z[last[:, None] + np.arange(1 - plan.window, 1)], 2, 0)

    end = rows[:, None] + horizons  # the last week of each label
    known = end < origin
    fit, valid = end < cut, known & (rows[:, None] >= cut - 1)
    y = np.where(known[:, None], labels[rows], 0)
    return Task(
        torch.as_tensor(windows(rows)).float(),
        torch.as_tensor(y.swapaxes(0, 1)).float(),
        *(torch.as_tensor(mask) for mask in (fit, valid, known)),
        torch.as_tensor(windows(later)).float(),
        torch.as_tensor(labels[later].swapaxes(0, 1)).float(),
        target[past].std(0),
    )


def volatility(
    plan: Plan,
    series: Weeks,
    origin: int,
    history: int,
    stocks: Sequence[int],
    test: int | None = None,
) -> Task:
    """The task of these stocks' log volatility, from itself."""
    level = series.level[:, list(stocks)]
    return task(plan, level[..., None], level, origin, history, test)


# ---------------------------------------------------------------------------------------- forecasts
def masked_error(guess: Tensor, y: Tensor, mask: Tensor) -> Tensor:
    """[G]: mean squared error of guesses [G, N, H] over labels that are known, mask [N, H]."""
    return ((guess - y).square() * mask).sum((1, 2)) / mask.sum().clamp_min(1)


def network(parameters: Parameters, x: Tensor) -> Tensor:
    """Guesses [G, N, H] from windows [G, N, W, D]."""
    return head(parameters, "ahead", states(parameters, x)[:, :, -1])


def gru(
    plan: Plan, given: Task, seed: int, source: Parameters | None = None
) -> tuple[Tensor, dict, Parameters]:
    """A GRU per series of the task, its rate and stop chosen on the later part of the past.

    One choice is made for all series. Then each is trained anew with all that is known.

    Args:
        plan: settings.
        given: S series; `Task.together` for one network.
        seed: of the start, which all series share, and of the batches.
        source: parameters of one network to begin with; None for a fresh one, whose first guess is
            each stock's past mean.

    Returns:
        Forecasts [S, M, H]; "rate", "steps" and "tried"; the parameters.
    """
    S, rates = len(given.x), plan.rates

    def begin(count):
        if source is not None:
            return {name: p.expand(count, *p.shape[1:]).clone() for name, p in source.items()}
        heads = {"ahead": len(plan.horizons)}
        fresh = copies(given.x.shape[3], plan.features, heads, seed, count)
        return {name: p * 0 if "heads" in name else p for name, p in fresh.items()}

    def loss_on(x, y, mask):
        g = torch.Generator().manual_seed(seed)
        usable = mask.any(1).nonzero().flatten()

        def loss(parameters):
            rows = usable[torch.randint(len(usable), (plan.batch,), generator=g)]
            return masked_error(network(parameters, x[:, rows]), y[:, rows], mask[rows])

        return loss

    # series s with rate r is network s * len(rates) + r
    x, y = (a.repeat_interleave(len(rates), 0) for a in (given.x, given.y))
    later, errors = given.valid.any(1), {}

    def judge(step, parameters):
        guess = network(parameters, x[:, later])
        error = masked_error(guess, y[:, later], given.valid[later]).view(S, -1).mean(0)
        errors.update({(rate, step): float(e) for rate, e in zip(rates, error, strict=True)})

    train(begin(S * len(rates)), loss_on(x, y, given.fit), rates * S, plan.stops, judge)
    rate, steps = min(errors, key=errors.get)
    loss = loss_on(given.x, given.y, given.known)
    final = train(begin(S), loss, [rate] * S, (steps,), lambda *_: None)
    with torch.no_grad():
        return network(final, given.new), {"rate": rate, "steps": steps}, final


def har_columns(x: Tensor) -> Tensor:
    """The last week and the means of the last 4 and of all weeks: [..., W, 1] to [..., 3]."""
    z = x[..., 0]
    return torch.stack([z[..., -1], z[..., -4:].mean(-1), z.mean(-1)], dim=-1)


def ridge(plan: Plan, given: Task, columns: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Linear regressions, one per series and horizon; one strength is chosen for all of them.

    Returns:
        Forecasts [S, M, H], and the weights [S, C + 1, H], the constant last.
    """
    a, new = (columns(x).double() for x in (given.x, given.new))
    a, new = (torch.cat([z, torch.ones_like(z[..., :1])], dim=-1) for z in (a, new))
    y = given.y.double()
    penalty = torch.eye(a.shape[2]).double()
    penalty[-1, -1] = 1e-6  # the constant is free

    def solve(mask, strength):
        weights = []
        for k in range(y.shape[2]):
            A, b = a[:, mask[:, k]], y[:, mask[:, k], k, None]
            weights.append(torch.linalg.solve(A.mT @ A + strength * penalty, A.mT @ b))
        return torch.cat(weights, dim=2)

    def error(strength):
        guess = a @ solve(given.fit, strength)
        return float(masked_error(guess, y, given.valid).mean())

    weights = solve(given.known, min(plan.strengths, key=error))
    return (new @ weights).float(), weights


def forecasts(plan: Plan, given: Task, seed: int) -> tuple[dict[str, Tensor], dict]:
    """Method -> forecasts [S, M, H], and what validation chose for the two kinds of network."""
    pooled, shape = given.together, given.truth.shape
    own, own_choice, _ = gru(plan, given, seed)
    joint, choice, _ = gru(plan, pooled, seed)
    guesses = {
        "last 12 weeks": har_columns(given.new)[..., 2:].expand(shape),
        "HAR, own": ridge(plan, given, har_columns)[0],
        "AR, own": ridge(plan, given, lambda x: x[..., 0])[0],
        "HAR, together": ridge(plan, pooled, har_columns)[0].view(shape),
        "GRU, own": own,
        "GRU, together": joint.view(shape),
    }
    return guesses, {"GRU, own": own_choice, "GRU, together": choice}


def errors(given: Task, guess: Tensor) -> list[list[float]]:
    """Mean squared error of log volatility [S][H], in its own unit."""
    squares = (guess - given.truth).square().mean(1).double().numpy()
    return (squares * given.deviation[:, None] ** 2).tolist()


# ------------------------------------------------------------------------------------------ studies
def everyone(plan: Plan, series: Weeks, seed: int) -> dict:
    """All stocks with the same history: weeks -> "errors" by method [S][H], and "chosen"."""
    origin, stocks, results = origin_of(plan, series, seed), range(len(series.names)), {}
    for history in plan.history:
        given = volatility(plan, series, origin, history, stocks)
        guesses, chosen = forecasts(plan, given, seed)
        results[str(history)] = {
            "errors": {name: errors(given, guess) for name, guess in guesses.items()},
            "chosen": chosen,
        }
    return {"origin": str(series.date[origin]), "results": results}


def newcomers(plan: Plan, series: Weeks, seed: int) -> dict:
    """Some stocks have a short history: weeks -> "errors" by method [S][H], and "chosen"."""
    origin = origin_of(plan, series, seed)
    order = np.random.default_rng(1000 + seed).permutation(len(series.names))
    new, old = order[: plan.newcomers], order[plan.newcomers :]
    given = volatility(plan, series, origin, plan.source, old).together
    _, chosen, source = gru(plan, given, seed)
    _, weights = ridge(plan, given, har_columns)
    results = {}
    for history in plan.new:
        given = volatility(plan, series, origin, history, new)
        own, own_choice, _ = gru(plan, given, seed)
        tuned, tuned_choice, _ = gru(plan, given, seed, source)
        columns = har_columns(given.new).double()
        with torch.no_grad():
            as_it_is = network(
                {name: p.expand(len(new), *p.shape[1:]) for name, p in source.items()}, given.new
            )
        guesses = {
            "last 12 weeks": har_columns(given.new)[..., 2:].expand(given.truth.shape),
            "HAR, own": ridge(plan, given, har_columns)[0],
            "GRU, own": own,
            "HAR of others": (columns @ weights[:, :-1] + weights[:, -1:]).float(),
            "GRU of others": as_it_is,
            "fine-tuned": tuned,
        }
        results[str(history)] = {
            "errors": {name: errors(given, guess) for name, guess in guesses.items()},
            "chosen": {"GRU, own": own_choice, "fine-tuned": tuned_choice},
        }
    names = [series.names[k] for k in new]
    return {"new": names, "source": chosen, "results": results}


def long_run(plan: Plan, series: Weeks, seed: int) -> dict:
    """One origin, eleven years of forecasts: errors, and Diebold and Mariano for each stock.

    The network for all is compared with every other method. The seed only draws its start.
    """
    origin = len(series.level) - plan.long - max(plan.horizons)
    stocks = range(len(series.names))
    given = volatility(plan, series, origin, plan.source, stocks, plan.long)
    guesses, chosen = forecasts(plan, given, seed)
    losses = {name: (g - given.truth).square().double().numpy() for name, g in guesses.items()}
    tests = {
        name: [
            [
                diebold_mariano(losses["GRU, together"][s, :, k], losses[name][s, :, k], h)
                for k, h in enumerate(plan.horizons)
            ]
            for s in stocks
        ]
        for name in METHODS[:-1]
    }
    return {
        "origin": str(series.date[origin]),
        "errors": {name: errors(given, guess) for name, guess in guesses.items()},
        "tests": tests,
        "chosen": chosen,
    }


def returns(plan: Plan, series: Weeks, seed: int) -> dict:
    """The joint network on returns: share explained beyond the past mean, and signs told right."""
    origin = origin_of(plan, series, seed)
    inputs = np.stack([series.level, series.returns], axis=2)
    given = task(plan, inputs, series.returns, origin, plan.source)
    guess, chosen, _ = gru(plan, given.together, seed)
    guess, truth = guess.view(given.truth.shape).double(), given.truth.double()
    past = series.returns[origin - plan.source : origin]
    zero = torch.as_tensor(-past.mean(0) / past.std(0))[:, None, None]  # no return at all
    share = 1 - (guess - truth).square().mean((0, 1)) / truth.square().mean((0, 1))
    right = ((guess > zero) == (truth > zero)).double().mean((0, 1))
    up = (truth > zero).double().mean((0, 1))
    rows = {"explained": share, "sign right": right, "always up": up}
    return {name: values.tolist() for name, values in rows.items()} | {"chosen": chosen}


def one_seed(plan: Plan, seed: int) -> dict:
    """All four studies with one seed."""
    series = weeks()
    return {
        study.__name__: study(plan, series, seed)
        for study in (everyone, newcomers, long_run, returns)
    }
