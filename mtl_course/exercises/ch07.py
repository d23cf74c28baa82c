"""Exercises of chapter 7: which tasks belong together."""

import torch

from ..checks.exercise import exercise
from .inputs import LEAVES_NO_TRACE, different, leaves_no_trace, uniform, whole


def _rand(generator, *shape):
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def _randn(generator, *shape):
    return torch.randn(shape, generator=generator, dtype=torch.float64)


# ------------------------------------------------------------------------ 1. the penalty of a graph
# inputs
def _graph(generator):
    """Directed ties, with a diagonal that must not count.

    What affinities look like before anyone has cleaned them.
    """
    tasks, d = different(generator, 2, 2, 7)
    return _randn(generator, tasks, d), 0.2 + _rand(generator, tasks, tasks)


def _with_signs(generator):
    """Similarities of both signs and any size, and a diagonal far larger than they are."""
    tasks, d = different(generator, 2, 3, 7)
    S = 3 * _randn(generator, tasks, tasks)
    # one tie is clearly negative, whatever is drawn
    S[0, 1], S[1, 0] = -5 - S[0, 1].abs(), -1 - S[1, 0].abs()
    S[range(tasks), range(tasks)] *= 100
    return _randn(generator, tasks, d), S


def _one_weight(generator):
    """Tasks with a single weight each: W has one column, which must stay a column."""
    tasks = whole(generator, 3, 7)
    return _randn(generator, tasks, 1), 0.2 + _rand(generator, tasks, tasks)


def _penalty_of(answer, W, S):
    """The similarities are given: a gradient with respect to them is not asked for."""
    return answer(W, S.detach())


# reference
@exercise(
    [_graph, _with_signs, _one_weight],
    points=2,
    call=_penalty_of,
    hints=(
        (
            "S need not be symmetric, and its diagonal need not be zero. What tie does a pair i,"
            " j have, and a task with itself?"
        ),
        (
            "Two loops over the pairs i < j are a good start: the tie of a pair is the mean of"
            " S_ij and S_ji."
        ),
        (
            "Without loops: S = (S + S.T) / 2; then Q = torch.diag(S.sum(0)) - S, in which the"
            " diagonal of S cancels. The penalty is the trace of W^T Q W, (W * (Q @ W)).sum()."
        ),
    ),
)
def laplacian_penalty(W, S):
    """Sum over all pairs of tasks, each pair counted once, of
    (S_ij + S_ji) / 2 * ||w_i - w_j||^2.

    W: weights [T, d], one row per task; S: similarities [T, T],
    not symmetric; its diagonal means nothing.
    Return a scalar tensor. Its gradient reaches W, which is
    trained; S is given.
    """
    ### BEGIN SOLUTION
    S = (S + S.T) / 2
    Q = torch.diag(S.sum(0)) - S
    return (W * (Q @ W)).sum()
    ### END SOLUTION


# laws
@laplacian_penalty.law("moving all tasks together costs nothing")
def _(answer, W, S):
    return torch.isclose(answer(W + torch.ones_like(W), S), answer(W, S))


@laplacian_penalty.law("weights c times as large: the penalty is c^2 times as large")
def _(answer, W, S):
    return _all_close(W, S, answer(W, S), (answer(c * W, S) / c**2 for c in (1e-6, 1e6)))


@laplacian_penalty.law("similarities c times as large: the penalty is c times as large")
def _(answer, W, S):
    return _all_close(W, S, answer(W, S), (answer(W, c * S) / c for c in (1e-8, 1e8)))


def _all_close(W, S, want, found):
    """In double precision: neither factor is a power of 2, so single precision rounds otherwise."""
    close = 1e-11 * float(S.abs().max() * W.square().sum())
    return all(torch.isclose(value, want, rtol=1e-10, atol=close) for value in found)


laplacian_penalty.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _pairs(W, S):
    return ((W[:, None] - W) ** 2).sum(-1) * (S + S.T) / 2


@laplacian_penalty.mistake(
    "This is twice what is asked for. Is every pair counted twice, as (i, j) and as (j, i),"
    " or is the 1/2 in front of S_ij + S_ji missing?"
)
def _(W, S):
    return _pairs(W, S).sum()


@laplacian_penalty.mistake(
    "This is half of what is asked for: one 1/2 belongs to S_ij + S_ji,"
    " another only to a sum that counts every pair twice."
)
def _(W, S):
    return _pairs(W, S).sum() / 4


@laplacian_penalty.mistake(
    "The degrees include the diagonal of S:"
    " a task is no neighbour of itself, and moving all tasks together should cost nothing."
)
def _(W, S):
    S = (S + S.T) / 2
    off = S - torch.diag(S.diagonal())
    return (W * ((torch.diag(S.sum(0)) - off) @ W)).sum()


@laplacian_penalty.mistake(
    "The sign is turned: the Laplacian is degrees minus similarities,"
    " and where all similarities are positive the penalty is, too."
)
def _(W, S):
    return -_pairs(W, S).sum() / 2


@laplacian_penalty.mistake(
    "This is tr(W^T S W): it rewards large dot products. The degrees on the diagonal are missing."
)
def _(W, S):
    S = (S + S.T) / 2
    return (W * ((S - torch.diag(S.diagonal())) @ W)).sum()


@laplacian_penalty.mistake("The distances are not squared.")
def _(W, S):
    return (_pairs(W, (S + S.T) / 2 * 0 + 1).clamp_min(1e-30).sqrt() * (S + S.T) / 2).sum() / 2


@laplacian_penalty.mistake(
    "You take the row sums of S as it is."
    " With directed ties, the degrees on the diagonal are those of (S + S^T) / 2."
)
def _(W, S):
    off = S - torch.diag(S.diagonal())
    return (W * ((torch.diag(off.sum(1)) - off) @ W)).sum()


@laplacian_penalty.mistake("Only the ties above the diagonal are used: S_ij, and not S_ji.")
def _(W, S):
    return (((W[:, None] - W) ** 2).sum(-1) * S.triu(1)).sum()


@laplacian_penalty.mistake(
    "This is the mean over the pairs of tasks. Add them up."
)
def _(W, S):
    return _pairs(W, S).sum() / (len(W) * (len(W) - 1))


@laplacian_penalty.mistake(
    "A negative similarity counts as positive. Tasks that harm each other are pushed apart:"
    " keep the sign."
)
def _(W, S):
    return _pairs(W, (S + S.T).abs() / 2).sum() / 2


@laplacian_penalty.mistake(
    "A negative similarity counts as 0. Tasks that harm each other are pushed apart: keep it."
)
def _(W, S):
    return _pairs(W, (S + S.T).clamp(min=0) / 2).sum() / 2


# ---------------------------------------------------------------------------- 2. lookahead affinity
# inputs
def _shared(low, high):
    """Data of linear tasks with a shared layer. low, high: between these lies the rate."""

    def draw(generator):
        n, d, k, tasks = whole(generator, 6, 9), *different(generator, 3, 2, 6)
        scale = 0.5 + torch.arange(tasks, dtype=torch.float64)
        return (
            _randn(generator, n, d),
            scale * _randn(generator, n, tasks),
            _randn(generator, k, d),
            _randn(generator, tasks, k),
            uniform(generator, low, high),
        )

    return draw


def _thin(n, d, k, tasks):
    """The same with axes of length 1, which must not be squeezed away."""

    def draw(generator):
        return (
            _randn(generator, n, d),
            _randn(generator, n, tasks),
            _randn(generator, k, d),
            _randn(generator, tasks, k),
            uniform(generator, 0.05, 0.1),
        )

    return draw


# reference
@exercise(
    [
        _shared(0.05, 0.1),
        _shared(0.8, 1.6),
        _thin(1, 1, 1, 3),
        _thin(4, 3, 2, 1),
    ],
    points=3,
    grad=False,
    hints=(
        (
            "From which W does the step of the second task start, and which losses are compared"
            " after it?"
        ),
        (
            "Write a function W -> the T losses. Then, for each task i: its gradient at W, a"
            " step from W, and all T losses there."
        ),
        (
            "The heads V stay as they are. Every task's step starts from the same W. Row i of Z"
            " is 1 - losses(W - rate * g_i) / losses(W)."
        ),
    ),
)
def step_affinity(x, y, W, V, rate):
    """What a gradient step for one task does to the losses of
    all tasks. Z [T, T]: Z_ij = 1 - L_j(after i) / L_j(before).

    Task t predicts x @ W.T @ V[t]; L_t is its mean squared
    error over the N examples. "After i": one gradient step on
    L_i alone, of the given rate, from W. Heads V do not move.
    x [N, d], y [N, T], W [k, d] shared, V [T, k], rate: number.
    """
    ### BEGIN SOLUTION
    def losses(W):
        return ((x @ W.T @ V.T - y) ** 2).mean(0)

    at, rows = W.clone().requires_grad_(), []
    for loss in losses(at):
        (g,) = torch.autograd.grad(loss, at, retain_graph=True)
        rows.append(1 - losses(W - rate * g) / losses(W))
    return torch.stack(rows)
    ### END SOLUTION


# laws
@step_affinity.law("measuring a loss in another unit changes no entry of its column")
def _(answer, x, y, W, V, rate):
    want = answer(x, y, W, V, rate)[1:, 0]
    for factor in (1e-8, 1e8):
        scaled_y, scaled_V = y.clone(), V.clone()
        scaled_y[:, 0] *= factor
        scaled_V[0] *= factor
        found = answer(x, scaled_y, W, scaled_V, rate)[1:, 0]
        if not torch.allclose(found, want, rtol=1e-9, atol=1e-9):
            return False
    return True


step_affinity.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _affinity(
    x,
    y,
    W,
    V,
    rate,
    gain=lambda after, before, i: 1 - after / before,
    sign=1,
    keep=False,
    unit=False,
    sums=False,
    heads=False,
):
    """Lookahead affinity with one thing changed: what the mistakes below are made of."""

    def losses(W, V=V):
        return ((x @ W.T @ V.T - y) ** 2).mean(0)

    def slope(W, i):
        return 2 / len(x) * torch.outer(V[i], (x @ W.T @ V[i] - y[:, i]) @ x)

    before, rows, at = losses(W), [], W
    for i in range(len(V)):
        g = sum(slope(W, t) for t in range(len(V))) if sums else slope(at, i)
        g = g / g.norm() if unit else g
        new = at - sign * rate * g
        at = new if keep else at
        moved = V.clone()
        if heads:
            moved[i] -= rate * 2 / len(x) * (x @ W.T @ V[i] - y[:, i]) @ x @ W.T
        rows.append(gain(losses(new, moved), before, i))
    return torch.stack(rows)


@step_affinity.mistake(
    "Rows and columns are exchanged:"
    " row i is the task that steps, column j the task whose loss is looked at."
)
def _(*args):
    return _affinity(*args).T


step_affinity.variants(
    _affinity,
    {
        "This is the ratio after / before."
        " An affinity that is positive where the step helps is 1 minus it.": {
            "gain": lambda after, before, i: after / before
        },
        "The drop is in the loss's own unit here."
        " Divide by the loss before, so that tasks in different units can be compared.": {
            "gain": lambda after, before, i: before - after
        },
        "You divide by the loss of the task that steps."
        " It is the loss of task j that is compared with itself.": {
            "gain": lambda after, before, i: (before - after) / before[i]
        },
        "You divide by the loss after the step; the drop is relative to the loss before.": {
            "gain": lambda after, before, i: before / after - 1
        },
        "The step goes uphill.": {"sign": -1},
        "The steps add up: each task must step from the same W, so go back before the next one.": {
            "keep": True
        },
        "The gradient is scaled to length 1. The step is rate times the gradient as it is:"
        " a long gradient moves the others more.": {"unit": True},
        "All rows are the same: you step on the sum of the losses."
        " Step on the loss of task i alone.": {"sums": True},
        "The heads have stepped, too."
        " Only what is shared moves, or the diagonal looks better than what other tasks can get.": {
            "heads": True
        },
    },
)


@step_affinity.mistake(
    "This is the first order, rate * g_i . g_j / L_j."
    " Take the step, and look at the losses there: they curve."
)
def _(x, y, W, V, rate):
    at = W.clone().requires_grad_()
    losses = ((x @ at.T @ V.T - y) ** 2).mean(0)
    slopes = [torch.autograd.grad(loss, at, retain_graph=True)[0] for loss in losses]
    J = torch.stack(slopes).flatten(1)
    return rate * (J @ J.T) / losses.detach()


@step_affinity.mistake(
    "Your steps are half as long as they should be:"
    " the gradient of a mean of squares has a factor 2."
)
def _(x, y, W, V, rate):
    return _affinity(x, y, W, V, rate / 2)


@step_affinity.mistake("The steps have length 1 times the gradient: the rate is missing.")
def _(x, y, W, V, rate):
    return _affinity(x, y, W, V, 1.0)


@step_affinity.mistake(
    "A small number is added to L_j(before). The loss of a task in a small unit is small itself,"
    " and its column of Z would shrink."
)
def _(*args):
    return _affinity(*args, gain=lambda after, before, i: 1 - after / (before + 1e-8))


@step_affinity.mistake(
    "An affinity is cut off. A step that is too long makes a loss many times as large,"
    " so Z has no lower limit, and one that hurts is negative."
)
def _(*args):
    return _affinity(*args, gain=lambda after, before, i: (1 - after / before).clamp(min=-1))


@step_affinity.mistake(
    "The losses are sums over the N examples when the step is taken. They are means, so that"
    " the same rate does the same on a larger data set."
)
def _(x, y, W, V, rate):
    return _affinity(x, y, W, V, rate * len(x))


@step_affinity.mistake(
    "W is left with requires_grad, or with a .grad: the values are right,"
    " but what the function was given has changed. Differentiate a copy."
)
def _(x, y, W, V, rate):
    def losses(W):
        return ((x @ W.T @ V.T - y) ** 2).mean(0)

    W.requires_grad_()
    rows = []
    for i in range(len(V)):
        W.grad = None
        losses(W)[i].backward()
        rows.append(1 - losses(W.detach() - rate * W.grad) / losses(W.detach()))
    return torch.stack(rows)


# -------------------------------------------------------------------------- 3. cut the graph in two
# inputs
def _two_groups(generator):
    """Two groups in shuffled order.

    The larger one holds two pairs of twins, whose strong ties must not be taken for groups.
    """
    tasks = whole(generator, 9, 12)
    # the first two lie apart
    order = torch.cat(
        [torch.randperm(2, generator=generator), 2 + torch.randperm(tasks - 2, generator=generator)]
    )
    label = torch.zeros(tasks, dtype=torch.bool)
    label[order[[0, *range(2, whole(generator, 3, 5))]]] = True
    S = torch.where(label[:, None] == label, 1.0, 0.1) * (
        0.9 + 0.2 * _rand(generator, tasks, tasks)
    )
    for k, tie in ((1, 9.0), (3, 6.0)):
        S[order[-k], order[-k - 1]] = tie
        S[order[-k - 1], order[-k]] = tie
    S = (S + S.T) / 2
    return (S - torch.diag(S.diagonal()),)


def _no_groups(generator):
    """Ties of any strength.

    A task's own row does not tell its side, scaling by the degrees cuts elsewhere, and one task
    lies so near the middle, on the side without task 0, that a tolerance would move it: only the
    sign of its entry tells where it belongs.
    """
    while True:
        tasks = whole(generator, 8, 11)
        S = (_rand(generator, tasks, tasks) ** 3).triu(1) + 0.01
        S = (S + S.T) * (1 - torch.eye(tasks, dtype=S.dtype))
        values, vectors = torch.linalg.eigh(_laplacian(S))
        nearest = (vectors[:, 1] * vectors[0, 1].sign()).clamp(max=0)
        nearest = nearest[nearest < 0].abs().min()
        least = vectors[:, 1].abs().min()
        sure = values[2] - values[1] > 0.05 and 1e-4 < least == nearest < 1e-3
        if sure and not torch.equal(_side(_laplacian(S), 1), _side(_scaled(S), 1)):
            return (S,)


def _side(Q, k):
    side = torch.linalg.eigh(Q).eigenvectors[:, k] > 0
    return (side != side[0]).long()


def _laplacian(S):
    return torch.diag(S.sum(0)) - S


def _scaled(S):
    scale = S.sum(0).rsqrt()
    return scale[:, None] * _laplacian(S) * scale


# reference
@exercise(
    [_two_groups, _no_groups],
    points=2,
    grad=False,
    hints=(
        "Which unit vector x orthogonal to (1, ..., 1) makes x^T Q x smallest, with Q = D - S?",
        (
            "It is the eigenvector of the second smallest eigenvalue. torch.linalg.eigh returns"
            " eigenvalues in ascending order."
        ),
        (
            "torch.linalg.eigh(Q).eigenvectors[:, 1] > 0 are the groups; turn them so that task"
            " 0 has a 0: side != side[0]."
        ),
    ),
)
def cut(S):
    """Split the tasks of a graph into two groups, by the signs
    of the eigenvector of the Laplacian D - S with the second
    smallest eigenvalue.

    S: similarities [T, T], symmetric, positive, 0 on the
    diagonal. D is diagonal and holds the row sums of S.
    Return int64 [T]: 0 for task 0 and its group, 1 for the rest.
    """
    ### BEGIN SOLUTION
    Q = torch.diag(S.sum(0)) - S
    side = torch.linalg.eigh(Q).eigenvectors[:, 1] > 0
    return (side != side[0]).long()
    ### END SOLUTION


# laws
@cut.law("a copy of a task, tied to it firmly, lands on the same side")
def _(answer, S):
    T = len(S)
    twice = torch.zeros(T + 1, T + 1, dtype=S.dtype, device=S.device)
    twice[:T, :T] = S
    twice[T, T - 1] = twice[T - 1, T] = 20.0
    sides = answer(twice)
    return bool(sides[T] == sides[T - 1]) and int(sides[0]) == 0


@cut.law("similarities in another unit give the same groups")
def _(answer, S):
    want = answer(S)
    return all(torch.equal(answer(c * S), want) for c in (1e-6, 1e6))


cut.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
@cut.mistake(
    "Everything lands in one group:"
    " the first eigenvector of a Laplacian is constant. The second one cuts."
)
def _(S):
    return torch.zeros(len(S), dtype=torch.int64, device=S.device)


@cut.mistake(
    "This is the eigenvector of the largest eigenvalue:"
    " it tears the strongest tie apart. eigh sorts in ascending order."
)
def _(S):
    return _side(_laplacian(S), -1)


@cut.mistake(
    "The groups are right, but task 0 has a 1. The sign of an eigenvector is arbitrary, so turn it."
)
def _(S):
    return 1 - _side(_laplacian(S), 1)


@cut.mistake(
    "You scale the Laplacian by the degrees."
    " That is a good cut, too, but another one; take D - S as it is."
)
def _(S):
    return _side(_scaled(S), 1)


@cut.mistake(
    "This is a row of the matrix of eigenvectors. They are its columns: eigenvectors[:, 1]."
)
def _(S):
    side = torch.linalg.eigh(_laplacian(S)).eigenvectors[1] > 0
    return (side != side[0]).long()


@cut.mistake(
    "This is the third eigenvector: it cuts once more, across the first cut."
    " Counting starts at 0, so the second is [:, 1]."
)
def _(S):
    return _side(_laplacian(S), 2)


@cut.mistake(
    "You take an eigenvector of S itself. It sees the strongest tie first;"
    " the degrees in D - S make up for that."
)
def _(S):
    return _side(S, -2)


@cut.mistake(
    "You look for the first eigenvalue that is not zero, with a limit. Similarities of 1e-6"
    " have eigenvalues below it: take the second in order."
)
def _(S):
    values, vectors = torch.linalg.eigh(_laplacian(S))
    side = vectors[:, min(int((values < 1e-5).sum()), len(S) - 1)] > 0
    return (side != side[0]).long()


@cut.mistake(
    "Both groups have the same size, or nearly: you cut at the median."
    " The signs cut, wherever they change."
)
def _(S):
    vector = torch.linalg.eigh(_laplacian(S)).eigenvectors[:, 1]
    side = vector > vector.median()
    return (side != side[0]).long()


# ----------------------------------------------------------------------- 4. the score of a grouping
# inputs
def _groups(generator):
    tasks = whole(generator, 6, 9)
    order = torch.randperm(tasks, generator=generator).tolist()
    gains = _randn(generator, tasks, tasks) + torch.arange(tasks, dtype=torch.float64)
    gains[torch.arange(tasks), torch.arange(tasks)] = 9 + _rand(generator, tasks)
    groups = [order[:1], order[1:3], order[3:]]
    return gains, [groups[i] for i in torch.randperm(3, generator=generator)]


def _with_zeros(generator):
    """Some gain nothing at all from another task of their group; two tasks are alone."""
    tasks = whole(generator, 7, 10)
    order = torch.randperm(tasks, generator=generator).tolist()
    gains = _randn(generator, tasks, tasks) + torch.arange(tasks, dtype=torch.float64)
    gains[order[2], order[4]] = gains[order[5], order[6]] = 0.0
    gains[torch.arange(tasks), torch.arange(tasks)] = -9 - _rand(generator, tasks)
    groups = [order[:1], order[2:5], order[5:], order[1:2]]
    return gains, [groups[i] for i in torch.randperm(4, generator=generator)]


def _equal_gains(generator):
    """Many gains are equal, on the diagonal too: only its place tells it apart."""
    tasks = whole(generator, 7, 10)
    order = torch.randperm(tasks, generator=generator).tolist()
    gains = torch.randint(1, 4, (tasks, tasks), generator=generator).double()
    gains[order[-1], order[-2]] = gains[order[-2], order[-2]]
    return gains, [order[:2], order[2:3], order[3:]]


# reference
def _inflated(gains, groups):
    """Mean over all T tasks of the gain that a grouping promises:
    what a task gains from another one, averaged over the others
    of its group; 0 for a task that is alone.

    gains [T, T]: row i, column j: what task i gains from j. The
    diagonal is no gain: it is what single training gives.
    groups: list of lists of task numbers, each task once.
    One bug makes single tasks look best. Return a tensor.
    """
    total = 0
    for group in groups:
        inside = gains[group][:, group]
        total = total + inside.mean(1).sum()
    return total / len(gains)


@exercise(
    [_groups, _with_zeros, _equal_gains],
    points=2,
    grad=False,
    starter=_inflated,
    hints=(
        "What does the function return for a group of one task? What should it?",
        (
            "Take the diagonal out of the sum, and divide by the number of *others* in the"
            " group, one less than its size."
        ),
        "Inside a group: (inside.sum() - inside.trace()) / max(len(group) - 1, 1).",
    ),
)
def promised_gain(gains, groups):
    total = 0
    for group in groups:
        inside = gains[group][:, group]
        others = inside.sum() - inside.trace()
        total = total + others / max(len(group) - 1, 1)
    return total / len(gains)


# laws
@promised_gain.law("tasks that are all alone promise nothing")
def _(answer, gains, groups):
    return float(answer(gains, [[t] for t in range(len(gains))])) == 0


@promised_gain.law("gains in a smaller unit: the promise is smaller by the same factor")
def _(answer, gains, groups):
    want = answer(gains, groups)
    close = 1e-11 * float(gains.abs().max())
    return all(
        torch.isclose(answer(c * gains, groups) / c, want, rtol=1e-10, atol=close)
        for c in (0.01, 1e-9)
    )


promised_gain.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _score(gains, groups, own=False, size=lambda n: max(n - 1, 1), over=None):
    total = 0
    for group in groups:
        inside = gains[group][:, group]
        total = total + (inside.sum() - (0 if own else inside.trace())) / size(len(group))
    return total / (len(gains) if over is None else over(groups))


@promised_gain.mistake(
    "The diagonal still counts, so a task alone gets the largest number of its row."
    " A task gains nothing from itself."
)
def _(gains, groups):
    return _inflated(gains, groups)


promised_gain.variants(
    _score,
    {
        "The diagonal is out, but the average still divides by the size of the group:"
        " there is one less to gain from.": {"size": lambda n: n},
        "The right divisor, but the diagonal is still in the sum.": {"own": True},
        "This is the sum over tasks. Divide by their number.": {"over": lambda groups: 1},
        "This is the mean over groups. It is a mean over tasks:"
        " a group of four counts four times as much as a task alone.": {"over": len},
        "You add the gains from all others of the group;"
        " the promise is their average, or the largest group always wins.": {"size": lambda n: 1},
        "This is the mean over the tasks that have company. Those alone count too, with gain 0.": {
            "over": lambda groups: sum(len(g) for g in groups if len(g) > 1)
        },
    },
)


@promised_gain.mistake(
    "Tasks alone are right, but in a larger group the diagonal still counts as a gain."
)
def _(gains, groups):
    return _inflated(gains, [group for group in groups if len(group) > 1])


@promised_gain.mistake(
    "A gain that is exactly 0 is not counted among those of the average. It is a gain like any"
    " other: divide by the number of others in the group."
)
def _(gains, groups):
    total = 0
    for group in groups:
        inside = gains[group][:, group]
        inside = inside - torch.diag(inside.diagonal())
        total = total + (inside.sum(1) / (inside != 0).sum(1).clamp(min=1)).sum()
    return total / len(gains)


@promised_gain.mistake(
    "The values are right, but the diagonal of `gains` is 0 afterwards: the caller still needs it."
)
def _(gains, groups):
    gains.fill_diagonal_(0)
    return _score(gains, groups)


# ------------------------------------------------------------------------------ 5. a hub that hurts
# inputs
_STRENGTHS = {"weak": 0.3, "usual": 4.0, "strong": 60.0, "small hub": 20.0}


def _star(kind):
    def draw(generator):
        n, hub_n, leaves = whole(generator, 2, 9), whole(generator, 10, 60), whole(generator, 3, 12)
        if kind == "small hub":
            n, hub_n, leaves = 5 * hub_n, n, whole(generator, 1, 3)
        lam = uniform(generator, 0.8, 1.2) * _STRENGTHS[kind]
        return n, hub_n, leaves, lam

    return draw


# reference
@exercise(
    [_star(kind) for kind in _STRENGTHS],
    points=3,
    hints=(
        (
            "By symmetry all leaves have one estimate u. Which two equations do u and the hub's"
            " h obey, where the derivatives are zero?"
        ),
        (
            "Leaf, whose data are 0: n u + lam (u - h) = 0, so h = u (n + lam) / lam. Hub, whose"
            " data are 1: hub_n (h - 1) + lam * leaves * (h - u) = 0."
        ),
        "Put the first into the second: u = hub_n lam / (hub_n (n + lam) + leaves n lam).",
    ),
)
def hub_pull(n, hub_n, leaves, lam):
    """How far does a hub pull its neighbours?

    A star: one hub, tied to each of the `leaves` other tasks
    and to nothing else. Every task estimates its mean. The n
    examples of each leaf have the mean 0, the hub_n of the hub
    the mean 1. Minimise the squared errors of all examples
    + lam * the sum over ties of (leaf - hub)^2.
    Return the leaves' estimate (a float): 0 is no pull, 1 is
    the hub's own mean.
    """
    ### BEGIN SOLUTION
    return hub_n * lam / (hub_n * (n + lam) + leaves * n * lam)
    ### END SOLUTION


# laws
@hub_pull.law("with a firm tie it is the hub's share of all examples")
def _(answer, n, hub_n, leaves, lam):
    return abs(answer(n, hub_n, leaves, 1e4) - hub_n / (hub_n + leaves * n)) < 1e-3


@hub_pull.law("with a tie that is nearly loose it is lam / n")
def _(answer, n, hub_n, leaves, lam):
    return abs(answer(n, hub_n, leaves, 1e-5 * n) - 1e-5) < 2e-7


@hub_pull.law("all counts and lam a thousand times as large: the same pull")
def _(answer, n, hub_n, leaves, lam):
    more = answer(1000 * n, 1000 * hub_n, leaves, 1000 * lam)
    return abs(more - answer(n, hub_n, leaves, lam)) < 1e-6


# mistakes
@hub_pull.mistake(
    "That is the pull of a hub that does not move."
    " The leaves pull at it as well, all of them together."
)
def _(n, hub_n, leaves, lam):
    return lam / (n + lam)


@hub_pull.mistake(
    "That is pooling, the limit of a firm tie."
    " With a finite lam the leaves keep some of their own mean."
)
def _(n, hub_n, leaves, lam):
    return hub_n / (hub_n + leaves * n)


@hub_pull.mistake("This is where the hub ends, not the leaves.")
def _(n, hub_n, leaves, lam):
    return hub_n * (n + lam) / (hub_n * (n + lam) + leaves * n * lam)


@hub_pull.mistake("Only one leaf pulls at the hub here; all of them do.")
def _(n, hub_n, leaves, lam):
    return hub_n * lam / (hub_n * (n + lam) + n * lam)


@hub_pull.mistake("This is all leaves added up. Each of them ends at the same place; return that.")
def _(n, hub_n, leaves, lam):
    return leaves * hub_n * lam / (hub_n * (n + lam) + leaves * n * lam)


@hub_pull.mistake(
    "This is the answer for 2 lam. The derivative of (leaf - hub)^2 has a factor 2, and so has that"
    " of the squared errors: they cancel. Each tie is one term of the sum."
)
def _(n, hub_n, leaves, lam):
    lam = 2 * lam
    return hub_n * lam / (hub_n * (n + lam) + leaves * n * lam)


@hub_pull.mistake(
    "The numbers of examples are left out: every task counts as one example here."
    " A task with many examples is harder to move, and pulls harder."
)
def _(n, hub_n, leaves, lam):
    return lam / ((1 + lam) + leaves * lam)


@hub_pull.mistake(
    "This is the answer for lam / 2. Does the 2 from the derivative of the squared errors stand"
    " in both equations, but that from the ties in neither?"
)
def _(n, hub_n, leaves, lam):
    lam = lam / 2
    return hub_n * lam / (hub_n * (n + lam) + leaves * n * lam)


@hub_pull.mistake(
    "You divide the penalty by the number of leaves: it is a sum over the ties, not a mean."
)
def _(n, hub_n, leaves, lam):
    lam = lam / leaves
    return hub_n * lam / (hub_n * (n + lam) + leaves * n * lam)


@hub_pull.mistake(
    "The numbers of examples are exchanged: n belongs to each leaf, hub_n to the hub."
)
def _(n, hub_n, leaves, lam):
    return n * lam / (n * (hub_n + lam) + leaves * hub_n * lam)


@hub_pull.mistake("This is the distance between the hub and a leaf; return where the leaf is.")
def _(n, hub_n, leaves, lam):
    return hub_n * n / (hub_n * (n + lam) + leaves * n * lam)
