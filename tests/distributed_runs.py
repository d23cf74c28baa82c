"""Runs that `test_distributed.py` asks of one process and of several, for comparison."""

import contextlib
import functools
import io
import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from mtl_course.data import Separate, Table
from mtl_course.multitask import HardSharing, balancing, fit_tasks, step, weighting
from mtl_course.training import classification, fit, regression, world
from mtl_course.training.distributed import mean_gradients, place, process_mean

TASKS = {"size": regression("size"), "kind": classification("kind"), "rare": regression("rare")}
WEIGHTINGS = {
    "sum": lambda: None,
    "fixed": lambda: weighting.Fixed([1.0, 0.5, 0.3]),
    "uncertainty": lambda: weighting.Uncertainty([True, False, True]),
    "geometric mean": weighting.GeometricMean,
    "random": weighting.RandomWeights,
    "dwa": weighting.DWA,
    "gradnorm": lambda: weighting.GradNorm(tasks=3),
    "famo": lambda: weighting.FAMO(tasks=3),
}
BALANCINGS = {name: functools.partial(balancing.method, name) for name in balancing.METHODS}


def rows(count, seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 4, generator=g).double()
    return x, torch.tanh(x @ torch.randn(4, 1, generator=torch.Generator().manual_seed(9)).double())


def table(count, seed=0, rare=0.5):
    """A table of three tasks, of which `rare` has a label in some rows only."""
    x, y = rows(count, seed)
    some = torch.rand(count, generator=torch.Generator().manual_seed(seed)) < rare
    some[:2] = True
    targets = {"size": y, "kind": (y[:, 0] > 0).long(), "rare": y.square()}
    return Table(x, targets, labelled={"rare": some})


def separate():
    """Three sets of unequal length."""
    (a, ya), (b, yb), (c, yc) = rows(23, 0), rows(9, 1), rows(5, 2)
    return Separate({"size": (a, ya), "kind": (b, (yb[:, 0] > 0).long()), "rare": (c, yc)})


def network(seed=0, middle=nn.Identity):
    torch.manual_seed(seed)
    heads = {"size": nn.Linear(6, 1), "kind": nn.Linear(6, 2), "rare": nn.Linear(6, 1)}
    return HardSharing(nn.Sequential(nn.Linear(4, 6), middle(), nn.Tanh()), heads).double()


def several_tasks(combine, train, **options):
    """History and weights of a run of `fit_tasks`."""
    model = network()
    groups = model.parameters()
    if isinstance(combine, weighting.Weighting):
        groups = weighting.parameter_groups(model, combine, 0.01)
    optimizer = torch.optim.Adam(groups, lr=0.02)
    options = {"epochs": 3, "batch": 8} | options
    history = fit_tasks(
        model, TASKS, train, table(7, 5), optimizer, combine, progress=False, **options
    )
    state = dict(model.state_dict())
    if isinstance(combine, nn.Module):
        state |= {f"combine.{name}": p.detach() for name, p in combine.named_parameters()}
    return {"history": asdict(history), "state": state}


def one_task(train=None, **options):
    """History and weights of a run of `fit`, with all of its options."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 4)
    history = fit(
        model,
        rows(17, 0) if train is None else train,
        rows(7, 1),
        F.mse_loss,
        optimizer,
        **{"epochs": 3, "batch": 8, "progress": False} | options,
        schedule=schedule,
        penalty=length,
        augment=noisy,
    )
    return {"history": asdict(history), "state": dict(model.state_dict())}


def length(model):
    return 0.01 * sum(p.square().sum() for p in model.parameters())


def noisy(x, generator):
    return x + 0.1 * torch.randn(x.shape, generator=generator, dtype=x.dtype)


KINDS = {
    **{
        name: (lambda options, make=make: several_tasks(make(), table(22), **options))
        for name, make in WEIGHTINGS.items()
    },
    **{
        name: (lambda options, make=make: several_tasks(make(), table(22), batch=5, **options))
        for name, make in BALANCINGS.items()
    },
    # a last batch of one row, so that one of two processes has none
    "a row for two": lambda options: several_tasks(None, table(9, rare=1.0), batch=4, **options),
    "a row for two, balanced": lambda options: several_tasks(
        balancing.upgrad, table(9, rare=1.0), batch=4, **options
    ),
    "separate": lambda options: several_tasks(None, separate(), **options),
    "separate, balanced": lambda options: several_tasks(balancing.upgrad, separate(), **options),
    "one task": lambda options: one_task(**options),
    "step": lambda options: step_by_step(weighting.EqualWeights()),
    "step, balanced": lambda options: step_by_step(balancing.upgrad),
    "one row each": lambda options: one_task(batch=1, epochs=1, **options),
}


def names():
    return list(KINDS)


def every_kind(accumulate=1, only=None):
    """Name -> run, of all that is to be the same on any number of processes."""
    chosen = [only] if only else [n for n in KINDS if accumulate == 1 or n != "gradnorm"]
    return {name: KINDS[name]({"accumulate": accumulate}) for name in chosen}


def all_of_it(folder):
    """What one launch of two processes is to show, for each of them."""
    with world() as here:
        return {
            "world": (here.rank, here.size, here.device.type, here.first),
            "runs": every_kind(),
            "in parts": every_kind(accumulate=3),
            "by hand": by_hand(),
            "refused": refused(),
            "stored": [run(f"{folder}/two {here.rank} {n}.pt", 2) for n, run in STORED.items()],
            "from one": {
                n: run(f"{folder}/one {here.rank} {n}.pt", 5) for n, run in STORED.items()
            },
            **looked_at(),
        }


def looked_at():
    """How many rows this process saw in evaluation mode, and whether it showed a bar."""
    seen, model, data = [], nn.Linear(4, 1).double(), (rows(9, 0), rows(7, 1))
    nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
    model.register_forward_hook(lambda m, x, y: None if m.training else seen.append(len(y)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        fit(model, *data, F.mse_loss, optimizer, epochs=2, progress=True)
    return {"validated": sum(seen), "bar": bool(shown.getvalue())}


def step_by_step(combine):
    """A loop by hand, with `step`."""
    model, losses = network(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for batch in table(22).batches(8, torch.Generator().manual_seed(0)):
        losses.append(step(model, TASKS, batch, optimizer, combine).tolist())
    return {"history": {"best_epoch": 0, "losses": losses}, "state": dict(model.state_dict())}


def by_hand():
    """The gradient of unequal numbers of rows here and there, and of a layer that only one uses."""
    rank, size = place()
    x, y = rows(7, 0)
    share = slice(None) if size == 1 else [slice(0, 5), slice(5, 7)][rank]
    model = network()
    F.mse_loss(model(x[share])["size"], y[share]).backward()
    if rank == 0:
        model.heads["rare"].bias.sum().backward()
    mean_gradients(model.parameters(), rows=len(y[share]))
    return {name: p.grad for name, p in model.named_parameters()}


def refused():
    """The sentences with which a group refuses what it cannot divide."""
    rank = place()[0]
    train = table(9, rare=1.0)

    def largest(prediction, target):
        return (prediction - target).abs().max()

    def norm():
        model = network(middle=lambda: nn.BatchNorm1d(6))
        fit_tasks(model, TASKS, train, train, torch.optim.SGD(model.parameters(), lr=0.1))

    def other_weights():
        model = network(seed=rank)
        fit_tasks(model, TASKS, train, train, torch.optim.SGD(model.parameters(), lr=0.1))

    def other_loss():
        model = nn.Linear(4, 1).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        torch.nn.init.ones_(model.weight), torch.nn.init.ones_(model.bias)
        fit(model, rows(8, 0), rows(7, 0), largest, optimizer)

    cases = {
        "norm": norm,
        "data": lambda: one_task(rows(17, rank)),
        "length": lambda: one_task(rows(17 - rank, 0)),
        "seed": lambda: one_task(seed=rank),
        "epochs": lambda: one_task(epochs=2 + rank),
        "weights": other_weights,
        "loss": other_loss,
        "rows": lambda: mean_gradients(network().parameters(), rows=0),
        "disk": lambda: one_task(checkpoint=Path("/dev/null/x.pt")),
        "rate": lambda: diverging(train),
        "gradnorm": lambda: several_tasks(weighting.GradNorm(tasks=3), train, accumulate=2),
        "accumulate": lambda: several_tasks(None, train, accumulate=0),
    }
    sentences = {}
    for name, case in cases.items():
        try:
            case()
        except Exception as error:
            sentences[name] = (type(error).__name__, str(error))
    return sentences


def diverging(train):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e200)
    fit_tasks(model, TASKS, train, train, optimizer, epochs=3, batch=4, progress=False)


def uncertain(path, epochs):
    """A run with a checkpoint, of a weighting that learns."""
    learned = weighting.Uncertainty([True, False, True])
    return several_tasks(learned, table(22), checkpoint=Path(path), epochs=epochs)


def with_chance(path, epochs):
    """A run with a checkpoint, with a schedule and random changes of the inputs."""
    return one_task(checkpoint=Path(path), epochs=epochs)


STORED = {"uncertain": uncertain, "with chance": with_chance}


STEPS = []


def deadly(model):
    """A penalty that ends its process, without a word, at a step that the environment names."""
    STEPS.append(1)
    if len(STEPS) == int(os.environ.get("DIES_AT", 0)):
        os.kill(os.getpid(), signal.SIGKILL)
    return length(model)


def mortal(folder, epochs, kills=False):
    """Three steps per epoch; the second process is killed in the third epoch, if at all."""
    rank, path = place()[0], Path(folder, "mortal.pt")
    Path(folder, f"pid {rank}").write_text(str(os.getpid()))
    if kills and rank == 1:
        os.environ["DIES_AT"] = "8"
    torch.manual_seed(0)
    model = nn.Linear(4, 1).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    options = {"epochs": epochs, "batch": 8, "penalty": deadly, "checkpoint": path}
    try:
        fit(model, rows(17, 0), rows(7, 1), F.mse_loss, optimizer, progress=False, **options)
    except ConnectionError as error:
        Path(folder, f"said {rank}").write_text(str(error))
        raise
    return dict(model.state_dict())


def raises(where):
    """A mistake in one process, while the others wait for it."""
    if place()[0] == where:
        raise KeyError("the mistake")
    process_mean([torch.ones(1)])


def leaves(where):
    """One process ends by itself, while the others wait for it."""
    if place()[0] == where:
        sys.exit(3)
    process_mean([torch.ones(1)])


def sleeps(folder):
    """A process that does not end by itself for long."""
    Path(folder, f"pid {place()[0]}").write_text(str(os.getpid()))
    time.sleep(600)


def under_torchrun(folder):
    """What a script does that `torchrun` starts."""
    with world() as here:
        run = several_tasks(balancing.upgrad, table(22))
        torch.save(run, Path(folder) / f"{here.rank} of {here.size}.pt")


if __name__ == "__main__":
    under_torchrun(sys.argv[1])
