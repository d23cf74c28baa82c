"""One backward pass for a shared trunk and its task heads, with the trunk's gradient balanced
between the tasks.

With features z = trunk(x) and task losses L_t(head_t(z)), the gradient of task t for the trunk is
g_t = (dz/dtheta)^T dL_t/dz. One backward pass of the sum of the losses, through T detached aliases
of z, yields every head's gradient and every dL_t/dz. Only then the trunk is walked, T times for the
T gradients, and their Gram matrix is summed layer by layer. The heads never enter the balancing,
and no graph is left for the caller to retain.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..training.graphs import has_looped


@dataclass(frozen=True)
class Balanced:
    """What `balanced_backward` did: task names, detached losses [T], Gram matrix [T, T] and weights
    [T] (float64, CPU).
    """

    tasks: tuple[str, ...]
    losses: Tensor
    gram: Tensor
    weights: Tensor


def balanced_backward(
    features: Tensor,
    task_losses: Mapping[str, Callable[[Tensor], Tensor | None]],
    shared: Iterable[nn.Parameter],
    weigh: Callable[[Tensor], Tensor],
    *,
    approximate: bool = False,
    scaler: torch.amp.GradScaler | None = None,
) -> Balanced:
    """Write the head gradients and the balanced trunk gradient into ``.grad``, as
    ``loss.backward()`` would (they accumulate).

    features: z = trunk(x), of any shape, with its graph.
    task_losses: task name -> function from features to that task's scalar loss, or to None if the
        batch has no label for it.
    shared: the trunk's parameters. weigh: Gram matrix [T, T] -> weights [T], such as
        `balancing.upgrad`.
    approximate: take the Gram matrix of dL_t/dz instead of the trunk's gradients. One trunk pass in
        all instead of T, but what is
        balanced then is the conflict at the features: two tasks that agree there may still disagree
        in the parameters.
    scaler: for float16; losses are scaled, and the weights do not see the scale.

    Raises ValueError, with no gradient written, if a loss is not finite (it names the task), not a
    scalar, or no task has a loss; with the heads' gradients written and none for the trunk, if a
    task's gradient is not finite, or `weigh` does not give T finite weights.
    """
    aliases, losses = _losses(features, task_losses)
    stacked = torch.stack([loss.detach() for loss in losses.values()])
    _require_finite(tuple(losses), stacked)
    shared = [p for p in shared if p.requires_grad]
    scale = 1.0 if scaler is None else scaler.get_scale()
    # Forward passes want the caller's autocast; sums of gradients and the Gram matrix want full
    # precision.
    with torch.autocast(features.device.type, enabled=False):
        total = torch.stack(tuple(losses.values())).sum()
        (total if scaler is None else scaler.scale(total)).backward()
        cotangents = torch.stack(
            [torch.zeros_like(z) if z.grad is None else z.grad for z in aliases]
        )
        del aliases, total  # the gradients of all tasks come next: the peak of the memory
        if approximate:
            G = _gram([cotangents], scale)
            w = _weights(weigh, G, tuple(losses), scaler)
            combined = torch.autograd.grad(
                features,
                shared,
                torch.tensordot(w.to(cotangents), cotangents, 1),
                allow_unused=True,
            )
        else:
            layers = _trunk_gradients(features, shared, cotangents)
            G = _gram([g for g in layers if g is not None], scale)
            w = _weights(weigh, G, tuple(losses), scaler)
            combined = [None if g is None else torch.tensordot(w.to(g), g, 1) for g in layers]
        for parameter, gradient in zip(shared, combined, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
    return Balanced(tuple(losses), stacked, G, w)


def _losses(features, task_losses):
    """A detached alias of the features for each task that has a loss, and that loss."""
    aliases, losses = [], {}
    for name, loss_of in task_losses.items():
        alias = features.detach().requires_grad_()
        loss = loss_of(alias)
        if loss is None:
            continue
        if loss.ndim:
            raise ValueError(
                f"The loss of task {name!r} has shape {tuple(loss.shape)}; reduce it to a scalar,"
                " with .mean() for instance."
            )
        aliases.append(alias)
        losses[name] = loss
    if not losses:
        raise ValueError(
            "No task has a loss in this batch; skip the step, or give the batch a label."
        )
    return aliases, losses


def _require_finite(names, losses):
    bad = [name for name, ok in zip(names, torch.isfinite(losses).tolist(), strict=True) if not ok]
    if bad:
        raise ValueError(
            f"The loss of task {', '.join(map(repr, bad))} is not finite; no gradient was written."
            " Look at its inputs and rate."
        )


def _trunk_gradients(features, shared, cotangents):
    """For each shared parameter the T task gradients, stacked: [T, *shape], or None if the features
    do not depend on it.
    """
    tasks, group = len(cotangents), _group(features, len(cotangents))
    if (
        group == 1
        # as lists: with one buffer for all, glibc hands the memory between two passes back and pages it
        # in anew
    ):
        each = [
            torch.autograd.grad(features, shared, v, retain_graph=t < tasks - 1, allow_unused=True)
            for t, v in enumerate(cotangents)
        ]
        return [
            None if layer[0] is None else torch.stack(layer) for layer in zip(*each, strict=True)
        ]
    if group == tasks:
        return torch.autograd.grad(
            features, shared, cotangents, is_grads_batched=True, allow_unused=True
        )
    layers = [None] * len(shared)
    for start in range(0, tasks, group):
        rows = slice(start, min(start + group, tasks))
        found = torch.autograd.grad(
            features,
            shared,
            cotangents[rows],
            retain_graph=rows.stop < tasks,
            is_grads_batched=True,
            allow_unused=True,
        )
        for k, g in enumerate(found):
            if g is not None:
                layers[k] = g.new_empty(tasks, *shared[k].shape) if layers[k] is None else layers[k]
                layers[k][rows] = g
    return layers


def _group(features, tasks) -> int:
    """How many tasks go through the trunk in one pass. Small groups of many tasks are as fast on a
    CPU, and need much less memory.
    """
    if has_looped(features.grad_fn):
        return 1
    return 4 if features.device.type == "cpu" and tasks > 8 else tasks


def _gram(layers, scale):
    """Sum over layers of the Gram matrices of [T, ...] gradients that were multiplied by `scale`;
    float64, on the CPU.
    """
    G = sum(
        (flat @ flat.T).double()
        for flat in (
            layer.flatten(1).to(torch.promote_types(layer.dtype, torch.float32)) for layer in layers
        )
    )
    return (G / scale**2).cpu()


def _weights(weigh, G, names, scaler):
    """Weights of the method. Under a scaler an overflow is no error: equal weights pass it on, and
    the scaler skips the step.
    """
    if not torch.isfinite(G).all():
        if scaler is not None:
            return torch.ones(len(G), dtype=torch.float64)
        bad = [
            name
            for name, ok in zip(names, torch.isfinite(G.diagonal()).tolist(), strict=True)
            if not ok
        ] or names
        raise ValueError(
            f"The gradient of task {', '.join(map(repr, bad))} is not finite, though its loss is."
            " Look for sqrt(0), log(0) or 0/0."
        )
    w = torch.as_tensor(weigh(G), dtype=torch.float64, device="cpu")
    if w.shape != (len(G),) or not torch.isfinite(w).all():
        method = getattr(weigh, "__name__", type(weigh).__name__)
        raise ValueError(
            f"{method} gave {w.tolist()} for the tasks {', '.join(names)}; it must return one"
            f" finite weight for each, [{len(G)}]."
        )
    return w
