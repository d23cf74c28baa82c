"""Chapter 1: test R2 against examples per task, for single-task, pooled and joint learning.

Two experiments: schools as tasks with linear models, where all seeds and all strengths are one
batched solve; and eight river gauges as tasks with small networks, where all networks train at once
under `torch.func.vmap`. Needs no Jupyter.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import stack_module_state

from .. import data
from ..data.river import river_hours
from ..multitask.linear import mean_regularised, normal_equations, ridge
from ..multitask.sharing import HardSharing
from ..networks.trunks import mlp
from ..runtime import device as fastest
from .common import many_outputs, standardised

SIZES = (3, 6, 12, 24, 36)  # training pupils per school
VALIDATION = 12  # pupils per school that choose the strength
# Columns of exam that differ between the pupils of one school.
PUPIL = ("standLRT", "girl", "vr_top", "vr_bottom")
STRENGTHS = torch.logspace(-1, 4, 11, dtype=torch.float64)  # what every method may choose from
# of joint learning: 0, but for columns that repeat the bias, such as those of all years of a table
MU = 1e-6
CONTROLS = ("as they are", "rotated", "re-dealt", "random labels")
METHODS = ("single", "pooled", "joint")
RATES = (1.25e-3, 4e-3, 1.2e-2, 4e-2)  # learning rates that every network may choose from
# Adam steps, steps between two looks at validation data, examples per step
STEPS, EVERY, BATCH = 250, 25, 50


@dataclass(frozen=True)
class Plan:
    """Sizes of both experiments.

    Args:
        sizes: training pupils per school.
        extras: sets of schools beside exam; one that cannot be had is left out.
        hours: training hours of the rivers.
        widths: hidden units of the networks.
    """

    sizes: tuple[int, ...] = SIZES
    extras: tuple[str, ...] = ()
    hours: tuple[int, ...] = (50, 500)
    widths: tuple[int, ...] = (32,)


PLANS = {
    "cpu": Plan(),
    "gpu": Plan(
        sizes=(2, 3, 4, 6, 8, 12, 16, 24, 30, 36),
        extras=("school_ilea",),
        hours=(25, 50, 100, 200, 500, 1000, 2000),
        widths=(8, 32, 128),
    ),
}


# --------------------------------------------------------------------------- schools, linear models
def deal(
    x: np.ndarray, y: np.ndarray, task: np.ndarray, seed: int, largest: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The pupils of every large school in random order, padded to one length.

    Args:
        x: [N, d].
        y: [N].
        task: [N], school numbers.
        seed: of the order.
        largest: training pupils per school at most. A school needs `VALIDATION` pupils more, and as
            many again for the test.

    Returns:
        x [T, P, d], y [T, P] and which pupils are real [T, P].
    """
    draw = np.random.RandomState(seed)
    rows = [draw.permutation(np.flatnonzero(task == t)) for t in np.unique(task)]
    rows = [r for r in rows if len(r) >= largest + 2 * VALIDATION]
    longest = max(map(len, rows))
    padded = [np.pad(r, (0, longest - len(r)), constant_values=-1) for r in rows]
    index = torch.tensor(np.stack(padded))
    return torch.tensor(x)[index], torch.tensor(y)[index], index >= 0


def compare(
    x: np.ndarray,
    y: np.ndarray,
    task: np.ndarray,
    seeds: Sequence[int],
    sizes: Sequence[int] = SIZES,
    control: str = "as they are",
    device: torch.device | None = None,
) -> dict[str, np.ndarray]:
    """Test R2 of three methods after training on n pupils of every school.

    Of each school the first n pupils of a random order train, `VALIDATION` pupils choose the
    strength (each method from the same `STRENGTHS`), the rest test. Features and target are
    standardised with the training pupils. R2 is over all test pupils together.

    Args:
        x: [N, d], as `data.load` gives it.
        y: [N].
        task: [N].
        seeds: one order of the pupils each.
        sizes: values of n.
        control: one of `CONTROLS`. "rotated": every school's features are turned by its own random
            rotation, which no single-task ridge can notice. "re-dealt": pupils are dealt anew to
            schools of the same sizes, so that all schools are alike. "random labels": the targets
            are permuted over all pupils.
        device: where to compute; the fastest one if None.

    Returns:
        Method -> [seeds, sizes], and "... on training" for the R2 on the training pupils.

    Raises:
        ValueError: if there is no such control.
    """
    if control not in CONTROLS:
        raise ValueError(f"control must be one of {', '.join(CONTROLS)}; it is {control!r}.")
    device = device or fastest()
    dealt = [_deal_under(control, x, y, task, seed, max(sizes)) for seed in seeds]
    # [S, T, P, d], [S, T, P], [S, T, P]
    x, y, real = (torch.stack(same).to(device) for same in zip(*dealt, strict=True))
    turn = _rotations(seeds, x.shape[1], x.shape[-1]).to(device) if control == "rotated" else None
    choosing = slice(max(sizes), max(sizes) + VALIDATION)
    tested = real.clone()
    tested[..., : choosing.stop] = False
    strengths = STRENGTHS.to(device)
    scores = {name: [] for name in METHODS}
    fits = {f"{name} on training": [] for name in METHODS}
    for n in sizes:
        z, t = _with_bias(x, y, n, turn)
        a, b = normal_equations(z[:, :, :n], t[:, :, :n])  # [S, T, d, d], [S, T, d]
        weights = {
            "single": ridge(a, b, strengths[:, None, None]),
            "pooled": ridge(a.sum(1), b.sum(1), strengths[:, None]).unsqueeze(2),
            "joint": mean_regularised(a, b, strengths[:, None], MU)[1],
        }  # [strengths, S, T (or 1), d]
        trained = torch.zeros_like(tested)
        trained[..., :n] = True
        for name, w in weights.items():
            w = w.expand(-1, -1, z.shape[1], -1)
            error = (torch.einsum("stpd,gstd->gstp", z, w) - t) ** 2
            best = error[..., choosing].mean((2, 3)).argmin(0)  # [S]
            error = error[best, torch.arange(len(best), device=device)]  # [S, T, P]
            scores[name].append(_r2(error, t, tested))
            fits[f"{name} on training"].append(_r2(error, t, trained))
    return {name: torch.stack(r2, dim=1).cpu().numpy() for name, r2 in (scores | fits).items()}


def _deal_under(control, x, y, task, seed, largest):
    """`deal`, with the targets or the schools permuted where the control says so."""
    draw = np.random.RandomState([seed, 1])
    y = draw.permutation(y) if control == "random labels" else y
    task = draw.permutation(task) if control == "re-dealt" else task
    return deal(x, y, task, seed, largest)


def _with_bias(x, y, n, turn):
    """x and y standardised by the first n pupils of every school, with a column of ones."""
    mean, spread = x[:, :, :n].mean((1, 2), keepdim=True), x[:, :, :n].std((1, 2), keepdim=True)
    z = (x - mean) / spread.clamp_min(1e-9)
    if turn is not None:
        z = z @ turn
    z = torch.cat([z, torch.ones_like(z[..., :1])], dim=-1)
    return z, y - y[:, :, :n].mean((1, 2), keepdim=True)


def _rotations(seeds, tasks, d):
    """A random rotation for every seed and task: [S, T, d, d]."""
    turns = [[_rotation(seed, task, d) for task in range(tasks)] for seed in seeds]
    return torch.tensor(np.array(turns))


def _rotation(seed: int, task: int, d: int) -> np.ndarray:
    """A random orthogonal matrix [d, d]: Q of a Gaussian matrix, signs made uniform."""
    q, r = np.linalg.qr(np.random.RandomState([seed, task, 2]).normal(size=(d, d)))
    return q * np.sign(np.diag(r))


def _r2(error: Tensor, target: Tensor, rows: Tensor) -> Tensor:
    """R2 per seed [S] of squared errors [S, T, P], over the rows [S, T, P] that count."""
    count = rows.sum((1, 2))
    mean = ((target * rows).sum((1, 2)) / count)[:, None, None]
    return 1 - (error * rows).sum((1, 2)) / ((target - mean) ** 2 * rows).sum((1, 2))


def exam(columns: Sequence[str] = PUPIL) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and task of the Exam data with these columns, as `compare` takes them."""
    table = data.load("exam")
    names = [str(name) for name in table.names]
    x = np.array(table.x)[:, [names.index(c) for c in columns]]
    return x, np.array(table.y), np.array(table.task)


# --------------------------------------------------------------------------- river gauges, networks
def river() -> tuple[Tensor, Tensor]:
    """x [N, 64] and y [N, 8] of the rivers, float32: `data.river.river_hours` as tensors."""
    hours = river_hours()
    return torch.tensor(hours.x, dtype=torch.float32), torch.tensor(hours.y, dtype=torch.float32)


def train_networks(
    x: Tensor,
    y: Tensor,
    seeds: Sequence[int],
    n: int,
    groups: Sequence[Sequence[int]],
    width: int,
    rate: float,
    held_out: tuple[int, int] = (250, 1000),
) -> tuple[Tensor, Tensor]:
    """Train one network per seed and group of targets, all at once, on n random rows.

    Each network stops at the step that is best on its own validation rows.

    Args:
        x: [N, d].
        y: [N, K].
        seeds: one draw of the rows and one start of the networks each.
        n: training rows.
        groups: the targets of each network, all of one length.
        width: hidden units.
        rate: of Adam.
        held_out: rows for validation and for the test.

    Returns:
        That validation error [S, groups] and the test R2 of every target [S, groups, targets per
        group].
    """
    validation, test = held_out
    networks, tables = [], []
    for seed in seeds:
        order = np.random.RandomState(seed).permutation(len(x))
        order = torch.tensor(order)[: n + validation + test]
        train, choose, final = order[-n:], order[:validation], order[validation : validation + test]
        z = standardised(x, x[train], limit=5)
        t = standardised(y, y[train])
        for group in groups:
            torch.manual_seed(1000 * seed + group[0])
            network = HardSharing(
                mlp([x.shape[1], width]), {"targets": nn.Linear(width, len(group))}
            )
            networks.append(network.to(x.device))
            some = [(z[rows], t[rows][:, list(group)]) for rows in (train, choose, final)]
            tables.append([values for pair in some for values in pair])
    x_train, y_train, x_choose, y_choose, x_test, y_test = (
        torch.stack(same) for same in zip(*tables, strict=True)
    )
    parameters, _ = stack_module_state(networks)
    outputs = many_outputs(copy.deepcopy(networks[0]).to("meta"))
    optimizer = torch.optim.Adam(parameters.values(), lr=rate)
    lowest = x.new_full((len(networks),), float("inf"))
    best = {name: p.detach().clone() for name, p in parameters.items()}
    draw = np.random.RandomState(0)
    for step in range(1, STEPS + 1):
        rows = torch.tensor(draw.permutation(n)[:BATCH], device=x.device)
        predicted = outputs(parameters, x_train[:, rows])["targets"]
        loss = ((predicted - y_train[:, rows]) ** 2).mean(1).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % EVERY == 0:
            with torch.no_grad():
                predicted = outputs(parameters, x_choose)["targets"]
                error = ((predicted - y_choose) ** 2).mean((1, 2))
                for name, p in parameters.items():
                    best[name][error < lowest] = p[error < lowest]
            lowest = torch.minimum(lowest, error)
    with torch.no_grad():
        error = ((outputs(best, x_test)["targets"] - y_test) ** 2).mean(1)
        r2 = 1 - error / y_test.var(1, unbiased=False)
    shape = len(seeds), len(groups)
    return lowest.view(shape), r2.view(*shape, -1)


def tuned_networks(
    x: Tensor, y: Tensor, seeds: Sequence[int], n: int, width: int, joint: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Mean test R2 over the targets after training on n rows, and the learning rate; per seed.

    joint: one network with all outputs; else a network per target. Both may try every learning rate
        of `RATES` and keep the one with the lowest validation error.
    """
    targets = list(range(y.shape[1]))
    groups = [targets] if joint else [[t] for t in targets]
    runs = [train_networks(x, y, seeds, n, groups, width, rate) for rate in RATES]
    best = torch.stack([error.mean(1) for error, _ in runs]).argmin(0).tolist()
    scores = [runs[k][1][s].mean().item() for s, k in enumerate(best)]
    return np.array(scores), np.array([RATES[k] for k in best])


def networks(
    x: Tensor, y: Tensor, seeds: Sequence[int], n: int, width: int, joint: bool
) -> np.ndarray:
    """The scores of `tuned_networks`."""
    return tuned_networks(x, y, seeds, n, width, joint)[0]


# ------------------------------------------------------------------------------- both, for a record
def run(
    profile: str,
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan | None = None,
) -> dict:
    """Both experiments: "sizes"; "schools": set -> control -> method; "river". Plain JSON.

    ``cpu`` is what the chapter shows; ``gpu`` has all sizes, more widths, and ILEA where it is
    there.
    """
    plan, device = plan or PLANS[profile], fastest()
    results = {"sizes": list(plan.sizes), "schools": {}, "river": {}}
    for name, table in _tables(plan, report).items():
        results["schools"][name] = {}
        for control in CONTROLS:
            scores = compare(*table, seeds, plan.sizes, control, device)
            results["schools"][name][control] = {m: r2.tolist() for m, r2 in scores.items()}
            last = ", ".join(f"{method} {scores[method][:, -1].mean():.3f}" for method in METHODS)
            report(f"{name}, {control}, {plan.sizes[-1]} pupils per school: R2 {last}")
    x, y = (values.to(device) for values in river())
    for n in plan.hours:
        for width in plan.widths:
            case = f"{n} hours, width {width}"
            row = {
                "single": networks(x, y, seeds, n, width, joint=False).tolist(),
                "joint": networks(x, y, seeds, n, width, joint=True).tolist(),
            }
            results["river"][case] = row
            means = ", ".join(f"{name} {np.mean(r2):.3f}" for name, r2 in row.items())
            report(f"rivers, {case}: R2 {means}")
    return results


def _tables(plan, report):
    """Set -> x, y, task. The extras need a data root, which a Colab machine does not have."""
    tables = {"exam": exam()}
    for name in plan.extras:
        try:
            table = data.load(name)
        except data.DataError as error:
            report(f"Without {name}: {error}")
        else:
            tables[name] = np.array(table.x), np.array(table.y), np.array(table.task)
    return tables
