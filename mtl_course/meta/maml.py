"""Learning to learn by gradients: a start from which a few steps on a new task go well.

    f = meta.Functional(model)  # f(params, x) instead of model(x)
    loss = F.cross_entropy

    # 1. initialise, shared by all tasks
    params = f.parameters()
    # 2. adapt to every task; the gradient goes to .grad
    losses = meta.meta_backward(f, params, episodes, loss, steps=1, rate=0.1)
    # 3. meta-update
    optimizer.step()
    # 4. validate, on tasks of other classes
    meta.meta_losses(f, params, held_out, loss, steps=5, rate=0.1)
    # 5. apply to a new task
    adapted = meta.adapt(meta.objective(f, loss), params, support, steps=5, rate=0.1)

One code, one choice each:

    MAML      the defaults: the meta-gradient goes through the inner steps, which takes second
              derivatives
    FOMAML    first_order=True: inner gradients count as constants
    ANIL      only="head": the inner loop moves the parameters of that name, the rest is learned
              outside
    Meta-SGD  rate=meta.learned_rates(params, 0.1): a rate for every single parameter, learned with
              them

`adapt` is the method as one writes it down. `meta_losses`, `meta_backward` and `reptile_backward`
take the same steps for many tasks at once, by `_fast`, and a test holds them equal.

Sources: Finn, Abbeel and Levine, ICML 2017 (MAML, FOMAML); Raghu et al., ICLR 2020 (ANIL); Li et
al., 2017 (Meta-SGD); Nichol, Achiam and Schulman, 2018 (Reptile).
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import grad

from ..data.episodes import Episodes
from ..training.tasks import Task
from . import _fast
from .functional import Functional, Params

# (output [n, ...], targets [n, ...]) -> scalar
Loss = Callable[[Tensor, Tensor], Tensor]
# (parameters, x [n, ...], y [n, ...]) -> scalar
Objective = Callable[[Params, Tensor, Tensor], Tensor]
# one for all; or name -> a rate per parameter, or per entry of it
Rate = float | Tensor | Mapping[str, Tensor]


def objective(f: Functional, loss: Loss) -> Objective:
    """The loss on some data as a function of the parameters.

    Args:
        f: the model.
        loss: (output [n, ...], targets [n, ...]) -> scalar, such as `F.cross_entropy`.

    Returns:
        (params, x [n, ...], y [n, ...]) -> scalar.

    Example:
        >>> from mtl_course.meta import Functional, objective
        >>> squares = objective(Functional(nn.Linear(1, 1, bias=False)), nn.functional.mse_loss)
        >>> squares({"weight": torch.tensor([[2.0]])}, torch.tensor([[3.0]]), torch.tensor([[5.0]]))
        tensor(1.)
    """
    return lambda params, x, y: loss(f(params, x), y)


def adapt(
    objective: Objective,
    params: Params,
    support: tuple[Tensor, Tensor],
    steps: int,
    rate: Rate,
    *,
    first_order: bool = False,
    only: str | Sequence[str] = "",
) -> Params:
    """The parameters after some steps of gradient descent on one task.

    The result is a differentiable function of `params`, and of the rates if these are tensors. It
    works inside `vmap`, so it looks at no value: whether the loop diverged is for `require_finite`
    to ask of what comes out.

    Args:
        objective: (params, x, y) -> scalar; see `objective`.
        params: name -> tensor, the start. It stays as it is.
        support: the task's examples, x [n, ...] and y [n, ...].
        steps: how many steps; 0 leaves the parameters as they are.
        rate: a number, a scalar tensor, or name -> tensor of the parameter's shape (or a scalar).
        first_order: the inner gradients count as constants.
        only: names of the parts of the model that move, such as "head"; all of it by default.

    Returns:
        Name -> tensor, in the shapes of `params`.

    Raises:
        ValueError: a part or a rate does not exist, or `steps` is negative.

    Source:
        Finn, Abbeel and Levine, "Model-agnostic meta-learning", ICML 2017, equation 1.

    Example:
        On the loss ``(w - 3)^2 / 2`` a step at rate 0.5 halves the distance to 3, and the
        derivative of its end by its start is a half.

        >>> from mtl_course.meta import adapt
        >>> start = {"w": torch.tensor(1.0, requires_grad=True)}
        >>> distance = lambda params, x, y: (params["w"] - y).square().sum() / 2
        >>> task = torch.zeros(1), torch.tensor([3.0])
        >>> end = adapt(distance, start, task, steps=1, rate=0.5)["w"]
        >>> end.item(), torch.autograd.grad(end, start["w"])[0].item()
        (2.0, 0.5)
    """
    names = _moving(params, steps, rate, only)
    adapted = dict(params)
    for _ in range(steps):
        with torch.set_grad_enabled(torch.is_grad_enabled() and not first_order):
            gradients = grad(lambda moving: objective({**adapted, **moving}, *support))(
                {name: adapted[name] for name in names}
            )
        for name, g in gradients.items():
            r = rate[name] if isinstance(rate, Mapping) else rate
            adapted[name] = adapted[name] - r * g
    return adapted


def _moving(params: Params, steps: int, rate: Rate, only: str | Sequence[str]) -> list[str]:
    """Names of the parameters that move, once it is sure that they can."""
    parts = (only,) if isinstance(only, str) else tuple(only)

    def belongs(name: str, part: str) -> bool:
        return not part or name == part or name.startswith(part + ".")

    names = [name for name in params if any(belongs(name, part) for part in parts)]
    if not names:
        raise ValueError(
            f"No parameter belongs to {', '.join(map(repr, parts))}; there are {', '.join(params)}."
        )
    if isinstance(rate, Mapping) and (missing := [name for name in names if name not in rate]):
        raise ValueError(
            f"There is no rate for {', '.join(missing)};"
            " `learned_rates` makes one for every parameter."
        )
    if steps < 0:
        raise ValueError(
            f"{steps} steps: take 0, which leaves the parameters as they are, or more."
        )
    return names


def meta_losses(
    f: Functional,
    params: Params,
    episodes: Episodes,
    loss: Loss,
    steps: int,
    rate: Rate,
    *,
    first_order: bool = False,
    only: str | Sequence[str] = "",
) -> Tensor:
    """The query loss of each task after adapting to its support.

    Many tasks at once (vmap) or one by one, whichever is faster for this model on this device.

    Args:
        f: the model.
        params: name -> tensor, the start that all tasks share.
        episodes: T tasks.
        loss: (output [n, ...], targets [n, ...]) -> scalar, inside and outside.
        steps: how many inner steps.
        rate: of the inner steps; as for `adapt`.
        first_order: the inner gradients count as constants (FOMAML).
        only: names of the parts of the model that move inside, such as "head" (ANIL).

    Returns:
        Losses [T], differentiable in `params` and in rates that are tensors.

    Raises:
        ValueError: a part or a rate does not exist, `steps` is negative, or a target is not finite.
        FloatingPointError: an inner loop diverged; it names the task, the rate and the steps.

    Source:
        Finn, Abbeel and Levine, "Model-agnostic meta-learning", ICML 2017, equation 1.

    Example:
        Two tasks, ``y = 2`` and ``y = 4``, one example each. From 0, one step at rate 0.25 goes
        half the way, so the errors that are left are 1 and 2.

        >>> from mtl_course.data.episodes import Episodes
        >>> from mtl_course.meta import Functional, meta_losses
        >>> data = torch.ones(2, 1, 1), torch.tensor([[[2.0]], [[4.0]]])
        >>> f = Functional(nn.Linear(1, 1, bias=False))
        >>> start = {"weight": torch.zeros(1, 1)}
        >>> meta_losses(f, start, Episodes(data, data), nn.functional.mse_loss, 1, 0.25)
        tensor([1., 4.])
    """
    names = _moving(params, steps, rate, only)
    at_once = min(len(episodes), f.at_once(episodes.support[0][0]))
    if at_once > 1:
        thin = _fast.thin_layers(f, params, names, episodes.support[0][0], steps, rate)

        def one(*task):
            options = steps, rate, first_order
            return (_fast.query_loss(f, loss, params, names, thin, task, *options),)

    else:
        value = objective(f, loss)

        def one(x, y, query, truth):
            options = steps, rate, first_order, at_once
            return (value(_fast.adapted(value, params, names, (x, y), *options), query, truth),)

    (losses,) = _fast.over_tasks(one, episodes, at_once)
    _require_finite_losses(losses, episodes, steps, rate)
    return losses


def _require_finite_losses(losses: Tensor, episodes: Episodes, steps: int, rate: Rate) -> None:
    """That of `require_finite`; where the targets are to blame, ValueError that says so."""
    try:
        require_finite(losses, steps, rate)
    except FloatingPointError as error:
        for side, (_, y) in (("support", episodes.support), ("query", episodes.query)):
            sound = torch.isfinite(y).flatten(1).all(1)
            if bad := (~sound).nonzero().flatten().tolist():
                raise ValueError(
                    f"Task number {bad[0]} has targets in its {side} that are NaN or infinite:"
                    " leave those rows out."
                ) from error
        raise


def meta_backward(
    f: Functional,
    params: Params,
    episodes: Episodes,
    loss: Loss,
    steps: int,
    rate: Rate,
    *,
    first_order: bool = False,
    only: str | Sequence[str] = "",
) -> Tensor:
    """Add the gradient of the mean of `meta_losses` to ``.grad``, as ``backward()`` would.

    Tasks go through in groups, each with a graph of its own, so the memory is that of one group (of
    one task, where they go one by one). An error may come after other groups' gradients have been
    written; zero them before the next step, as always.

    Args:
        f: the model.
        params: name -> `nn.Parameter`, the start that all tasks share.
        episodes: T tasks, the meta-batch.
        loss: (output [n, ...], targets [n, ...]) -> scalar, inside and outside.
        steps: how many inner steps.
        rate: of the inner steps; as for `adapt`. Rates that learn get their gradient, too.
        first_order: the inner gradients count as constants (FOMAML).
        only: names of the parts of the model that move inside, such as "head" (ANIL).

    Returns:
        The tasks' losses [T], detached.

    Raises:
        ValueError: a part or a rate does not exist, `steps` is negative, or a target is not finite.
        FloatingPointError: an inner loop diverged; it names the task, the rate and the steps.

    Source:
        Finn, Abbeel and Levine, "Model-agnostic meta-learning", ICML 2017, algorithm 1.

    Example:
        The tasks of `meta_losses` again. An error ``w - c`` is halved by the inner step, so the
        loss is ``(w - c)^2 / 4`` and its mean gradient at 0 is ``-(2 + 4) / 4``. First order
        leaves out the derivative of the step, which is a half.

        >>> from mtl_course.data.episodes import Episodes
        >>> from mtl_course.meta import Functional, meta_backward
        >>> data = torch.ones(2, 1, 1), torch.tensor([[[2.0]], [[4.0]]])
        >>> w = nn.Parameter(torch.zeros(1, 1))
        >>> task = Functional(nn.Linear(1, 1, bias=False)), {"weight": w}, Episodes(data, data)
        >>> for first_order in (False, True):
        ...     w.grad = None
        ...     losses = meta_backward(
        ...         *task, nn.functional.mse_loss, 1, 0.25, first_order=first_order
        ...     )
        ...     print(losses.tolist(), w.grad.item())
        [1.0, 4.0] -1.5
        [1.0, 4.0] -3.0
    """
    losses = []
    for group in episodes.split(f.at_once(episodes.support[0][0])):
        group_losses = meta_losses(
            f, params, group, loss, steps, rate, first_order=first_order, only=only
        )
        (group_losses.sum() / len(episodes)).backward()
        losses.append(group_losses.detach())
    return torch.cat(losses)


def mixed_losses(
    f: Functional,
    params: Params,
    episodes: Mapping[str, Episodes],
    tasks: Mapping[str, Task],
    steps: int,
    rate: Rate,
    *,
    first_order: bool = False,
    only: str | Sequence[str] = "",
) -> dict[str, Tensor]:
    """Losses of a meta-batch with tasks of several kinds.

    Such as regressions and classifications. How losses of different units are added is the
    caller's to say: `multitask` has ways.

    Args:
        f: a model that gives a dict from kind to output, such as `multitask.HardSharing`.
        params: name -> tensor, the start that all tasks share.
        episodes: kind -> T tasks of that kind.
        tasks: kind -> `Task`, whose loss is the loss of that kind, inside and outside.
        steps: how many inner steps.
        rate: of the inner steps; as for `adapt`.
        first_order: the inner gradients count as constants (FOMAML).
        only: names of the parts of the model that move inside (ANIL).

    Returns:
        Kind -> query losses [T] after adapting.

    Raises:
        ValueError: a kind has no `Task`; or as for `meta_losses`.
        FloatingPointError: an inner loop diverged.

    Example:
        >>> from mtl_course.data.episodes import Episodes
        >>> from mtl_course.meta import Functional, mixed_losses
        >>> from mtl_course.multitask import HardSharing
        >>> from mtl_course.training import classification, regression
        >>> heads = {"size": nn.Linear(3, 1), "kind": nn.Linear(3, 2)}
        >>> f = Functional(HardSharing(nn.Linear(4, 3), heads))
        >>> x = torch.zeros(5, 6, 4)  # five tasks of six examples
        >>> sizes, kinds = torch.zeros(5, 6, 1), torch.zeros(5, 6, dtype=torch.int64)
        >>> episodes = {"size": Episodes((x, sizes), (x, sizes))}
        >>> episodes |= {"kind": Episodes((x[:2], kinds[:2]), (x[:2], kinds[:2]))}
        >>> tasks = {"size": regression("size"), "kind": classification("kind")}
        >>> losses = mixed_losses(f, f.parameters(), episodes, tasks, steps=1, rate=0.1)
        >>> {kind: len(values) for kind, values in losses.items()}
        {'size': 5, 'kind': 2}
    """
    if unknown := [kind for kind in episodes if kind not in tasks]:
        raise ValueError(
            f"There are episodes of {', '.join(map(repr, unknown))},"
            f" but `tasks` has {', '.join(tasks)} only: add its loss."
        )

    def loss_of(kind: str) -> Loss:
        return lambda outputs, y: tasks[kind].loss(outputs[kind], y)

    options = {"first_order": first_order, "only": only}
    return {
        kind: meta_losses(f, params, drawn, loss_of(kind), steps, rate, **options)
        for kind, drawn in episodes.items()
    }


def learned_rates(params: Params, start: float) -> dict[str, nn.Parameter]:
    """Meta-SGD's rates: one for each entry of each parameter.

    Give their values to the optimizer besides the parameters.

    Args:
        params: name -> tensor, the parameters that they are for.
        start: what all of them are at first.

    Returns:
        Name -> `nn.Parameter` of the parameter's shape.

    Source:
        Li, Zhou, Chen and Li, "Meta-SGD", 2017.

    Example:
        >>> from mtl_course.meta import learned_rates
        >>> learned_rates({"bias": torch.zeros(3)}, 0.5)["bias"].tolist()
        [0.5, 0.5, 0.5]
    """
    return {name: nn.Parameter(torch.full_like(p, start)) for name, p in params.items()}


def reptile_backward(
    f: Functional, params: Params, episodes: Episodes, loss: Loss, steps: int, rate: Rate
) -> Tensor:
    """Reptile: add the way from the tasks' mean adapted parameters to the start to ``.grad``.

    No derivative goes through the inner loop. Plain SGD with a rate of 1 moves the start to the
    mean; the paper's step size is that rate.

    Args:
        f: the model.
        params: name -> `nn.Parameter`, the start that all tasks share.
        episodes: T tasks.
        loss: (output [n, ...], targets [n, ...]) -> scalar.
        steps: how many inner steps.
        rate: of the inner steps; as for `adapt`.

    Returns:
        The query losses [T] after adapting.

    Raises:
        ValueError: a rate does not exist, `steps` is negative, or a target is not finite.
        FloatingPointError: an inner loop diverged; no gradient has been written then.

    Source:
        Nichol, Achiam and Schulman, "On first-order meta-learning algorithms", 2018, algorithm 2.

    Example:
        The tasks ``y = 2`` and ``y = 4`` pull the start 0 to 1 and 2; SGD goes to their mean.

        >>> from mtl_course.data.episodes import Episodes
        >>> from mtl_course.meta import Functional, reptile_backward
        >>> data = torch.ones(2, 1, 1), torch.tensor([[[2.0]], [[4.0]]])
        >>> w = nn.Parameter(torch.zeros(1, 1))
        >>> f = Functional(nn.Linear(1, 1, bias=False))
        >>> losses = reptile_backward(
        ...     f, {"weight": w}, Episodes(data, data), nn.functional.mse_loss, 1, 0.25
        ... )
        >>> torch.optim.SGD([w], lr=1.0).step()
        >>> w.item()
        1.5
    """
    names = _moving(params, steps, rate, only="")
    at_once, value = f.at_once(episodes.support[0][0]), objective(f, loss)
    losses, away = [], {name: torch.zeros_like(p) for name, p in params.items()}

    def one(x, y, query, truth):
        adapted = _fast.adapted(value, params, names, (x, y), steps, rate, at_once=at_once)
        return *(adapted[name] for name in params), value(adapted, query, truth)

    with torch.no_grad():  # the inner gradients count as constants
        for group in episodes.split(at_once):
            *adapted, group_losses = _fast.over_tasks(one, group, at_once)
            for (name, p), ends in zip(params.items(), adapted, strict=True):
                away[name] += (p - ends).sum(0) / len(episodes)
            losses.append(group_losses)
        losses = torch.cat(losses)
        _require_finite_losses(losses, episodes, steps, rate)
        for name, p in params.items():
            p.grad = away[name] if p.grad is None else p.grad + away[name]
    return losses


def require_finite(values: Tensor, steps: int, rate: Rate) -> None:
    """Refuse what came of inner loops that diverged.

    Args:
        values: losses or outputs [T, ...] of T tasks.
        steps: how many steps the loops took.
        rate: of these steps.

    Raises:
        FloatingPointError: a value is not finite; it names the task, the rate and the steps.

    Example:
        >>> from mtl_course.meta import require_finite
        >>> try:
        ...     require_finite(torch.tensor([0.5, torch.inf]), steps=5, rate=10.0)
        ... except FloatingPointError as error:
        ...     print(str(error).split(".")[0])
        The inner loop diverged in 1 of 2 tasks (first: number 1) with a rate of 10 and 5 steps
    """
    finite = torch.isfinite(values.detach()).reshape(len(values), -1).all(1)
    if diverged := (~finite).nonzero().flatten().tolist():
        shown = "its learned rates" if isinstance(rate, Mapping) else f"a rate of {rate:g}"
        raise FloatingPointError(
            f"The inner loop diverged in {len(diverged)} of {len(values)} tasks"
            f" (first: number {diverged[0]}) with {shown} and {steps} steps."
            " Lower the rate, or take fewer steps; look for inputs that are not finite."
        )
