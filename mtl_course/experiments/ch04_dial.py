"""Chapter 4, the dial: few labelled digits beside many images that are more or less like them.

A share p of the many images has its pixels permuted, always in the same way: at p = 0 both tasks
need the same features, at p = 1 they have none in common. Every way to share has linear features
of one width. All settings of one way train side by side. Needs no Jupyter.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from .. import data
from ..multitask.experts import CGC, PLE, MMoE
from ..multitask.sharing import CrossStitch, Network, OwnTrunks, Parallel, Shared
from ..records.pieces import kept
from .common import seeded

TASKS = ("few", "many")
WAYS = (
    "own trunks",
    "one trunk",
    "soft",
    "cross-stitch",
    "MMoE",
    "PLE",
    "twice as wide",  # one trunk with the parameters of two
    "equal weights",  # one trunk, and the few labels count as much as the many
)


@dataclass(frozen=True)
class Plan:
    """Sizes and settings, the same for every way to share.

    Args:
        few: labelled images of the task that we care about.
        many: labelled images of its companion.
        held: validation images, for rate, strength and stop.
        test: test images.
        side: pixels of an image's side.
        features: linear features that a head reads.
        shares: values of the dial, the share p of permuted images.
        steps: of Adam, with `batch` images of either task.
        stops: how many there are; validation chooses one.
        batch: images of a task per step.
        rates: of Adam.
        strengths: of soft sharing's penalty.
    """

    few: int = 50
    many: int = 2000
    held: int = 300
    test: int = 2000
    side: int = 14
    features: int = 8
    shares: tuple[float, ...] = (0.0, 0.5, 0.75, 0.9, 1.0)
    steps: int = 200
    stops: int = 10
    batch: int = 100
    rates: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03)
    strengths: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0)


PLAN = Plan()


@cache
def images(side: int) -> tuple[Tensor, Tensor]:
    """Pixels [5000, side * side] between 0 and 1, and digits [5000]."""
    mnist = data.load("mnist_5k")
    x = torch.tensor(np.array(mnist.x), dtype=torch.float32)[:, None] / 255
    return F.adaptive_avg_pool2d(x, side).flatten(1), torch.tensor(np.array(mnist.y))


@dataclass(frozen=True)
class Draw:
    """The images of one seed.

    Args:
        x: pixels [5000, d].
        permuted: the same images with permuted pixels.
        y: digits [5000].
        chance: a number between 0 and 1 per image; below p, the image is permuted.
        rows: "few", "many", "held" and "test" -> image numbers, no image in two of them.
    """

    x: Tensor
    permuted: Tensor
    y: Tensor
    chance: Tensor
    rows: dict[str, Tensor]

    def at(self, rows: Tensor, p: Tensor) -> Tensor:
        """Images of the companion at dial p [R]: [R, n, d]."""
        moved = self.chance[rows] < p[:, None]
        return torch.where(moved[..., None], self.permuted[rows], self.x[rows])


def draw(seed: int, plan: Plan = PLAN) -> Draw:
    """Images, permutation and parts of a seed."""
    x, y = images(plan.side)
    random = np.random.RandomState(seed)
    counts = [plan.few, plan.many, plan.held, plan.test]
    order = torch.tensor(random.permutation(len(y))[: sum(counts)])
    parts = dict(zip(("few", "many", "held", "test"), order.split(counts), strict=True))
    moved = torch.tensor(random.permutation(x.shape[1]))
    chance = torch.tensor(random.rand(len(y)))
    return Draw(x, x[:, moved], y, chance, parts)


def build(way: str, d: int, k: int) -> nn.Module:
    """Two tasks of ten classes on linear features: x [B, d] -> task -> [B, 10].

    Raises:
        ValueError: if there is no such way.
    """

    def layer():
        return nn.Linear(d, k)

    def gates(count):
        return {t: nn.Linear(d, count) for t in TASKS}

    if way == "own trunks":
        pattern = OwnTrunks({t: layer() for t in TASKS})
    elif way in ("one trunk", "equal weights"):
        pattern = Shared(layer(), TASKS)
    elif way == "twice as wide":
        k = 2 * k
        pattern = Shared(layer(), TASKS)
    elif way == "soft":  # both trunks start at one place
        trunk = layer()
        pattern = OwnTrunks({t: deepcopy(trunk) for t in TASKS})
    elif way == "cross-stitch":
        pattern = CrossStitch({t: [layer()] for t in TASKS})
    elif way == "MMoE":
        pattern = MMoE([layer() for _ in range(3)], gates(3))
    elif way == "PLE":
        pattern = PLE([CGC({t: [layer()] for t in TASKS}, [layer()], gates(2))])
    else:
        raise ValueError(f"There is no way {way!r}; the ways are {', '.join(WAYS)}.")
    return Network(pattern, Parallel({t: nn.Linear(k, 10) for t in TASKS}))


def spread(params: dict[str, Tensor]) -> Tensor:
    """Squared distance of the two trunks from their mean, as `OwnTrunks.spread`, by names."""
    trunks = [
        [v for name, v in params.items() if name.startswith(f"pattern.{task}.")] for task in TASKS
    ]
    return sum((a - b).square().sum() / 2 for a, b in zip(*trunks, strict=True))


def train(way: str, seed: int, plan: Plan = PLAN) -> list[dict]:
    """One way to share at every value of the dial; one entry per value.

    Runs that differ in dial, rate and strength are trained together, stacked. Of rates, strengths
    and stops each task takes those with its least validation loss, in every way to share.

    Returns:
        Per value: task -> "accuracy" on the test images, in per cent, the "validation" loss
        that was least, "rate", "strength" and "stop".
    """
    given = draw(seed, plan)
    strengths = plan.strengths if way == "soft" else (0.0,)
    runs = list(product(plan.shares, plan.rates, strengths))
    p, rate, strength = torch.tensor(runs, dtype=torch.float32).T
    model = seeded(lambda: build(way, given.x.shape[1], plan.features), seed)
    params = {
        n: v.detach().expand(len(runs), *v.shape).clone() for n, v in model.named_parameters()
    }

    weight = 1.0 if way == "equal weights" else plan.few / plan.many

    def loss(params, x_few, y_few, x_many, y_many, strength):
        output = functional_call(model, params, (torch.cat([x_few, x_many]),))
        few, many = output["few"][: len(y_few)], output["many"][len(y_few) :]
        # every labelled image counts alike, as in one mean over all rows of both tasks
        total = F.cross_entropy(many, y_many) + weight * F.cross_entropy(few, y_few)
        return total + strength * spread(params) if way == "soft" else total

    slopes = vmap(grad(loss), in_dims=(0, None, None, 0, None, 0))
    predict = vmap(lambda params, x: functional_call(model, params, (x,)), (0, 0))
    first, second = ({n: torch.zeros_like(v) for n, v in params.items()} for _ in range(2))
    order = torch.Generator().manual_seed(seed)
    stops = []
    few, many = given.rows["few"], given.rows["many"]
    for step in range(1, plan.steps + 1):
        a = few[torch.randperm(len(few), generator=order)[: plan.batch]]
        b = many[torch.randperm(len(many), generator=order)[: plan.batch]]
        g = slopes(params, given.x[a], given.y[a], given.at(b, p), given.y[b], strength)
        for n, v in params.items():  # Adam, with a rate for each run
            first[n].lerp_(g[n], 0.1)
            second[n].lerp_(g[n].square(), 0.001)
            scale = (second[n] / (1 - 0.999**step)).sqrt() + 1e-8
            size = rate.reshape(-1, *[1] * (v.ndim - 1)) / (1 - 0.9**step)
            v.sub_(size * first[n] / scale)
        if step % (plan.steps // plan.stops) == 0:
            stops.append(_judged(predict, params, given, p))
    losses, right = (torch.stack(part).double() for part in zip(*stops, strict=True))
    found = []
    for share in plan.shares:
        here = torch.tensor([run[0] == share for run in runs])
        row = {"accuracy": {}, "validation": {}, "rate": {}, "stop": {}, "strength": {}}
        for t, task in enumerate(TASKS):
            best = int(losses[..., t].masked_fill(~here, torch.inf).argmin())
            stop, number = divmod(best, len(runs))
            row["accuracy"][task] = round(float(right[stop, number, t]), 3)
            row["validation"][task] = float(losses[stop, number, t])
            row["rate"][task], row["strength"][task] = runs[number][1:]
            row["stop"][task] = (stop + 1) * (plan.steps // plan.stops)
        found.append(row)
    return found


def _judged(predict, params, given: Draw, p: Tensor) -> tuple[Tensor, Tensor]:
    """Validation loss, and per cent of the test images named right: [R, 2] each."""
    losses, right = [], []
    for task, share in (("few", torch.zeros_like(p)), ("many", p)):
        said = {
            part: predict(params, given.at(given.rows[part], share))[task]
            for part in ("held", "test")
        }
        y = given.y[given.rows["held"]].expand(len(p), -1)
        held = F.cross_entropy(said["held"].transpose(1, 2), y, reduction="none")
        losses.append(held.mean(1))
        hits = said["test"].argmax(2) == given.y[given.rows["test"]]
        right.append(100 * hits.float().mean(1))
    return torch.stack(losses, 1), torch.stack(right, 1)


def accuracy(rows: Sequence[Sequence[dict]], task: str | None = None) -> np.ndarray:
    """Per cent right [seeds, values of the dial] of a way: of a task, or the mean of both."""
    names = TASKS if task is None else (task,)
    return np.array([[np.mean([at["accuracy"][t] for t in names]) for at in row] for row in rows])


def run_dial(
    seeds: Sequence[int], report: Callable[[str], None] = print, *, plan: Plan = PLAN
) -> dict:
    """Way to share -> one list per seed, an entry per value of the dial. Plain JSON."""
    results = {way: [] for way in WAYS}
    for seed in seeds:
        for way, rows in results.items():
            rows.append(kept(f"dial, {way}, seed {seed}", train, way, seed, plan))
        shown = {way: accuracy(rows[-1:])[0].round(1).tolist() for way, rows in results.items()}
        report(f"seed {seed}: {shown}")
    return results
