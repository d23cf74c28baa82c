"""Exercises of chapter 17: learn the starting point."""

import warnings
from functools import cache

import torch

from ..checks.exercise import exercise
from .inputs import different, shuffled, uniform, whole
from .outcomes import required


@cache
def _import_functions():
    """The first call of torch.func imports for seconds, with warnings: on no answer's time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.func.grad(torch.sin)(torch.zeros(()))
        torch.func.jvp(torch.sin, (torch.zeros(()),), (torch.zeros(()),))


def _normal(generator, *shape, scale=1.0):
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


# -------------------------------------------------------------------------------- 1. one inner step
# inputs
def _tanh_network(params, x):
    # with the 0.5 no change of signs leaves it as it is
    hidden = torch.tanh(x @ params["layer.weight"].T + params["layer.bias"] + 0.5)
    return hidden @ params["head"]


def _start(generator):
    """Parameters of a small network by name, in no order, and the number of its inputs."""
    hidden, inputs = different(generator, 2, 2, 5)
    shapes = {"layer.weight": (hidden, inputs), "layer.bias": (hidden,), "head": (hidden,)}
    params = {name: _normal(generator, *shape) for name, shape in shapes.items()}
    return shuffled(generator, params), inputs


def _small_network(size):
    """A network, examples and a rate. size: of its loss, and the rate is as much smaller."""

    def draw(generator):
        _import_functions()
        params, inputs = _start(generator)
        rows = whole(generator, 5, 9)
        x, y = _normal(generator, rows, inputs), _normal(generator, rows)
        return params, x, y, uniform(generator, 0.1, 0.3) / size, size

    return draw


def _leaves(params):
    return {name: p.detach().clone().requires_grad_() for name, p in params.items()}


def _mse(x, y, size=1.0):
    return lambda params: size * (_tanh_network(params, x) - y).square().mean()


def _left_behind(params, given, values):
    """What became of a dict `params`, which held the tensors `given` with these values."""
    told = {
        "`params` holds the same tensors": params.keys() == given.keys()
        and all(params[name] is p for name, p in given.items()),
        "their values stay as they are": all(torch.equal(p, values[n]) for n, p in given.items()),
        "their .grad stays empty": all(p.grad is None for p in given.values()),
        "they require a gradient": all(p.requires_grad for p in given.values()),
    }
    for p in given.values():
        p.requires_grad_()
    return told


def _stepped(answer, loss, params, rate):
    """What the answer returns: a dict with the names of params."""
    new = required(answer(loss, params, rate))
    if not isinstance(new, dict) or new.keys() != params.keys():
        raise ValueError("Return a new dict with the names of `params`, each with its tensor.")
    return new


def _after_two_steps(answer, params, x, y, rate, size):
    """The parameters after one step and after two, and what became of the given ones.

    And the gradients, with respect to the given parameters, of a function of the new ones.
    """
    loss, judge = _mse(x, y, size), _mse(x.flip(0), y)
    given = _leaves(params)
    start = dict(given)
    once = _stepped(answer, loss, start, rate)
    left = _left_behind(start, given, params)
    try:
        twice = _stepped(answer, loss, once, rate)
    except Exception as error:
        if not isinstance(error, NotImplementedError):
            error.args = (f"{error}, in a second step from the parameters that the first gave",)
        raise

    def slopes(new):
        judged, leaves = judge(new), list(given.values())
        if not judged.requires_grad:
            return [torch.zeros_like(p) for p in leaves]
        found = torch.autograd.grad(judged, leaves, allow_unused=True, retain_graph=True)
        return [torch.zeros_like(p) if s is None else s for p, s in zip(leaves, found)]

    return {
        "new": {name: once[name].detach() for name in params},
        **left,
        "gradient through the step": slopes(once),
        "after a second step": {name: twice[name].detach() for name in params},
        "gradient through both steps": slopes(twice),
    }


# reference
@exercise(
    [_small_network(1.0), _small_network(1e4)],
    points=2,
    call=_after_two_steps,
    grad=False,
    hints=(
        "If a loss is taken after the step and differentiated, what must the slopes still know?",
        "They need a graph of their own: create_graph=True. No detach, no .data, no .backward().",
        (
            "slopes = torch.autograd.grad(loss(params), list(params.values()),"
            " create_graph=True); then a new dict, {name: p - rate * slope ...}."
        ),
    ),
)
def inner_step(loss, params, rate):
    """One step of gradient descent that can be differentiated.

    loss: function from a dict of parameters to a scalar.
    params: name -> tensor that requires a gradient.
    Return a new dict, name -> p - rate * slope of the loss.
    Afterwards a function of the new parameters can be
    differentiated with respect to the old ones, through the
    slopes as well. `params` stays as it is.
    """
    ### BEGIN SOLUTION
    slopes = torch.autograd.grad(
        loss(params), list(params.values()), create_graph=True)
    return {name: p - rate * g
            for (name, p), g in zip(params.items(), slopes)}
    ### END SOLUTION


# laws
@inner_step.law("a rate of 0 leaves every parameter where it is")
def _(answer, params, x, y, rate, size):
    params = _leaves(params)
    return all(
        torch.equal(p.detach(), params[name].detach())
        for name, p in answer(_mse(x, y), params, 0.0).items()
    )


@inner_step.law("nothing is written into .grad, which belongs to the outer loop: no .backward()")
def _(answer, params, x, y, rate, size):
    params = _leaves(params)
    answer(_mse(x, y), params, rate)
    return all(p.grad is None for p in params.values())


# mistakes
def _step(loss, params, rate, graph=True, of=lambda p: p, sign=-1, after=lambda new: new):
    """The answer with one thing changed: what the mistakes below are made of."""
    slopes = torch.autograd.grad(loss(params), list(params.values()), create_graph=graph)
    return after({name: of(p) + sign * rate * g for (name, p), g in zip(params.items(), slopes)})


def _detached(new):
    return {name: p.detach() for name, p in new.items()}


_CUT_OFF = (
    "The values are right, but nothing leads back to the start, so there is nothing to meta-learn:"
    " no .detach(), .data or torch.no_grad() on the way from p to the new one."
)

inner_step.variants(
    _step,
    {
        "The values are right, but the slopes count as constants:"
        " the second-order term is missing, and this is FOMAML."
        " They need a graph, create_graph=True, and must not be detached after that.": {
            "graph": False
        },
        _CUT_OFF: {"after": _detached},
        "The slopes lead back to the start, p itself does not:"
        " it was detached. The identity in I - rate * Hessian is lost.": {
            "of": lambda p: p.detach()
        },
        "The step goes uphill: subtract the slopes.": {"sign": 1},
    },
)


@inner_step.mistake(
    "The first step works, a second one does not: .backward() fills the .grad of leaves only,"
    " and the parameters of the second step are none. torch.autograd.grad gives slopes anywhere."
)
def _(loss, params, rate):
    loss(params).backward(create_graph=True)
    return {name: p - rate * p.grad for name, p in params.items()}


# with leaves of their own a second step works
@inner_step.mistake(_CUT_OFF)
def _(loss, params, rate):
    new = _step(loss, params, rate, graph=False)
    return {name: p.detach().requires_grad_() for name, p in new.items()}


@inner_step.mistake(
    "Names and slopes are paired by position, in two different orders: the slopes come in the order"
    " of the tensors that torch.autograd.grad was given."
)
def _(loss, params, rate):
    slopes = torch.autograd.grad(loss(params), list(params.values()), create_graph=True)
    return {
        name: params[name] - rate * g for name, g in zip(sorted(params), slopes, strict=True)
    }


@inner_step.mistake(
    "The new tensors are put into the dict `params` itself."
    " The next task needs the same start: build a new dict."
)
def _(loss, params, rate):
    params.update(_step(loss, params, rate))
    return params


@inner_step.mistake("The rate is not used.")
def _(loss, params, rate):
    return _step(loss, params, 1.0)


@inner_step.mistake("You divide by the rate: the step is rate times the slope.")
def _(loss, params, rate):
    return _step(loss, params, 1 / rate)


@inner_step.mistake(
    "The given parameters were changed in place."
    " The next task needs the same start: build new tensors."
)
def _(loss, params, rate):
    slopes = torch.autograd.grad(loss(params), list(params.values()))
    for p, g in zip(params.values(), slopes):
        p.data -= rate * g
    return params


@inner_step.mistake(
    "One parameter after the other: the second slope was taken"
    " where the first parameter had moved already. Take all slopes at the same point."
)
def _(loss, params, rate):
    new = dict(params)
    for name, p in params.items():
        new[name] = p - rate * torch.autograd.grad(loss(new), p, create_graph=True)[0]
    return new


@inner_step.mistake("These are the slopes, not the stepped parameters.")
def _(loss, params, rate):
    return _step(loss, params, 1.0, of=torch.zeros_like, sign=1)


# ---------------------------------------------------------------------- 2. the start in closed form
# inputs
def _bowls(tasks, size, unit=1.0, too_far=False):
    """Losses of some tasks. unit: of the losses, and the rate is as much smaller.

    too_far: whether a step goes past the centre, so that I - rate H_t is negative.
    """

    def draw(generator):
        Q = torch.linalg.qr(_normal(generator, tasks, size, size)).Q
        rate, low, width = uniform(generator, 0.2, 0.3), 0.3, 2.2
        if too_far:
            rate, low, width = 0.8, 1.6, 0.9
        curvature = low + width * torch.rand(
            tasks, size, generator=generator, dtype=torch.float64
        )
        H = unit * Q @ torch.diag_embed(curvature) @ Q.transpose(1, 2)
        return (
            (H + H.transpose(1, 2)) / 2,
            _normal(generator, tasks, size, scale=2.0),
            rate / unit,
        )

    return draw


# reference
@exercise(
    [
        _bowls(2, 2),
        _bowls(4, 3),
        _bowls(3, 2, unit=1e-6, too_far=True),
        _bowls(2, 4, unit=1e6),
        _bowls(1, 1),
    ],
    points=2,
    grad=False,
    rtol=1e-5,
    hints=(
        (
            "After the step, how far is theta from the centre c_t, and what shape has the loss"
            " as a function of the start?"
        ),
        (
            "After the step the distance to the centre is (I - rate H_t)(theta - c_t). Put it"
            " into the loss: it is a bowl again, with another matrix M_t."
        ),
        (
            "M_t = (I - rate H_t) H_t (I - rate H_t), and the minimum of a sum of bowls solves"
            " (sum of M_t) theta = sum of M_t c_t."
        ),
    ),
)
def maml_start(H, C, rate):
    """MAML's start in closed form, for one inner step.

    Task t has the loss (theta - c_t)' H_t (theta - c_t) / 2, for
    the step and after it. H: [T, d, d], symmetric and positive
    definite; C: centres [T, d]; float64.
    Return the theta [d] with the smallest mean loss after each
    task has taken one step of gradient descent at `rate`.
    """
    ### BEGIN SOLUTION
    left = torch.eye(len(C[0])).to(H) - rate * H
    M = left @ H @ left
    pulls = torch.einsum("tij,tj->i", M, C)
    return torch.linalg.solve(M.sum(0), pulls)
    ### END SOLUTION


# laws
@maml_start.law("tasks of one curvature start at the mean of their centres, whatever the rate")
def _(answer, H, C, rate):
    return torch.allclose(answer(H[:1].expand_as(H).contiguous(), C, rate), C.mean(0), atol=1e-8)


# mistakes
def _identity(H):
    return torch.eye(H.shape[-1], dtype=H.dtype, device=H.device)


def _best_start(H, C, rate, matrix=lambda H, K: K @ H @ K, mean=torch.sum):
    """The answer with another matrix for each task, from H [T, d, d] and K = I - rate H."""
    M = matrix(H, _identity(H) - rate * H)
    return torch.linalg.solve(mean(M, 0), torch.einsum("tij,tj->i", M, C))


maml_start.variants(
    _best_start,
    {
        "This is the joint minimum, the start with the smallest loss *before* adaptation."
        " The rate has to come in.": {"matrix": lambda H, K: H},
        "This is where FOMAML rests: the factor (I - rate H_t) comes twice,"
        " once from the step and once from differentiating through it.": {
            "matrix": lambda H, K: H @ K
        },
        "H_t itself is missing between the two factors:"
        " they say how far the centre still is, H_t says what that costs.": {
            "matrix": lambda H, K: K @ K
        },
        "You solve for the mean matrix with the sum of the pulls, or the other way round:"
        " both sums, or both means.": {"mean": torch.mean},
        "This is the mean of the centres: the curvatures are not used.": {
            "matrix": lambda H, K: _identity(H).expand_as(H)
        },
        "1 - rate * H subtracts from every entry."
        " The identity has ones on the diagonal only: torch.eye.": {
            "matrix": lambda H, K: (K + 1 - _identity(H)) @ H @ (K + 1 - _identity(H))
        },
        "With * you multiply entry by entry. Products of matrices are written with @.": {
            "matrix": lambda H, K: K * H * K
        },
    },
)


@maml_start.mistake("The factor is (I - rate H_t), a step downhill; you have a plus.")
def _(H, C, rate):
    return _best_start(H, C, -rate)


@maml_start.mistake(
    "Each factor has the rate once: (I - rate H_t) on both sides is not I - rate^2 H_t^2."
)
def _(H, C, rate):
    return _best_start(H, C, rate, matrix=lambda H, K: H - rate**2 * H @ H @ H)


@maml_start.mistake(
    "A small constant is added before you solve. Where the losses are small it is no longer small"
    " beside them: the sum of M_t can be inverted as it is."
)
def _(H, C, rate):
    step = _identity(H) - rate * H
    M = step @ H @ step
    return torch.linalg.solve(
        M.sum(0) + 1e-8 * _identity(H), torch.einsum("tij,tj->i", M, C)
    )


@maml_start.mistake(
    "Only the diagonals of the H_t are used: the axes of a bowl may point anywhere."
)
def _(H, C, rate):
    curvature = H.diagonal(dim1=1, dim2=2)
    weight = curvature * (1 - rate * curvature) ** 2
    return (weight * C).sum(0) / weight.sum(0)


# ------------------------------------------------------------------- 3. what first order leaves out
# inputs
def _two_losses(scale):
    """The slopes of two losses sum log cosh(A theta - b), the second times scale.

    And a start, a rate, and how far apart the differences are taken.
    """

    def draw(generator):
        _import_functions()
        size = int(torch.randint(2, 5, (), generator=generator))
        A, B = _normal(generator, size + 2, size), _normal(generator, size + 2, size)
        return (
            A,
            B,
            _normal(generator, size + 2),
            _normal(generator, size + 2),
            _normal(generator, size),
            0.1 + 0.2 * float(torch.rand((), generator=generator)),
            1e-4,
            scale,
        )

    return draw


def _with_slopes(answer, A, B, a, b, theta, rate, reach, scale):
    def slope(t):
        return torch.tanh(t @ A.T - a) @ A

    def judge(t):
        return scale * torch.tanh(t @ B.T - b) @ B

    kept, points = theta.detach().clone(), []

    def seen(t):
        points.append(t.detach().clone())
        return slope(t)

    term = required(answer(seen, judge, theta, rate, reach))
    away = max((float((t.to(kept) - kept).norm()) for t in points), default=0.0)
    return {
        "term": term / scale,
        "theta stays as it is": torch.equal(theta, kept),
        # an exact derivative takes no differences
        "differences reach as far as they are to": away == 0 or abs(away - reach) < 0.01 * reach,
    }


# reference
@exercise(
    [_two_losses(1.0), _two_losses(1e4), _two_losses(1e-9)],
    points=3,
    call=_with_slopes,
    grad=False,
    rtol=1e-4,
    atol=1e-6,
    hints=(
        (
            "The chain rule gives (I - rate H) g' with g' the query's slope at the stepped"
            " theta. FOMAML is g'. What is left?"
        ),
        (
            "What is left is -rate H g'. H v is the change of the slope along v, and two"
            " evaluations of the slope show it."
        ),
        (
            "H v = (slope(theta + h v) - slope(theta - h v)) / (2 h), with h so small that h |v|"
            " = reach: h = reach / g.norm()."
        ),
    ),
)
def dropped_term(slope, judge, theta, rate, reach):
    """What FOMAML leaves out of MAML's gradient for one inner
    step, from slopes alone, without a second derivative.

    slope, judge: theta [d] -> gradient [d] of the support loss
    and of the query loss. rate: of the inner step.
    reach: take central differences between two points that lie
    at this distance from theta, on either side of it.
    Return MAML's gradient minus FOMAML's, a tensor [d].
    """
    ### BEGIN SOLUTION
    g = judge(theta - rate * slope(theta))
    h = reach / g.norm()
    turned = slope(theta + h * g) - slope(theta - h * g)
    return -rate * turned / (2 * h)
    ### END SOLUTION


# mistakes
def _along(slope, theta, v, h):
    """The second derivatives times v, by central differences."""
    return (slope(theta + h * v) - slope(theta - h * v)) / (2 * h)


@dropped_term.mistake(
    "The sign is turned: MAML's gradient is (I - rate H) g', so the term is minus rate H g'."
)
def _(slope, judge, theta, rate, reach):
    g = judge(theta - rate * slope(theta))
    return rate * _along(slope, theta, g, reach / g.norm())


@dropped_term.mistake(
    "This is MAML's whole gradient. The question is what FOMAML leaves out of it."
)
def _(slope, judge, theta, rate, reach):
    g = judge(theta - rate * slope(theta))
    return g - rate * _along(slope, theta, g, reach / g.norm())


@dropped_term.mistake(
    "This is FOMAML's gradient, the query's slope at the stepped point:"
    " what it leaves out comes on top."
)
def _(slope, judge, theta, rate, reach):
    return judge(theta - rate * slope(theta))


@dropped_term.mistake(
    "The query's slope is taken before the step. Take it at theta - rate * slope(theta)."
)
def _(slope, judge, theta, rate, reach):
    g = judge(theta)
    return -rate * _along(slope, theta, g, reach / g.norm())


@dropped_term.mistake(
    "The Hessian belongs to the start, where the inner step was taken;"
    " you take it at the stepped point."
)
def _(slope, judge, theta, rate, reach):
    stepped = theta - rate * slope(theta)
    g = judge(stepped)
    return -rate * _along(slope, stepped, g, reach / g.norm())


@dropped_term.mistake(
    "You go h g' with the same h however long g' is:"
    " with a loss in other units the points lie far away, or on top of each other."
    " Divide by its length."
)
def _(slope, judge, theta, rate, reach):
    g = judge(theta - rate * slope(theta))
    return -rate * _along(slope, theta, g, reach)


@dropped_term.mistake("A factor of 2: the two points are 2 h apart along g'.")
def _(slope, judge, theta, rate, reach):
    return 2 * dropped_term(slope, judge, theta, rate, reach)


@dropped_term.mistake(
    "The Hessian is that of the query loss here."
    " The step was taken on the support, so it is the support's slope that turns."
)
def _(slope, judge, theta, rate, reach):
    g = judge(theta - rate * slope(theta))
    return -rate * _along(judge, theta, g, reach / g.norm())


@dropped_term.mistake(
    "One of the two points is theta itself."
    " Differences from one side are far less exact: take a point on either side."
)
def _(slope, judge, theta, rate, reach):
    g = judge(theta - rate * slope(theta))
    h = reach / g.norm()
    return -rate * (slope(theta + h * g) - slope(theta)) / h


@dropped_term.mistake(
    "The term is right, but your two points are `reach` apart, so each of them lies only half as"
    " far from theta as it is to."
)
def _(slope, judge, theta, rate, reach):
    return dropped_term(slope, judge, theta, rate, reach / 2)


@dropped_term.mistake("The inner rate is missing: without it this is H g' alone, or minus that.")
def _(slope, judge, theta, rate, reach):
    return dropped_term(slope, judge, theta, rate, reach) / rate


@dropped_term.mistake(
    "The term is left in the direction of g' only: its length is lost. Divide by h, not by reach."
)
def _(slope, judge, theta, rate, reach):
    g = judge(theta - rate * slope(theta))
    turned = slope(theta + reach * g / g.norm()) - slope(theta - reach * g / g.norm())
    return -rate * turned / (2 * reach)


# --------------------------------------------------------------------------------------- 4. Reptile
# inputs
def _regressions(count, rows=(3, 7), steps=(2, 5), unit=1.0):
    """Some regressions. rows, steps: from the first to one below the second. unit: of y."""

    def draw(generator):
        size = whole(generator, 2, 4)
        tasks = [
            (_normal(generator, n, size), unit * _normal(generator, n, scale=2.0))
            for n in torch.randint(*rows, (count,), generator=generator).tolist()
        ]
        rate, toward = (0.1 + 0.3 * torch.rand(2, generator=generator)).tolist()
        theta = unit * _normal(generator, size)
        return theta, tasks, rate, whole(generator, *steps), toward

    return draw


# reference
@exercise(
    [
        _regressions(2),
        _regressions(4),
        _regressions(3, rows=(1, 3), steps=(1, 2), unit=1e3),
        _regressions(1, unit=1e-3),
    ],
    points=2,
    grad=False,
    rtol=1e-6,
    atol=1e-8,
    hints=(
        "Where does each task start, and what is done with the places where they end?",
        (
            "Two loops: over the tasks, each from its own copy of theta, and over the steps. The"
            " gradient is X' (X own - y) / n."
        ),
        "Collect where the tasks end. The answer is theta + toward * (their mean - theta).",
    ),
)
def reptile_update(theta, tasks, rate, steps, toward):
    """One update of Reptile's start, for linear regressions.

    theta: [d]. tasks: list of (X [n, d], y [n]), n may differ,
    each with the loss |X theta - y|^2 / (2 n).
    Every task takes `steps` steps of gradient descent at `rate`
    from theta. Return the new start: theta moved towards the
    mean of where the tasks ended, by the share `toward` of the
    way. theta itself stays as it is.
    """
    ### BEGIN SOLUTION
    away = 0
    for X, y in tasks:
        own = theta
        for _ in range(steps):
            own = own - rate * X.T @ (X @ own - y) / len(y)
        away = away + (own - theta)
    return theta + toward * away / len(tasks)
    ### END SOLUTION


# laws
@reptile_update.law("with one task and all of the way it is gradient descent on that task")
def _(answer, theta, tasks, rate, steps, toward):
    (X, y), *_ = tasks
    end = answer(theta.clone(), tasks[:1], rate, steps, 1.0)
    return torch.allclose(end, _end(theta, X, y, rate, steps), rtol=1e-3)


@reptile_update.law("the start stays where it fits every task")
def _(answer, theta, tasks, rate, steps, toward):
    fitted = [(X, X @ theta) for X, _ in tasks]
    return torch.allclose(answer(theta.clone(), fitted, rate, steps, toward), theta, rtol=1e-3)


# mistakes
def _end(start, X, y, rate, steps):
    """Where `steps` steps of gradient descent lead."""
    for _ in range(steps):
        start = start - rate * X.T @ (X @ start - y) / len(y)
    return start


def _towards(ends, theta, toward):
    return theta + toward * (sum(ends) / len(ends) - theta)


@reptile_update.mistake(
    "The second task starts where the first one ended. Each task starts at theta."
)
def _(theta, tasks, rate, steps, toward):
    end, ends = theta, []
    for X, y in tasks:
        end = _end(end, X, y, rate, steps)
        ends.append(end)
    return _towards(ends, theta, toward)


@reptile_update.mistake("You add the tasks' moves up; Reptile takes their mean.")
def _(theta, tasks, rate, steps, toward):
    return theta + toward * sum(_end(theta, X, y, rate, steps) - theta for X, y in tasks)


@reptile_update.mistake(
    "The gradient is taken at theta in every step: take it where the task has got to."
    " With more than one step that is the whole point of Reptile."
)
def _(theta, tasks, rate, steps, toward):
    # as many steps from one point as one long step
    return _towards([_end(theta, X, y, steps * rate, 1) for X, y in tasks], theta, toward)


@reptile_update.mistake("The gradients lack the 1 / n: the loss is a mean over the examples.")
def _(theta, tasks, rate, steps, toward):
    return _towards([_end(theta, X, y, len(y) * rate, steps) for X, y in tasks], theta, toward)


@reptile_update.mistake("The gradients are twice too large: the loss has a factor 1/2.")
def _(theta, tasks, rate, steps, toward):
    return reptile_update(theta, tasks, 2 * rate, steps, toward)


@reptile_update.mistake("Only the last task moves the start.")
def _(theta, tasks, rate, steps, toward):
    return reptile_update(theta, tasks[-1:], rate, steps, toward)


@reptile_update.mistake("This is the move alone; add it to theta.")
def _(theta, tasks, rate, steps, toward):
    return reptile_update(theta, tasks, rate, steps, toward) - theta


@reptile_update.mistake(
    "You add where the tasks ended, not how far they moved: subtract theta from each end."
)
def _(theta, tasks, rate, steps, toward):
    ends = [_end(theta, X, y, rate, steps) for X, y in tasks]
    return theta + toward * sum(ends) / len(ends)


@reptile_update.mistake(
    "You go all the way to the mean of the adapted parameters: `toward` is not used."
)
def _(theta, tasks, rate, steps, toward):
    return reptile_update(theta, tasks, rate, steps, 1.0)


@reptile_update.mistake("The start moves away from the adapted parameters: the sign is turned.")
def _(theta, tasks, rate, steps, toward):
    return reptile_update(theta, tasks, rate, steps, -toward)


@reptile_update.mistake(
    "One inner step is taken, whatever `steps` says: with one step Reptile is joint training."
)
def _(theta, tasks, rate, steps, toward):
    return reptile_update(theta, tasks, rate, 1, toward)


@reptile_update.mistake(
    "`own = theta` and then `own -= ...` moves theta itself."
    " Write own = own - ..., or start from theta.clone()."
)
def _(theta, tasks, rate, steps, toward):
    away = 0
    for X, y in tasks:
        own = theta
        for _ in range(steps):
            own -= rate * X.T @ (X @ own - y) / len(y)
        away = away + (own - theta)
    return theta + toward * away / len(tasks)


@reptile_update.mistake("One step too few.")
def _(theta, tasks, rate, steps, toward):
    return reptile_update(theta, tasks, rate, steps - 1, toward)


# ---------------------------------------------------------------------- 5. apply to new tasks: bugs
# inputs
def _new_tasks(count, steps, queries):
    """A start and tasks. steps: how many at least; one more is possible. queries: at most."""

    def draw(generator):
        _import_functions()
        params, inputs = _start(generator)
        tasks = []
        for _ in range(count):
            n, asked = whole(generator, 4, 8), whole(generator, 1, queries + 1)
            x, y = _normal(generator, n, inputs), _normal(generator, n)
            tasks.append((x, y, _normal(generator, asked, inputs)))
        rate = uniform(generator, 0.1, 0.2)
        return params, tasks, rate, whole(generator, steps, steps + 2)

    return draw


def _applied(answer, params, tasks, rate, steps):
    given = _leaves(params)
    start = dict(given)
    predictions = required(answer(_tanh_network, start, tasks, rate, steps))
    if not isinstance(predictions, list | tuple) or not all(
        isinstance(p, torch.Tensor) for p in predictions
    ):
        raise ValueError("Return a list of one tensor of predictions for each task.")
    return {
        "predictions": [p.detach() for p in predictions],
        "start afterwards": {name: p.detach() for name, p in given.items()},
        **_left_behind(start, given, params),
    }


# reference
def _too_early(f, params, tasks, rate, steps):
    """Predictions for new tasks, each after adapting to it.

    f: (params, x [n, d]) -> predictions [n]. params: the learned
    start, name -> tensor that requires a gradient.
    tasks: list of (x, y, query): examples to adapt to, and the
    inputs to predict for. The loss is the mean squared error.
    Return a list of one tensor of predictions for each task.
    Every task starts at `params`, which stay as they are.
    """
    predictions = []
    for x, y, query in tasks:
        predictions.append(f(params, query))
        for _ in range(steps):
            loss = (f(params, x) - y).square().mean()
            slopes = torch.autograd.grad(
                loss, list(params.values()))
            for p, g in zip(params.values(), slopes):
                p.data -= rate * g
    return predictions


@exercise(
    [_new_tasks(3, steps=2, queries=4), _new_tasks(1, steps=1, queries=1)],
    points=3,
    call=_applied,
    grad=False,
    starter=_too_early,
    hints=(
        (
            "When are the predictions taken, after how many steps? And where does the second"
            " task start?"
        ),
        "Each task starts from `params`, and nothing that it does may change them.",
        (
            "own = params for each task, own = {name: p - rate * slope ...} in each step, a new"
            " dict; and f(own, query) after the last step."
        ),
    ),
)
def predict_new(f, params, tasks, rate, steps):
    predictions = []
    for x, y, query in tasks:
        own = params
        for _ in range(steps):
            loss = (f(own, x) - y).square().mean()
            slopes = torch.autograd.grad(
                loss, list(own.values()))
            own = {name: p - rate * g
                   for (name, p), g in zip(own.items(), slopes)}
        predictions.append(f(own, query))
    return predictions


# mistakes
def _slopes(f, params, x, y):
    loss = (f(params, x) - y).square().mean()
    return torch.autograd.grad(loss, list(params.values()))


def _adapted(f, params, x, y, rate, steps):
    for _ in range(steps):
        slopes = _slopes(f, params, x, y)
        params = {
            name: p - rate * slope for (name, p), slope in zip(params.items(), slopes, strict=True)
        }
    return params


@predict_new.mistake(
    "Both bugs are still there:"
    " predictions before the steps, and a start that the first task moves for all others."
)
def _(f, params, tasks, rate, steps):
    return _too_early(f, params, tasks, rate, steps)


@predict_new.mistake(
    "The predictions come after the steps now, but p.data moves the start itself:"
    " the second task starts where the first one ended."
    " A copy of the dict still holds the same tensors."
)
def _(f, params, tasks, rate, steps):
    predictions = []
    for x, y, query in tasks:
        for _ in range(steps):
            slopes = _slopes(f, params, x, y)
            for p, slope in zip(params.values(), slopes, strict=True):
                p.data -= rate * slope
        predictions.append(f(params, query))
    return predictions


@predict_new.mistake(
    "Each task starts afresh now, but the predictions are still taken before its steps,"
    " so they are all the start's."
)
def _(f, params, tasks, rate, steps):
    return [f(params, query) for x, y, query in tasks]


@predict_new.mistake(
    "The start stays as it is now, but `own` goes on from one task to the next:"
    " set it to params inside the loop over the tasks."
)
def _(f, params, tasks, rate, steps):
    own, predictions = params, []
    for x, y, query in tasks:
        own = _adapted(f, own, x, y, rate, steps)
        predictions.append(f(own, query))
    return predictions


@predict_new.mistake(
    "You predict for the support, which was adapted to; the question is the query."
)
def _(f, params, tasks, rate, steps):
    return [f(_adapted(f, params, x, y, rate, steps), x) for x, y, query in tasks]


@predict_new.mistake("One step is taken, whatever `steps` says.")
def _(f, params, tasks, rate, steps):
    return predict_new(f, params, tasks, rate, 1)


@predict_new.mistake("The slopes are added: the steps go uphill.")
def _(f, params, tasks, rate, steps):
    return predict_new(f, params, tasks, -rate, steps)


@predict_new.mistake("The loss here is the mean of the squared errors, without a factor 1/2.")
def _(f, params, tasks, rate, steps):
    return predict_new(f, params, tasks, rate / 2, steps)


@predict_new.mistake("One step too few comes before the predictions.")
def _(f, params, tasks, rate, steps):
    return predict_new(f, params, tasks, rate, steps - 1)


@predict_new.mistake(
    "The predictions are right, but .backward() has left slopes in the .grad of the start, and the"
    " next loss.backward() of the outer loop would add to them: torch.autograd.grad leaves none."
)
def _(f, params, tasks, rate, steps):
    for x, y, _ in tasks:
        (f(params, x) - y).square().mean().backward()
    return predict_new(f, params, tasks, rate, steps)


@predict_new.mistake(
    "The new tensors are put into the dict `params` itself: `own` has to be a dict of its own."
)
def _(f, params, tasks, rate, steps):
    predictions, start = [], dict(params)
    for x, y, query in tasks:
        params.update(_adapted(f, start, x, y, rate, steps))
        predictions.append(f(params, query))
    return predictions


@predict_new.mistake(
    "Names and slopes are paired by position, in two different orders: the slopes come in the order"
    " of the tensors that torch.autograd.grad was given."
)
def _(f, params, tasks, rate, steps):
    predictions = []
    for x, y, query in tasks:
        own = params
        for _ in range(steps):
            slopes = _slopes(f, own, x, y)
            own = {
                name: own[name] - rate * slope
                for name, slope in zip(sorted(own), slopes, strict=True)
            }
        predictions.append(f(own, query))
    return predictions
