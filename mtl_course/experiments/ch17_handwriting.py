"""Chapter 17, handwriting: MAML's start against one classifier of all training characters.

Images, network and training are those of chapter 18: reduced Omniglot, four convolutions. A new
task shows one example of each of five characters. Every start is tuned as a whole, with the same
rates to choose from, and normalises by the statistics of the batch. Needs no Jupyter.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from ..meta.few_shot import adapted_logits, episode_accuracy
from ..meta.functional import Functional
from ..networks.trunks import Classifier
from ..records.pieces import kept
from . import ch18_deeper
from .ch18_deeper import Plan, characters, trunk
from .ch18_sets import Domain, features
from .common import seeded

# updates of the classifier for one meta-update: so many take about as long as MAML's
LONGER_BY = 3
# start -> chapter 18's training that makes it, and how many times as long that is
STARTS = {
    "scratch": ("", 0),
    "joint, new head": ("frozen embedding", 1),
    "joint, new head, longer": ("frozen embedding", LONGER_BY),
    "MAML": ("MAML", 1),
}
COUNTS = (1, 2, 5)  # steps on a new task
RATES = (0.003, 0.01, 0.03, 0.1, 0.4, 1.0, 3.0)  # of these steps
OUTER = (1e-3, 3e-3, 1e-2, 3e-2)  # of training
SMALL = Plan(judged=200, tried=40)
SEARCHED = 12345  # the seed of the trainings that choose a rate, used for nothing else


def start(name: str, where: Domain, plan: Plan, rate: float, seed: int, steps: int) -> Classifier:
    """A start for tasks of five characters, after `steps` updates of training.

    A joint one is the classifier's trunk with a head of zeros.
    """
    method, times = STARTS[name]
    if method == "MAML":
        return ch18_deeper.train(method, where, plan, rate, seed, times * steps)
    net = trunk(where, plan, seed)
    if method:
        net = ch18_deeper.train(method, where, plan, rate, seed, times * steps)
    model = seeded(lambda: Classifier(net, features(net, where), 5), 1000 + seed)
    if method:
        nn.init.zeros_(model.head.weight)
        nn.init.zeros_(model.head.bias)
    return model


def right(
    model: nn.Module, where: Domain, part: str, choice: tuple[int, float], tasks: int, seed: int
) -> float:
    """Right answers in per cent after `choice`: so many steps at such a rate.

    0 where the steps diverge.
    """
    f = Functional(model, transductive=True)
    try:
        found = episode_accuracy(
            lambda episodes: adapted_logits(f, episodes, *choice),
            where.source(part),
            5,
            1,
            5,
            tasks,
            seed=seed,
            at_once=25,
        )
    except FloatingPointError:
        return 0.0
    return round(100 * float(found.double().mean()), 3)


def choose(
    model: nn.Module, where: Domain, tasks: int, counts: Sequence[int] = COUNTS
) -> dict[int, tuple[float, float]]:
    """Number of steps -> the best validation accuracy in per cent, and the rate that reached it."""
    return {
        steps: max((right(model, where, "validation", (steps, r), tasks, 1), r) for r in RATES)
        for steps in counts
    }


def search(name: str, where: Domain, plan: Plan) -> dict[str, float]:
    """Rate (as text) -> mean validation accuracy after one and after most steps.

    From trainings of `plan.searched` updates.
    """
    scores = {}
    for rate in OUTER:
        try:
            model = start(name, where, plan, rate, SEARCHED, plan.searched)
        except FloatingPointError:
            scores[f"{rate:g}"] = 0.0
            continue
        found = choose(model, where, plan.tried, (COUNTS[0], COUNTS[-1]))
        scores[f"{rate:g}"] = round(sum(score for score, _ in found.values()) / len(found), 3)
    return scores


def compare(name: str, where: Domain, plan: Plan, rate: float, seed: int) -> dict[str, list]:
    """Per number of steps: "test" accuracy in per cent, and the "rate" that validation chose."""
    model = start(name, where, plan, rate, seed, plan.steps)
    chosen = {steps: rate for steps, (_, rate) in choose(model, where, plan.tried).items()}
    # other test episodes for every seed, the same for all starts
    return {
        "test": [right(model, where, "test", c, plan.judged, 100 + seed) for c in chosen.items()],
        "rate": list(chosen.values()),
    }


def run_handwriting(
    seeds: Sequence[int], report: Callable[[str], None] = print, *, plan: Plan = SMALL
) -> dict:
    """ "rates" of training that were tried, and start -> one row of `compare` per seed."""
    where, rates, rows = characters(plan), {}, {}
    for name, (method, _) in STARTS.items():
        rates[name] = kept(f"{name}, search", search, name, where, plan) if method else {}
        rate = float(max(rates[name], key=rates[name].get, default="0"))
        rows[name] = [
            kept(f"{name}, seed {seed}", compare, name, where, plan, rate, seed) for seed in seeds
        ]
        report(f"{name}, rate {rate:g}: {torch.tensor([r['test'] for r in rows[name]]).mean(0)}")
    return {"rates": rates, "starts": rows}
