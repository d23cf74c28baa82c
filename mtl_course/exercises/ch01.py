"""Exercises of chapter 1: the multi-task objective."""

import math

import numpy as np
import torch

from ..checks.exercise import exercise
from .inputs import LEAVES_NO_TRACE, different, leaves_no_trace, powers, whole


def _sizes(generator, *ranges):
    return [whole(generator, low, high) for low, high in ranges]


# ----------------------------------------------------------- 1. the gradient of the joint objective
# inputs
def _network(ranges, size=1.0):
    """Numbers of examples, features, hidden units and tasks from `ranges`.

    size: of what the heads add up; from 4 on some probabilities are nearly 0 or 1. Then the tasks'
    weights are in units far apart, the last task has no positive example, and one task's sums are
    so large, about 150, that its probabilities are rounded to 1.
    """

    def draw(generator):
        n, d, k, tasks = _sizes(generator, *ranges)

        def normal(*shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64).numpy()

        y = (torch.rand(n, tasks, generator=generator) < 0.5).double().numpy()
        w = (0.5 + torch.arange(tasks) + torch.rand(tasks, generator=generator)).double()
        w = w[torch.randperm(tasks, generator=generator)]
        if size > 1:
            w = powers(generator, tasks, -2, 3)
            y[:, -1] = 0.0
        W_h, b_h = size * normal(tasks, k), size * normal(tasks)
        if size > 1:
            sure = whole(generator, 0, tasks)
            b_h[sure] = 150.0
            y[:2, sure] = 0.0, 1.0
        return normal(n, d), y, w.numpy(), normal(k, d), normal(k), W_h, b_h

    return draw


# reference
@exercise(
    [
        _network(((5, 9), (2, 5), (3, 6), (2, 5))),
        _network(((3, 6), (1, 4), (2, 4), (2, 4)), size=4.0),
        _network(((1, 2), (3, 5), (1, 3), (1, 2))),
    ],
    points=3,
    parts=tuple(f"the gradient of {name}" for name in ("W_f", "b_f", "W_h", "b_h")),
    hints=(
        "Through which steps does W_f reach the loss, and what is the derivative of each?",
        (
            "Go backwards: the losses' derivative at each head's sum, then the heads'"
            " parameters, then the features, then the trunk."
        ),
        (
            "For a sigmoid with the cross-entropy, the derivative with respect to the head's sum"
            " is p - y. R = w * (p - y) / N holds all residuals, [N, T]. The heads need R and f;"
            " the trunk needs R sent back through W_h, times g'."
        ),
        (
            "The derivative of tanh is 1 - tanh^2: `back = (R @ W_h) * (1 - f**2)` is what reaches"
            " the trunk's sums, and the gradient of W_f is `back.T @ x`. A bias adds 1 to its sum,"
            " so its gradient is the sum over the examples, `back.sum(0)`."
        ),
    ),
)
def joint_gradient(x, y, w, W_f, b_f, W_h, b_h):
    """Gradient of sum_t w_t L_t for T yes-or-no tasks.

    f = tanh(x W_f^T + b_f), p = sigmoid(f W_h^T + b_h);
    L_t is the mean over the N examples of
    -y log p - (1 - y) log(1 - p) in column t. NumPy arrays:
    x [N, d], y [N, T] of zeros and ones, w [T],
    W_f [k, d], b_f [k], W_h [T, k], b_h [T].
    A head may be so sure that its p is rounded to 1.
    Return four gradients, in the order and with the shapes
    of W_f, b_f, W_h, b_h.
    """
    ### BEGIN SOLUTION
    f = np.tanh(x @ W_f.T + b_f)
    p = 1 / (1 + np.exp(-(f @ W_h.T + b_h)))
    r = w * (p - y) / len(x)
    back = (r @ W_h) * (1 - f**2)
    return back.T @ x, back.sum(0), r.T @ f, r.sum(0)
    ### END SOLUTION


# laws
def _joint_loss(x, y, w, W_f, b_f, W_h, b_h):
    z = np.tanh(x @ W_f.T + b_f) @ W_h.T + b_h
    return (w * (np.logaddexp(0, z) - y * z).mean(0)).sum()


@joint_gradient.law("predicts how the loss changes in a small step")
def _(answer, *args):
    data, parameters, h = args[:3], args[3:], 1e-5
    gradient = answer(*args)
    forward = _joint_loss(*data, *(p + h * np.cos(p) for p in parameters))
    backward = _joint_loss(*data, *(p - h * np.cos(p) for p in parameters))
    slope = sum(
        (np.asarray(part) * np.cos(p)).sum() for part, p in zip(gradient, parameters, strict=True)
    )
    return bool(abs((forward - backward) / (2 * h) - slope) < 1e-6 * (1 + abs(slope)))


joint_gradient.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _gradient(
    x,
    y,
    w,
    W_f,
    b_f,
    W_h,
    b_h,
    residual=lambda p, y: p - y,
    g_prime=lambda f: 1 - f**2,
    trunk_w=None,
    scale=None,
):
    """The gradient with one thing changed: what the mistakes below are made of."""
    f = np.tanh(x @ W_f.T + b_f)
    p = 1 / (1 + np.exp(-(f @ W_h.T + b_h)))
    r = residual(p, y) / (len(x) if scale is None else scale(y))
    back = ((w if trunk_w is None else trunk_w(w)) * r @ W_h) * g_prime(f)
    return back.T @ x, back.sum(0), (w * r).T @ f, (w * r).sum(0)


@joint_gradient.mistake(
    "The gradient of the trunk's bias has the wrong sign:"
    " b_f is added inside tanh, so it moves with the sum, not against it."
)
def _(*args):
    W_f, b_f, W_h, b_h = _gradient(*args)
    return W_f, -b_f, W_h, b_h


@joint_gradient.mistake(
    "The derivative of tanh is missing:"
    " what comes back through W_h must be multiplied by 1 - f^2 before it meets x."
)
def _(*args):
    return _gradient(*args, g_prime=np.ones_like)


@joint_gradient.mistake(
    "You use the derivative of ReLU (is f positive?)."
    " This trunk has tanh, whose derivative is 1 - f^2."
)
def _(*args):
    return _gradient(*args, g_prime=lambda f: f > 0)


@joint_gradient.mistake(
    "p - y is already the derivative through the sigmoid;"
    " you multiply by p (1 - p) once more, as a squared error would need."
)
def _(*args):
    return _gradient(*args, residual=lambda p, y: (p - y) * p * (1 - p))


@joint_gradient.mistake(
    "The task weights reach the heads but not the trunk:"
    " what each task sends back must be multiplied by its w_t too."
)
def _(*args):
    return _gradient(*args, trunk_w=np.ones_like)


@joint_gradient.mistake(
    "f is the tanh already: its derivative is 1 - f^2, and you take tanh of f once more."
)
def _(*args):
    return _gradient(*args, g_prime=lambda f: 1 - np.tanh(f) ** 2)


@joint_gradient.mistake("f (1 - f) is the derivative of a sigmoid; that of tanh is 1 - f^2.")
def _(*args):
    return _gradient(*args, g_prime=lambda f: f * (1 - f))


@joint_gradient.mistake("The square is missing: the derivative of tanh is 1 - f^2, not 1 - f.")
def _(*args):
    return _gradient(*args, g_prime=lambda f: 1 - f)


_ORDER = "The four gradients are right, but in another order: W_f, b_f, W_h, b_h is asked for."


@joint_gradient.mistake(_ORDER)
def _(*args):
    W_f, b_f, W_h, b_h = _gradient(*args)
    return W_h, b_h, W_f, b_f


@joint_gradient.mistake(_ORDER)
def _(*args):
    W_f, b_f, W_h, b_h = _gradient(*args)
    return W_f, W_h, b_f, b_h


@joint_gradient.mistake("The task weights w are not used.")
def _(x, y, w, *parameters):
    return _gradient(x, y, np.ones_like(w), *parameters)


@joint_gradient.mistake("You sum over the examples. L_t is a mean, so divide by N.")
def _(*args):
    return _gradient(*args, scale=lambda y: 1)


@joint_gradient.mistake(
    "You divide by N T. Each task has its own mean over N examples,"
    " and the tasks are summed with their weights."
)
def _(*args):
    return _gradient(*args, scale=np.size)


@joint_gradient.mistake("All signs are turned: the residual is prediction minus target, p - y.")
def _(*args):
    return _gradient(*args, residual=lambda p, y: y - p)


@joint_gradient.mistake(
    "You divide by 1 - p, which is rounded to 0 where a head is very sure. On paper"
    " it cancels: simplify before you compute."
)
def _(*args):
    with np.errstate(all="ignore"):
        return _gradient(*args, residual=lambda p, y: ((1 - y) / (1 - p) - y / p) * p * (1 - p))


@joint_gradient.mistake(
    "The gradients of the biases are averages here;"
    " 1/N is already in the residuals, so sum over the examples."
)
def _(x, *args):
    W_f, b_f, W_h, b_h = _gradient(x, *args)
    return W_f, b_f / len(x), W_h, b_h / len(x)


# --------------------------------------------------------------------- 2. the regularised objective
# inputs
def _tasks(kind):
    """Three to five tasks whose sizes and weights follow no order.

    plain; still: the rows of W are equal; free: lam is 0, and one task has a single example.
    """

    def draw(generator):
        tasks, d = _sizes(generator, (3, 6), (2, 4))
        sizes = different(generator, tasks, 3, 11)
        if kind == "free":
            sizes[whole(generator, 0, tasks)] = 1
        w = 0.5 + torch.arange(tasks) + torch.rand(tasks, generator=generator)
        W = torch.randn(tasks, d, generator=generator)
        return (
            [torch.randn(n, d, generator=generator) for n in sizes],
            [torch.randn(n, generator=generator) for n in sizes],
            W[:1].repeat(tasks, 1) if kind == "still" else W,
            w[torch.randperm(tasks, generator=generator)],
            0.0 if kind == "free" else 0.5 + float(torch.rand(1, generator=generator)),
        )

    return draw


def _of_w(answer, xs, ys, W, w, lam):
    """What is trained is W: nobody asks for gradients of the data and the tasks' weights."""
    return answer([x.detach() for x in xs], [y.detach() for y in ys], W, w.detach(), lam)


# reference
@exercise(
    [_tasks("plain"), _tasks("still"), _tasks("free")],
    points=2,
    call=_of_w,
    hints=(
        (
            "Which part of the objective looks at one task at a time, and which at all rows of W"
            " together?"
        ),
        (
            "Two parts: a loop over the tasks for the weighted mean squared errors, then lam"
            " times one penalty over all rows of W."
        ),
        (
            "`W.mean(0)` is the common vector, [d]: the penalty is"
            " `lam * ((W - W.mean(0)) ** 2).sum()`, and task t adds"
            " `w[t] * ((xs[t] @ W[t] - ys[t]) ** 2).mean()`."
        ),
    ),
)
def coupled_loss(xs, ys, W, w, lam):
    """The objective in which w_0 is the mean of the tasks:

    sum_t w_t L_t + lam sum_t ||W_t - mean of the rows of W||^2,

    where L_t is the mean squared error of x @ W_t on task t.
    xs: list of T tensors [n_t, d]; ys: list of T tensors [n_t];
    W [T, d], one row per task; w [T]; lam: a number.
    Return a scalar tensor.
    """
    ### BEGIN SOLUTION
    loss = lam * ((W - W.mean(0)) ** 2).sum()
    for t in range(len(xs)):
        loss = loss + w[t] * ((xs[t] @ W[t] - ys[t]) ** 2).mean()
    return loss
    ### END SOLUTION


# laws
@coupled_loss.law("moving all tasks together costs no penalty")
def _(answer, xs, ys, W, w, lam):
    moved = W + torch.arange(1.0, 1 + W.shape[1]).to(W)
    here, there = (answer(xs, ys, V, w, 10 * lam) - answer(xs, ys, V, w, lam) for V in (W, moved))
    return bool(torch.isclose(here, there, rtol=1e-3, atol=1e-3))


@coupled_loss.law("where lam is 0 it is the weighted sum of the tasks' mean squared errors")
def _(answer, xs, ys, W, w, lam):
    return torch.allclose(answer(xs, ys, W, w, 0.0), _data_part(xs, ys, W, w), rtol=1e-3)


@coupled_loss.law("where every task is fitted it is the penalty")
def _(answer, xs, ys, W, w, lam):
    fitted = [x @ row for x, row in zip(xs, W, strict=True)]
    penalty = lam * (W - W.mean(0)).square().sum()
    return torch.allclose(answer(xs, fitted, W, w, lam), penalty, rtol=1e-3, atol=1e-4)


coupled_loss.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _data_part(xs, ys, W, w):
    return sum(
        w_t * ((x @ row - y) ** 2).mean() for x, y, row, w_t in zip(xs, ys, W, w, strict=True)
    )


@coupled_loss.mistake(
    "You pull every task to zero (ridge)."
    " The penalty measures the distance to the mean of the tasks."
)
def _(xs, ys, W, w, lam):
    return _data_part(xs, ys, W, w) + lam * (W**2).sum()


@coupled_loss.mistake(
    "The squared errors of a task are summed;"
    " L_t is their mean, so that w_t alone sets how much a task counts."
)
def _(xs, ys, W, w, lam):
    total = sum(
        w_t * ((x @ row - y) ** 2).sum() for x, y, row, w_t in zip(xs, ys, W, w, strict=True)
    )
    return total + lam * ((W - W.mean(0)) ** 2).sum()


@coupled_loss.mistake("The task weights w are not used.")
def _(xs, ys, W, w, lam):
    return _data_part(xs, ys, W, torch.ones_like(w)) + lam * ((W - W.mean(0)) ** 2).sum()


@coupled_loss.mistake(
    "This takes one mean over the examples of all tasks, so large tasks count more."
    " Take the mean within each task."
)
def _(xs, ys, W, w, lam):
    total = sum(
        w_t * ((x @ row - y) ** 2).sum() for x, y, row, w_t in zip(xs, ys, W, w, strict=True)
    )
    return total / sum(map(len, ys)) + lam * ((W - W.mean(0)) ** 2).sum()


@coupled_loss.mistake(
    "The penalty is the squared norm of each difference; you take the norm itself."
)
def _(xs, ys, W, w, lam):
    return _data_part(xs, ys, W, w) + lam * (W - W.mean(0)).norm(dim=1).sum()


@coupled_loss.mistake(
    "The penalty squares the norm of each difference; you take the norm of all of them, once,"
    " without the square."
)
def _(xs, ys, W, w, lam):
    return _data_part(xs, ys, W, w) + lam * (W - W.mean(0)).norm()


_PER_TASK = (
    "You take the mean of each task's own weights, over the columns of W."
    " The common vector is the mean over the tasks, over the rows."
)


@coupled_loss.mistake(_PER_TASK)
def _(xs, ys, W, w, lam):
    return _data_part(xs, ys, W, w) + lam * ((W - W.mean(1, keepdim=True)) ** 2).sum()


@coupled_loss.mistake(_PER_TASK)
def _(xs, ys, W, w, lam):
    return _data_part(xs, ys, W, w) + lam * ((W - W.mean(1)) ** 2).sum()


@coupled_loss.mistake(
    "The penalty is a sum over the tasks; you divide it by their number."
)
def _(xs, ys, W, w, lam):
    return _data_part(xs, ys, W, w) + lam * ((W - W.mean(0)) ** 2).sum(1).mean()


@coupled_loss.mistake("The penalty is missing a square: here its differences add up to zero.")
def _(xs, ys, W, w, lam):
    return _data_part(xs, ys, W, w) + lam * (W - W.mean(0)).sum()


@coupled_loss.mistake("The sign of the penalty is turned: it rewards tasks that differ.")
def _(xs, ys, W, w, lam):
    return _data_part(xs, ys, W, w) - lam * ((W - W.mean(0)) ** 2).sum()


@coupled_loss.mistake("lam belongs to the penalty only; you multiply the losses by it, too.")
def _(xs, ys, W, w, lam):
    return lam * (_data_part(xs, ys, W, w) + ((W - W.mean(0)) ** 2).sum())


@coupled_loss.mistake("The penalty is a sum over the tasks and their weights; you take a mean.")
def _(xs, ys, W, w, lam):
    return _data_part(xs, ys, W, w) + lam * ((W - W.mean(0)) ** 2).mean()


@coupled_loss.mistake(
    "The task weights belong to the losses only; you multiply the penalty of each task by w_t too."
)
def _(xs, ys, W, w, lam):
    return _data_part(xs, ys, W, w) + lam * (w[:, None] * (W - W.mean(0)) ** 2).sum()


@coupled_loss.mistake(
    "W.mean() is one number."
    " The common vector is the mean over the tasks, W.mean(0), with one entry a feature."
)
def _(xs, ys, W, w, lam):
    return _data_part(xs, ys, W, w) + lam * ((W - W.mean()) ** 2).sum()


@coupled_loss.mistake("Where is lam? The penalty has the factor 1 here.")
def _(xs, ys, W, w, lam):
    return _data_part(xs, ys, W, w) + ((W - W.mean(0)) ** 2).sum()


# ----------------------------------------------------------------- 3. it trains, and learns nothing
# inputs
def _batch(kind):
    """A batch of any size but all; or one example of several tasks, or one task alone.

    With one task, an example is in the batch twice.
    """

    def draw(generator):
        n, d, k = _sizes(generator, (9, 13), (2, 5), (3, 6))
        size = 1 if kind == "one example" else whole(generator, 2, n)
        tasks = 1 if kind == "one task" else whole(generator, 2, 5)
        rows = 1 + torch.randperm(n - 1, generator=generator)[:size]
        if kind == "one task":
            rows = torch.cat([rows, rows[:1]])
        shapes = (n, d), (n, tasks), (k, d), (k,), (tasks, k), (tasks,)
        x, y, W_f, b_f, W_h, b_h = (torch.randn(shape, generator=generator) for shape in shapes)
        return x, y, rows, W_f, b_f, W_h, b_h

    return draw


def _of_parameters(answer, x, y, rows, W_f, b_f, W_h, b_h):
    """What is trained is the network: nobody asks for gradients of the data."""
    return answer(x.detach(), y.detach(), rows, W_f, b_f, W_h, b_h)


# reference
def _broken(x, y, rows, W_f, b_f, W_h, b_h):
    """Joint loss of one mini-batch: the squared error,
    averaged over the batch and summed over the tasks.

    f = tanh(W_f x + b_f) for every example, y = W_h f + b_h.
    x [N, d], y [N, T]: all examples; rows [B]: which of them
    are in the batch, and one may be there more than once;
    W_f [k, d], b_f [k], W_h [T, k], b_h [T].
    Three bugs hide here. Mend them; return a scalar tensor.
    """
    features = (x.mean(0) @ W_f.T - b_f).tanh()
    prediction = features @ W_h.T + b_h
    target = y[:len(rows)]
    return ((prediction - target) ** 2).mean(0).sum()


@exercise(
    [_batch("plain"), _batch("one example"), _batch("one task")],
    points=2,
    call=_of_parameters,
    starter=_broken,
    hints=(
        (
            "Print the shape of `features`. How many rows should it have? And which examples do"
            " the rows of `target` belong to?"
        ),
        (
            "Two bugs are in the line of the features, one is in the line of the target. Hold"
            " every sign against the formula in the docstring."
        ),
        (
            "Each example has its own features, so x[rows] without a mean; its own target, so"
            " y[rows]; and the bias of the trunk is added, + b_f."
        ),
    ),
)
def batch_loss(x, y, rows, W_f, b_f, W_h, b_h):
    features = (x[rows] @ W_f.T + b_f).tanh()
    prediction = features @ W_h.T + b_h
    target = y[rows]
    return ((prediction - target) ** 2).mean(0).sum()


# laws
@batch_loss.law("does not depend on the order of the batch")
def _(answer, x, y, rows, *parameters):
    return bool(
        torch.isclose(
            answer(x, y, rows, *parameters), answer(x, y, rows.flip(0), *parameters), rtol=1e-4
        )
    )


@batch_loss.law("is zero where the targets are what the network predicts")
def _(answer, x, y, rows, W_f, b_f, W_h, b_h):
    predicted = torch.tanh(x @ W_f.T + b_f) @ W_h.T + b_h
    return abs(float(answer(x, predicted, rows, W_f, b_f, W_h, b_h))) < 1e-6


@batch_loss.law("is the mean of what each example of the batch has by itself")
def _(answer, x, y, rows, *parameters):
    each = [answer(x, y, row[None], *parameters) for row in rows]
    return torch.allclose(answer(x, y, rows, *parameters), sum(each) / len(each), rtol=1e-3)


batch_loss.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _partly(sign, constant, labels):
    """The starter with only some of its three bugs left."""

    def wrong(x, y, rows, W_f, b_f, W_h, b_h):
        inputs = x.mean(0) if constant else x[rows]
        features = torch.tanh(inputs @ W_f.T + (-b_f if sign else b_f))
        target = y[: len(rows)] if labels else y[rows]
        return ((features @ W_h.T + b_h - target) ** 2).mean(0).sum()

    return wrong


_SIGN = "The sign of the trunk's bias is wrong: the formula adds b_f."


_CONSTANT = (
    "The features are those of one average example, the same for the whole batch:"
    " they are no function of the single x."
)


_LABELS = (
    "The targets are those of other examples: as far as this batch can tell, its labels are random."
)


for _bugs, _hint in {
    (True, True, True): (
        "Nothing is mended yet. Features that do not depend on the single x,"
        " labels of other rows, a wrong sign: find each."
    ),
    (True, False, False): f"One bug is left. {_SIGN}",
    (False, True, False): f"One bug is left. {_CONSTANT}",
    (False, False, True): f"One bug is left. {_LABELS}",
    (True, True, False): f"Two bugs are left. {_CONSTANT} And look at the signs.",
    (True, False, True): f"Two bugs are left. {_LABELS} And look at the signs.",
    (False, True, True): f"Two bugs are left. {_CONSTANT} And which rows do the targets come from?",
}.items():
    batch_loss.mistake(_hint)(_partly(*_bugs))


@batch_loss.mistake(
    "The bugs are mended, but this is a mean over the tasks too; the joint loss sums them."
)
def _(x, y, rows, W_f, b_f, W_h, b_h):
    return ((torch.tanh(x[rows] @ W_f.T + b_f) @ W_h.T + b_h - y[rows]) ** 2).mean()


@batch_loss.mistake(
    "The features are those of the batch's average example."
    " Each example needs its own: use x[rows] without a mean."
)
def _(x, y, rows, W_f, b_f, W_h, b_h):
    return ((torch.tanh(x[rows].mean(0) @ W_f.T + b_f) @ W_h.T + b_h - y[rows]) ** 2).mean(0).sum()


_FIRST = (
    "These are the first examples, as many as the batch has."
    " `rows` says which examples are in the batch: take those, for x and y alike."
)


@batch_loss.mistake(_FIRST)
def _(x, y, rows, W_f, b_f, W_h, b_h):
    x, y = x[: len(rows)], y[: len(rows)]
    return ((torch.tanh(x @ W_f.T + b_f) @ W_h.T + b_h - y) ** 2).mean(0).sum()


@batch_loss.mistake(_FIRST)
def _(x, y, rows, W_f, b_f, W_h, b_h):
    x, y = x[: len(rows)], y[rows]
    return ((torch.tanh(x @ W_f.T + b_f) @ W_h.T + b_h - y) ** 2).mean(0).sum()


@batch_loss.mistake(
    "An example that is in the batch twice counts once here: index with `rows` as they are."
)
def _(x, y, rows, W_f, b_f, W_h, b_h):
    rows = rows.unique()
    return ((torch.tanh(x[rows] @ W_f.T + b_f) @ W_h.T + b_h - y[rows]) ** 2).mean(0).sum()


@batch_loss.mistake("The squared errors are added up over the batch, too: there take their mean.")
def _(x, y, rows, W_f, b_f, W_h, b_h):
    return ((torch.tanh(x[rows] @ W_f.T + b_f) @ W_h.T + b_h - y[rows]) ** 2).sum()


@batch_loss.mistake("The sign of the heads' bias is wrong: the formula adds b_h.")
def _(x, y, rows, W_f, b_f, W_h, b_h):
    return ((torch.tanh(x[rows] @ W_f.T + b_f) @ W_h.T - b_h - y[rows]) ** 2).mean(0).sum()


@batch_loss.mistake("A bias is missing: the formula has b_f inside tanh and b_h outside.")
def _(x, y, rows, W_f, b_f, W_h, b_h):
    return ((torch.tanh(x[rows] @ W_f.T) @ W_h.T + b_h - y[rows]) ** 2).mean(0).sum()


@batch_loss.mistake("A bias is missing: the formula has b_f inside tanh and b_h outside.")
def _(x, y, rows, W_f, b_f, W_h, b_h):
    return ((torch.tanh(x[rows] @ W_f.T + b_f) @ W_h.T - y[rows]) ** 2).mean(0).sum()


@batch_loss.mistake("The tanh of the features is missing.")
def _(x, y, rows, W_f, b_f, W_h, b_h):
    return (((x[rows] @ W_f.T + b_f) @ W_h.T + b_h - y[rows]) ** 2).mean(0).sum()


@batch_loss.mistake("The error is not squared.")
def _(x, y, rows, W_f, b_f, W_h, b_h):
    return (torch.tanh(x[rows] @ W_f.T + b_f) @ W_h.T + b_h - y[rows]).mean(0).sum()


@batch_loss.mistake(
    "This is the loss of all N examples. Take the rows of the batch, for x and y alike."
)
def _(x, y, rows, W_f, b_f, W_h, b_h):
    return ((torch.tanh(x @ W_f.T + b_f) @ W_h.T + b_h - y) ** 2).mean(0).sum()


@batch_loss.mistake(
    "You divide by half of all examples, whatever the batch has."
    " It is as large as `rows` is long."
)
def _(x, y, rows, W_f, b_f, W_h, b_h):
    error = torch.tanh(x[rows] @ W_f.T + b_f) @ W_h.T + b_h - y[rows]
    return error.square().sum() / (len(x) // 2)


@batch_loss.mistake(
    "squeeze() takes away every axis of length 1: of a batch of one, or of a single task."
    " Keep both axes."
)
def _(x, y, rows, W_f, b_f, W_h, b_h):
    prediction = (torch.tanh(x[rows] @ W_f.T + b_f) @ W_h.T + b_h).squeeze()
    return ((prediction - y[rows]) ** 2).mean(0).sum()


# -------------------------------------------------------------------------- 4. predict the crossing
# inputs
def _spreads(kind, unit=1.0):
    """Noise, spread and strength, on either side of the edge where the curves never cross.

    late: just inside, the crossing is at tens of thousands of examples. unit: of sigma and tau; the
    crossing does not depend on it.
    """

    def draw(generator):
        sigma, tau = (0.3 + 2 * torch.rand(2, generator=generator, dtype=torch.float64)).tolist()
        share = 0.2 + 0.6 * float(torch.rand(1, generator=generator))
        edge = 2 * sigma**2 / tau**2
        rise = sigma**2 / tau**2 / (2e4 + 1e5 * share)
        if kind == "edge":
            tau, edge = sigma, 2.0
        lam = {
            "far": edge / share,
            "late": edge * (1 + rise),
            "between": edge * (1 + share) / 2,
            "near": edge * share / 2,
            "edge": edge,
            "pooled": math.inf,
        }[kind]
        return unit * sigma, unit * tau, lam

    return draw


_KINDS = [_spreads(kind) for kind in ("far", "late", "between", "near", "edge", "pooled")]
_UNITS = [_spreads("far", unit) for unit in (1e-5, 1e5)]


# reference
@exercise(
    [*_KINDS, *_UNITS],
    points=2,
    hints=(
        (
            "At the crossing two errors are equal: equation 10 and the single-task error s ="
            " sigma^2 / n. Which factor drops out?"
        ),
        (
            "With a = n / (n + lam): (1 - a)^2 tau^2 = (1 - a^2) s. Divide by 1 - a, which is"
            " lam / (n + lam), and solve for n."
        ),
        (
            "n = sigma^2 / (tau^2 - 2 sigma^2 / lam). Where the denominator is not positive the"
            " curves never cross: return math.inf."
        ),
    ),
)
def crossing_point(sigma, tau, lam):
    """How many examples per task does single-task learning need
    to beat the joint estimate of a fixed strength lam?

    sigma: standard deviation of the noise; tau: standard
    deviation of the tasks' means; lam > 0, may be math.inf.
    Return n as a real number (a float, no rounding), or
    math.inf where single-task learning never wins.
    """
    ### BEGIN SOLUTION
    margin = tau**2 - 2 * sigma**2 / lam
    if margin > 0:
        return sigma**2 / margin
    return math.inf
    ### END SOLUTION


# laws
@crossing_point.law("at this n the two errors are equal; where there is none, joint stays below")
def _(answer, sigma, tau, lam):
    def lead(n):  # error of single-task minus error of joint, without the common factor
        a = 0.0 if math.isinf(lam) else n / (n + lam)
        return (1 - a**2) * sigma**2 / n - (1 - a) ** 2 * tau**2

    n = answer(sigma, tau, lam)
    return lead(1e6) > 0 if math.isinf(n) else abs(lead(n)) < 1e-6 * sigma**2 / n


# mistakes
def _crossing(margin, sigma, never=math.inf):
    return sigma**2 / margin if margin > 0 else never


@crossing_point.mistake(
    "This is where single-task learning meets pooling, lam = infinity."
    " A finite lam crosses later, or never."
)
def _(sigma, tau, lam):
    return sigma**2 / tau**2


@crossing_point.mistake(
    "Your formula has no positive solution here:"
    " then the joint estimate stays ahead at every n. Return math.inf."
)
def _(sigma, tau, lam):
    margin = tau**2 - 2 * sigma**2 / lam
    return sigma**2 / margin if margin else math.inf


@crossing_point.mistake(
    "A negative or zero number of examples cannot be: where there is no crossing, return math.inf."
)
def _(sigma, tau, lam):
    return _crossing(tau**2 - 2 * sigma**2 / lam, sigma, never=0.0)


@crossing_point.mistake(
    "Right where the curves cross. Where tau^2 <= 2 sigma^2 / lam they never do:"
    " return math.inf before you divide."
)
def _(sigma, tau, lam):
    return sigma**2 / (tau**2 - 2 * sigma**2 / lam)


_ROUNDED = "You round. n is asked for as a real number: return it as it comes."


for _round in (math.ceil, round, math.floor):

    @crossing_point.mistake(_ROUNDED)
    def _(sigma, tau, lam, whole_number=_round):
        n = _crossing(tau**2 - 2 * sigma**2 / lam, sigma)
        return n if math.isinf(n) else whole_number(n)

    @crossing_point.mistake(_ROUNDED)
    def _(sigma, tau, lam, whole_number=_round):
        n = _crossing(tau**2 - 2 * sigma**2 / lam, sigma)
        return n if math.isinf(n) else float(whole_number(n))


@crossing_point.mistake(
    "A factor 2 is lost: 1 - a^2 is (1 - a)(1 + a), and 1 + a is (2 n + lam) / (n + lam)."
)
def _(sigma, tau, lam):
    return _crossing(tau**2 - sigma**2 / lam, sigma)


@crossing_point.mistake(
    "sigma and tau are standard deviations; the error is made of their squares."
)
def _(sigma, tau, lam):
    margin = tau - 2 * sigma / lam
    return sigma / margin if margin > 0 else math.inf


@crossing_point.mistake(
    "This is lam* = sigma^2 / tau^2 set against lam."
    " Ask for which n the two errors are equal, not which strength is best."
)
def _(sigma, tau, lam):
    return math.inf if lam <= sigma**2 / tau**2 else sigma**2 / tau**2


@crossing_point.mistake(
    "Noise and spread are exchanged: more noise (sigma) keeps joint ahead for longer,"
    " more spread (tau) lets single-task win sooner."
)
def _(sigma, tau, lam):
    return _crossing(sigma**2 - 2 * tau**2 / lam, tau)


@crossing_point.mistake(
    "You compare with a small fixed number in place of 0. sigma^2 and tau^2 may themselves be"
    " that small: what counts is the sign."
)
def _(sigma, tau, lam):
    margin = tau**2 - 2 * sigma**2 / lam
    return sigma**2 / margin if margin > 1e-8 else math.inf


# -------------------------------------------------------------------- 5. how many examples per task
# inputs
def _plans(kind, unit=1.0, noise=1.0):
    """An error to reach, a number of tasks, noise and spread.

    loose: an error above the spread, which pooling reaches; strict: far below it. unit: of sigma
    and tau; the error has its square. noise: of sigma alone; n grows with its square, beyond what
    a search between fixed bounds would reach.
    """

    def draw(generator):
        sigma, tau = (0.3 + 2 * torch.rand(2, generator=generator, dtype=torch.float64)).tolist()
        share = float(torch.rand(1, generator=generator))
        error = tau**2 * {"loose": 1.2 + 2 * share, "equal": 1.0}.get(kind, 0.1 + 0.6 * share)
        T = {"one task": 1, "many": 2000}.get(kind) or whole(generator, 2, 30)
        return error * unit**2, T, sigma * unit * noise, tau * unit

    return draw


_PLANS = [_plans(kind) for kind in ("strict", "loose", "equal", "one task", "many")]
_PLAN_UNITS = [_plans("strict", unit) for unit in (1e-3, 1e3)]
_NOISY_PLAN = _plans("strict", noise=200.0)


# reference
@exercise(
    [*_PLANS, *_PLAN_UNITS, _NOISY_PLAN],
    points=2,
    hints=(
        (
            "Equation 13 knows n only through s = sigma^2 / n. Which equation for s do you get"
            " when you multiply it by s + tau^2?"
        ),
        "You get s^2 / T + (tau^2 - error) s - error tau^2 = 0, which has one positive root.",
        (
            "With h = (tau^2 - error) / 2 the root is s = T (sqrt(h^2 + error tau^2 / T) - h),"
            " and n = sigma^2 / s."
        ),
    ),
)
def examples_needed(error, T, sigma, tau):
    """How many examples per task bring T tasks to this error?

    The error is equation 13: the joint estimate with the best
    strength. error: > 0, mean squared; T: number of tasks, >= 1;
    sigma: standard deviation of the noise; tau: standard
    deviation of the tasks' means, > 0.
    Return n as a real number (a float, no rounding).
    """
    ### BEGIN SOLUTION
    half = (tau**2 - error) / 2
    root = math.sqrt(half**2 + error * tau**2 / T)
    return sigma**2 * (root + half) / (error * tau**2)
    ### END SOLUTION


# laws
@examples_needed.law("with this n, equation 13 gives the error that was asked for")
def _(answer, error, T, sigma, tau):
    s = sigma**2 / answer(error, T, sigma, tau)
    found = s / T + (1 - 1 / T) * s * tau**2 / (s + tau**2)
    return math.isclose(found, error, rel_tol=1e-6)


@examples_needed.law("more tasks never need more examples each")
def _(answer, error, T, sigma, tau):
    return answer(error, 3 * T, sigma, tau) < answer(error, T, sigma, tau)


# mistakes
@examples_needed.mistake("This is what a task alone needs, T = 1. Others share the first term.")
def _(error, T, sigma, tau):
    return sigma**2 / error


for _least in (0.0, -math.inf):

    @examples_needed.mistake(
        "This is what very many tasks need. With T tasks the common mean has to be paid for, too."
    )
    def _(error, T, sigma, tau, least=_least):
        return max(least, sigma**2 / error - sigma**2 / tau**2)


for _low, _high in ((1.0, math.inf), (0.0, 1e3), (0.0, 1e4)):

    @examples_needed.mistake(
        "Your n stops at a bound. It is below 1 where much error is allowed, and large where the"
        " noise is: solve for it, or let the search widen its own bounds."
    )
    def _(error, T, sigma, tau, low=_low, high=_high):
        half = (tau**2 - error) / 2
        n = sigma**2 * (math.sqrt(half**2 + error * tau**2 / T) + half) / (error * tau**2)
        return min(max(n, low), high)


@examples_needed.mistake("This is s, the variance of a task's own mean. n is sigma^2 / s.")
def _(error, T, sigma, tau):
    half = (tau**2 - error) / 2
    return T * (math.sqrt(half**2 + error * tau**2 / T) - half)


@examples_needed.mistake("This is the number of examples of all tasks together. Divide by T.")
def _(error, T, sigma, tau):
    half = (tau**2 - error) / 2
    return T * sigma**2 * (math.sqrt(half**2 + error * tau**2 / T) + half) / (error * tau**2)


@examples_needed.mistake(
    "You took the other root, which is negative: no number of examples can be."
)
def _(error, T, sigma, tau):
    half = (tau**2 - error) / 2
    return sigma**2 * (half - math.sqrt(half**2 + error * tau**2 / T)) / (error * tau**2)


@examples_needed.mistake("sigma is a standard deviation; the noise of a mean is sigma^2 / n.")
def _(error, T, sigma, tau):
    half = (tau**2 - error) / 2
    return sigma * (math.sqrt(half**2 + error * tau**2 / T) + half) / (error * tau**2)


@examples_needed.mistake("tau is a standard deviation; equation 13 has its square.")
def _(error, T, sigma, tau):
    half = (tau - error) / 2
    return sigma**2 * (math.sqrt(half**2 + error * tau / T) + half) / (error * tau)


@examples_needed.mistake(
    "The second term counts too much: its factor is 1 - 1/T, not 1."
)
def _(error, T, sigma, tau):
    # s / T + s tau^2 / (s + tau^2) = error
    half = (tau**2 * (1 + 1 / T) - error) / 2
    return sigma**2 * (math.sqrt(half**2 + error * tau**2 / T) + half) / (error * tau**2)


for _round in (math.ceil, round, math.floor):

    @examples_needed.mistake(_ROUNDED)
    def _(error, T, sigma, tau, whole_number=_round):
        half = (tau**2 - error) / 2
        n = sigma**2 * (math.sqrt(half**2 + error * tau**2 / T) + half) / (error * tau**2)
        return whole_number(n)
