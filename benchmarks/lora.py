"""What one step of LoRA costs on a CPU beside one of full fine-tuning and one of PEFT's LoRA.

    python benchmarks/lora.py            all cases; writes the record that chapter 13 shows
    python benchmarks/lora.py --quick    few rounds; writes nothing

One thread, CPU seconds of the process, medians over interleaved rounds of the ratio to full
fine-tuning in the same round; in each round a way runs twice, and its second run counts. A step is
forward, backward and Adam. Memory is what the first three steps need at once beside the model
(Linux): activations, gradients and Adam's two averages. PEFT is optional: ``pip install peft``.
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

from mtl_course import records, transfer
from mtl_course.networks.trunks import mlp

try:
    import peft
except ImportError:
    peft = None

RANK = 8
FULL, OURS, PEFT = "full fine-tuning", "add_lora, r = 8", "PEFT, r = 8"
# Kind -> layers that get an update.
TARGETS = {
    "MLP": ["0", "2", "4"],
    "ConvNet": ["0", "2", "4"],
    "Transformer": ["0.layers.0.linear1", "0.layers.0.linear2"]
    + ["0.layers.1.linear1", "0.layers.1.linear2"],
}


class Mean(nn.Module):
    """The mean over the words: [B, words, d] becomes [B, d]."""

    def forward(self, x):
        return x.mean(1)


def build(kind: str) -> tuple[nn.Module, torch.Tensor]:
    """A network with ten outputs, always the same one, and a batch for it."""
    torch.manual_seed(0)
    if kind == "MLP":
        return nn.Sequential(*mlp([784, 1024, 1024, 1024]), nn.Linear(1024, 10)), torch.randn(
            64, 784
        )
    if kind == "ConvNet":
        layers = []
        for a, b in ((3, 32), (32, 64), (64, 128)):
            layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), nn.ReLU()]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(2048, 10)), torch.randn(64, 3, 32, 32)
    layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, batch_first=True)
    model = nn.Sequential(
        nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), Mean(), nn.Linear(256, 10)
    )
    return model, torch.randn(16, 32, 256)


class Case:
    """One way to tune one network: a model, its optimizer and a batch."""

    def __init__(self, kind: str, way: str):
        self.model, self.x = build(kind)
        self.y = torch.arange(len(self.x)) % 10
        torch.manual_seed(1)
        if way == OURS:
            transfer.add_lora(self.model, TARGETS[kind], RANK, alpha=RANK)
        elif way == PEFT:
            config = peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS[kind])
            self.model = peft.get_peft_model(self.model, config)
        free = [p for p in self.model.parameters() if p.requires_grad]
        self.count = sum(p.numel() for p in free)
        self.optimizer = torch.optim.Adam(free, lr=1e-3)

    def step(self) -> float:
        """One step; its loss."""
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(self.x), self.y)
        loss.backward()
        self.optimizer.step()
        return loss.item()


def ways() -> list[str]:
    """The ways that can be timed here."""
    return [FULL, OURS, *([PEFT] if peft else [])]


def measure(kind: str, rounds: int) -> dict[str, dict[str, float]]:
    """Way -> its parameters, its median CPU seconds, and its median ratio to full fine-tuning.

    Also "over PEFT" of ours, the median ratio in the same round.
    """
    cases = {way: Case(kind, way) for way in ways()}
    took = {way: [] for way in cases}
    for k in range(rounds + 1):
        for way in list(cases)[:: 1 if k % 2 else -1]:  # none always follows the same other
            cases[way].step()
            start = time.process_time()
            cases[way].step()
            took[way].append(time.process_time() - start)
    took = {way: seconds[1:] for way, seconds in took.items()}  # the first round warms up

    def ratio(way, base):
        return statistics.median(a / b for a, b in zip(took[way], took[base], strict=True))

    cells = {
        way: {
            "parameters": cases[way].count,
            "seconds": statistics.median(seconds),
            "ratio": ratio(way, FULL),
        }
        for way, seconds in took.items()
    }
    if peft:
        cells[OURS]["over PEFT"] = ratio(OURS, PEFT)
    return cells


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="three rounds, no record")
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--peak", nargs=2, metavar=("KIND", "WAY"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    threadpool_limits(1)
    if options.peak:
        case = Case(*options.peak)
        print(added(case.step))
        return
    rounds = 3 if options.quick else options.rounds
    results = {}
    for kind in TARGETS:
        results[kind] = measure(kind, rounds)
        memory = partial(peak, __file__, kind)
        for way, cell in results[kind].items():
            cell["memory"] = memory(way)
            print(
                f"{kind:12} {way:18} {cell['parameters']:9,d} parameters"
                f" {1e3 * cell['seconds']:7.2f} ms, ratio {cell['ratio']:.2f},"
                f" {cell['memory']:6.1f} MiB"
            )
        if peft:
            print(f"{kind:12} ours over PEFT's: {results[kind][OURS]['over PEFT']:.3f}")
    if options.quick:
        return
    provenance = records.provenance([0]) | {
        "command": "python benchmarks/lora.py",
        "peft": peft.__version__ if peft else "not installed",
    }
    print(f"\nwritten to {records.save(records.Record('13', 'timing', results, provenance))}")


if __name__ == "__main__":
    main()
