"""What one meta-step costs on a CPU, several ways side by side, as a ratio to one joint step on the same examples; and draws of episodes a second.

    python benchmarks/meta_step.py            all cases; prints tables
    python benchmarks/meta_step.py --quick    few rounds, no memory
    python benchmarks/meta_step.py --out meta.json    writes the numbers too

16 tasks of 5 ways and 1 shot with 15 queries a class, 1 inner step. One thread, CPU seconds of the process, medians over interleaved rounds. The
joint step is an ordinary one: all support and query examples in one batch, one backward pass. The plain loop is what one writes first: a
dictionary of stepped parameters for each task, `torch.autograd.grad` with a graph, one backward pass at the end.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from mtl_course import meta
from mtl_course.data.episodes import Source
from mtl_course.functional import Functional
from mtl_course.models import mlp

SIZES = {"MLP": [784, 64, 64], "MLP, large": [784, 256, 128, 64, 64]}  # the large one is that of Finn et al. for Omniglot
TASKS, WAYS_A_TASK, SHOTS, QUERIES, RATE = 16, 5, 1, 15, 0.4


class Case:
    """A network, 16 episodes, and ways that leave a meta-step's gradient in ``.grad``."""

    def __init__(self, kind: str):
        torch.manual_seed(0)
        if kind in SIZES:
            self.model, shape = nn.Sequential(mlp(SIZES[kind]), nn.Linear(64, WAYS_A_TASK)), (784,)
        else:
            layers = [m for a in (1, 16, 16) for m in (nn.Conv2d(a, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))]
            self.model, shape = nn.Sequential(*layers, nn.Flatten(), nn.Linear(144, WAYS_A_TASK)), (1, 28, 28)
        source = Source(torch.randn(20 * 20, *shape), torch.arange(20).repeat(20))
        self.episodes = source.classification(TASKS, WAYS_A_TASK, SHOTS, QUERIES, torch.Generator().manual_seed(0))
        self.f = Functional(self.model)

    def clear(self):
        for p in self.model.parameters():
            p.grad = None

    def joint(self):
        (x, y), (query, judged) = self.episodes.support, self.episodes.query
        F.cross_entropy(self.model(torch.cat([x, query], 1).flatten(0, 1)), torch.cat([y, judged], 1).flatten()).backward()

    def loop(self, first_order=False):
        params = dict(self.model.named_parameters())
        total = 0.0
        for x, y, query, judged in zip(*self.episodes.support, *self.episodes.query, strict=True):
            inner = F.cross_entropy(functional_call(self.model, params, (x,)), y)
            slopes = torch.autograd.grad(inner, list(params.values()), create_graph=not first_order)
            fast = {name: p - RATE * g for (name, p), g in zip(params.items(), slopes, strict=True)}
            total = total + F.cross_entropy(functional_call(self.model, fast, (query,)), judged)
        (total / TASKS).backward()

    def loop_first_order(self):
        self.loop(first_order=True)

    def ours(self, **choice):
        meta.meta_backward(self.f, self.f.parameters(), self.episodes, F.cross_entropy, 1, RATE, **choice)

    def forced(self, group):
        device = self.episodes.support[0].device
        chosen = self.f.at_once(self.episodes.support[0][0])
        self.f._group[device] = group
        self.ours()
        self.f._group[device] = chosen

    def all_at_once(self):
        self.forced(TASKS)

    def one_by_one(self):
        self.forced(1)

    def first_order(self):
        self.ours(first_order=True)

    def anil(self):
        self.ours(only=list(self.model._modules)[-1])

    def reptile(self):
        meta.reptile_backward(self.f, self.f.parameters(), self.episodes, F.cross_entropy, 1, RATE)


WAYS = {
    "joint step": Case.joint,
    "plain loop, MAML": Case.loop,
    "plain loop, first order": Case.loop_first_order,
    "meta_backward, MAML": Case.ours,
    "meta_backward, first order": Case.first_order,
    "meta_backward, ANIL": Case.anil,
    "reptile_backward": Case.reptile,
    "MAML, all tasks at once": Case.all_at_once,
    "MAML, one task after the other": Case.one_by_one,
}


def gradients(case: Case, way: str) -> torch.Tensor:
    """All gradients of one meta-step, as one vector."""
    case.clear()
    WAYS[way](case)
    return torch.cat([p.grad.flatten() for p in case.model.parameters()])


def measure(kind: str, rounds: int) -> dict[str, dict[str, float]]:
    """Way -> its median CPU seconds, and medians over rounds of its ratio to the joint step and to the plain loop of the same round."""
    case = Case(kind)
    took = {way: [] for way in WAYS}
    for _ in range(rounds + 1):
        for way, step in WAYS.items():
            case.clear()
            start = time.process_time()
            step(case)
            took[way].append(time.process_time() - start)
    took = {way: seconds[1:] for way, seconds in took.items()}  # the first round warms up

    def ratio(way, to):
        return statistics.median(a / b for a, b in zip(took[way], took[to], strict=True))

    return {
        way: {"seconds": statistics.median(s), "to joint": ratio(way, "joint step"), "to loop": ratio(way, "plain loop, MAML")}
        for way, s in took.items()
    }


def draws(rounds: int) -> dict[str, float]:
    """Episodes drawn a CPU second, 5 ways 1 shot 15 queries and 20 ways 5 shots 15 queries, from 64 classes of 600 images of 28 x 28."""
    source, found = Source(torch.rand(64 * 600, 28 * 28), torch.arange(64).repeat(600)), {}
    for ways, shots in ((5, 1), (20, 5)):
        g, took = torch.Generator().manual_seed(0), []
        for _ in range(rounds + 1):
            start = time.process_time()
            source.classification(TASKS, ways, shots, QUERIES, g)
            took.append(time.process_time() - start)
        found[f"{ways} ways, {shots} shot"] = TASKS / statistics.median(took[1:])
    return found


def peak(kind: str, way: str) -> float:
    """Peak memory in MiB that three steps add to that of the network and the episodes, in a process of its own (Linux)."""
    return float(subprocess.run([sys.executable, __file__, "--peak", kind, way], capture_output=True, text=True, check=True).stdout)


def _peak_here(kind, way):
    case = Case(kind)
    torch.func.vmap(torch.func.grad(torch.sin))(torch.ones(2))  # imports what the first call imports
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew from what is in use now
    before = _high_water()
    for _ in range(3):
        case.clear()
        WAYS[way](case)
    return _high_water() - before


def _high_water() -> float:
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="three rounds, no memory")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peak", nargs=2, metavar=("KIND", "WAY"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.peak:
        print(_peak_here(*options.peak))
        return
    results = {}
    for kind in (*SIZES, "ConvNet"):
        results[kind] = measure(kind, 3 if options.quick else options.rounds)
        for way, cell in results[kind].items():
            cell["MiB"] = float("nan") if options.quick else peak(kind, way)
        ms = 1e3 * results[kind]["joint step"]["seconds"]
        print(f"\n{kind}, joint step {ms:.1f} ms\n{'':32}{'to joint step':>16}{'to plain loop':>16}{'peak MiB':>12}")
        for way, cell in results[kind].items():
            print(f"{way:32}{cell['to joint']:16.2f}{cell['to loop']:16.2f}{cell['MiB']:12.0f}")
    results["draws"] = draws(5 if options.quick else 50)
    print("\nEpisodes drawn a CPU second: " + ", ".join(f"{name}: {rate:,.0f}" for name, rate in results["draws"].items()))
    if options.out:
        options.out.write_text(json.dumps({"torch": torch.__version__, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
