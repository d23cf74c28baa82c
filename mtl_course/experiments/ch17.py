"""Chapter 17: is a learned starting point better than multi-task pretraining?

On sinusoids, on printed and handwritten characters, and on schools with two kinds of tasks. Every
method makes one start from the meta-training tasks, and all are judged alike: on new tasks, so many
steps of gradient descent on the support, then the query loss. Each method has one outer rate of
training, chosen on validation tasks, and one inner rate per number of steps, chosen on each seed's;
the grids are the same for all, and test tasks are drawn apart. Runs that differ in seed and outer
rate alone are trained at once (vmap). Needs no Jupyter.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.func import vmap

from .. import data, meta
from ..data.episodes import Episodes
from ..meta.functional import Functional, Params
from ..records.pieces import kept
from ..runtime import device as fastest
from .ch17_families import (
    FAMILIES,
    QUERIES,
    SHOTS,
    WAYS,
    Family,
    Plan,
    generator,
    loss_of,
    score_of,
)
from .ch17_handwriting import run_handwriting
from .common import stacked

# method -> inner steps while training, and the choice for `meta.adapt`; the baselines have no inner
# loop
METHODS: dict[str, tuple[int, dict]] = {
    "pooled": (0, {}),
    "one head per task": (0, {}),
    "one head per task, longer": (0, {}),
    "joint, new head": (0, {}),
    "joint, new head, longer": (0, {}),
    "MAML": (1, {}),
    "MAML, 5 steps": (5, {}),
    "FOMAML": (1, {"first_order": True}),
    "ANIL": (1, {"only": "heads"}),
    "Meta-SGD": (1, {}),
    "FOMAML, 5 steps": (5, {"first_order": True}),
    "Reptile, 5 steps": (5, {}),
}
# updates of a baseline for one meta-update: MAML's takes no more time than so many
LONGER_BY = 5
# family -> the methods that are run on it: those that tell most, where a minute does not hold all
TRIED = {
    "sinusoids": tuple(m for m in METHODS if not m.startswith("joint, new head")),
    "characters": (
        *("pooled", "one head per task", "one head per task, longer"),
        *("joint, new head", "joint, new head, longer"),
        *("MAML", "Reptile, 5 steps"),
    ),
    "schools": ("pooled", "one head per task", "MAML", "Reptile, 5 steps"),
    "ILEA": ("pooled", "one head per task", "MAML", "Reptile, 5 steps"),
}
COUNTS = (0, 1, 2, 5, 10, 20, 50)  # steps on a new task
FEWER = {"characters": COUNTS[:-1]}  # where all methods have settled by then
RATES = (0.001, 0.003, 0.01, 0.03, 0.1)  # of these steps
# of these steps, where starts differ more in what they bear
WIDER = {"characters": (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)}
PLANS = {
    "cpu": Plan({"sinusoids": 1000}),
    "gpu": Plan(
        {"sinusoids": 10_000, "characters": 6000, "schools": 1000, "ILEA": 1000},
        tasks=25,
        judged=600,
        pool=1000,
    ),
}
CHARACTERS = Plan({"characters": 400}, width=64, judged=40, pool=500)
SCHOOLS = Plan({"schools": 200})
# of inner steps in training
TRAINING_RATE = {"sinusoids": 0.01, "characters": 0.1, "schools": 0.03, "ILEA": 0.03}
# of Adam in training: what every method may try
OUTER = {
    "sinusoids": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    "characters": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    "schools": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
    "ILEA": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
}

RATE = "rate."  # Meta-SGD's rates stand among the parameters under these names


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
    "..., longer" has `LONGER_BY` times as many updates.
    """
    updates = plan.updates[name]
    if method.endswith(", longer"):
        method, updates = method.removesuffix(", longer"), LONGER_BY * updates
    device = families[0].pool[0].device
    f, begin = Functional(families[0].network().to(device)), starts(families[0], seeds, device)
    if method == "joint, new head":  # one output for each class of the training tasks
        f = Functional(families[0].classifier().to(device))
        begin = {n: p.to(device) for n, p in stacked(families[0].classifier, seeds).items()}
    if method == "one head per task":  # heads become [seeds, tasks, ...]
        tasks = len(families[0].pool[2])
        begin = {
            n: p[:, None].expand(-1, tasks, *p.shape[1:]) if n.startswith("heads") else p
            for n, p in begin.items()
        }
    if method == "Meta-SGD":  # an inner rate for each number, learned with it
        begin |= {RATE + n: torch.full_like(p, TRAINING_RATE[name]) for n, p in begin.items()}
    learned = [
        [p[:, None].repeat(1, 1, *[1] * (p.dim() - 1)).requires_grad_() for p in begin.values()]
        for _ in outer
    ]
    groups = [
        {
            "params": [p for n, p in zip(begin, run, strict=True) if n.startswith(RATE) == slow],
            "lr": rate / 10 if slow else rate,
        }
        for run, rate in zip(learned, outer, strict=True)
        for slow in (False, True)
    ]
    optimizer, generators = torch.optim.Adam(groups), [generator(seed, device) for seed in seeds]
    for _ in range(updates):
        optimizer.zero_grad()
        params = {n: torch.cat([run[i] for run in learned], 1) for i, n in enumerate(begin)}
        runs = {n: p.flatten(0, 1) for n, p in params.items()}
        _backward(method, TRAINING_RATE[name], f, runs, families, plan, generators, len(outer))
        optimizer.step()
    last = {n: torch.cat([run[i] for run in learned], 1).detach() for i, n in enumerate(begin)}
    if method == "one head per task":  # a new task starts with the mean of the heads
        last = {n: p.mean(2) if n.startswith("heads") else p for n, p in last.items()}
    if method == "joint, new head":  # a new task starts with a head of zeros
        fresh = starts(families[0], seeds, device)
        heads = {n: torch.zeros_like(p) for n, p in fresh.items() if n.startswith("heads")}
        last |= {
            n: p[:, None].repeat(1, len(outer), *[1] * (p.dim() - 1)) for n, p in heads.items()
        }
    return last


def _backward(method, rate, f, runs, families, plan, generators, outer):
    """Gradients of one update for all runs [seeds * outer, ...]."""
    draws = zip(families, generators, strict=True)
    if method == "joint, new head":
        images = [_of_all(family, plan, g) for family, g in draws]
        (kind,) = families[0].losses
        objective = meta.objective(f, loss_of(families[0], kind))
        vmap(objective)(runs, *_for_runs(images, outer)).sum().backward()
        return
    if method == "one head per task":
        batches = [_from_pool(family, plan, g) for family, g in draws]
    else:
        batches = [family.draw(g) for family, g in draws]
    for kind in families[0].losses:
        objective = meta.objective(f, loss_of(families[0], kind))
        parts = [batch[kind] for batch in batches]
        if method == "one head per task":
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
        params, rates = _apart(params, rate)
        params = meta.adapt(objective, params, (x, y), steps, rates, **choice)
        return objective(params, query, judged)

    of_task = vmap(query_loss, (None, 0, 0, 0, 0))
    return vmap(of_task)(runs, x, y, query, judged).mean(1).sum()


def _apart(params, rate):
    """The parameters, and the rate of their steps: Meta-SGD's own where there are some."""
    rates = {n.removeprefix(RATE): r for n, r in params.items() if n.startswith(RATE)}
    return {n: p for n, p in params.items() if not n.startswith(RATE)}, rates or rate


def _of_all(family, plan, g):
    """x and y of random examples of all training classes, as many as a meta-batch holds."""
    x, y = family.whole
    images = plan.tasks * WAYS * (SHOTS + QUERIES)
    rows = torch.randint(len(x), (images,), generator=g, device=x.device)
    return x[rows], y[rows]


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
    score: Callable | None = None,
    unit: float = 1.0,
    counts: Sequence[int] | None = None,
) -> Tensor:
    """Mean query loss after so many steps at each rate on each task's support.

    [len(rates), len(counts)], for COUNTS where none are given. A task whose support loss did not
    fall keeps the start: anyone who adapts can see that, and one task that diverges would rule the
    mean. Steps follow the loss; queries are judged by `score` in its place where there is one.
    Meta-SGD's own rates are multiplied by rate / unit, where `unit` is what they were before they
    were learned.
    """
    objective = meta.objective(f, loss)
    judged_by = meta.objective(f, score or loss)
    params, own = _apart(params, None)

    def of_task(rate, x, y, query, judged):
        at_start = objective(params, x, y), judged_by(params, query, judged)
        rates = rate if own is None else {n: r * (rate / unit) for n, r in own.items()}
        adapted, done, losses = params, 0, []
        for count in COUNTS if counts is None else counts:
            options = {"first_order": True, "only": only}
            adapted = meta.adapt(objective, adapted, (x, y), count - done, rates, **options)
            done = count
            better = objective(adapted, x, y) < at_start[0]
            losses.append(torch.where(better, judged_by(adapted, query, judged), at_start[1]))
        return torch.stack(losses)

    tasks = vmap(of_task, (None, 0, 0, 0, 0))
    rates = torch.tensor(rates, device=episodes.support[0].device)
    losses = vmap(tasks, (0, None, None, None, None))(rates, *episodes.support, *episodes.query)
    # A start that is not finite: its training diverged.
    return torch.nan_to_num(losses.mean(1), nan=torch.inf)


def judge(
    f: Functional,
    starts: Params,
    family: Family,
    outer: Sequence[float],
    only: str,
    rates: Sequence[float] | None = None,
    unit: float = 1.0,
    counts: Sequence[int] | None = None,
) -> dict[str, dict]:
    """Kind -> "test" losses after each of `counts` steps, at the best rates on validation tasks.

    starts: name -> [outer, ...]. "outer" and "rate" are the rates that were taken. "best": with the
        number of "steps" chosen on validation tasks, too. "validation": by outer rate, the mean
        over the numbers of steps from 1 on of the loss at the best inner rate for each.
    """
    rates, counts = RATES if rates is None else rates, COUNTS if counts is None else counts
    rows = {}
    by_outer = [{name: p[k] for name, p in starts.items()} for k in range(len(outer))]
    for kind in family.losses:
        how = {"loss": loss_of(family, kind), "rates": rates, "only": only, "unit": unit}
        how["counts"] = counts
        how["score"] = score_of(family, kind)
        validation = [curves(f, start, family.validation[kind], **how) for start in by_outer]
        tried = torch.stack(validation)  # [outer, rates, counts]
        chosen = [divmod(int(tried[:, :, c].argmin()), len(rates)) for c in range(len(counts))]
        test = {k: curves(f, by_outer[k], family.test[kind], **how) for k in {k for k, _ in chosen}}
        losses = [float(test[k][r, c]) for c, (k, r) in enumerate(chosen)]
        best = int(tried.flatten(0, 1).amin(0).argmin())
        rows[kind] = {
            "test": losses,
            "outer": [outer[k] for k, _ in chosen],
            "rate": [rates[r] for _, r in chosen],
            "best": losses[best],
            "steps": counts[best],
            "validation": tried.amin(1)[:, 1:].mean(1).tolist(),
        }
    return rows


def compare(
    name: str,
    plan: Plan,
    seeds: Sequence[int],
    methods: Sequence[str] | None = None,
    device: torch.device | str = "cpu",
) -> dict:
    """Method -> kind -> one row of `judge` per seed.

    "scratch" adapts networks that were not trained.
    """
    families = [FAMILIES[name](plan, seed, device) for seed in seeds]
    methods = ("scratch", *(TRIED[name] if methods is None else methods))
    return {
        method: kept(
            f"{name}: {method}, seeds {list(seeds)}", of_method, method, name, plan, families, seeds
        )
        for method in methods
    }


def of_method(
    method: str, name: str, plan: Plan, families: Sequence[Family], seeds: Sequence[int]
) -> dict[str, list[dict]]:
    """Kind -> one row of `judge` per seed, at the outer rate that is best on validation tasks.

    Best by the sum over kinds of "validation", the mean over seeds, each in units of the lowest:
    one seed alone is blind to a rate at which another fails.
    """
    device = families[0].pool[0].device
    f = Functional(families[0].network().to(device))
    only = "heads" if method == "ANIL" else ""
    how = WIDER.get(name, RATES), TRAINING_RATE[name], FEWER.get(name, COUNTS)
    if method == "scratch":
        outer, params = (
            (0.0,),
            {n: p[:, None] for n, p in starts(families[0], seeds, device).items()},
        )
    else:
        outer = plan.outer or OUTER[name]
        params = train(method, name, families, plan, seeds, outer)
        tried = []
        for k, family in enumerate(families):
            own = {n: p[k] for n, p in params.items()}
            rows = judge(f, own, family, outer, only, *how)
            tried.append([row["validation"] for row in rows.values()])
        tried = torch.tensor(tried).mean(0)  # [kinds, outer]
        best = int((tried / tried.amin(1, keepdim=True)).sum(0).argmin())
        outer = outer[best : best + 1]
        params = {n: p[:, best : best + 1] for n, p in params.items()}
    rows = [
        judge(f, {n: p[k] for n, p in params.items()}, family, outer, only, *how)
        for k, family in enumerate(families)
    ]
    return {kind: [row[kind] for row in rows] for kind in rows[0]}


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


def run_schools(seeds: Sequence[int]) -> dict:
    """The schools as in `run`, at the size for a CPU."""
    return run("cpu", seeds, plan=SCHOOLS)


# Written by ``python -m mtl_course.record 17 --part schools --seeds 5``.
RECORDS = {"handwriting": run_handwriting, "schools": run_schools}
