"""Chapter 8: 20 classes of photographs with five labels each, learned beside 80 other classes.

All are of CIFAR-100, halved as in `ch08_photos`. Each method has a rate of its own, except that a
network alone keeps its rate when it trains for twice as long. The joint network is held against
strong rivals: a network alone with up to twice its compute, and one that learns the 80 classes
first and is then fine-tuned. Needs no Jupyter.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..data.augment import compose, crop, flip
from ..multitask.sharing import HardSharing
from ..records.pieces import kept
from ..training.evaluation import predict
from .ch08_compare import Plan, cost, network, optimizer
from .ch08_photos import dealt, photos

Sets = Mapping[str, Mapping[str, tuple[Tensor, Tensor]]]  # task -> part -> photos and labels


@dataclass(frozen=True)
class Sizes:
    """Sizes of the experiment.

    Args:
        widths: channels of the three stages, one residual block each.
        steps: of SGD for the joint network.
        few: photos per step of the target, in the joint network.
        many: photos per step of the partner, in the joint network.
        alone: photos per step of every network that sees one set only.
        classes: of the target, drawn from CIFAR-100; the others are the partner's.
        labels: per class of the target.
        partner: training photos per class of the partner.
        held_out: photos per class of the target for validation and for the test.
        rates: at the peak of the schedule, with which every method begins its search.
        bounds: the search is widened while its edge is best, within these.
        source_rate: of a network that learns the partner's classes first.
        judges: the first seeds, on whose validation photos the rates are chosen.
    """

    widths: tuple[int, ...] = (16, 32, 64)
    steps: int = 600
    few: int = 64
    many: int = 64
    alone: int = 64
    classes: int = 20
    labels: int = 5
    partner: int = 150
    held_out: tuple[int, int] = (30, 60)
    rates: tuple[float, ...] = (0.03, 0.1, 0.3)
    bounds: tuple[float, float] = (0.003, 10.0)
    source_rate: float = 0.1
    judges: int = 2

    @property
    def plan(self) -> Plan:
        """The network of all methods."""
        return Plan(side=16, channels=3, depths=(1, 1, 1), widths=self.widths)

    def rounds(self, compute: float) -> int:
        """Steps on one set, with `alone` photos each, for a share of the joint run's compute."""
        return round(compute * self.steps * (self.few + self.many) / self.alone)

    @property
    def shares(self) -> dict[str, float]:
        """Method -> its compute, in that of the joint run."""
        return {
            "alone, all the compute": 1.0,
            "alone, twice the compute": 2.0,
            "fine-tuned": 1.0,
            "joint": 1.0,
        }


def draw(seed: int, sizes: Sizes) -> dict[str, dict[str, tuple[Tensor, Tensor]]]:
    """The classes of this draw with a few labels each ("few"), and all others ("many")."""
    x, y, _ = photos("cifar100")
    order = np.random.RandomState(seed).permutation(100)
    sides = {
        "few": (order[: sizes.classes], sizes.labels, sizes.held_out),
        "many": (order[sizes.classes :], sizes.partner, (0, 0)),
    }
    sets = {}
    for task, (classes, n, held_out) in sides.items():
        new = torch.zeros(100, dtype=torch.long)
        new[torch.from_numpy(classes)] = torch.arange(len(classes))
        rows = dealt(y.numpy(), classes, n, held_out, seed)
        sets[task] = {part: (x[r], new[y[r]]) for part, r in rows.items()}
    return sets


def rounds_of(n: int, size: int, order: torch.Generator) -> Iterator[Tensor]:
    """Rows of a set of n, `size` at a time for ever, newly shuffled in each round."""
    while True:
        yield from torch.randperm(n, generator=order).split(size)


def learned(
    sets: Sets,
    sizes: Mapping[str, int],
    plan: Plan,
    steps: int,
    rate: float,
    seed: int,
    trunk: Mapping[str, Tensor] | None = None,
) -> HardSharing:
    """A network after the last step, whose trunk starts from a state, if one is given.

    The loop of `ch08_photos`, except that each task has its own number of photos per step.

    Args:
        sets: photos and labels.
        sizes: task -> photos per step; other tasks are left out.
        plan: the network.
        steps: of SGD.
        rate: at the peak of the schedule.
        seed: of the initial weights and of the order.
        trunk: a state to start from.
    """
    train = {task: sets[task]["train"] for task in sizes}
    model = network(plan, {task: int(y.max()) + 1 for task, (_, y) in train.items()}, seed)
    if trunk:
        model.trunk.load_state_dict(trunk)
    model.to(memory_format=torch.channels_last)
    sgd, schedule = optimizer(model, rate, steps)
    chance, augment = torch.Generator().manual_seed(seed), compose(flip, crop(2))
    orders = {
        task: rounds_of(len(y), sizes[task], torch.Generator().manual_seed(seed))
        for task, (_, y) in train.items()
    }
    model.train()
    for _ in range(steps):
        rows = {task: next(order) for task, order in orders.items()}
        x = torch.cat([train[task][0][r] for task, r in rows.items()])
        features = model.trunk(augment(x, chance)).split([len(r) for r in rows.values()])
        loss = sum(
            F.cross_entropy(model.heads[task](z), train[task][1][r])
            for (task, r), z in zip(rows.items(), features, strict=True)
        )
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        schedule.step()
    return model.eval()


@cache
def source(seed: int, sizes: Sizes) -> dict[str, Tensor]:
    """A trunk that has learned the partner's classes, for the partner's share of the compute."""
    steps = sizes.rounds(sizes.many / (sizes.few + sizes.many))
    model = learned(
        draw(seed, sizes), {"many": sizes.alone}, sizes.plan, steps, sizes.source_rate, seed
    )
    return model.trunk.state_dict()


def trial(method: str, rate: float, seed: int, sizes: Sizes) -> dict[str, float]:
    """Part -> accuracy on the target's photos, in per cent, of one training."""
    sets = draw(seed, sizes)
    each, steps, trunk = {"few": sizes.alone}, sizes.rounds(sizes.shares[method]), None
    if method == "joint":
        each, steps = {"few": sizes.few, "many": sizes.many}, sizes.steps
    elif method == "fine-tuned":
        steps = sizes.rounds(sizes.few / (sizes.few + sizes.many))
        trunk = source(seed, sizes)
    model = learned(sets, each, sizes.plan, steps, rate, seed, trunk)
    return {part: correct(model, *sets["few"][part]) for part in ("validation", "test")}


def correct(model: HardSharing, x: Tensor, y: Tensor) -> float:
    """Share of the target's photos that are named right, in per cent."""
    return round(100 * float((predict(model, x)["few"].argmax(1) == y).float().mean()), 3)


def _done(method: str, rate: float, seed: int, sizes: Sizes) -> dict[str, float]:
    """`trial`, kept: a piece of a record is one training."""
    return kept(f"{method}, rate {rate}, seed {seed}, {sizes}", trial, method, rate, seed, sizes)


def chosen(
    method: str, judges: Sequence[int], sizes: Sizes
) -> tuple[float, dict[float, list[float]]]:
    """The best rate on the judges' validation photos; and rate -> those accuracies.

    All methods start with the same rates. While the best is the lowest or the highest tried, one
    three times lower or higher is tried, too.
    """
    reached, new = {}, list(sizes.rates)
    while new:
        for rate in new:
            reached[rate] = [_done(method, rate, seed, sizes)["validation"] for seed in judges]
        best = max(reached, key=lambda r: np.mean(reached[r]))
        beyond = {min(reached): best / 3, max(reached): best * 3}.get(best, 0.0)
        beyond = float(f"{beyond:.1g}")
        new = [beyond] if sizes.bounds[0] <= beyond <= sizes.bounds[1] else []
    return best, dict(sorted(reached.items()))


def priced(sizes: Sizes) -> dict[str, float]:
    """Method -> multiply-adds of all forward passes of its training."""
    _, each = cost(sizes.plan, {"few": sizes.classes, "many": 100 - sizes.classes})
    joint = each * (sizes.few + sizes.many) * sizes.steps
    return {method: float(share * joint) for method, share in sizes.shares.items()}


def run(
    seeds: Sequence[int], report: Callable[[str], None] = print, *, sizes: Sizes | None = None
) -> dict:
    """All methods on each draw, each at the rate that it chose. Plain JSON.

    Returns:
        "rates", method -> rate; "trials", method -> rate -> validation accuracies, of the methods
        that chose their own. "accuracy",
        method -> part -> a value per seed, in per cent. "compute" as `priced` gives it; "set", the
        name of the set that was there; "photos", task -> photos of each part.
    """
    sizes = sizes or Sizes()
    rates, trials, accuracy = {}, {}, {}
    for method in ("joint", "alone, all the compute", "fine-tuned"):
        rates[method], reached = chosen(method, list(seeds)[: sizes.judges], sizes)
        trials[method] = {str(rate): values for rate, values in reached.items()}
        report(f"{method}: rate {rates[method]} of {reached}")
    rates["alone, twice the compute"] = rates["alone, all the compute"]
    for seed in seeds:
        for method, rate in rates.items():
            for part, value in _done(method, rate, seed, sizes).items():
                accuracy.setdefault(method, {}).setdefault(part, []).append(value)
        report(f"seed {seed}: { {m: row['test'][-1] for m, row in accuracy.items()} }")
    sets = draw(next(iter(seeds)), sizes)
    return {
        "set": photos("cifar100")[2],
        "photos": {t: {part: len(y) for part, (_, y) in rows.items()} for t, rows in sets.items()},
        "rates": rates,
        "trials": trials,
        "accuracy": accuracy,
        "compute": priced(sizes),
    }
