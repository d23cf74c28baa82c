"""What one meta-step costs on a CPU, several ways side by side, and draws of episodes per second.

    python benchmarks/meta_step.py                      all cases; prints tables
    python benchmarks/meta_step.py --quick              few rounds, no memory
    python benchmarks/meta_step.py --kind "MLP, large"  one network
    python benchmarks/meta_step.py --threads 2          wall seconds instead of CPU seconds
    python benchmarks/meta_step.py --out meta.json      writes the numbers too

16 tasks of 5 ways and 1 shot with 15 queries per class, 1 inner step. One thread, CPU seconds of
the process, medians over interleaved rounds, as ratios to the joint step and to the plain loop of
the same round. The joint step is an ordinary one: all support and query examples in one batch, one
backward pass. The plain loop is what one writes first: a dictionary of stepped parameters per task,
`torch.autograd.grad` with a graph, one backward pass at the end.
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

# The large one: of the sizes of Finn et al. for Omniglot.
SIZES = {"MLP": [784, 64, 64], "MLP, large": [784, 256, 128, 64, 64]}
KINDS = (*SIZES, "ConvNet")
JOINT, LOOP, OURS = "joint step", "plain loop, MAML", "meta_backward, MAML"
MEMORY = (
    JOINT,
    LOOP,
    "plain loop, first order",
    OURS,
    "meta_backward, first order",
    "MAML, all tasks at once",
)
TASKS, WAYS_PER_TASK, SHOTS, QUERIES, RATE = 16, 5, 1, 15, 0.4


def network(kind: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A network and the shape of its inputs."""
    if kind in SIZES:
        return nn.Sequential(mlp(SIZES[kind]), nn.Linear(64, WAYS_PER_TASK)), (784,)
    layers = []
    for channels in (1, 16, 16):
        layers += [nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(144, WAYS_PER_TASK)), (1, 28, 28)


class Case:
    """A network, episodes, and ways that leave a meta-step's gradient in ``.grad``."""

    def __init__(self, kind: str, tasks: int = TASKS, queries: int = QUERIES):
        torch.manual_seed(0)
        self.model, shape = network(kind)
        source = EpisodeSource(torch.randn(20 * 20, *shape), torch.arange(20).repeat(20))
        generator = torch.Generator().manual_seed(0)
        self.episodes = source.classification(tasks, WAYS_PER_TASK, SHOTS, queries, generator)
        self.f = Functional(self.model)
        self.together = Functional(self.model, at_once=tasks)
        self.alone = Functional(self.model, at_once=1)

    def clear(self):
        for p in self.model.parameters():
            p.grad = None

    def joint(self):
        (x, y), (query, truth) = self.episodes.support, self.episodes.query
        outputs = self.model(torch.cat([x, query], 1).flatten(0, 1))
        F.cross_entropy(outputs, torch.cat([y, truth], 1).flatten()).backward()

    def loop(self, first_order=False):
        params = dict(self.model.named_parameters())
        total = 0.0
        for x, y, query, truth in zip(*self.episodes.support, *self.episodes.query, strict=True):
            inner = F.cross_entropy(functional_call(self.model, params, (x,)), y)
            slopes = torch.autograd.grad(inner, list(params.values()), create_graph=not first_order)
            fast = {name: p - RATE * g for (name, p), g in zip(params.items(), slopes, strict=True)}
            total = total + F.cross_entropy(functional_call(self.model, fast, (query,)), truth)
        (total / len(self.episodes)).backward()

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
    OURS: Case.ours,
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


def clock() -> float:
    """CPU seconds of this process; wall seconds where several threads share the work."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def interleaved(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Way -> seconds in each round; a round before them warms up."""
    took = {way: [] for way in ways}
    for _ in range(rounds + 1):
        for way, run in ways.items():
            start = clock()
            run()
            took[way].append(clock() - start)
    return {way: seconds[1:] for way, seconds in took.items()}


def measure(kind: str, rounds: int) -> dict[str, dict[str, float]]:
    """Way -> its median seconds, and medians of its ratio to two ways of the same round."""
    case = Case(kind)
    took = interleaved({way: partial(step, case, way) for way in WAYS}, rounds)

    def ratio(way, to):
        return statistics.median(a / b for a, b in zip(took[way], took[to], strict=True))

    return {
        way: {
            "seconds": statistics.median(seconds),
            "to joint": ratio(way, JOINT),
            "to loop": ratio(way, LOOP),
        }
        for way, seconds in took.items()
    }


def draws(rounds: int, classes: int = 64, images: int = 600) -> dict[str, dict[str, float]]:
    """Episodes drawn per second from classes of so many images of 28 x 28.

    Beside them stands how many the copy of as many random images would allow.
    """
    pixels, rates = torch.randint(256, (classes * images, 28 * 28), dtype=torch.uint8), {}
    for kind, x in (("float32", pixels / 255), ("bytes", pixels)):
        source = EpisodeSource(x, torch.arange(classes).repeat(images))
        for ways, shots in ((5, 1), (20, 5)):
            generator = torch.Generator().manual_seed(0)
            count = TASKS * ways * (shots + QUERIES)
            rows = torch.randint(len(x), (count,), generator=generator)
            draw = partial(source.classification, TASKS, ways, shots, QUERIES, generator)
            took = interleaved({"drawn": draw, "copied": partial(x.index_select, 0, rows)}, rounds)
            rates[f"{ways} ways, {shots} shot, {kind}"] = {
                what: TASKS / statistics.median(seconds) for what, seconds in took.items()
            }
    return rates


def print_steps(kind: str, cells: Mapping[str, Mapping[str, float]]) -> None:
    """One network: a line per way."""
    print(f"\n{kind}, joint step {1e3 * cells[JOINT]['seconds']:.1f} ms")
    print(f"{'':32}{'to joint step':>16}{'to plain loop':>16}{'peak MiB':>12}")
    for way, cell in cells.items():
        memory = f"{cell['MiB']:12.0f}" if "MiB" in cell else ""
        print(f"{way:32}{cell['to joint']:16.2f}{cell['to loop']:16.2f}{memory}")


def print_speeds(steps: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """A line per network: the plain loop's time over ours."""
    print(
        "\nMAML's gradient by `meta_backward`, against the plain loop (16 tasks, 5 ways, 1 shot):"
    )
    for kind, cells in steps.items():
        layers = f" ({'-'.join(map(str, [*SIZES[kind], WAYS_PER_TASK]))})" if kind in SIZES else ""
        print(f"{kind + layers:44}{1 / cells[OURS]['to loop']:8.2f} times as fast")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="three rounds, no memory")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kind", choices=KINDS, help="this network only, and no draws")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peak", nargs=2, metavar=("KIND", "WAY"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.peak:
        kind, way = options.peak
        case = Case(kind)
        vmap(grad(torch.sin))(torch.ones(2))  # imports what the first call imports
        print(added(partial(step, case, way)))
        return
    rounds, results = 3 if options.quick else options.rounds, {"steps": {}}
    for kind in KINDS if options.kind is None else (options.kind,):
        cells = results["steps"][kind] = measure(kind, rounds)
        for way in () if options.quick else MEMORY:
            cells[way]["MiB"] = peak(__file__, kind, way)
        print_steps(kind, cells)
    print_speeds(results["steps"])
    if options.kind is None:
        results["draws"] = draws(5 if options.quick else 50)
        print(f"\nEpisodes per second, {TASKS} in a draw; beside it, the copy of the images alone")
        for name, rate in results["draws"].items():
            print(f"{name:32}{rate['drawn']:16,.0f}{rate['copied']:16,.0f}")
    if options.out:
        written = {"torch": torch.__version__, "results": results}
        options.out.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
