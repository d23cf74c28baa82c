"""What experts cost beside one trunk of as many parameters, and beside loops written by hand.

    python benchmarks/experts.py            two batch sizes; writes the record of chapter 9
    python benchmarks/experts.py --quick    one round; writes nothing

A step is forward and backward of the pattern and its heads, on features of a table. One thread, CPU
seconds of the process, medians over interleaved rounds of the ratio in the same round; in each
round a way runs twice, and its second run counts. With DeepCTR-Torch installed, its MMOE is timed
as well, with the same experts, gates and heads.
"""

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from mtl_course import records
from mtl_course.experiments import ch09_census as census
from mtl_course.networks import parameters, widest

FEATURES, BUDGET, EXPERTS = 128, 60_000, 8
BATCHES = (256, 4096)
PATTERNS = ("shared", "MMoE", "PLE", "top-1")
TASKS = census.TASKS


class Heads(nn.Module):
    """A pattern and a linear head per task."""

    def __init__(self, pattern: nn.Module, width: int):
        super().__init__()
        self.pattern = pattern
        self.heads = nn.ModuleDict({task: nn.Linear(width, 1) for task in TASKS})

    def forward(self, x: Tensor) -> Tensor:
        z = self.features(x)
        return torch.cat([self.heads[task](z[task]) for task in TASKS], dim=1)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        return self.pattern(x)


def weighted(chances: Tensor, outputs: Sequence[Tensor]) -> Tensor:
    """A sum over experts, one after the other."""
    total = 0
    for e, output in enumerate(outputs):
        total = total + chances[:, e : e + 1] * output
    return total


class MMoEByHand(Heads):
    """A loop over experts for each task."""

    def features(self, x):
        outputs = [expert(x) for expert in self.pattern.experts]
        return {
            task: weighted(gate(x).softmax(1), outputs) for task, gate in self.pattern.gates.items()
        }


class PLEByHand(Heads):
    """The same, level by level."""

    def features(self, x):
        z, common = dict.fromkeys(TASKS, x), x
        for level in self.pattern.levels:
            own = {task: [f(z[task]) for f in level.private[task]] for task in TASKS}
            shared = [f(common) for f in level.shared]
            new = {
                task: weighted(level.gates[task](z[task]).softmax(1), own[task] + shared)
                for task in TASKS
            }
            if level.shared_gate is not None:
                everything = [f for task in level.private for f in own[task]] + shared
                common = weighted(level.shared_gate(common).softmax(1), everything)
            z = new
        return z


class TopOneByHand(Heads):
    """A loop over experts for each task: an expert runs once per task."""

    def features(self, x):
        z = {}
        for task, gate in self.pattern.gates.items():
            chance, best = gate(x).softmax(1).max(1)
            features = None
            for e, expert in enumerate(self.pattern.experts):
                rows = (best == e).nonzero().squeeze(1)
                if len(rows):
                    out = chance[rows, None] * expert(x[rows])
                    features = x.new_zeros(len(x), out.shape[1]) if features is None else features
                    features = features.index_add(0, rows, out)
            z[task] = features
        return z


BY_HAND = {"MMoE": MMoEByHand, "PLE": PLEByHand, "top-1": TopOneByHand}


def build(name: str, features: int = FEATURES, budget: int = BUDGET) -> tuple[nn.Module, int]:
    """The widest pattern of this kind within the budget, and its width."""

    def pattern(k):
        return census.pattern(name, features, k, experts=EXPERTS)

    k = widest(pattern, budget)
    torch.manual_seed(0)
    return pattern(k), k


def deepctr(features: int, k: int):
    """DeepCTR-Torch's MMOE of the same size, or None where it is not installed."""
    try:
        from deepctr_torch.inputs import DenseFeat
        from deepctr_torch.models import MMOE
    except ImportError:
        return None
    options = {"gate_dnn_hidden_units": (), "tower_dnn_hidden_units": (), "task_names": TASKS}
    return MMOE(
        [DenseFeat("x", features)],
        num_experts=EXPERTS,
        expert_dnn_hidden_units=(k, k),
        task_types=("regression", "regression"),
        **options,
    )


def step(network: nn.Module, x: Tensor):
    """A function of nothing: forward and backward; it returns the outputs."""

    def one() -> Tensor:
        network.zero_grad()
        outputs = network(x)
        outputs.square().mean().backward()
        return outputs.detach()

    return one


def ways(batch: int, features: int = FEATURES, budget: int = BUDGET) -> tuple[dict, dict]:
    """Way -> a step of it on the same batch; way -> parameters of its pattern."""
    x = torch.randn(batch, features, generator=torch.Generator().manual_seed(0))
    steps, sizes = {}, {}
    for name in PATTERNS:
        pattern, k = build(name, features, budget)
        plain = Heads(pattern, k)
        steps[name], sizes[name] = step(plain, x), parameters(pattern)
        if name in BY_HAND:
            hand = BY_HAND[name](pattern, k)
            hand.load_state_dict(plain.state_dict())
            steps[f"{name}, by hand"] = step(hand, x)
        if name == "MMoE" and (peer := deepctr(features, k)) is not None:
            steps["MMoE, DeepCTR-Torch"] = step(peer, x)
    return steps, sizes


def measure(steps: Mapping, rounds: int) -> dict:
    """Median milliseconds of each way, and its median ratio within a round to "shared" and, for
    ours, to the one by hand.
    """
    took = {name: [] for name in steps}
    for _ in range(rounds):
        for name, one in steps.items():
            one()
            start = time.process_time()
            one()
            took[name].append(time.process_time() - start)

    def ratio(a, b):
        return statistics.median(p / max(q, 1e-9) for p, q in zip(took[a], took[b], strict=True))

    rows = {}
    for name, times in took.items():
        rows[name] = {
            "ms": 1e3 * statistics.median(times),
            "to shared": ratio(name, "shared"),
        }
        others = (f"{name}, by hand", f"{name}, DeepCTR-Torch")
        rows[name] |= {f"to{o.removeprefix(name)[1:]}": ratio(name, o) for o in others if o in took}
    return rows


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round, no record")
    parser.add_argument("--rounds", type=int, default=31)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    threadpool_limits(1)
    results = {}
    for batch in BATCHES[:1] if options.quick else BATCHES:
        steps, sizes = ways(batch)
        results[str(batch)] = {
            "parameters": sizes,
            "ways": measure(steps, 1 if options.quick else options.rounds),
        }
        print(f"{batch} rows, {sizes}")
        for name, row in results[str(batch)]["ways"].items():
            print(f"  {name:22}", *(f"{key} {value:.2f}" for key, value in row.items()))
    if options.quick:
        return
    provenance = records.provenance([0]) | {"command": "python benchmarks/experts.py"}
    print(f"\nwritten to {records.save(records.Record('09', 'timing', results, provenance))}")


if __name__ == "__main__":
    main()
