"""Exercises of chapter 23: trust."""

import math

import torch

from ..checks.exercise import exercise
from .inputs import LEAVES_NO_TRACE, different, filled, leaves_no_trace, shuffled, uniform, whole
from .outcomes import scalar


def _score(answer, *args):
    return scalar(answer(*args), "the result")


# --------------------------------------------------------------------------- 1. clipping and noise
# inputs
def _rows(size=1.0, none=False):
    """Gradients of some rows for three parameters, by name; one row is zero, some are short.

    none: whether no row was drawn.
    """

    def draw(generator):
        rows = 0 if none else whole(generator, 4, 8)
        a, b, c = different(generator, 3, 2, 6)
        shapes = {"trunk.w": (a, b), "trunk.b": (b,), "head of tasks": (1, c)}
        clip = size * uniform(generator, 0.5, 2.0)
        lengths = size * 10 ** (2 * torch.rand(rows, generator=generator, dtype=torch.float64) - 1)
        gradients = {
            name: torch.randn(rows, *shape, generator=generator, dtype=torch.float64)
            for name, shape in shapes.items()
        }
        if rows:
            length = torch.cat([g.flatten(1) for g in gradients.values()], 1).norm(dim=1)
            factor = lengths / length
            factor[whole(generator, 0, rows)] = 0.0
            gradients = {
                name: (factor * g.movedim(0, -1)).movedim(-1, 0) for name, g in gradients.items()
            }
        normal = {
            name: torch.randn(shape, generator=generator, dtype=torch.float64)
            for name, shape in shapes.items()
        }
        noise = uniform(generator, 0.5, 3.0)
        expected = rows + uniform(generator, 1.0, 3.0)
        return shuffled(generator, gradients), shuffled(generator, normal), clip, noise, expected

    return draw


# reference
@exercise(
    [_rows(), _rows(size=1e-5), _rows(none=True)],
    points=3,
    grad=False,
    rtol=1e-6,
    atol=1e-13,
    hints=(
        "What is the length of one row's gradient, if it lies in three tensors?",
        (
            "Add up the squares of a row over all tensors; the root is its length. A row that is"
            " longer than C is multiplied by C / length, in all tensors alike. Others stay."
        ),
        (
            "Per tensor: the sum over rows of factor times gradient, plus noise * clip * normal,"
            " all divided by `expected`. A row of zeros has the factor 1."
        ),
    ),
)
def noisy_mean(gradients, normal, clip, noise, expected):
    """The private mean of equation 2, a dict name -> tensor.

    gradients: dict name -> [B, ...], row b's gradient for each
        parameter. B may be 0, and a row may be all zeros.
    normal: dict name -> [...], standard normal numbers. The noise
        is these, times `noise` times `clip`.
    clip: C > 0, the most that a row's *whole* gradient, over all
        parameters together, may measure.
    noise: sigma >= 0. expected: the batch size to divide by.
    """
    ### BEGIN SOLUTION
    squares = [g.flatten(1).square().sum(1) for g in gradients.values()]
    length = sum(squares).sqrt()
    factor = torch.where(length > clip, clip / length, 1.0)
    means = {}
    for name, g in gradients.items():
        total = torch.tensordot(factor, g, dims=1)
        means[name] = (total + noise * clip * normal[name]) / expected
    return means
    ### END SOLUTION


# laws
@noisy_mean.law("one row more moves the whole sum by no more than C")
def _(answer, gradients, normal, clip, noise, expected):
    first = {name: g[:1] * 1e3 for name, g in gradients.items()}
    more = {name: torch.cat([g, first[name]]) for name, g in gradients.items()}
    a = answer(gradients, normal, clip, noise, expected)
    b = answer(more, normal, clip, noise, expected)
    moved = sum(float((a[n] - b[n]).square().sum()) for n in gradients) ** 0.5 * expected
    return moved <= clip * (1 + 1e-6)


noisy_mean.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _lengths(gradients):
    return sum(g.flatten(1).square().sum(1) for g in gradients.values()).sqrt()


def _noisy(
    gradients,
    normal,
    clip,
    noise,
    expected,
    factor=lambda length, clip: torch.where(length > clip, clip / length, 1.0),
    scale=True,
    real=False,
    late=False,
):
    """The answer with one thing changed."""
    f = factor(_lengths(gradients), clip)
    means = {}
    for name, g in gradients.items():
        total = torch.tensordot(f.to(g), g, dims=1)
        n = noise * (clip if scale else 1.0) * normal[name]
        by = max(len(g), 1) if real else expected
        means[name] = total / by + n if late else (total + n) / by
    return means


noisy_mean.variants(
    _noisy,
    {
        "Short rows are made longer: only what is longer than C is scaled, and down.": {
            "factor": lambda length, clip: torch.where(length > 0, clip / length, 0.0)
        },
        "The noise does not know the clip: its deviation is sigma times C, since C is the most that"
        " one row can change.": {"scale": False},
        "You divide by the rows that were drawn. Their number depends on who is in the data: divide"
        " by the number that was expected.": {"real": True},
        "The noise is added after the division. It belongs to the sum.": {"late": True},
        "Nothing is clipped: one long row can move the sum as far as it likes.": {
            "factor": lambda length, clip: torch.ones_like(length)
        },
        "The factor is C over the *square* of the length.": {
            "factor": lambda length, clip: torch.where(length > clip, clip / length**2, 1.0)
        },
        "Your length has an absolute number added, which is not small where gradients are: C /"
        " (length + 1e-6) shortens too much.": {
            "factor": lambda length, clip: (clip / (length + 1e-6)).clamp(max=1.0)
        },
    },
)


@noisy_mean.mistake(
    "Each parameter's gradient is clipped by itself. Then one row can move the whole by C times the"
    " root of their number: take the length over all parameters together."
)
def _(gradients, normal, clip, noise, expected):
    means = {}
    for name, g in gradients.items():
        one = _noisy({name: g}, normal, clip, noise, expected)
        means[name] = one[name]
    return means


@noisy_mean.mistake(
    "The sum is clipped, not the rows. A single row can then still turn it around."
)
def _(gradients, normal, clip, noise, expected):
    total = {name: g.sum(0, keepdim=True) for name, g in gradients.items()}
    return _noisy(total, normal, clip, noise, expected)


@noisy_mean.mistake(
    "Every number is cut to between -C and C. The length of a row with many numbers is then far"
    " above C: scale the row as a whole."
)
def _(gradients, normal, clip, noise, expected):
    return {
        name: (g.clamp(-clip, clip).sum(0) + noise * clip * normal[name]) / expected
        for name, g in gradients.items()
    }


# ------------------------------------------------------------------------------ 2. what was spent
# inputs
def _releases(large=False):
    """Trainings and other uses of some blocks of people, and a delta, which may be large.

    One training is done twice, on the same people at the same cost: that costs twice.
    """

    def draw(generator):
        uses = _uses(generator)
        return uses, uniform(generator, 0.05, 0.5) if large else 10.0 ** -whole(generator, 3, 8)

    return draw


def _only_read(generator):
    """Nobody's rows were touched: the promise is 0."""
    uses = [use for use in _uses(generator) if use[0] == "reads the model"]
    return uses, 10.0 ** -whole(generator, 3, 8)


def _uses(generator):
    blocks = whole(generator, 3, 6)
    everyone = list(range(blocks))
    uses = [("thrown away", everyone, uniform(generator, 0.05, 0.4))] * 2
    for kind in ("kept", "kept", "thrown away", "reads the model"):
        for _ in range(whole(generator, 1, 3)):
            people = different(generator, whole(generator, 1, blocks), 0, blocks)
            uses.append((kind, people, uniform(generator, 0.05, 0.4)))
    order = torch.randperm(len(uses), generator=generator).tolist()
    return [uses[k] for k in order]


# reference
@exercise(
    [_releases(), _releases(large=True), _only_read],
    points=2,
    grad=False,
    device=False,
    call=_score,
    hints=(
        "Whose privacy is it? For one block of people at a time, what were its own rows used for?",
        (
            "A block's rho is the sum over the trainings that saw it, also of those that were"
            " thrown away. Reading a finished model costs nothing. The promise is for the block"
            " that was used most."
        ),
        "Only at the end make one epsilon of the largest rho: rho + 2 sqrt(rho ln(1 / delta)).",
    ),
)
def promise(uses, delta):
    """The smallest epsilon that may be promised to everybody.

    uses: list of (kind, people, rho). `people` is a list of block
        numbers: whose rows it touched. Each person is in one
        block. `rho` is what the training costs by equation 4.
        kind: "kept", a private training whose model is used;
        "thrown away", a private training for a rate that lost;
        "reads the model", anything that looks only at models that
        are finished, and not at rows.
    delta: of the promise.
    Return epsilon by equation 5, a number.
    """
    ### BEGIN SOLUTION
    spent = {}
    for kind, people, rho in uses:
        if kind == "reads the model":
            continue
        for block in people:
            spent[block] = spent.get(block, 0.0) + rho
    rho = max(spent.values(), default=0.0)
    return rho + 2 * math.sqrt(rho * math.log(1 / delta))
    ### END SOLUTION


# laws
@promise.law("a use of people who were not used before costs the others nothing")
def _(answer, uses, delta):
    if all(kind == "reads the model" for kind, _, _ in uses):
        return True  # then it is the only training
    more = [*uses, ("kept", [99], 1e-6)]
    return abs(float(answer(more, delta)) - float(answer(uses, delta))) < 1e-9


@promise.law("reading a finished model once more costs nothing")
def _(answer, uses, delta):
    more = [*uses, ("reads the model", uses[0][1], 9.0)]
    return abs(float(answer(more, delta)) - float(answer(uses, delta))) < 1e-9


promise.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _epsilon(rho, delta):
    return rho + 2 * math.sqrt(rho * math.log(1 / delta))


def _promise(
    uses, delta, count=("kept", "thrown away"), each=sum, blocks=max, last=_epsilon, every=False
):
    """The answer with one thing changed."""
    spent = {}
    for kind, people, rho in uses:
        if kind in count:
            for block in people:
                spent.setdefault(block, []).append(rho)
    return last(blocks([each(costs) for costs in spent.values()]), delta)


promise.variants(
    _promise,
    {
        "Trainings that were thrown away are left out. They chose the rate, so what you publish"
        " depends on them.": {"count": ("kept",)},
        "Reading a finished model is charged. Whatever is made of a private model alone is as"
        " private as the model.": {"count": ("kept", "thrown away", "reads the model")},
        "Only the dearest use of a block counts. Uses of the same rows add up.": {"each": max},
        "This is the promise to the block that was used least. It must hold for everybody.": {
            "blocks": min
        },
        "You return rho. An epsilon at this delta is rho + 2 sqrt(rho ln(1 / delta)).": {
            "last": lambda rho, delta: rho
        },
        "The logarithm is to base 10; equation 5 has the natural one.": {
            "last": lambda rho, delta: rho + 2 * math.sqrt(rho * math.log10(1 / delta))
        },
        "The first term is missing: rho + 2 sqrt(...).": {
            "last": lambda rho, delta: 2 * math.sqrt(rho * math.log(1 / delta))
        },
        "The 2 before the root is missing.": {
            "last": lambda rho, delta: rho + math.sqrt(rho * math.log(1 / delta))
        },
    },
)


@promise.mistake(
    "All uses are added up, whoever's rows they touched. A person is in one block only: what"
    " others' rows were used for says nothing of that person."
)
def _(uses, delta):
    return _epsilon(sum(rho for kind, _, rho in uses if kind != "reads the model"), delta)


@promise.mistake(
    "You add up epsilons. That is allowed and wastes budget: add the rhos up and turn the sum into"
    " one epsilon at the end."
)
def _(uses, delta):
    spent = {}
    for kind, people, rho in uses:
        if kind != "reads the model":
            for block in people:
                spent[block] = spent.get(block, 0.0) + _epsilon(rho, delta)
    return max(spent.values())


# --------------------------------------------------------------------------- 3. membership score
# inputs
def _models(mixed=False, sure=False):
    """Logits of some models for some rows and tasks, labels, and who saw what.

    Every row is unknown to two models at least. mixed: whether a row may be known to any number.
    sure: one row and logits in the hundreds, whose probabilities are exactly 0 and 1.
    """

    def draw(generator):
        models, rows, tasks = different(generator, 3, 4, 9)
        rows = 1 if sure else rows
        logits = torch.randn(models, rows, tasks, generator=generator, dtype=torch.float64)
        logits *= 300 if sure else 3
        labels = torch.randint(2, (rows, tasks), generator=generator)
        order = torch.rand(models, rows, generator=generator).argsort(0)
        seen = models // 2
        if mixed:
            seen = torch.randint(0, models - 1, (rows,), generator=generator)
        return logits, labels, order < seen

    return draw


# reference
@exercise(
    [_models(), _models(mixed=True), _models(sure=True)],
    points=3,
    grad=False,
    hints=(
        "How sure is a model of the right answers to a row? And how sure would it be, had it not"
        " seen the row?",
        (
            "Log odds of the right label: the logit where the label is 1, minus the logit where it"
            " is 0. Add up over tasks. Then take the mean over the *other* models whose `member` is"
            " False."
        ),
        (
            "With `out = ~member`: the sum of s * out over models, minus the model's own s * out,"
            " divided by out.sum(0) minus its own out."
        ),
    ),
)
def membership_score(logits, labels, member):
    """How much surer each model is of a row than others: [R, N].

    logits: [R, N, T], model r's logit of a yes for row n and
        task t; in the hundreds, for a model that is very sure.
    labels: int64 [N, T], 0 or 1.
    member: bool [R, N], whether model r trained on row n. Each
        row was unseen by at least two models.
    Return for every model and row its log odds of the right
    label, summed over the tasks, minus the mean of that sum over
    the other models that did not train on the row.
    """
    ### BEGIN SOLUTION
    sure = (logits * (2 * labels - 1)).sum(2)
    out = (~member).to(sure)
    unseen = sure * out
    rest = unseen.sum(0) - unseen
    return sure - rest / (out.sum(0) - out)
    ### END SOLUTION


# laws
@membership_score.law("a row that all models find easier has the same scores")
def _(answer, logits, labels, member):
    easier = logits + 2.0 * (2 * labels - 1)
    return torch.allclose(answer(easier, labels, member), answer(logits, labels, member))


@membership_score.law("to call a yes a no, in labels and logits, changes nothing")
def _(answer, logits, labels, member):
    return torch.allclose(
        answer(-logits, 1 - labels, member), answer(logits, labels, member)
    )


membership_score.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _membership(logits, labels, member, sure=None, among=None, own=False, tasks=torch.sum):
    """The answer with one thing changed."""
    sign = 2 * labels - 1
    s = tasks(logits * sign if sure is None else sure(logits * sign, logits, labels), 2)
    out = (~member).to(s) if among is None else among(member).to(s)
    unseen = s * out
    if own:
        return s - unseen.sum(0) / out.sum(0)
    return s - (unseen.sum(0) - unseen) / (out.sum(0) - out)


membership_score.variants(
    _membership,
    {
        "A model that has not seen the row stands in its own mean. The attacker does not have the"
        " attacked model's answer twice: leave it out.": {"own": True},
        "All other models are in the mean, also those that trained on the row.": {
            "among": lambda member: torch.ones_like(member)
        },
        "The logit of a yes counts, whatever the label is. Where the label is 0, being sure means a"
        " low logit.": {"sure": lambda signed, logits, labels: logits},
        "The tasks' log odds are averaged: the docstring asks for their sum.": {
            "tasks": torch.mean
        },
        "This is the log of the probability, not the log odds. For rows that fit well it crowds at"
        " zero.": {"sure": lambda signed, logits, labels: torch.nn.functional.logsigmoid(signed)},
        "Only the first task is used. Whoever gets several answers reads them all.": {
            "tasks": lambda s, dim: s[..., 0]
        },
    },
)


@membership_score.mistake(
    "The sign is turned. Members should score high: the model's own, minus the others' mean."
)
def _(logits, labels, member):
    return -_membership(logits, labels, member)


@membership_score.mistake(
    "Nothing is subtracted. An easy row then looks like a member whoever trained on it."
)
def _(logits, labels, member):
    return (logits * (2 * labels - 1)).sum(2)


@membership_score.mistake(
    "The mean runs over the other models that *did* train on the row. Compare with those that did"
    " not."
)
def _(logits, labels, member):
    s = (logits * (2 * labels - 1)).sum(2)
    seen = member.to(s)
    return s - (s * seen).sum(0).sub(s * seen) / (seen.sum(0) - seen)


# ---------------------------------------------------------------------------- 4. equalised odds
# inputs
def _people(many=False):
    """Answers, truth and groups of some people; each group has true yeses and true noes.

    many: four to six groups, else two. Their numbers are any whole numbers; of many, one is
    negative, and two are neighbours that 32 bits do not tell apart.
    """

    def draw(generator):
        names = different(generator, whole(generator, 4, 7) if many else 2, 0, 50)
        if many:
            names[:3] = [-7, 2**24, 2**24 + 1]
        said, truth, group = [], [], []
        for name in names:
            rates = torch.rand(2, generator=generator)
            for label in (0, 1):
                n = whole(generator, 5, 20)
                yes = torch.rand(n, generator=generator) < rates[label]
                said.append(yes.long())
                truth.append(torch.full((n,), label))
                group.append(torch.full((n,), name))
        order = torch.randperm(sum(map(len, said)), generator=generator)
        return tuple(torch.cat(parts)[order] for parts in (said, truth, group))

    return draw


# reference
@exercise(
    [_people(), _people(many=True)],
    points=2,
    grad=False,
    call=_score,
    hints=(
        "Of the people of a group whose true label is a yes, how many get one? And of those whose"
        " true label is a no?",
        (
            "Two rates per group: the mean of `said` where truth is 1, and where truth is 0. For"
            " each of the two: the largest over groups minus the smallest."
        ),
        "`max(rates) - min(rates)` over the groups for each label, then the larger of the two.",
    ),
)
def odds_gap(said, truth, group):
    """The equalised-odds gap of equation 7, a number in [0, 1].

    said: int64 [N], 0 or 1, the answers. truth: int64 [N], 0 or 1.
    group: int64 [N], each person's group: two groups or more, with
        any numbers for names. Every group has someone with truth 1
        and someone with truth 0.
    """
    ### BEGIN SOLUTION
    gaps = []
    for label in (0, 1):
        rates = []
        for name in group.unique():
            ours = (group == name) & (truth == label)
            rates.append(said[ours].double().mean())
        gaps.append(max(rates) - min(rates))
    return max(gaps)
    ### END SOLUTION


# laws
@odds_gap.law("answers that are always right have no gap")
def _(answer, said, truth, group):
    return abs(float(answer(truth.clone(), truth, group))) < 1e-9


@odds_gap.law("a yes for everyone has no gap, although it helps nobody")
def _(answer, said, truth, group):
    return abs(float(answer(torch.ones_like(said), truth, group))) < 1e-9


@odds_gap.law("exchanging yes and no changes nothing")
def _(answer, said, truth, group):
    return abs(float(answer(1 - said, 1 - truth, group)) - float(answer(said, truth, group))) < 1e-5


odds_gap.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _rates(said, truth, group, label, by="truth"):
    names = group.unique().tolist()
    if by == "said":  # of those who got this answer, how many are a true yes
        cells = [truth[(group == n) & (said == label)] for n in names]
        return [float(c.double().mean()) if len(c) else 0.0 for c in cells]
    if by == "all":
        return [float(said[group == n].double().mean()) for n in names]
    if by == "right":
        return [float((said == truth)[group == n].double().mean()) for n in names]
    return [float(said[(group == n) & (truth == label)].double().mean()) for n in names]


def _gap(
    said, truth, group, labels=(0, 1), by="truth", of=lambda r: max(r) - min(r), combine=max
):
    """The gap with one thing changed."""
    return combine([of(_rates(said, truth, group, label, by)) for label in labels])


odds_gap.variants(
    _gap,
    {
        "Only true positives are compared (equal opportunity). Equalised odds asks for false"
        " positives as well.": {"labels": (1,)},
        "Only false positives are compared. Equalised odds asks for true positives as well.": {
            "labels": (0,)
        },
        "The shares of yes are compared, whatever the truth is: that is demographic parity.": {
            "by": "all"
        },
        "Accuracies are compared. A group may be judged as accurately and still get its yeses less"
        " often.": {"by": "right"},
        "You divide by those who *got* the answer. The rates are shares of those whose truth is a"
        " yes or a no.": {"by": "said"},
        "The two differences are added up: take the larger one.": {"combine": sum},
        "The smaller of the two differences is returned.": {"combine": min},
        "The mean of the two differences is returned; a large one must not hide behind a small.": {
            "combine": lambda gaps: sum(gaps) / 2
        },
        "Only the first two groups are compared. Take the largest and the smallest over all.": {
            "of": lambda r: abs(r[0] - r[1])
        },
        "The difference has a sign. Take the largest rate minus the smallest.": {
            "of": lambda r: r[0] - r[-1]
        },
    },
)


# ---------------------------------------------------------------------------- 5. deletion curve
# inputs
def _explained(generator):
    """A small network of several tasks, rows, a baseline that is not zero, and scores.

    Two scores of each row differ in the tenth digit only.
    """
    rows, d, width = different(generator, 3, 3, 8)
    tasks = whole(generator, 2, 5)
    layers = (torch.nn.Linear(d, width), torch.nn.Tanh(), torch.nn.Linear(width, tasks))
    model = filled(torch.nn.Sequential(*layers), generator).double()
    x = 2 * torch.randn(rows, d, generator=generator, dtype=torch.float64)
    baseline = torch.randn(d, generator=generator, dtype=torch.float64)
    scores = torch.randn(rows, d, generator=generator, dtype=torch.float64)
    scores[:, 1] = scores[:, 0] + 1e-10
    return model, whole(generator, 0, tasks), x, baseline, scores


# reference
@exercise(
    [_explained],
    points=2,
    grad=False,
    hints=(
        "What has a row lost after k columns are deleted? Which columns are that, in each row?",
        (
            "`scores.argsort(1, descending=True)` is each row's own order. Keep a copy of x, put"
            " the baseline into the next column of every row, and ask the model again."
        ),
        (
"For k = 0, ..., d: `torch.where(place < k, baseline, x)`, where `place` is the place of each"
            " column in its row's order; then the mean of `model(...)[:, task]`."
        ),
    ),
)
def deletion(model, task, x, baseline, scores):
    """The deletion curve: [d + 1], a mean over the rows.

    model: [B, d] -> logits [B, T]. task: which of the T.
    x: [B, d]. baseline: [d], what a deleted column is set to.
    scores: [B, d], each row's own; no two of a row are equal.
    Entry k is the mean over the rows of the task's logit after
    the k columns with the highest scores of each row have been
    deleted.
    """
    ### BEGIN SOLUTION
    place = scores.argsort(1, descending=True).argsort(1)
    curve = []
    for k in range(x.shape[1] + 1):
        left = torch.where(place < k, baseline, x)
        curve.append(model(left)[:, task].mean())
    return torch.stack(curve).detach()
    ### END SOLUTION


# laws
@deletion.law("ends with what the model says of the baseline, and begins with what it says of x")
def _(answer, model, task, x, baseline, scores):
    curve = answer(model, task, x, baseline, scores)
    with torch.no_grad():
        ends = [model(x)[:, task].mean(), model(baseline[None])[0, task]]
    return torch.allclose(curve[[0, -1]], torch.stack(ends))


@deletion.law("only the order of the scores counts")
def _(answer, model, task, x, baseline, scores):
    one = answer(model, task, x, baseline, scores)
    return torch.allclose(one, answer(model, task, x, baseline, 3 * scores.exp()))


deletion.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _deleted(
    model, task, x, baseline, scores, first=True, value=None, alone=False, shared=False, skip=0
):
    """The curve with one thing changed."""
    if shared:
        scores = scores.mean(0, keepdim=True).expand_as(scores)
    place = scores.argsort(1, descending=first).argsort(1)
    base = baseline if value is None else value(x, baseline)
    curve = []
    for k in range(skip, x.shape[1] + 1):
        gone = place == k - 1 if alone else place < k
        curve.append(model(torch.where(gone, base, x))[:, task].mean())
    return torch.stack(curve).detach()


deletion.variants(
    _deleted,
    {
        "The lowest scores go first. Deletion begins with what is called most important.": {
            "first": False
        },
        "A deleted column becomes zero. Here a column that says nothing has the value of the"
        " baseline.": {"value": lambda x, baseline: torch.zeros_like(baseline)},
        "Each deletion is undone before the next: one column is missing at a time. Columns stay"
        " deleted.": {"alone": True},
        "All rows lose the same columns, by the mean of the scores. Each row has its own order.": {
            "shared": True
        },
        "The first entry is missing: what the model says before anything is deleted.": {"skip": 1},
        "A deleted column becomes the mean of the rows that were given, not the baseline.": {
            "value": lambda x, baseline: x.mean(0)
        },
    },
)


@deletion.mistake(
    "One argsort gives the columns in their order, not each column's place in it. Sort twice, or"
    " write into the columns that the first sort names."
)
def _(model, task, x, baseline, scores):
    place = scores.argsort(1, descending=True)
    curve = [
        model(torch.where(place < k, baseline, x))[:, task].mean() for k in range(x.shape[1] + 1)
    ]
    return torch.stack(curve).detach()


@deletion.mistake("The logits of all tasks are averaged: one task's curve is asked for.")
def _(model, task, x, baseline, scores):
    place = scores.argsort(1, descending=True).argsort(1)
    curve = [model(torch.where(place < k, baseline, x)).mean() for k in range(x.shape[1] + 1)]
    return torch.stack(curve).detach()


@deletion.mistake(
    "You return probabilities, after a sigmoid. The curve is of the logit, in which columns add up."
)
def _(model, task, x, baseline, scores):
    place = scores.argsort(1, descending=True).argsort(1)
    curve = [
        model(torch.where(place < k, baseline, x))[:, task].sigmoid().mean()
        for k in range(x.shape[1] + 1)
    ]
    return torch.stack(curve).detach()
