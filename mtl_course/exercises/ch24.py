"""Exercises of chapter 24: a model that is accepted, in time, watched, and taken back."""

import math

import torch

from ..checks.exercise import exercise
from .inputs import (
    LEAVES_NO_TRACE,
    different,
    leaves_no_trace,
    power,
    shuffled,
    task_names,
    whole,
)
from .outcomes import required, scalar


# ----------------------------------------------------------------------------- 1. acceptance test
# inputs
def _promises(spoilt):
    """Requirements of both kinds, and measurements near their limits; some are missing or NaN."""

    def draw(generator):
        rooms = (-1.0, 0.5, 1.2, 1.9, 1.98, 2.02)
        # each room on both sides, or some that are spoilt
        names = task_names(generator, whole(generator, 6, 9) if spoilt else 2 * len(rooms))
        requirements: dict = {}
        measured: dict = {}
        for k, name in enumerate(names):
            kind = ("at least", "at most")[k % 2]
            unit, count = power(generator, -3, 4), whole(generator, 2, 7)
            values = torch.randn(count, generator=generator, dtype=torch.float64)
            error = float(values.std()) / count**0.5
            # how many standard errors the mean keeps from its limit, never exactly 2
            room = rooms[k // 2] * error
            limit = float(values.mean()) - (room if kind == "at least" else -room)
            requirements[name] = (kind, unit * limit)
            measured[name] = (unit * values).tolist()
            if spoilt and k < 6:
                good = requirements[name] = ("at least", -100 * unit)
                measured[name] = [unit, 2 * unit, unit]
                if k == 0:
                    del measured[name]
                elif k == 1:
                    measured[name][whole(generator, 0, 3)] = math.nan
                elif k == 2:
                    measured[name] = [unit]
                elif k == 3:
                    measured[name] = []
                elif k == 4:
                    # on the limit, without any spread: met
                    requirements[name] = (kind, unit)
                    measured[name] = [unit, unit]
                else:
                    requirements[name] = ("at most", -good[1])
                    measured[name][whole(generator, 0, 3)] = -math.inf
        # a large level with a small spread, which 32 bits would lose
        level, count = 1e6 * (1 + whole(generator, 0, 9)), whole(generator, 3, 6)
        for name, kind, room in (("level", "at least", -1), ("ceiling", "at most", 4)):
            values = 1e-3 * torch.randn(count, generator=generator, dtype=torch.float64)
            limit = float(values.mean()) - room * float(values.std()) / count**0.5
            if kind == "at most":
                limit = 2 * float(values.mean()) - limit
            requirements[name] = (kind, level + limit)
            measured[name] = (level + values).tolist()
        # equal values count each: the error is 0.2, of 1 and 2 alone it would be 0.5
        requirements["doubled"] = ("at most", 1.7)
        measured["doubled"] = [1.0, 1.0, 2.0, 1.0, 1.0]
        # below the limit is below it, however little
        requirements["short"] = ("at least", 1e-6)
        measured["short"] = [1e-6 * (1 - 1e-3)] * 3
        measured["not asked for"] = [1.0, 2.0]
        return shuffled(generator, requirements), shuffled(generator, measured)

    return draw


def _names(answer, *args):
    result = required(answer(*args))
    if not isinstance(result, list | tuple):
        raise ValueError("Return a list of names.")
    return {"names": [str(name) for name in result]}


# reference
@exercise(
    [_promises(False), _promises(True)],
    points=2,
    grad=False,
    device=False,
    call=_names,
    hints=(
        "Who has to show something: the model, or whoever doubts it? What does a missing"
        " measurement show?",
        (
            "Per requirement: mean and standard error of its measurements, `std(ddof=1)` over the"
            " root of their number. Which side of the mean can be the bad one?"
        ),
        (
            "Met only if there are two measurements or more, all are finite, and"
            " `mean - 2 * error >= limit`, or `mean + 2 * error <= limit` for \"at most\"."
        ),
    ),
)
def unmet(requirements, measured):
    """Which requirements has the model not shown to meet?

    requirements: dict name -> (kind, limit), where kind is
        "at least" or "at most".
    measured: dict name -> list of measurements, one per seed; in
        any order, perhaps with names that nobody asked for. Large
        ones may lie close together: float64.
    A requirement is met if the mean keeps its limit even when it
    is moved two standard errors to the bad side. The standard
    error is the standard deviation (with n - 1) over the root of
    n. It is not met with fewer than two measurements, or if one
    is not finite.
    Return a list of names, in the order of `requirements`.
    """
    ### BEGIN SOLUTION
    names = []
    for name, (kind, limit) in requirements.items():
        values = torch.tensor(measured.get(name, []), dtype=torch.float64)
        met = False
        if len(values) > 1:
            # with a NaN or an infinity the error is NaN: never met
            mean, error = values.mean(), values.std() / len(values) ** 0.5
            if kind == "at least":
                met = mean - 2 * error >= limit
            else:
                met = mean + 2 * error <= limit
        if not met:
            names.append(name)
    return names
    ### END SOLUTION


# laws
@unmet.law("a model without any measurement has met nothing")
def _(answer, requirements, measured):
    return list(answer(dict(requirements), {})) == list(requirements)


@unmet.law("the same limits from the other side: all values and limits with the opposite sign")
def _(answer, requirements, measured):
    other = {"at least": "at most", "at most": "at least"}
    turned = {name: (other[kind], -limit) for name, (kind, limit) in requirements.items()}
    values = {name: [-v for v in column] for name, column in measured.items()}
    return list(answer(turned, values)) == list(answer(dict(requirements), dict(measured)))


unmet.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _accepted(
    requirements, measured, errors=2, root=True, ddof=1, missing=True, finite=True, turn=False,
    wrong=True, one=False, dtype=torch.float64,
):  # fmt: skip
    """The list with one thing changed."""
    names = []
    for name, (kind, limit) in requirements.items():
        values = torch.tensor(measured.get(name, []), dtype=dtype)
        if not finite:
            values = values[values.isfinite()]
        if len(values) < 2 and one and len(values):
            met = values.isfinite().all() and (values >= limit if kind == "at least"
                                               else values <= limit).all()  # fmt: skip
        elif len(values) < 2:
            met = not missing
        elif not values.isfinite().all():
            met = False
        else:
            error = values.std(correction=ddof) / (len(values) ** 0.5 if root else 1)
            low, high = values.mean() - errors * error, values.mean() + errors * error
            met = (low if (kind == "at least") != turn else high) >= limit
            if (kind == "at least") == turn or kind == "at most":
                met = (high if kind == "at most" and not turn else low) <= limit
            if kind == "at least":
                met = (high if turn else low) >= limit
        if bool(met) != wrong:
            names.append(name)
    return names


unmet.variants(
    _accepted,
    {
        "Only the mean is compared with the limit. Other seeds would give another mean:"
        " keep two standard errors to spare.": {"errors": 0},
        "One standard error is kept, not two.": {"errors": 1},
        "Your standard deviation divides by n, which makes few measurements look surer than they"
        " are. Divide by n - 1.": {"ddof": 0},
        "Your numbers have 32 bits: where large ones lie close together, their spread is lost. Take"
        " float64.": {"dtype": torch.float32},
        "You keep two standard deviations of a single seed. It is the mean that is judged:"
        " divide by the root of their number.": {"root": False},
        "The mean is moved to the good side: whatever is in doubt passes."
        " Move it to the bad side.": {"turn": True},
        "What was not measured, or only once, passes. Nothing was shown then: it is not met.": {
            "missing": False
        },
        "What has a value that is not finite passes."
        " A run that gave NaN is a run that failed.": {"finite": False},
        "These are the names that are met. Return the others.": {"wrong": False},
        "One measurement passes if it keeps the limit. One seed has no standard error, so nobody"
        " knows what the next would give: it is not met.": {"one": True},
    },
)


@unmet.mistake("A requirement that was not measured is left out. It is not met.")
def _(requirements, measured):
    return [name for name in _accepted(requirements, measured) if name in measured]


@unmet.mistake("The names come in the order of `measured`. Keep that of `requirements`.")
def _(requirements, measured):
    wrong = _accepted(requirements, measured)
    return [n for n in measured if n in wrong] + [n for n in wrong if n not in measured]


# --------------------------------------------------------------------------------- 2. the queue
# inputs
def _traffic(load, start=0.0):
    """Requests at random times, and what each takes; `load` is the share of time at work."""

    def draw(generator):
        count, unit = whole(generator, 12, 30), power(generator, -4, 2)
        gaps = -torch.rand(count, generator=generator, dtype=torch.float64).clamp_min(1e-3).log()
        work = load * (0.3 + torch.rand(count, generator=generator, dtype=torch.float64))
        return unit * (start + gaps.cumsum(0)), unit * work

    return draw


def _together(generator):
    """Some come at the very same time."""
    arrive, work = _traffic(0.8, start=5.0)(generator)
    arrive[3:6] = arrive[3]
    return arrive, work


def _seconds(answer, *args):
    seconds = torch.as_tensor(required(answer(*args)), dtype=torch.float64)
    return {"seconds": seconds.to(args[0].device)}


# reference
@exercise(
    [_traffic(0.4), _traffic(1.5, start=-3.0), _together, _traffic(0.8, start=-1e6)],
    points=2,
    grad=False,
    atol=1e-9,
    call=_seconds,
    hints=(
        "For which two things does a request wait, before the worker begins with it?",
        (
            "Keep the time at which the worker is free. A request is done at"
            " max(free, its arrival) + its work; that is when the worker is free again."
        ),
        (
            "Begin with `free = arrive[0]`. In a loop: `free = torch.maximum(free, came) + takes`,"
            " and collect `free - came`."
        ),
    ),
)
def latencies(arrive, work):
    """How long does each request wait for its answer?

    arrive: float64 [N], the time at which each request comes, in
        order; some may come together. It may be negative.
    work: float64 [N], seconds that each keeps the one worker.
    Requests are answered one at a time, in their order.
    Return float64 [N], seconds from its arrival to its answer.
    """
    ### BEGIN SOLUTION
    free, waited = arrive[0], []
    for came, takes in zip(arrive, work):
        free = torch.maximum(free, came) + takes
        waited.append(free - came)
    return torch.stack(waited)
    ### END SOLUTION


# laws
@latencies.law("if all come at once, the last waits for the work of all")
def _(answer, arrive, work):
    last = torch.as_tensor(answer(torch.zeros_like(arrive), work), dtype=torch.float64)[-1]
    return abs(float(last) - float(work.sum())) <= 1e-9 * float(work.sum())


@latencies.law("without a queue each waits for its own work alone")
def _(answer, arrive, work):
    far = torch.arange(len(work)).to(work) * 2 * work.max()
    waited = torch.as_tensor(answer(far, work), dtype=torch.float64).to(work)
    return torch.allclose(waited, work, rtol=1e-9, atol=0)


latencies.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _queue(arrive, work, free=lambda arrive: arrive[0], of="answer", idle=True, workers=1):
    """Latencies with one thing changed."""
    ends, waited = [free(arrive)] * workers, []
    for came, takes in zip(arrive.tolist(), work.tolist(), strict=True):
        k = min(range(workers), key=lambda k: float(ends[k]))
        begins = max(float(ends[k]), came) if idle else float(ends[k])
        ends[k] = begins + takes
        waited.append({"answer": begins + takes - came, "wait": begins - came,
                       "time": begins + takes}[of])  # fmt: skip
    return torch.tensor(waited, dtype=torch.float64)


latencies.variants(
    _queue,
    {
        "This is the time until the worker begins. The client waits for the answer:"
        " add the request's own work.": {"of": "wait"},
        "This is the time of day at which each is answered. Subtract its arrival.": {"of": "time"},
        "The worker never rests: it begins with a request before that has come."
        " It begins at the later of two times.": {"idle": False},
        "Two workers answer side by side. There is one.": {"workers": 2},
    },
)


@latencies.mistake(
    "This is the work alone, as it is measured where the model runs. The client also waits while"
    " others are answered."
)
def _(arrive, work):
    return work.clone()


@latencies.mistake(
    "A request waits for the one before it alone, as if that had begun the moment it came."
    " It may have waited itself: carry on when the worker is free."
)
def _(arrive, work):
    waited = work.clone()
    for i in range(1, len(work)):
        waited[i] += max(0.0, float(arrive[i - 1] + work[i - 1] - arrive[i]))
    return waited


@latencies.mistake(
    "The worker is free from time 0 on. Times may be negative: before the first request it is free"
    " whenever that comes."
)
def _(arrive, work):
    return _queue(arrive, work, free=lambda arrive: max(0.0, float(arrive[0])))


# --------------------------------------------------------------------------------- 3. drift score
# inputs
def _apart(m, bins):
    """The next number of values, from `m` on, no quantile k / `bins` of which is a value."""
    while any((m - 1) * k % bins == 0 for k in range(1, bins)):
        m += 1
    return m


def _windows(ties=False, empty=False):
    """A reference and a window of other size, in any unit, shifted by some of their spread."""

    def draw(generator):
        m, n = whole(generator, 60, 120), whole(generator, 15, 50)
        bins = whole(generator, 3, 8)
        if ties:
            # quantiles that are values of the reference, to the last bit
            bins = (4, 8)[whole(generator, 0, 2)]
            m = 1 + bins * whole(generator, 7, 15)
        else:
            m = _apart(m, bins)  # else the last bit of k / bins decides where a value lies
        unit = power(generator, -5, 6)
        reference = torch.randn(m, generator=generator, dtype=torch.float64)
        window = 0.4 + 1.3 * torch.randn(n, generator=generator, dtype=torch.float64)
        if empty:
            window = (1 - 2 * whole(generator, 0, 2)) * (3 + 0.1 * window)
        if ties:
            # values of the window that are edges: they belong to the bin above
            window[: bins - 1] = reference.sort().values[:: m // bins][1:-1]
        return reference * unit, window * unit, bins

    return draw


def _number(answer, *args):
    return scalar(answer(*args), "the result")


# reference
@exercise(
    [_windows(), _windows(empty=True), _windows(ties=True)],
    points=2,
    grad=False,
    call=_number,
    hints=(
        "Which of the two says where the bins lie? What would an empty bin do to the logarithm?",
        (
            "Edges: `torch.quantile(reference, k / bins)` for k from 1 to bins - 1."
            " `torch.bucketize(values, edges, right=True)` says in which bin each value lies."
        ),
        (
            "p and q are (counts + 0.5) / (number of values + 0.5 * bins);"
            " the index is `((q - p) * (q / p).log()).sum()`."
        ),
    ),
)
def drift_score(reference, window, bins):
    """The population stability index, equation 4.

    reference: float64 [m]. window: float64 [n].
    bins: how many; their inner edges are the quantiles k / bins
        of the reference, k = 1, ..., bins - 1 (torch.quantile).
        A value that is equal to an edge lies in the bin above.
    The share of a bin is (count + 1/2) / (values + bins / 2), so
    that no share is 0.
    Return the sum over bins of (q - p) log(q / p), a number, with
    p the shares of the reference and q those of the window.
    """
    ### BEGIN SOLUTION
    steps = torch.arange(1, bins).to(reference) / bins
    edges = reference.quantile(steps)
    shares = []
    for values in (reference, window):
        places = torch.bucketize(values, edges, right=True)
        count = torch.bincount(places, minlength=bins)
        shares.append((count + 0.5) / (len(values) + 0.5 * bins))
    p, q = shares
    return ((q - p) * (q / p).log()).sum()
    ### END SOLUTION


# laws
@drift_score.law("a window like the reference, value for value, scores 0")
def _(answer, reference, window, bins):
    return abs(float(answer(reference, reference.clone(), bins))) < 1e-12


@drift_score.law("another unit, and another zero, have the same score")
def _(answer, reference, window, bins):
    unit = reference.abs().max()
    one = float(answer(reference, window, bins))
    # a power of two, so that no value moves across an edge
    return abs(float(answer(reference * 4, window * 4, bins)) - one) < 1e-9 and unit > 0


@drift_score.law("the order of the requests does not count")
def _(answer, reference, window, bins):
    other = float(answer(reference.flip(0), window.flip(0), bins))
    return abs(other - float(answer(reference, window, bins))) < 1e-9


drift_score.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _index(reference, window, bins, edges="reference", smooth=0.5, right=True, form="psi"):
    """The index with one thing changed."""
    steps = torch.arange(1, bins).to(reference) / bins
    if edges == "equal":
        low, high = reference.min(), reference.max()
        cuts = low + steps * (high - low)
    else:
        cuts = {"reference": reference, "window": window,
                "both": torch.cat([reference, window])}[edges].quantile(steps)  # fmt: skip
    shares = []
    for values in (reference, window):
        count = torch.bincount(torch.bucketize(values, cuts, right=right), minlength=bins)
        shares.append((count + smooth) / (len(values) + smooth * bins))
    p, q = shares
    if form == "kl":
        return (q * (q / p).log()).sum()
    if form == "reverse":
        return (p * (p / q).log()).sum()
    if form == "mean":
        return ((q - p) * (q / p).log()).mean()
    if form == "square":
        return ((q - p) ** 2 / p).sum()
    return ((q - p) * (q / p).log()).sum()


drift_score.variants(
    _index,
    {
        "The bins are cut at quantiles of the window, so they move along with what they should"
        " notice. Take those of the reference.": {"edges": "window"},
        "The bins are cut at quantiles of both together. Take those of the reference alone.": {
            "edges": "both"
        },
        "The bins are equally wide. Cut them at quantiles, so that each holds as many values of"
        " the reference.": {"edges": "equal"},
        "Each bin gets one value more; it is half a value.": {"smooth": 1.0},
        "An empty bin has the share 0, and the score is not finite: give each bin half a value"
        " more.": {"smooth": 0.0},
        "A value on an edge lies in the bin above; yours is in the one below.": {"right": False},
        "This is the divergence of the window from the reference, q log(q / p):"
        " the index has the difference of the shares as its factor.": {"form": "kl"},
        "This is the divergence of the reference from the window."
        " The index counts both directions.": {"form": "reverse"},
        "You take the mean over the bins. It is a sum.": {"form": "mean"},
        "This is the chi-squared distance. The index has a logarithm.": {"form": "square"},
    },
)


@drift_score.mistake(
    "The half values are added, and the number of all values is not: the shares sum to more than"
    " one. Add bins / 2 below."
)
def _(reference, window, bins):
    edges = reference.quantile(torch.arange(1, bins).to(reference) / bins)
    p, q = (
        (torch.bincount(torch.bucketize(v, edges, right=True), minlength=bins) + 0.5) / len(v)
        for v in (reference, window)
    )
    return ((q - p) * (q / p).log()).sum()


# ------------------------------------------------------------------------------------ 4. roll-back
# inputs
def _incident(kind):
    """Versions in use one after the other; `kind` says what is wrong with which."""

    def draw(generator):
        count = whole(generator, 4, 7)
        numbers = different(generator, count, 1, 40)
        history = [f"v{k}" for k in numbers]
        tolerance, most = power(generator, -5, -1), 0.02
        reports = {}
        for version in history:
            answered = whole(generator, 200, 900)
            reports[version] = {
                "difference": tolerance * 0.9 * float(torch.rand((), generator=generator)),
                "answered": answered,
                "refused": whole(generator, 0, 2 * answered),
                "failed": whole(generator, 0, answered // 100),
            }
        last, before = reports[history[-1]], reports[history[-2]]
        if kind == "close":
            last["difference"] = tolerance * (1 + 1e-9)
        elif kind == "nan":
            last["difference"] = math.nan
        elif kind == "fresh":
            last["answered"] = last["failed"] = 0
        elif kind == "dead":
            # it answered nothing, and yet some have reached it; the two before are ill as well
            last["answered"], last["failed"] = 0, 1 + whole(generator, 0, 9)
            before["failed"] = before["answered"]
            reports[history[-3]]["difference"] = 2 * tolerance
        elif kind == "rude":
            last["failed"], before["difference"] = last["answered"] // 5, math.nan
        elif kind == "none":
            for report in reports.values():
                report["difference"] = 2 * tolerance
        elif kind == "edge":
            # 2 of 62 are too many, of 120 they would not be
            last["answered"], last["failed"] = 60, 2
        elif kind == "busy":
            # many failed, and that is a small share
            last["answered"], last["failed"] = 9000, 60
        return history, shuffled(generator, reports), tolerance, most

    return draw


def _version(answer, *args):
    return {"version": str(required(answer(*args)))}


# reference
def _hasty(history, reports, tolerance, most):
    """Which version answers from now on?

    history: list of versions, the oldest first; the last is in
        use.
    reports: dict version -> dict with "difference", the largest
        between its golden answers and what it says now, NaN if it
        says NaN; and "answered", "refused", "failed", how many
        requests got 200, a 4xx and a 500.
    A version is healthy if its difference is at most `tolerance`,
    and if at most the share `most` of the requests that reached
    the model, answered or failed, have failed. A version that no
    request has reached is judged by its difference alone.
    Return the newest healthy version; "none" if there is none.
    """
    report = reports[history[-1]]
    errors = report["refused"] + report["failed"]
    if report["difference"] > tolerance:
        return history[-2]
    if errors > most * report["answered"]:
        return history[-2]
    return history[-1]


@exercise(
    [_incident(k) for k in ("close", "nan", "fresh", "dead", "rude", "none", "edge", "busy")],
    points=2,
    grad=False,
    device=False,
    starter=_hasty,
    call=_version,
    hints=(
        "Whose fault is a 4xx? What is `nan > tolerance`? And who says that the version before was"
        " any better?",
        (
            "Three things are wrong: which requests count as failures, and of which they are a"
            " share; how NaN compares; and that one step back is taken unseen."
        ),
        (
            "Go through `reversed(history)`. Healthy means `difference <= tolerance` and"
            " `failed <= most * (answered + failed)`."
        ),
    ),
)
def roll_back(history, reports, tolerance, most):
    for version in reversed(history):
        report = reports[version]
        reached = report["answered"] + report["failed"]
        good = report["difference"] <= tolerance
        if good and report["failed"] <= most * reached:
            return version
    return "none"


# laws
@roll_back.law("clients that send nonsense change nothing")
def _(answer, history, reports, tolerance, most):
    rude = {name: report | {"refused": 10**6} for name, report in reports.items()}
    plain = {name: dict(report) for name, report in reports.items()}
    return answer(list(history), rude, tolerance, most) == answer(
        list(history), plain, tolerance, most
    )


@roll_back.law("what is on a limit is within it")
def _(answer, history, reports, tolerance, most):
    edge = {"difference": tolerance, "answered": 3, "refused": 0, "failed": 1}
    now = {name: dict(report) for name, report in reports.items()} | {history[-1]: edge}
    return answer(list(history), now, tolerance, 0.25) == history[-1]


roll_back.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _back(
    history, reports, tolerance, most, count=("failed",), of=("answered", "failed"),
    nan=False, order=-1, drift=True, errors=True, fallback=None,
):  # fmt: skip
    """The choice with one thing changed."""
    for version in history[::order]:
        report = reports[version]
        difference = report["difference"]
        good = not difference > tolerance if nan else difference <= tolerance
        bad = sum(report[name] for name in count)
        within = bad <= most * sum(report[name] for name in of)
        if (good or not drift) and (within or not errors):
            return version
    return "none" if fallback is None else history[fallback]


roll_back.variants(
    _back,
    {
        "Requests that were refused count as failures. A 4xx is the client's fault: anyone could"
        " roll your model back by sending nonsense.": {"count": ("failed", "refused")},
        "A NaN passes: it is not larger than anything. Ask whether the difference is at most the"
        " tolerance.": {"nan": True},
        "You return the oldest healthy version. The newest is asked for.": {"order": 1},
        "The golden answers are not looked at: a version may answer quickly, and wrongly.": {
            "drift": False
        },
        "Failed requests are not looked at: golden answers are few, and live requests many.": {
            "errors": False
        },
        "Where no version is healthy, an ill one is returned. Return the word `none`: then a person"
        " has to decide.": {"fallback": -1},
        "Where no version is healthy, the oldest is returned. Return the word `none`: then a person"
        " has to decide.": {"fallback": 0},
        "The share is taken of all requests, the refused ones too. Nonsense then hides failures:"
        " take it of those that reached the model.": {"of": ("answered", "failed", "refused")},
    },
)


@roll_back.mistake(
    "The number of failures is compared, not their share. A busy version fails more often, and an"
    " idle one hardly ever."
)
def _(history, reports, tolerance, most):
    for version in reversed(history):
        report = reports[version]
        if report["difference"] <= tolerance and report["failed"] <= most:
            return version
    return "none"


@roll_back.mistake(
    "A version that has answered nothing is taken for one that no request has reached. Those that"
    " failed have reached it, too."
)
def _(history, reports, tolerance, most):
    for version in reversed(history):
        report = reports[version]
        if report["difference"] <= tolerance and (
            report["answered"] == 0
            or report["failed"] <= most * (report["answered"] + report["failed"])
        ):
            return version
    return "none"


@roll_back.mistake(
    "One step back is taken unseen. The version before may be ill as well: judge it like the last."
)
def _(history, reports, tolerance, most):
    last = _back(history[-1:], reports, tolerance, most)
    return history[-2] if last == "none" else last


roll_back.mistake(
    "These are the three holes of the first version. Whose fault is a 4xx, what is `nan > 1`, and"
    " is the version before any better?"
)(lambda *args: _hasty(*args))
