"""Exercises of chapter 17: learn the starting point."""

import warnings
from functools import cache

import torch

from ..checks.exercise import exercise


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
def _small_network(generator):
    _import_functions()
    W, v = _normal(generator, 3, 2), _normal(generator, 3)
    return (
        W,
        v,
        _normal(generator, 6, 2),
        _normal(generator, 6),
        0.1 + 0.2 * float(torch.rand((), generator=generator)),
    )


def _tanh_network(params, x):
    # with the 0.5 no change of signs leaves it as it is
    return torch.tanh(x @ params["layer.weight"].T + 0.5) @ params["head"]


def _own(W, v):
    return {
        "layer.weight": W.detach().clone().requires_grad_(),
        "head": v.detach().clone().requires_grad_(),
    }


def _mse(x, y):
    return lambda params: (_tanh_network(params, x) - y).square().mean()


def _after_a_step(answer, W, v, x, y, rate):
    """The stepped parameters, what became of the given ones, and the gradient through the step.

    The gradient is that of a function of the new parameters with respect to the old ones.
    """
    params = _own(W, v)
    kept = {name: p.detach().clone() for name, p in params.items()}
    new = answer(_mse(x, y), params, rate)
    if not isinstance(new, dict) or set(new) != set(params):
        return new
    judged = _mse(x.flip(0), y)(new)
    if judged.requires_grad:
        slopes = torch.autograd.grad(judged, list(params.values()), allow_unused=True)
    else:
        slopes = [None, None]
    return {
        "new": {name: p.detach() for name, p in new.items()},
        "start is unchanged": all(torch.equal(kept[name], p) for name, p in params.items()),
        "gradient through the step": [
            torch.zeros_like(p) if s is None else s for p, s in zip(params.values(), slopes)
        ],
    }


# reference
@exercise(
    _small_network,
    points=2,
    call=_after_a_step,
    grad=False,
    hints=(
        (
            "torch.autograd.grad(loss(params), list(params.values()), ...) gives the slopes."
            " Build a new dict from p - rate * slope."
        ),
        (
            "For a step that can be differentiated again the slopes need a graph of their own:"
            " create_graph=True. No detach, no .data, no .backward()."
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
def _(answer, W, v, x, y, rate):
    params = _own(W, v)
    return all(
        torch.equal(p.detach(), params[name].detach())
        for name, p in answer(_mse(x, y), params, 0.0).items()
    )


@inner_step.law("nothing is written into .grad, which belongs to the outer loop: no .backward()")
def _(answer, W, v, x, y, rate):
    params = _own(W, v)
    answer(_mse(x, y), params, rate)
    return all(p.grad is None for p in params.values())


# mistakes
def _step(loss, params, rate, graph=True, of=lambda p: p, sign=-1, after=lambda new: new):
    """The answer with one thing changed: what the mistakes below are made of."""
    slopes = torch.autograd.grad(loss(params), list(params.values()), create_graph=graph)
    return after({name: of(p) + sign * rate * g for (name, p), g in zip(params.items(), slopes)})


def _detached(new):
    return {name: p.detach() for name, p in new.items()}


inner_step.variants(
    _step,
    {
        "The values are right, but the slopes count as constants:"
        " the second-order term is missing, and this is FOMAML. Ask for create_graph=True.": {
            "graph": False
        },
        "The values are right, but nothing leads back to the start:"
        " p was detached (or .data was taken), so there is nothing to meta-learn.": {
            "after": _detached
        },
        "The slopes lead back to the start, p itself does not:"
        " it was detached. The identity in I - rate * Hessian is lost.": {
            "of": lambda p: p.detach()
        },
        "The step goes uphill: subtract the slopes.": {"sign": 1},
    },
)


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
def _bowls(tasks, size):
    def draw(generator):
        Q = torch.linalg.qr(_normal(generator, tasks, size, size)).Q
        curvature = 0.3 + 2.2 * torch.rand(tasks, size, generator=generator, dtype=torch.float64)
        H = Q @ torch.diag_embed(curvature) @ Q.transpose(1, 2)
        return (
            (H + H.transpose(1, 2)) / 2,
            _normal(generator, tasks, size, scale=2.0),
            0.2 + 0.1 * float(torch.rand((), generator=generator)),
        )

    return draw


# reference
@exercise(
    [_bowls(2, 2), _bowls(4, 3)],
    points=2,
    grad=False,
    rtol=1e-5,
    hints=(
        (
            "After the step the distance to the centre is (I - rate H_t)(theta - c_t)."
            " Put it into the loss: it is a bowl again, with another matrix M_t."
        ),
        (
            "M_t = (I - rate H_t) H_t (I - rate H_t),"
            " and the minimum of a sum of bowls solves (sum of M_t) theta = sum of M_t c_t."
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


def _start(H, C, rate, matrix=lambda H, K: K @ H @ K, mean=torch.sum):
    """The answer with another matrix for each task, from H [T, d, d] and K = I - rate H."""
    M = matrix(H, _identity(H) - rate * H)
    return torch.linalg.solve(mean(M, 0), torch.einsum("tij,tj->i", M, C))


maml_start.variants(
    _start,
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
    return _start(H, C, -rate)


@maml_start.mistake(
    "Each factor has the rate once: (I - rate H_t) on both sides is not I - rate^2 H_t^2."
)
def _(H, C, rate):
    return _start(H, C, rate, matrix=lambda H, K: H - rate**2 * H @ H @ H)


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

    return answer(slope, judge, theta, rate, reach) / scale


# reference
@exercise(
    [_two_losses(1.0), _two_losses(1e4), _two_losses(1e-6)],
    points=3,
    call=_with_slopes,
    grad=False,
    rtol=1e-4,
    atol=1e-6,
    hints=(
        (
            "The chain rule gives (I - rate H) g' with g' the query's slope at the stepped theta."
            " FOMAML is g'. What is left?"
        ),
        (
            "H v is the change of the slope along v:"
            " (slope(theta + h v) - slope(theta - h v)) / (2 h),"
            " with h so small that h |v| = reach."
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
def _regressions(count):
    def draw(generator):
        size = int(torch.randint(2, 4, (), generator=generator))
        tasks = [
            (_normal(generator, n, size), _normal(generator, n, scale=2.0))
            for n in torch.randint(3, 7, (count,), generator=generator).tolist()
        ]
        rate, toward = (0.1 + 0.3 * torch.rand(2, generator=generator)).tolist()
        return (
            _normal(generator, size),
            tasks,
            rate,
            int(torch.randint(2, 5, (), generator=generator)),
            toward,
        )

    return draw


# reference
@exercise(
    [_regressions(2), _regressions(4)],
    points=2,
    grad=False,
    rtol=1e-6,
    atol=1e-8,
    hints=(
        (
            "Two loops: over the tasks, each from its own copy of theta, and over the steps."
            " The gradient is X' (X own - y) / n."
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
def _new_tasks(count):
    def draw(generator):
        _import_functions()
        tasks = [
            (_normal(generator, n, 2), _normal(generator, n), _normal(generator, 3, 2))
            for n in torch.randint(4, 8, (count,), generator=generator).tolist()
        ]
        return (
            _normal(generator, 3, 2),
            _normal(generator, 3),
            tasks,
            0.1 + 0.1 * float(torch.rand((), generator=generator)),
            int(torch.randint(2, 4, (), generator=generator)),
        )

    return draw


def _applied(answer, W, v, tasks, rate, steps):
    params = _own(W, v)
    found = answer(_tanh_network, params, tasks, rate, steps)
    if not isinstance(found, list | tuple) or not all(isinstance(p, torch.Tensor) for p in found):
        return found
    return {
        "predictions": [p.detach() for p in found],
        "start afterwards": {name: p.detach() for name, p in params.items()},
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
    _new_tasks(2),
    points=3,
    call=_applied,
    grad=False,
    starter=_too_early,
    hints=(
        "Two bugs. When are the predictions taken? And where does the second task start?",
        (
            "Make `own` a new dict for each task, own = {name: p - rate * slope ...} in each step,"
            " and predict with it after the last step."
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
