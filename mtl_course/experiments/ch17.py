"""Chapter 17: is a learned starting point better than multi-task pretraining?

On sinusoids, and on schools with two kinds of tasks. Every method makes one start from the
meta-training tasks, and all are judged alike: on new tasks, so many steps of gradient descent on
the support, then the query loss. The outer rate of training and the inner rate of adapting are
chosen for each method on validation tasks, from one grid for all; test tasks are drawn apart. Runs
that differ in seed and outer rate alone are trained at once (vmap). Needs no Jupyter.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.func import vmap

from .. import data, meta
from ..data.episodes import Episodes
from ..meta.functional import Functional, Params
from ..runtime import device as fastest
from .ch17_families import FAMILIES, Family, Plan, generator, loss_of
from .common import stacked

# method -> inner steps while training, and the choice for `meta.adapt`; two baselines without an
# inner loop
METHODS: dict[str, tuple[int, dict]] = {
    "pooled": (0, {}),
    "one head a task": (0, {}),
    "MAML": (1, {}),
    "FOMAML": (1, {"first_order": True}),
    "ANIL": (1, {"only": "heads"}),
    "FOMAML, 5 steps": (5, {"first_order": True}),
    "Reptile, 5 steps": (5, {}),
}
COUNTS = (0, 1, 2, 5, 10, 20, 50)  # steps on a new task
RATES = (0.001, 0.003, 0.01, 0.03, 0.1)  # of these steps
PLANS = {
    "cpu": Plan({"sinusoids": 1000, "schools": 200}),
    "gpu": Plan(
        {"sinusoids": 10_000, "schools": 1000, "ILEA": 1000}, tasks=25, judged=600, pool=1000
    ),
}
TRAINING_RATE = {"sinusoids": 0.01, "schools": 0.03, "ILEA": 0.03}  # of inner steps in training


def starts(family: Family, seeds: Sequence[int], device: torch.device | str = "cpu") -> Params:
    """Freshly initialised parameters, name -> [seeds, ...]; a seed always gives the same."""
    return {name: p.to(device) for name, p in stacked(family.network, seeds).items()}


def train(
    method: str,
    name: str,
    families: Sequence[Family],
    plan: Plan,
    seeds: Sequence[int],
    outer: Sequence[float],
) -> Params:
    """Trained starts, name -> [seeds, outer rates, ...].

    One run for each family (one per seed) and each rate of Adam. All runs of a seed see the same
    meta-batches. The last parameters are taken; `meta.fit_episodes` is the loop for a single run.
    """
    device = families[0].pool[0].device
    f, begin = Functional(families[0].network().to(device)), starts(families[0], seeds, device)
    if method == "one head a task":  # heads become [seeds, tasks, ...]
        tasks = len(families[0].pool[2])
        begin = {
            n: p[:, None].expand(-1, tasks, *p.shape[1:]) if n.startswith("heads") else p
            for n, p in begin.items()
        }
    groups = [
        {"params": [p.clone().requires_grad_() for p in begin.values()], "lr": rate}
        for rate in outer
    ]
    optimizer, generators = torch.optim.Adam(groups), [generator(seed, device) for seed in seeds]
    for _ in range(plan.updates[name]):
        optimizer.zero_grad()
        params = {
            n: torch.stack([group["params"][i] for group in groups], 1) for i, n in enumerate(begin)
        }
        runs = {n: p.flatten(0, 1) for n, p in params.items()}
        _backward(method, TRAINING_RATE[name], f, runs, families, plan, generators, len(outer))
        optimizer.step()
    with torch.no_grad():
        last = {
            n: torch.stack([group["params"][i] for group in groups], 1) for i, n in enumerate(begin)
        }
        if method == "one head a task":  # a new task starts with the mean of the heads
            last = {n: p.mean(2) if n.startswith("heads") else p for n, p in last.items()}
    return last


def _backward(method, rate, f, runs, families, plan, generators, outer):
    """Gradients of one update for all runs [seeds * outer, ...]."""
    draws = zip(families, generators, strict=True)
    if method == "one head a task":
        batches = [_from_pool(family, plan, g) for family, g in draws]
    else:
        batches = [family.draw(g) for family, g in draws]
    for kind in families[0].losses:
        objective = meta.objective(f, loss_of(families[0], kind))
        parts = [batch[kind] for batch in batches]
        if method == "one head a task":
            loss = _of_own_heads(objective, runs, *_for_runs(parts, outer))
        else:
            examples = _for_runs([(*e.support, *e.query) for e in parts], outer)
            loss = _of_episodes(method, objective, runs, examples, rate)
        loss.backward()


def _of_own_heads(objective, runs, ids, x, y):
    """Sum over runs of the mean loss of tasks `ids`, each with the head of its own."""
    trunks = {n: p for n, p in runs.items() if not n.startswith("heads")}
    heads = {n: p for n, p in runs.items() if n.startswith("heads")}

    def of_run(trunk, heads, ids, x, y):
        def of_task(head, x, y):
            return objective({**trunk, **head}, x, y)

        return vmap(of_task)({n: h[ids] for n, h in heads.items()}, x, y).mean()

    return vmap(of_run)(trunks, heads, ids, x, y).sum()


def _of_episodes(method, objective, runs, examples, rate):
    """A sum over runs whose gradient is each run's update by its episodes."""
    x, y, query, judged = examples  # [runs, tasks, examples, ...]
    steps, choice = METHODS[method]
    if method == "pooled":
        rows = torch.cat([x, query], 2).flatten(1, 2), torch.cat([y, judged], 2).flatten(1, 2)
        return vmap(objective)(runs, *rows).sum()
    if method.startswith("Reptile"):

        def adapted(params, x, y):
            return meta.adapt(objective, params, (x, y), steps, rate)

        with torch.no_grad():
            ends = vmap(vmap(adapted, (None, 0, 0)))(runs, x, y)
        return sum(((p - ends[n].mean(1)).detach() * p).sum() for n, p in runs.items())

    def query_loss(params, x, y, query, judged):
        params = meta.adapt(objective, params, (x, y), steps, rate, **choice)
        return objective(params, query, judged)

    of_task = vmap(query_loss, (None, 0, 0, 0, 0))
    return vmap(of_task)(runs, x, y, query, judged).mean(1).sum()


def _for_runs(parts, outer):
    """Tuples of tensors, one per seed -> tensors [seeds * outer, ...]."""
    return [torch.stack(same).repeat_interleave(outer, 0) for same in zip(*parts, strict=True)]


def _from_pool(family, plan, g):
    """Kind -> (ids [T], x [T, n, d], y [T, n, ...]) of training tasks.

    They have as many examples as a meta-batch has.
    """
    x, targets, counts = family.pool
    ids = torch.randperm(len(x), generator=g, device=x.device)[: min(plan.tasks, len(x))]
    at = (
        torch.rand(len(ids), plan.shots + plan.queries, generator=g, device=x.device)
        * counts[ids, None]
    ).long()
    return {kind: (ids, x[ids[:, None], at], y[ids[:, None], at]) for kind, y in targets.items()}


@torch.no_grad()
def curves(
    f: Functional,
    params: Params,
    episodes: Episodes,
    loss: Callable,
    rates: Sequence[float],
    only: str = "",
) -> Tensor:
    """Mean query loss after so many steps at each rate on each task's support.

    [len(rates), len(COUNTS)]. A task whose support loss did not fall keeps the start: anyone who
    adapts can see that, and one task that diverges would rule the mean.
    """
    objective = meta.objective(f, loss)

    def of_task(rate, x, y, query, judged):
        at_start = objective(params, x, y), objective(params, query, judged)
        adapted, done, losses = params, 0, []
        for count in COUNTS:
            options = {"first_order": True, "only": only}
            adapted = meta.adapt(objective, adapted, (x, y), count - done, rate, **options)
            done = count
            better = objective(adapted, x, y) < at_start[0]
            losses.append(torch.where(better, objective(adapted, query, judged), at_start[1]))
        return torch.stack(losses)

    tasks = vmap(of_task, (None, 0, 0, 0, 0))
    rates = torch.tensor(rates, device=episodes.support[0].device)
    losses = vmap(tasks, (0, None, None, None, None))(rates, *episodes.support, *episodes.query)
    # A start that is not finite: its training diverged.
    return torch.nan_to_num(losses.mean(1), nan=torch.inf)


def judge(
    f: Functional, starts: Params, family: Family, outer: Sequence[float], only: str
) -> dict[str, dict]:
    """Kind -> "test" losses after each of COUNTS, at the best rates on validation tasks.

    starts: name -> [outer, ...]. "outer" and "rate" are the rates that were taken. "best": with the
        number of "steps" chosen on validation tasks, too.
    """
    rows = {}
    by_outer = [{name: p[k] for name, p in starts.items()} for k in range(len(outer))]
    for kind in family.losses:
        loss = loss_of(family, kind)
        validation = [
            curves(f, start, family.validation[kind], loss, RATES, only) for start in by_outer
        ]
        tried = torch.stack(validation)  # [outer, rates, counts]
        chosen = [divmod(int(tried[:, :, c].argmin()), len(RATES)) for c in range(len(COUNTS))]
        test = {
            k: curves(f, by_outer[k], family.test[kind], loss, RATES, only)
            for k in {k for k, _ in chosen}
        }
        losses = [float(test[k][r, c]) for c, (k, r) in enumerate(chosen)]
        best = int(tried.flatten(0, 1).amin(0).argmin())
        rows[kind] = {
            "test": losses,
            "outer": [outer[k] for k, _ in chosen],
            "rate": [RATES[r] for _, r in chosen],
            "best": losses[best],
            "steps": COUNTS[best],
        }
    return rows


def compare(
    name: str,
    plan: Plan,
    seeds: Sequence[int],
    methods: Sequence[str] = tuple(METHODS),
    device: torch.device | str = "cpu",
) -> dict:
    """Method -> kind -> one row of `judge` per seed.

    "scratch" adapts networks that were not trained.
    """
    families = [FAMILIES[name](plan, seed, device) for seed in seeds]
    f, results = Functional(families[0].network().to(device)), {}
    for method in ("scratch", *methods):
        if method == "scratch":
            outer = (0.0,)
            params = {n: p[:, None] for n, p in starts(families[0], seeds, device).items()}
        else:
            outer = plan.outer
            params = train(method, name, families, plan, seeds, outer)
        only = "heads" if method == "ANIL" else ""
        rows = [
            judge(f, {n: p[k] for n, p in params.items()}, family, outer, only)
            for k, family in enumerate(families)
        ]
        results[method] = {kind: [row[kind] for row in rows] for kind in rows[0]}
    return results


def run(
    profile: str,
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan | None = None,
) -> dict:
    """Family -> method -> kind -> one row per seed, as `judge` gives them. Plain JSON.

    ILEA is left out where there is no data root that holds it.
    """
    plan, device = plan or PLANS[profile], fastest() if profile == "gpu" else "cpu"
    results = {}
    for name in plan.updates:
        try:
            results[name] = compare(name, plan, seeds, device=device)
        except data.DataError as error:
            if name != "ILEA":
                raise
            report(f"Without {name}: {error}")
            continue
        for method, kinds in results[name].items():
            losses = {kind: [row["best"] for row in rows] for kind, rows in kinds.items()}
            line = ", ".join(f"{kind} {sum(best) / len(best):.4f}" for kind, best in losses.items())
            report(f"{name}, {method}: {line}")
    return results


# With the schools most methods chose the lowest outer rate of the plan, so they are run again.
LOWER = (1e-4, 3e-4, 1e-3, 3e-3)


def run_lower(seeds: Sequence[int]) -> dict:
    """The schools as in `run`, with lower outer rates."""
    return {"schools": compare("schools", replace(PLANS["cpu"], outer=LOWER), seeds)}


# Written by ``python -m mtl_course.record 17 --part schools --seeds 3``.
RECORDS = {"schools": run_lower}
