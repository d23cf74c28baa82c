"""The step of `maml.adapt` for many tasks at once, faster, to the same values.

The plain step spends its time on memory. After it every task has weights of its own, and for 16
tasks and a million weights that is 64 MB to write, to read and to write the gradients of, while the
arithmetic of a joint step reads four. Three things help:

1. Tasks go through together, by vmap. Tasks that must go one by one use `torch.autograd`, which has
   less to do per operation.
2. The loss is scaled by minus the rate. Its gradients then are the steps, and ``p + step`` is one
   pass over the memory where ``p - rate * g`` is two.
3. The step of a linear layer's weight is not formed where it is thin. On n examples with inputs X
   [n, in] it is ``D^T X``, where D [n, out] is the step of the layer's outputs: a matrix of rank n.
   The stepped layer is ``x (W + D^T X)^T = x W^T + (x X^T) D``: one product with the W of all
   tasks, and two small ones.

`tests/meta/test_fast.py` holds every path equal to `maml.adapt`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad, vmap

from ..data.episodes import Episodes
from .functional import Functional, Params


def over_tasks(
    one: Callable[..., tuple[Tensor, ...]], episodes: Episodes, at_once: int
) -> tuple[Tensor, ...]:
    """What ``one(x, y, query_x, query_y)`` gives for each of T tasks, stacked to [T, ...].

    So many tasks go `at_once`, by vmap; 1 is a plain loop.
    """
    tasks = (*episodes.support, *episodes.query)
    if at_once > 1:
        return vmap(one, randomness="different", chunk_size=at_once)(*tasks)
    results = [one(*task) for task in zip(*tasks, strict=True)]
    return tuple(torch.stack(same) for same in zip(*results, strict=True))


def adapted(
    objective: Callable[..., Tensor],
    params: Params,
    names: Sequence[str],
    support: tuple[Tensor, Tensor],
    steps: int,
    rate,
    first_order: bool = False,
    at_once: int = 2,
) -> Params:
    """What `maml.adapt` gives, where the parameters of these `names` move."""
    gradients = _by_func if at_once > 1 else _by_autograd
    moving = {name: params[name] for name in names}
    for _ in range(steps):
        with torch.set_grad_enabled(torch.is_grad_enabled() and not first_order):
            slopes = gradients(
                lambda moving: _scale(rate) * objective({**params, **moving}, *support), moving
            )
        moving = {name: _stepped(p, slopes[name], rate, name) for name, p in moving.items()}
    return {**params, **moving}


# -------------------------------------------------------------------------------- thin linear steps
class Thin(NamedTuple):
    """A linear layer whose step is kept as two factors."""

    name: str
    weight: str
    bias: str | None
    tap: Tensor
    """Zeros [rows, out] that are added to the layer's output, to take its gradient by."""


def thin_layers(
    f: Functional, params: Params, names: Sequence[str], x: Tensor, steps: int, rate
) -> list[Thin]:
    """Layers of which `steps` steps on one task's inputs x [n, ...] are cheaper as two factors."""
    if isinstance(rate, Mapping) or not steps:
        return []
    thin = []
    for name, rows in f.plain_linear(x).items():
        weight, bias = (f"{name}.{kind}".lstrip(".") for kind in ("weight", "bias"))
        bias = bias if bias in params else None
        if {weight, bias} - {None} <= set(names):
            out, inputs = params[weight].shape
            # Products per query with the two factors, against the entries of a weight per task.
            if steps * rows * (inputs + out) <= inputs * out:
                tap = params[weight].new_zeros(rows, out)
                thin.append(Thin(name, weight, bias, tap))
    return thin


def query_loss(
    f: Functional,
    loss: Callable[[Tensor, Tensor], Tensor],
    params: Params,
    names: Sequence[str],
    thin: Sequence[Thin],
    task: tuple[Tensor, Tensor, Tensor, Tensor],
    steps: int,
    rate,
    first_order: bool,
) -> Tensor:
    """The loss on the task's queries after `steps` steps on its support, inside vmap."""
    x, y, query, truth = task
    factored = {name for layer in thin for name in (layer.weight, layer.bias)}
    moving = {name: params[name] for name in names if name not in factored}
    taps = {layer.name: layer.tap for layer in thin}
    factors: dict[str, tuple[Tensor, Tensor]] = {}

    def stepped(layer: Thin, x: Tensor) -> Tensor:
        """What the steps so far add to the layer's output for x [q, in]: [q, out]."""
        inputs, outputs = factors[layer.name]
        products = x @ inputs.mT
        # The step of the bias is the sum of the outputs' steps: a column of ones in x and X.
        return (products if layer.bias is None else products + 1) @ outputs

    def support_loss(moving: Params, taps: dict[str, Tensor]):
        inputs = {}

        def tapped(x: Tensor, layer: Thin) -> Tensor:
            inputs[layer.name] = x
            tap = taps[layer.name]
            return stepped(layer, x) + tap if factors else tap

        with f.shifted({layer.name: lambda x, layer=layer: tapped(x, layer) for layer in thin}):
            return _scale(rate) * loss(f({**params, **moving}, x), y), inputs

    for _ in range(steps):
        with torch.set_grad_enabled(torch.is_grad_enabled() and not first_order):
            gradients = grad(support_loss, argnums=(0, 1), has_aux=True)(moving, taps)
            (slopes, outputs), inputs = gradients
        moving = {name: _stepped(p, slopes[name], rate, name) for name, p in moving.items()}
        if isinstance(rate, Tensor):
            outputs = {name: -rate * step for name, step in outputs.items()}
        for name in taps:
            new = inputs[name], outputs[name]
            if name in factors:
                new = tuple(torch.cat(pair) for pair in zip(factors[name], new, strict=True))
            factors[name] = new
    shifts = {layer.name: lambda x, layer=layer: stepped(layer, x) for layer in thin}
    with f.shifted(shifts):
        return loss(f({**params, **moving}, query), truth)


# --------------------------------------------------------------------------------- gradients, steps
def _by_func(value: Callable[[Params], Tensor], moving: Params) -> Params:
    """By torch.func, which works inside vmap."""
    return grad(value)(moving)


def _by_autograd(value: Callable[[Params], Tensor], moving: Params) -> Params:
    """The same by torch.autograd; zeros for a parameter that the value does not depend on."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        moving = {
            name: p if create_graph and p.requires_grad else p.detach().requires_grad_()
            for name, p in moving.items()
        }
        slopes = torch.autograd.grad(
            value(moving), list(moving.values()), create_graph=create_graph, allow_unused=True
        )
    return {
        name: torch.zeros_like(p) if slope is None else slope
        for (name, p), slope in zip(moving.items(), slopes, strict=True)
    }


def _scale(rate) -> float:
    """The factor of the loss by which its gradients are steps, where the rate is a number."""
    return -rate if isinstance(rate, int | float) else 1.0


def _stepped(p: Tensor, slope: Tensor, rate, name: str) -> Tensor:
    """p after its step, in one pass over the memory."""
    if isinstance(rate, int | float):
        return p + slope
    rate = rate[name] if isinstance(rate, Mapping) else rate
    if isinstance(rate, Tensor):
        return torch.addcmul(p, rate, slope, value=-1)
    return torch.add(p, slope, alpha=-rate)
