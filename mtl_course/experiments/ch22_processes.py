"""Chapter 22: what runs on several processes at once; `training.launch` starts them.

`train` is an ordinary run of `fit_tasks`, with no word about processes in it. `matrices` takes the
Gram matrix of the task gradients in two orders, `seconds` times the parts of a step, and `tour`
does all three in one start of the processes. Needs no Jupyter.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from statistics import median

import torch
from torch import Tensor, distributed, nn

from ..data.batches import Batch, Separate
from ..multitask.balancing import gram, upgrad
from ..multitask.fit import fit_tasks
from ..multitask.sharing import HardSharing
from ..multitask.weighting import EqualWeights
from ..networks.trunks import mlp
from ..training.distributed import process_mean, world
from ..training.tasks import Task, classification
from .ch22 import PLANS, SCRIPTS, draw_sets
from .common import seeded

SMALL = replace(PLANS["cpu"], copies=2, sizes=(200,) * 5, validation=60, test=60)
REPEATS = 9  # of everything that is timed; the median counts


@dataclass
class Reading:
    """Five scripts to be read, 200 pictures of each, and an untrained network.

    Args:
        model: one trunk and five heads.
        tasks: script -> task.
        train: a set for each script.
        validation: likewise.
    """

    model: HardSharing
    tasks: dict[str, Task]
    train: Separate
    validation: Separate


@cache
def _sets() -> tuple[Separate, Separate]:
    sets = draw_sets(SMALL, 0)
    return Separate(sets["train"]), Separate(sets["validation"])


def reading(width: int = SMALL.width) -> Reading:
    """The same in every process: data and weights come from a seed."""

    def build():
        trunk = nn.Sequential(*mlp([SMALL.size**2, width, width]))
        return HardSharing(trunk, {s: nn.Linear(width, SMALL.classes) for s in SCRIPTS})

    tasks = {script: classification(script) for script in SCRIPTS}
    return Reading(seeded(build, 0), tasks, *_sets())


def fitted(task: Reading, combine, epochs: int = 2, accumulate: int = 1) -> HardSharing:
    """The network after so many epochs of SGD, of five steps each."""
    fit_tasks(
        task.model,
        task.tasks,
        task.train,
        task.validation,
        torch.optim.SGD(task.model.parameters(), 0.03, momentum=0.9),
        combine,
        epochs=epochs,
        patience=epochs,
        batch=40,
        progress=False,
        accumulate=accumulate,
    )
    return task.model


def train(method: str = "sum", accumulate: int = 1) -> dict[str, Tensor]:
    """A run of `fit_tasks` on the reading tasks: parameter -> its value at the end.

    Args:
        method: "sum" or "upgrad".
        accumulate: parts of each batch, taken one after the other.
    """
    combine = {"sum": EqualWeights(), "upgrad": upgrad}[method]
    model = fitted(reading(), combine, accumulate=accumulate)
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def largest_difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Between two runs' parameters."""
    return max(float((one[name] - other[name]).abs().max()) for name in one)


# ------------------------------------------------------------------------------------ Gram matrices
def task_gradients(model: HardSharing, tasks: Mapping[str, Task], batch: Batch) -> Tensor:
    """One row per task: the gradient of its loss with respect to the trunk, [T, P], float64."""
    features, rows = model.trunk(batch.x), []
    for name, task in tasks.items():
        places, y = batch.targets[name]
        loss = task.loss(model.heads[name](features)[places], y)
        grads = torch.autograd.grad(loss, list(model.trunk.parameters()), retain_graph=True)
        rows.append(torch.cat([g.flatten() for g in grads]))
    return torch.stack(rows).double()


def one_batch(task: Reading, rows: int = 64) -> Batch:
    """A batch with so many rows of each task."""
    return next(task.train.batches(rows, torch.Generator().manual_seed(0)))


def two_orders(shares: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Of gradients [R][T, P]: the Gram matrix of their mean, the mean of their Gram matrices."""
    return gram(sum(shares) / len(shares)), sum(gram(J) for J in shares) / len(shares)


def matrices() -> dict[str, Tensor]:
    """The same two, by processes that each know their share of one batch."""
    task = reading()
    fitted(task, EqualWeights())
    batch = one_batch(task)
    with world() as here:
        J = task_gradients(task.model, task.tasks, batch.part(here.rank, here.size))
    (mean,) = process_mean([J])
    (grams,) = process_mean([gram(J)])
    return {"mean first": gram(mean), "mean of Gram matrices": grams}


# -------------------------------------------------------------------------------------------- times
def seconds(width: int = 512, rows: int = 512, gradients: tuple[int, ...] = (1, 5)) -> dict:
    """What the parts of a step cost here, in seconds.

    Args:
        width: of the trunk.
        rows: of the whole batch.
        gradients: how many of them to average at a time.

    Returns:
        "whole": one process computes the gradients of all rows while the others wait; "share": all
        compute, each for its share; "average": [[float32 numbers, seconds], ...], empty in a world
        of one; "processes".
    """
    task = reading(width=width)
    x = task.train.whole().x
    x = x[torch.arange(rows) % len(x)]
    y = torch.arange(rows) % SMALL.classes
    model, head = task.model.trunk, task.model.heads[SCRIPTS[0]]

    def compute(count: int) -> None:
        nn.functional.cross_entropy(head(model(x[:count])), y[:count]).backward()

    with world() as here:
        together = here.size > 1
        whole = timed(lambda: compute(rows)) if here.first else 0.0
        if together:
            distributed.barrier()
        share = timed(lambda: compute(rows // here.size))
        average, size = [], sum(p.numel() for p in task.model.parameters())
        for count in gradients if together else ():
            values = [torch.zeros(count * size)]
            distributed.barrier()
            average.append([count * size, timed(lambda values=values: process_mean(values))])
    return {"whole": whole, "share": share, "average": average, "processes": here.size}


def timed(function: Callable[[], object]) -> float:
    """Median seconds of a call."""
    function()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return median(times)


def tour() -> dict:
    """All of it in one start of the processes: "sum", "upgrad", "matrices" and "seconds"."""
    return {
        "sum": train("sum"),
        "upgrad": train("upgrad"),
        "matrices": matrices(),
        "seconds": seconds(),
    }
