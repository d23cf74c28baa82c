"""Chapter 17: is a learned starting point better than multi-task pretraining? On sinusoids, and on schools with two kinds of tasks.

Every method makes one start from the meta-training tasks, and all are judged alike: on new tasks, so many steps of gradient descent on the
support, then the query loss. The outer rate of training and the inner rate of adapting are chosen for each method on validation tasks, from one
grid for all; test tasks are drawn apart. Runs that differ in seed and outer rate alone are trained at once (vmap). Needs no Jupyter.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn import functional as F

from .. import data, meta, records
from ..data.episodes import Episodes, Source, sinusoids, split_classes
from ..functional import Functional, Params
from ..models import HardSharing, mlp
from ..runtime import device as fastest
from ..tasks import classification, regression

# method -> inner steps while training, and the choice for `meta.adapt`; two baselines without an inner loop
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


@dataclass(frozen=True)
class Plan:
    """updates: of `tasks` tasks each. shots, queries: examples of a task. judged: tasks to validate on, and as many to test on (a school comes
    several times). pool: tasks of the baseline with one head a task. outer: Adam's rates that are tried."""

    updates: Mapping[str, int]
    tasks: int = 16
    shots: int = 10
    queries: int = 10
    width: int = 40
    judged: int = 100
    pool: int = 160
    outer: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)


PLANS = {
    "cpu": Plan({"sinusoids": 1000, "schools": 200}),
    "gpu": Plan({"sinusoids": 10_000, "schools": 1000, "ILEA": 1000}, tasks=25, judged=600, pool=1000),
}
TRAINING_RATE = {"sinusoids": 0.01, "schools": 0.03, "ILEA": 0.03}  # of the inner steps while training


# -------------------------------------------------------------------------------------------------------------- families of tasks
@dataclass(frozen=True)
class Family:
    """draw(generator): a meta-batch; validation and test: tasks that training never sees. All are kind of task -> episodes.

    pool: the training tasks themselves, x [N, most, d], kind -> y [N, most, ...], and how many examples each has [N].
    """

    network: Callable[[], nn.Module]
    losses: Mapping[str, Callable]
    draw: Callable[[torch.Generator], dict[str, Episodes]]
    validation: dict[str, Episodes]
    test: dict[str, Episodes]
    pool: tuple[Tensor, dict[str, Tensor], Tensor]


def _generator(seed, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def waves(plan: Plan, seed: int, device: torch.device | str = "cpu") -> Family:
    """Sinusoids of random amplitude and phase. The baseline with one head a task sees `plan.pool` of them, with 100 examples each."""
    held = [{"wave": sinusoids(plan.judged, plan.shots, 50, _generator(10_000 * (k + 1) + seed, device))} for k in range(2)]
    known = sinusoids(plan.pool, 50, 50, _generator(30_000 + seed, device))
    x, y = (torch.cat(pair, 1) for pair in zip(known.support, known.query, strict=True))
    pool = x, {"wave": y}, torch.full((plan.pool,), 100, device=device)
    network = _network(1, plan.width, {"wave": 1})
    return Family(network, {"wave": F.mse_loss}, lambda g: {"wave": sinusoids(plan.tasks, plan.shots, plan.queries, g)}, *held, pool)


def _network(inputs, width, outputs):
    return lambda: HardSharing(mlp([inputs, width, width]), {kind: nn.Linear(width, n) for kind, n in outputs.items()})


@lru_cache(maxsize=2)
def students(name: str = "exam") -> tuple[Tensor, Tensor, Tensor]:
    """Features of a student [N, d] standardised, the exam score [N, 1] standardised, the school [N]; schools with 30 students or more."""
    table = data.load(name)
    large = np.isin(table.task, np.flatnonzero(np.bincount(table.task) >= 30))
    x, y = table["x"][large], table.y[large]
    x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-6)
    y = (y - y.mean()) / y.std()
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)[:, None], torch.tensor(table.task[large])


def schools(plan: Plan, seed: int, device: torch.device | str = "cpu", name: str = "exam") -> Family:
    """Two kinds of tasks a school: the exam score (a regression), and whether it lies above the median of all (a classification).

    A sixth of the schools is held for validation and a quarter for the test. Held schools come again and again with other support.
    """
    x, score, school = (part.to(device) for part in students(name))
    count = len(school.unique())
    held = {"validation": count // 6, "test": count // 4}
    parts = split_classes(school, {"train": count - sum(held.values()), **held}, seed)
    targets = {"score": score, "above": (score[:, 0] > score.median()).long()}
    sources = {part: {kind: Source(x, school, groups, targets=y) for kind, y in targets.items()} for part, groups in parts.items()}

    def draw(part, tasks, queries, g):
        return {kind: source.regression(tasks, plan.shots, queries, g) for kind, source in sources[part].items()}

    def repeated(part, g):
        found = [draw(part, len(parts[part]), 20, g) for _ in range(max(1, plan.judged // len(parts[part])))]
        return {
            kind: Episodes(*(tuple(torch.cat([getattr(f[kind], side)[i] for f in found]) for i in (0, 1)) for side in ("support", "query")))
            for kind in targets
        }

    tasks = {"score": regression("score"), "above": classification("above")}
    own = [school == group for group in parts["train"]]
    pad = torch.nn.utils.rnn.pad_sequence
    pool = (
        pad([x[mine] for mine in own], batch_first=True),
        {kind: pad([y[mine] for mine in own], batch_first=True) for kind, y in targets.items()},
        torch.stack([mine.sum() for mine in own]),
    )
    network = _network(x.shape[1], plan.width, {"score": 1, "above": 2})
    judged = [repeated(part, _generator(10_000 * (k + 1) + seed, device)) for k, part in enumerate(held)]
    batch = min(plan.tasks, len(parts["train"]))
    return Family(network, {kind: task.loss for kind, task in tasks.items()}, lambda g: draw("train", batch, plan.queries, g), *judged, pool)


def ilea(plan: Plan, seed: int, device: torch.device | str = "cpu") -> Family:
    """The same two kinds of tasks from the schools of the Inner London Education Authority (data root only)."""
    return schools(plan, seed, device, "school_ilea")


FAMILIES = {"sinusoids": waves, "schools": schools, "ILEA": ilea}


# ---------------------------------------------------------------------------------------------------------------- training, judging
def loss_of(family: Family, kind: str) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    """The loss of a kind of task, from all outputs of the network."""
    return lambda outputs, y: family.losses[kind](outputs[kind], y)


def starts(family: Family, seeds: Sequence[int], device: torch.device | str = "cpu") -> Params:
    """Freshly initialised parameters, name -> [seeds, ...]; a seed always gives the same."""
    found = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            found.append(dict(family.network().to(device).named_parameters()))
    return {name: torch.stack([p[name].detach() for p in found]) for name in found[0]}


def train(method: str, name: str, families: Sequence[Family], plan: Plan, seeds: Sequence[int], outer: Sequence[float]) -> Params:
    """Trained starts, name -> [seeds, outer rates, ...]: one run for each family (one a seed) and each rate of Adam.

    All runs of a seed see the same meta-batches. The last parameters are taken; `meta_train.fit_episodes` is the loop for a single run.
    """
    device = families[0].pool[0].device
    f, begin = Functional(families[0].network().to(device)), starts(families[0], seeds, device)
    if method == "one head a task":  # heads become [seeds, tasks, ...]
        tasks = len(families[0].pool[2])
        begin = {n: p[:, None].expand(-1, tasks, *p.shape[1:]) if n.startswith("heads") else p for n, p in begin.items()}
    groups = [{"params": [p.clone().requires_grad_() for p in begin.values()], "lr": rate} for rate in outer]
    optimizer, generators = torch.optim.Adam(groups), [_generator(seed, device) for seed in seeds]
    for _ in range(plan.updates[name]):
        optimizer.zero_grad()
        params = {n: torch.stack([group["params"][i] for group in groups], 1) for i, n in enumerate(begin)}
        runs = {n: p.flatten(0, 1) for n, p in params.items()}
        _backward(method, TRAINING_RATE[name], f, runs, families, plan, generators, len(outer))
        optimizer.step()
    with torch.no_grad():
        last = {n: torch.stack([group["params"][i] for group in groups], 1) for i, n in enumerate(begin)}
        if method == "one head a task":  # a new task starts with the mean of the heads
            last = {n: p.mean(2) if n.startswith("heads") else p for n, p in last.items()}
    return last


def _backward(method, rate, f, runs, families, plan, generators, outer):
    """Gradients of one update for all runs [seeds * outer, ...]."""
    if method == "one head a task":
        batches = [_from_pool(family, plan, g) for family, g in zip(families, generators, strict=True)]
    else:
        batches = [family.draw(g) for family, g in zip(families, generators, strict=True)]
    steps, choice = METHODS[method]
    for kind in families[0].losses:
        loss = loss_of(families[0], kind)
        of = meta.objective(f, loss)
        parts = [batch[kind] for batch in batches]
        if method == "one head a task":
            data_ = _for_runs(parts, outer)
            shared = {n: p for n, p in runs.items() if not n.startswith("heads")}
            heads = {n: p for n, p in runs.items() if n.startswith("heads")}

            def own(trunk, heads, ids, x, y):
                return vmap(lambda head, x, y: of({**trunk, **head}, x, y))({n: h[ids] for n, h in heads.items()}, x, y).mean()

            vmap(own)(shared, heads, *data_).sum().backward()
            continue
        x, y, query, judged = _for_runs([(*e.support, *e.query) for e in parts], outer)
        if method == "pooled":
            rows = torch.cat([x, query], 2).flatten(1, 2), torch.cat([y, judged], 2).flatten(1, 2)
            vmap(of)(runs, *rows).sum().backward()
        elif method.startswith("Reptile"):
            with torch.no_grad():
                adapted = vmap(vmap(lambda p, x, y: meta.adapt(of, p, (x, y), steps, rate), (None, 0, 0)))(runs, x, y)
            sum(((p - adapted[n].mean(1)).detach() * p).sum() for n, p in runs.items()).backward()
        else:
            one = vmap(lambda p, x, y, q, j: of(meta.adapt(of, p, (x, y), steps, rate, **choice), q, j), (None, 0, 0, 0, 0))
            vmap(one)(runs, x, y, query, judged).mean(1).sum().backward()


def _for_runs(parts, outer):
    """Tuples of tensors, one a seed -> tensors [seeds * outer, ...]."""
    return [torch.stack(same).repeat_interleave(outer, 0) for same in zip(*parts, strict=True)]


def _from_pool(family, plan, g):
    """Kind -> (ids [T], x [T, n, d], y [T, n, ...]) of training tasks, with as many examples as a meta-batch has."""
    x, targets, counts = family.pool
    ids = torch.randperm(len(x), generator=g, device=x.device)[: min(plan.tasks, len(x))]
    at = (torch.rand(len(ids), plan.shots + plan.queries, generator=g, device=x.device) * counts[ids, None]).long()
    return {kind: (ids, x[ids[:, None], at], y[ids[:, None], at]) for kind, y in targets.items()}


@torch.no_grad()
def curves(f: Functional, params: Params, episodes: Episodes, loss: Callable, rates: Sequence[float], only: str = "") -> Tensor:
    """Mean query loss [len(rates), len(COUNTS)] after so many steps at each rate on each task's support.

    A task whose support loss did not fall keeps the start: anyone who adapts can see that, and one task that diverges would rule the mean.
    """
    of = meta.objective(f, loss)

    def one(rate, x, y, query, judged):
        own, found, done, before = params, [], 0, (of(params, x, y), of(params, query, judged))
        for count in COUNTS:
            own, done = meta.adapt(of, own, (x, y), count - done, rate, first_order=True, only=only), count
            found.append(torch.where(of(own, x, y) < before[0], of(own, query, judged), before[1]))
        return torch.stack(found)

    tasks = vmap(one, (None, 0, 0, 0, 0))
    each = vmap(tasks, (0, None, None, None, None))(torch.tensor(rates, device=episodes.support[0].device), *episodes.support, *episodes.query)
    return torch.nan_to_num(each.mean(1), nan=torch.inf)  # a start that is not finite: its training diverged


def judge(f: Functional, starts: Params, family: Family, outer: Sequence[float], only: str) -> dict[str, dict]:
    """Kind -> test losses after each number of COUNTS, with the outer and the inner rate that were best for it on validation tasks.

    starts: name -> [outer, ...]. "best": with the number of steps chosen on validation tasks, too.
    """
    found = {}
    for kind in family.losses:
        loss = loss_of(family, kind)
        own = [{n: p[k] for n, p in starts.items()} for k in range(len(outer))]
        tried = torch.stack([curves(f, p, family.validation[kind], loss, RATES, only) for p in own])  # [outer, rates, counts]
        chosen = [divmod(int(tried[:, :, c].argmin()), len(RATES)) for c in range(len(COUNTS))]
        test = {k: curves(f, own[k], family.test[kind], loss, RATES, only) for k in {k for k, _ in chosen}}
        best = int(tried.flatten(0, 1).amin(0).argmin())
        found[kind] = {
            "test": [float(test[k][r, c]) for c, (k, r) in enumerate(chosen)], "outer": [outer[k] for k, _ in chosen],
            "rate": [RATES[r] for _, r in chosen], "best": float(test[chosen[best][0]][chosen[best][1], best]), "steps": COUNTS[best],
        }  # fmt: skip
    return found


def compare(name: str, plan: Plan, seeds: Sequence[int], methods: Sequence[str] = tuple(METHODS), device: torch.device | str = "cpu") -> dict:
    """Method -> kind -> one row of `judge` a seed; "scratch" adapts networks that were not trained."""
    families = [FAMILIES[name](plan, seed, device) for seed in seeds]
    f, found = Functional(families[0].network().to(device)), {}
    for method in ("scratch", *methods):
        outer = (0.0,) if method == "scratch" else plan.outer
        params = {n: p[:, None] for n, p in starts(families[0], seeds, device).items()}
        if method != "scratch":
            params = train(method, name, families, plan, seeds, outer)
        only = "heads" if method == "ANIL" else ""
        rows = [judge(f, {n: p[k] for n, p in params.items()}, family, outer, only) for k, family in enumerate(families)]
        found[method] = {kind: [row[kind] for row in rows] for kind in rows[0]}
    return found


def _with_ones(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x[..., :1])], -1).double()


def line_and_level(family: Family) -> tuple[float, float, float]:
    """No network: one straight line for all training schools, and for a new school the mean miss of its support, shrunk towards 0.

    Returns the share of the schools' levels in the variance that the line leaves, and the test MSE of the line without and with the level.
    """
    x, targets, counts = family.pool
    there = torch.arange(x.shape[1], device=x.device) < counts[:, None]
    y = targets["score"].double()
    line = torch.linalg.pinv(_with_ones(x[there])) @ y[there]
    left = [missed[:n] for missed, n in zip(y - _with_ones(x) @ line, counts, strict=True)]
    noise = torch.stack([r.var() for r in left]).mean()
    own = torch.stack([r.mean() for r in left]).var() - (noise / counts).mean()
    held = family.test["score"]
    before, missed = (y - _with_ones(x) @ line for x, y in (held.support, held.query))
    level = own / (own + noise / before.shape[1]) * before.mean(1, keepdim=True)
    return float(own / (own + noise)), float(missed.square().mean()), float((missed - level).square().mean())


def between_schools() -> dict[str, float]:
    """Variance between schools of their level and of their slope on the intake test (both without estimation error), and of all that a line leaves."""
    x, y, school = students()
    x, y = _with_ones(x), y.double()
    missed, found, error = y - x @ torch.linalg.pinv(x) @ y, [], []
    for group in school.unique():
        own, left = x[school == group][:, [-1, 0]], missed[school == group]
        inverse = torch.linalg.inv(own.T @ own)
        fit = inverse @ own.T @ left
        found.append(fit[:, 0])
        error.append((left - own @ fit).square().sum() / (len(own) - 2) * inverse.diagonal())
    level, slope = (torch.stack(found).var(0) - torch.stack(error).mean(0)).tolist()
    return {"level": level, "slope on the intake test": slope, "rest of one line": float(missed.var())}


def run(profile: str, seeds: Sequence[int]) -> dict:
    """Family -> method -> kind -> one row a seed, as plain JSON. ILEA is left out where there is no data root that holds it."""
    plan, found = PLANS[profile], {}
    for name in plan.updates:
        try:
            found[name] = compare(name, plan, seeds, device=fastest() if profile == "gpu" else "cpu")
        except data.DataError as error:
            if name != "ILEA":
                raise
            print(f"Without {name}: {error}")
    return found


LOWER = (1e-4, 3e-4, 1e-3, 3e-3)  # with the schools most methods chose the lowest outer rate of the plan, so they are run again


def run_lower(seeds: Sequence[int]) -> dict:
    """The schools as in `run`, with lower outer rates: ``python -m mtl_course.experiments.ch17`` writes this record."""
    return {"schools": compare("schools", replace(PLANS["cpu"], outer=LOWER), seeds)}


if __name__ == "__main__":
    SEEDS = [0, 1, 2]
    provenance = records.provenance(SEEDS) | {"command": "python -m mtl_course.experiments.ch17"}
    print(records.save(records.Record("17", "schools", run_lower(SEEDS), provenance)))
