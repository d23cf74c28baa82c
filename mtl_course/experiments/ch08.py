"""Chapter 8: one residual network for two label sets, and for two digits in one image; a failure of
BatchNorm between two sets.

The test images are the same for all seeds and no choice sees them. `ch08_compare` trains and
compares, `ch08_features` looks into the trunk, `ch08_gpu` holds the experiment at full size. Needs
no Jupyter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .. import data
from ..data import two_digits
from ..data.batches import Separate, Table
from ..data.splits import per_class
from ..multitask.sharing import HardSharing
from ..runtime import device as fastest
from ..training.evaluation import predict
from .ch02 import images_of
from .ch08_compare import (
    PARTS,
    Data,
    Plan,
    accuracy,
    compare,
    cost,
    gains,
    network,
    optimizer,
    singles,
    train,
    tuned,
)
from .ch08_features import gaze, names_carried, upper_left
from .ch08_gpu import CIFAR, full_size

__all__ = [
    "CIFAR",
    "DIGITS",
    "PARTNERS",
    "SETS",
    "accuracy",
    "cost",
    "gains",
    "gaze",
    "label_sets",
    "network",
    "one_image",
    "predict",
    "run",
    "train",
    "tuned",
]

SETS = Plan()
DIGITS = Plan(side=14, pool=2, epochs=4)


# ----------------------------------------------------------------------------- two small label sets
PARTNERS = {"same digits": (6, 7, 8, 9), "other digits": (0, 1, 2, 3, 4, 5)}  # of MNIST
TARGET = (6, 7, 8, 9)  # of the UCI digits


@cache
def _images(name: str, side: int) -> tuple[Tensor, Tensor]:
    return images_of(name, side)


def drawn(
    x: Tensor, y: Tensor, keep: Sequence[int], shares: Sequence[int], seed: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Part -> (images, labels from 0) of the classes `keep`, with shares of training, validation
    and test images a class.

    The test images do not depend on the seed, so that no seed's choices can have seen another's.
    """
    new = torch.full((int(y.max()) + 1,), -1)
    new[list(keep)] = torch.arange(len(keep))
    rows = torch.isin(y, torch.tensor(keep)).nonzero().squeeze(1)
    x, y = x[rows], new[y[rows]]
    test = per_class(y, shares[2], seed=0)
    rest = np.setdiff1d(np.arange(len(y)), test)
    own = two_digits.parts(y[rest].numpy(), {"train": shares[0], "validation": shares[1]}, seed + 1)
    return {
        part: (x[r], y[r])
        for part, r in {**{part: rest[r] for part, r in own.items()}, "test": test}.items()
    }


def label_sets(partner: str, few: int, seed: int, plan: Plan = SETS) -> Data:
    """The UCI digits 6 to 9 with `few` labels a class, and 960 MNIST images of the same digits or
    of others, each with a head of its own.
    """
    keep = PARTNERS[partner]
    sets = {
        "mnist": drawn(*_images("mnist_5k", plan.side), keep, (960 // len(keep), 50, 200), seed),
        "uci": drawn(*_images("digits", plan.side), TARGET, (few, 25, 90), seed),
    }
    return Data(
        {part: Separate({name: held[part] for name, held in sets.items()}) for part in PARTS},
        {"mnist": len(keep), "uci": len(TARGET)},
    )


# -------------------------------------------------------------------------- two digits in one image
def one_image(
    seed: int,
    plan: Plan = DIGITS,
    tasks: Sequence[str] = ("left", "right", "sum"),
    pairs=(1984, 1000, 2000),
) -> Data:
    """Two MNIST digits in an image: the left one, the right one, and their sum, 19 classes. The
    test images are the same for every seed.
    """
    ds = data.load("mnist_5k")
    y = np.array(ds.y)
    test = per_class(y, 100, seed=0)
    rest = np.setdiff1d(np.arange(len(y)), test)
    rows = {
        part: rest[r]
        for part, r in two_digits.parts(
            y[rest], {"train": 300, "validation": 100}, seed + 1
        ).items()
    } | {"test": test}
    found = {}
    for k, (part, n) in enumerate(zip(PARTS, pairs, strict=True)):
        x, labels = two_digits.pairs(
            ds.x[rows[part]],
            y[rows[part]],
            n,
            seed=2 if part == "test" else 3 * (seed + 1) + k,
            size=plan.side,
        )
        labels["sum"] = labels["left"] + labels["right"]
        found[part] = Table((x - 0.15) / 0.3, {name: labels[name] for name in tasks})
    return Data(found, {name: {"sum": 19}.get(name, 10) for name in tasks})


# ------------------------------------------------------------------ a failure: two passes, one norm
def in_two_passes(held: Data, plan: Plan, rate: float, seed: int) -> HardSharing:
    """As `train`, but each set goes through the network by itself, and the two losses are added:
    the same examples in each step.

    BatchNorm then scales each set by its own batch, and keeps one running mean over both for later.
    No epoch is chosen: the last counts.
    """
    model = network(plan, held.classes, seed)
    sgd, schedule = optimizer(model, rate, plan.epochs * held.steps(plan.batch))
    order = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(plan.epochs):
        for batch in held.parts["train"].batches(plan.batch, order):
            sgd.zero_grad()
            for name, (rows, y) in batch.targets.items():
                F.cross_entropy(model.heads[name](model.trunk(batch.x[rows])), y).backward()
            sgd.step()
            schedule.step()
    return model


def own_statistics(model: HardSharing, held: Data) -> dict[str, float]:
    """Test accuracy of each set when BatchNorm scales it by the set's own mean and variance, over
    all its test images at once.
    """
    kept = {name: t.clone() for name, t in model.state_dict().items()}
    found = {}
    with torch.no_grad():
        for name, (x, y) in held.parts["test"].sets.items():
            model.train()
            found[name] = float((model(x)[name].argmax(dim=1) == y).float().mean())
            model.load_state_dict(kept)
    model.eval()
    return found


def norm_failure(
    draws: Mapping[int, Data], plan: Plan, rate: float
) -> dict[str, dict[str, list[float]]]:
    """How it was trained and judged -> test accuracy of each task, one value a seed."""
    found = {"one batch": [], "two passes": [], "two passes, own statistics": []}
    for seed, held in draws.items():
        found["one batch"].append(accuracy(train(held, plan, rate, seed)[0], held))
        model = in_two_passes(held, plan, rate, seed)
        found["two passes"].append(accuracy(model, held))
        found["two passes, own statistics"].append(own_statistics(model, held))
    return {
        way: {name: [row[name] for row in rows] for name in rows[0]} for way, rows in found.items()
    }


# ------------------------------------------------------------------------------------- for a record
def small_sets(seeds: Sequence[int], plan: Plan = SETS) -> dict:
    """The UCI digits with two partners, at 5 and at 50 labels a class; how far names are carried
    over; the two passes.
    """
    rows, single = {}, {}
    for few in (5, 50):
        for partner in PARTNERS:
            draws = {seed: label_sets(partner, few, seed, plan) for seed in seeds}
            keys = {
                "uci": few,
                "mnist": partner,
            }  # what the network of this task alone depends on: it is trained once
            case = f"{few} labels, {partner}"
            rows[case], models = compare(
                draws,
                plan,
                {name: single[key] for name, key in keys.items() if key in single},
                wide=few == 5,
            )
            single |= {keys[name]: row for name, row in singles(rows[case]).items()}
            if (few, partner) == (5, "same digits"):
                same, carried = (
                    draws,
                    {"MNIST alone": models["mnist"], "joint, same digits": models["joint"]},
                )
                carried["untrained"] = {
                    seed: network(plan, draws[seed].classes, seed) for seed in seeds
                }
            elif few == 5:
                carried["joint, other digits"] = models["joint"]
    failure = "50 labels, same digits"
    draws = {seed: label_sets("same digits", 50, seed, plan) for seed in seeds}
    return {
        "label sets": rows,
        "names carried": {
            way: [names_carried(by_seed[seed], same[seed]) for seed in seeds]
            for way, by_seed in carried.items()
        },
        "two passes": norm_failure(draws, plan, rows[failure]["joint"]["rate"]),
    }


def small_image(seeds: Sequence[int], plan: Plan = DIGITS) -> dict:
    """Two digits in one image: two tasks, three tasks, and two tasks for a trunk that averages over
    all places; where the heads look.
    """
    draws = {seed: one_image(seed, plan) for seed in seeds}
    pair = {seed: held.only(["left", "right"], plan.batch)[0] for seed, held in draws.items()}
    found = {}
    found["two tasks"], models = compare(pair, plan)
    found["three tasks"], _ = compare(draws, plan, singles(found["two tasks"]), wide=False)
    found["mean over all places"] = {
        "joint": tuned(pair, ["left", "right"], replace(plan, pool=1))[0]
    }
    looks = {"left": [], "right": []}
    for seed, held in pair.items():
        whole = held.parts["test"].whole()
        maps = gaze(
            models["joint"][seed], whole.x, {name: y for name, (_, y) in whole.targets.items()}
        )
        for name, pixels in maps.items():
            looks[name].append(upper_left(pixels))
    return {"one image": found, "gaze, upper left": looks}


def run(profile: str, seeds: Sequence[int]) -> dict:
    """The experiments of a profile, as plain JSON: the small sets on a CPU, the CIFAR pair on a
    GPU.
    """
    if profile == "gpu":
        return full_size(seeds, device=fastest())
    return small_sets(seeds) | small_image(seeds)
