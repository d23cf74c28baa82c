"""Chapter 10, finance: level, direction and volatility as three heads under one GRU.

All twenty stocks are read by one network (`ch10_stocks`, "together"). The heads ask for the mean
return of the next weeks (level), whether it is above 0 (direction), and the mean log volatility,
each over 1, 4 and 12 weeks. Beside the joint network stands one for each head. Needs no Jupyter.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .ch10_many import Parameters, copies, head, states, train
from .ch10_stocks import Plan, Task, Weeks, har_columns, origin_of, task

LEVEL, DIRECTION, VOLATILITY = "level", "direction", "volatility"
HEADS = (LEVEL, DIRECTION, VOLATILITY)


def three_tasks(plan: Plan, series: Weeks, origin: int, history: int) -> dict[str, Task]:
    """Head -> its task, on the same windows of volatility and returns, all stocks as one.

    The labels of the direction are 1 where the return of the next weeks is above 0, else 0.
    """
    inputs = np.stack([series.level, series.returns], axis=2)
    level = task(plan, inputs, series.returns, origin, history)
    other = task(plan, inputs, series.level, origin, history)
    past = series.returns[origin - history : origin]
    zero = torch.as_tensor(-past.mean(0) / past.std(0)).float()[:, None, None]  # no return at all
    parts = (level.x, (level.y > zero).float(), level.fit, level.valid, level.known, level.new)
    direction = Task(*parts, (level.truth > zero).float(), level.deviation)
    return {LEVEL: level.together, DIRECTION: direction.together, VOLATILITY: other.together}


def head_losses(
    parameters: Parameters, tasks: Mapping[str, Task], x: Tensor, y: Mapping, masks: Mapping
) -> dict[str, Tensor]:
    """Head -> loss [G] over the labels that are known.

    Args:
        parameters: of G networks.
        tasks: those that the heads stand for.
        x: windows [G, N, W, D].
        y: head -> labels [G, N, H].
        masks: head -> bool [N, H].
    """
    features, losses = states(parameters, x)[:, :, -1], {}
    for name in tasks:
        guess = head(parameters, name, features)
        if name == DIRECTION:
            each = F.binary_cross_entropy_with_logits(
                guess, y[name].expand_as(guess), reduction="none"
            )
        else:
            each = (guess - y[name]).square()
        mask = masks[name]
        losses[name] = (each * mask).sum((1, 2)) / mask.sum().clamp_min(1)
    return losses


def network(plan: Plan, tasks: Mapping[str, Task], seed: int) -> tuple[dict[str, Tensor], dict]:
    """One GRU for these heads; rate and stop by the later part of the past, then trained anew.

    Returns:
        Head -> what it says of the new windows [M, H], logits for the direction; and the choice.
    """
    given, rates = next(iter(tasks.values())), plan.rates

    def begin(count):
        heads = dict.fromkeys(tasks, len(plan.horizons))
        fresh = copies(given.x.shape[3], plan.features, heads, seed, count)
        return {name: p * 0 if "heads" in name else p for name, p in fresh.items()}

    def loss_on(which):
        masks = {name: getattr(each, which) for name, each in tasks.items()}
        g = torch.Generator().manual_seed(seed)
        usable = torch.stack([m.any(1) for m in masks.values()]).all(0).nonzero().flatten()

        def loss(parameters):
            rows = usable[torch.randint(len(usable), (plan.batch,), generator=g)]
            count = len(next(iter(parameters.values())))
            x = given.x[:, rows].expand(count, -1, -1, -1)
            y = {name: each.y[:, rows] for name, each in tasks.items()}
            some = {name: m[rows] for name, m in masks.items()}
            return sum(head_losses(parameters, tasks, x, y, some).values())

        return loss

    later, errors = given.valid.any(1), {}

    def judge(step, parameters):
        x = given.x[:, later].expand(len(rates), -1, -1, -1)
        y = {name: each.y[:, later] for name, each in tasks.items()}
        masks = {name: each.valid[later] for name, each in tasks.items()}
        total = sum(head_losses(parameters, tasks, x, y, masks).values())
        errors.update({(rate, step): float(e) for rate, e in zip(rates, total, strict=True)})

    train(begin(len(rates)), loss_on("fit"), rates, plan.stops, judge)
    rate, steps = min(errors, key=errors.get)
    final = train(begin(1), loss_on("known"), [rate], (steps,), lambda *_: None)
    with torch.no_grad():
        features = states(final, given.new)[:, :, -1]
        said = {name: head(final, name, features)[0] for name in tasks}
    return said, {"rate": rate, "steps": steps}


def judged(tasks: Mapping[str, Task], said: Mapping[str, Tensor]) -> dict[str, list[float]]:
    """Head -> by horizon: share of the variance beyond the past mean, for the direction of signs.

    Of the volatility it is the error in percent of that of the last 12 weeks' mean.
    """
    found = {}
    for name, guess in said.items():
        truth = tasks[name].truth[0].double()
        guess = guess.double()
        if name == DIRECTION:
            rows = ((guess > 0) == (truth > 0)).double().mean(0)
        elif name == LEVEL:
            rows = 1 - (guess - truth).square().mean(0) / truth.square().mean(0)
        else:
            idle = har_columns(tasks[name].new[0, :, :, :1])[:, 2:].double()
            rows = (guess - truth).square().mean(0) / (idle - truth).square().mean(0)
        found[name] = (100 * rows).tolist()
    return found


def three_heads(plan: Plan, series: Weeks, seed: int, history: Sequence[int] = (104, 416)) -> dict:
    """Weeks of history -> "joint" and "alone": head -> scores in percent; "up"; "chosen"."""
    origin, results = origin_of(plan, series, seed), {}
    for weeks in history:
        tasks = three_tasks(plan, series, origin, weeks)
        joint, choice = network(plan, tasks, seed)
        alone, chosen = {}, {"joint": choice}
        for name in HEADS:
            said, chosen[name] = network(plan, {name: tasks[name]}, seed)
            alone |= said
        results[str(weeks)] = {
            "joint": judged(tasks, joint),
            "alone": judged(tasks, alone),
            "up": (100 * tasks[DIRECTION].truth[0].mean(0)).tolist(),
            "chosen": chosen,
        }
    return results
