"""Exercises of chapter 6: when tasks conflict."""

import torch

from ..checks.exercise import exercise
from ..multitask.balancing import upgrad
from .inputs import LEAVES_NO_TRACE, different, leaves_no_trace, powers, vectors, whole


def _gradients(generator, tasks, size, scale=None):
    """Gradients [tasks, size], float64: some conflict, since they have little in common."""
    J = torch.randn(tasks, size, generator=generator, dtype=torch.float64)
    J = J - 0.9 * J.mean(0)
    return J if scale is None else J * torch.as_tensor(scale, dtype=torch.float64)[:, None]


def _gram(J):
    return J @ J.T


# ------------------------------------------------------------------------ 1. an epsilon with a unit
# inputs
def _usual(generator):
    return (_gram(_gradients(generator, whole(generator, 2, 6), 6)),)


def _late(generator):
    """Late in training: gradients of 1e-6, and a task that has arrived, any of them."""
    J = _gradients(generator, 3, 6, [1e-6, 2e-6, 1e-6])
    J[whole(generator, 0, 3)] = 0
    return (_gram(J),)


def _uneven(generator):
    """Gradients in units far apart; two of them point in opposite directions."""
    J = _gradients(generator, 4, 6)
    J[3] = -J[2]
    return (_gram(J * powers(generator, 4)[:, None]),)


# reference
def _with_epsilon(G):
    """Cosines [T, T] between the task gradients, from their
    Gram matrix [T, T]. A gradient that is zero has cosine 0
    with all of them, and with itself.
    The gradients may have any size: a loss in cents instead
    of dollars has the same angles.
    """
    norms = G.diagonal().sqrt()
    return G / (norms[:, None] * norms + 1e-8)


@exercise(
    [_usual, _late, _uneven],
    points=1,
    grad=False,
    starter=_with_epsilon,
    hints=(
        "The angles of G and of 1e-16 G are the same. What does the function return for each?",
        (
            "The epsilon is there for one case only, a gradient of zero. Treat that case by"
            " itself, and divide by the true norms elsewhere."
        ),
        "norms = torch.where(norms > 0, norms, 1.0), then G / (norms[:, None] * norms).",
    ),
)
def cosines(G):
    norms = G.diagonal().sqrt()
    norms = torch.where(norms > 0, norms, 1.0)
    return G / (norms[:, None] * norms)


# laws
@cosines.law("rescaling all losses changes no angle")
def _(answer, G):
    return all(torch.allclose(answer(G), answer(c * G), atol=1e-9) for c in (1e-20, 1e20))


cosines.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
@cosines.mistake(
    "Still the absolute epsilon:"
    " 1e-8 is nothing beside gradients of size 1, and everything beside gradients of size 1e-6."
)
def _(G):
    return _with_epsilon(G)


@cosines.mistake(
    "The epsilon is inside the norms now, but it is still absolute:"
    " norms below it are replaced, and the cosines of small gradients are lost."
)
def _(G):
    norms = G.diagonal().sqrt().clamp_min(1e-4)
    return G / (norms[:, None] * norms)


@cosines.mistake(
    "Without any epsilon a gradient of zero divides 0 by 0, which is NaN. Its cosines should be 0."
)
def _(G):
    norms = G.diagonal().sqrt()
    return G / (norms[:, None] * norms)


@cosines.mistake(
    "Relative to the whole matrix is better than absolute,"
    " but a task whose gradient is far smaller than another's still drowns in it."
)
def _(G):
    norms = G.diagonal().sqrt()
    return G / (norms[:, None] * norms + 1e-8 * G.trace())


@cosines.mistake(
    "A Gram matrix has squared norms on its diagonal: take the root before you divide by them."
)
def _(G):
    squares = torch.where(G.diagonal() > 0, G.diagonal(), 1.0)
    return G / (squares[:, None] * squares)


@cosines.mistake(
    "A gradient that is zero has cosine 0 with itself, too: its place on the diagonal is 0, not 1."
)
def _(G):
    cosine = _with_true_norms(G)
    return cosine.fill_diagonal_(1.0)


@cosines.mistake(
    "One gradient of zero makes all cosines 0. Those between the others are to be as they were."
)
def _(G):
    return torch.zeros_like(G) if (G.diagonal() == 0).any() else _with_true_norms(G)


@cosines.mistake(
    "Norms below a limit are replaced or count as zero. The limit is small, but still absolute:"
    " in a small enough unit all gradients are below it. Only a norm of exactly 0 is special."
)
def _(G):
    norms = G.diagonal().sqrt().clamp_min(1e-8)
    return G / (norms[:, None] * norms)


def _with_true_norms(G):
    norms = G.diagonal().sqrt()
    norms = torch.where(norms > 0, norms, 1.0)
    return G / (norms[:, None] * norms)


# ------------------------------------------------------------------------ 2. two tasks, closed form
# inputs
def _inside(generator):
    J = _gradients(generator, 2, 4)
    J[1] = J[1] * (1.5 + torch.rand((), generator=generator, dtype=torch.float64)) - 0.5 * J[0]
    return (_gram(J),)


def _short(which):
    """Both point the same way, and the shortest combination is one of them.

    The task `which` is short enough for that.
    """

    def draw(generator):
        J = torch.randn(1, 4, generator=generator, dtype=torch.float64) + 0.1 * torch.randn(
            2, 4, generator=generator, dtype=torch.float64
        )
        J[which] *= 0.2
        return (_gram(J),)

    return draw


def _any_length(generator):
    """Gradients of about 1e-6 or 1e6, or in units far apart."""
    kind = ("tiny", "huge", "uneven")[whole(generator, 0, 3)]
    return (_gram(vectors(generator, 2, 5, kind)),)


def _tiny(generator):
    """Late in training, gradients of 1e-7."""
    (G,) = _inside(generator)
    return (1e-14 * G,)


def _nearly_equal(generator):
    """Gradients that differ by a thousandth: single precision does not see it."""
    both, apart = vectors(generator, 1, 5), vectors(generator, 2, 5)
    apart = apart - (apart @ both.T) / both.square().sum() * both
    return (_gram(both + 1e-3 * apart),)


# reference
@exercise(
    [_inside, _short(0), _short(1), _any_length, _tiny, _nearly_equal],
    points=2,
    grad=False,
    hints=(
        (
            "Write w = (a, 1 - a). The squared length is a parabola in a: a^2 G11 + 2 a (1 - a)"
            " G12 + (1 - a)^2 G22. Where is its vertex?"
        ),
        (
            "The vertex is (G22 - G12) / (G11 + G22 - 2 G12). If it lies outside [0, 1], the end"
            " nearer to it is the answer: clamp(0, 1)."
        ),
    ),
)
def mgda_pair(G):
    """MGDA's weights for two tasks, in closed form: the tensor
    w [2] with w >= 0 and w1 + w2 = 1 for which w1 g1 + w2 g2
    is shortest. G: Gram matrix [2, 2], float64; the two
    gradients are not equal.
    """
    ### BEGIN SOLUTION
    (a, b), (_, c) = G
    first = (c - b) / (a + c - 2 * b)
    first = first.clamp(0, 1)
    return torch.stack([first, 1 - first])
    ### END SOLUTION


# laws
@mgda_pair.law("no other convex combination is shorter")
def _(answer, G):
    def length(w):
        return float(w @ G @ w)

    grid = torch.linspace(0, 1, 101, dtype=G.dtype, device=G.device)
    return length(answer(G)) <= min(length(torch.stack([a, 1 - a])) for a in grid) + 1e-7 * float(
        G.trace()
    )


@mgda_pair.law("two opposite gradients get a half each, a gradient of zero gets everything")
def _(answer, G):
    opposite, zero = G[0, 0] * G.new_tensor([[[1, -1], [-1, 1]], [[0, 0], [0, 1]]])
    halves, everything = G.new_tensor([[0.5, 0.5], [1, 0]])
    return torch.allclose(answer(opposite), halves) and torch.allclose(answer(zero), everything)


mgda_pair.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _pair(a):
    return torch.stack([a, 1 - a])


def _vertex(G):
    return (G[1, 1] - G[0, 1]) / (G[0, 0] + G[1, 1] - 2 * G[0, 1])


@mgda_pair.mistake(
    "The vertex of the parabola may lie outside [0, 1], and then a weight is negative."
    " The shortest *convex* combination is at an end."
)
def _(G):
    return _pair(_vertex(G))


@mgda_pair.mistake("The two weights are exchanged: the shorter gradient has the larger weight.")
def _(G):
    return _pair(_vertex(G).clamp(0, 1)).flip(0)


@mgda_pair.mistake("You leave the dot product G12 out, as if the gradients were orthogonal.")
def _(G):
    return _pair(G[1, 1] / (G[0, 0] + G[1, 1]))


@mgda_pair.mistake(
    "The sign of G12 is turned:"
    " the parabola's leading coefficient is |g1 - g2|^2 = G11 + G22 - 2 G12."
)
def _(G):
    return _pair(((G[1, 1] + G[0, 1]) / (G[0, 0] + G[1, 1] + 2 * G[0, 1])).clamp(0, 1))


@mgda_pair.mistake(
    "These weights give both gradients the same length:"
    " that is the bisector, IMTL-G for two tasks. MGDA wants the shortest combination."
)
def _(G):
    norms = G.diagonal().sqrt()
    return norms.flip(0) / norms.sum()


@mgda_pair.mistake("These are the plain mean's weights: the dot products are not used.")
def _(G):
    return G.new_full((2,), 0.5)


@mgda_pair.mistake(
    "A weight below 0 is caught, one above 1 is not,"
    " so the other weight becomes negative. Clip at both ends."
)
def _(G):
    return _pair(_vertex(G).clamp_min(0))


@mgda_pair.mistake(
    "A small number is added to |g1 - g2|^2, and for gradients of 1e-6 it is not small:"
    " exercise 1 warns of it. The two gradients differ, so nothing is divided by zero."
)
def _(G):
    a = (G[1, 1] - G[0, 1]) / (G[0, 0] + G[1, 1] - 2 * G[0, 1] + 1e-8)
    return _pair(a.clamp(0, 1))


@mgda_pair.mistake(
    "A vertex outside [0, 1] is replaced by the middle. The parabola rises from its vertex on:"
    " the end nearer to it is the shortest."
)
def _(G):
    a = _vertex(G)
    return _pair(torch.where((a < 0) | (a > 1), torch.full_like(a, 0.5), a))


# ----------------------------------------------------------------------------------- 3. projections
# inputs
def _others(generator, tasks):
    return [
        [j for j in torch.randperm(tasks, generator=generator).tolist() if j != i]
        for i in range(tasks)
    ]


def _conflicting_pair(generator):
    J = _gradients(generator, 2, whole(generator, 3, 6))
    J[1] = J[1] - (0.3 + (J[0] @ J[1]).clamp_min(0) / (J[0] @ J[0])) * J[0]
    return J, _others(generator, 2)


def _several(generator):
    J = _gradients(generator, 5, whole(generator, 6, 9), (1 + torch.arange(5)) / 2)
    return J, [list(range(4)) if i == 4 else order for i, order in enumerate(_others(generator, 5))]


# reference
@exercise(
    [_conflicting_pair, _several],
    points=3,
    grad=False,
    hints=(
        "What is projected: gradient i itself, or what earlier projections have left of it?",
        (
            "Two loops: over the tasks i, and for each over the tasks j of orders[i]. What is"
            " projected is a running copy of gradient i."
        ),
        (
            "If dot = copy @ J[j] is negative, subtract from the copy its part along J[j]: copy"
            " = copy - dot / (J[j] @ J[j]) * J[j]. J[j] is the original gradient."
        ),
    ),
)
def pcgrad_direction(J, orders):
    """PCGrad's update for given orders of projection.

    J: gradients [T, P], one row per task, none of them zero.
    orders: list of T lists; orders[i] holds the other tasks in
    the order in which gradient i is held against them.
    Return the tensor [P]. J must not change.
    """
    ### BEGIN SOLUTION
    total = 0
    for i, order in enumerate(orders):
        copy = J[i]
        for j in order:
            dot = copy @ J[j]
            if dot < 0:
                copy = copy - dot / (J[j] @ J[j]) * J[j]
        total = total + copy
    return total
    ### END SOLUTION


# laws
@pcgrad_direction.law("for two tasks it conflicts with neither")
def _(answer, J, orders):
    pair = J[:2]
    return bool((pair @ answer(pair, [[1], [0]]) >= -1e-9 * pair.square().sum()).all())


@pcgrad_direction.law("in another unit of the losses it is the same direction, in that unit")
def _(answer, J, orders):
    want = answer(J, orders)
    close = 1e-6 * J.abs().max()
    return all(
        torch.allclose(answer(c * J, orders) / c, want, rtol=1e-6, atol=close) for c in (1e-6, 1e6)
    )


pcgrad_direction.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
@pcgrad_direction.mistake(
    "You project every time."
    " A gradient that does not conflict (dot product not negative) is left as it is."
)
def _(J, orders):
    total = 0
    for i, order in enumerate(orders):
        copy = J[i]
        for j in order:
            copy = copy - copy @ J[j] / (J[j] @ J[j]) * J[j]
        total = total + copy
    return total


@pcgrad_direction.mistake(
    "You project where the gradients agree. A conflict is a negative dot product."
)
def _(J, orders):
    total = 0
    for i, order in enumerate(orders):
        copy = J[i]
        for j in order:
            dot = copy @ J[j]
            if dot > 0:
                copy = copy - dot / (J[j] @ J[j]) * J[j]
        total = total + copy
    return total


@pcgrad_direction.mistake(
    "The others have been projected already when you use them."
    " Project onto the normal plane of the *original* g_j."
)
def _(J, orders):
    copies = list(J)
    for i, order in enumerate(orders):
        for j in order:
            dot = copies[i] @ copies[j]
            if dot < 0:
                copies[i] = copies[i] - dot / (copies[j] @ copies[j]) * copies[j]
    return sum(copies)


@pcgrad_direction.mistake(
    "The part along g_j is (copy . g_j) / (g_j . g_j) g_j:"
    " divide by the squared norm, not by the norm."
)
def _(J, orders):
    total = 0
    for i, order in enumerate(orders):
        copy = J[i]
        for j in order:
            dot = copy @ J[j]
            if dot < 0:
                copy = copy - dot / J[j].norm() * J[j]
        total = total + copy
    return total


@pcgrad_direction.mistake(
    "Each dot product is taken with the original g_i."
    " Use the running copy, or the second projection undoes part of the first."
)
def _(J, orders):
    total = 0
    for i, order in enumerate(orders):
        copy = J[i]
        for j in order:
            dot = J[i] @ J[j]
            if dot < 0:
                copy = copy - dot / (J[j] @ J[j]) * J[j]
        total = total + copy
    return total


@pcgrad_direction.mistake(
    "The sign is turned: you add the conflicting part once more instead of taking it away."
)
def _(J, orders):
    total = 0
    for i, order in enumerate(orders):
        copy = J[i]
        for j in order:
            dot = copy @ J[j]
            if dot < 0:
                copy = copy + dot / (J[j] @ J[j]) * J[j]
        total = total + copy
    return total


@pcgrad_direction.mistake("PCGrad adds the projected gradients up; you take their mean.")
def _(J, orders):
    return pcgrad_direction(J, orders) / len(J)


@pcgrad_direction.mistake(
    "The order is not used: gradient i is to be held against the tasks in the order of orders[i]."
)
def _(J, orders):
    return pcgrad_direction(J, [sorted(order) for order in orders])


@pcgrad_direction.mistake(
    "Only the first conflict of each task is resolved: go on through the rest of its order."
)
def _(J, orders):
    return pcgrad_direction(J, [order[:1] for order in orders])


@pcgrad_direction.mistake(
    "The running copy is no copy: J[i] is a view, and changing it in place changes J,"
    " against which the next gradients are held."
)
def _(J, orders):
    total = 0
    for i, order in enumerate(orders):
        copy = J[i]
        for j in order:
            dot = copy @ J[j]
            if dot < 0:
                copy -= dot / (J[j] @ J[j]) * J[j]
        total = total + copy
    return total


@pcgrad_direction.mistake(
    "A small fixed number is compared with a dot product, or added to one, and for gradients of"
    " 1e-6 it is not small. None of the gradients is zero, and a conflict is below 0."
)
def _(J, orders):
    total = 0
    for i, order in enumerate(orders):
        copy = J[i]
        for j in order:
            copy = copy - (copy @ J[j]).clamp_max(0) / (J[j] @ J[j] + 1e-8) * J[j]
        total = total + copy
    return total


# --------------------------------------------------------------------------- 4. who is on the table
# inputs
def _split(tasks, unused=0, agree=False):
    """Gradients of a trunk of 6 parameters, in conflict, and of a head for each task.

    The heads have 1 to 4 parameters each, no two the same number; the parameters are shuffled.
    unused: how many of the trunk's parameters have a gradient from the last task only. agree: no
    conflict at all.
    """

    def draw(generator):
        trunk = _gradients(generator, tasks, 6, (1 + torch.arange(tasks)) / 2)
        trunk[:-1, :unused] = 0
        if agree:
            trunk = trunk.abs()
        if tasks == 2:
            trunk[1] = (
                trunk[1]
                - (0.5 + (trunk[0] @ trunk[1]).clamp_min(0) / (trunk[0] @ trunk[0])) * trunk[0]
            )
        heads = torch.block_diag(
            *(
                1 + torch.rand(1, size, generator=generator, dtype=torch.float64)
                for size in different(generator, tasks, 1, 5)
            )
        )
        heads[:, ::2] *= -1
        both = torch.cat([trunk, heads], dim=1)
        order = torch.randperm(both.shape[1], generator=generator)
        shared = torch.arange(both.shape[1]) < 6
        return both[:, order], shared[order]

    return draw


# reference
def _everything(gradients, shared):
    """The direction of one training step for all parameters of
    a network with a shared trunk and one head per task.

    gradients: float64 [T, P], row t the gradient of loss t with
    respect to all P parameters. shared: bool [P], True where a
    parameter is of the trunk; the rest are of heads, and each
    head has a gradient from its own task only.
    The trunk's part is to be balanced by UPGrad. The heads are
    to learn as they would under the sum of the losses.
    Return the tensor [P].
    """
    w = upgrad(gradients @ gradients.T)
    return w @ gradients


@exercise(
    [_split(2), _split(3), _split(4, unused=2), _split(3, agree=True)],
    points=2,
    grad=False,
    device=False,
    starter=_everything,
    hints=(
        (
            "Two tasks can conflict only where both have a gradient. What do the heads add to"
            " the Gram matrix, and where?"
        ),
        (
            "Two tasks can conflict only where both have a gradient, which is in the trunk: take"
            " the Gram matrix of gradients[:, shared] alone."
        ),
        (
            "w = upgrad(trunk @ trunk.T) with trunk = gradients[:, shared]. Then the trunk gets"
            " w @ gradients and a head the sum of the gradients, unweighted: torch.where(shared,"
            " ..., ...)."
        ),
    ),
)
def step_direction(gradients, shared):
    trunk = gradients[:, shared]
    w = upgrad(trunk @ trunk.T)
    return torch.where(shared, w @ gradients, gradients.sum(0))


# laws
@step_direction.law("a head's gradient does not depend on the other tasks")
def _(answer, gradients, shared):
    return torch.allclose(answer(gradients, shared)[~shared], gradients.sum(0)[~shared])


@step_direction.law("in another unit of the losses it is the same direction, in that unit")
def _(answer, gradients, shared):
    want = answer(gradients, shared)
    close = 1e-5 * gradients.abs().max()
    return all(
        torch.allclose(answer(c * gradients, shared) / c, want, rtol=1e-5, atol=close)
        for c in (1e-6, 1e6)
    )


step_direction.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
@step_direction.mistake(
    "The heads are on the operating table:"
    " they lengthen every gradient, so conflicts look smaller, and they are weighted themselves."
)
def _(gradients, shared):
    return _everything(gradients, shared)


@step_direction.mistake(
    "The Gram matrix is the trunk's now, but the heads are still multiplied"
    " by the trunk's weights: a task that loses the bargain stops to learn."
)
def _(gradients, shared):
    trunk = gradients[:, shared]
    return upgrad(trunk @ trunk.T) @ gradients


@step_direction.mistake(
    "The heads are free now, but they still lengthen the gradients in the Gram matrix,"
    " so the trunk's conflicts are not resolved."
)
def _(gradients, shared):
    return torch.where(shared, upgrad(gradients @ gradients.T) @ gradients, gradients.sum(0))


@step_direction.mistake(
    "The heads get no gradient at all: they would stay as they were initialised."
)
def _(gradients, shared):
    trunk = gradients[:, shared]
    return torch.where(shared, upgrad(trunk @ trunk.T) @ gradients, torch.zeros_like(gradients[0]))


@step_direction.mistake("The plain sum everywhere: no balancing is left.")
def _(gradients, shared):
    return gradients.sum(0)


@step_direction.mistake(
    "The heads get the mean of the gradients, which is theirs divided by T:"
    " under the sum of the losses they get all of it."
)
def _(gradients, shared):
    trunk = gradients[:, shared]
    return torch.where(shared, upgrad(trunk @ trunk.T) @ gradients, gradients.mean(0))


@step_direction.mistake(
    "What is shared is guessed from the zeros. A parameter of the trunk may have no gradient"
    " from a task, and is of the trunk all the same: `shared` says which are."
)
def _(gradients, shared):
    guessed = (gradients != 0).all(0)
    trunk = gradients[:, guessed]
    return torch.where(guessed, upgrad(trunk @ trunk.T) @ gradients, gradients.sum(0))


@step_direction.mistake(
    "The trunk's weights are scaled to a sum of 1. UPGrad's are taken as they come:"
    " where tasks conflict they are larger than those of the mean."
)
def _(gradients, shared):
    trunk = gradients[:, shared]
    w = upgrad(trunk @ trunk.T)
    return torch.where(shared, w / w.sum() @ gradients, gradients.sum(0))


# ----------------------------------------------------------------------------------- 5. the bargain
# inputs
def _bargain(generator):
    tasks = whole(generator, 2, 5)
    return _gram(_gradients(generator, tasks, 2 * tasks) + 0.3), 0.2 + torch.rand(
        tasks, generator=generator, dtype=torch.float64
    )


def _newton(G, w, slope, hessian):
    """The damped step, from any slope and matrix of second derivatives."""
    s = torch.linalg.solve(hessian, slope)
    return w - s / (1 + (slope @ s).clamp_min(0).sqrt())


def _nearly_there(generator):
    """Losses in units far apart, and weights that a few more steps would bring to the solution."""
    G, w = _bargain(generator)
    for _ in range(20):
        w = _newton(G, w, G @ w - 1 / w, G + torch.diag(1 / w**2))
    w = w * (1 + 0.02 * torch.randn(len(w), generator=generator, dtype=w.dtype))
    units = powers(generator, len(w), -2, 2)
    return units[:, None] * G * units, w / units


# reference
@exercise(
    [_bargain, _nearly_there],
    points=3,
    grad=False,
    hints=(
        "What are the gradient and the matrix of second derivatives of w^T G w / 2 - sum log w?",
        "The gradient is G w - 1/w; the second derivatives are G plus the diagonal of 1/w^2.",
        (
            "Newton's step s solves (second derivatives) s = gradient. The decrement is"
            " sqrt(gradient . s); go by s / (1 + decrement), downhill."
        ),
    ),
)
def nash_step(G, w):
    """One damped Newton step towards Nash-MTL's weights, which
    minimise w^T G w / 2 - sum_t log w_t.

    G: Gram matrix [T, T]; w: the present weights [T], positive;
    both float64. With the Newton step s and the Newton
    decrement d = sqrt(gradient . s), the new weights are
    w - s / (1 + d). Return them, [T].
    """
    ### BEGIN SOLUTION
    slope = G @ w - 1 / w
    s = torch.linalg.solve(G + torch.diag(1 / w**2), slope)
    d = torch.sqrt(slope @ s)
    return w - s / (1 + d)
    ### END SOLUTION


# laws
@nash_step.law("keeps the weights positive, and sixty steps solve w * (G w) = 1")
def _(answer, G, w):
    for _ in range(60):
        w, before = answer(G, w), w
        if not (w > 0).all():
            return False
        if torch.allclose(w, before, rtol=1e-12, atol=0):
            break
    return torch.allclose(w * (G @ w), torch.ones_like(w), rtol=1e-6)


@nash_step.law("gradients in another unit, weights in its inverse: the same step")
def _(answer, G, w):
    want = answer(G, w)
    return all(
        torch.allclose(c * answer(c * c * G, w / c), want, rtol=1e-6, atol=1e-9)
        for c in (1e-6, 1e6)
    )


nash_step.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
@nash_step.mistake(
    "The full Newton step, without damping:"
    " far from the solution it can make a weight negative, where the logarithm has no value."
)
def _(G, w):
    return w - torch.linalg.solve(G + torch.diag(1 / w**2), G @ w - 1 / w)


@nash_step.mistake("The gradient of -log w is -1/w; you add 1/w.")
def _(G, w):
    return _newton(G, w, G @ w + 1 / w, G + torch.diag(1 / w**2))


@nash_step.mistake(
    "The logarithm has a second derivative too: its diagonal 1/w^2 is missing in the matrix."
)
def _(G, w):
    return _newton(G, w, G @ w - 1 / w, G)


@nash_step.mistake("The second derivative of -log w is 1/w^2, not 1/w.")
def _(G, w):
    return _newton(G, w, G @ w - 1 / w, G + torch.diag(1 / w))


@nash_step.mistake(
    "The dot product of the gradients is missing in the matrix of second derivatives,"
    " which is G plus a diagonal."
)
def _(G, w):
    return _newton(G, w, G @ w - 1 / w, torch.diag(1 / w**2))


@nash_step.mistake("You go uphill: the step is subtracted.")
def _(G, w):
    return 2 * w - nash_step(G, w)


@nash_step.mistake("The decrement is the square root of gradient . s; you damp with its square.")
def _(G, w):
    slope = G @ w - 1 / w
    s = torch.linalg.solve(G + torch.diag(1 / w**2), slope)
    return w - s / (1 + slope @ s)


@nash_step.mistake(
    "This repeats w = 1 / (G w), which need not converge and may turn negative."
    " Newton's step uses the second derivatives."
)
def _(G, w):
    return 1 / (G @ w)


@nash_step.mistake(
    "A step along the gradient only:"
    " Newton's step solves a system with the matrix of second derivatives."
)
def _(G, w):
    slope = G @ w - 1 / w
    return w - slope / (1 + slope.norm())


@nash_step.mistake(
    "A small fixed number is at work: added to the second derivatives, which 1/w^2 makes"
    " invertible already, or as a limit for the weights. In another unit it is not small."
)
def _(G, w):
    ridge = 1e-8 * torch.eye(len(w), dtype=w.dtype, device=w.device)
    return _newton(G, w, G @ w - 1 / w, G + torch.diag(1 / w**2) + ridge)


@nash_step.mistake(
    "Near the solution you take the full step. The step that is asked for is damped always,"
    " by 1 + d."
)
def _(G, w):
    slope = G @ w - 1 / w
    s = torch.linalg.solve(G + torch.diag(1 / w**2), slope)
    d = (slope @ s).sqrt()
    return w - s if d < 0.25 else w - s / (1 + d)


@nash_step.mistake("These are two steps. Return the weights after the first.")
def _(G, w):
    return nash_step(G, nash_step(G, w))


@nash_step.mistake(
    "You damp with the length of the step s. The decrement is sqrt(gradient . s)."
)
def _(G, w):
    s = torch.linalg.solve(G + torch.diag(1 / w**2), G @ w - 1 / w)
    return w - s / (1 + s.norm())


@nash_step.mistake(
    "The gradient of w^T G w / 2 is G w, once: the 1/2 and the two w's cancel."
)
def _(G, w):
    return _newton(G, w, 2 * G @ w - 1 / w, G + torch.diag(1 / w**2))
