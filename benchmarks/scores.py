"""What scoring a source costs beside trying it, in CPU seconds.

    python benchmarks/scores.py            two targets; writes the record that chapter 16 shows
    python benchmarks/scores.py --quick    one target, one round; writes nothing

One thread, CPU seconds of the process, medians over interleaved rounds. A score includes its
forward pass. A trial is one fine-tuning with one rate, as torch writes it, judged on the validation
images at each stop; a search has as many trials as there are rates. Beside them stands what one
source cost to make, with labels and without.
"""

import argparse
import copy
import statistics
import time
from functools import partial

import torch
from threadpoolctl import threadpool_limits
from torch import nn
from torch.nn import functional as F

from mtl_course import records, transfer
from mtl_course.experiments import ch16

TARGETS = ("UCI digits", "Georgian")
SHOTS = 5


class Case:
    """A source, a target, and what may be done with the two."""

    def __init__(self, name: str, plan: ch16.Plan):
        self.plan = plan
        self.target = ch16.target_sets(plan, [name])[name]
        self.x, self.y = ch16.source_sets(plan, ["MNIST digits"])["MNIST digits"]
        self.model = ch16.train_source(plan, self.x, self.y, 0)
        self.rows = self.target.few(SHOTS, 0)
        _, self.validation, _ = self.target.parts(0)

    @torch.no_grad()
    def features(self):
        return self.model.trunk(self.target.x[self.rows])

    @torch.no_grad()
    def said(self):
        return self.model(self.target.x[self.rows]).double().softmax(dim=1)

    @torch.no_grad()
    def held_out(self):
        new = self.model.trunk(self.target.x[self.validation])
        labels = self.target.y
        return ch16.held_out_probe(
            self.features(), labels[self.rows], new, labels[self.validation]
        )[0]

    def trial(self, rate: float = 0.03):
        """One fine-tuning; the best validation accuracy of its stops."""
        model = copy.deepcopy(self.model)
        model.head = nn.Linear(self.plan.features, self.target.classes)
        x, y = self.target.x[self.rows], self.target.y[self.rows]
        new, truth = self.target.x[self.validation], self.target.y[self.validation]
        optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9)
        best = 0.0
        for step in range(1, max(self.plan.stops) + 1):
            some = torch.randint(len(y), (self.plan.batch,))
            loss = F.cross_entropy(model(x[some]), y[some])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step in self.plan.stops:
                with torch.no_grad():
                    best = max(best, float((model(new).argmax(1) == truth).float().mean()))
        return best

    def ways(self):
        """Name -> what is timed."""
        y = self.target.y[self.rows]
        return {
            "forward pass": self.features,
            "probe, held out": self.held_out,
            "probe, left out": lambda: transfer.probe_score(self.features(), y),
            "H-score": lambda: transfer.h_score(self.features(), y),
            "LogME": lambda: transfer.logme(self.features(), y),
            "NCE": lambda: transfer.nce(self.said().argmax(1), y),
            "LEEP": lambda: transfer.leep(self.said(), y),
            "one trial": self.trial,
            "a search": lambda: [self.trial(rate) for rate in self.plan.rates],
            "a source with labels": partial(ch16.train_source, self.plan, self.x, self.y, 0),
            "a source without labels": partial(ch16.train_views, self.plan, self.x, 0),
        }


def measure(case: Case, rounds: int) -> dict[str, float]:
    """Name -> median CPU seconds. Each way runs twice in a round, and its second run counts.

    What takes longer than a second runs in the first three rounds only.
    """
    seconds = {}
    for k in range(rounds):
        for name, way in case.ways().items():
            if k >= 3 and statistics.median(seconds[name]) > 1:
                continue
            for _ in range(1 if name.startswith("a source") else 2):
                start = time.process_time()
                way()
                took = time.process_time() - start
            seconds.setdefault(name, []).append(took)
    return {name: statistics.median(times) for name, times in seconds.items()}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one target, one round, no record")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    threadpool_limits(1)
    plan, results = ch16.PLANS["cpu"], {}
    for name in TARGETS[:1] if options.quick else TARGETS:
        case = Case(name, plan)
        seconds = measure(case, 1 if options.quick else options.rounds)
        results[name] = {"labels": len(case.rows), "seconds": seconds}
        print(f"{name}, {len(case.rows)} labels")
        for way, value in seconds.items():
            share = value / seconds["a search"]
            print(f"  {way:24} {1e3 * value:9.2f} ms   {share:8.4f} of a search")
    if options.quick:
        return
    provenance = records.provenance([0]) | {"command": "python benchmarks/scores.py"}
    print(f"\nwritten to {records.save(records.Record('16', 'timing', results, provenance))}")


if __name__ == "__main__":
    main()
