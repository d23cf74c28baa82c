"""Chapter 9: experts on a census. Who earns more than 50,000 dollars, and who never married.

Adults of the census-income (KDD) table. One trunk, MMoE, PLE and sparse experts at an equal number
of parameters, beside one network per task. Needs no Jupyter.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import data, multitask
from ..networks import TableEmbedding, parameters, widest
from ..networks.trunks import mlp
from ..records.pieces import kept
from ..training.ranking import auc
from .common import seeded

TASKS = ("income", "never married")
# marital status is a task, and these say it nearly in plain words
LEFT_OUT = ("marital status", "household and family", "household summary", "tax filer")
METHODS = ("single", "shared", "MMoE", "PLE", "top-1", "top-1, balanced")
EXPERTS = 4


@dataclass(frozen=True)
class CensusPlan:
    """Sizes and settings, the same for every method.

    Args:
        sizes: numbers of training rows.
        held: validation rows.
        test: test rows, of the official test part.
        budget: parameters above the embedding, at most.
        vector: length of a category's vector.
        steps: of Adam; validation chooses the stop.
        stops: how many stops there are.
        batch: rows per step.
        rates: that each method may try.
        balance: weight of the balance loss.
    """

    sizes: tuple[int, ...] = (500, 5_000, 100_000)
    held: int = 4_000
    test: int = 20_000
    budget: int = 12_000
    vector: int = 4
    steps: int = 200
    stops: int = 10
    batch: int = 256
    rates: tuple[float, ...] = (0.002, 0.006)
    balance: float = 0.1


PLAN = CensusPlan()


@cache
def people() -> tuple[dict[str, Tensor], dict[str, Tensor], list[str], dict[str, int]]:
    """Adults for training and for the test: "x" float [N, C], "y" float [N, 2].

    Amounts of money are log(1 + amount); categories are numbered from 1 on.

    Returns:
        Training part, test part, names of the numbers, and column -> its categories.
    """
    ds = data.load("census_income")
    numbers, codes = ([str(n) for n in ds[key]] for key in ("number_names", "code_names"))
    kept_codes = [i for i, name in enumerate(codes) if name not in LEFT_OUT]
    levels = {codes[i]: int(ds["levels"][i]) for i in kept_codes}
    place, names = codes.index("marital status"), [str(n) for n in ds["level_names"]]
    start = int(np.sum(ds["levels"][:place]))
    never = names[start : start + int(ds["levels"][place])].index("Never married")
    money = [numbers.index(n) for n in ("wage per hour", "capital gains", "capital losses")]
    money.append(numbers.index("dividends"))
    both = []
    for part in ("train", "test"):
        amounts = np.array(ds[f"numbers_{part}"], dtype=np.float32)
        adult = amounts[:, numbers.index("age")] >= 18
        amounts[:, money] = np.log1p(amounts[:, money])
        coded = np.array(ds[f"codes_{part}"][:, kept_codes], dtype=np.float32) + 1
        y = np.column_stack([ds[f"income_{part}"], ds[f"codes_{part}"][:, place] == never])
        both.append(
            {
                "x": torch.from_numpy(np.hstack([amounts, coded])[adult]),
                "y": torch.from_numpy(y[adult].astype(np.float32)),
            }
        )
    return both[0], both[1], numbers, levels


def draw(plan: CensusPlan, size: int, seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """ "train", "held" and "test": inputs and labels; smaller draws are part of larger ones.

    Numbers are in units of the training rows; a category that these do not have gets code 0.
    """
    train, test, numbers, _ = people()
    g = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(train["x"]), generator=g)
    other = torch.randperm(len(test["x"]), generator=g)[: plan.test]
    parts = {
        "train": (train["x"][order[plan.held :][:size]], train["y"][order[plan.held :][:size]]),
        "held": (train["x"][order[: plan.held]], train["y"][order[: plan.held]]),
        "test": (test["x"][other], test["y"][other]),
    }
    like, n = parts["train"][0], len(numbers)
    mean, spread = like[:, :n].mean(0), like[:, :n].std(0).clamp_min(1e-3)
    known = [torch.bincount(column.long(), minlength=60) > 0 for column in like[:, n:].T]
    scaled = {}
    for name, (x, y) in parts.items():
        x = x.clone()
        x[:, :n] = ((x[:, :n] - mean) / spread).clamp(-5, 5)
        for c, there in enumerate(known):
            x[:, n + c] = torch.where(there[x[:, n + c].long()], x[:, n + c], 0)
        scaled[name] = x, y
    return scaled


class CensusNetwork(nn.Module):
    """Embedding, pattern and one linear head per task: x [B, C] -> logits [B, tasks].

    Args:
        embedding: of the table.
        pattern: from its features to task -> [B, k].
        width: k.
        tasks: names.
    """

    def __init__(
        self, embedding: nn.Module, pattern: nn.Module, width: int, tasks: Sequence[str] = TASKS
    ):
        super().__init__()
        self.embedding, self.pattern, self.tasks = embedding, pattern, tuple(tasks)
        self.heads = nn.ModuleDict({task: nn.Linear(width, 1) for task in tasks})

    def forward(self, x: Tensor) -> Tensor:
        """Logits, a column per task."""
        z = self.pattern(self.embedding(x))
        return torch.cat([self.heads[task](z[task]) for task in self.tasks], dim=1)


def pattern(method: str, d: int, k: int, tasks: Sequence[str] = TASKS, experts: int = EXPERTS):
    """The part between embedding and heads, from [B, d] to task -> [B, k]."""

    def expert(inputs=d):
        return mlp([inputs, k, k] if inputs == d else [inputs, k])

    def gates(count, inputs=d):
        return {task: nn.Linear(inputs, count) for task in tasks}

    if method in ("shared", "single"):
        return multitask.Shared(expert(), tasks)
    if method == "MMoE":
        return multitask.MMoE([expert() for _ in range(experts)], gates(experts))
    if method.startswith("top-1"):
        return multitask.TopOne([expert() for _ in range(experts)], gates(experts))
    if method != "PLE":
        raise ValueError(f"There is no method {method!r}; the methods are {', '.join(METHODS)}.")
    first = multitask.CGC(
        {task: [mlp([d, k])] for task in tasks},
        [mlp([d, k]), mlp([d, k])],
        gates(3),
        nn.Linear(d, len(tasks) + 2),
    )
    last = multitask.CGC(
        {task: [mlp([k, k])] for task in tasks}, [mlp([k, k]), mlp([k, k])], gates(3, k)
    )
    return multitask.PLE([first, last])


def network(method: str, plan: CensusPlan, seed: int, tasks: Sequence[str] = TASKS):
    """The widest network of this kind within the budget, drawn by the seed."""
    _, _, numbers, levels = people()
    d = len(numbers) + plan.vector * len(levels)
    # one network per task has the budget of its share
    budget = plan.budget * len(tasks) // len(TASKS)
    k = widest(lambda k: pattern(method, d, k, tasks), budget)

    def build():
        embedding = TableEmbedding(numbers, levels, plan.vector)
        return CensusNetwork(embedding, pattern(method, d, k, tasks), k, tasks)

    return seeded(build, seed)


def fit(
    model: CensusNetwork,
    x: Tensor,
    y: Tensor,
    plan: CensusPlan,
    rate: float,
    seed: int,
    balance: float = 0.0,
    judge: Callable[[CensusNetwork, int], object] = lambda model, step: None,
) -> CensusNetwork:
    """Adam on the sum of the tasks' cross-entropies; `judge(model, step)` at every stop."""
    optimizer = torch.optim.Adam(model.parameters(), rate)
    g = torch.Generator().manual_seed(seed)
    for step in range(1, plan.steps + 1):
        rows = torch.randint(len(x), (plan.batch,), generator=g)
        logits = model(x[rows])
        loss = F.binary_cross_entropy_with_logits(logits, y[rows]) * len(model.tasks)
        if balance:
            loss = loss + balance * model.pattern.balance(model.embedding(x[rows]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % (plan.steps // plan.stops) == 0:
            judge(model, step)
    return model


@torch.no_grad()
def gate_use(model: CensusNetwork, x: Tensor) -> dict[str, dict] | None:
    """What each gate does on rows x: task -> its mean "weights", and the "share" of the rows that
    each expert is the best for. None without gates.
    """
    if not hasattr(model.pattern, "weights"):
        return None
    said = model.pattern.weights(model.embedding(x))
    return {
        task: {
            "weights": p.mean(0).tolist(),
            "share": (torch.bincount(p.argmax(1), minlength=p.shape[1]) / len(p)).tolist(),
        }
        for task, p in said.items()
    }


def searched(
    method: str, plan: CensusPlan, parts: Mapping, seed: int, tasks: Sequence[str] = TASKS
) -> dict:
    """The best rate and stop by the mean validation AUC of the tasks; judged on the test."""
    columns = [TASKS.index(task) for task in tasks]
    (x, y), (x_held, y_held), (x_test, y_test) = (
        (x, y[:, columns]) for x, y in (parts[name] for name in ("train", "held", "test"))
    )
    best = {"validation": -1.0}

    def judged(model, x, y):
        logits = model(x)
        return {task: float(auc(logits[:, t], y[:, t])) for t, task in enumerate(tasks)}

    for rate in plan.rates:

        @torch.no_grad()
        def judge(model, step, rate=rate):
            value = float(np.mean(list(judged(model, x_held, y_held).values())))
            if value > best["validation"]:
                best.update(
                    validation=value,
                    rate=rate,
                    stop=step,
                    test=judged(model, x_test, y_test),
                    gates=gate_use(model, x_test),
                )

        model = network(method, plan, seed, tasks)
        balance = plan.balance if method == "top-1, balanced" else 0.0
        fit(model, x, y, plan, rate, seed, balance, judge)
        best["parameters"] = parameters(model.pattern)
    return best


def one_method(method: str, plan: CensusPlan, size: int, seed: int) -> dict:
    """A method's test AUC by task, its rate and stop, and what its gates do.

    "single" is a network per task, each with half of the budget and a search of its own.
    """
    parts = draw(plan, size, seed)
    if method != "single":
        return searched(method, plan, parts, seed)
    alone = {task: searched(method, plan, parts, seed, [task]) for task in TASKS}
    return {
        "test": {task: row["test"][task] for task, row in alone.items()},
        "rate": {task: row["rate"] for task, row in alone.items()},
        "stop": {task: row["stop"] for task, row in alone.items()},
        "gates": None,
        "parameters": sum(row["parameters"] for row in alone.values()),
    }


def census_seed(
    seed: int, report: Callable[[str], None] = print, *, plan: CensusPlan = PLAN
) -> dict:
    """Number of rows -> method -> what `one_method` gives."""
    results = {}
    for size in plan.sizes:
        results[str(size)] = {
            method: kept(
                f"census, {size} rows, {method}, seed {seed}", one_method, method, plan, size, seed
            )
            for method in METHODS
        }
        shown = {
            method: [round(v, 4) for v in row["test"].values()]
            for method, row in results[str(size)].items()
        }
        report(f"seed {seed}, {size} rows: {shown}")
    return results


def census_matrix(seeds: Sequence[Mapping], method: str) -> np.ndarray:
    """Test AUC of a method, [seeds, sizes, tasks], in the order of TASKS."""
    sizes = sorted(seeds[0], key=int)
    return np.array(
        [[[row[size][method]["test"][task] for task in TASKS] for size in sizes] for row in seeds]
    )
