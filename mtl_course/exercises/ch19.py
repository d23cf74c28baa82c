"""Exercises of chapter 19: learning in a stream."""

import copy
import itertools
import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..checks import values
from ..checks.exercise import exercise
from .inputs import (
    LEAVES_NO_TRACE,
    different,
    filled,
    leaves_no_trace,
    shuffled,
    task_names,
    uniform,
    whole,
)
from .outcomes import named, required, scalar


# --------------------------------------------------------------------------------- 1. EWC's penalty
# inputs
def _after_a_task(new, size=1.0):
    """Parameters, anchor and Fisher diagonal of a network, three dicts in orders of their own.

    new: whether params has a tensor that came later. size: of the Fisher values, some of them 0.
    """

    def draw(generator):
        shapes = {"trunk.weight": (3, 2), "trunk.bias": (3,), "head": (3,), "offset": ()}
        anchor = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        fisher = {
            name: size * (2 * torch.rand(shape, generator=generator) + 0.1)
            for name, shape in shapes.items()
        }
        fisher["trunk.weight"][0, 0] = 0.0
        params = {name: p + torch.randn(p.shape, generator=generator) for name, p in anchor.items()}
        if new:
            # A name that begins like an old one, and the shape is the same.
            params["head.new"] = torch.randn(3, generator=generator)
            params["new.weight"] = torch.randn(2, 3, generator=generator)
        strength = uniform(generator, 1.0, 5.0)
        params, anchor, fisher = (shuffled(generator, d) for d in (params, anchor, fisher))
        if list(anchor) == list(fisher):
            fisher = shuffled(generator, fisher)
        return params, anchor, fisher, strength

    return draw


def _penalty(answer, params, anchor, fisher, strength):
    """The penalty. Gradients are asked for params only: anchor and fisher are constants."""
    given = anchor, fisher
    constants = [{name: p.detach() for name, p in tensors.items()} for tensors in given]
    penalty = answer(params, *constants, strength)
    for tensors, handed in zip(given, constants, strict=True):
        if tensors.keys() != handed.keys():  # to be seen: the inputs do not stay as they are
            tensors.clear()
            tensors.update(handed)
    return penalty


# reference
@exercise(
    [_after_a_task(True), _after_a_task(False, size=1e5), _after_a_task(True, size=1e-6)],
    points=1,
    call=_penalty,
    atol=1e-10,
    hints=(
        "Over which names does the sum go, and what is multiplied with each squared distance?",
        (
            "For each name of the anchor: Fisher value times squared distance, summed over all"
            " entries. Then half of the strength."
        ),
        (
            "`strength / 2 * sum((fisher[name] * (params[name] - anchor[name]) ** 2).sum() for"
            " name in anchor)`"
        ),
    ),
)
def ewc_penalty(params, anchor, fisher, strength):
    """The penalty of equation 5, a scalar through which
    gradients flow to params.

    params: name -> tensor, the network as it is now.
    anchor, fisher: name -> tensor of the same shape: parameters
        after the last task, and their Fisher diagonal. A name
        of params that they lack is new: it is left free.
    strength: lambda, a float.
    """
    ### BEGIN SOLUTION
    total = 0
    for name in anchor:
        gap = params[name] - anchor[name]
        total = total + (fisher[name] * gap**2).sum()
    return strength / 2 * total
    ### END SOLUTION


# laws
@ewc_penalty.law("zero at the anchor, whatever a new head is")
def _(answer, params, anchor, fisher, strength):
    return float(answer({**params, **anchor}, anchor, fisher, strength)) == 0


# mistakes
def _pull(
    params,
    anchor,
    fisher,
    strength,
    term=lambda p, a, f: f * (p - a) ** 2,
    factor=0.5,
    moving=lambda p: p,
):
    """The penalty with one thing changed."""
    return (
        factor
        * strength
        * sum(term(moving(params[name]), anchor[name], fisher[name]).sum() for name in anchor)
    )


ewc_penalty.variants(
    _pull,
    {
        "Twice too large: equation 5 has strength / 2,"
        " so that the penalty's second derivative is strength x F.": {"factor": 1.0},
        "The distance is not squared.": {"term": lambda p, a, f: f * (p - a).abs()},
        "The Fisher values are squared along with the distance:"
        " they are squared gradients already.": {"term": lambda p, a, f: (f * (p - a)) ** 2},
        "The Fisher diagonal is missing:"
        " this is L2-SP, which holds all weights equally (chapter 2).": {
            "term": lambda p, a, f: (p - a) ** 2
        },
        "The pull is towards zero, not towards the anchor: this is weight decay.": {
            "term": lambda p, a, f: f * p**2
        },
        "A mean over a tensor's entries in the place of the sum:"
        " a weight in a large tensor is then held less.": {
            "term": lambda p, a, f: (f * (p - a) ** 2).mean()
        },
        "You divide by the Fisher values: what mattered most is then the most free.": {
            "term": lambda p, a, f: (p - a) ** 2 / f
        },
        "The number is right but no gradient reaches the parameters, so nothing is held:"
        " no detach, .data or float() on them.": {"moving": torch.Tensor.detach},
        "The gradients point away from the anchor: the penalty is to be positive.": {
            "factor": -0.5
        },
    },
)


_BY_POSITION = (
    "The dicts are paired by position: they may be in different orders,"
    " and a new tensor of params may stand anywhere. Look each of them up by name."
)


@ewc_penalty.mistake(_BY_POSITION)
def _(params, anchor, fisher, strength):
    return _pull(params, anchor, dict(zip(anchor, fisher.values(), strict=True)), strength)


@ewc_penalty.mistake(_BY_POSITION)
def _(params, anchor, fisher, strength):
    total = 0
    for p, a, f in zip(params.values(), anchor.values(), fisher.values()):
        total = total + (f * (p - a) ** 2).sum()
    return strength / 2 * total


@ewc_penalty.mistake("The strength is missing.")
def _(params, anchor, fisher, strength):
    return _pull(params, anchor, fisher, 1.0)


# ----------------------------------------------------------------------------------- 2. a reservoir
# inputs
def _draws(n, size):
    def draw(generator):
        return [whole(generator, 0, t + 1) for t in range(n)], size

    return draw


def _forced(generator):
    """Draws such that both edges occur, and one slot is overwritten.

    A slot just inside, and one just outside.
    """
    return [0, 0, 1, 2, 3, 2, 1, 0, *[whole(generator, 0, t + 1) for t in range(8, 14)]], 3


# reference
@exercise(
    [_draws(30, 4), _forced, _draws(12, 6), _draws(5, 5), _draws(9, 1)],
    points=2,
    grad=False,
    device=False,
    hints=(
        "What happens to item t if its draw is a slot, and what if it is not?",
        "The first `size` items fill the slots 0, 1, 2, ... in order, whatever their draws are.",
        "After that: if draws[t] < size then kept[draws[t]] = t, else the item is not kept.",
    ),
)
def keep_some(draws, size):
    """Algorithm R: which items of a stream are in a reservoir of
    `size` slots at its end? Return a list of `size` numbers:
    the item in slot 0, in slot 1, and so on.

    draws: list of ints; draws[t] was drawn uniformly from
        0, ..., t (t counts from 0, both ends are possible).
        The stream has len(draws) items, at least `size`.
    The first `size` items fill the slots in order, without
    looking at their draws. A later item t goes to slot
    draws[t] if there is one, in the place of the item there;
    else it is not kept.
    """
    ### BEGIN SOLUTION
    kept = list(range(size))
    for t in range(size, len(draws)):
        if draws[t] < size:
            kept[draws[t]] = t
    return kept
    ### END SOLUTION


# laws
@keep_some.law("over all possible draws, every item is kept equally often")
def _(answer, draws, size):
    counts = [0] * 5
    for possible in itertools.product(*(range(t + 1) for t in range(5))):
        for item in answer(list(possible), 2):
            counts[int(item)] += 1
    return len(set(counts)) == 1


# mistakes
def _reservoir(draws, size, slot=lambda draw, t, size: draw, first=None, last=None):
    """Algorithm R with one thing changed."""
    kept = list(range(size))
    for t in range(size if first is None else first, len(draws[:last])):
        s = slot(draws[t], t, size)
        if s < size:
            kept[s] = t
    return kept


keep_some.variants(
    _reservoir,
    {
        "Every later item is kept, in slot draws[t] modulo size:"
        " the end of the stream crowds out its beginning. Keep it only if draws[t] is a slot.": {
            "slot": lambda draw, t, size: draw % size
        },
        "A ring that keeps the latest items:"
        " that is a window, and the old tasks are gone from it.": {
            "slot": lambda draw, t, size: t % size
        },
        "The first items stay for ever: later ones must be able to replace them.": {
            "slot": lambda draw, t, size: size
        },
        "The draws are obeyed from the first item on,"
        " so that slots may stay empty or be overwritten before the reservoir is full.": {
            "first": 0
        },
        "Slots are counted from 1: draws[t] = 0 is a slot, too.": {
            "slot": lambda draw, t, size: draw - 1 if draw else size
        },
        "The last item of the stream is never offered.": {"last": -1},
    },
)


@keep_some.mistake(
    "The slot is emptied and the item put at the end: it belongs into the very slot that was drawn."
)
def _(draws, size):
    kept = list(range(size))
    for t in range(size, len(draws)):
        if draws[t] < size:
            kept.pop(draws[t])
            kept.append(t)
    return kept


# ----------------------------------------------------------------- 3. scores of the accuracy matrix
# inputs
def _matrix(T):
    def draw(generator):
        return torch.rand(T, T, generator=generator, dtype=torch.float64), torch.rand(
            T, generator=generator, dtype=torch.float64
        )

    return draw


def _four(answer, A, b):
    """The four scores by name, each as a float."""
    names = "average", "forgetting", "backward", "forward"
    return {name: scalar(value, name) for name, value in named(answer(A, b), *names).items()}


# reference
@exercise(
    [_matrix(5), _matrix(3), _matrix(2)],
    points=2,
    call=_four,
    device=False,
    grad=False,
    hints=(
        "In which row of A is a task when it was just learned, and in which just before?",
        (
            "Both transfers are means over T - 1 tasks: the last task has nothing after it, the"
            " first nothing before it."
        ),
        (
            "A[-1] is the last row, A.diagonal() is each task right after it was learned,"
            " A.diagonal(1) each task right before, to be held against b[1:]."
        ),
    ),
)
def stream_scores(A, b):
    """Four scores of a stream of T >= 2 tasks, each a scalar, in
    this order: average accuracy after the last task; forgetting
    (equation 4); backward, forward transfer (equations 2, 3).

    A: [T, T] float64; A[i, j] is the accuracy on task j after
        task i (both from 0) was learned.
    b: [T], the accuracy on each task before any training.
    """
    ### BEGIN SOLUTION
    average = A[-1].mean()
    peak = A[:-1, :-1].max(dim=0).values
    forgetting = (peak - A[-1, :-1]).mean()
    backward = (A[-1] - A.diagonal())[:-1].mean()
    forward = (A.diagonal(1) - b[1:]).mean()
    return average, forgetting, backward, forward
    ### END SOLUTION


# laws
@stream_scores.law(
    "a learner that neither forgets nor gains has no forgetting and no backward transfer"
)
def _(answer, A, b):
    still = A[:1].repeat(len(A), 1)
    _, forgetting, backward, _ = answer(still, b)
    return abs(float(forgetting)) < 1e-12 and abs(float(backward)) < 1e-12


# mistakes
def _average(A, b):
    return A[-1].mean()


def _forgetting(A, b):
    return (A[:-1, :-1].max(dim=0).values - A[-1, :-1]).mean()


def _backward(A, b):
    return (A[-1] - A.diagonal())[:-1].mean()


def _forward(A, b):
    return (A.diagonal(1) - b[1:]).mean()


def _scores(
    A, b, average=_average, forgetting=_forgetting, backward=_backward, forward=_forward, turn=False
):
    """The four scores with one of them changed."""
    return tuple(score(A.T if turn else A, b) for score in (average, forgetting, backward, forward))


stream_scores.variants(
    _scores,
    {
        "Rows and columns are exchanged: row i is what the network can do after task i.": {
            "turn": True
        },
        "Average accuracy is that after the last task:"
        " the mean of the last row, not of the whole matrix.": {"average": lambda A, b: A.mean()},
        "The mean of the diagonal is what each task reached when it was new;"
        " the average accuracy is taken at the end.": {"average": lambda A, b: A.diagonal().mean()},
        "Backward transfer is divided by T."
        " The last task has no later one, so the mean is over T - 1.": {
            "backward": lambda A, b: (A[-1] - A.diagonal()).mean()
        },
        "Backward transfer has the wrong sign:"
        " it is what the later tasks added, at the end minus when new.": {
            "backward": lambda A, b: -_backward(A, b)
        },
        "Forgetting is taken from the accuracy when the task was new."
        " Equation 4 takes the best that the task ever had before the end, in any row.": {
            "forgetting": lambda A, b: -_backward(A, b)
        },
        "Forgetting can never be negative here: it is cut at 0,"
        " or the best accuracy is looked for in the last row, too. Leave that row out.": {
            "forgetting": lambda A, b: (A[:, :-1].max(dim=0).values - A[-1, :-1]).mean()
        },
        "Forgetting counts the last task, too; nothing has come after it.": {
            "forgetting": lambda A, b: (A[:-1].max(dim=0).values - A[-1]).mean()
        },
        "Forgetting has the wrong sign: the best before the end, minus the end.": {
            "forgetting": lambda A, b: -_forgetting(A, b)
        },
        "Forward transfer is taken after the task was learned."
        " It is about a task not seen yet: row i - 1, column i.": {
            "forward": lambda A, b: (A.diagonal() - b)[1:].mean()
        },
        "Forward transfer reads below the diagonal, a task that was learned before;"
        " it is the line above the diagonal, A.diagonal(1).": {
            "forward": lambda A, b: (A.diagonal(-1) - b[1:]).mean()
        },
        "Forward transfer compares with the wrong task's start: A[i - 1, i] goes with b[i].": {
            "forward": lambda A, b: (A.diagonal(1) - b[:-1]).mean()
        },
        "Forward transfer lacks the start:"
        " subtract b, what a network can do without any training.": {
            "forward": lambda A, b: A.diagonal(1).mean()
        },
    },
)


@stream_scores.mistake(
    "Backward and forward transfer are exchanged. Backward: what later tasks did to those learned"
    " before; forward: what a task got from those before it. Backward comes first."
)
def _(A, b):
    return _average(A, b), _forgetting(A, b), _forward(A, b), _backward(A, b)


@stream_scores.mistake(
    "The best accuracy is looked for only from the row on in which the task was learned."
    " Equation 4 takes every row before the last."
)
def _(A, b):
    best = torch.stack([A[j:-1, j].max() for j in range(len(A) - 1)])
    return _average(A, b), (best - A[-1, :-1]).mean(), _backward(A, b), _forward(A, b)


# -------------------------------------------------------------------- 4. distillation: spot the bug
# inputs
def _new_task(rows, hidden=None, sure=False):
    """A network, images of a new task, and the number of old classes; layers lie two deep.

    sure: whether the network rules an old class out, so that its probability rounds to 0.
    """

    def draw(generator):
        d, old, new = 2, *different(generator, 2, 2, 5)
        model = nn.Linear(d, old + new)
        if hidden is not None:
            trunk = nn.Sequential(nn.Linear(d, hidden), nn.Tanh())
            model = nn.Sequential(trunk, nn.Linear(hidden, old + new))
        model = filled(model, generator).double()
        if sure:
            list(model.parameters())[-1].data[0] = -4000.0
        x = torch.randn(rows, d, generator=generator, dtype=torch.float64)
        y = old + torch.randint(new, (rows,), generator=generator)
        return model, x, y, old, whole(generator, 2, 4), uniform(generator, 0.2, 0.3)

    return draw


def _trained(answer, model, x, y, old_classes, steps, rate):
    """The parameters that the answer trains to."""
    model = copy.deepcopy(model)
    returned = answer(model, x, y, old_classes, steps, rate)
    return {
        "the model that was given is returned": returned is model,
        "its parameters": {name: p.detach().clone() for name, p in model.named_parameters()},
        "it can be trained further": model.training
        and all(p.requires_grad for p in model.parameters()),
    }


# reference
def _moving(model, x, y, old_classes, steps, rate):
    """Learning without forgetting: `steps` steps of gradient
    descent at `rate`, in place; return the model.

    x [n, d], y [n]: the new task. The loss is the cross-entropy
    of all logits, plus, for the first `old_classes` of them, 4
    times the cross-entropy at temperature 2 with the outputs of
    the network as it was before the first step.
    """
    old = model
    for _ in range(steps):
        target = (old(x)[:, :old_classes] / 2).softmax(dim=1).detach()
        logits = model(x)
        held = (logits[:, :old_classes] / 2).log_softmax(dim=1)
        loss = nn.functional.cross_entropy(logits, y)
        loss = loss - 4 * (target * held).sum(dim=1).mean()
        grads = torch.autograd.grad(loss, list(model.parameters()))
        for p, g in zip(model.parameters(), grads):
            p.data -= rate * g
    return model


@exercise(
    [_new_task(4), _new_task(1, hidden=3), _new_task(3, sure=True)],
    points=2,
    call=_trained,
    grad=False,
    device=False,
    starter=_moving,
    rtol=1e-6,
    atol=1e-9,
    hints=(
        (
            "How far is the target from the model's own output, at the second step? What is it"
            " held to?"
        ),
        (
            "An assignment copies no network: both names are one model, which moves. Its outputs"
            " must be those of the start."
        ),
        (
            "Compute the targets once, before the loop: (model(x)[:, :old_classes] /"
            " 2).softmax(dim=1).detach(). Or keep copy.deepcopy(model)."
        ),
    ),
)
def lwf_steps(model, x, y, old_classes, steps, rate):
    target = (model(x)[:, :old_classes] / 2).softmax(dim=1).detach()
    for _ in range(steps):
        logits = model(x)
        held = (logits[:, :old_classes] / 2).log_softmax(dim=1)
        loss = nn.functional.cross_entropy(logits, y)
        loss = loss - 4 * (target * held).sum(dim=1).mean()
        grads = torch.autograd.grad(loss, list(model.parameters()))
        for p, g in zip(model.parameters(), grads):
            p.data -= rate * g
    return model


# mistakes
def _descend(model, loss, rate):
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    for p, gradient in zip(model.parameters(), gradients, strict=True):
        p.data -= rate * gradient


def _soft(logits, T=2.0):
    return F.softmax(logits / T, dim=1)


def _cross_entropy(target, logits, T=2.0):
    return -(target * F.log_softmax(logits / T, dim=1)).sum(dim=1).mean()


def _held_to(target, model, x, y, steps, rate, factor=4.0, T=2.0):
    """Steps on the new task that hold the first logits to a target."""
    target = target.detach()
    for _ in range(steps):
        logits = model(x)
        held = _cross_entropy(target, logits[:, : target.shape[1]], T)
        _descend(model, F.cross_entropy(logits, y) + factor * held, rate)
    return model


@lwf_steps.mistake(
    "The target moves along (`old` is another name of the model, or a copy that is taken anew in"
    " every step), so each step is held to where it is already: all that is left is fine-tuning."
)
def _(model, x, y, old_classes, steps, rate):
    return _moving(model, x, y, old_classes, steps, rate)


@lwf_steps.mistake(
    "The target is the moving network, and gradients flow through it, too:"
    " it has to be the network before the first step, as a constant."
)
def _(model, x, y, old_classes, steps, rate):
    for _ in range(steps):
        logits = model(x)
        held = _cross_entropy(_soft(logits[:, :old_classes]), logits[:, :old_classes])
        _descend(model, F.cross_entropy(logits, y) + 4 * held, rate)
    return model


@lwf_steps.mistake(
    "The copy is taken after the first step; that step has moved the old outputs already."
)
def _(model, x, y, old_classes, steps, rate):
    model = _held_to(_soft(model(x)[:, :old_classes]), model, x, y, 1, rate)
    return _held_to(_soft(model(x)[:, :old_classes]), model, x, y, steps - 1, rate)


@lwf_steps.mistake(
    "The old network is copied, but the factor 4, the temperature squared, is gone:"
    " at temperature 2 gradients are about four times smaller."
)
def _(model, x, y, old_classes, steps, rate):
    target = _soft(model(x)[:, :old_classes])
    return _held_to(target, model, x, y, steps, rate, factor=1.0)


@lwf_steps.mistake(
    "Where the old network rules a class out, its probability rounds to 0, and 0 times the log of 0"
    " is no number: take the logarithm and the softmax in one, as `log_softmax` does."
)
def _(model, x, y, old_classes, steps, rate):
    target = _soft(model(x)[:, :old_classes]).detach()
    for _ in range(steps):
        logits = model(x)
        held = -(target * _soft(logits[:, :old_classes]).log()).sum(dim=1).mean()
        _descend(model, F.cross_entropy(logits, y) + 4 * held, rate)
    return model


@lwf_steps.mistake("Target and output have temperature 1: divide both logits by T = 2.")
def _(model, x, y, old_classes, steps, rate):
    target = _soft(model(x)[:, :old_classes], T=1.0)
    return _held_to(target, model, x, y, steps, rate, T=1.0)


@lwf_steps.mistake(
    "All logits are held to the old network, the new classes' too, of which it knows nothing."
)
def _(model, x, y, old_classes, steps, rate):
    return _held_to(_soft(model(x)), model, x, y, steps, rate)


@lwf_steps.mistake(
    "The target is the old network's best guess, as a hard label:"
    " keep its probabilities, which say more."
)
def _(model, x, y, old_classes, steps, rate):
    old = model(x)[:, :old_classes]
    target = F.one_hot(old.argmax(dim=1), old_classes).to(old)
    return _held_to(target, model, x, y, steps, rate)


@lwf_steps.mistake(
    "Target and output have changed places in the cross-entropy:"
    " the old probabilities weight the logarithms of the new ones."
)
def _(model, x, y, old_classes, steps, rate):
    old = model(x)[:, :old_classes].detach()
    for _ in range(steps):
        logits = model(x)
        held = _cross_entropy(_soft(logits[:, :old_classes]), old)
        _descend(model, F.cross_entropy(logits, y) + 4 * held, rate)
    return model


@lwf_steps.mistake(
    "A mean over the old classes in the place of their sum:"
    " the cross-entropy sums over classes and averages over images."
)
def _(model, x, y, old_classes, steps, rate):
    target = _soft(model(x)[:, :old_classes])
    return _held_to(target, model, x, y, steps, rate, factor=4 / old_classes)


@lwf_steps.mistake(
    "The new task's cross-entropy leaves out the old classes' logits: it is to be over all of them."
)
def _(model, x, y, old_classes, steps, rate):
    target = _soft(model(x)[:, :old_classes]).detach()
    for _ in range(steps):
        logits = model(x)
        held = _cross_entropy(target, logits[:, :old_classes])
        new = F.cross_entropy(logits[:, old_classes:], y - old_classes)
        _descend(model, new + 4 * held, rate)
    return model


# ------------------------------------------------------------------------------ 5. judge the table
# inputs
def _results(fair=True, kept=True, odd=False):
    """A table of results, and the name of the row that is to be judged.

    fair: whether it has any fair rival. kept: whether the row keeps images at all; if not, another
    scenario's name is part of its own. odd: the row's scenario is part of another's name; the row
    and a rival have an accuracy of 0 each, and two differences that are equal, and the rival's name
    begins with the row's; another row has the very same results as the row.
    """

    def draw(generator):
        def reached(orders):
            """Accuracies of a row; what an order is worth differs a lot, and so for all rows."""
            noise = 0.02 * torch.randn(len(orders), generator=generator, dtype=torch.float64)
            pairs = zip(orders, noise.tolist(), strict=True)
            return shuffled(generator, {o: level[o] + e for o, e in pairs})

        count = whole(generator, 5, 8)
        # The second of the row's orders, which every fair rival but one ran, is number 0.
        orders = different(generator, count + 5, 1, 40)
        orders.insert(1, 0)
        level = {o: uniform(generator, 0.2, 0.9) for o in orders}
        mine, others = orders[:count], orders[count:]
        size = whole(generator, 20, 200) if kept else 0
        more = size + whole(generator, 1, 50)
        fewer = size - whole(generator, 1, 20) if kept else 0
        kinds = ("class", "task", "domain")
        asked, other = (kinds[i] for i in different(generator, 2, 0, 3))
        if odd:
            other = f"online {asked}"
        elif not kept:
            asked = f"online {other}"
        table = [
            (asked, size, mine),
            (other, more, mine),
            (asked, size, mine[1:2] + others[:4]),
            (asked, more, others[2:]),
        ]
        if kept:
            table.append((asked, fewer, mine))
        if fair:
            table += [
                (asked, size, mine[1:] + others[:2]),
                (asked, more, mine[:2] + others[3:5]),
                (asked, more, mine),
            ]
        names = task_names(generator, len(table))
        if odd:
            names[-1] = f"{names[0]}, again"
        rows = {}
        for name, (kind, images, ran) in zip(names, table, strict=True):
            # Each row has a string of its own: `is` does not do for `==`.
            row = {"scenario": f"{kind}-incremental", "kept": images, "accuracy": reached(ran)}
            rows[name] = shuffled(generator, row)
        if odd:
            same, *_, rival = names
            rows[rival]["accuracy"][mine[3]] = rows[same]["accuracy"][mine[2]] = 0.0
            for order in mine[:2]:
                rows[same]["accuracy"][order] = whole(generator, 200, 900) / 1024
                rows[rival]["accuracy"][order] = rows[same]["accuracy"][order] - 1 / 16
            rows["twin"] = copy.deepcopy(rows[same])
        return shuffled(generator, rows), names[0]

    return draw


def _found(answer, rows, name):
    """The rivals, and for each the mean and the standard error."""
    result = required(answer(rows, name))
    if not isinstance(result, dict):
        raise ValueError(f"Return a dict; yours is {values.kind(result)}.")
    gaps = {}
    for rival, pair in result.items():
        parts = named(pair, "mean", "error")
        gaps[rival] = {part: scalar(value, f"the {part}") for part, value in parts.items()}
    return {"the fair rivals": ", ".join(sorted(map(str, gaps))), "their gaps": gaps}


# reference
@exercise(
    [_results(), _results(fair=False), _results(kept=False), _results(odd=True)],
    points=3,
    call=_found,
    grad=False,
    device=False,
    hints=(
        (
            "Take each of the three conditions in turn: which row of a table would break this one"
            " alone? Is the row its own rival?"
        ),
        (
            "Go by order, not by position: list the orders of the row that the rival ran as well,"
            " and take the differences there."
        ),
        (
            "With the differences as an array: their mean, and"
            " `gap.std(ddof=1) / len(gap) ** 0.5`."
        ),
    ),
)
def fair_gaps(rows, name):
    """How far is one row of a table ahead of its fair rivals?

    rows: name -> a row, which is a dict: "scenario", a string;
        "kept", how many old images it may keep, an int;
        "accuracy", a dict: class order -> average accuracy.
    Another row is a fair rival of rows[name] if it has the same
    scenario, may keep at least as many images, and shares two
    class orders or more with it. Compare on shared orders only.
    Return a dict: fair rival -> (mean of the differences, row
    minus rival, order by order; standard error of that mean).
    """
    ### BEGIN SOLUTION
    mine, gaps = rows[name], {}
    ours = mine["accuracy"]
    for rival, row in rows.items():
        shared = [order for order in ours if order in row["accuracy"]]
        fair = (row["scenario"] == mine["scenario"]
                and row["kept"] >= mine["kept"] and len(shared) > 1)
        if fair and rival != name:
            gap = np.array([ours[order] - row["accuracy"][order]
                            for order in shared])
            gaps[rival] = gap.mean(), gap.std(ddof=1) / len(gap) ** 0.5
    return gaps
    ### END SOLUTION


# laws
@fair_gaps.law("an order that nobody else ran changes nothing")
def _(answer, rows, name):
    more = {**rows[name]["accuracy"], 99: 0.0}
    longer = {**rows, name: {**rows[name], "accuracy": more}}
    return _found(answer, longer, name) == _found(answer, rows, name)


@fair_gaps.law("of two rows that keep as many images, each is as far ahead as the other is behind")
def _(answer, rows, name):
    equal = [rival for rival in answer(rows, name) if rows[rival]["kept"] == rows[name]["kept"]]
    return all(
        np.isclose(answer(rows, rival)[name][0], -answer(rows, name)[rival][0]) for rival in equal
    )


fair_gaps.law(LEAVES_NO_TRACE)(leaves_no_trace)


# mistakes
def _error(gap, a, b):
    return gap.std(ddof=1) / len(gap) ** 0.5


def _gaps(
    rows,
    name,
    scenario=lambda mine, row: mine["scenario"] == row["scenario"],
    kept=lambda mine, row: row["kept"] >= mine["kept"],
    least=2,
    itself=False,
    pairs=lambda ours, theirs: [(ours[o], theirs[o]) for o in ours if o in theirs],
    sign=1,
    mean=lambda gap, ours, theirs: gap.mean(),
    error=_error,
):
    """The answer with one thing changed."""
    mine, gaps = rows[name], {}
    for rival, row in rows.items():
        ours, theirs = mine["accuracy"], row["accuracy"]
        shared = sum(order in theirs for order in ours)
        fair = scenario(mine, row) and kept(mine, row) and shared >= least
        if fair and (itself or rival != name):
            a, b = np.array(pairs(ours, theirs)).T
            gap = sign * (a - b)
            means = [np.mean(list(accuracies.values())) for accuracies in (ours, theirs)]
            gaps[rival] = mean(gap, *means), error(gap, a, b)
    return gaps


fair_gaps.variants(
    _gaps,
    {
        "The scenario is not looked at: a number of one scenario says nothing in the other.": {
            "scenario": lambda mine, row: True
        },
        "Two equal strings need not be one object: compare scenarios with ==, not with `is`.": {
            "scenario": lambda mine, row: mine["scenario"] is row["scenario"]
        },
        "Rivals that keep fewer images are in your table. To beat them shows what images are"
        " worth, not what the method is.": {"kept": lambda mine, row: True},
        "The memory is compared the wrong way round: a fair rival may keep as many images or"
        " more.": {"kept": lambda mine, row: row["kept"] <= mine["kept"]},
        "A rival that keeps exactly as many images is fair: it is the control of the row.": {
            "kept": lambda mine, row: row["kept"] > mine["kept"]
        },
        "Only rivals with exactly as many images are there. To be behind one that keeps more is"
        " fair, too, and to be ahead of it says all the more.": {
            "kept": lambda mine, row: row["kept"] == mine["kept"]
        },
        "The row is in its own list of rivals.": {"itself": True},
        "Two shared orders are enough; you ask for more.": {"least": 3},
        "A single shared order says nothing of the spread: a fair rival shares two or more.": {
            "least": 1,
            "error": lambda gap, a, b: _error(gap, a, b) if len(gap) > 1 else math.nan,
        },
        "Another scenario's name may hold this one's, or the other way round: compare them with ==,"
        " not with `in`.": {"scenario": lambda mine, row: mine["scenario"] in row["scenario"]},
        "A row with the very same results is a rival like any other. Tell rows apart by their"
        " names, not by what is in them.": {
            "scenario": lambda mine, row: mine["scenario"] == row["scenario"] and mine != row
        },
        "Accuracies are paired by their position. Each row has its orders in another sequence, and"
        " not the same ones: go by order.": {
            "pairs": lambda ours, theirs: [*zip(ours.values(), theirs.values(), strict=False)]
        },
        "You take the shared orders, but each row's in its own sequence: the differences are not"
        " those of one order.": {
            "pairs": lambda ours, theirs: [
                *zip(
                    [ours[o] for o in ours if o in theirs],
                    [theirs[o] for o in theirs if o in ours],
                    strict=True,
                )
            ]
        },
        "An accuracy of 0 is a result, too: ask whether an order is in the dict, not whether its"
        " accuracy counts as true.": {
            "pairs": lambda ours, theirs: [
                (ours[o], theirs[o]) for o in ours if ours[o] and theirs.get(o)
            ]
        },
        "The differences have the wrong sign: the row minus its rival.": {"sign": -1},
        "The mean of each row is over all of its orders, shared or not; some orders are easier."
        " Take the shared ones.": {"mean": lambda gap, ours, theirs: ours - theirs},
        "The means are right, but the error is the standard deviation of the differences: divide"
        " by the root of their number.": {"error": lambda gap, a, b: gap.std(ddof=1)},
        "The means are right, but the error is that of unpaired rows. An order is easy or hard for"
        " both: the deviation of the differences counts.": {
            "error": lambda gap, a, b: ((a.var(ddof=1) + b.var(ddof=1)) / len(a)) ** 0.5
        },
        "The means are right, but the deviation divides by n in place of n - 1, which makes few"
        " orders look surer than they are.": {
            "error": lambda gap, a, b: gap.std() / len(gap) ** 0.5
        },
    },
)


# ----------------------------------------------------------------------- 6. recursive least squares
# inputs
def _forecaster(d, size=1.0, still=False):
    """size: of P, which is large before anything was seen. still: whether x is zero."""

    def draw(generator):
        A = torch.randn(d, d + 2, generator=generator, dtype=torch.float64)
        w, x = (torch.randn(d, generator=generator, dtype=torch.float64) for _ in range(2))
        y = float(torch.randn((), generator=generator)) + 1.0
        forgetting = uniform(generator, 0.7, 0.95)
        return w.numpy(), (size * A @ A.T / d).numpy(), (x * (not still)).numpy(), y, forgetting

    return draw


# reference
@exercise(
    [
        _forecaster(3),
        _forecaster(5),
        _forecaster(2, size=1e6),
        _forecaster(4, size=1e-6),
        _forecaster(1, size=1e8),  # what is left of P is small beside it
        _forecaster(1, still=True),
    ],
    points=3,
    call=lambda answer, *args: named(answer(*args), "w", "P"),
    atol=1e-12,
    grad=False,
    device=False,
    hints=(
        "Which product of P and x is needed three times?",
        "Px = P @ x. The gain is Px / (forgetting + x @ Px).",
        "w + gain * (y - w @ x), and (P - np.outer(gain, Px)) / forgetting.",
    ),
)
def rls_step(w, P, x, y, forgetting):
    """One example is learned by recursive least squares
    (equation 8): return the new (w, P), and leave the old ones
    as they are.

    w [d], P [d, d], x [d]: float64 arrays; y, forgetting:
    floats. P is symmetric.
    """
    ### BEGIN SOLUTION
    Px = P @ x
    gain = Px / (forgetting + x @ Px)
    w = w + gain * (y - w @ x)
    P = (P - np.outer(gain, Px)) / forgetting
    return w, P
    ### END SOLUTION


# laws
@rls_step.law("P becomes the inverse of forgetting P^-1 + x x^T")
def _(answer, w, P, x, y, forgetting):
    return np.allclose(
        answer(w, P, x, y, forgetting)[1],
        np.linalg.inv(forgetting * np.linalg.inv(P) + np.outer(x, x)),
    )


# mistakes
def _gain(P, x, forgetting):
    return P @ x / (forgetting + x @ P @ x)


def _less(P, x, gain):
    return P - np.outer(gain, P @ x)


def _rls(
    w, P, x, y, forgetting, gain=_gain, sign=1, less=_less, divide=lambda forgetting: forgetting
):
    """The step with one thing changed."""
    k = gain(P, x, forgetting)
    return w + sign * k * (y - w @ x), less(P, x, k) / divide(forgetting)


rls_step.variants(
    _rls,
    {
        "The gain has 1 in the place of the forgetting factor:"
        " right only if nothing is forgotten.": {
            "gain": lambda P, x, forgetting: _gain(P, x, 1)
        },
        "P is not divided by the forgetting factor:"
        " it shrinks for ever, and the model stops learning.": {"divide": lambda forgetting: 1},
        "P is multiplied by the forgetting factor: divide."
        " To forget is to become less certain, and P is the uncertainty.": {
            "divide": lambda forgetting: 1 / forgetting
        },
        "The error has the wrong sign: truth minus forecast.": {"sign": -1},
        "The step is along P x without the division by forgetting + x . P x: it overshoots.": {
            "gain": lambda P, x, forgetting: P @ x
        },
        "P is divided by the forgetting factor, but what the example taught is not taken off it.": {
            "less": lambda P, x, gain: P
        },
        "The outer product is of the gain with itself: one factor is the gain, the other P @ x.": {
            "less": lambda P, x, gain: P - np.outer(gain, gain)
        },
    },
)


@rls_step.mistake("This is a gradient step along x: P turns and scales it, P @ x.")
def _(w, P, x, y, forgetting):
    return w + x / (forgetting + x @ P @ x) * (y - w @ x), _rls(w, P, x, y, forgetting)[1]


@rls_step.mistake("P stays as it was: then every example counts alike for ever, old or new.")
def _(w, P, x, y, forgetting):
    return _rls(w, P, x, y, forgetting)[0], P.copy()


@rls_step.mistake(
    "w is the new one, but P was updated first and the gain taken from it:"
    " the gain belongs to the old P."
)
def _(w, P, x, y, forgetting):
    new = _rls(w, P, x, y, forgetting)[1]
    return w + _gain(new, x, forgetting) * (y - w @ x), new


@rls_step.mistake(
    "Only the second term is divided by the forgetting factor: brackets around the difference."
)
def _(w, P, x, y, forgetting):
    return (
        _rls(w, P, x, y, forgetting)[0],
        P - np.outer(_gain(P, x, forgetting), P @ x) / forgetting,
    )


@rls_step.mistake(
    "The old w and P are changed: write w = w + ..., not w += ..., and the same for P."
)
def _(w, P, x, y, forgetting):
    new_w, new_P = _rls(w, P, x, y, forgetting)
    w[:], P[:] = new_w, new_P
    return w, P
