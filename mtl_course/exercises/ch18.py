"""Exercises of chapter 18: few-shot classification."""

import itertools
from collections import Counter

import torch
from torch.nn import functional as F

from ..checks.exercise import exercise
from .inputs import LEAVES_NO_TRACE, expect, leaves_no_trace, shuffled, uniform, whole
from .outcomes import named, required, scalar


# ------------------------------------------------------------------------------------ 1. prototypes
# inputs
def _features(counts, d, queries=4, size=1.0, mean=1.0):
    """Support features of classes with these numbers of examples, and queries.

    In mixed order; float64. size: of the features; mean: in units of that size.
    """

    def draw(generator):
        y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        y = y[torch.randperm(len(y), generator=generator)]
        z, query = (
            size * (torch.randn(n, d, generator=generator, dtype=torch.float64) + mean)
            for n in (len(y), queries)
        )
        return z, y, query, len(counts)

    return draw


# reference
@exercise(
    [
        _features([2, 2, 2], 4),
        _features([1, 3, 2, 4], 3),
        _features([3, 1, 2], 2, queries=5, size=4.0),
        _features([2, 3], 1, queries=1),
        _features([1, 2, 1], 6, size=40.0),  # every e^-distance rounds to 0
        _features([2, 1], 3, queries=2, mean=1e4),  # float32 does not tell them apart
    ],
    points=2,
    hints=(
        (
            "Which sign must a squared distance have before the softmax, so that the nearest"
            " class is the likeliest?"
        ),
        (
            "A prototype is the mean of z[y == k]. Then a softmax over the classes, of minus the"
            " squared distances."
        ),
        (
            "`torch.cdist(query, centres) ** 2` has the shape [q, ways]; softmax over its last"
            " dimension."
        ),
    ),
)
def nearest_prototype(z, y, query, ways):
    """What a prototypical network says about each query.

    z: features of the support [n, d]; y: their classes [n],
    0 to ways - 1 in any order, as many of each as there are;
    query: features [q, d]; all float64.
    Return the probabilities [q, ways].
    """
    ### BEGIN SOLUTION
    centres = torch.stack([z[y == k].mean(0) for k in range(ways)])
    away = torch.cdist(query, centres) ** 2
    return (-away).softmax(1)
    ### END SOLUTION


# laws
@nearest_prototype.law("moving everything by the same vector changes nothing")
def _(answer, z, y, query, ways):
    return torch.allclose(answer(z + 3.0, y, query + 3.0, ways), answer(z, y, query, ways))


# mistakes
def _away(query, points):
    return (query[:, None] - points).square().sum(-1)


def _nearest(
    z,
    y,
    query,
    ways,
    centre=lambda rows: rows.mean(0),
    away=_away,
    of=lambda far: (-far).softmax(-1),
):
    """The answer with one thing changed: what the mistakes below are made of."""
    return of(away(query, torch.stack([centre(z[y == k]) for k in range(ways)])))


nearest_prototype.variants(
    _nearest,
    {
        "Far from all prototypes every e^-distance rounds to 0, and 0 / 0 is no number: take a"
        " softmax of the negative squared distances, which guards against that.": {
            "of": lambda far: (-far).exp() / (-far).exp().sum(-1, True)
        },
        "The distance is not squared. With the square the classifier is linear in the features,"
        " and Gaussians stand behind it.": {
            "of": lambda far: (-far.sqrt()).softmax(-1)
        },
        "The prototype is a sum: divide by the number of examples of the class.": {
            "centre": lambda rows: rows.sum(0)
        },
        "The sign is turned round: the farthest class gets the highest probability.": {
            "of": lambda far: far.softmax(-1)
        },
        "The softmax runs over the queries."
        " It is to run over the classes, so that each row sums to 1.": {
            "of": lambda far: (-far).softmax(0)
        },
        "The squared distance is a sum over the features, not their mean.": {
            "away": lambda query, points: (query[:, None] - points).square().mean(-1)
        },
        "These are logits: a softmax over the classes is missing.": {"of": lambda far: -far},
        "These are log-probabilities: take softmax, not log_softmax.": {
            "of": lambda far: (-far).log_softmax(-1)
        },
        "You halve the squared distance, as a Gaussian of unit width does. Equation 2 does not.": {
            "of": lambda far: (-far / 2).softmax(-1)
        },
        "That is a scalar product, not a distance:"
        " a prototype that is far from zero wins too often.": {
            "away": lambda query, points: -query @ points.T
        },
    },
)


@nearest_prototype.mistake(
    "You take it that the support comes sorted by class. Ask y which rows belong to a class."
)
def _(z, y, query, ways):
    shots = len(z) // ways
    return (-_away(query, z[: ways * shots].reshape(ways, shots, -1).mean(1))).softmax(-1)


@nearest_prototype.mistake(
    "You sum up the probabilities of the examples, as a nearest-neighbour rule would:"
    " the mean over a class comes before the distance."
)
def _(z, y, query, ways):
    each = (-_away(query, z)).softmax(-1)
    return torch.stack([each[:, y == k].sum(-1) for k in range(ways)], -1)


@nearest_prototype.mistake(
    "You take the mean over a class of the distances to its examples:"
    " first the mean of the examples, then one distance. A class that is spread out loses here."
)
def _(z, y, query, ways):
    each = _away(query, z)
    return (-torch.stack([each[:, y == k].mean(-1) for k in range(ways)], -1)).softmax(-1)


@nearest_prototype.mistake(
    "The probabilities are right, but no gradient reaches the support: the prototypes are detached."
    " In training the network learns through them as well."
)
def _(z, y, query, ways):
    return _nearest(z.detach(), y, query, ways)


@nearest_prototype.mistake(
    "The prototypes stand in the order in which the classes come in y. Row k is class k."
)
def _(z, y, query, ways):
    centres = torch.stack([z[y == k].mean(0) for k in dict.fromkeys(y.tolist())])
    return (-_away(query, centres)).softmax(-1)


# --------------------------------------------------------------------- 2. an episode: spot the bugs
# inputs
def _labelled(classes, allowed, ways, shots, queries, spare=None, episodes=25):
    """Labels, and how many episodes are drawn.

    spare: examples of a class that are left over by an episode; None for one or none.
    """

    def draw(generator):
        left = torch.randint(2, (classes,), generator=generator) if spare is None else spare
        y = torch.arange(classes).repeat_interleave(
            torch.full((classes,), shots + queries) + left
        )
        y = y[torch.randperm(len(y), generator=generator)]
        return (
            y,
            torch.randperm(classes, generator=generator)[:allowed].tolist(),
            ways,
            shots,
            queries,
            episodes,
        )

    return draw


def _numbers(rows):
    """The row numbers of a support or of queries, which may be a list of tensors or of lists."""
    rows = list(rows)
    return torch.stack(rows) if isinstance(rows[0], torch.Tensor) else torch.as_tensor(rows)


def _evenly(sets, total):
    """Whether every set of so many of `total` things was drawn about equally often.

    By a chi-square statistic, ten standard deviations wide: one fair draw in ten million fails.
    """
    size = len(sets[0])
    drawn = Counter(tuple(sorted(s)) for s in sets)
    cells = list(itertools.combinations(range(total), size))
    expected, freedom = len(sets) / len(cells), len(cells) - 1
    statistic = sum((drawn[cell] - expected) ** 2 / expected for cell in cells)
    return statistic < freedom + 10 * (2 * freedom) ** 0.5


def _drawn(answer, y, classes, ways, shots, queries, episodes):
    """What is true of some episodes in a row, and of two with the same seed.

    Many episodes also show whether all classes and examples are drawn equally often.
    """
    kept = {"y": True, "classes": True}

    def tasks(g, times):
        drawn = []
        for _ in range(times):
            labels, allowed = y.clone(), list(classes)
            pair = required(answer(labels, allowed, ways, shots, queries, g))
            kept["y"] &= torch.equal(labels, y)
            kept["classes"] &= allowed == classes
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise ValueError("Return (support, query), the row numbers of each.")
            pair = tuple(map(_numbers, pair))
            if [part.shape for part in pair] != [(ways, shots), (ways, queries)]:
                raise ValueError(
                    f"Support and query are to be {ways} rows of {shots} and {ways} rows of"
                    f" {queries} row numbers; yours have the shapes {tuple(pair[0].shape)} and"
                    f" {tuple(pair[1].shape)}."
                )
            drawn.append(pair)
        return drawn

    def seeded(seed):
        return torch.Generator().manual_seed(seed)

    g = seeded(0)
    rows = torch.stack([torch.cat(pair, 1) for pair in tasks(g, 25)])  # [25, ways, shots + queries]
    labels = y[rows]

    def vary(rows, count):
        """Whether each class has shown more than `count` of its examples in these rows."""
        return all(len(set(rows[labels[..., 0] == c].flatten().tolist())) > count for c in classes)

    def same(a, b):
        return all(torch.equal(p, q) for one, two in zip(a, b) for p, q in zip(one, two))

    again, other = tasks(seeded(3), 3), tasks(seeded(4), 3)
    facts = {
        "a row of the answer is one class": bool((labels == labels[..., :1]).all()),
        "different classes in a task": all(len(set(t.tolist())) == ways for t in labels[..., 0]),
        "only classes that are allowed": set(labels.flatten().tolist()) <= set(classes),
        "all of them at some time": set(labels.flatten().tolist()) >= set(classes),
        "the queries are others than the support": all(
            len(set(t.tolist())) == t.numel() for t in rows.flatten(1)
        ),
        "other examples of a class in other supports": vary(rows[..., :shots], shots),
        "other examples of a class in other queries": vary(rows[..., shots:], queries),
        "the same again from the same seed": same(again, tasks(seeded(3), 3)),
        "another from another seed": not same(again, other),
        "`y` stays as it is": kept["y"],
        "`classes` stays as it is": kept["classes"],
        "all classes are drawn equally often, each with each": True,
        "all examples of a class are drawn equally often, each with each": True,
    }
    if episodes > 25 and all(facts.values()):
        more = [torch.cat(pair, 1) for pair in tasks(g, episodes - 25)]
        classes_even, examples_even = _even(y, classes, torch.cat([rows, torch.stack(more)]), shots)
        facts["all classes are drawn equally often, each with each"] = classes_even
        facts["all examples of a class are drawn equally often, each with each"] = examples_even
    return facts


def _even(y, classes, rows, shots):
    """Whether classes, and the examples of a class, are drawn evenly: rows [episodes, ways, n]."""
    rank = torch.zeros_like(y)
    for c in classes:
        rank[y == c] = torch.arange(int((y == c).sum()))
    place = {c: k for k, c in enumerate(classes)}
    chosen = [[place[c] for c in task] for task in y[rows[..., 0]].tolist()]
    ranks, size = rank[rows].flatten(0, 1), int(rank.max()) + 1
    return _evenly(chosen, len(classes)), all(
        _evenly(part.tolist(), size) for part in (ranks[:, :shots], ranks[:, shots:])
    )


# reference
def _leaking(y, classes, ways, shots, queries, generator):
    """The rows of one task's examples.

    y: labels of all examples [N]; classes: list of those that
        may be drawn (the test classes, for instance).
    Return (support, query): for each of `ways` classes the row
    numbers in y of `shots` examples, and of `queries` others.
    Classes and examples are drawn with `generator`. Every class
    has enough examples.
    """
    def shuffled(values):
        keys = values.double().uniform_(generator=generator)
        return values[keys.argsort()]

    chosen = shuffled(y.unique())[:ways]
    rows = [shuffled((y == c).nonzero().flatten()) for c in chosen]
    support = [r[:shots] for r in rows]
    query = [r[:queries] for r in rows]
    return support, query


@exercise(
    [
        _labelled(8, 4, 3, 2, 2),
        _labelled(7, 5, 2, 2, 3, spare=1, episodes=100),
    ],
    points=3,
    call=_drawn,
    grad=False,
    device=False,
    starter=_leaking,
    hints=(
        (
            "Two leaks. From which classes does it draw? And can an example be in the support"
            " and among the queries?"
        ),
        (
            "Shuffle `classes`, not the labels that y has; and let the queries begin where the"
            " support ends."
        ),
        (
            "shuffled(y.new_tensor(classes))[:ways]; then r[:shots] is the support of a class"
            " and r[shots : shots + queries] its queries."
        ),
    ),
)
def draw_task(y, classes, ways, shots, queries, generator):
    def shuffled(values):
        keys = values.double().uniform_(generator=generator)
        return values[keys.argsort()]

    chosen = shuffled(y.new_tensor(classes))[:ways]
    rows = [shuffled((y == c).nonzero().flatten()) for c in chosen]
    support = [r[:shots] for r in rows]
    query = [r[shots : shots + queries] for r in rows]
    return support, query


# mistakes
@draw_task.mistake(
    "Two leaks, still: any class of y may be drawn, those that were trained on as well;"
    " and a query can be one of the support's own examples."
)
def _(y, classes, ways, shots, queries, generator):
    return _leaking(y, classes, ways, shots, queries, generator)


def _order(n, generator):
    return torch.randperm(n, generator=generator)


def _allowed(y, classes, ways, generator):
    return [classes[i] for i in _order(len(classes), generator)]


def _task(
    y,
    classes,
    ways,
    shots,
    queries,
    generator,
    choose=_allowed,
    order=_order,
    apart=True,
    drawer=lambda generator: generator,
):
    """An episode with one thing changed.

    Which classes, the order of their examples, queries apart from the support, who draws.
    """
    generator, parts = drawer(generator), []
    for c in choose(y, classes, ways, generator)[:ways]:
        mine = (y == c).nonzero().flatten()
        mine = mine[order(len(mine), generator)]
        parts.append((mine[:shots], mine[shots if apart else 0 :][:queries]))
    return tuple(torch.stack(part) for part in zip(*parts))


draw_task.variants(
    _task,
    {
        "Queries are apart from the support now."
        " But any class of y may be drawn, those that were trained on as well.": {
            "choose": lambda y, classes, ways, generator: _order(int(y.max()) + 1, generator)
        },
        "The classes are right now. But a query can be one of the support's own examples:"
        " accuracy would measure memory.": {"apart": False},
        "You draw positions in `classes` and use them as labels: classes[c] is the label.": {
            "choose": lambda y, classes, ways, generator: _order(len(classes), generator)
        },
        "A class may be drawn twice in a task, and then two of its labels are the same thing:"
        " draw without replacement.": {
            "choose": lambda y, classes, ways, generator: [
                classes[i] for i in torch.randint(len(classes), (ways,), generator=generator)
            ]
        },
        "The classes are the first ones of the list every time: draw them.": {
            "choose": lambda y, classes, ways, generator: classes
        },
        "The examples of a class come in the order of the data every time:"
        " some are always support and some never: draw them.": {
            "order": lambda n, generator: torch.arange(n)
        },
        "The draw does not use `generator`, so the same seed gives other episodes,"
        " and methods cannot be compared on the same ones.": {"drawer": lambda generator: None},
        "You seed a generator of your own, so that every episode is the same:"
        " draw with `generator`, as it comes.": {
            "drawer": lambda generator: torch.Generator().manual_seed(0)
        },
    },
)


@draw_task.mistake(
    "The caller's list `classes` is spoilt: the next task finds fewer classes, or another order."
    " Shuffle a copy, list(classes)."
)
def _(y, classes, ways, shots, queries, generator):
    order = _order(len(classes), generator)
    classes[:] = [classes[i] for i in order]
    return _task(
        y, classes, ways, shots, queries, generator, choose=lambda y, classes, *_: classes
    )


@draw_task.mistake(
    "The labels `y` of the caller are changed, so the next task does not find those examples:"
    " mark what is used in a tensor of your own."
)
def _(y, classes, ways, shots, queries, generator):
    support, query = _task(y, classes, ways, shots, queries, generator)
    y[support.flatten()] = -1
    return support, query


def _window(n, count, generator):
    """`count` neighbours of n things, from a place that is drawn."""
    return int(torch.randint(n - count + 1, (), generator=generator))


@draw_task.mistake(
    "Not every set of classes is drawn equally often: some come too often, or only with their"
    " neighbours in the list. Shuffle a copy of the list and take the first `ways`."
)
def _(y, classes, ways, shots, queries, generator):
    def neighbours(y, classes, ways, generator):
        return classes[_window(len(classes), ways, generator) :]

    return _task(y, classes, ways, shots, queries, generator, choose=neighbours)


@draw_task.mistake(
    "Not every set of a class's examples is drawn equally often: some come too often, or only with"
    " their neighbours in the data. Shuffle all rows of the class, then cut."
)
def _(y, classes, ways, shots, queries, generator):
    def ring(n, generator):
        return torch.arange(n).roll(int(torch.randint(n, (), generator=generator)))

    return _task(y, classes, ways, shots, queries, generator, order=ring)


# ---------------------------------------------------------------------- 3. whose mean and variance?
# inputs
def _norm_inputs(n, q, d, size=1.0, still=False, mean=1.0):
    """Features of a support and of queries. size: of the features; mean: in units of that size.

    still: whether the first feature is the same in all of the support.
    """

    def draw(generator):
        def normal(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        support, query = size * (2 * normal(n, d) + mean), size * (normal(q, d) + mean - 2)
        if still:
            support[:, 0] = 1.0
        eps = size**2 * uniform(generator, 0.05, 0.55)
        return support, query, normal(d) + 2, normal(d), eps

    return draw


# reference
@exercise(
    [
        _norm_inputs(5, 4, 3),
        _norm_inputs(4, 3, 2),
        _norm_inputs(9, 1, 4, still=True),
        _norm_inputs(3, 6, 1, size=1e-3),
        _norm_inputs(6, 2, 2, mean=3e4),  # float32 is too coarse
    ],
    points=2,
    call=lambda answer, *args: named(answer(*args), "support", "query"),
    hints=(
        "Which examples may the mean and the variance know, if a query must not see the others?",
        (
            "One mean and one variance a feature, from the support alone; the queries are"
            " normalised with the same two numbers."
        ),
        (
            "(query - support.mean(0)) / (support.var(0, unbiased=False) + eps).sqrt(): eps"
            " belongs under the root, next to the variance."
        ),
    ),
)
def support_norm(support, query, weight, bias, eps):
    """BatchNorm in an episode, the inductive way: what is said
    about a query must not depend on the other queries.

    support: features [n, d]; query: features [q, d];
    weight, bias: [d]; all float64; eps: float.
    Each feature minus its mean over the support, divided by
    sqrt(variance over the support + eps), as in training (the
    variance divides by n), times weight, plus bias.
    Return (support, query), both normalised.
    """
    ### BEGIN SOLUTION
    mean = support.mean(0)
    scale = weight / (support.var(0, unbiased=False) + eps).sqrt()
    return (support - mean) * scale + bias, (query - mean) * scale + bias
    ### END SOLUTION


# laws
@support_norm.law("a query gets the same alone as in company")
def _(answer, support, query, weight, bias, eps):
    alone = torch.cat([answer(support, q[None], weight, bias, eps)[1] for q in query])
    return torch.allclose(alone, answer(support, query, weight, bias, eps)[1])


# mistakes
def _normed(
    support,
    query,
    weight,
    bias,
    eps,
    of=lambda s, q: (s, s),
    root=lambda x, eps: (x.var(0, unbiased=False) + eps).sqrt(),
    then=lambda z, weight, bias: z * weight + bias,
):
    """The answer with one thing changed.

    Whose statistics support and queries get, what they are divided by, what follows.
    """
    pairs = zip((support, query), of(support, query), strict=True)
    return tuple(then((x - whose.mean(0)) / root(whose, eps), weight, bias) for x, whose in pairs)


support_norm.variants(
    _normed,
    {
        "Each part has statistics of its own:"
        " the queries are normalised by the queries. That is the transductive way.": {
            "of": lambda s, q: (s, q)
        },
        "Mean and variance are taken over support and queries together:"
        " what is said about one query depends on the others.": {
            "of": lambda s, q: (torch.cat([s, q]),) * 2
        },
        "The queries' statistics normalise both:"
        " the support is what you know, so it is to give mean and variance.": {
            "of": lambda s, q: (q, q)
        },
        "The variance divides by n - 1: BatchNorm normalises by that with n (unbiased=False).": {
            "root": lambda x, eps: (x.var(0) + eps).sqrt()
        },
        "eps is added to the standard deviation:"
        " it belongs under the root, next to the variance.": {
            "root": lambda x, eps: x.std(0, unbiased=False) + eps
        },
        "eps is missing: a feature that is the same in"
        " all of the support would be divided by zero.": {
            "root": lambda x, eps: x.std(0, unbiased=False)
        },
        "weight and bias are missing.": {"then": lambda z, weight, bias: z},
        "You divide by the variance: take its root.": {
            "root": lambda x, eps: x.var(0, unbiased=False) + eps
        },
    },
)


@support_norm.mistake(
    "The queries get the running variance of a BatchNorm, which divides by n - 1:"
    " both parts are to get the variance that divides by n."
)
def _(support, query, weight, bias, eps):
    scale = weight / (support.var(0) + eps).sqrt()
    normed = _normed(support, query, weight, bias, eps)
    return normed[0], (query - support.mean(0)) * scale + bias


@support_norm.mistake(
    "The values are right, but mean and variance are detached:"
    " as in training, gradients flow through them to the support."
)
def _(support, query, weight, bias, eps):
    def constant(s, q):
        return s.detach(), s.detach()

    return _normed(support, query, weight, bias, eps, of=constant)


@support_norm.mistake(
    "The values are right, but the queries get mean and variance as constants (running statistics,"
    " or a detach): gradients are to flow through them to the support here as well."
)
def _(support, query, weight, bias, eps):
    return _normed(support, query, weight, bias, eps, of=lambda s, q: (s, s.detach()))


@support_norm.mistake("The support comes back as it was: it goes through the layer, too.")
def _(support, query, weight, bias, eps):
    return support.clone(), _normed(support, query, weight, bias, eps)[1]


@support_norm.mistake(
    "The mean runs over the features of an example, as in LayerNorm:"
    " one mean and one variance a feature, over the examples."
)
def _(support, query, weight, bias, eps):
    return tuple(
        (x - x.mean(1, True)) / (x.var(1, unbiased=False, keepdim=True) + eps).sqrt() * weight
        + bias
        for x in (support, query)
    )


# ------------------------------------------------------------------------ 4. the head of Baseline++
# inputs
def _head_inputs(q, d, classes, size=1.0, aligned=False):
    """Features and weights. size: of both.

    aligned: whether the first class has the first query's direction, and the second the opposite.
    """

    def draw(generator):
        lengths = 0.5 + 2 * torch.rand(q, 1, generator=generator, dtype=torch.float64)
        z = lengths * torch.randn(q, d, generator=generator, dtype=torch.float64)
        weight = 2 * torch.randn(classes, d, generator=generator, dtype=torch.float64)
        if aligned:
            weight[:2] = torch.stack([3 * z[0], -z[0]])
        return size * z, size * weight, uniform(generator, 2.0, 10.0) * (9 if aligned else 1)

    return draw


# reference
@exercise(
    [
        _head_inputs(4, 3, 5),
        _head_inputs(5, 4, 2),
        _head_inputs(3, 2, 4, size=1e-5),
        _head_inputs(1, 3, 3, size=1e5, aligned=True),
    ],
    points=1,
    hints=(
        "What remains of a scalar product if both vectors are twice as long, and what should?",
        (
            "The cosine is the scalar product of two vectors that were both divided by their"
            " lengths."
        ),
        (
            "z @ weight.T holds the scalar products, and z.norm(dim=1)[:, None] *"
            " weight.norm(dim=1) the products of the lengths."
        ),
    ),
)
def direction_logits(z, weight, scale):
    """The head of Baseline++: only directions count.

    z: features [q, d]; weight: one row per class [classes, d];
    both float64; scale: float.
    Return logits [q, classes]: scale times the cosine of the
    angle between the features and each class's weight.
    """
    ### BEGIN SOLUTION
    lengths = z.norm(dim=1)[:, None] * weight.norm(dim=1)
    return scale * (z @ weight.T) / lengths
    ### END SOLUTION


# laws
@direction_logits.law("longer features or longer weights change nothing")
def _(answer, z, weight, scale):
    found = answer(z, weight, scale)
    return torch.allclose(answer(7 * z, weight, scale), found) and torch.allclose(
        answer(z, 5 * weight, scale), found
    )


# mistakes
def _unit(rows):
    return F.normalize(rows, dim=-1)


def _as_is(rows):
    return rows


def _cosines(
    z, weight, scale, features=_unit, weights=_unit, times=lambda found, scale: scale * found
):
    """The answer with one thing changed.

    What is done to the features, to the weights, and with the scale.
    """
    return times(features(z) @ weights(weight).T, scale)


direction_logits.variants(
    _cosines,
    {
        "That is a linear head:"
        " neither the features nor the weights are divided by their lengths.": {
            "features": _as_is,
            "weights": _as_is,
        },
        "Only the features are divided by their length:"
        " a class with a long weight wins too often.": {
            "weights": _as_is
        },
        "Only the weights are divided by their length: the features' length still counts.": {
            "features": _as_is
        },
        "The scale is missing."
        " A cosine is at most 1, and a softmax of numbers so small is nearly flat.": {
            "times": lambda found, scale: found
        },
        "You divide by the lengths of the columns: a length is that of a row, over its features.": {
            part: lambda rows: F.normalize(rows, dim=0) for part in ("features", "weights")
        },
        "You divide by the squared lengths.": {
            part: lambda rows: rows / rows.square().sum(-1, True)
            for part in ("features", "weights")
        },
        "You divide by the scale: multiply.": {"times": lambda found, scale: found / scale},
        "These are probabilities: return the logits, without a softmax.": {
            "times": lambda found, scale: (scale * found).softmax(-1)
        },
    },
)


@direction_logits.mistake(
    "A constant is added to the lengths. Where features and weights are short it is no longer small"
    " beside them, and the length counts after all: divide by the lengths as they are."
)
def _(z, weight, scale):
    lengths = z.norm(dim=1)[:, None] * weight.norm(dim=1)
    return scale * (z @ weight.T) / (lengths + 1e-8)


@direction_logits.mistake(
    "The values are right, but the lengths are detached: a gradient then pulls along the vector"
    " as well, and makes it longer, which changes no logit."
)
def _(z, weight, scale):
    lengths = z.norm(dim=1)[:, None] * weight.norm(dim=1)
    return scale * (z @ weight.T) / lengths.detach()


# --------------------------------------------------------------------- 5. a comparison to believe
# inputs
def _results(verdict, share):
    """What two methods reached, with a verdict: 1 ahead, -1 behind, 0 unclear.

    The mean lead lies at a share of its limit from zero: near 1, so that a wrong error gives
    another verdict, or far from it. Trainings differ, tasks differ more. Tasks with a class that
    was trained on flatter one of the two; one of these has no other class.
    """

    def draw(g):
        seeds, ways, limit = whole(g, 4, 6), whole(g, 2, 4), uniform(g, 2.0, 3.5)
        fresh, mixed = whole(g, 8, 11), whole(g, 3, 5)
        names = torch.randperm(60, generator=g)
        known, others = names[:20], names[20:]

        def picked(classes):
            return classes[torch.randperm(len(classes), generator=g)[:ways]]

        tasks = [picked(others) for _ in range(fresh + mixed)] + [picked(known)]
        for task in tasks[fresh:-1]:
            task[whole(g, 0, ways)] = picked(known)[0]
        order = torch.randperm(len(tasks), generator=g)
        clean = order < fresh

        def table(rates):
            """Far from a tie; another rate is the best of many a training, and not the first."""
            best = whole(g, 1, rates)
            means = 0.5 + 0.02 * torch.rand(rates, generator=g).double()
            means[best] = 0.54
            noise = 0.1 * torch.randn(rates, seeds, 7, generator=g).double()
            noise -= noise.mean((1, 2), keepdim=True)
            test = torch.rand(rates, seeds, len(tasks), generator=g).double()
            return best, {"validation": means[:, None, None] + noise, "test": test}

        (a, new), (b, old) = table(whole(g, 3, 5)), table(whole(g, 5, 7))
        lead = torch.randn(seeds, generator=g).double()
        lead = (lead - lead.mean()) / lead.std() * uniform(g, 0.01, 0.02)
        sign = verdict or (1 if whole(g, 0, 2) else -1)
        lead += sign * share * limit * lead.std() / seeds**0.5
        apart = 0.1 * torch.randn(seeds, len(tasks), generator=g).double()
        apart -= apart[:, clean].mean(1, keepdim=True)
        new["test"][a] = old["test"][b] + lead[:, None] + apart
        new["test"][a][:, ~clean] -= sign * 0.2
        return *(shuffled(g, part) for part in (new, old)), torch.stack(tasks)[order], known, limit

    return draw


def _judged(answer, new, old, tasks, known, limit):
    parts = named(answer(new, old, tasks, known, limit), "lead", "error", "verdict")
    expect(isinstance(parts["verdict"], str), "the verdict", parts["verdict"])
    lead = torch.as_tensor(parts["lead"], dtype=torch.float64)
    error = scalar(parts["error"], "error")
    return {"lead": lead, "error": error, "verdict": str(parts["verdict"])}


# reference
def _hasty(new, old, tasks, known, limit):
    """Is a new few-shot method ahead of an old one?

    new, old: dicts, "validation" [rates, S, V] and "test" [rates,
        S, E]: accuracies of S trainings per rate, with the same
        seeds and tasks for both. The rates may differ in number.
    tasks: [E, ways], the classes of each test task.
    known: [k], the classes that were trained on. limit: float.
    Return (lead, error, verdict). lead: [S], new minus old per
    training, each method at one rate, the best on validation on
    average (no two are equal). error: standard error of the mean
    lead if S networks are trained anew (deviations use S - 1).
    verdict: "ahead", "behind" or, within limit errors of zero,
    "unclear". Three faults make this code's answer worthless.
    """
    best = new["validation"].mean((1, 2)).argmax()
    gap = new["test"][best] - old["test"][0]
    lead = gap.mean(1)
    error = gap.mean(0).std() / gap.shape[1] ** 0.5
    t = lead.mean() / error
    verdict = "ahead" if t > limit else "behind"
    return lead, error, verdict if abs(t) > limit else "unclear"


@exercise(
    [_results(1, 1.25), _results(-1, 1.25), _results(0, 0.96)],
    points=3,
    grad=False,
    device=False,
    starter=_hasty,
    call=_judged,
    hints=(
        "Who was allowed to choose a rate? Were all classes of the test new? And what would differ"
        " if somebody did the work again: the tasks, or the trainings?",
        "The old method's rate is chosen as the new one's is. `torch.isin(tasks, known)` shows the"
        " classes that were trained on. The error is that of a mean of S leads.",
        "`clean = ~torch.isin(tasks, known).any(1)`; the lead is `gap[:, clean].mean(1)`, and its"
        " error `lead.std() / len(lead) ** 0.5`.",
    ),
)
def few_shot_lead(new, old, tasks, known, limit):
    clean = ~torch.isin(tasks, known).any(1)
    reached = []
    for table in (new, old):
        best = table["validation"].mean((1, 2)).argmax()
        reached.append(table["test"][best][:, clean].mean(1))
    lead = reached[0] - reached[1]
    error = lead.std() / len(lead) ** 0.5
    if lead.mean() > limit * error:
        return lead, error, "ahead"
    return lead, error, "behind" if lead.mean() < -limit * error else "unclear"


# laws
@few_shot_lead.law("other accuracies on tasks with a class that was trained on change nothing")
def _(answer, new, old, tasks, known, limit):
    leaks = torch.isin(tasks, known).any(1)
    other = dict(new, test=torch.where(leaks, 1 - new["test"], new["test"]))
    return _said(answer(new, old, tasks, known, limit)) == _said(
        answer(other, old, tasks, known, limit)
    )


@few_shot_lead.law("every test task taken twice makes nothing surer")
def _(answer, new, old, tasks, known, limit):
    twice = [dict(part, test=part["test"].repeat(1, 1, 2)) for part in (new, old)]
    return _said(answer(new, old, tasks, known, limit)) == _said(
        answer(*twice, tasks.repeat(2, 1), known, limit)
    )


@few_shot_lead.law("other test accuracies change no choice of a rate")
def _(answer, new, old, tasks, known, limit):
    marked = [
        dict(part, test=torch.arange(len(part["test"])).double()[:, None, None]
             + torch.zeros_like(part["test"]))
        for part in (new, old)
    ]
    best = [int(part["validation"].mean((1, 2)).argmax()) for part in (new, old)]
    lead = torch.as_tensor(answer(*marked, tasks, known, limit)[0], dtype=torch.float64)
    return bool(((lead - (best[0] - best[1])).abs() < 1e-9).all())


few_shot_lead.law(LEAVES_NO_TRACE)(leaves_no_trace)


def _said(result):
    """An answer's parts, rounded, to be compared."""
    lead, error, verdict = result
    lead = torch.as_tensor(lead, dtype=torch.float64).tolist()
    return [round(value, 9) for value in lead], round(scalar(error, "error"), 9), verdict


# mistakes
def _best_rate(table):
    return table["validation"].mean((1, 2)).argmax()


def _at(table, rate):
    return table["test"][rate]


def _over_trainings(a, b):
    lead = a.mean(1) - b.mean(1)
    return lead.std() / len(lead) ** 0.5


def _over_tasks(a, b):
    gap = (a - b).mean(0)
    return gap.std() / len(gap) ** 0.5


def _lead(
    new,
    old,
    tasks,
    known,
    limit,
    rates=(_best_rate, _best_rate),
    leaks=lambda known_ones: known_ones.any(1),
    error=_over_trainings,
    sides=(1, 1),
):
    """The answer with one thing changed, or several."""
    clean = ~leaks(torch.isin(tasks, known))
    a, b = (_at(t, rate(t))[:, clean] for t, rate in zip((new, old), rates, strict=True))
    lead, wrong = a.mean(1) - b.mean(1), error(a, b)
    if sides[0] * lead.mean() > limit * wrong:
        return lead, wrong, "ahead"
    return lead, wrong, "behind" if -sides[1] * lead.mean() > limit * wrong else "unclear"


def _none(known_ones):
    return torch.zeros(len(known_ones), dtype=torch.bool)


def _first(table):
    return 0


_UNFAIR = (_best_rate, _first)

few_shot_lead.variants(
    _lead,
    {
        "The old method still has its first rate, the new one the best of several: choose for both"
        " on validation.": {"rates": _UNFAIR},
        "Tasks with classes that were trained on still count. There a method may answer from"
        " memory: leave these tasks out.": {"leaks": _none},
        "A task is left out only if all its classes were trained on. One known class is a leak.": {
            "leaks": lambda known_ones: known_ones.all(1)
        },
        "The error is that over tasks: it says how well these trainings are known."
        " Another training may move the lead by more: take the spread of the leads.": {
            "error": _over_tasks
        },
        "One fault is mended, the error. The old method has a rate that nobody chose, and tasks"
        " with known classes still count.": {"rates": _UNFAIR, "leaks": _none},
        "One fault is mended, the old method's rate. Known classes still count, and the error is"
        " that over tasks.": {"leaks": _none, "error": _over_tasks},
        "One fault is mended, the known classes. The old method has a rate that nobody chose, and"
        " the error is that over tasks.": {"rates": _UNFAIR, "error": _over_tasks},
        "The rates are chosen by the very test accuracies that are compared."
        " Choose on validation.": {
            "rates": (lambda t: t["test"].mean((1, 2)).argmax(),) * 2
        },
        "The standard deviation of the leads is not the standard error of their mean:"
        " divide by the root of the number of trainings.": {
            "error": lambda a, b: (a.mean(1) - b.mean(1)).std()
        },
        "The two methods share seeds and tasks, so compare them training by training:"
        " the deviation of the leads counts, not that of each method.": {
            "error": lambda a, b: ((a.mean(1).var() + b.mean(1).var()) / len(a)) ** 0.5
        },
        "The deviation is taken with S in place of S - 1, which makes a few trainings look surer"
        " than they are.": {
            "error": lambda a, b: (a.mean(1) - b.mean(1)).std(correction=0) / len(a) ** 0.5
        },
        "All accuracies of all trainings go into one error, as if each were a training of its own."
        " The tasks of one training share its luck.": {
            "error": lambda a, b: (a - b).std() / a.numel() ** 0.5
        },
        "A lead far below zero is a verdict as well: then the new method is behind.": {
            "sides": (1, 0)
        },
    },
)


@few_shot_lead.mistake("All three faults are still there.")
def _(new, old, tasks, known, limit):
    return _hasty(new, old, tasks, known, limit)
