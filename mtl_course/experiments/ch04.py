"""Chapter 4: ways to share at an equal number of parameters.

On people, on rivers, and on two image sets of unequal size. The score of a task is the share of the
best constant's loss that the network explains, 1 - L / L_constant: R2 for a squared error, the
explained share of the entropy for a cross-entropy. Needs no Jupyter.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import data
from ..data.batches import Separate, Table
from ..data.census import census_tasks
from ..data.river import river_hours
from ..data.splits import per_class
from ..multitask.experts import CGC, PLE, MMoE
from ..multitask.fit import evaluate_tasks, fit_tasks
from ..multitask.sharing import (
    MTAN,
    Cascade,
    Cooperative,
    CrossStitch,
    Network,
    OwnTrunks,
    Parallel,
    Shared,
)
from ..multitask.weighting import Penalised
from ..networks.cost import widest
from ..networks.trunks import mlp
from ..records.pieces import kept
from ..runtime import device as fastest
from ..training.tasks import Task, classification, regression
from . import ch04_census, ch04_dial, common
from .common import (
    TrainedNetwork,
    best_on_validation,
    one_line,
    one_network_per_task,
    seeded,
    standardised,
)

RATES = (1e-3, 5e-3, 2e-2, 5e-2)  # learning rates that every method may choose from
Rows = Table | Separate


@dataclass(frozen=True)
class Plan:
    """Sizes of the experiments, and the rates that every method may try.

    Args:
        people: training rows of the census.
        rivers: training hours.
        validation: rows of either.
        test: rows of either.
        parameters: of all networks of a method together.
        batch: rows per step.
        epochs: at most.
        patience: epochs without a better one before training stops.
        rates: of Adam.
        digits: training images with a digit as their label.
        angles: training images with an angle as their label.
    """

    people: int = 1000
    rivers: int = 500
    validation: int = 500
    test: int = 2000
    parameters: int = 6000
    batch: int = 100
    epochs: int = 20
    patience: int = 5
    rates: tuple[float, ...] = RATES
    digits: int = 100
    angles: int = 2000


PLANS = {
    "cpu": Plan(),
    "gpu": Plan(
        people=20_000,
        rivers=5000,
        validation=1000,
        parameters=300_000,
        batch=500,
        epochs=60,
        rates=(3e-4, 2e-3, *RATES),
        angles=4000,
    ),
}


# --------------------------------------------------------------------------------------------- data
@lru_cache(maxsize=2)
def rows(name: str) -> tuple[Tensor, dict[str, Tensor]]:
    """All rows of "people" or "rivers": x [N, d] and task -> labels.

    Labels are [N, 1] float32 for a regression and [N] int64 for a classification.
    """
    if name == "people":
        x, y = census_tasks()
        labels = {task: torch.tensor(values) for task, values in y.items()}
        labels["hours"] = labels["hours"][:, None].float()
        return torch.tensor(x, dtype=torch.float32), labels
    hours = river_hours()
    y = torch.tensor(hours.y, dtype=torch.float32)
    sites = {f"site {t + 1}": y[:, [t]] for t in range(y.shape[1])}
    return torch.tensor(hours.x, dtype=torch.float32), sites


@lru_cache(maxsize=16)
def split(
    name: str, seed: int, plan: Plan = PLANS["cpu"], device: str = "cpu"
) -> tuple[Rows, Rows, Rows]:
    """Training, validation and test rows of a set, drawn at random.

    Inputs and real-valued targets are standardised with the training rows.
    """
    if name == "images":
        return two_sets(seed, plan, device)
    x, y = rows(name)
    counts = [getattr(plan, name), plan.validation, plan.test]
    order = np.random.RandomState(seed).permutation(len(x))[: sum(counts)]
    parts = torch.tensor(order).split(counts)
    train = parts[0]
    x = standardised(x, x[train], limit=5)
    y = {
        task: standardised(values, values[train], limit=5) if values.is_floating_point() else values
        for task, values in y.items()
    }

    def table(part: Tensor) -> Table:
        return Table(x[part].to(device), {task: v[part].to(device) for task, v in y.items()})

    return tuple(table(part) for part in parts)


def labels(table: Rows) -> dict[str, Tensor]:
    """Task -> all its labels."""
    return {name: y for name, (_, y) in table.whole().targets.items()}


def tasks_of(table: Rows) -> dict[str, Task]:
    """Task -> regression for real-valued labels, classification for the others."""
    return {
        name: regression(name) if y.is_floating_point() else classification(name)
        for name, y in labels(table).items()
    }


def constants(train: Rows, table: Rows) -> dict[str, float]:
    """Loss, on `table`, of the best constant prediction for `train`."""
    return common.constants(labels(train), labels(table))


def explained(model: nn.Module, train: Rows, table: Rows) -> dict[str, float]:
    """Task -> 1 - loss / loss of the best constant, on `table`."""
    losses, _ = evaluate_tasks(model, tasks_of(table), table)
    return common.explained(losses, constants(train, table))


# ------------------------------------------------------------------- two image sets of unequal size
IMAGES = ("digit", "angle")


def turned(x: Tensor, angle: Tensor) -> Tensor:
    """Images x [N, 1, H, W] turned by angle [N] degrees, counter-clockwise."""
    a = torch.deg2rad(angle)
    zero = torch.zeros_like(a)
    first = torch.stack([a.cos(), -a.sin(), zero], 1)
    second = torch.stack([a.sin(), a.cos(), zero], 1)
    matrix = torch.stack([first, second], 1)  # [N, 2, 3]
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


@lru_cache(maxsize=4)
def two_sets(
    seed: int, plan: Plan = PLANS["cpu"], device: str = "cpu"
) -> tuple[Separate, Separate, Separate]:
    """Training, validation and test images of 8 x 8 pixels as rows of 64 numbers.

    "digit": UCI digits and their class, few of them; "angle": MNIST digits, turned by up to 45
    degrees, and the angle divided by 45. The parts share no image.
    """
    ds, mnist = data.load("digits"), data.load("mnist_5k")
    few = per_class(ds.y, plan.digits // 10, seed)
    rest = np.random.RandomState([seed, 1]).permutation(np.setdiff1d(np.arange(len(ds.y)), few))
    digit_rows = (few, rest[:300], rest[300:])
    draw = np.random.RandomState([seed, 2])
    order, degrees = draw.permutation(len(mnist.y)), draw.uniform(-45, 45, len(mnist.y))
    angle_rows = (order[: plan.angles], order[4000:4300], order[4300:])

    small = torch.tensor(ds.x, dtype=torch.float32)[:, None] / 16
    angle = torch.tensor(degrees, dtype=torch.float32)
    upright = torch.tensor(np.array(mnist.x), dtype=torch.float32)[:, None] / 255
    inside = turned(upright, angle)[:, :, 2:-2, 2:-2]
    digit = F.adaptive_avg_pool2d(small, 8).flatten(1), torch.tensor(ds.y)
    angle = F.adaptive_avg_pool2d(inside, 8).flatten(1), angle[:, None] / 45

    def some(values: tuple[Tensor, Tensor], rows: np.ndarray) -> tuple[Tensor, Tensor]:
        x, y = values
        return x[rows].to(device), y[rows].to(device)

    return tuple(
        Separate(dict(zip(IMAGES, (some(digit, few), some(angle, many)), strict=True)))
        for few, many in zip(digit_rows, angle_rows, strict=True)
    )


# ----------------------------------------------------------------------------------------- networks
SHARING = ("hard", "soft", "cross-stitch", "MMoE", "PLE", "MTAN", "cascade", "cooperative")
METHODS = ("single", *SHARING)
EXPERTS = 4  # of MMoE
# set -> methods
SETS = {
    "people": METHODS,
    "rivers": ("single", "hard", "MMoE"),
    "images": ("single", "hard", "cross-stitch", "MMoE"),
}


def sizes(table: Rows) -> dict[str, int]:
    """Task -> number of outputs: 1 for a regression, else the number of classes."""
    return {
        name: 1 if y.is_floating_point() else int(y.max()) + 1 for name, y in labels(table).items()
    }


def build(method: str, k: int, d: int, outputs: Mapping[str, int]) -> nn.Module:
    """A network with two layers of width k below linear heads.

    Args:
        method: one of `METHODS`.
        k: units per layer.
        d: inputs.
        outputs: task -> number of outputs m.

    Returns:
        A module from x [B, d] to task -> [B, m].

    Raises:
        ValueError: if there is no such method.
    """
    if method not in METHODS:
        raise ValueError(f"There is no method {method!r}; the methods are {', '.join(METHODS)}.")
    pattern = _features(method, k, d, list(outputs))
    widths = list(outputs.values())
    if method == "cascade":
        inputs = [k + sum(widths[:place]) for place in range(len(widths))]
        heads = {t: nn.Linear(n, m) for (t, m), n in zip(outputs.items(), inputs, strict=True)}
        return Network(pattern, Cascade(heads))
    heads = {t: nn.Linear(k, m) for t, m in outputs.items()}
    if method == "cooperative":
        others = {t: nn.Linear(sum(widths) - m, m) for t, m in outputs.items()}
        return Network(pattern, Cooperative(heads, others))
    return Network(pattern, Parallel(heads))


def _features(method: str, k: int, d: int, names: Sequence[str]) -> nn.Module:
    """The part below the heads: x [B, d] -> task -> [B, k]."""
    if method == "single":
        return OwnTrunks({t: mlp([d, k, k]) for t in names})
    if method == "soft":  # all trunks start at one place
        trunk = mlp([d, k, k])
        return OwnTrunks({t: deepcopy(trunk) for t in names})
    if method == "cross-stitch":
        return CrossStitch({t: [mlp([d, k]), mlp([k, k])] for t in names})
    if method == "MMoE":
        experts = [mlp([d, k, k]) for _ in range(EXPERTS)]
        return MMoE(experts, {t: nn.Linear(d, EXPERTS) for t in names})
    if method == "PLE":
        return PLE([_level(d, k, names, last=False), _level(k, k, names, last=True)])
    if method == "MTAN":
        attention = {t: [nn.Linear(d, k), nn.Linear(2 * k, k)] for t in names}
        return MTAN([mlp([d, k]), mlp([k, k])], attention)
    return Shared(mlp([d, k, k]), names)


def _level(inputs: int, k: int, names: Sequence[str], last: bool) -> CGC:
    """One level of PLE: an expert per task, two shared ones, and gates over the three it sees."""
    gates = {t: nn.Linear(inputs, 3) for t in names}
    own = {t: [mlp([inputs, k])] for t in names}
    shared = [mlp([inputs, k]) for _ in range(2)]
    return CGC(own, shared, gates, None if last else nn.Linear(inputs, len(names) + 2))


def network(method: str, table: Rows, parameters: int, seed: int) -> nn.Module:
    """The widest network of this kind with at most so many parameters.

    A seed always gives the same one.
    """
    d, outputs = table.whole().x.shape[1], sizes(table)
    k = widest(lambda width: build(method, width, d, outputs), parameters)
    return seeded(partial(build, method, k, d, outputs), seed)


# ------------------------------------------------------------------------------------------ one run
def trial(method: str, seed: int, number: int, plan: Plan = PLANS["cpu"]) -> dict:
    """Settings of one trial, as keyword arguments of `fit`.

    The learning rates are the same for all methods; soft sharing also draws the strength of its
    penalty.
    """
    setting = {"rate": plan.rates[number]}
    if method == "soft":
        draw = np.random.RandomState([seed, number, 4])
        setting["strength"] = float(10 ** draw.uniform(-4, -1))
    return setting


def fit(
    method: str,
    parts: Sequence[Rows],
    seed: int,
    rate: float,
    strength: float = 0.0,
    plan: Plan = PLANS["cpu"],
) -> TrainedNetwork:
    """Train one network on parts = (training rows, validation rows): no test rows here."""
    train, validation = parts
    model = network(method, train, plan.parameters, seed).to(train.whole().x.device)
    pull = Penalised(lambda: strength * model.pattern.spread()) if method == "soft" else None
    history = fit_tasks(
        model,
        tasks_of(train),
        train,
        validation,
        torch.optim.Adam(model.parameters(), lr=rate, fused=True),
        pull,
        epochs=plan.epochs,
        patience=plan.patience,
        batch=plan.batch,
        seed=seed,
        progress=False,
    )
    return TrainedNetwork(model, history, explained(model, train, validation), pull)


def search(method: str, parts: Sequence[Rows], seed: int, plan: Plan = PLANS["cpu"]) -> dict:
    """The learning rate with the best validation score, looked at once on the test rows.

    Plain JSON: "explained" of each task on the test rows, "validation", the score, and "chosen".
    """
    train, validation, test = parts
    settings = [trial(method, seed, number, plan) for number in range(len(plan.rates))]

    def with_setting(setting: dict) -> TrainedNetwork:
        return fit(method, (train, validation), seed, **setting, plan=plan)

    best, chosen = best_on_validation(with_setting, settings)
    result = {
        "explained": explained(best.model, train, test),
        "validation": best.score,
        "chosen": chosen,
    }
    return result | (gates(best.model, train, test) if method in ("MMoE", "PLE") else {})


# ---------------------------------------------------------------------------------------- the gates
def entropy(weights: Tensor) -> Tensor:
    """Entropy [B] of each row of weights [B, E] as a share of log E.

    1 if all experts count alike, 0 if one has all the weight.
    """
    return -(weights * weights.clamp_min(1e-12).log()).sum(1) / math.log(weights.shape[1])


def swapped(model: nn.Module) -> nn.Module:
    """A copy of a network with MMoE in which every task has the gate of the next one."""
    copy = deepcopy(model)
    names, gates = list(copy.pattern.gates), list(copy.pattern.gates.values())
    copy.pattern.gates = nn.ModuleDict(zip(names, gates[1:] + gates[:1], strict=True))
    return copy


def gates(model: nn.Module, train: Table, table: Table) -> dict:
    """What the gates do on all inputs of `table`.

    Returns:
        "entropy", the mean of each task's gate; "usage", the mean weight of each expert; of MMoE
        also "swapped", what each task explains with the next one's gate.
    """
    with torch.no_grad():
        weights = model.pattern.weights(table.whole().x)
    result = {
        "entropy": {name: float(entropy(w).mean()) for name, w in weights.items()},
        "usage": {name: w.mean(0).tolist() for name, w in weights.items()},
    }
    if isinstance(model.pattern, MMoE):
        result["swapped"] = explained(swapped(model), train, table)
    return result


# ----------------------------------------------------------------------------------- the comparison
def alone(train: Rows, task: str) -> Rows:
    """The training rows of this task.

    A separate set is repeated: it then gets as many steps and looks at validation data as in
    company.
    """
    rows = train.only([task])
    return rows.repeated(len(train)) if isinstance(rows, Separate) else rows


def single(parts: Sequence[Rows], seed: int, plan: Plan = PLANS["cpu"]) -> dict:
    """A network of its own for each task, tuned and stopped by itself.

    Together they have the parameters of one joint network.
    """
    train, validation, test = parts
    names = list(labels(train))
    small = replace(plan, parameters=plan.parameters // len(names))
    searches = {}
    for name in names:
        rows = alone(train, name), validation.only([name]), test.only([name])
        searches[name] = search("single", rows, seed, small)
    return one_network_per_task(searches)


def compare(
    name: str,
    seed: int,
    plan: Plan = PLANS["cpu"],
    device: str = "cpu",
    methods: Sequence[str] | None = None,
) -> dict:
    """The methods of a set, or some of them: method -> what `search` gives."""
    parts = split(name, seed, plan, device)
    return {
        m: single(parts, seed, plan) if m == "single" else search(m, parts, seed, plan)
        for m in methods or SETS[name]
    }


def reading(seed: int, rate: float = 5e-3, plan: Plan = PLANS["cpu"]) -> dict[str, float]:
    """The failure case: what a head explains of the income that reads nothing, or "married".

    It reads the prediction (a cascade), or the label as a further input. "label, as validated" has
    the label at hand on the test rows, too; "label, in use" has a network's probability in its
    place.

    Returns:
        What is read -> share of the income's loss explained on the test rows.
    """
    parts = [part.only(["married", "income"]) for part in split("people", seed, plan)]
    train, _, test = parts

    def of_income(method: str) -> float:
        model = fit(method, parts[:2], seed, rate, plan=plan).model
        return explained(model, train, test)["income"]

    def with_column(part: Table, column: Tensor) -> Table:
        x = torch.cat([part.x, column[:, None]], dim=1)
        return Table(x, {"income": part.targets["income"]})

    told = [with_column(part, part.targets["married"].float()) for part in parts]
    income = fit("single", told[:2], seed, rate, plan=plan).model
    without = [part.only(["married"]) for part in parts[:2]]
    married = fit("single", without, seed, rate, plan=plan).model
    with torch.no_grad():
        guess = married(test.x)["married"].softmax(1)[:, 1]
    return {
        "nothing": of_income("hard"),
        "prediction": of_income("cascade"),
        "label, as validated": explained(income, told[0], told[2])["income"],
        "label, in use": explained(income, told[0], with_column(test, guess))["income"],
    }


def run(
    profile: str,
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan | None = None,
) -> dict:
    """Everything: set -> method -> one result per seed, as `search` gives them. Plain JSON."""
    plan, device = plan or PLANS[profile], str(fastest()) if profile == "gpu" else "cpu"
    results = {name: {method: [] for method in methods} for name, methods in SETS.items()}
    for seed in seeds:
        for name, methods in results.items():
            once = kept(f"{name}, seed {seed}", compare, name, seed, plan, device)
            for method, rows in methods.items():
                rows.append(once[method])
            report(f"seed {seed}, {name}: {one_line(once, digits=4)}")
    return results


# Some methods chose a rate at an end of the grid, so they are run again with more rates.
WIDER = (*RATES, 2e-4, 1e-1)
AT_THE_ENDS = {
    "people": ("single", "MMoE"),
    "rivers": ("single", "MMoE"),
    "images": ("single", "hard", "cross-stitch", "MMoE"),
}


def run_wider(seeds: Sequence[int]) -> dict:
    """The methods that chose at the ends of their grid, with one more rate on either side."""
    plan = replace(PLANS["cpu"], rates=WIDER)
    results = {name: {m: [] for m in methods} for name, methods in AT_THE_ENDS.items()}
    for seed in seeds:
        for name, methods in results.items():
            once = kept(f"{name}, seed {seed}", compare, name, seed, plan, "cpu", tuple(methods))
            for method, rows in methods.items():
                rows.append(once[method])
    return results


# Written by ``python -m mtl_course.record 04 --profile cpu --part wider --seeds 5``, and the others
# with their names.
RECORDS = {"wider": run_wider, "dial": ch04_dial.run_dial, "census": ch04_census.run_census}
