"""Exercises of chapter 21: censored outcomes, another base rate, a decision curve, and a leak."""

import torch
from torch.nn import functional as F

from ..checks.exercise import exercise
from .inputs import LEAVES_NO_TRACE, different, leaves_no_trace, uniform, whole


# ----------------------------------------------------------------------------- 1. censored outcomes
# inputs
def _followed(kind):
    """Follow-up of patients, days in no order, and logits; some times fall on a day itself."""

    def draw(g):
        n, H = different(g, 2, 2, 12)
        n, H = 1 if kind == "one" else n + 6, 1 if kind == "one day" else H
        horizons = torch.tensor(different(g, H, 1, 400), dtype=torch.float64)
        time = 450 * torch.rand(n, generator=g, dtype=torch.float64) ** 2
        died = (torch.rand(n, generator=g) < 0.5).long()
        if kind == "ties":  # dead, and last seen, on the very days
            places = torch.randperm(n, generator=g)[:4]
            time[places] = horizons[torch.randint(H, (4,), generator=g)]
            died[places] = torch.tensor([1, 0, 1, 0])
        if kind == "lost":  # of the last day nobody is known
            horizons[-1], died = 500.0, torch.zeros_like(died)
        logits = 2 * torch.randn(n, H, generator=g, dtype=torch.float64)
        if kind == "ties":  # followed for long, and sure of death: a sigmoid of exactly 1
            time[0], logits[0] = 460.0, 400.0
        return logits, time, died, horizons

    return draw


# reference
@exercise(
    [_followed(kind) for kind in ("plain", "ties", "lost", "one", "one day")],
    points=3,
    hints=(
        "A patient was last seen alive on day 200. What do you know of day 30? Of day 365?",
        (
            "Two tables [N, H]: who is known to be dead, `(died == 1) & (time <= horizon)`, and of"
            " whom nobody knows, `(died == 0) & (time < horizon)`. Give `time` a second axis."
        ),
        (
            "Take the cross-entropy of all entries with reduction=\"none\", multiply by what is"
            " known, and divide by the number known in the column, at least 1."
        ),
    ),
)
def horizon_losses(logits, time, died, horizons):
    """The loss of equation 2 for "dead by this day", for H days.

    logits: [N, H]. time: [N], days until death, or until the
        patient was last known to live. died: int64 [N], 1 if
        `time` ends with death, else 0. horizons: [H], days, in no
        order.
    Dead by a day includes the day itself. Who was last seen alive
    on the day, or later, was alive. Who was last seen alive
    before it counts for that day neither way.
    Return [H]: the mean cross-entropy over the patients who count,
    0 for a day for which nobody does.
    """
    ### BEGIN SOLUTION
    time, ended = time[:, None], died[:, None] == 1
    dead = ended & (time <= horizons)
    known = ended | (time >= horizons)
    losses = F.binary_cross_entropy_with_logits(
        logits, dead.to(logits), reduction="none")
    return (losses * known).sum(0) / known.sum(0).clamp(min=1)
    ### END SOLUTION


# laws
@horizon_losses.law("what is said of days for which nobody knows does not matter")
def _(answer, logits, time, died, horizons):
    lost = (died[:, None] == 0) & (time[:, None] < horizons)
    other = torch.where(lost, logits + 3, logits)
    first, second = answer(logits, time, died, horizons), answer(other, time, died, horizons)
    return torch.allclose(first, second)


@horizon_losses.law("the days may come in another order")
def _(answer, logits, time, died, horizons):
    turned = answer(logits.flip(1), time, died, horizons.flip(0))
    return torch.allclose(turned.flip(0), answer(logits, time, died, horizons))


horizon_losses.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _survived(
    logits, time, died, horizons, dead=None, known=None, by="known", empty=1, combine=None
):
    """The answer with one thing changed."""
    at, ended = time[:, None], died[:, None] == 1
    yes = ended & (at <= horizons) if dead is None else dead(at, ended, horizons)
    sure = ended | (at >= horizons) if known is None else known(at, ended, horizons)
    each = F.binary_cross_entropy_with_logits(logits, yes.to(logits), reduction="none") * sure
    if combine is not None:
        return combine(each, sure)
    return each.sum(0) / {"known": sure.sum(0).clamp(min=empty), "all": len(time), "none": 1}[by]


horizon_losses.variants(
    _survived,
    {
        "Who was lost before the day counts as alive. They may have died the next week: leave them"
        " out of that day's mean.": {"known": lambda at, ended, days: (at >= 0) | (days > 0)},
        "Everybody who was not seen to die is left out. Those who were followed beyond the day are"
        " known to have lived: they are your zeros.": {
            "known": lambda at, ended, days: ended | (days < 0)
        },
        "Whoever died at all counts as dead on every day. A death on day 300 is a life on day 30.":
        {"dead": lambda at, ended, days: ended | (days < 0)},
        "Whoever's time is over counts as dead. For those with `died` 0 it ended with a last visit,"
        " not with death.": {
            "dead": lambda at, ended, days: at <= days,
            "known": lambda at, ended, days: (at >= 0) | (days > 0),
        },
        "A death on the day itself is a death by that day: `<=`.": {
            "dead": lambda at, ended, days: ended & (at < days)
        },
        "Who was last seen alive on the very day was alive on it: that is known.": {
            "known": lambda at, ended, days: ended | (at > days)
        },
        "You divide by all N patients. Then a day counts the less, the fewer are known: divide by"
        " those who count.": {"by": "all"},
        "You add up over the patients: take the mean over those who count.": {"by": "none"},
        "A day for which nobody is known gives 0 / 0. Its loss is 0.": {"empty": 0},
        "One number for all days: return a mean per day.": {
            "combine": lambda each, sure: (each.sum() / sure.sum().clamp(min=1)).expand(
                each.shape[1]
            )
        },
    },
)


@horizon_losses.mistake(
    "A patient who is lost for one day is dropped for all. On the earlier days you know how they"
    " were: mask entries, not rows."
)
def _(logits, time, died, horizons):
    return _survived(
        logits, time, died, horizons,
        known=lambda at, ended, days: (ended | (at >= days)).all(1, keepdim=True).expand(
            len(at), len(days)
        ),
    )  # fmt: skip


@horizon_losses.mistake(
    "Of a chance of exactly 0 or 1 the logarithm is lost, and a cut hides how wrong the model was."
    " Take `F.binary_cross_entropy_with_logits`."
)
def _(logits, time, died, horizons):
    at, ended = time[:, None], died[:, None] == 1
    known, chances = ended | (at >= horizons), logits.sigmoid().clamp(1e-7, 1 - 1e-7)
    dead = (ended & (at <= horizons)).to(logits)
    each = -(dead * chances.log() + (1 - dead) * (1 - chances).log()) * known
    return each.sum(0) / known.sum(0).clamp(min=1)


# ----------------------------------------------------------------------------- 2. another base rate
# inputs
def _rates(kind):
    """Chances, among them 0 and 1, and two shares of yeses that differ."""

    def draw(g):
        shape = (whole(g, 3, 9),) if kind == "row" else tuple(different(g, 2, 2, 7))
        chances = torch.rand(shape, generator=g, dtype=torch.float64)
        chances.view(-1)[:2] = torch.tensor([0.0, 1.0], dtype=torch.float64)
        before, now = uniform(g, 0.05, 0.45), uniform(g, 0.55, 0.95)
        return (chances, before, now) if whole(g, 0, 2) else (chances, now, before)

    return draw


# reference
@exercise(
    [_rates("row"), _rates("table")],
    points=2,
    grad=False,
    hints=(
        "A chance of 1/2 is odds of 1 : 1. If yeses get twice as frequent beside noes, what do the"
        " odds become?",
        (
            "The odds p / (1 - p) are multiplied by the ratio of the two base odds,"
            " now / (1 - now) over before / (1 - before). Then go back from odds to chances."
        ),
        (
            "To be safe at 0 and 1, keep both parts: yes = p * now / before, no = (1 - p) *"
            " (1 - now) / (1 - before), and return yes / (yes + no)."
        ),
    ),
)
def moved_chances(chances, before, now):
    """Chances for another share of yeses: equation 5.

    chances: in [0, 1], any shape. before: the share of yeses that
        they were made for. now: the share that there is now. Both
        are numbers between 0 and 1.
    Return the chances after all odds are multiplied by the same
    factor, that which takes the odds of `before` to those of
    `now`. A chance of 0 or 1 stays what it is.
    """
    ### BEGIN SOLUTION
    yes = chances * now / before
    no = (1 - chances) * (1 - now) / (1 - before)
    return yes / (yes + no)
    ### END SOLUTION


# laws
@moved_chances.law("there and back changes nothing")
def _(answer, chances, before, now):
    return torch.allclose(answer(answer(chances, before, now), now, before), chances)


@moved_chances.law("odds of one to a thousand million move by the factor too, either way")
def _(answer, chances, before, now):
    rare = torch.tensor([1e-9, 1 - 1e-9], dtype=torch.float64, device=chances.device)
    moved = answer(rare, before, now)
    factor = now / (1 - now) / (before / (1 - before))
    odds = moved / (1 - moved)
    return torch.allclose(odds, factor * rare / (1 - rare), rtol=1e-4, atol=0.0)


@moved_chances.law("who had just the old share as their chance has the new one")
def _(answer, chances, before, now):
    same = torch.full_like(chances, before)
    return torch.allclose(answer(same, before, now), torch.full_like(chances, now))


moved_chances.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _moved(chances, before, now, factor=lambda b, n: n * (1 - b) / (b * (1 - n)), back=True):
    """The answer with one thing changed."""
    k = factor(before, now)
    return k * chances / (1 - chances + k * chances) if back else k * chances / (1 - chances)


moved_chances.variants(
    _moved,
    {
        "The factor is upside down: from a rare yes to a frequent one, chances must rise.": {
            "factor": lambda b, n: b * (1 - n) / (n * (1 - b))
        },
        "The factor is the ratio of the shares. What is multiplied are odds: take the ratio of the"
        " odds of the two shares.": {"factor": lambda b, n: n / b},
        "These are odds; go back to chances: odds / (1 + odds).": {"back": False},
    },
)


@moved_chances.mistake(
    "You multiply the chances themselves. A chance of 0.9, doubled, is none: multiply the odds."
)
def _(chances, before, now):
    return chances * now / before


@moved_chances.mistake(
    "You multiply the chances and cut them at 1. Then many are sure who were not: multiply the"
    " odds."
)
def _(chances, before, now):
    return (chances * now / before).clamp(max=1)


@moved_chances.mistake(
    "You add the difference of the shares to each chance, which leaves 0 to 1: multiply the odds."
)
def _(chances, before, now):
    return chances + now - before


@moved_chances.mistake(
    "0 / 0, or infinity over infinity, where a chance is 1. Keep yes and no apart and divide last."
)
def _(chances, before, now):
    odds = chances / (1 - chances) * (now / (1 - now)) / (before / (1 - before))
    return odds / (1 + odds)


# ------------------------------------------------------------------------------ 3. a decision curve
# inputs
def _decided(kind):
    """Chances, some of them equal to a cut or just below it, labels, and cuts in no order."""

    def draw(g):
        n, K = different(g, 2, 2, 9)
        n, K = 1 if kind == "one" else n + 8, 1 if kind == "one cut" else K
        cuts = torch.tensor(different(g, K, 1, 20), dtype=torch.float64) / 20
        chances = torch.rand(n, generator=g, dtype=torch.float64)
        if kind == "ties":
            chances[:3] = cuts[torch.randint(K, (3,), generator=g)]
            chances[3] = cuts[0] - 1e-10
        labels = (torch.rand(n, generator=g, dtype=torch.float64) < chances).long()
        if n > 1:
            labels[:4] = torch.tensor([0, 1, 1, 0])
        return chances, labels, cuts

    return draw


# reference
@exercise(
    [_decided(kind) for kind in ("plain", "ties", "one", "one cut")],
    points=3,
    grad=False,
    parts=("model", "everyone"),
    hints=(
        "Someone treats from a chance of 1/5 on. How many needless treatments are, to them, as bad"
        " as one patient missed?",
        (
            "For each cut: who is treated, `chances >= cut`; how many of these are yeses, how many"
            " noes; each no costs cut / (1 - cut). Divide by all N."
        ),
        "`treated = chances >= cuts[:, None]` has the shape [K, N]. For everyone it is all True.",
    ),
)
def decision_curve(chances, labels, cuts):
    """The net benefit of equation 6, for a model and for treating
    everyone.

    chances: [N] in [0, 1]. labels: int64 [N], 0 or 1.
    cuts: [K], between 0 and 1, in no order.
    The model treats those whose chance reaches the cut.
    Return (model, everyone), each [K].
    """
    ### BEGIN SOLUTION
    cost = cuts / (1 - cuts)
    treated = chances >= cuts[:, None]
    found = (treated * labels).sum(1)
    needless = (treated * (1 - labels)).sum(1)
    share = labels.to(chances).mean()
    model = (found - cost * needless) / len(labels)
    return model, share - cost * (1 - share)
    ### END SOLUTION


# laws
@decision_curve.law("a model that says 1 of everybody treats everyone")
def _(answer, chances, labels, cuts):
    model, everyone = answer(torch.ones_like(chances), labels, cuts)
    return torch.allclose(model, everyone)


@decision_curve.law("a model that says 0 of everybody has no benefit and does no harm")
def _(answer, chances, labels, cuts):
    model, _ = answer(torch.zeros_like(chances), labels, cuts)
    return torch.allclose(model, torch.zeros_like(model))


decision_curve.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _curve(
    chances, labels, cuts, cost=lambda c: c / (1 - c), reach=torch.ge, by="all", misses=False
):
    """The answer with one thing changed."""

    def benefit(treated):
        found, needless = (treated * labels).sum(1), (treated * (1 - labels)).sum(1)
        if misses:
            needless = (~treated * labels).sum(1)
        number = {"all": len(labels), "treated": treated.sum(1).clamp(min=1), "none": 1}[by]
        return (found - cost(cuts) * needless) / number

    treated = reach(chances, cuts[:, None])
    return benefit(treated), benefit(torch.ones_like(treated))


decision_curve.variants(
    _curve,
    {
        "The price is upside down. Who treats from 1/5 on accepts four needless treatments for one"
        " patient found, so one needless treatment costs a quarter.": {
            "cost": lambda c: (1 - c) / c
        },
        "A needless treatment costs the cut itself in your answer. It is the odds of the cut, c /"
        " (1 - c).": {"cost": lambda c: c},
        "A needless treatment costs as much as one found is worth, at every cut. The cut says what"
        " the price is.": {"cost": torch.ones_like},
        "Whose chance equals the cut is treated: it reaches it.": {"reach": torch.gt},
        "You divide by those who are treated. Net benefit is per patient, treated or not: divide"
        " by N.": {"by": "treated"},
        "Counts are asked for per patient: divide by N.": {"by": "none"},
        "You subtract those who were missed. What costs is a treatment that was not needed; who is"
        " missed is simply not found.": {"misses": True},
    },
)


@decision_curve.mistake(
    "Treating everyone finds all yeses, but it also treats all noes: subtract their price."
)
def _(chances, labels, cuts):
    model, _ = _curve(chances, labels, cuts)
    return model, labels.to(model).mean().expand(len(cuts))


@decision_curve.mistake("Return (model, everyone), in this order.")
def _(chances, labels, cuts):
    model, everyone = _curve(chances, labels, cuts)
    return everyone, model


# --------------------------------------------------------------------- 4. a table for the third day
# inputs
def _wards(kind):
    """Columns with holes, some of them measured later than the day; patients gone by then."""

    def draw(g):
        n, D = whole(g, 12, 20), whole(g, 4, 8)
        day = float(whole(g, 2, 6))
        horizon = day + whole(g, 20, 60)
        # the first column is there on the day itself, the second one is a day late
        measured = day + torch.randint(-2, 6, (D,), generator=g).double()
        measured[:2] = torch.tensor([day, day + 1])
        if kind == "single":  # of one column only the mean is known in time
            measured[1:] = day + 1 + torch.arange(D - 1)
        measured = measured[torch.randperm(D, generator=g)]
        values = 3 + torch.randn(n, D, generator=g, dtype=torch.float64)
        values[torch.rand(n, D, generator=g) < 0.3] = torch.nan
        train = torch.rand(n, generator=g) < 0.6
        values[0], train[0], train[1], train[3] = 5.0, True, False, True
        time = 2 * horizon * torch.rand(n, generator=g, dtype=torch.float64)
        died = (torch.rand(n, generator=g) < 0.5).long()
        # lost before the horizon, dead before the day, gone before the day, followed for long
        time[2:6] = torch.tensor([horizon - 1, day - 1, day - 1, horizon + 9]).double()
        died[2:6] = torch.tensor([0, 1, 0, 0])
        if kind == "ties":
            time[2:6] = torch.tensor([horizon, horizon, day, day]).double()
            died[2:6] = torch.tensor([0, 1, 1, 0])
        return values, measured, time, died, train, day, horizon

    return draw


# reference
def _careless(values, measured, time, died, train, day, horizon):
    """A table for a model that is asked on `day` whether a patient
    will be dead by `horizon`.

    values: [N, D], NaN where nobody measured. measured: [D], the
        last day of a column: 25 for a mean of the days 3 to 25.
    time: [N], days until death, or until the patient was last
        known to live; int64 died: [N], 1 if it ends with death.
        Dead on the horizon is dead by it, last seen on it is alive
        on it. Whoever dies on `day` is still there that morning.
    train: bool [N]; False for patients that the model is judged
        on. They are strangers to it; of all others it has seen
        the values, with or without a label.
    Return (x, labels): x [N, d], the columns that may be used, in
    their order, holes filled with the mean of the column; labels
    float64 [N], 1 for dead by the horizon, 0 for alive on it,
    NaN for a patient who is of no use here, for whatever reason.
    """
    mean = values.nanmean(0)
    x = values.where(~values.isnan(), mean)
    labels = ((died == 1) & (time <= horizon)).double()
    return x, labels


@exercise(
    [_wards("plain"), _wards("ties"), _wards("single")],
    points=4,
    grad=False,
    starter=_careless,
    parts=("x", "labels"),
    hints=(
        "Stand at the bed on `day`. Which columns can you read? Whom do you see? And what will you"
        " never learn about some of them?",
        (
            "Four faults: columns that do not exist yet; means that have seen the test patients;"
            " patients lost before the horizon who pass for alive; patients who are dead or gone"
            " before the day, about whom nobody can ask."
        ),
        (
            "Columns: `measured <= day`. Means: over `values[train]`. Labels: NaN where"
            " `(died == 0) & (time < horizon)` or `time < day`."
        ),
    ),
)
def ready_table(values, measured, time, died, train, day, horizon):
    values = values[:, measured <= day]
    mean = values[train].nanmean(0)
    x = values.where(~values.isnan(), mean)
    labels = ((died == 1) & (time <= horizon)).double()
    lost = (died == 0) & (time < horizon)
    labels[lost | (time < day)] = torch.nan
    return x, labels


# laws
@ready_table.law("other values of patients it is judged on change no training row")
def _(answer, values, measured, time, died, train, day, horizon):
    other = torch.where(train[:, None], values, values + 7)
    first, _ = answer(values, measured, time, died, train, day, horizon)
    second, _ = answer(other, measured, time, died, train, day, horizon)
    return torch.equal(first[train], second[train])


@ready_table.law("what was measured stays what it is, to the last digit")
def _(answer, values, measured, time, died, train, day, horizon):
    x, _ = answer(values, measured, time, died, train, day, horizon)
    usable = values[:, measured <= day]
    holes = usable.isnan()
    # an answer with other columns has its own row of the check
    return x.shape != usable.shape or torch.equal(x[~holes], usable[~holes])


@ready_table.law("what is measured after the day changes nothing")
def _(answer, values, measured, time, died, train, day, horizon):
    other = torch.where(measured > day, -values, values)
    first, _ = answer(values, measured, time, died, train, day, horizon)
    second, _ = answer(other, measured, time, died, train, day, horizon)
    return torch.equal(first, second)


ready_table.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _table(
    values, measured, time, died, train, day, horizon,
    late=torch.le, trained=True, lost=torch.lt, gone=torch.lt, drop=None,
):  # fmt: skip
    """The table with one thing changed."""
    values = values if late is None else values[:, late(measured, day)]
    mean = (values[train] if trained else values).nanmean(0)
    x = torch.where(values.isnan(), mean if drop is None else mean * 0 + drop, values)
    labels = ((died == 1) & (time <= horizon)).double()
    out = torch.zeros_like(train)
    if lost is not None:
        out = out | ((died == 0) & lost(time, horizon))
    if gone is not None:
        out = out | gone(time, day)
    labels[out] = torch.nan
    return x, labels


ready_table.variants(
    _table,
    {
        "Columns that are measured after the day are still there: nobody can read them at the bed.":
        {"late": None},
        "A column that is complete on the day itself can be read on it.": {"late": torch.lt},
        "The means that fill the holes have seen the patients that the model is judged on.": {
            "trained": False
        },
        "Who was lost before the horizon passes for alive. Nobody knows: NaN.": {"lost": None},
        "Who was seen alive on the day of the horizon was alive on it: that label is known.": {
            "lost": torch.le
        },
        "Patients who were dead or gone before the day are still in. On that day nobody asks about"
        " them: NaN.": {"gone": None},
        "Whoever dies on the day itself is still there that morning, so the label is 1. Out are"
        " those who were dead or gone before it: `time < day`.": {"gone": torch.le},
        "Holes are filled with 0, which no patient may ever have: take the mean of the column.": {
            "drop": 0.0
        },
    },
)


@ready_table.mistake(
    "Nothing is mended yet. Stand at the bed on `day`: which columns can you read, and whom do you"
    " see?"
)
def _(values, measured, time, died, train, day, horizon):
    return _careless(values, measured, time, died, train, day, horizon)


@ready_table.mistake(
    "The means leave out training patients who are gone or lost. They have no label, but their"
    " values were measured: take all of `train`."
)
def _(values, measured, time, died, train, day, horizon):
    lost = (died == 0) & (time < horizon)
    _, labels = _table(values, measured, time, died, train, day, horizon)
    x, _ = _table(values, measured, time, died, train & ~lost & (time >= day), day, horizon)
    return x, labels


@ready_table.mistake(
    "The means leave out training patients who are gone by then. Their values were measured: take"
    " all of `train`."
)
def _(values, measured, time, died, train, day, horizon):
    _, labels = _table(values, measured, time, died, train, day, horizon)
    x, _ = _table(values, measured, time, died, train & (time >= day), day, horizon)
    return x, labels


@ready_table.mistake(
    "The columns are right, but the means have seen the test patients, and who is lost or gone"
    " still has a label."
)
def _(values, measured, time, died, train, day, horizon):
    return _table(
        values, measured, time, died, train, day, horizon, trained=False, lost=None, gone=None
    )
