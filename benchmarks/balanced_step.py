"""What one balanced multi-task step costs on a CPU, several ways side by side, as a ratio to one
step on the sum of the losses.

    python benchmarks/balanced_step.py            all cases; writes the record that chapter 6 shows
    python benchmarks/balanced_step.py --quick    two tasks, few rounds; writes nothing

One thread, CPU seconds of the process, medians over interleaved rounds, so that a busy moment of
the machine hits all ways alike; in each round a way runs twice, and its second run counts. The ways
differ in how they find the trunk's task gradients; all weigh them with IMTL-G. torchjd is optional:
``pip install torchjd``.

The approximate step has a floor: one forward pass, each head forward and back once, and one
backward pass of the trunk. What it costs above that is the balancing itself: the task gradients at
the features brought together, their Gram matrix, the weights, and the weighted sum.
"""

import argparse
import statistics
import time
from functools import partial

import torch
from memory import added, peak
from threadpoolctl import threadpool_limits
from torch import nn
from torch.nn import functional as F

from mtl_course import records
from mtl_course.multitask import balancing
from mtl_course.multitask.backward import balanced_backward
from mtl_course.networks.trunks import mlp

try:
    import torchjd
    from torchjd.aggregation import IMTLG
    from torchjd.autojac import jac_to_grad, mtl_backward
except ImportError:
    torchjd = None

CLASSES = 10
MEMORY = [("MLP", 32), ("ConvNet", 32)]


class Case:
    """A trunk, T linear heads and one batch. Each way below is a method that leaves a step's
    gradients in ``.grad``.
    """

    def __init__(self, kind: str, tasks: int):
        torch.manual_seed(0)
        if kind == "MLP":
            self.trunk, width, self.x = mlp([784, 512, 512, 256]), 256, torch.randn(256, 784)
        else:
            layers = []
            for a, b in ((3, 16), (16, 32), (32, 64)):
                layers += [nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), *mlp([256, 128])]
            self.trunk, width, self.x = nn.Sequential(*layers), 128, torch.randn(64, 3, 32, 32)
        self.heads = nn.ModuleList(nn.Linear(width, CLASSES) for _ in range(tasks))
        self.labels = torch.randint(CLASSES, (tasks, len(self.x)))
        self.shared = list(self.trunk.parameters())
        self.parameters = [*self.shared, *self.heads.parameters()]

    def clear(self):
        for p in self.parameters:
            p.grad = None

    def loss(self, t, z):
        return F.cross_entropy(self.heads[t](z), self.labels[t])

    def losses(self, features):
        return [self.loss(t, z) for t, z in enumerate(features)]

    def spread(self, layers):
        """Write the balanced trunk gradient from the layers' task gradients [T, ...]; the Gram
        matrix is summed layer by layer.
        """
        G = sum(g.flatten(1) @ g.flatten(1).T for g in layers)
        w = balancing.imtl_g(G).float()
        for p, g in zip(self.shared, layers, strict=True):
            p.grad = torch.tensordot(w, g, 1)

    def cut(self):
        """Features, and dL_t/dz for every task from one backward through detached aliases, which
        fills the heads' gradients too.
        """
        z = self.trunk(self.x)
        aliases = [z.detach().requires_grad_() for _ in self.heads]
        torch.stack(self.losses(aliases)).sum().backward()
        return z, [alias.grad for alias in aliases]

    def floor(self):
        """What no balancing at the features can do without. The trunk gets the first task's
        gradient, as if weights cost nothing.
        """
        z, cotangents = self.cut()
        gradients = torch.autograd.grad(z, self.shared, cotangents[0])
        for p, g in zip(self.shared, gradients, strict=True):
            p.grad = g

    def sum(self):
        torch.stack(self.losses([self.trunk(self.x)] * len(self.heads))).sum().backward()

    def naive(self):
        """One backward pass a task through everything."""
        tasks = []
        z = self.trunk(self.x)
        for head, loss in zip(self.heads, self.losses([z] * len(self.heads)), strict=True):
            *trunk, weight, bias = torch.autograd.grad(
                loss, [*self.shared, head.weight, head.bias], retain_graph=True
            )
            head.weight.grad, head.bias.grad = weight, bias
            tasks.append(trunk)
        self.spread([torch.stack(layer) for layer in zip(*tasks, strict=True)])

    def loop(self):
        """From dL_t/dz on, one pass of the trunk a task."""
        z, cotangents = self.cut()
        last = len(cotangents) - 1
        tasks = [
            torch.autograd.grad(z, self.shared, v, retain_graph=t < last)
            for t, v in enumerate(cotangents)
        ]
        self.spread([torch.stack(layer) for layer in zip(*tasks, strict=True)])

    def batched(self):
        """From dL_t/dz on, one batched pass of the trunk."""
        z, cotangents = self.cut()
        stacked = torch.stack(cotangents)
        self.spread(torch.autograd.grad(z, self.shared, stacked, is_grads_batched=True))

    def ours(self, approximate=False):
        losses = {str(t): partial(self.loss, t) for t in range(len(self.heads))}
        balanced_backward(
            self.trunk(self.x), losses, self.shared, balancing.imtl_g, approximate=approximate
        )

    def ours_approximate(self):
        self.ours(approximate=True)

    def torchjd(self, chunk=None):
        z = self.trunk(self.x)
        mtl_backward(self.losses([z] * len(self.heads)), features=z, parallel_chunk_size=chunk)
        jac_to_grad(self.shared, IMTLG())

    def torchjd_one_by_one(self):
        self.torchjd(chunk=1)


APPROXIMATE, FLOOR = "balanced_backward, approximate", "its floor"
WAYS = {
    "sum of losses": Case.sum,
    "naive loop": Case.naive,
    "loop from the features": Case.loop,
    "batched, layer by layer": Case.batched,
    "balanced_backward": Case.ours,
    APPROXIMATE: Case.ours_approximate,
    FLOOR: Case.floor,
}
if torchjd:
    WAYS |= {"torchjd": Case.torchjd, "torchjd, one task at a time": Case.torchjd_one_by_one}


def step(case: Case, way: str) -> None:
    """One step from no gradients."""
    case.clear()
    WAYS[way](case)


def gradients(case: Case, way: str) -> torch.Tensor:
    """All gradients of one step, as one vector."""
    step(case, way)
    return torch.cat([p.grad.flatten() for p in case.parameters])


def measure(kind: str, tasks: int, rounds: int) -> dict[str, dict[str, float]]:
    """Way -> its median CPU seconds, and the median over rounds of its ratio to the sum of losses
    in the same round; for the approximate step also that of its ratio to its floor.
    """
    case = Case(kind, tasks)
    took = {way: [] for way in WAYS}
    for _ in range(rounds + 1):
        for way in WAYS:
            # Untimed once before, as in training, where the step before was of the same kind: a way
            # must not pay for the memory that another one has just handed back to the system.
            step(case, way)
            case.clear()
            start = time.process_time()
            WAYS[way](case)
            took[way].append(time.process_time() - start)
    took = {way: seconds[1:] for way, seconds in took.items()}  # the first round warms up

    def ratio(way, base):
        return statistics.median(a / b for a, b in zip(took[way], took[base], strict=True))

    cells = {
        way: {"seconds": statistics.median(seconds), "ratio": ratio(way, "sum of losses")}
        for way, seconds in took.items()
    }
    cells[APPROXIMATE]["over floor"] = ratio(APPROXIMATE, FLOOR)
    return cells


def weights_from_gram(tasks: int, rounds: int) -> dict[str, float]:
    """Method -> median milliseconds from a Gram matrix [T, T] to weights, each round with another
    matrix.
    """
    took = {name: [] for name in balancing.METHODS}
    for seed in range(rounds + 1):
        generator = torch.Generator().manual_seed(seed)
        G = balancing.gram(torch.randn(tasks, 3 * tasks, generator=generator, dtype=torch.float64))
        for name, weigh in balancing.METHODS.items():
            start = time.process_time()
            weigh(G)
            took[name].append(1e3 * (time.process_time() - start))
    return {name: statistics.median(ms[1:]) for name, ms in took.items()}


def table(title, columns, rows):
    """Print a table: rows name -> values as text."""
    print(f"\n{title}\n{'':36}" + "".join(f"{c:>16}" for c in columns))
    for name, cells in rows.items():
        print(f"{name:36}" + "".join(f"{cell:>16}" for cell in cells))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two tasks, three rounds, no record")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peak", nargs=3, metavar=("KIND", "T", "WAY"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    threadpool_limits(1)  # NumPy's and SciPy's too: CPU time counts the threads that wait as well
    if options.peak:
        kind, tasks, way = options.peak
        print(added(partial(step, Case(kind, int(tasks)), way)))
        return
    sizes, rounds = ((2,), 3) if options.quick else ((2, 8, 32), options.rounds)
    steps, unit = {}, "1.00 = CPU time of one step on the sum of the losses"
    for kind in ("MLP", "ConvNet"):
        steps[kind] = {str(T): measure(kind, T, rounds) for T in sizes}
        ms = ", ".join(
            f"{1e3 * cell['sum of losses']['seconds']:.1f} ms" for cell in steps[kind].values()
        )
        cells = steps[kind].values()
        rows = {way: [f"{cell[way]['ratio']:.2f}" for cell in cells] for way in WAYS}
        over = [f"{cell[APPROXIMATE]['over floor']:.2f}" for cell in cells]
        rows["the approximate step over its floor"] = over
        table(f"{kind}; {unit} ({ms})", [f"T = {T}" for T in sizes], rows)
    weights = {str(T): weights_from_gram(T, 2 * rounds) for T in sizes}
    table(
        "Weights from a Gram matrix, ms",
        [f"T = {T}" for T in sizes],
        {name: [f"{cell[name]:.2f}" for cell in weights.values()] for name in balancing.METHODS},
    )
    if options.quick:
        return
    memory = {kind: {way: peak(__file__, kind, T, way) for way in WAYS} for kind, T in MEMORY}
    table(
        "Peak memory of a step, MiB",
        [f"{k}, T = {T}" for k, T in MEMORY],
        {w: [f"{c[w]:.0f}" for c in memory.values()] for w in WAYS},
    )
    provenance = records.provenance([0]) | {
        "command": "python benchmarks/balanced_step.py",
        "torchjd": torchjd_version(),
    }
    results = {"steps": steps, "weights": weights, "memory": memory}
    print(f"\nwritten to {records.save(records.Record('06', 'timing', results, provenance))}")


def torchjd_version() -> str:
    from importlib.metadata import version

    return version("torchjd") if torchjd else "not installed"


if __name__ == "__main__":
    main()
