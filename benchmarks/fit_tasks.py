"""What `fit_tasks` costs beside a training loop written by hand, on one thread of a CPU.

    python benchmarks/fit_tasks.py                   three sizes of MLP; prints a table
    python benchmarks/fit_tasks.py --out loops.json  and writes it with its provenance
    python benchmarks/fit_tasks.py --quick           tiny networks, few rounds: to see that it runs

Four ways to train one trunk with two heads on the sum of their losses: `fit_tasks`; a plain loop
that calls the same model and takes the same batches by index; that loop fed by a `DataLoader`; and,
as the floor, that loop with the model taken apart, so that trunk and heads are called by hand and
no dict of outputs is made. All but the `DataLoader` do the same work and end at the same weights:
zero the gradients, forward, two losses, their sum, backward, step of the optimizer; after every
epoch loss and metric of both tasks on the validation data, and a copy of the weights if they are
the best so far. Rounds are interleaved, so that a busy moment hits all ways alike, and each round
trains anew from the same weights. Shown are CPU seconds of the process, the median over the rounds,
and the ratio to the plain loop in the same round: its median and, in brackets, its quartiles.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from mtl_course import records
from mtl_course.data.batches import Table
from mtl_course.multitask import HardSharing, fit_tasks
from mtl_course.networks.trunks import mlp
from mtl_course.training import accuracy, classification, r2, regression

INPUTS, CLASSES = 32, 10
TASKS = {"size": regression("size"), "kind": classification("kind")}


@dataclass(frozen=True)
class Plan:
    """widths: of the two hidden layers, an MLP for each. train, validation, batch: rows.

    epochs: in a round; rounds: how many.
    """

    widths: tuple[int, ...] = (64, 256, 512)
    train: int = 2048
    validation: int = 512
    batch: int = 32
    epochs: int = 8
    rounds: int = 20


QUICK = Plan(widths=(4, 8), train=64, validation=16, batch=16, epochs=2, rounds=2)


def table(rows: int, seed: int) -> Table:
    """Random inputs [rows, 32] with a number [rows, 1] and a class [rows] that depend on them."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, INPUTS, generator=g)
    noise = torch.randn(rows, 1, generator=g)
    return Table(x, {"size": x[:, :1] + 0.1 * noise, "kind": x[:, :CLASSES].argmax(1)})


def network(width: int) -> HardSharing:
    """Two hidden layers of this width below a head for each task, always with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        heads = {"size": nn.Linear(width, 1), "kind": nn.Linear(width, CLASSES)}
        return HardSharing(mlp([INPUTS, width, width]), heads)


def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """The one of all ways."""
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


# ---------------------------------------------------------------------------------- the three loops
def with_fit_tasks(model: HardSharing, plan: Plan) -> None:
    train, validation = table(plan.train, seed=0), table(plan.validation, seed=1)
    options = {"epochs": plan.epochs, "batch": plan.batch, "progress": False}
    fit_tasks(model, TASKS, train, validation, optimizer(model), **options)


def by_index(data: Table, plan: Plan) -> Callable[[], Iterator[tuple[Tensor, Tensor, Tensor]]]:
    """Epochs of batches in the order in which `fit_tasks` takes them."""
    order = torch.Generator().manual_seed(0)
    x, size, kind = data.x, data.targets["size"], data.targets["kind"]

    def epoch():
        for rows in torch.randperm(len(x), generator=order).split(plan.batch):
            yield x[rows], size[rows], kind[rows]

    return epoch


def by_loader(data: Table, plan: Plan) -> Callable[[], Iterator[tuple[Tensor, Tensor, Tensor]]]:
    """Epochs of batches from a `DataLoader` in this process."""
    sets = TensorDataset(data.x, data.targets["size"], data.targets["kind"])
    loader = DataLoader(sets, plan.batch, shuffle=True, generator=torch.Generator().manual_seed(0))
    return lambda: loader


def called(model: HardSharing) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The model as it is: inputs -> its two outputs."""

    def outputs(x):
        out = model(x)
        return out["size"], out["kind"]

    return outputs


def apart(model: HardSharing) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Trunk and heads by hand, without the call of the model around them."""
    trunk, size_head, kind_head = model.trunk, model.heads["size"], model.heads["kind"]

    def outputs(x):
        z = trunk(x)
        return size_head(z), kind_head(z)

    return outputs


def plain(
    model: HardSharing, plan: Plan, batches: Callable = by_index, outputs_of: Callable = called
) -> None:
    """The loop by hand; `batches` starts its epochs, `outputs_of` says how the model is called."""
    train, validation = table(plan.train, seed=0), table(plan.validation, seed=1)
    epochs, step, outputs = batches(train, plan), optimizer(model), outputs_of(model)

    def validate() -> tuple[list[float], list[float]]:
        size, kind = validation.targets["size"], validation.targets["kind"]
        model.eval()
        with torch.no_grad():
            numbers, logits = outputs(validation.x)
            losses = F.mse_loss(numbers, size), F.cross_entropy(logits, kind)
            metrics = r2(numbers, size), accuracy(logits, kind)
        model.train()
        return [float(v) for v in losses], [float(v) for v in metrics]

    initial, _ = validate()
    best, least = deepcopy(model.state_dict()), math.inf
    history = []
    for _ in range(plan.epochs):
        totals = [0.0, 0.0]
        for x, size, kind in epochs():
            step.zero_grad()
            numbers, logits = outputs(x)
            size_loss = F.mse_loss(numbers, size)
            kind_loss = F.cross_entropy(logits, kind)
            (size_loss + kind_loss).backward()
            step.step()
            totals[0] += size_loss.item()
            totals[1] += kind_loss.item()
        losses, metrics = validate()
        history.append((totals, losses, metrics))
        relative = sum(a / b for a, b in zip(losses, initial, strict=True)) / 2
        if relative < least:
            best, least = deepcopy(model.state_dict()), relative
    model.load_state_dict(best)


def with_loader(model: HardSharing, plan: Plan) -> None:
    plain(model, plan, by_loader)


def taken_apart(model: HardSharing, plan: Plan) -> None:
    plain(model, plan, outputs_of=apart)


WAYS = {
    "plain loop": plain,
    "fit_tasks": with_fit_tasks,
    "DataLoader loop": with_loader,
    "model taken apart": taken_apart,
}


# ------------------------------------------------------------------------------------------- timing
def measure(width: int, plan: Plan) -> dict[str, dict]:
    """Way -> microseconds a step, and its ratio to the plain loop: quartiles over the rounds."""
    seconds = {way: [] for way in WAYS}
    start = network(width)
    for _ in range(plan.rounds + 1):
        for way, train in WAYS.items():
            model = deepcopy(start)
            begin = time.process_time()
            train(model, plan)
            seconds[way].append(time.process_time() - begin)
    seconds = {way: took[1:] for way, took in seconds.items()}  # the first round warms up
    steps = plan.epochs * math.ceil(plan.train / plan.batch)
    first = seconds["plain loop"]
    return {
        way: {
            "microseconds": 1e6 * statistics.median(took) / steps,
            "ratio": quartiles([a / b for a, b in zip(took, first, strict=True)]),
        }
        for way, took in seconds.items()
    }


def quartiles(values: list[float]) -> list[float]:
    return statistics.quantiles(values, n=4, method="inclusive")


def line(width: int, cells: dict[str, dict]) -> str:
    """One line of the table."""
    text = f"width {width:<6}"
    for cell in cells.values():
        low, middle, high = cell["ratio"]
        ratio = f"{middle:.3f} [{low:.3f}, {high:.3f}]"
        text += f"{cell['microseconds']:8.0f} us {ratio:>21}"
    return text


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny networks and two rounds")
    parser.add_argument("--rounds", type=int, help="how many rounds (default: 20)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)
    plan = QUICK if options.quick else Plan()
    if options.rounds:
        plan = Plan(**asdict(plan) | {"rounds": options.rounds})
    torch.set_num_threads(1)
    provenance = records.provenance([0]) | {"command": "python benchmarks/fit_tasks.py"}
    print(f"{provenance['device']}, torch {provenance['torch']}")
    print(f"Microseconds a step of {plan.batch} rows; in brackets the quartiles of the ratio")
    print(f"{'':12}" + "".join(f"{way:>32}" for way in WAYS))
    results = {}
    for width in plan.widths:
        results[str(width)] = measure(width, plan)
        print(line(width, results[str(width)]), flush=True)
    if options.out:
        content = {"plan": asdict(plan), "results": results, "provenance": provenance}
        options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        print(f"written to {options.out}")


if __name__ == "__main__":
    main()
