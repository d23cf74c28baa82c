"""Exercises of chapter 3: from NumPy to the GPU."""

import math
from copy import deepcopy

import torch
from torch import nn

from ..checks.exercise import exercise
from ..training import syncs
from .inputs import different, expect, uniform, vectors, whole


# ------------------------------------------------------------------------------------------ 1. Adam
# inputs
def _adam_case(first, kind="plain"):
    """At the first step, where the means are zero, or at a later one.

    kind: of `vectors`; with a gradient of zero only the mean of earlier ones moves theta.
    """

    def draw(generator):
        rows, columns = different(generator, 2, 1, 5)
        theta, g, m = (
            vectors(generator, rows, columns, kind if of_gradient else "plain")
            for of_gradient in (False, True, True)
        )
        s = m.square() * (1 + torch.rand(rows, columns, generator=generator, dtype=torch.float64))
        step = 1 if first else whole(generator, 2, 40)
        settings = [
            uniform(generator, low, high)
            for low, high in ((0.05, 0.3), (0.6, 0.8), (0.85, 0.95), (0.05, 0.2))
        ]
        g = 0 * g if kind == "zero" else g
        return (theta, g, 0 * m if first else m, 0 * s if first else s, step, *settings)

    return draw


# reference
@exercise(
    [_adam_case(True), _adam_case(False), _adam_case(False, "huge"), _adam_case(False, "zero")],
    points=2,
    grad=False,
    device=False,  # an answer in NumPy is as good: the chapter gets to devices later
    parts=("theta", "m", "s"),
    hints=(
        (
            "Both running means start at zero. How far below their due are they after one step,"
            " and what mends that?"
        ),
        (
            "Update both running means first, m with g and s with g squared. Then correct each"
            " for having started at zero, and only then step."
        ),
        (
            "After t steps the weights of a running mean add up to `1 - b**t`, not to 1:"
            " `m_hat = m / (1 - b1**t)` and `s_hat = s / (1 - b2**t)` stand in the update."
        ),
    ),
)
def adam_update(theta, g, m, s, step, rate, b1, b2, epsilon):
    """One step of Adam: (theta, m, s) after it, new tensors.

    theta, g: parameters and their gradient, of one shape.
    m, s: running means of g and of g squared before the step.
    step: number of this step, 1 for the first.
    The means that you return are the uncorrected ones. epsilon is
    added to the square root, outside of it.
    """
    ### BEGIN SOLUTION
    m = b1 * m + (1 - b1) * g
    s = b2 * s + (1 - b2) * g**2
    m_hat = m / (1 - b1**step)
    s_hat = s / (1 - b2**step)
    return theta - rate * m_hat / (s_hat.sqrt() + epsilon), m, s
    ### END SOLUTION


# laws
@adam_update.law(
    "the first step has the length of the rate in every entry, whatever the size of the gradient"
)
def _(answer, theta, g, m, s, step, rate, b1, b2, epsilon):
    g = torch.where(g == 0, 1.0, g)
    moved = answer(theta, 1e3 * g, 0 * m, 0 * s, 1, rate, b1, b2, 0.0)[0] - theta
    return torch.allclose(moved, -rate * g.sign(), rtol=1e-9)


# mistakes
def _means(g, m, s, b1, b2):
    return b1 * m + (1 - b1) * g, b2 * s + (1 - b2) * g**2


@adam_update.mistake(
    "The bias correction is missing:"
    " the means start at zero, so at first both are too small, and s more so than m."
)
def _(theta, g, m, s, step, rate, b1, b2, epsilon):
    m, s = _means(g, m, s, b1, b2)
    return theta - rate * m / (s.sqrt() + epsilon), m, s


@adam_update.mistake("Only m is corrected: s starts at zero, too.")
def _(theta, g, m, s, step, rate, b1, b2, epsilon):
    m, s = _means(g, m, s, b1, b2)
    return theta - rate * (m / (1 - b1**step)) / (s.sqrt() + epsilon), m, s


@adam_update.mistake(
    "Epsilon is inside the square root:"
    " then it is the square root of epsilon that bounds the step. Add it outside."
)
def _(theta, g, m, s, step, rate, b1, b2, epsilon):
    m, s = _means(g, m, s, b1, b2)
    m_hat, s_hat = m / (1 - b1**step), s / (1 - b2**step)
    return theta - rate * m_hat / (s_hat + epsilon).sqrt(), m, s


@adam_update.mistake("s is the mean of g squared; you average the squared distance of g from m.")
def _(theta, g, m, s, step, rate, b1, b2, epsilon):
    m = b1 * m + (1 - b1) * g
    s = b2 * s + (1 - b2) * (g - m) ** 2
    m_hat, s_hat = m / (1 - b1**step), s / (1 - b2**step)
    return theta - rate * m_hat / (s_hat.sqrt() + epsilon), m, s


@adam_update.mistake(
    "The square root is missing:"
    " dividing by s, not by its root, gives a step that depends on the unit of the loss."
)
def _(theta, g, m, s, step, rate, b1, b2, epsilon):
    m, s = _means(g, m, s, b1, b2)
    m_hat, s_hat = m / (1 - b1**step), s / (1 - b2**step)
    return theta - rate * m_hat / (s_hat + epsilon), m, s


@adam_update.mistake("The sign is turned: this climbs.")
def _(theta, g, m, s, step, rate, b1, b2, epsilon):
    return adam_update(theta, g, m, s, step, -rate, b1, b2, epsilon)


@adam_update.mistake(
    "The correction is one step ahead: the number of the first step is 1 already, do not add to it."
)
def _(theta, g, m, s, step, rate, b1, b2, epsilon):
    return adam_update(theta, g, m, s, step + 1, rate, b1, b2, epsilon)


@adam_update.mistake(
    "You return the corrected means, so the next step corrects them once more."
    " Keep the uncorrected ones."
)
def _(theta, g, m, s, step, rate, b1, b2, epsilon):
    theta, m, s = adam_update(theta, g, m, s, step, rate, b1, b2, epsilon)
    return theta, m / (1 - b1**step), s / (1 - b2**step)


@adam_update.mistake("The two factors are exchanged: b1 belongs to m, b2 to s.")
def _(theta, g, m, s, step, rate, b1, b2, epsilon):
    return adam_update(theta, g, m, s, step, rate, b2, b1, epsilon)


@adam_update.mistake(
    "The step uses the means from before it. Update m and s with this gradient first."
)
def _(theta, g, m, s, step, rate, b1, b2, epsilon):
    m_hat, s_hat = m / (1 - b1**step), s / (1 - b2**step)
    return theta - rate * m_hat / (s_hat.sqrt() + epsilon), *_means(g, m, s, b1, b2)


@adam_update.mistake(
    "The weights of the means are exchanged:"
    " b1 is that of the old m, 1 - b1 that of g; likewise for s."
)
def _(theta, g, m, s, step, rate, b1, b2, epsilon):
    m, s = (1 - b1) * m + b1 * g, (1 - b2) * s + b2 * g**2
    m_hat, s_hat = m / (1 - b1**step), s / (1 - b2**step)
    return theta - rate * m_hat / (s_hat.sqrt() + epsilon), m, s


# -------------------------------------------------------------------------------- 2. hidden waiting
# inputs
def _batches(kind, unit=1.0):
    """Batches, and a limit between the norms of their gradients: some are shortened, some not.

    fast: the rate exceeds 1, so that a limit on the step is not one on the gradient; still: the
    first batch is fitted, its gradient is zero; one: a single batch of a single example. unit: of
    weights and targets, and so of gradients and limit.
    """

    def draw(generator):
        batches, n, d = different(generator, 3, 2, 7)
        batches, n = (1, 1) if kind == "one" else (batches, n)
        w, true = torch.randn(2, d, generator=generator, dtype=torch.float64)
        w = 0 * w if kind == "still" else w
        x = torch.randn(batches, n, d, generator=generator, dtype=torch.float64)
        y = x @ true + torch.randn(batches, n, generator=generator, dtype=torch.float64)
        norms = sorted(float((2 * a.T @ (a @ w - b) / n).norm()) for a, b in zip(x, y, strict=True))
        limit = 0.4 * norms[0] + (0.6 * norms[-1] if batches > 1 else 0.0)
        if kind == "still":
            y[0] = 0.0
        rate = uniform(generator, 1.2, 1.5) if kind == "fast" else uniform(generator, 0.005, 0.02)
        return unit * w, x, unit * y, rate, unit * limit

    return draw


# reference
def _waits(w, x, y, rate, limit):
    """Gradient descent on a linear model, one step per batch;
    (weights after the last step, mean loss over the batches).

    w: [d]; x: [batches, n, d]; y: [batches, n], on one device.
    The loss of a batch is the mean squared error before its
    step. A gradient longer than limit is shortened to limit.
    Both results are tensors on the device of w. The program
    must never wait for a number from the device.
    """
    total = 0.0
    for xb, yb in zip(x, y):
        error = xb @ w - yb
        total += (error**2).mean().item()
        g = 2 * xb.T @ error / len(yb)
        norm = g.norm()
        if norm > limit:
            g = g * limit / norm
        w = w - rate * g
    return w, w.new_tensor(total / len(x), device="cpu")


@exercise(
    [
        _batches("plain"),
        _batches("fast"),
        _batches("still", 1e-3),
        _batches("one", 1e3),
    ],
    points=3,
    grad=False,
    atol=1e-7,
    parts=("the weights", "the mean loss"),
    starter=_waits,
    hints=(
        (
            "Three lines need the CPU to know or to hold a number. `.item()` is one. Which line"
            " branches on a value, and where is the result made?"
        ),
        (
            "Add the losses up in a tensor that stands where w does. A choice between two"
            " numbers can be a product: with 1, or with limit / norm."
        ),
        (
            "`total = w.new_zeros(())` before the loop, and `g * (limit / g.norm()).clamp(max=1)`"
            " instead of the `if`."
        ),
    ),
)
def clipped_descent(w, x, y, rate, limit):
    total = w.new_zeros(())
    for xb, yb in zip(x, y):
        error = xb @ w - yb
        total = total + (error**2).mean()
        g = 2 * xb.T @ error / len(yb)
        w = w - rate * g * (limit / g.norm()).clamp(max=1)
    return w, total / len(x)


# laws
def _counted(answer, args, kinds):
    with syncs.SyncCounter() as waits:
        answer(*args)
    return not any(name in kinds for name in waits)


@clipped_descent.law("fetches no number from the device (item, float, print, cpu, ...)")
def _(answer, *args):
    return _counted(answer, args, syncs.FETCHES | syncs.BUILDERS)


@clipped_descent.law(
    "takes no decision that needs a number from the device (if, while, max, masks, ...)"
)
def _(answer, *args):
    return _counted(answer, args, syncs.BRANCHES | syncs.SIZES)


# mistakes
def _descent(
    w, x, y, rate, limit, shorten=None, fetch=False, branch=False, zero=None, before=True, mean=True
):
    """The answer with one thing changed: what the mistakes below are made of."""
    total = w.new_zeros(()) if zero is None else zero(w)
    for xb, yb in zip(x, y, strict=True):
        error = xb @ w - yb
        g = 2 * xb.T @ error / len(yb)
        loss = (error**2).mean()
        if branch:
            norm = g.norm()
            if norm > limit:
                g = g * limit / norm
        else:
            g = g * (limit / g.norm()).clamp(max=1) if shorten is None else shorten(g, limit)
        w = w - rate * g
        loss = loss if before else ((xb @ w - yb) ** 2).mean()
        total += loss.item() if fetch else loss
    return w, total / len(x) if mean else total


@clipped_descent.mistake(
    "Nothing has changed for the device:"
    " a number is fetched, the clipping branches on one, and the loss is made on the CPU."
)
def _(*args):
    return _waits(*args)


clipped_descent.variants(
    _descent,
    {
        "A number is still fetched from the device"
        " (.item(), float(...), torch.tensor of a list of tensors):"
        " Python stops until the queue is empty. Add up tensors, or torch.stack them.": {
            "fetch": True
        },
        "Something still needs a number from the device to decide"
        " (`if norm > limit`, min(), assert, a tensor as an index): that waits, too."
        " Let the device choose: clamp, torch.where or torch.minimum.": {"branch": True},
        "A tensor is made on the CPU, whatever the device of w is, in the sum of the losses or in"
        " what you return: use w.new_zeros(()) or device=w.device.": {
            "zero": lambda w: torch.zeros((), dtype=w.dtype)
        },
        "A gradient of zero has no direction: g / g.norm() is nan there, and nan stays."
        " Multiply the gradient by one factor, the smaller of 1 and limit / norm.": {
            "shorten": lambda g, limit: g / g.norm() * g.norm().clamp(max=limit)
        },
        "Every gradient gets the length limit, the short ones too:"
        " they are lengthened. The factor must not exceed 1.": {
            "shorten": lambda g, limit: g * limit / g.norm()
        },
        "Each entry is clipped by itself, which turns the gradient. Shorten the whole vector.": {
            "shorten": lambda g, limit: g.clamp(-limit, limit)
        },
        "The gradients are not shortened any more.": {"shorten": lambda g, limit: g},
        "The loss of a batch is taken after its step:"
        " it is to be that of the weights with which the step begins.": {"before": False},
        "You return the sum of the losses, not their mean over the batches.": {"mean": False},
    },
)


@clipped_descent.mistake(
    "The step is shortened, rate * g, not the gradient:"
    " limit is a bound on the gradient, before the rate."
)
def _(w, x, y, rate, limit):
    total = w.new_zeros(())
    for xb, yb in zip(x, y, strict=True):
        error = xb @ w - yb
        total += (error**2).mean()
        step = rate * 2 * xb.T @ error / len(yb)
        w = w - step * (limit / step.norm()).clamp(max=1)
    return w, total / len(x)


@clipped_descent.mistake(
    'A loss is fetched from the device, in a step or at the end (`.cpu()`, `.to("cpu")`):'
    " that waits, and both results are to stay where w is. Name no device."
)
def _(w, x, y, rate, limit):
    total = torch.zeros((), dtype=w.dtype)
    for xb, yb in zip(x, y, strict=True):
        error = xb @ w - yb
        total += (error**2).mean().to("cpu")
        g = 2 * xb.T @ error / len(yb)
        w = w - rate * g * (limit / g.norm()).clamp(max=1)
    return w, total / len(x)


# ---------------------------------------------------------------------------------- 3. exact resume
# inputs
_EXAMPLES = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))


def _small_run(seed, rate=0.1):
    """A network with BatchNorm and dropout, its optimizer, and the examples' generator."""
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed takes a millisecond, for the sake of GPUs
        torch.default_generator.manual_seed(seed)
        model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Dropout(0.5))
    return (
        model,
        torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9),
        torch.Generator().manual_seed(seed),
    )


def _live(generator):
    rate = uniform(generator, 0.05, 0.09)
    return (*_small_run(whole(generator, 0, 1000), rate), whole(generator, 2, 9))


def _one_epoch(model, optimizer, order):
    """One step, on all examples in a random order, which decides who meets which dropout mask."""
    data = _EXAMPLES[torch.randperm(8, generator=order)]
    optimizer.zero_grad()
    (model(data[:, :3]) - data[:, 3:]).square().mean().backward()
    optimizer.step()


def _interrupted(answer, model, optimizer, order, epoch):
    """All weights and buffers of a run that was saved, and of one that went on from there.

    One epoch, save, one more; then that one again in what passes for a new process.
    """
    _one_epoch(model, optimizer, order)
    saved = answer(model, optimizer, order, epoch)
    _one_epoch(model, optimizer, order)
    uninterrupted = _weights_and_buffers(model)
    expect(isinstance(saved, dict), "a dict", saved)
    expect("model" in saved, "an entry `model`", saved)
    model, optimizer, order = _small_run(1001)
    torch.default_generator.manual_seed(1002)
    restore = {
        "model": lambda state: model.load_state_dict(state, strict=False),
        "optimizer": optimizer.load_state_dict,
        "order": order.set_state,
        "rng": torch.set_rng_state,
    }
    for name in restore.keys() & saved.keys():
        try:
            restore[name](saved[name])
        except Exception as error:
            raise ValueError(f"A new run cannot take up your `{name}`: {error}") from None
    for _ in range(epoch + 1 - saved.get("epoch", 0)):
        _one_epoch(model, optimizer, order)
    return {"uninterrupted": uninterrupted, "resumed": _weights_and_buffers(model)}


def _weights_and_buffers(model):
    return torch.cat([t.detach().flatten().double() for t in model.state_dict().values()])


# reference
def _weights_only(model, optimizer, order, epoch):
    """All that a run on the CPU needs to go on, after any later
    interruption, as if nothing had happened: a dict with

    model: the model's state (it has BatchNorm and dropout),
    optimizer: the optimizer's state (it has momentum),
    order: the state of `order`, the torch.Generator that draws
        the order of the examples,
    rng: the state of torch's own generator (dropout draws from it),
    epoch: the number of epochs done.
    The run goes on after this call. What you return must not
    change with it.
    """
    return {"model": model.state_dict(), "epoch": epoch}


@exercise(
    [_live],
    points=2,
    grad=False,
    device=False,
    rtol=1e-9,
    atol=1e-9,
    call=_interrupted,
    starter=_weights_only,
    hints=(
        (
            "Which random numbers does a run draw, and which tensors change after each step? Who"
            " holds the state of each?"
        ),
        (
            "Momentum, the order of the examples, the dropout masks: each comes from a state"
            " that a new process would not have."
        ),
        (
            "A state_dict holds the live tensors, which the next step changes in place:"
            " deepcopy(model.state_dict()). A generator's state is order.get_state(), torch's own"
            " torch.get_rng_state()."
        ),
    ),
)
def saved_run(model, optimizer, order, epoch):
    return {
        "model": deepcopy(model.state_dict()),
        "optimizer": deepcopy(optimizer.state_dict()),
        "order": order.get_state(),
        "rng": torch.get_rng_state(),
        "epoch": epoch,
    }


# mistakes
def _complete(model, optimizer, order, epoch, /, **changed):
    whole = {
        "model": deepcopy(model.state_dict()),
        "optimizer": deepcopy(optimizer.state_dict()),
        "order": order.get_state(),
        "rng": torch.get_rng_state(),
        "epoch": epoch,
    }
    return {name: value for name, value in (whole | changed).items() if value is not None}


@saved_run.mistake(
    "Only the weights are saved, and not even a copy of them:"
    " the run goes on and changes them under your hands."
)
def _(*args):
    return _weights_only(*args)


saved_run.variants(
    _complete,
    {
        "The weights are safe now, but the rest is missing:"
        " momentum, the order of the examples and the dropout masks start anew.": {
            "optimizer": None,
            "order": None,
            "rng": None,
        },
        "The optimizer's state is missing: after the interruption the momentum starts at zero.": {
            "optimizer": None
        },
        "The state of `order` is missing:"
        " after the interruption the examples come in another order.": {"order": None},
        "The state of torch's own generator is missing:"
        " after the interruption dropout draws other masks.": {"rng": None},
        "The number of epochs is missing:"
        " the resumed run starts to count at zero and trains for too long.": {"epoch": None},
    },
)


@saved_run.mistake(
    "`order` and `rng` are exchanged: `order` is the generator that you are given,"
    " `rng` is torch's own."
)
def _(model, optimizer, order, epoch):
    state = torch.get_rng_state()
    return _complete(model, optimizer, order, epoch, order=state, rng=order.get_state())


@saved_run.mistake(
    "The model's state is not a copy:"
    " state_dict holds the live tensors, and the next step changes them in place."
)
def _(model, *rest):
    return _complete(model, *rest, model=model.state_dict())


@saved_run.mistake(
    "The optimizer's state is not a copy: its momentum goes on changing after the call."
)
def _(model, optimizer, *rest):
    return _complete(model, optimizer, *rest, optimizer=optimizer.state_dict())


@saved_run.mistake(
    "Neither state is a copy all the way down:"
    " dict(...), .copy() and copy.copy still hold the live tensors. Use copy.deepcopy."
)
def _(model, optimizer, *rest):
    return _complete(
        model, optimizer, *rest, model=model.state_dict(), optimizer=optimizer.state_dict()
    )


@saved_run.mistake(
    "`epoch` is the number of epochs done already."
    " Do not add to it: the resumed run would leave one out."
)
def _(model, optimizer, order, epoch):
    return _complete(model, optimizer, order, epoch + 1)


@saved_run.mistake(
    "`epoch` is the number of epochs done already. Do not take one off:"
    " the resumed run would do one twice."
)
def _(model, optimizer, order, epoch):
    return _complete(model, optimizer, order, epoch - 1)


@saved_run.mistake(
    "Saving changes the run: a number is drawn from `order`, or the seed is set anew,"
    " so that the run goes on otherwise than without you."
)
def _(model, optimizer, order, epoch):
    torch.randperm(8, generator=order)
    return _complete(model, optimizer, order, epoch)


@saved_run.mistake(
    "Saving leaves the model in evaluation mode,"
    " so that the run goes on without dropout and with BatchNorm's running statistics."
)
def _(model, *rest):
    return _complete(model.eval(), *rest)


@saved_run.mistake(
    "The parameters alone are not the model's state:"
    " BatchNorm's running statistics are buffers, and they are lost."
)
def _(model, *rest):
    return _complete(
        model, *rest, model={name: p.detach().clone() for name, p in model.named_parameters()}
    )


# --------------------------------------------------------------------- 4. several losses in 16 bits
# inputs
def _scaled(size, limit, spoil=(), exponents=(16, 17), silent=False):
    """Scaled gradients of about `size`; `spoil`: values of entries that are not finite.

    Each spoils an entry of a task of its own. exponents: of the scale, a power of two. silent: the
    tasks that are spoiled have the weight 0.
    """

    def draw(generator):
        tasks = whole(generator, max(2, len(spoil)), 5)
        width = whole(generator, 5, 9)
        drawn = torch.rand(2, tasks, width, generator=generator)
        J = (size * (0.5 + drawn[0]) * (drawn[1] - 0.5).sign()).half()
        J[:, 0] = torch.tensor(size, dtype=torch.float16)  # of one sign, so that their sum is large
        for task, value in zip(different(generator, len(spoil), 0, tasks), spoil, strict=True):
            J[task, whole(generator, 0, width)] = value
        weights = 0.4 + 0.6 * torch.arange(1.0, tasks + 1)
        weights = weights[torch.randperm(tasks, generator=generator)]
        weights = weights * (0.9 + 0.2 * torch.rand(tasks, generator=generator))
        if silent:
            weights[~torch.isfinite(J).all(1)] = 0.0
        return J, torch.tensor(2.0 ** whole(generator, *exponents)), weights, limit

    return draw


def _direction_and_scale(answer, J, scale, weights, limit):
    """The answer's pair; the next scale as a float, whether it comes as one or as a tensor."""
    got = answer(J, scale, weights, limit)
    expect(isinstance(got, tuple | list) and len(got) == 2, "(direction, next scale)", got)
    direction, following = got
    of_one = isinstance(following, torch.Tensor) and following.shape == ()
    expect(of_one or isinstance(following, float), "a number as the next scale", following)
    return direction, float(following)


# reference
@exercise(
    [
        _scaled(0.02, 1.0),
        _scaled(3e4, 0.3),
        _scaled(0.5, 1.0, exponents=(0, 8)),
        _scaled(0.0, 1.0, exponents=(8, 16)),
        _scaled(1.0, 1.0, [-float("inf")], exponents=(8, 16)),
        _scaled(1.0, 1.0, [float("nan"), float("nan")]),
        _scaled(1.0, 1.0, [float("inf")], exponents=(8, 16), silent=True),
    ],
    points=3,
    call=_direction_and_scale,
    parts=("the direction", "the next scale"),
    grad=False,
    atol=0.0,
    hints=(
        (
            "What happens to a gradient of 70,000 in 16 bits, and to the smallest ones once they"
            " are divided by the scale?"
        ),
        (
            "The order: look for entries that are not finite, go to float32, divide by the"
            " scale, then weigh, add up, and clip."
        ),
        (
            "`J.float() / scale` before anything is added up. One inf in one task and the whole"
            " step is off: `torch.where(torch.isfinite(J).all(), direction, 0.0)`."
        ),
    ),
)
def unscaled_direction(J, scale, weights, limit):
    """(direction of the step, next scale) from scaled gradients.

    J: float16 [T, P]; row t is the gradient of scale * L_t.
    scale: float32 tensor, no dimensions. weights: float32 [T].
    The direction is the gradient of sum_t weights[t] * L_t,
    float32 [P], shortened to length limit if it is longer.
    If any entry of J is inf or nan, the direction is 0 and the
    next scale is half the scale; else the scale stays.
    """
    ### BEGIN SOLUTION
    finite = torch.isfinite(J).all()
    d = weights @ (J.float() / scale)
    d = d * (limit / d.norm()).clamp(max=1)
    return torch.where(finite, d, 0.0), torch.where(finite, scale, scale / 2)
    ### END SOLUTION


# laws
@unscaled_direction.law("twice the scale in, the same direction out")
def _(answer, J, scale, weights, limit):
    J = (J.float() / 4).half()
    return torch.allclose(
        answer(J * 2, scale * 2, weights, limit)[0],
        answer(J, scale, weights, limit)[0],
        rtol=1e-3,
        atol=0,
    )


# mistakes
def _direction(J, scale, weights, limit, finite=None, unscale=None, clip=None, halve=0.5):
    """The answer with one thing changed: what the mistakes below are made of."""
    ok = torch.isfinite(J).all() if finite is None else finite(J)
    d = weights @ (J.float() / scale) if unscale is None else unscale(J, scale, weights)
    d = d * (limit / d.norm()).clamp(max=1) if clip is None else clip(d)
    return torch.where(ok, d, 0.0), torch.where(ok, scale, halve * scale)


@unscaled_direction.mistake(
    "A task with the weight 0 may overflow here, and nobody notices. Any entry of J that is inf or"
    " nan says that the scale is too high."
)
def _(J, scale, weights, limit):
    J, weights = J[weights != 0], weights[weights != 0]
    return _direction(J, scale, weights, limit)


unscaled_direction.variants(
    _direction,
    {
        "You divide by the scale in 16 bits:"
        " there the small gradients vanish again, and a scale of 65,536 is inf. First J.float().": {
            "unscale": lambda J, scale, weights: weights @ (J / scale.half()).float()
        },
        "`J / scale` is still in 16 bits: a scale without dimensions does not change the type of"
        " J, and the small gradients vanish again. First J.float().": {
            "unscale": lambda J, scale, weights: weights @ (J / scale).float()
        },
        "The tasks are added up in 16 bits:"
        " the sum of scaled gradients overflows, or is rounded. First J.float().": {
            "unscale": (
                lambda J, scale, weights: (weights.half()[:, None] * J).sum(0).float() / scale
            )
        },
        "The division by the scale is missing.": {
            "unscale": lambda J, scale, weights: weights @ J.float()
        },
        "The scale is divided out once for every task."
        " Each row is scaled once, and so is their sum.": {
            "unscale": lambda J, scale, weights: weights @ J.float() / scale ** len(J)
        },
        "You look for NaN only: an overflow is inf.": {"finite": lambda J: ~torch.isnan(J).any()},
        "The step is left out, but the scale stays:"
        " the next step will overflow as well. Halve it.": {
            "halve": 1.0
        },
        "After an overflow the scale goes up. It was too large: halve it.": {"halve": 2.0},
        "You look for infinities only. inf - inf and 0 * inf are NaN: look for both.": {
            "finite": lambda J: ~torch.isinf(J).any()
        },
        "The direction is never shortened.": {"clip": lambda d: d},
        "Gradients that are all zero give nan: limit / norm is infinite there, and 0 times"
        " infinity is nan. Bound the factor first: the smaller of 1 and limit / norm.": {
            "clip": lambda d: d / d.norm() * d.norm().clamp(max=1.0)
        },
        "The weights of the losses are not used.": {
            "unscale": lambda J, scale, weights: J.float().sum(0) / scale
        },
    },
)


@unscaled_direction.mistake(
    "The direction is clipped before it is divided by the scale:"
    " then the limit is compared with gradients that are far too long."
)
def _(J, scale, weights, limit):
    d = weights @ J.float()
    return _direction(
        J, scale, weights, limit, clip=lambda _: d * (limit / d.norm()).clamp(max=1) / scale
    )


@unscaled_direction.mistake(
    "Only the task that overflowed is left out."
    " Then this step minimises another objective: leave the whole step out."
)
def _(J, scale, weights, limit):
    ok = torch.isfinite(J).all(1, keepdim=True)
    d = weights @ (torch.where(ok, J, 0).float() / scale)
    return d * (limit / d.norm()).clamp(max=1), torch.where(ok.all(), scale, scale / 2)


@unscaled_direction.mistake(
    "The entries that are not finite are replaced and the step is taken."
    " What they should have been nobody knows."
)
def _(J, scale, weights, limit):
    d = weights @ (J.float().nan_to_num(0, 0, 0) / scale)
    return d * (limit / d.norm()).clamp(max=1), torch.where(
        torch.isfinite(J).all(), scale, scale / 2
    )


@unscaled_direction.mistake(
    "Each entry is clipped by itself, which turns the direction. Shorten the whole vector."
)
def _(J, scale, weights, limit):
    return _direction(J, scale, weights, limit, clip=lambda d: d.clamp(-limit, limit))


@unscaled_direction.mistake(
    "Short directions get the length limit, too."
    " Divide by the scale first, and never lengthen: the factor must not exceed 1."
)
def _(J, scale, weights, limit):
    return _direction(J, scale, weights, limit, clip=lambda d: d * limit / d.norm())


@unscaled_direction.mistake(
    "Each task is clipped by itself. The limit is one on the length of the weighted sum."
)
def _(J, scale, weights, limit):
    return _each_clipped(J, scale, weights, limit, clip=lambda d: d)


def _each_clipped(J, scale, weights, limit, weighted=False, **changed):
    def rows(J, scale, weights):
        each, left = J.float() / scale, weights
        if weighted:
            each, left = weights[:, None] * each, torch.ones_like(weights)
        return left @ (each * (limit / each.norm(dim=1, keepdim=True)).clamp(max=1))

    return _direction(J, scale, weights, limit, unscale=rows, **changed)


unscaled_direction.variants(
    _each_clipped,
    {
        "Each task is clipped by itself, after its weight."
        " The limit is one on the length of the sum.": {"weighted": True, "clip": lambda d: d},
        "Each task is clipped by itself, and their sum once more. Clip the weighted sum only.": {},
        "Each weighted task is clipped by itself, and their sum once more. Clip the sum only.": {
            "weighted": True
        },
    },
)


@unscaled_direction.mistake(
    "nan_to_num puts the largest number in the place of inf, and the step is taken."
    " What the entries should have been nobody knows."
)
def _(J, scale, weights, limit):
    d = weights @ (J.float().nan_to_num() / scale)
    return d * (limit / d.norm()).clamp(max=1), torch.where(
        torch.isfinite(J).all(), scale, scale / 2
    )


@unscaled_direction.mistake(
    "nan_to_num puts the largest number of 16 bits in the place of inf, and the step is taken."
    " What the entries should have been nobody knows."
)
def _(J, scale, weights, limit):
    d = weights @ (J.nan_to_num().float() / scale)
    return d * (limit / d.norm()).clamp(max=1), torch.where(
        torch.isfinite(J).all(), scale, scale / 2
    )


@unscaled_direction.mistake(
    "You multiply by 0 where the step is off, but 0 times nan is nan. Choose, with torch.where."
)
def _(J, scale, weights, limit):
    ok = torch.isfinite(J).all()
    d = weights @ (J.float() / scale)
    return ok * d * (limit / d.norm()).clamp(max=1), torch.where(ok, scale, scale / 2)


@unscaled_direction.mistake(
    "The entries that are not finite are multiplied by 0, but 0 times nan or inf is nan."
    " Choose, with torch.where, and leave the whole step out."
)
def _(J, scale, weights, limit):
    ok = torch.isfinite(J)
    d = weights @ (J.float() * ok / scale)
    return d * (limit / d.norm()).clamp(max=1), torch.where(ok.all(), scale, scale / 2)


# ------------------------------------------------------------------------------------ 5. arithmetic
# inputs
def _layer(images, peak, bandwidth):
    """Sides, channels and sizes of numbers that differ from each other and from draw to draw.

    images: the least number of images and the next after the largest.
    """

    def draw(generator):
        before, after = different(generator, 2, 8, 90)
        side = whole(generator, 6, 14)
        return (
            whole(generator, *images),
            before,
            after,
            side,
            1 + 2 * whole(generator, 0, 3),
            2 ** whole(generator, 0, 4),
            peak * uniform(generator, 1, 2),
            bandwidth * uniform(generator, 1, 2),
        )

    return draw


def _either_count(answer, *args):
    """The answer's time: a sum of K products has K additions, or K - 1 if it does not begin at 0.

    The docstring does not say which, so both are right, and count as the same.
    """
    got = answer(*args)
    n, before, after, side, kernel, size, peak, bandwidth = args
    products = before * kernel**2
    moved = n * (before + after) * side**2 + products * after
    arithmetic, memory = n * after * side**2 / peak, size * moved / bandwidth
    fewer = max((2 * products - 1) * arithmetic, memory)
    alike = isinstance(got, float) and math.isclose(got, fewer, rel_tol=1e-6)
    return max(2 * products * arithmetic, memory) if alike else got


# reference
@exercise(
    [_layer((40, 90), 1e12, 1e14), _layer((40, 90), 1e17, 1e10), _layer((1, 2), 1e17, 1e10)],
    points=2,
    call=_either_count,
    grad=False,
    device=False,
    atol=0.0,
    rtol=1e-6,
    hints=(
        (
            "How many multiplications does one output number take, and how often does each"
            " number pass the memory at least?"
        ),
        (
            "Every output number is a sum over `before * kernel**2` products: a multiplication and"
            " an addition each."
        ),
        (
            "`operations = 2 * outputs * before * kernel**2`. Input, weights and output each pass"
            " the memory once, `size` bytes a number; the slower of the two sets the time,"
            " `max(operations / peak, size * numbers / bandwidth)`."
        ),
    ),
)
def layer_floor(n, before, after, side, kernel, size, peak, bandwidth):
    """The least time in seconds that a forward pass of one
    convolution can take on a device, a float.

    n images [n, before, side, side] go in; the output has
    `after` channels and the same sides; kernel x kernel weights
    for every pair of channels, no bias. Every number takes
    size bytes. peak: operations a second, a multiplication
    and an addition being two. bandwidth: bytes a second. The
    device computes and moves data at the same time.
    """
    ### BEGIN SOLUTION
    outputs = n * after * side**2
    operations = 2 * outputs * before * kernel**2
    weights = before * after * kernel**2
    numbers = n * before * side**2 + outputs + weights
    return max(operations / peak, size * numbers / bandwidth)
    ### END SOLUTION


# laws
@layer_floor.law("no faster than the arithmetic and no faster than the memory")
def _(answer, n, before, after, side, kernel, size, peak, bandwidth):
    time = answer(n, before, after, side, kernel, size, peak, bandwidth)
    return (
        time >= n * after * side**2 * (2 * before * kernel**2 - 1) / peak * (1 - 1e-9)
        and time >= size * n * after * side**2 / bandwidth
    )


def _close_to_the_floor(answer, *args):
    time = _either_count(lambda *args: float(answer(*args)), *args)
    return math.isclose(time, layer_floor(*args), rel_tol=1e-6)


@layer_floor.law("where moving data costs no time it is that of the operations")
def _(answer, *args):
    return _close_to_the_floor(answer, *args[:-1], math.inf)


@layer_floor.law("where operations cost no time it is that of moving input, output and weights")
def _(answer, *args):
    return _close_to_the_floor(answer, *args[:-2], math.inf, args[-1])


# mistakes
def _floor(
    n,
    before,
    after,
    side,
    kernel,
    size,
    peak,
    bandwidth,
    two=2,
    window=2,
    parts=(1, 1, 1),
    join=max,
    unit=1.0,
    area=2,
    square=2,
    outputs=None,
    channels=None,
    images=True,
):
    """The answer with one thing changed: what the mistakes below are made of."""
    places = side**area if outputs is None else outputs(side, kernel) ** 2
    window = min(window, square)
    maps = (n * before * side**area, n * after * places, before * after * kernel**square)
    moved = unit * size * sum(part * numbers for part, numbers in zip(parts, maps, strict=True))
    into, out = (before, after) if channels is None else channels(before, after)
    operations = two * (n if images else 1) * out * places * into * kernel**window
    return join((operations / peak, moved / bandwidth))


layer_floor.variants(
    _floor,
    {
        "A product that is added to a sum is two operations,"
        " a multiplication and an addition; you count one.": {"two": 1},
        "The two times are added."
        " The device computes and moves data at the same time, so the longer one counts.": {
            "join": sum
        },
        "You take the shorter of the two times. The device must finish both.": {"join": min},
        "The input has to be read from memory, too.": {"parts": (0, 1, 1)},
        "The output has to be written to memory, too.": {"parts": (1, 0, 1)},
        "The weights have to be read, too."
        " With many n they hardly count, with one image they do.": {
            "parts": (1, 1, 0)
        },
        "Every output number needs kernel * kernel products for every input channel;"
        " you count one row of the window.": {"window": 1},
        "side is the length of a side: an image has side * side places in every channel.": {
            "area": 1
        },
        "kernel is the length of a side: there are kernel * kernel weights"
        " for every pair of channels.": {"square": 1},
        "The output is smaller here, as without padding. It has the same sides as the input.": {
            "outputs": lambda side, kernel: side - kernel + 1
        },
        "Only the memory counts here. Large layers wait for the arithmetic.": {"two": 0},
        "Every output number needs all input channels: `before` is missing in the operations.": {
            "channels": lambda before, after: (1, after)
        },
        "Every output channel is a sum of its own: `after` is missing in the operations.": {
            "channels": lambda before, after: (before, 1)
        },
        "The operations of one image are counted, not those of n.": {"images": False},
        "Only the arithmetic counts here. Small layers wait for the memory.": {"parts": (0, 0, 0)},
    },
)


@layer_floor.mistake("The weights are read once, not once for every image.")
def _(*args):
    return _floor(*args, parts=(1, 1, args[0]))


@layer_floor.mistake("Bandwidth is in bytes: multiply the numbers that are moved by size.")
def _(*args):
    return _floor(*args, unit=1 / args[5])


# ------------------------------------------------------------------------ 6. which batch and rate?
# inputs
def _search(kind):
    """Validation accuracies of a search, which most ways to read the table get wrong.

    One batch is most accurate, one is within the tolerance and faster, one is fastest and far
    behind; all others are within, and slower. Each has a best rate of its own, a rate with one
    lucky seed and, where it would be the best, one with a run that broke off. The batch to take
    has a second rate within the tolerance.

    kind: where the rate to take stands. inside: has neighbours; first: has none below, and the
    fastest batch broke off at every rate; last: has none above; beside: its neighbour is the last
    one, and broke off; none: no tolerance, so that only the best will do, by a
    ten-thousandth.
    """

    def draw(generator):
        # Many seeds, so that one run at 0 would not lower a mean by much.
        seeds = whole(generator, 7, 9)
        batches, rates = different(generator, 2, 4, 7)
        best, within, fastest, *slow = torch.randperm(batches, generator=generator).tolist()
        tolerance = uniform(generator, 0.02, 0.04)
        top = torch.full((batches,), uniform(generator, 0.72, 0.8), dtype=torch.float64)
        top[within] -= 1e-4 if kind == "none" else 0.94 * tolerance
        top[fastest] -= 1.5 * tolerance
        top[slow] -= 0.4 * tolerance
        seconds = 20 + 40 * torch.rand(batches, generator=generator, dtype=torch.float64)
        seconds[within], seconds[fastest] = uniform(generator, 9, 15), uniform(generator, 2, 6)
        # Hardly slower, and better: more accurate per second than the one to take.
        seconds[slow[0]] = 1.002 * seconds[within]
        if kind == "last":
            seconds[best] = 1.004 * seconds[within]
        # Where a batch does well at many rates, its mean over the rates is no sign of its best.
        drop = torch.full((batches,), 0.1, dtype=torch.float64)
        drop[[within, slow[0]] if kind == "beside" else within] = 0.3

        noise = torch.rand(batches, rates, seeds, generator=generator, dtype=torch.float64)
        noise = 0.02 * (noise - noise.mean(2, keepdim=True))
        accuracy = noise + (top - drop)[:, None, None]
        taken = best if kind == "none" else within
        for row in range(batches):
            column, lucky, broken, near = different(generator, 4, 0, rates)
            if row == taken:
                place = {"first": 0, "last": rates - 1, "beside": rates - 2}
                column = place.get(kind, whole(generator, 1, rates - 1))
                others = [k for k in range(rates) if k != column]
                picked = different(generator, 3, 0, rates - 1)
                lucky, broken, near = (others[k] for k in picked)
                if kind == "beside":
                    broken = rates - 1
                    lucky, near = different(generator, 2, 0, rates - 2)
            accuracy[row, column] += drop[row]
            if row == within:
                accuracy[row, near] += drop[row] - 0.03 * tolerance
            # One unlucky run, with the mean as it was: no median and no minimum says what it is.
            unlucky = {within: 0.1, fastest: 0.3}.get(row, 0.0)
            accuracy[row, column] += unlucky / (seeds - 1)
            accuracy[row, column, whole(generator, 0, seeds)] -= unlucky * seeds / (seeds - 1)
            accuracy[row, lucky, whole(generator, 0, seeds)] += drop[row] + 0.1
            accuracy[row, broken] = 0.99
            accuracy[row, broken, whole(generator, 0, seeds)] = torch.nan
        if kind == "first":
            lost = [whole(generator, 0, seeds) for _ in range(rates)]
            accuracy[fastest, range(rates), lost] = torch.nan
        return accuracy, seconds, 0.0 if kind == "none" else tolerance

    return draw


def _choice(answer, accuracy, seconds, tolerance):
    """The answer's three parts by name, as plain numbers."""
    got = answer(accuracy, seconds, tolerance)
    expect(isinstance(got, tuple | list) and len(got) == 3, "(batch, rate, done)", got)
    batch, rate, done = got
    return {"batch": int(batch), "rate": int(rate), "done": bool(done)}


# reference
@exercise(
    [_search(kind) for kind in ("inside", "first", "last", "beside", "none")],
    points=2,
    call=_choice,
    grad=False,
    device=False,
    hints=(
        (
            "Cover all batches but one. Which rate would you take there, and would you take one at"
            " which a run of five broke off?"
        ),
        (
            "First the mean over seeds, with rates that broke off out. Then the best rate of each"
            " batch. Then the batches near the best one, and the fastest of these. Last, the place"
            " of its rate in the grid."
        ),
        (
            "`mean = torch.where(mean.isnan(), -torch.inf, mean)` and `best, rate = mean.max(1)`;"
            " batches with `best >= best.max() - tolerance` may be taken."
        ),
    ),
)
def choose_run(accuracy, seconds, tolerance):
    """(batch, rate, done): what to take from a table of trials.

    accuracy: validation accuracies [B, R, S] of B batches, R
    rates in rising order, S seeds; nan where a run broke off.
    seconds [B]: how long a run takes with each batch.
    A rate at which a run broke off is out. A batch is worth its
    best rate's mean over the seeds. Take the fastest batch that
    is at most tolerance below the best batch, and its best rate.
    batch, rate: their places in the table. done: False if the
    rate is the first or last that was tried, broken or not.
    """
    ### BEGIN SOLUTION
    mean = accuracy.mean(2)
    mean = torch.where(mean.isnan(), -torch.inf, mean)
    best, rate = mean.max(1)
    able = best >= best.max() - tolerance
    batch = torch.where(able, seconds, torch.inf).argmin()
    column = rate[batch]
    return batch, column, 0 < column < accuracy.shape[1] - 1
    ### END SOLUTION


# laws
@choose_run.law("seeds in another order, and milliseconds for seconds, change nothing")
def _(answer, accuracy, seconds, tolerance):
    turned = accuracy.flip(2), 1000 * seconds, tolerance
    return _choice(answer, *turned) == _choice(answer, accuracy, seconds, tolerance)


@choose_run.law("batches in another order give the same batch")
def _(answer, accuracy, seconds, tolerance):
    one = _choice(answer, accuracy, seconds, tolerance)
    other = _choice(answer, accuracy.flip(0), seconds.flip(0), tolerance)
    return other == {**one, "batch": len(seconds) - 1 - one["batch"]}


@choose_run.law("leaves the table as it is")
def _(answer, accuracy, seconds, tolerance):
    before = accuracy.clone(), seconds.clone()
    answer(accuracy, seconds, tolerance)
    return torch.equal(before[0].nan_to_num(-1), accuracy.nan_to_num(-1)) and torch.equal(
        before[1], seconds
    )


# mistakes
def _out(accuracy):
    """Mean over seeds, where no run broke off."""
    mean = accuracy.mean(2)
    return torch.where(mean.isnan(), -torch.inf, mean)


def _taken(
    accuracy,
    seconds,
    tolerance,
    judge=_out,
    limit=lambda best, tolerance: best.max() - tolerance,
    cost=lambda seconds: seconds,
    done=lambda column, row: 0 < column < len(row) - 1,
):
    """The choice with one thing changed."""
    mean = judge(accuracy)
    best, rate = mean.max(1)
    able = best >= limit(best, tolerance)
    batch = int(torch.where(able, cost(seconds), torch.inf).argmin())
    column = int(rate[batch])
    return batch, column, done(column, mean[batch])


choose_run.variants(
    _taken,
    {
        "Runs that broke off are left out of the mean, so that the rate passes on its lucky seeds."
        " A rate at which any run broke off is out.": {
            "judge": lambda accuracy: accuracy.nanmean(2).nan_to_num(-torch.inf)
        },
        "The best single run decides. One lucky seed is no reason: take the mean over the seeds.": {
            "judge": lambda accuracy: torch.where(
                accuracy.mean(2).isnan(), -torch.inf, accuracy.nan_to_num(-1).amax(2)
            )
        },
        "A run that broke off counts as an accuracy of 0, so that its rate may still be taken"
        " where nothing else is near. It is out.": {
            "judge": lambda accuracy: accuracy.nan_to_num(0.0).mean(2)
        },
        "The most accurate batch is taken, whatever it costs."
        " Within the tolerance the fastest is.": {"limit": lambda best, tolerance: best.max()},
        "The fastest batch is taken, however far behind it is:"
        " it must be within the tolerance.": {
            "limit": lambda best, tolerance: best[best > -torch.inf].min()
        },
        "The tolerance is taken as a share of the best accuracy. It is a difference.": {
            "limit": lambda best, tolerance: best.max() * (1 - tolerance)
        },
        "The largest batch within the tolerance is taken, the last in the table."
        " What counts is the seconds that it takes.": {
            "cost": lambda seconds: -torch.arange(len(seconds), dtype=seconds.dtype)
        },
        "done is False at both ends of the grid: at the lowest rate, too, what lies beyond was"
        " never tried.": {"done": lambda column, row: column < len(row) - 1},
        "done is False at both ends of the grid: at the highest rate, too, what lies beyond was"
        " never tried.": {"done": lambda column, row: column > 0},
        "done is turned round: True means that the rate has a neighbour on both sides.": {
            "done": lambda column, row: not 0 < column < len(row) - 1
        },
        "A neighbour that broke off was tried: it says that higher rates are too high."
        " Only the first and the last place of the grid leave the search open.": {
            "done": lambda column, row: (
                0 < column < len(row) - 1 and bool(row[column - 1 : column + 2].isfinite().all())
            )
        },
    },
)


@choose_run.mistake(
    "One rate serves all batches, the one that is best for the most accurate batch."
    " Each batch has a best rate of its own."
)
def _(accuracy, seconds, tolerance):
    mean = _out(accuracy)
    column = int(mean.amax(0).argmax())
    best = mean[:, column]
    able = best >= best.max() - tolerance
    batch = int(torch.where(able, seconds, torch.inf).argmin())
    return batch, column, 0 < column < mean.shape[1] - 1


@choose_run.mistake(
    "The batch is right, but its rate is that of the most accurate batch."
    " When the batch changes, look for the rate again."
)
def _(accuracy, seconds, tolerance):
    batch, _, _ = _taken(accuracy, seconds, tolerance)
    column = int(_out(accuracy).amax(0).argmax())
    return batch, column, 0 < column < accuracy.shape[1] - 1


@choose_run.mistake(
    "nan is taken for the largest number, as argmax and max do."
    " Put something very small in its place first."
)
def _(accuracy, seconds, tolerance):
    mean = accuracy.mean(2)
    best, rate = mean.max(1)
    able = best >= best.max() - tolerance
    batch = int(torch.where(able, seconds, torch.inf).argmin())
    column = int(rate[batch])
    return batch, column, 0 < column < mean.shape[1] - 1


@choose_run.mistake("Accuracy per second decides. Within the tolerance only the seconds count.")
def _(accuracy, seconds, tolerance):
    mean = _out(accuracy)
    best, rate = mean.max(1)
    able = best >= best.max() - tolerance
    batch = int((torch.where(able, best, 0.0) / seconds).argmax())
    column = int(rate[batch])
    return batch, column, 0 < column < mean.shape[1] - 1


@choose_run.mistake(
    "A batch counts by its mean over all its rates. Nobody would use the bad ones:"
    " it is worth its best rate's mean."
)
def _(accuracy, seconds, tolerance):
    mean = _out(accuracy)
    kept = mean > -torch.inf
    worth = torch.where(kept, mean, 0.0).sum(1) / kept.sum(1)
    able = worth >= worth.nan_to_num(-torch.inf).max() - tolerance
    batch = int(torch.where(able, seconds, torch.inf).argmin())
    column = int(mean[batch].argmax())
    return batch, column, 0 < column < mean.shape[1] - 1
