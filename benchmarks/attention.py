"""What attention by hand costs beside torch's fused one, and recurrent steps by hand likewise.

    python benchmarks/attention.py            all sizes
    python benchmarks/attention.py --quick    one round

A step is forward and backward. One thread, CPU seconds of the process, medians over interleaved
rounds of the ratio in the same round; in each round a way runs twice, and its second run counts. On
a GPU, if there is one, synchronised wall seconds, and the peak of the memory.
"""

import argparse
import json
import statistics
import time

import torch
from threadpoolctl import threadpool_limits
from torch import nn

from mtl_course import records
from mtl_course.networks import GRU, LSTM, MultiHeadAttention, attention_mask

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WIDTH, HEADS, HIDDEN = 128, 4, 64
# length of the sequences -> rows of a batch: as many places in each
LENGTHS = {32: 64, 128: 16, 512: 4}
STEPS = (30, 120)


def attentions(length: int) -> dict:
    """Way -> a step of it, on the same weights and the same batch, a third of it padding."""
    torch.manual_seed(0)
    rows = LENGTHS[length]
    x = torch.randn(rows, length, WIDTH, device=DEVICE)
    ends = torch.linspace(length / 3, length, rows, device=DEVICE)
    mask = attention_mask(torch.arange(length, device=DEVICE) < ends[:, None])
    state = MultiHeadAttention(WIDTH, HEADS).state_dict()
    ways = {}
    for name, fused in (("by hand", False), ("fused", True)):
        layer = MultiHeadAttention(WIDTH, HEADS, fused=fused).to(DEVICE)
        layer.load_state_dict(state)
        ways[name] = step(layer, lambda layer: layer(x, mask=mask))
    return ways


def recurrents(ours: type[nn.Module], theirs: type[nn.Module], length: int) -> dict:
    """Way -> a step of it, on the same weights and the same series, all of one length."""
    torch.manual_seed(0)
    x = torch.randn(32, length, 12, device=DEVICE)
    fused = theirs(12, HIDDEN, batch_first=True).to(DEVICE)
    hand = ours(12, HIDDEN).to(DEVICE)
    hand.load_state_dict(fused.state_dict())
    return {
        "by hand": step(hand, lambda network: network(x)[0]),
        "fused": step(fused, lambda network: network(x)[0]),
    }


def step(network: nn.Module, outputs):
    """A function of nothing: forward and backward; it returns the loss."""

    def one() -> float:
        network.zero_grad()
        loss = outputs(network).square().mean()
        loss.backward()
        return loss.detach()

    return one


def seconds() -> float:
    """A clock: CPU seconds, or wall seconds of a GPU that has finished."""
    if DEVICE.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def measure(ways: dict, rounds: int) -> dict[str, float]:
    """Median milliseconds of each way, and "by hand / fused", the median ratio within a round."""
    took = {name: [] for name in ways}
    for k in range(rounds + 1):
        for name in list(ways)[:: 1 if k % 2 else -1]:  # none always follows the same other
            ways[name]()
            start = seconds()
            ways[name]()
            took[name].append(seconds() - start)
    took = {name: times[1:] for name, times in took.items()}  # the first round warms up
    ratios = [a / b for a, b in zip(took["by hand"], took["fused"], strict=True)]
    cell = {name: 1e3 * statistics.median(times) for name, times in took.items()}
    return cell | {"by hand / fused": statistics.median(ratios)}


def memory(one) -> float:
    """MiB that a step needs at once on a GPU."""
    torch.cuda.reset_peak_memory_stats()
    base = torch.cuda.memory_allocated()
    one()
    return (torch.cuda.max_memory_allocated() - base) / 2**20


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--out", help="a JSON file for the numbers")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    threadpool_limits(1)
    cases = {f"attention, {length} places": attentions(length) for length in LENGTHS}
    for ours, theirs in ((GRU, nn.GRU), (LSTM, nn.LSTM)):
        for length in STEPS:
            cases[f"{ours.__name__}, {length} steps"] = recurrents(ours, theirs, length)
    results = {}
    for name, ways in cases.items():
        cell = results[name] = measure(ways, 1 if options.quick else options.rounds)
        line = f"{name:22} by hand {cell['by hand']:7.2f} ms, fused {cell['fused']:7.2f} ms"
        line += f", ratio {cell['by hand / fused']:.2f}"
        if DEVICE.type == "cuda":
            cell["MiB"] = {way: memory(one) for way, one in ways.items()}
            line += f", MiB {cell['MiB']['by hand']:.0f} and {cell['MiB']['fused']:.0f}"
        print(line)
    if options.out:
        provenance = records.provenance([0]) | {"command": "python benchmarks/attention.py"}
        with open(options.out, "w", encoding="utf-8") as file:
            json.dump({"provenance": provenance, "results": results}, file, indent=1)


if __name__ == "__main__":
    main()
