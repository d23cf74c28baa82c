"""Rows and tokens per second of the loaders, and what batches of like length save.

    python benchmarks/loaders.py            all loaders
    python benchmarks/loaders.py --quick    small sets

One thread, CPU seconds of the process, medians over rounds. Texts and tables are made up, with the
lengths of reviews, so that nothing is fetched. A token of padding does not count as a token. The
steps are those of a small Transformer, forward and backward, on batches of `Sequences` and on those
of a plain `Table`, which are all as long as the longest text; their ratio is taken within a round.
"""

import argparse
import json
import statistics
import time

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import nn

from mtl_course import records
from mtl_course.data import Columns, Sequences, Table, Unequal, text_ids, windows
from mtl_course.networks import Transformer, WordPiece, vocabulary

BATCH, LONGEST = 64, 128


def texts(count: int) -> list[str]:
    """Texts of 8 to 100 words, which become rarer as in language."""
    draws = np.random.RandomState(0)
    words = [
        "".join(draws.choice(list("abcdefghiklmnoprstuw"), n)) for n in draws.randint(2, 9, 3000)
    ]
    lengths = np.clip(draws.lognormal(3.5, 0.6, count).astype(int), 8, 100)
    return [" ".join(words[k] for k in np.minimum(draws.zipf(1.3, n), 3000) - 1) for n in lengths]


def people(count: int) -> dict[str, np.ndarray]:
    """A table of 4 columns of numbers and 8 of categories."""
    draws = np.random.RandomState(0)
    numbers = {f"number {k}": draws.randn(count) for k in range(4)}
    kinds = np.array([f"kind {k}" for k in range(20)])
    return numbers | {f"category {k}": kinds[draws.randint(0, 20, count)] for k in range(8)}


def median_seconds(call, rounds: int) -> float:
    """Median CPU seconds of a call, after one that warms up."""
    took = []
    for _ in range(rounds + 1):
        start = time.process_time()
        call()
        took.append(time.process_time() - start)
    return statistics.median(took[1:])


def epoch(data) -> int:
    """One epoch without a network; how many batches it had."""
    return sum(1 for _ in data.batches(BATCH, torch.Generator().manual_seed(0)))


def train(data) -> int:
    """One epoch of steps; how many places went through the network."""
    torch.manual_seed(0)
    network = Transformer(nn.Embedding(2000, 32), 32, layers=1, longest=LONGEST)
    places = 0
    for batch in data.batches(BATCH, torch.Generator().manual_seed(0)):
        network(batch.x).square().mean().backward()
        places += batch.x.numel()
    return places


def speeds(rows: int, rounds: int) -> dict[str, float]:
    """Loader -> rows per second, tokens per second where there are tokens."""
    some = texts(rows)
    pieces = vocabulary(some, 2000)
    ids = text_ids(some, WordPiece(pieces), LONGEST)
    tokens = int((ids != 0).sum())
    labels = {"kind": torch.zeros(rows, dtype=torch.int64)}
    table = people(rows)
    numbers, categories = list(table)[:4], list(table)[4:]
    columns = Columns(table, numbers, categories)
    x = torch.from_numpy(columns(table))
    series = np.random.RandomState(0).randn(rows + 40, 12)
    sequences = Sequences(ids, labels)
    unequal = Unequal({"text": (ids, labels["kind"]), "table": (x[::2], labels["kind"][::2])})

    def read():
        return text_ids(some, WordPiece(pieces), LONGEST)

    calls = {  # what, how many in a call, unit
        "texts to ids, a new reader": (read, tokens, "tokens"),
        "columns to numbers": (lambda: columns(table), rows, "rows"),
        "series to windows of 26": (lambda: windows(series, 26, [1, 4]), rows, "rows"),
        "batches of Table": (lambda: epoch(Table(x, labels)), rows, "rows"),
        "batches of Sequences": (lambda: epoch(sequences), tokens, "tokens"),
        "batches of Unequal": (lambda: epoch(unequal), 1.5 * rows, "rows"),
    }  # fmt: skip
    return {
        f"{name}, {unit} per second": count / median_seconds(call, rounds)
        for name, (call, count, unit) in calls.items()
    }


def saved(rows: int, rounds: int) -> dict[str, float]:
    """Share of places that are tokens, and seconds of an epoch on a `Table` / on `Sequences`."""
    some = texts(rows)
    ids = text_ids(some, WordPiece(vocabulary(some, 2000)), LONGEST)
    labels = {"kind": torch.zeros(rows, dtype=torch.int64)}
    ways = {"Table": Table(ids, labels), "Sequences": Sequences(ids, labels)}
    tokens, ratios, places = int((ids != 0).sum()), [], {}
    for k in range(rounds):
        took = {}
        for name in list(ways)[:: 1 if k % 2 else -1]:
            start = time.process_time()
            places[name] = train(ways[name])
            took[name] = time.process_time() - start
        ratios.append(took["Table"] / took["Sequences"])
    shares = {f"tokens among the places of {name}": tokens / n for name, n in places.items()}
    return shares | {"an epoch on Table / on Sequences": statistics.median(ratios)}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sets, one round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", help="a JSON file for the numbers")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    threadpool_limits(1)
    rows, rounds = (300, 1) if options.quick else (20_000, options.rounds)
    results = speeds(rows, rounds)
    for name, speed in results.items():
        print(f"{name:50} {speed:12,.0f}")
    for name, value in saved(min(rows, 2000), rounds).items():
        results[name] = value
        print(f"{name:50} {value:12.2f}")
    if options.out:
        provenance = records.provenance([0]) | {"command": "python benchmarks/loaders.py"}
        with open(options.out, "w", encoding="utf-8") as file:
            json.dump({"provenance": provenance, "results": results}, file, indent=1)


if __name__ == "__main__":
    main()
