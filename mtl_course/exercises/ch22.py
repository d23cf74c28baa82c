"""Exercises of chapter 22: scale out."""

import math

import torch
from torch import Generator, nn, randperm
from torch.nn import functional as F

from ..checks.exercise import exercise
from .inputs import (
    LEAVES_NO_TRACE,
    VECTORS,
    different,
    expect,
    filled,
    labels,
    leaves_no_trace,
    shuffled,
    task_names,
    uniform,
    vectors,
    whole,
)


# ------------------------------------------------------------------ 1. the Gram matrix of all ranks
# inputs
def _ranks(idle, gradient=math.nan, tasks=None):
    """Gradients and row counts of several ranks; with `idle`, one has no row.

    gradient: what that one has in place of gradients. tasks: how many, by default any number.
    """

    def draw(generator):
        ranks, some, width = different(generator, 3, 2, 8)
        count = tasks or some
        kinds = [VECTORS[whole(generator, 0, 4)] for _ in range(ranks)]
        gradients = [vectors(generator, count, width, kind) for kind in kinds]
        rows = different(generator, ranks, 1, 40)
        if idle:
            lazy = whole(generator, 0, ranks)
            gradients[lazy] = torch.full_like(gradients[lazy], gradient)
            rows[lazy] = 0
        return gradients, rows

    return draw


# reference
@exercise(
    [_ranks(idle=False), _ranks(idle=True), _ranks(idle=True, gradient=1e6, tasks=1)],
    points=2,
    grad=False,
    rtol=1e-8,
    atol=1e-18,
    hints=(
        "What would one process have computed that saw all the rows?",
        (
            "Average the gradients first: rank r counts by its share of the rows. Then take dot"
            " products. And what is 0 times NaN?"
        ),
        (
            "Skip ranks without rows. Add n / total * J over the others to get the mean [T, P];"
            " the answer is mean @ mean.T."
        ),
    ),
)
def gram_over_ranks(gradients, rows):
    """The Gram matrix [T, T] of the whole batch's gradients.

    gradients: one float64 [T, P] per rank: row t is the gradient
        of task t's loss, a mean over the rows of that rank.
    rows: how many rows each rank had, a list of int. All tasks
        have a label on every row. A rank with 0 rows has no say;
        its gradients may be NaN.
    """
    ### BEGIN SOLUTION
    total = sum(rows)
    mean = 0.0
    for J, n in zip(gradients, rows):
        if n:
            mean = mean + n / total * J
    return mean @ mean.T
    ### END SOLUTION


# laws
@gram_over_ranks.law("two ranks that were one rank cut in half change nothing")
def _(answer, gradients, rows):
    J, n = next((J, n) for J, n in zip(gradients, rows, strict=True) if n)
    one, two = answer([J], [n]), answer([J.clone(), J.clone()], [n, n])
    return torch.allclose(one, two, rtol=1e-9, atol=0)


@gram_over_ranks.law("gradients that cancel over the ranks leave nothing")
def _(answer, gradients, rows):
    J = next(J for J, n in zip(gradients, rows, strict=True) if n)
    return float(answer([J, -J], [5, 5]).abs().max()) == 0.0


gram_over_ranks.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _busy(gradients, rows):
    return [(J, n) for J, n in zip(gradients, rows, strict=True) if n]


@gram_over_ranks.mistake(
    "This is the mean of the ranks' Gram matrices. It holds the noise of every rank:"
    " average the gradients first, then take dot products."
)
def _(gradients, rows):
    return sum(n / sum(rows) * J @ J.T for J, n in _busy(gradients, rows))


@gram_over_ranks.mistake(
    "Every rank counts alike here. A rank with twice the rows has twice the say:"
    " weight each gradient by its share of the rows."
)
def _(gradients, rows):
    some = [J for J, _ in _busy(gradients, rows)]
    mean = sum(some) / len(some)
    return mean @ mean.T


@gram_over_ranks.mistake(
    "Every rank counts alike, and it is the Gram matrices that are averaged."
    " Average gradients, by rows."
)
def _(gradients, rows):
    some = [J @ J.T for J, _ in _busy(gradients, rows)]
    return sum(some) / len(some)


@gram_over_ranks.mistake(
    "The gradients are added up over rows, not averaged: divide by the number of all rows."
)
def _(gradients, rows):
    total = sum(n * J for J, n in _busy(gradients, rows))
    return total @ total.T


@gram_over_ranks.mistake(
    "A rank without rows spoils everything: 0 times NaN is NaN. Leave such ranks out."
)
def _(gradients, rows):
    mean = sum(n / sum(rows) * J for J, n in zip(gradients, rows, strict=True))
    return mean @ mean.T


@gram_over_ranks.mistake(
    "The mean divides by the number of ranks after weighting by rows: weights n / total already"
    " sum to one."
)
def _(gradients, rows):
    mean = sum(n / sum(rows) * J for J, n in _busy(gradients, rows)) / len(rows)
    return mean @ mean.T


# --------------------------------------------------------------------------- 2. a sampler per rank
# inputs
def _epoch(left_over):
    """Rows, ranks and a seed: one row left over, all but one, or not enough for all ranks."""

    def draw(generator):
        ranks = whole(generator, 3, 7)
        each = whole(generator, 3, 9)
        n = {
            "one": ranks * each + 1,
            "all but one": ranks * each + ranks - 1,
            "too few": whole(generator, 1, ranks),
        }[left_over]
        return n, ranks, whole(generator, 0, 10_000)

    return draw


def _shares(answer, n, ranks, seed):
    """What all ranks get: how often each row comes, and how many each rank has."""
    shares = []
    for rank in range(ranks):
        share = answer(n, rank, ranks, seed)
        is_rows = isinstance(share, torch.Tensor) and share.dtype == torch.int64 and share.ndim == 1
        expect(is_rows, "an int64 tensor of one dimension", share)
        inside = bool(((share >= 0) & (share < n)).all())
        expect(inside, f"rows from 0 to {n - 1}", share)
        shares.append(share)
    return {
        "how often each row comes, all ranks together": torch.cat(shares).bincount(minlength=n),
        "rows per rank, from few to many": sorted(len(share) for share in shares),
    }


# reference
def _own_order(n, rank, ranks, seed):
    """The rows of one rank in this epoch, in the order it takes them.

    n: rows of the set, 0 to n - 1. rank: 0 to ranks - 1.
    seed: of this epoch, the same on all ranks.
    Return int64 [k]. The ranks together have every row once, and
    no rank has more than one row more than another; with fewer
    rows than ranks some get none. Which rows a rank has, and
    their order, is random, drawn from `seed` alone: a second call
    gives the same.
    """
    g = Generator().manual_seed(seed + rank)
    order = randperm(n, generator=g)
    size = n // ranks
    return order[rank * size : (rank + 1) * size]


@exercise(
    [_epoch("one"), _epoch("all but one"), _epoch("too few")],
    points=2,
    grad=False,
    device=False,
    starter=_own_order,
    call=_shares,
    hints=(
        "Run it for all ranks and count how often each row comes. Which ranks agree on the order?",
        "Two things are wrong: each rank shuffles by itself, and the last n % ranks rows are lost.",
        (
            "All ranks draw the same permutation, from `seed` without the rank. Each then takes"
            " order[rank::ranks]."
        ),
    ),
)
def rank_rows(n, rank, ranks, seed):
    g = Generator().manual_seed(seed)
    order = randperm(n, generator=g)
    return order[rank::ranks]


# laws
def _epochs(answer, ranks, seed):
    """The rows of the last rank in four epochs, of a set large enough that none agree by chance."""
    return [answer(200, ranks - 1, ranks, seed + k).tolist() for k in range(4)]


@rank_rows.law("another epoch gives a rank other rows")
def _(answer, n, ranks, seed):
    return len(set(map(frozenset, _epochs(answer, ranks, seed)))) == 4


@rank_rows.law("a rank takes its rows in a random order")
def _(answer, n, ranks, seed):
    for order in _epochs(answer, ranks, seed):
        rises = float((torch.tensor(order).diff() > 0).double().mean())
        if not 0.15 < rises < 0.85:  # about half; six deviations away
            return False
    return True


@rank_rows.law("a second call gives the same rows, and torch's own stream of numbers is left alone")
def _(answer, n, ranks, seed):
    torch.default_generator.manual_seed(1)
    first = answer(n, 0, ranks, seed)
    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(1)
    return (
        torch.equal(state, torch.default_generator.get_state())
        and first.tolist() == answer(n, 0, ranks, seed).tolist()
    )


@rank_rows.law("one rank alone has all rows")
def _(answer, n, ranks, seed):
    return sorted(answer(n, 0, 1, seed).tolist()) == list(range(n))


# mistakes
rank_rows.mistake(
    "Nothing is mended yet. Run it for all ranks: which rows come twice, and which never? Look at"
    " the seed, and at n // ranks."
)(lambda n, rank, ranks, seed: _own_order(n, rank, ranks, seed))


@rank_rows.mistake(
    "Each rank still shuffles by itself, so some rows come twice and others never."
    " All ranks must draw the same order."
)
def _(n, rank, ranks, seed):
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed + rank))
    return order[rank::ranks]


@rank_rows.mistake(
    "The last rows of the order belong to no rank: n // ranks forgets the remainder."
    " Give the places out in turn."
)
def _(n, rank, ranks, seed):
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return order[rank * (n // ranks) : (rank + 1) * (n // ranks)]


@rank_rows.mistake("Nothing is shuffled: every epoch has the same batches. Draw a permutation.")
def _(n, rank, ranks, seed):
    return torch.arange(n)[rank::ranks]


@rank_rows.mistake(
    "The last rank gets the whole remainder, up to ranks - 1 rows more than the others,"
    " which wait for it. Shares differ by one row at most."
)
def _(n, rank, ranks, seed):
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    end = n if rank == ranks - 1 else (rank + 1) * (n // ranks)
    return order[rank * (n // ranks) : end]


@rank_rows.mistake(
    "Every rank but the last takes n / ranks rows, rounded up: what is left for the last can be"
    " several rows fewer. Shares differ by one row at most."
)
def _(n, rank, ranks, seed):
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    longest = -(-n // ranks)
    return order[rank * longest : (rank + 1) * longest]


@rank_rows.mistake(
    "Shares are padded to the same length with rows that other ranks have too."
    " Samplers do that, but here each row comes once."
)
def _(n, rank, ranks, seed):
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    longest = -(-n // ranks)
    return order.repeat(ranks + 1)[: longest * ranks][rank::ranks]


@rank_rows.mistake(
    "The rows are drawn with replacement: some come twice and some never. Draw a permutation."
)
def _(n, rank, ranks, seed):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(n, (n,), generator=g)[rank::ranks]


# ---------------------------------------------------------------------------------- 3. temperature
# inputs
def _sizes(infinite):
    """Set sizes from one row to a million, and a temperature; with `infinite`, that one."""

    def draw(generator):
        names = task_names(generator, whole(generator, 2, 7))
        sizes = {name: int(10 ** uniform(generator, 0, 6)) for name in names}
        sizes[names[0]] = 1
        return sizes, math.inf if infinite else uniform(generator, 1.2, 8)

    return draw


def _by_name(answer, sizes, temperature):
    shares = answer(sizes, temperature)
    expect(isinstance(shares, dict), "a dict, task -> share", shares)
    return {name: float(share) for name, share in shares.items()}


# reference
@exercise(
    [_sizes(infinite=False), _sizes(infinite=True)],
    points=1,
    grad=False,
    device=False,
    call=_by_name,
    hints=(
        "What are the shares at temperature 1? And which exponent makes every size count alike?",
        "Take `size ** (1 / temperature)` of each, then divide by the sum of these powers.",
    ),
)
def mixture_shares(sizes, temperature):
    """Share of the steps of each task, by equation 5.

    sizes: task -> rows of its set, at least 1.
    temperature: 1 or more; infinity (`math.inf`) is uniform.
    Return a dict, task -> float; the shares sum to 1.
    """
    ### BEGIN SOLUTION
    powers = {}
    for name, size in sizes.items():
        powers[name] = size ** (1 / temperature)
    total = sum(powers.values())
    return {name: power / total for name, power in powers.items()}
    ### END SOLUTION


# laws
@mixture_shares.law("at temperature 1 the shares are those of the rows")
def _(answer, sizes, temperature):
    shares, total = answer(dict(sizes), 1), sum(sizes.values())
    return all(abs(float(shares[name]) - sizes[name] / total) < 1e-9 for name in sizes)


@mixture_shares.law("ten times the rows in every set change nothing")
def _(answer, sizes, temperature):
    more = answer({name: 10 * size for name, size in sizes.items()}, temperature)
    shares = answer(dict(sizes), temperature)
    return all(abs(float(more[name]) - float(shares[name])) < 1e-9 for name in sizes)


@mixture_shares.law("the order of the tasks does not matter")
def _(answer, sizes, temperature):
    turned = dict(reversed(list(sizes.items())))
    one, other = answer(dict(sizes), temperature), answer(turned, temperature)
    return all(abs(float(one[name]) - float(other[name])) < 1e-9 for name in sizes)


# mistakes
@mixture_shares.mistake(
    "The size is raised to the temperature itself, which favours large sets even more:"
    " the exponent is 1 / temperature."
)
def _(sizes, temperature):
    # A product of logs, so that a large power does not overflow.
    largest = max(sizes.values())
    powers = {n: (s / largest) ** temperature for n, s in sizes.items()}
    return {n: p / sum(powers.values()) for n, p in powers.items()}


@mixture_shares.mistake("The powers are not divided by their sum: shares sum to 1.")
def _(sizes, temperature):
    return {n: s ** (1 / temperature) for n, s in sizes.items()}


@mixture_shares.mistake(
    "The powers are divided by the sum of the sizes, not by their own: they do not sum to 1."
)
def _(sizes, temperature):
    return {n: s ** (1 / temperature) / sum(sizes.values()) for n, s in sizes.items()}


@mixture_shares.mistake(
    "This is a softmax of the sizes over the temperature. Here the temperature divides their logs:"
    " a size to the power 1 / temperature."
)
def _(sizes, temperature):
    largest = max(sizes.values())
    powers = {n: math.exp((s - largest) / temperature) for n, s in sizes.items()}
    return {n: p / sum(powers.values()) for n, p in powers.items()}


@mixture_shares.mistake("The temperature plays no part: these are the shares of the rows.")
def _(sizes, temperature):
    return {n: s / sum(sizes.values()) for n, s in sizes.items()}


@mixture_shares.mistake("The temperature plays no part: these shares are uniform.")
def _(sizes, temperature):
    return {n: 1 / len(sizes) for n in sizes}


# ------------------------------------------------------------------------------ 4. effective batch
# inputs
def _parts(generator, sure=False):
    """A network, a batch of classes, and how it is cut: parts of different sizes.

    sure: its logits are in the thousands, so that a softmax has zeros, whose logarithm is lost.
    """
    inputs, hidden, classes = different(generator, 3, 2, 8)
    layers = nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, classes)
    model = filled(nn.Sequential(*layers), generator).double()
    if sure:
        model[2].weight.data *= 1e4
    sizes = different(generator, whole(generator, 2, 5), 1, 9)
    n = sum(sizes)
    x = torch.randn(n, inputs, generator=generator, dtype=torch.float64)
    return model, x, labels(generator, n, classes), sizes


def _sure(generator):
    return _parts(generator, sure=True)


class _Counting(nn.Module):
    """A network that remembers the largest batch it saw."""

    def __init__(self, model):
        super().__init__()
        self.model, self.most = model, 0

    def forward(self, x):
        self.most = max(self.most, len(x))
        return self.model(x)


def _by_parameter(answer, *args):
    grads = answer(*args)
    expect(isinstance(grads, dict), "a dict, parameter's name -> gradient", grads)
    return dict(grads)


# reference
@exercise(
    [_parts, _sure],
    points=2,
    grad=False,
    call=_by_parameter,
    hints=(
        "The last part is often smaller. Is the mean of means the mean?",
        "A part of n rows out of N counts n / N: multiply its mean loss by that, and add up.",
        (
            "For each part: loss = cross_entropy(...) * n / N, then torch.autograd.grad(loss,"
            " list(params.values())). Add the gradients of all parts."
        ),
    ),
)
def accumulated_gradient(model, x, y, sizes):
    """The gradient of the whole batch, in parts that fit.

    model: x [n, d] -> logits [n, classes], which may be in the
        thousands. x: [N, d].
    y: int64 [N]. sizes: rows of each part, one after the other;
        they sum to N. The model may see one part at a time only.
    Return a dict: name of each parameter, as named_parameters()
    gives it -> the gradient of the mean cross-entropy over all N
    rows. Leave every `.grad` as it was.
    """
    ### BEGIN SOLUTION
    params = dict(model.named_parameters())
    total = {name: torch.zeros_like(p) for name, p in params.items()}
    for part, target in zip(x.split(sizes), y.split(sizes)):
        loss = torch.nn.functional.cross_entropy(model(part), target)
        loss = loss * len(part) / len(x)
        grads = torch.autograd.grad(loss, list(params.values()))
        for name, grad in zip(params, grads):
            total[name] += grad
    return total
    ### END SOLUTION


# laws
@accumulated_gradient.law("no forward pass sees more rows than the largest part has")
def _(answer, model, x, y, sizes):
    counting = _Counting(model)
    answer(counting, x, y, sizes)
    return 0 < counting.most <= max(sizes)


@accumulated_gradient.law("how the batch is cut changes nothing")
def _(answer, model, x, y, sizes):
    one, other = (answer(model, x, y, cut) for cut in (sizes, [len(x) - 1, 1]))
    return all(torch.allclose(one[name], other[name], rtol=1e-6) for name in one)


@accumulated_gradient.law("what stands in `.grad` before neither counts nor changes")
def _(answer, model, x, y, sizes):
    clean = answer(model, x, y, sizes)
    for p in model.parameters():
        p.grad = torch.full_like(p, 7.0)
    grads = answer(model, x, y, sizes)
    untouched = all(p.grad is not None and bool((p.grad == 7).all()) for p in model.parameters())
    return untouched and all(torch.allclose(grads[name], clean[name]) for name in clean)


accumulated_gradient.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _accumulated(model, x, y, sizes, weight=lambda n, total, parts: n / total, last=False):
    """The gradient with one thing changed."""
    names, params = zip(*model.named_parameters(), strict=True)
    grads = [torch.zeros_like(p) for p in params]
    for part, targets in zip(x.split(sizes), y.split(sizes), strict=True):
        loss = F.cross_entropy(model(part), targets) * weight(len(part), len(x), len(sizes))
        new = torch.autograd.grad(loss, params)
        grads = list(new) if last else [g + h for g, h in zip(grads, new, strict=True)]
    return dict(zip(names, grads, strict=True))


accumulated_gradient.variants(
    _accumulated,
    {
        "Every part counts alike. A part of few rows must count less: multiply by n / N.": {
            "weight": lambda n, total, parts: 1 / parts
        },
        "The parts' gradients are added up and not averaged: the step is as many times too long"
        " as there are parts.": {"weight": lambda n, total, parts: 1.0},
        "Only the last part is left: the others' gradients are overwritten. Add them.": {
            "last": True
        },
        "This is the gradient of the sum over rows: divide by their number N.": {
            "weight": lambda n, total, parts: float(n)
        },
    },
)


@accumulated_gradient.mistake(
    "The gradient is right, and it took the whole batch at once: that is what does not fit."
    " Show the model one part at a time."
)
def _(model, x, y, sizes):
    names, params = zip(*model.named_parameters(), strict=True)
    return dict(
        zip(names, torch.autograd.grad(F.cross_entropy(model(x), y), params), strict=True)
    )


@accumulated_gradient.mistake(
    "The gradients are right, and they also stand in `.grad`, where the next step would add to"
    " them. Use torch.autograd.grad, or tidy up."
)
def _(model, x, y, sizes):
    for part, targets in zip(x.split(sizes), y.split(sizes), strict=True):
        (F.cross_entropy(model(part), targets) * len(part) / len(x)).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@accumulated_gradient.mistake(
    "What stood in `.grad` before your call is counted too. Use torch.autograd.grad, or set every"
    " `.grad` aside first."
)
def _(model, x, y, sizes):
    before = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    for part, targets in zip(x.split(sizes), y.split(sizes), strict=True):
        (F.cross_entropy(model(part), targets) * len(part) / len(x)).backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters()}
    for p, grad in zip(model.parameters(), before, strict=True):
        p.grad = grad
    return grads


# ----------------------------------------------------------------------------- 5. which mixture?
# inputs
def _tables(reachable):
    """Validation accuracies of mixtures by task, how often each is asked for, and a floor.

    Where it is reachable, three mixtures have every task at the floor or above, the one that is
    mostly best has a task right at it, and the others are better but for one task.
    """

    def draw(generator):
        tasks = task_names(generator, whole(generator, 4, 7))
        count = whole(generator, 5, 8)
        names = [f"mixture {k}" for k in different(generator, count, 0, 20)]
        use = torch.rand(len(tasks), generator=generator, dtype=torch.float64) + 0.05
        most, least = int(use.argmax()), int(use.argmin())
        floor = uniform(generator, 0.4, 0.58) if reachable else 0.97
        noise = 0.02 * torch.rand(count, len(tasks), generator=generator, dtype=torch.float64)
        accuracy = 0.92 + noise
        accuracy[0] = 0.8 + noise[0]
        accuracy[0, least] = floor if reachable else 0.3
        # Best where most is asked, and best where little is.
        accuracy[1] = 0.62 + noise[1]
        accuracy[1, most] += 0.2
        accuracy[2] = 0.84 + noise[2]
        accuracy[2, most] -= 0.24
        for k in range(3, count):
            accuracy[k, whole(generator, 0, len(tasks))] = 0.38 - 0.01 * k
        if reachable:  # below the floor is below it, however little
            accuracy[3] = 0.95
            accuracy[3, least] = floor - 1e-10
        order = torch.randperm(count, generator=generator).tolist()
        table = {
            names[k]: shuffled(generator, dict(zip(tasks, accuracy[k].tolist(), strict=True)))
            for k in order
        }
        return table, dict(zip(tasks, use.tolist(), strict=True)), floor

    return draw


# reference
@exercise(
    [_tables(True), _tables(True), _tables(True), _tables(False)],
    points=2,
    grad=False,
    device=False,
    hints=(
        "Which mixtures may be considered at all? What is their mean, if some tasks are used more"
        " than others?",
        (
            "First keep the mixtures whose worst task is at the floor or above. Of these, take the"
            " largest sum of use times accuracy, by the names of the tasks."
        ),
        (
            "able = [m for m in validation if min(validation[m].values()) >= floor]. If that is"
            " empty, take the mixture whose worst task is best."
        ),
    ),
)
def choose_mixture(validation, use, floor):
    """The name of the mixture to train with.

    validation: mixture -> task -> accuracy on validation data.
        The tasks come in any order.
    use: task -> how often it will be asked for, positive; the
        sum may be anything.
    floor: the least accuracy that each task must reach; exactly
        the floor is enough.
    Of the mixtures in which every task reaches the floor, the
    one with the best accuracy per question asked. If there is
    none, the one whose worst task is best.
    """
    ### BEGIN SOLUTION
    worst = {}
    mean = {}
    for name, scores in validation.items():
        worst[name] = min(scores.values())
        mean[name] = sum(use[task] * scores[task] for task in use)
    able = [name for name in validation if worst[name] >= floor]
    if able:
        return max(able, key=mean.get)
    return max(worst, key=worst.get)
    ### END SOLUTION


# laws
@choose_mixture.law("if everything is asked a thousand times as often, nothing changes")
def _(answer, validation, use, floor):
    more = {task: 1000 * times for task, times in use.items()}
    return answer(validation, use, floor) == answer(validation, more, floor)


@choose_mixture.law("without a floor, the task that alone is asked for decides")
def _(answer, validation, use, floor):
    task = next(iter(use))
    alone = {name: float(name == task) + 1e-12 for name in use}
    return answer(validation, alone, 0.0) == max(validation, key=lambda m: validation[m][task])


choose_mixture.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _choice(validation, use, floor, by_use=True, keep="worst", strict=False, rest="worst"):
    """The choice with one thing changed."""

    def mean(name):
        scores = validation[name]
        return sum((use[t] if by_use else 1.0) * scores[t] for t in use)

    def worst(name):
        return min(validation[name].values())

    if keep == "none":
        return max(validation, key=mean)
    level = worst if keep == "worst" else lambda m: sum(validation[m].values()) / len(use)
    able = [m for m in validation if (level(m) > floor if strict else level(m) >= floor)]
    return max(able, key=mean) if able else max(validation, key=worst if rest == "worst" else mean)


choose_mixture.variants(
    _choice,
    {
        "Every task counts alike in the mean: weight each by how often it is asked for.": {
            "by_use": False
        },
        "The floor is forgotten: a good mean can hide a task that nobody can use.": {
            "keep": "none"
        },
        "The mean is held against the floor, and every single task has to reach it.": {
            "keep": "mean"
        },
        "A task that is exactly at the floor has reached it: use >=.": {"strict": True},
        "If no mixture reaches the floor, the docstring asks for the best worst task,"
        " not for the best mean.": {"rest": "mean"},
    },
)


@choose_mixture.mistake(
    "The tasks are paired by their place: `use` and the accuracies come in different orders."
    " Look up each accuracy by the task's name."
)
def _(validation, use, floor):
    turned = {
        name: dict(zip(use, scores.values(), strict=True)) for name, scores in validation.items()
    }
    return _choice(turned, use, floor)


@choose_mixture.mistake(
    "The mixture with the best worst task is taken always. It is the last resort: among those that"
    " reach the floor, use decides."
)
def _(validation, use, floor):
    return max(validation, key=lambda m: min(validation[m].values()))
