"""Chapter 4: ways to share at an equal number of parameters, on people, on rivers, and on two image
sets of unequal size. Needs no Jupyter.

The score of a task is the share of the best constant's loss that the network explains, 1 - L /
L_constant: R2 for a squared error, the explained share of the entropy for a cross-entropy. It has
no unit, so it can be averaged over tasks.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import data
from ..data.batches import Separate, Table
from ..data.splits import per_class
from ..multitask.experts import CGC, PLE, MMoE
from ..multitask.fit import TaskHistory, evaluate_tasks, fit_tasks
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
from ..runtime import device as fastest
from ..training.tasks import Task, classification, regression
from .ch01 import river
from .ch05 import census

RATES = (1e-3, 5e-3, 2e-2)  # learning rates that every method may choose from
Rows = Table | Separate


@dataclass(frozen=True)
class Plan:
    """Size of the experiments. parameters: of all networks of a method together; digits, angles:
    images with a label of either kind.
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
    """All rows of a set: x [N, d] and task -> labels, [N, 1] float32 for a regression and [N] int64
    for a classification.
    """
    if name == "people":
        x, y = census()
        labels = {k: torch.tensor(v) for k, v in y.items()}
        return torch.tensor(x, dtype=torch.float32), {
            k: v[:, None].float() if k == "hours" else v for k, v in labels.items()
        }
    x, y = river()
    return x, {f"site {t + 1}": y[:, [t]] for t in range(y.shape[1])}


@lru_cache(maxsize=16)
def split(
    name: str, seed: int, plan: Plan = PLANS["cpu"], device: str = "cpu"
) -> tuple[Rows, Rows, Rows]:
    """Training, validation and test rows at random; inputs and real-valued targets are standardised
    with the training rows.
    """
    if name == "images":
        return two_sets(seed, plan, device)
    x, y = rows(name)
    counts = [getattr(plan, name), plan.validation, plan.test]
    parts = torch.tensor(np.random.RandomState(seed).permutation(len(x))[: sum(counts)]).split(
        counts
    )

    def standard(v: Tensor) -> Tensor:
        return ((v - v[parts[0]].mean(0)) / v[parts[0]].std(0).clamp_min(1e-6)).clamp(-5, 5)

    z, t = standard(x), {task: standard(v) if v.is_floating_point() else v for task, v in y.items()}
    return tuple(
        Table(z[part].to(device), {task: v[part].to(device) for task, v in t.items()})
        for part in parts
    )


def labels(table: Rows) -> dict[str, Tensor]:
    """Task -> all its labels."""
    return {name: y for name, (_, y) in table.whole().targets.items()}


def tasks_of(table: Rows) -> dict[str, Task]:
    return {
        name: regression(name) if y.is_floating_point() else classification(name)
        for name, y in labels(table).items()
    }


def constants(train: Rows, table: Rows) -> dict[str, float]:
    """Loss, on `table`, of the best constant prediction for `train`: the mean of a number, the
    shares of the classes.
    """
    found, known = {}, labels(train)
    for name, held in labels(table).items():
        y = known[name]
        if y.is_floating_point():
            found[name] = float(((held - y.mean(0)) ** 2).mean())
        else:
            found[name] = float(-(torch.bincount(y) / len(y)).log()[held].mean())
    return found


def explained(model: nn.Module, train: Rows, table: Rows) -> dict[str, float]:
    """Task -> 1 - loss / loss of the best constant, on `table`."""
    losses, _ = evaluate_tasks(model, tasks_of(table), table)
    floor = constants(train, table)
    return {name: 1 - losses[name] / floor[name] for name in losses}


# ------------------------------------------------------------------- two image sets of unequal size
IMAGES = ("digit", "angle")


def turned(x: Tensor, angle: Tensor) -> Tensor:
    """Images x [N, 1, H, W] turned by angle [N] degrees, counter-clockwise."""
    a = torch.deg2rad(angle)
    zero = torch.zeros_like(a)
    matrix = torch.stack(
        [torch.stack([a.cos(), -a.sin(), zero], 1), torch.stack([a.sin(), a.cos(), zero], 1)], 1
    )
    return F.grid_sample(
        x, F.affine_grid(matrix, list(x.shape), align_corners=False), align_corners=False
    )


@lru_cache(maxsize=4)
def two_sets(
    seed: int, plan: Plan = PLANS["cpu"], device: str = "cpu"
) -> tuple[Separate, Separate, Separate]:
    """Training, validation and test images of 8 x 8 pixels as rows of 64 numbers. "digit": UCI
    digits and their class, few of them; "angle": MNIST digits, turned by up to 45 degrees, and the
    angle divided by 45. The parts share no image."""
    ds, mnist = data.load("digits"), data.load("mnist_5k")
    few = per_class(ds.y, plan.digits // 10, seed)
    rest = np.random.RandomState([seed, 1]).permutation(np.setdiff1d(np.arange(len(ds.y)), few))
    digit_rows = (few, rest[:300], rest[300:])
    draw = np.random.RandomState([seed, 2])
    order, degrees = draw.permutation(len(mnist.y)), draw.uniform(-45, 45, len(mnist.y))
    angle_rows = (order[: plan.angles], order[4000:4300], order[4300:])

    def images(x, size):
        return F.adaptive_avg_pool2d(torch.tensor(x, dtype=torch.float32)[:, None] / size, 8)

    angle = torch.tensor(degrees, dtype=torch.float32)
    upright = torch.tensor(np.array(mnist.x), dtype=torch.float32)[:, None] / 255
    x = {
        "digit": images(ds.x, 16),
        "angle": F.adaptive_avg_pool2d(turned(upright, angle)[:, :, 2:-2, 2:-2], 8),
    }
    y = {"digit": torch.tensor(ds.y), "angle": angle[:, None] / 45}
    return tuple(
        Separate(
            {
                t: (x[t][r].flatten(1).to(device), y[t][r].to(device))
                for t, r in zip(IMAGES, pair, strict=True)
            }
        )
        for pair in zip(digit_rows, angle_rows, strict=True)
    )


# ----------------------------------------------------------------------------------------- networks
METHODS = (
    "single",
    "hard",
    "soft",
    "cross-stitch",
    "MMoE",
    "PLE",
    "MTAN",
    "cascade",
    "cooperative",
)
EXPERTS = 4  # of MMoE
SETS = {
    "people": METHODS,
    "rivers": ("single", "hard", "MMoE"),
    "images": ("single", "hard", "cross-stitch", "MMoE"),
}  # set -> methods


def sizes(table: Rows) -> dict[str, int]:
    """Task -> number of outputs: 1 for a regression, the number of classes for a classification."""
    return {
        name: 1 if y.is_floating_point() else int(y.max()) + 1 for name, y in labels(table).items()
    }


def build(method: str, k: int, d: int, outputs: Mapping[str, int]) -> nn.Module:
    """A network with two layers of width k below linear heads: from x [B, d] to task -> [B, outputs
    of the task].
    """
    names, T = list(outputs), len(outputs)

    def heads() -> dict[str, nn.Module]:
        return {t: nn.Linear(k, m) for t, m in outputs.items()}

    if method == "single":
        return Network(OwnTrunks({t: mlp([d, k, k]) for t in names}), Parallel(heads()))
    if method == "hard":
        return Network(Shared(mlp([d, k, k]), names), Parallel(heads()))
    if method == "soft":  # all trunks start at one place
        trunk = mlp([d, k, k])
        return Network(OwnTrunks({t: deepcopy(trunk) for t in names}), Parallel(heads()))
    if method == "cross-stitch":
        return Network(
            CrossStitch({t: [mlp([d, k]), mlp([k, k])] for t in names}), Parallel(heads())
        )
    if method == "MMoE":
        return Network(
            MMoE(
                [mlp([d, k, k]) for _ in range(EXPERTS)], {t: nn.Linear(d, EXPERTS) for t in names}
            ),
            Parallel(heads()),
        )
    if method == "PLE":

        def level(m, last):
            gates = {t: nn.Linear(m, 3) for t in names}
            return CGC(
                {t: [mlp([m, k])] for t in names},
                [mlp([m, k]) for _ in range(2)],
                gates,
                None if last else nn.Linear(m, T + 2),
            )

        return Network(PLE([level(d, last=False), level(k, last=True)]), Parallel(heads()))
    if method == "MTAN":
        attention = {t: [nn.Linear(d, k), nn.Linear(2 * k, k)] for t in names}
        return Network(MTAN([mlp([d, k]), mlp([k, k])], attention), Parallel(heads()))
    trunk, widths = Shared(mlp([d, k, k]), names), list(outputs.values())
    if method == "cascade":
        return Network(
            trunk,
            Cascade(
                {t: nn.Linear(k + sum(widths[:i]), m) for i, (t, m) in enumerate(outputs.items())}
            ),
        )
    if method == "cooperative":
        return Network(
            trunk,
            Cooperative(heads(), {t: nn.Linear(sum(widths) - m, m) for t, m in outputs.items()}),
        )
    raise ValueError(f"There is no method {method!r}; the methods are {', '.join(METHODS)}.")


def network(method: str, table: Rows, parameters: int, seed: int) -> nn.Module:
    """The widest network of this kind with at most so many parameters; a seed always gives the same
    one.
    """
    d, outputs = table.whole().x.shape[1], sizes(table)
    k = widest(lambda width: build(method, width, d, outputs), parameters)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(method, k, d, outputs)


# ------------------------------------------------------------------------------------------ one run
@dataclass
class Run:
    """A trained network, its history, and task -> share explained on the validation data."""

    model: nn.Module
    history: TaskHistory
    explained: dict[str, float]

    @property
    def score(self) -> float:
        return float(np.mean(list(self.explained.values())))


def trial(method: str, seed: int, number: int, plan: Plan = PLANS["cpu"]) -> dict:
    """Settings of one trial. The learning rates are the same for all methods; soft sharing also
    draws the strength of its penalty.
    """
    found = {"rate": plan.rates[number]}
    if method == "soft":
        found["strength"] = float(10 ** np.random.RandomState([seed, number, 4]).uniform(-4, -1))
    return found


def fit(
    method: str,
    parts: Sequence[Rows],
    seed: int,
    rate: float,
    strength: float = 0.0,
    plan: Plan = PLANS["cpu"],
) -> Run:
    """Train one network on parts = (training rows, validation rows); test rows are not looked at."""
    train, validation = parts
    model = network(method, train, plan.parameters, seed).to(train.whole().x.device)
    history = fit_tasks(
        model,
        tasks_of(train),
        train,
        validation,
        torch.optim.Adam(model.parameters(), lr=rate, fused=True),
        Penalised(lambda: strength * model.pattern.spread()) if method == "soft" else None,
        epochs=plan.epochs,
        patience=plan.patience,
        batch=plan.batch,
        seed=seed,
        progress=False,
    )
    return Run(model, history, explained(model, train, validation))


def search(method: str, parts: Sequence[Rows], seed: int, plan: Plan = PLANS["cpu"]) -> dict:
    """The learning rate with the best validation score, looked at once on the test rows. Plain
    JSON.
    """
    runs = []
    for number in range(len(plan.rates)):
        setting = trial(method, seed, number, plan)
        try:
            runs.append((fit(method, parts[:2], seed, **setting, plan=plan), setting))
        except FloatingPointError:
            continue  # a diverged trial is a trial
    best, chosen = max(runs, key=lambda run: run[0].score)
    found = {
        "explained": explained(best.model, parts[0], parts[2]),
        "validation": best.score,
        "chosen": chosen,
    }
    return found | (gates(best.model, parts[0], parts[2]) if method in ("MMoE", "PLE") else {})


# ---------------------------------------------------------------------------------------- the gates
def entropy(weights: Tensor) -> Tensor:
    """Entropy of each row of weights [B, E] as a share of log E: 1 if all experts count alike, 0 if
    one has all. [B]
    """
    return -(weights * weights.clamp_min(1e-12).log()).sum(1) / math.log(weights.shape[1])


def swapped(model: nn.Module) -> nn.Module:
    """A copy of a network with MMoE in which every task has the gate of the next one."""
    copy = deepcopy(model)
    names, gates = list(copy.pattern.gates), list(copy.pattern.gates.values())
    copy.pattern.gates = nn.ModuleDict(zip(names, gates[1:] + gates[:1], strict=True))
    return copy


def gates(model: nn.Module, train: Table, table: Table) -> dict:
    """What the gates do on all inputs of `table`: mean entropy of each task's gate and the mean
    weight of each expert; what swapping them costs.
    """
    with torch.no_grad():
        weights = model.pattern.weights(table.whole().x)
    found = {
        "entropy": {name: float(entropy(w).mean()) for name, w in weights.items()},
        "usage": {name: w.mean(0).tolist() for name, w in weights.items()},
    }
    if isinstance(model.pattern, MMoE):
        found["swapped"] = explained(swapped(model), train, table)
    return found


# ----------------------------------------------------------------------------------- the comparison
def alone(train: Rows, task: str) -> Rows:
    """The training rows of this task. A separate set is repeated: it then gets as many steps and
    looks at validation data as in company.
    """
    own = train.only([task])
    return own.repeated(len(train)) if isinstance(own, Separate) else own


def single(parts: Sequence[Rows], seed: int, plan: Plan = PLANS["cpu"]) -> dict:
    """A network of its own for each task, tuned and stopped by itself; together they have the
    parameters of one joint network.
    """
    names = list(labels(parts[0]))
    train, *held = parts
    small = replace(plan, parameters=plan.parameters // len(names))
    found = {
        t: search("single", [alone(train, t), *(part.only([t]) for part in held)], seed, small)
        for t in names
    }
    return {
        "explained": {t: one["explained"][t] for t, one in found.items()},
        "validation": float(np.mean([one["validation"] for one in found.values()])),
        "chosen": {t: one["chosen"] for t, one in found.items()},
    }


def compare(name: str, seed: int, plan: Plan = PLANS["cpu"], device: str = "cpu") -> dict:
    """The methods of a set: method -> what `search` gives."""
    parts = split(name, seed, plan, device)
    return {
        m: single(parts, seed, plan) if m == "single" else search(m, parts, seed, plan)
        for m in SETS[name]
    }


def reading(seed: int, rate: float = 5e-3, plan: Plan = PLANS["cpu"]) -> dict[str, float]:
    """The failure case: share of the income's loss explained, if its head reads nothing, the
    prediction "married", or the label "married".

    "label, as validated" has the label at hand on the test rows, too; "label, in use" has a
    network's probability in its place.
    """
    parts = [part.only(["married", "income"]) for part in split("people", seed, plan)]
    train, _, test = parts
    found = {
        method: explained(fit(method, parts[:2], seed, rate, plan=plan).model, train, test)[
            "income"
        ]
        for method in ("hard", "cascade")
    }

    def with_column(part: Table, column: Tensor) -> Table:
        return Table(
            torch.cat([part.x, column[:, None]], dim=1), {"income": part.targets["income"]}
        )

    told = [with_column(part, part.targets["married"].float()) for part in parts]
    income = fit("single", told[:2], seed, rate, plan=plan).model
    married = fit(
        "single", [part.only(["married"]) for part in parts[:2]], seed, rate, plan=plan
    ).model
    with torch.no_grad():
        guess = married(test.x)["married"].softmax(1)[:, 1]
    return {
        "nothing": found["hard"],
        "prediction": found["cascade"],
        "label, as validated": explained(income, told[0], told[2])["income"],
        "label, in use": explained(income, told[0], with_column(test, guess))["income"],
    }


def run(
    profile: str = "cpu",
    seeds: Sequence[int] = range(5),
    plan: Plan | None = None,
    report: Callable = print,
) -> dict:
    """Everything: set -> method -> one result a seed, as `search` gives them. Plain JSON."""
    plan, device = plan or PLANS[profile], str(fastest()) if profile == "gpu" else "cpu"
    results = {name: {m: [] for m in methods} for name, methods in SETS.items()}
    for seed in seeds:
        for name, methods in results.items():
            once = compare(name, seed, plan, device)
            for method, found in methods.items():
                found.append(once[method])
            line = ", ".join(
                f"{method} {np.mean(list(one['explained'].values())):.4f}"
                for method, one in once.items()
            )
            report(f"seed {seed}, {name}: {line}")
    return results
