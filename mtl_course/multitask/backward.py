"""One backward pass for a shared trunk and its task heads, with the trunk's gradient balanced
between the tasks.

With features z = trunk(x) and task losses L_t(head_t(z)), the gradient of task t for the trunk is
g_t = (dz/dtheta)^T dL_t/dz. One backward pass of the sum of the losses, through T detached aliases
of z, yields every head's gradient and every dL_t/dz. Only then is the trunk walked, T times for the
T gradients, and their Gram matrix is summed layer by layer. The heads never enter the balancing,
and no graph is left for the caller to retain.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..training.distributed import process_mean
from ..training.graphs import has_looped

# On a CPU, up to so many tasks go through a dense trunk in one pass,
AT_ONCE = 8
# and more of them in groups of so many. A group is as fast there as all together: one group's
# products already keep the processor busy. What a pass holds in between grows with the group.
GROUP = 4


@dataclass(frozen=True)
class Balanced:
    """What `balanced_backward` found, beside the gradients that it wrote.

    Args:
        tasks: names of the tasks that had a loss, in order.
        losses: [T], detached, in the type and on the device of the losses.
        gram: Gram matrix [T, T] of the task gradients, float64, on the CPU.
        weights: what the method made of it, [T], float64, on the CPU.

    Example:
        >>> theta = nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> losses = {"first": lambda z: z[0], "both": lambda z: z.sum(), "none": lambda z: None}
        >>> done = balanced_backward(theta * 1, losses, [theta], lambda G: G.new_ones(len(G)))
        >>> done.tasks, done.losses.tolist()
        (('first', 'both'), [1.0, 3.0])
        >>> done.gram.tolist(), done.weights.tolist()
        ([[1.0, 1.0], [1.0, 2.0]], [1.0, 1.0])
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
    """Write the heads' gradients and the trunk's balanced one, in place of `loss.backward()`.

    As there, they are added to what is in ``.grad``. The heads get the gradients of the plain sum.
    A loss that is not finite, not a scalar, or missing for every task leaves every ``.grad`` as it
    was. A task gradient that is not finite, or weights that are not T finite numbers, leave the
    trunk's as it was.

    With `approximate`, the Gram matrix is that of dL_t/dz instead of the trunk's gradients. That
    takes one pass through the trunk in all instead of T. What is balanced then is the conflict at
    the features: two tasks that agree there may still disagree in the parameters.

    Args:
        features: z = trunk(x), of any shape, with its graph.
        task_losses: task name -> function from features to the task's scalar loss, or to None if
            the batch has no label for it.
        shared: the trunk's parameters; those that want no gradient get none, and one that is
            named twice counts once.
        weigh: Gram matrix [T, T] (float64, CPU) -> weights [T], such as `balancing.upgrad`.
        approximate: balance at the features.
        scaler: for float16; the losses are scaled, and the weights do not see the scale.

    Returns:
        Names, losses, Gram matrix and weights of the tasks that have a loss.

    Raises:
        ValueError: a loss is not a scalar, no task has a loss, no shared parameter wants a gradient
            or the features depend on none, a head uses a shared parameter (the heads' gradients
            have been written by then), or `weigh` does not give T finite weights.
        FloatingPointError: a task's loss or gradient is not finite; names the task.

    Example:
        >>> from mtl_course.multitask import upgrad
        >>> theta = nn.Parameter(torch.zeros(3))  # a trunk of three numbers, z = theta
        >>> a, b = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
        >>> losses = {"a": lambda z: a @ z, "b": lambda z: b @ z}
        >>> done = balanced_backward(theta * 1, losses, [theta], upgrad)
        >>> done.gram.tolist()  # a and b conflict
        [[18.0, -22.0], [-22.0, 38.0]]
        >>> theta.grad  # and this conflicts with neither
        tensor([0.2924, 1.9006, 1.9006])
    """
    shared = list({id(p): p for p in shared if p.requires_grad}.values())
    scale = 1.0 if scaler is None else scaler.get_scale()
    names, values, cotangents = _heads_backward(features, task_losses, shared, scaler)
    # Forward passes want the caller's autocast; sums of gradients and the Gram matrix want full
    # precision.
    with torch.autocast(features.device.type, enabled=False):
        if approximate:
            G = _gram([cotangents], scale)
            w = _weights(weigh, G, names, scaler)
            mixed = torch.tensordot(w.to(cotangents), cotangents, 1)
            combined = torch.autograd.grad(features, shared, mixed, allow_unused=True)
            _add(shared, combined)
        else:
            layers = _trunk_gradients(features, shared, cotangents)
            G, w = _combine(layers, shared, weigh, names, scaler, scale)
    return Balanced(names, values, G, w)


def balanced_backward_in_parts(
    parts: Iterable[tuple[Tensor, Mapping[str, Callable[[Tensor], Tensor | None]]]],
    shared: Iterable[nn.Parameter],
    weigh: Callable[[Tensor], Tensor],
    *,
    scaler: torch.amp.GradScaler | None = None,
) -> Balanced:
    """`balanced_backward` for a batch in parts, on several processes or one after the other.

    The parts' gradients of each task are added, and averaged over the processes, before their Gram
    matrix is taken: a mean of Gram matrices would be that of other vectors. T gradients of the
    trunk so travel between processes, where a sum of losses needs one.

    Args:
        parts: features with their graph and task losses, as for `balanced_backward`, of one part
            after the other. Losses are such that their sum over the parts of a process, averaged
            over processes, is the loss of the batch (`training.distributed.Division`). Each part
            has the same tasks; where one has no label, the loss is a zero that depends on the
            features, ``features[:0].sum()``. A part is asked for when the one before is done.
        shared: the trunk's parameters.
        weigh: Gram matrix [T, T] -> weights [T].
        scaler: for float16.

    Returns:
        As `balanced_backward`, of the whole batch and the same in all processes. The gradients of
        the heads are left to be averaged (`training.mean_gradients`), those of the trunk are not.

    Raises:
        ValueError: as `balanced_backward`; or there is no part.
        FloatingPointError: a task's loss or gradient is not finite; names the task.
        ConnectionError: another process has ended.

    Example:
        >>> theta = nn.Parameter(torch.zeros(2))
        >>> rows = torch.tensor([[2.0, 0.0], [0.0, 2.0]])  # a task's gradient, by half of the batch
        >>> parts = ((theta * 1, {"a": lambda z, row=row: row @ z / 2}) for row in rows)
        >>> done = balanced_backward_in_parts(parts, [theta], lambda G: G.new_ones(1))
        >>> theta.grad.tolist(), done.gram.tolist()  # the mean of two Gram matrices would be 4
        ([1.0, 1.0], [[2.0]])
    """
    shared = list({id(p): p for p in shared if p.requires_grad}.values())
    scale = 1.0 if scaler is None else scaler.get_scale()
    names, values, layers = (), None, []
    for features, task_losses in parts:
        names, part, cotangents = _heads_backward(features, task_losses, shared, scaler)
        with torch.autocast(features.device.type, enabled=False):
            gradients = _trunk_gradients(features, shared, cotangents)
        if values is None:
            values, layers = part, gradients
        else:
            values = values + part
            layers = [_sum(*pair) for pair in zip(layers, gradients, strict=True)]
        del features, cotangents, gradients
    if values is None:
        raise ValueError("There is no part of a batch; give at least one.")
    # What no row of this process depends on, those of another may.
    empty = [
        g if g is not None else p.new_zeros(len(names), *p.shape)
        for g, p in zip(layers, shared, strict=True)
    ]
    values, *layers = process_mean([values, *empty])
    with torch.autocast(values.device.type, enabled=False):
        G, w = _combine(layers, shared, weigh, names, scaler, scale)
    return Balanced(names, values, G, w)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """a + b, where None is nothing."""
    return b if a is None else a if b is None else a + b


def _heads_backward(features, task_losses, shared, scaler):
    """Write the heads' gradients; names and losses [T] of the tasks, and dL_t/dz, [T, *z]."""
    aliases, losses = _losses(features, task_losses)
    names, values = tuple(losses), torch.stack(tuple(losses.values()))
    _require_finite(names, values)
    if not shared or not features.requires_grad:
        raise ValueError(
            "There is nothing to balance: no shared parameter wants a gradient, or the features do"
            " not depend on any. Open a part of the trunk, or take a weighting of the losses."
        )
    gradients = [p.grad for p in shared]
    versions = [None if g is None else g._version for g in gradients]
    with torch.autocast(features.device.type, enabled=False):
        total = values.sum() if scaler is None else scaler.scale(values.sum())
        total.backward()
        _require_untouched(shared, gradients, versions)
        # The gradients of all tasks come next, the peak of the memory: the heads' graph is let go
        # of at the end of this function.
        return names, values.detach(), _stacked_gradients(aliases)


def _combine(layers, shared, weigh, names, scaler, scale):
    """Add the balanced gradient of layers [T, ...], None for none; Gram matrix and weights."""
    G = _gram([g for g in layers if g is not None], scale)
    w = _weights(weigh, G, names, scaler)
    _add(shared, [None if g is None else torch.tensordot(w.to(g), g, 1) for g in layers])
    return G, w


def _add(shared, combined):
    """Add gradients, None for none, to what is in ``.grad``."""
    for parameter, gradient in zip(shared, combined, strict=True):
        if gradient is not None:
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


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


def _not_finite(names, values) -> list[str]:
    """The names whose value is infinite or NaN, quoted."""
    finite = torch.isfinite(values).tolist()
    return [repr(name) for name, ok in zip(names, finite, strict=True) if not ok]


def _require_finite(names, losses):
    """FloatingPointError that names the tasks whose loss is not finite."""
    if bad := _not_finite(names, losses):
        raise FloatingPointError(
            f"The loss of task {', '.join(bad)} is not finite; no gradient was written."
            " Look at its inputs and rate."
        )


def _require_untouched(shared, gradients, versions):
    """ValueError if the heads' backward pass has written to a parameter of the trunk.

    Its ``.grad`` is then another tensor than before, or the same in a later version.
    """
    for place, (p, gradient, version) in enumerate(zip(shared, gradients, versions, strict=True)):
        if p.grad is not gradient or (version is not None and gradient._version != version):
            raise ValueError(
                f"Parameter {place} of `shared`, of shape {list(p.shape)}, is used by a head too:"
                " it would get a gradient that is not balanced. Untie it, or take a weighting."
                " Zero the gradients, the heads' have been written."
            )


def _stacked_gradients(aliases):
    """dL_t/dz of all tasks, [T, *z]; zero for a task whose loss ignores the features."""
    return torch.stack([torch.zeros_like(z) if z.grad is None else z.grad for z in aliases])


def _trunk_gradients(features, shared, cotangents):
    """For each shared parameter the T task gradients, stacked: [T, *shape].

    None for one that the features do not depend on.
    """
    tasks, group = len(cotangents), _group(features, len(cotangents))
    if group == 1:
        # As lists: with one buffer for all, glibc hands the memory back between two passes and
        # pages it in anew.
        each = [
            torch.autograd.grad(features, shared, v, retain_graph=t < tasks - 1, allow_unused=True)
            for t, v in enumerate(cotangents)
        ]
        layers = zip(*each, strict=True)
        return [None if layer[0] is None else torch.stack(layer) for layer in layers]
    if group == tasks:
        return torch.autograd.grad(
            features, shared, cotangents, is_grads_batched=True, allow_unused=True
        )
    layers = [None] * len(shared)
    for start in range(0, tasks, group):
        rows = slice(start, min(start + group, tasks))
        gradients = torch.autograd.grad(
            features,
            shared,
            cotangents[rows],
            retain_graph=rows.stop < tasks,
            is_grads_batched=True,
            allow_unused=True,
        )
        for k, g in enumerate(gradients):
            if g is not None:
                layers[k] = g.new_empty(tasks, *shared[k].shape) if layers[k] is None else layers[k]
                layers[k][rows] = g
    return layers


def _group(features, tasks) -> int:
    """How many tasks go through the trunk in one pass."""
    if has_looped(features.grad_fn):
        return 1
    return GROUP if features.device.type == "cpu" and tasks > AT_ONCE else tasks


def _gram(layers, scale):
    """Gram matrix of task gradients, given as layers [T, ...] that were multiplied by `scale`.

    It is the sum over layers of theirs; float64, on the CPU.
    """
    G = 0
    for layer in layers:
        flat = layer.flatten(1).to(torch.promote_types(layer.dtype, torch.float32))
        G = G + (flat @ flat.T).double()
    return (G / scale**2).cpu()


def _weights(weigh, G, names, scaler):
    """Weights of the method, held against what they must be.

    Under a scaler an overflow is no error: equal weights pass it on, and the scaler skips the step.
    """
    if not torch.isfinite(G).all():
        if scaler is not None:
            return torch.ones(len(G), dtype=torch.float64)
        bad = _not_finite(names, G.diagonal()) or map(repr, names)
        raise FloatingPointError(
            f"The gradient of task {', '.join(bad)} is not finite, though its loss is."
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
