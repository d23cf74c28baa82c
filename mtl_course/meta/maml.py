"""Learning to learn by gradients: adapt to a task in a few steps, and choose the start so that this
goes well.

    f = meta.Functional(model)                                    # f(params, x) instead of model(x)
    params = f.parameters()                                       # 1. initialise, shared by all tasks
    losses = meta.meta_backward(f, params, episodes, loss, steps=1, rate=0.1)      # 2. adapt to every task; the gradient to .grad
    optimizer.step()                                              # 3. meta-update
    meta.meta_losses(f, params, held_out, loss, steps=5, rate=0.1)                 # 4. validate, on tasks of other classes
    own = meta.adapt(meta.objective(f, loss), params, support, steps=5, rate=0.1)  # 5. apply to a new task

One code, one choice each:

    MAML      the defaults: the meta-gradient goes through the inner steps, which takes second derivatives
    FOMAML    first_order=True: inner gradients count as constants
    ANIL      only="head": the inner loop moves the parameters of that name, the rest is learned outside
    Meta-SGD  rate=meta.learned_rates(params, 0.1): a rate for every single parameter, learned with them

Sources: Finn, Abbeel and Levine, ICML 2017 (MAML, FOMAML); Raghu et al., ICLR 2020 (ANIL); Li et
al., 2017 (Meta-SGD); Nichol, Achiam and Schulman, 2018 (Reptile).
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from ..data.episodes import Episodes
from ..training.tasks import Task
from .functional import Functional, Params

Loss = Callable[[Tensor, Tensor], Tensor]  # (output [n, ...], targets [n, ...]) -> scalar
Objective = Callable[
    [Params, Tensor, Tensor], Tensor
]  # (parameters, x [n, ...], y [n, ...]) -> scalar
Rate = float | Tensor | Mapping[str, Tensor]


def objective(f: Functional, loss: Loss) -> Objective:
    """The loss as a function of the parameters."""
    return lambda params, x, y: loss(f(params, x), y)


def adapt(
    of: Objective,
    params: Params,
    support: tuple[Tensor, Tensor],
    steps: int,
    rate: Rate,
    *,
    first_order: bool = False,
    only: str | Sequence[str] = "",
) -> Params:
    """Parameters after `steps` steps of gradient descent on one task's `support` = (x [n, ...], y
    [n, ...]); `params` stay as they are.

    The result is a differentiable function of `params`, and of the rates if these are tensors.
    rate: a number, a scalar tensor, or name -> tensor of the parameter's shape (or a scalar).
    first_order: the inner gradients count as constants. only: names of the parts of the model that
    move, such as "head"; all of it by default. ValueError for a part or a rate that does not exist.
    It works inside `vmap`, so it looks at no
    value: whether the loop diverged is for `require_finite` to ask of what comes out.
    """
    return _adapt(
        _slopes_anywhere, of, params, support, steps, rate, first_order=first_order, only=only
    )


def _adapt(slopes_of, of, params, support, steps, rate, first_order=False, only=""):
    parts = (only,) if isinstance(only, str) else tuple(only)
    moving = {
        name: p
        for name, p in params.items()
        if any(not part or name == part or name.startswith(part + ".") for part in parts)
    }
    if not moving:
        raise ValueError(
            f"No parameter belongs to {', '.join(map(repr, parts))}; there are {', '.join(params)}."
        )
    if isinstance(rate, Mapping) and (missing := [name for name in moving if name not in rate]):
        raise ValueError(
            f"There is no rate for {', '.join(missing)}; `learned_rates` makes one for every"
            " parameter."
        )
    if steps < 0:
        raise ValueError(
            f"{steps} steps: take 0, which leaves the parameters as they are, or more."
        )
    number = isinstance(
        rate, int | float
    )  # then the loss is scaled and not the slopes: one value, and less to differentiate
    for _ in range(steps):
        with torch.set_grad_enabled(torch.is_grad_enabled() and not first_order):
            slopes = slopes_of(
                lambda own: (-rate if number else 1) * of({**params, **own}, *support), moving
            )
        moving = {
            name: p + slopes[name] if number else _stepped(p, slopes[name], rate, name)
            for name, p in moving.items()
        }
    return {**params, **moving}


def _slopes_anywhere(value_of, own):
    """By torch.func, which works inside vmap."""
    return grad(value_of)(own)


def _slopes_of_one(value_of, own):
    """The same by torch.autograd, which has less to do for every operation; for tasks that go one
    by one.
    """
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        own = {
            name: p if keep and p.requires_grad else p.detach().requires_grad_()
            for name, p in own.items()
        }
        slopes = torch.autograd.grad(
            value_of(own), list(own.values()), create_graph=keep, allow_unused=True
        )
    return {
        name: torch.zeros_like(p) if g is None else g
        for (name, p), g in zip(own.items(), slopes, strict=True)
    }


def _stepped(p, slope, rates, name):
    """p - rate * slope, in one pass over the memory."""
    rate = rates[name] if isinstance(rates, Mapping) else rates
    return (
        torch.addcmul(p, rate, slope, value=-1)
        if isinstance(rate, Tensor)
        else torch.add(p, slope, alpha=-rate)
    )


def meta_losses(
    f: Functional, params: Params, episodes: Episodes, loss: Loss, steps: int, rate: Rate, **choice
) -> Tensor:
    """Query loss [T] of each task after adapting to its support. `choice`: as for `adapt`.

    Many tasks at once (vmap) or one by one, whichever is faster for this model on this device.
    FloatingPointError that names the task, the rate and the number of steps if an inner loop
    diverged.
    """
    of = objective(f, loss)

    at_once = min(len(episodes), f.at_once(episodes.support[0][0]))

    def one(x, y, query_x, query_y):
        return of(
            _adapt(
                _slopes_anywhere if at_once > 1 else _slopes_of_one,
                of,
                params,
                (x, y),
                steps,
                rate,
                **choice,
            ),
            query_x,
            query_y,
        )

    data = (*episodes.support, *episodes.query)
    if at_once > 1:
        losses = vmap(one, randomness="different", chunk_size=at_once)(*data)
    else:
        losses = torch.stack([one(*task) for task in zip(*data, strict=True)])
    require_finite(losses, steps, rate)
    return losses


def meta_backward(
    f: Functional, params: Params, episodes: Episodes, loss: Loss, steps: int, rate: Rate, **choice
) -> Tensor:
    """Add the gradient of the mean of `meta_losses` to ``.grad``, as ``backward()`` would; returns
    the losses [T], detached.

    Tasks go through in groups, each with a graph of its own, so the memory is that of one group (of
    one task, where they go one by one). A FloatingPointError may come after other groups' gradients
    have been written; zero them before the next step, as always.
    """
    found = []
    for part in episodes.split(f.at_once(episodes.support[0][0])):
        losses = meta_losses(f, params, part, loss, steps, rate, **choice)
        (losses.sum() / len(episodes)).backward()
        found.append(losses.detach())
    return torch.cat(found)


def mixed_losses(
    f: Functional,
    params: Params,
    episodes: Mapping[str, Episodes],
    tasks: Mapping[str, Task],
    steps: int,
    rate: Rate,
    **choice,
) -> dict[str, Tensor]:
    """Tasks of several kinds in one meta-batch, such as regressions and classifications: kind ->
    losses [T].

    The model gives a dict from kind to output (`multitask.HardSharing`), and tasks[kind].loss is
    the loss of that kind, inside and outside. ValueError for a kind without a `Task`. How losses of
    different units are added is the caller's to say: `weighting` has ways.
    """
    if unknown := [kind for kind in episodes if kind not in tasks]:
        raise ValueError(
            f"There are episodes of {', '.join(map(repr, unknown))}, but `tasks` has"
            f" {', '.join(tasks)} only: add its loss."
        )

    def loss_of(kind):
        return lambda outputs, y: tasks[kind].loss(outputs[kind], y)

    return {
        kind: meta_losses(f, params, found, loss_of(kind), steps, rate, **choice)
        for kind, found in episodes.items()
    }


def learned_rates(params: Params, start: float) -> dict[str, nn.Parameter]:
    """Meta-SGD's rates: one for each entry of each parameter, all `start`. Give their values to the
    optimizer besides the parameters.
    """
    return {name: nn.Parameter(torch.full_like(p, start)) for name, p in params.items()}


def reptile_backward(
    f: Functional, params: Params, episodes: Episodes, loss: Loss, steps: int, rate: Rate
) -> Tensor:
    """Reptile: add (start - mean over tasks of the adapted parameters) to ``.grad``; returns the
    query losses [T] after adaptation.

    No derivative goes through the inner loop. Plain SGD with a rate of 1 moves the start to the
    mean; the paper's step size is that rate.
    """
    of = objective(f, loss)

    at_once = f.at_once(episodes.support[0][0])

    def one(x, y, query_x, query_y):
        own = _adapt(
            _slopes_anywhere if at_once > 1 else _slopes_of_one, of, params, (x, y), steps, rate
        )
        return own, of(own, query_x, query_y)

    away, found = {name: torch.zeros_like(p) for name, p in params.items()}, []
    with torch.no_grad():  # the inner gradients count as constants
        for part in episodes.split(at_once):
            data = (*part.support, *part.query)
            if at_once > 1:
                adapted, losses = vmap(one, randomness="different")(*data)
            else:
                adapted, losses = one(*(x[0] for x in data))
                adapted, losses = {name: own[None] for name, own in adapted.items()}, losses[None]
            for name, p in params.items():
                away[name] += (p - adapted[name]).sum(0) / len(episodes)
            found.append(losses)
        losses = torch.cat(found)
        require_finite(losses, steps, rate)
        for name, p in params.items():
            p.grad = away[name] if p.grad is None else p.grad + away[name]
    return losses


def require_finite(values: Tensor, steps: int, rate: Rate) -> None:
    """FloatingPointError that names the rate if what came of the inner loops, values [T, ...], is
    not finite in one of the T tasks.
    """
    bad = (
        (~torch.isfinite(values.detach()))
        .reshape(len(values), -1)
        .any(1)
        .nonzero()
        .flatten()
        .tolist()
    )
    if bad:
        shown = "its learned rates" if isinstance(rate, Mapping) else f"a rate of {rate:g}"
        raise FloatingPointError(
            f"The inner loop diverged in {len(bad)} of {len(values)} tasks (first: number {bad[0]})"
            f" with {shown} and {steps} steps. Lower the rate, or take fewer steps; look for inputs"
            " that are not finite."
        )
