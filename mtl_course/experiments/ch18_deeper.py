"""Chapter 18 with four convolutions: handwriting of other alphabets, photographs of new classes.

Three ways to learn from known classes against three that do without them. All that learn see the
same number of images. Rates and settings are chosen on validation classes. Needs no Jupyter.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import data, meta
from ..data.episodes import Episodes
from ..meta.few_shot import (
    adapted_logits,
    embed,
    episode_accuracy,
    fine_tuned_logits,
    prototype_logits,
    query_losses,
)
from ..meta.functional import Functional
from ..networks.trunks import Classifier, conv4
from ..records.pieces import kept
from .ch18_sets import Domain, features, parted, photographs
from .common import seeded

LEARNED = ("ProtoNet", "MAML", "frozen embedding")
WITHOUT = ("pixels", "neighbour", "scratch")  # nothing is learned from other classes
SHOTS = (1, 5)
RATES = (1e-3, 3e-3, 1e-2)  # of training, tried by every method that learns
INNER = (1, 0.4)  # steps and rate of MAML's inner loop in training
# steps and rate at test time: as many choices for every method that has some
CHOICES = {
    "MAML": ((1, 0.4), (5, 0.4), (5, 0.1), (10, 0.1)),
    "frozen embedding": ((50, 1.0), (50, 3.0), (50, 10.0), (50, 30.0)),
    "scratch": ((20, 0.4), (50, 0.1), (50, 0.4), (50, 1.0)),
}


@dataclass(frozen=True)
class Plan:
    """Sizes of the experiment.

    Args:
        side: pixels of a side, to which all images are shrunk.
        width: channels of each of the four convolutions.
        steps: of training.
        searched: steps of the trainings that choose a rate.
        images: per step.
        ways: of ProtoNet's tasks in training; MAML's head has 5.
        queries: per class.
        judged: test episodes; a network from scratch gets a fifth of them.
        tried: validation episodes for a choice.
    """

    side: int = 20
    width: int = 32
    steps: int = 400
    searched: int = 100
    images: int = 120
    ways: int = 20
    queries: int = 5
    judged: int = 300
    tried: int = 50


LONGER = Plan(side=28, images=240, searched=300)
LENGTHS = (400, 2000)  # steps of training
BEYOND = (1e-2, 3e-2)  # the longer record's rate, which is the largest of RATES, and the next


def shrunk(images: Tensor, side: int) -> Tensor:
    """Images [N, channels, a, a] with `side` pixels a side, each a mean of those it covers."""
    return F.interpolate(
        images, size=(side, side), mode="bilinear", antialias=True, align_corners=False
    )


def characters(plan: Plan) -> Domain:
    """Reduced Omniglot, parted by alphabet.

    A training character turned by a quarter, a half or three quarters is a training class of its
    own; those of validation and test stay as they are.
    """
    where = parted("omniglot_small", small=False)
    seen = torch.isin(where.y, torch.tensor(where.parts["train"]))
    count = int(where.y.max()) + 1
    x = [where.x] + [torch.rot90(where.x[seen], k, (2, 3)) for k in (1, 2, 3)]
    y = [where.y] + [where.y[seen] + k * count for k in (1, 2, 3)]
    turned = [c + k * count for k in range(4) for c in where.parts["train"]]
    return replace(
        where,
        x=shrunk(torch.cat(x), plan.side),
        y=torch.cat(y),
        parts=where.parts | {"train": turned},
    )


def photos(plan: Plan) -> Domain:
    """CIFAR-FS with the 150 images per class of the data root's part of CIFAR-100."""
    where = photographs(data.load("cifar100_partial"))
    return replace(where, x=shrunk(where.x, plan.side))


def trunk(where: Domain, plan: Plan, seed: int) -> nn.Sequential:
    """Four freshly drawn convolutions with BatchNorm."""
    return seeded(lambda: conv4(plan.side, plan.width, where.x.shape[1]), seed)


def train(
    method: str, where: Domain, plan: Plan, rate: float, seed: int, steps: int | None = None
) -> nn.Module:
    """A trained trunk; for MAML a Classifier with the learned start of its head.

    Adam with a rate that falls to zero along a cosine; the last weights are taken.
    """
    net, steps = trunk(where, plan, seed), steps or plan.steps
    width, source = features(net, where), where.source("train")
    classes = {"MAML": 5, "frozen embedding": len(where.parts["train"])}
    model = net
    if method in classes:
        model = seeded(lambda: Classifier(net, width, classes[method]), 1000 + seed)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    g = torch.Generator().manual_seed(seed)
    model.train()
    backward = _backward(method, model, where, source, plan)
    for _ in range(steps):
        optimizer.zero_grad()
        backward(g)
        optimizer.step()
        schedule.step()
    return (net if method == "frozen embedding" else model).eval()


def _backward(method, model, where, source, plan) -> Callable[[torch.Generator], None]:
    """generator -> None; draws a batch and writes the gradient of its loss."""
    if method == "frozen embedding":
        known = torch.tensor(where.parts["train"])
        rows = torch.isin(where.y, known).nonzero().flatten()
        labels = torch.searchsorted(known, where.y)

        def backward(g):
            at = rows[torch.randint(len(rows), (plan.images,), generator=g)]
            F.cross_entropy(model(where.x[at]), labels[at]).backward()

        return backward
    ways = 5 if method == "MAML" else plan.ways
    tasks = max(1, plan.images // (ways * (1 + plan.queries)))
    f = Functional(model, transductive=True) if method == "MAML" else None

    def backward(g):
        episodes = source.classification(tasks, ways, 1, plan.queries, g)
        if f is not None:
            meta.meta_backward(f, f.parameters(), episodes, F.cross_entropy, *INNER)
        else:
            logits = prototype_logits(model, episodes, ways)
            query_losses(logits, episodes.query[1]).mean().backward()

    return backward


def judge(
    method: str, model: nn.Module, choice: tuple[int, float] | None
) -> Callable[[Episodes], Tensor]:
    """episodes of 5 ways -> logits [T, q, 5].

    MAML and the network from scratch normalise by the queries' own statistics: they are
    transductive, all others are not.
    """

    @torch.no_grad()
    def logits(episodes: Episodes) -> Tensor:
        if method in ("MAML", "scratch"):
            return adapted_logits(Functional(model, transductive=True), episodes, *choice)
        if method == "ProtoNet":
            return prototype_logits(model, episodes, 5)
        if method == "pixels":
            return prototype_logits(nn.Flatten(), episodes, 5)
        (x, y), (query, _) = episodes.support, episodes.query
        if method == "neighbour":
            away = torch.cdist(query.flatten(2), x.flatten(2))
            nearest = y.gather(1, away.argmin(2))
            return F.one_hot(nearest, 5).float()
        # Tian et al.: features of length 1, a logistic regression per task
        z, seen = (F.normalize(part, dim=-1) for part in embed(model, x, query))
        head = nn.Linear(z.shape[-1], 5)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return fine_tuned_logits(head, (z, y), seen, *choice)

    return logits


def accuracy(method, model, where, part, shots, choice, plan, tasks, seed) -> float:
    """Mean accuracy in points over episodes of 5 ways of a part of the classes."""
    right = episode_accuracy(
        judge(method, model, choice),
        where.source(part),
        5,
        shots,
        plan.queries,
        tasks,
        seed=seed,
        at_once=25,
    )
    return 100 * float(right.double().mean())


def best_choice(method, model, where, plan, shots) -> tuple[float, tuple[int, float] | None]:
    """The best accuracy on validation episodes, and the setting at test time that reached it."""
    tasks = plan.tried if method != "scratch" else max(2, plan.tried // 2)

    def reached(choice):
        return accuracy(method, model, where, "validation", shots, choice, plan, tasks, 1)

    scores = [(reached(choice), choice) for choice in CHOICES.get(method, (None,))]
    return max(scores, key=lambda score: score[0])


def search(
    method: str, where: Domain, plan: Plan, rates: Sequence[float] = RATES, seed: int = 12345
) -> dict[str, float]:
    """Rate (as text) -> accuracy in points on 1-shot validation episodes of a short training.

    The seed is used for nothing else; 0 if training diverges.
    """
    scores = {}
    for rate in rates:
        try:
            model = train(method, where, plan, rate, seed, plan.searched)
            scores[f"{rate:g}"] = round(best_choice(method, model, where, plan, 1)[0], 2)
        except FloatingPointError:
            scores[f"{rate:g}"] = 0.0
    return scores


def compare(method: str, where: Domain, plan: Plan, rate: float, seed: int) -> dict:
    """Shots (as text) -> "accuracy" in points on test classes, and the "choice" at test time."""
    if method in LEARNED:
        model = train(method, where, plan, rate, seed)
    else:
        net = trunk(where, plan, seed)
        width = features(net, where)
        model = seeded(lambda: Classifier(net, width, 5), 1000 + seed)
    tasks = plan.judged if method != "scratch" else max(2, plan.judged // 5)
    rows = {}
    for shots in SHOTS:
        _, choice = (
            best_choice(method, model, where, plan, shots) if method in CHOICES else (0, None)
        )
        # other test episodes for every seed, the same for all methods
        score = accuracy(method, model, where, "test", shots, choice, plan, tasks, 100 + seed)
        rows[str(shots)] = {"accuracy": round(score, 3), "choice": choice}
    return rows


@torch.no_grad()
def picture(where: Domain, plan: Plan, rate: float, seed: int = 0, count: int = 6) -> dict:
    """Images of some test classes in the plane, "before" and "after" a ProtoNet's training.

    The two directions in which the features vary most; "y" are the classes, numbered.
    """
    g = torch.Generator().manual_seed(seed)
    test = where.parts["test"]
    few = [test[i] for i in torch.randperm(len(test), generator=g)[:count].tolist()]
    rows = torch.cat([(where.y == c).nonzero().flatten()[:20] for c in few])
    with torch.enable_grad():
        after = train("ProtoNet", where, plan, rate, seed)
    points = {"y": [k for k, c in enumerate(few) for _ in range(int((where.y[rows] == c).sum()))]}
    for name, net in (("before", trunk(where, plan, seed)), ("after", after)):
        # an untrained BatchNorm has no statistics yet: it takes the batch's
        z = net.train()(where.x[rows]) if name == "before" else net(where.x[rows])
        z = z - z.mean(0)
        plane = z @ torch.linalg.svd(z, full_matrices=False).Vh[:2].T
        points[name] = [[round(float(v), 3) for v in row] for row in plane / plane.std()]
    return points


def _searched(name: str, where: Domain, methods, plan: Plan) -> dict[str, dict[str, float]]:
    """Method -> what `search` gives; nothing for one that has no rate."""
    return {
        method: kept(f"{name}, {method}, search", search, method, where, plan)
        if method in LEARNED
        else {}
        for method in methods
    }


def _run(name: str, where: Domain, rates, plan: Plan, seeds, report) -> dict:
    """ "rates", "tests" (method -> shots -> lists over seeds) and "classes" of a set.

    rates: of each method that is run, as `_searched` gives them.
    """
    tests = {}
    for method in rates:
        rate = float(max(rates[method], key=rates[method].get, default="0"))
        rows = [
            kept(f"{name}, {method}, seed {seed}", compare, method, where, plan, rate, seed)
            for seed in seeds
        ]
        tests[method] = {
            shots: {key: [row[shots][key] for row in rows] for key in ("accuracy", "choice")}
            for shots in map(str, SHOTS)
        }
        report(f"{name}: {method}, rate {rate:g}: {tests[method]['1']['accuracy']}")
    return {
        "set": where.name,
        "rates": rates,
        "tests": tests,
        "classes": {part: len(classes) for part, classes in where.parts.items()},
    }


def run_characters(
    seeds: Sequence[int], report: Callable[[str], None] = print, *, plan: Plan | None = None
) -> dict:
    """Handwritten characters of new alphabets: what `_run` gives, and a `picture`. Plain JSON."""
    plan = plan or Plan()
    where = characters(plan)
    rates = _searched("characters", where, (*WITHOUT, *LEARNED), plan)
    results = _run("characters", where, rates, plan, seeds, report)
    best = float(max(rates["ProtoNet"], key=rates["ProtoNet"].get))
    return results | {"picture": kept("characters, picture", picture, where, plan, best)}


def run_photos(
    seeds: Sequence[int], report: Callable[[str], None] = print, *, plan: Plan | None = None
) -> dict:
    """Photographs of new classes: what `_run` gives, without MAML. Plain JSON."""
    plan = plan or Plan()
    methods = (*WITHOUT, "ProtoNet", "frozen embedding")
    where = photos(plan)
    return _run("photos", where, _searched("photos", where, methods, plan), plan, seeds, report)


def run_longer(
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan | None = None,
    lengths: Sequence[int] = LENGTHS,
) -> dict:
    """Characters in their own size with twice the tasks per step, trained shortly and long.

    Returns:
        Steps of training (as text) -> what `_run` gives for the methods that learn. Plain JSON.
    """
    plan = plan or LONGER
    where = characters(plan)
    rates = _searched("characters", where, LEARNED, plan)  # the search has a length of its own
    return {
        str(steps): _run(f"{steps} steps", where, rates, replace(plan, steps=steps), seeds, report)
        for steps in lengths
    }


def run_rates(
    seeds: Sequence[int], report: Callable[[str], None] = print, *, plan: Plan | None = None
) -> dict:
    """What lies beyond the rate of the longer record: method -> rate -> validation accuracies.

    Of short trainings, in points, one per seed. Plain JSON.
    """
    plan = plan or LONGER
    where, results = characters(plan), {}
    for method in LEARNED:
        rows = [
            kept(f"{method}, seed {seed}", search, method, where, plan, BEYOND, seed)
            for seed in seeds
        ]
        results[method] = {rate: [row[rate] for row in rows] for rate in rows[0]}
        report(f"{method}: {results[method]}")
    return results
