"""What one meta-step costs on a CPU, several ways side by side, as a ratio to one joint step on the
same examples; and draws of episodes a second.

    python benchmarks/meta_step.py            all cases; prints tables
    python benchmarks/meta_step.py --quick    few rounds, no memory
    python benchmarks/meta_step.py --out meta.json    writes the numbers too

16 tasks of 5 ways and 1 shot with 15 queries a class, 1 inner step. One thread, CPU seconds of the
process, medians over interleaved rounds. The joint step is an ordinary one: all support and query
examples in one batch, one backward pass. The plain loop is what one writes first: a dictionary of
stepped parameters for each task, `torch.autograd.grad` with a graph, one backward pass at the end.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from memory import added, peak
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from mtl_course import meta
from mtl_course.data.episodes import EpisodeSource
from mtl_course.meta.functional import Functional
from mtl_course.networks.trunks import mlp

SIZES = {
    "MLP": [784, 64, 64],
    "MLP, large": [784, 256, 128, 64, 64],
}  # the large one: of the sizes of Finn et al. for Omniglot
JOINT, LOOP = "joint step", "plain loop, MAML"
MEMORY = (
    JOINT,
    LOOP,
    "plain loop, first order",
    "meta_backward, MAML",
    "meta_backward, first order",
    "MAML, all tasks at once",
)
TASKS, WAYS_A_TASK, SHOTS, QUERIES, RATE = 16, 5, 1, 15, 0.4


class Case:
    """A network, 16 episodes, and ways that leave a meta-step's gradient in ``.grad``."""

    def __init__(self, kind: str):
        torch.manual_seed(0)
        if kind in SIZES:
            self.model, shape = nn.Sequential(mlp(SIZES[kind]), nn.Linear(64, WAYS_A_TASK)), (784,)
        else:
            layers = [
                m
                for a in (1, 16, 16)
                for m in (nn.Conv2d(a, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
            ]
            self.model, shape = (
                nn.Sequential(*layers, nn.Flatten(), nn.Linear(144, WAYS_A_TASK)),
                (1, 28, 28),
            )
        source = EpisodeSource(torch.randn(20 * 20, *shape), torch.arange(20).repeat(20))
        self.episodes = source.classification(
            TASKS, WAYS_A_TASK, SHOTS, QUERIES, torch.Generator().manual_seed(0)
        )
        self.f = Functional(self.model)
        self.together = Functional(self.model, at_once=TASKS)
        self.alone = Functional(self.model, at_once=1)

    def clear(self):
        for p in self.model.parameters():
            p.grad = None

    def joint(self):
        (x, y), (query, judged) = self.episodes.support, self.episodes.query
        F.cross_entropy(
            self.model(torch.cat([x, query], 1).flatten(0, 1)), torch.cat([y, judged], 1).flatten()
        ).backward()

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

    def ours(self, f=None, **choice):
        f = self.f if f is None else f
        meta.meta_backward(f, f.parameters(), self.episodes, F.cross_entropy, 1, RATE, **choice)

    def all_at_once(self):
        self.ours(self.together)

    def one_by_one(self):
        self.ours(self.alone)

    def first_order(self):
        self.ours(first_order=True)

    def anil(self):
        self.ours(only=list(self.model._modules)[-1])

    def reptile(self):
        meta.reptile_backward(self.f, self.f.parameters(), self.episodes, F.cross_entropy, 1, RATE)


WAYS = {
    JOINT: Case.joint,
    LOOP: Case.loop,
    "plain loop, first order": Case.loop_first_order,
    "meta_backward, MAML": Case.ours,
    "meta_backward, first order": Case.first_order,
    "meta_backward, ANIL": Case.anil,
    "reptile_backward": Case.reptile,
    "MAML, all tasks at once": Case.all_at_once,
    "MAML, one task after the other": Case.one_by_one,
}


def step(case: Case, way: str) -> None:
    """One meta-step from no gradients."""
    case.clear()
    WAYS[way](case)


def gradients(case: Case, way: str) -> torch.Tensor:
    """All gradients of one meta-step, as one vector."""
    step(case, way)
    return torch.cat([p.grad.flatten() for p in case.model.parameters()])


def interleaved(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Way -> CPU seconds in each round; a round before them warms up."""
    took = {way: [] for way in ways}
    for _ in range(rounds + 1):
        for way, run in ways.items():
            start = time.process_time()
            run()
            took[way].append(time.process_time() - start)
    return {way: seconds[1:] for way, seconds in took.items()}


def measure(kind: str, rounds: int) -> dict[str, dict[str, float]]:
    """Way -> its median CPU seconds, and medians over rounds of its ratio to the joint step and to
    the plain loop of the same round.
    """
    case = Case(kind)
    took = interleaved({way: partial(step, case, way) for way in WAYS}, rounds)

    def ratio(way, to):
        return statistics.median(a / b for a, b in zip(took[way], took[to], strict=True))

    return {
        way: {
            "seconds": statistics.median(s),
            "to joint": ratio(way, JOINT),
            "to loop": ratio(way, LOOP),
        }
        for way, s in took.items()
    }


def draws(rounds: int) -> dict[str, dict[str, float]]:
    """Episodes drawn a CPU second from 64 classes of 600 images of 28 x 28, and how many the copy
    of as many random images would allow.
    """
    images, found = torch.randint(256, (64 * 600, 28 * 28), dtype=torch.uint8), {}
    for kind, x in (("float32", images / 255), ("bytes", images)):
        source = EpisodeSource(x, torch.arange(64).repeat(600))
        for ways, shots in ((5, 1), (20, 5)):
            g = torch.Generator().manual_seed(0)
            rows = torch.randint(len(x), (TASKS * ways * (shots + QUERIES),), generator=g)
            draw = partial(source.classification, TASKS, ways, shots, QUERIES, g)
            took = interleaved({"drawn": draw, "copied": partial(x.index_select, 0, rows)}, rounds)
            found[f"{ways} ways, {shots} shot, {kind}"] = {
                what: TASKS / statistics.median(s) for what, s in took.items()
            }
    return found


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="three rounds, no memory")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peak", nargs=2, metavar=("KIND", "WAY"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.peak:
        kind, way = options.peak
        case = Case(kind)
        vmap(grad(torch.sin))(torch.ones(2))  # imports what the first call imports
        print(added(partial(step, case, way)))
        return
    rounds, steps = 3 if options.quick else options.rounds, {}
    for kind in (*SIZES, "ConvNet"):
        cells = steps[kind] = measure(kind, rounds)
        for way in () if options.quick else MEMORY:
            cells[way]["MiB"] = peak(__file__, kind, way)
        print(
            f"\n{kind}, joint step {1e3 * cells[JOINT]['seconds']:.1f}"
            f" ms\n{'':32}{'to joint step':>16}{'to plain loop':>16}{'peak MiB':>12}"
        )
        for way, cell in cells.items():
            print(
                f"{way:32}{cell['to joint']:16.2f}{cell['to loop']:16.2f}"
                + (f"{cell['MiB']:12.0f}" if "MiB" in cell else "")
            )
    print(
        "\nMAML's gradient by `meta_backward`, 5 ways, 1 shot, 16 tasks, 1 inner step, against the"
        " plain loop:"
    )
    for kind, cells in steps.items():
        layers = f" ({'-'.join(map(str, [*SIZES[kind], WAYS_A_TASK]))})" if kind in SIZES else ""
        print(
            f"{kind + layers:32}{1 / cells['meta_backward, MAML']['to loop']:16.2f} times as fast"
        )
    found = draws(5 if options.quick else 50)
    print(
        f"\nEpisodes a CPU second, {TASKS} a draw; then what the copy of the images alone would"
        " allow"
    )
    for name, rate in found.items():
        print(f"{name:32}{rate['drawn']:16,.0f}{rate['copied']:16,.0f}")
    if options.out:
        options.out.write_text(
            json.dumps(
                {"torch": torch.__version__, "results": {"steps": steps, "draws": found}}, indent=1
            )
            + "\n"
        )


if __name__ == "__main__":
    main()
