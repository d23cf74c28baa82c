"""Chapter 8: one residual network for two label sets, and for two digits in one image.

Also a failure of BatchNorm between two sets. The test images are the same for all seeds and no
choice sees them. `ch08_partner` sets 20 classes of CIFAR-100 beside the other 80, `ch08_photos` few
labels of CIFAR-100 beside CIFAR-10. `ch08_compare` trains and compares, `ch08_features` looks into
the trunk, `ch08_gpu` holds the experiment at full size. Needs no Jupyter.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .. import data, records
from ..data import two_digits
from ..data.batches import Separate, Table
from ..data.splits import per_class
from ..multitask.sharing import HardSharing
from ..records.pieces import kept
from ..runtime import device as fastest
from ..training.evaluation import predict
from . import ch08_partner, ch08_photos
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
    one_line,
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
    "PLANS",
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
# What a profile runs: the two small experiments, or the one at full size, and the plan of each.
PLANS = {"cpu": {"label sets": SETS, "one image": DIGITS}, "gpu": {"CIFAR": CIFAR}}


# ----------------------------------------------------------------------------- two small label sets
PARTNERS = {"same digits": (6, 7, 8, 9), "other digits": (0, 1, 2, 3, 4, 5)}  # of MNIST
TARGET = (6, 7, 8, 9)  # of the UCI digits


@cache
def _images(name: str, side: int) -> tuple[Tensor, Tensor]:
    return images_of(name, side)


def drawn(
    x: Tensor, y: Tensor, keep: Sequence[int], shares: Sequence[int], seed: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Part -> (images, labels from 0) of the classes `keep`.

    shares: training, validation and test images per class. The test images do not depend on the
    seed, so that no seed's choices can have seen another's.
    """
    new = torch.full((int(y.max()) + 1,), -1)
    new[list(keep)] = torch.arange(len(keep))
    rows = torch.isin(y, torch.tensor(keep)).nonzero().squeeze(1)
    x, y = x[rows], new[y[rows]]
    test = per_class(y, shares[2], seed=0)
    rest = np.setdiff1d(np.arange(len(y)), test)
    counts = {"train": shares[0], "validation": shares[1]}
    parts = two_digits.parts(y[rest].numpy(), counts, seed + 1)
    rows = {part: rest[r] for part, r in parts.items()} | {"test": test}
    return {part: (x[r], y[r]) for part, r in rows.items()}


def label_sets(partner: str, few: int, seed: int, plan: Plan = SETS) -> Data:
    """The UCI digits 6 to 9 with `few` labels per class, beside 960 MNIST images.

    Those show the same digits or others; each set has a head of its own.
    """
    keep = PARTNERS[partner]
    sets = {
        "mnist": drawn(*_images("mnist_5k", plan.side), keep, (960 // len(keep), 50, 200), seed),
        "uci": drawn(*_images("digits", plan.side), TARGET, (few, 25, 90), seed),
    }
    return Data(
        {part: Separate({name: by_part[part] for name, by_part in sets.items()}) for part in PARTS},
        {"mnist": len(keep), "uci": len(TARGET)},
    )


# -------------------------------------------------------------------------- two digits in one image
def one_image(
    seed: int,
    plan: Plan = DIGITS,
    tasks: Sequence[str] = ("left", "right", "sum"),
    pairs: Sequence[int] = (1984, 1000, 2000),
) -> Data:
    """Two MNIST digits in an image: the left one, the right one, and their sum, 19 classes.

    pairs: images of each part. The test images are the same for every seed.
    """
    ds = data.load("mnist_5k")
    y = np.array(ds.y)
    test = per_class(y, 100, seed=0)
    rest = np.setdiff1d(np.arange(len(y)), test)
    digits = two_digits.parts(y[rest], {"train": 300, "validation": 100}, seed + 1)
    rows = {part: rest[r] for part, r in digits.items()} | {"test": test}
    parts = {}
    for k, (part, n) in enumerate(zip(PARTS, pairs, strict=True)):
        some, draw = rows[part], 2 if part == "test" else 3 * (seed + 1) + k
        x, labels = two_digits.pairs(ds.x[some], y[some], n, seed=draw, size=plan.side)
        labels["sum"] = labels["left"] + labels["right"]
        parts[part] = Table((x - 0.15) / 0.3, {name: labels[name] for name in tasks})
    return Data(parts, {name: {"sum": 19}.get(name, 10) for name in tasks})


# ------------------------------------------------------------------ a failure: two passes, one norm
def in_two_passes(draw: Data, plan: Plan, rate: float, seed: int) -> HardSharing:
    """As `train`, but each set goes through the network alone, and the losses are added.

    The examples of each step are the same. BatchNorm then scales each set by its own batch, and
    keeps one running mean over both for later. No epoch is chosen: the last counts.
    """
    model = network(plan, draw.classes, seed)
    sgd, schedule = optimizer(model, rate, plan.epochs * draw.steps(plan.batch))
    order = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(plan.epochs):
        for batch in draw.parts["train"].batches(plan.batch, order):
            sgd.zero_grad()
            for name, (rows, y) in batch.targets.items():
                F.cross_entropy(model.heads[name](model.trunk(batch.x[rows])), y).backward()
            sgd.step()
            schedule.step()
    return model


def own_statistics(model: HardSharing, draw: Data) -> dict[str, float]:
    """Test accuracy of each set when BatchNorm scales it by the set's own mean and variance.

    They are taken over all its test images at once.
    """
    kept = {name: t.clone() for name, t in model.state_dict().items()}
    accuracies = {}
    with torch.no_grad():
        for name, (x, y) in draw.parts["test"].sets.items():
            model.train()
            accuracies[name] = float((model(x)[name].argmax(dim=1) == y).float().mean())
            model.load_state_dict(kept)
    model.eval()
    return accuracies


def norm_failure(
    draws: Mapping[int, Data], plan: Plan, rate: float
) -> dict[str, dict[str, list[float]]]:
    """How it was trained and judged -> test accuracy of each task, one value per seed."""
    one, two, own = [], [], []
    for seed, draw in draws.items():
        one.append(accuracy(train(draw, plan, rate, seed)[0], draw))
        model = in_two_passes(draw, plan, rate, seed)
        two.append(accuracy(model, draw))
        own.append(own_statistics(model, draw))
    ways = {"one batch": one, "two passes": two, "two passes, own statistics": own}
    return {
        way: {name: [row[name] for row in rows] for name in rows[0]} for way, rows in ways.items()
    }


# ------------------------------------------------------------------------ the same on further seeds
def further(rates: Mapping[str, Mapping], plan: Plan, seed: int) -> dict[str, dict[str, float]]:
    """Accuracy on the UCI digits with 5 labels per class: partner -> method, for one seed.

    rates: partner -> method -> its rate, or task -> rate for the networks alone.
    """
    found = {}
    for partner, row in rates.items():
        draw = label_sets(partner, 5, seed, plan)
        found[partner] = {}
        for method, rate in row.items():
            alone, sizes = method == "alone", plan.wide if "wide" in method else plan
            names = ["uci"] if alone else list(draw.classes)
            own, batch = draw.only(names, plan.batch)
            model, _, _ = train(own, sizes, rate["uci"] if alone else rate, seed, batch)
            found[partner][method] = accuracy(model, own)["uci"]
    return found


def run_further(
    seeds: Sequence[int], report: Callable[[str], None] = print, *, plan: Plan = SETS
) -> dict:
    """`further` with the rates of the cpu record, six short trainings per seed. Plain JSON.

    Raises:
        ValueError: a seed is among those of that record, on which the rates were chosen.
    """
    chosen_on = records.load("08", "cpu")
    if both := sorted(set(seeds) & set(chosen_on.provenance["seeds"])):
        raise ValueError(f"the rates were chosen on the seeds {both}; take others")
    cases = chosen_on.results["label sets"]
    rates = {
        partner: {method: row["rate"] for method, row in cases[f"5 labels, {partner}"].items()}
        for partner in PARTNERS
    }
    uci = {partner: {method: [] for method in row} for partner, row in rates.items()}
    for seed in seeds:
        piece = kept(f"{plan}, {rates}, seed {seed}", further, rates, plan, seed)
        for partner, row in piece.items():
            for method, value in row.items():
                uci[partner][method].append(value)
        report(f"seed {seed}: {piece}")
    return {"rates": rates, "uci": uci}


# ------------------------------------------------------------------ what UCI's network alone can do
WIDER_GRID = (0.01, 0.03, 0.1, 0.3, 0.9)


def rivals(plan: Plan = SETS) -> dict[str, Plan]:
    """Networks for the UCI digits alone, with rates below the grid of the record, too.

    A step of the joint network takes 64 images of MNIST and 20 of the UCI digits. "All the compute"
    goes on for as many epochs as its price allows at 20 images per step.
    """
    plan = replace(plan, rates=WIDER_GRID)
    return {
        "alone": plan,
        "alone, wide": plan.wide,
        "alone, all the compute": replace(plan, epochs=plan.epochs * (64 + 20) // 20),
    }


def rival(plan: Plan, seeds: Sequence[int]) -> dict:
    """One such network, 5 labels per class: the row of `tuned` without its history, and cost."""
    draws = {seed: label_sets("same digits", 5, seed, plan) for seed in seeds}
    row, _ = tuned(draws, ["uci"], plan)
    size, each = cost(plan, {"uci": len(TARGET)})
    _, batch = draws[seeds[0]].only(["uci"], plan.batch)
    steps = plan.epochs * draws[seeds[0]].steps(plan.batch)
    return {
        "rate": row["rate"],
        "validation": row["validation"],
        "accuracy": row["accuracy"]["uci"],
        "parameters": size,
        "compute": each * batch * steps,
    }


def run_rivals(
    seeds: Sequence[int], report: Callable[[str], None] = print, *, plan: Plan = SETS
) -> dict:
    """What a network of the UCI digits alone reaches if it is wide, or trains longer. Plain JSON.

    Returns:
        Rival -> row of `rival`.
    """
    rows = {}
    for name, sizes in rivals(plan).items():
        rows[name] = kept(f"{name}, {sizes}, seeds {seeds}", rival, sizes, list(seeds))
        report(f"{name}: rate {rows[name]['rate']}, {np.mean(rows[name]['accuracy']):.4f}")
    return rows


# Written by ``python -m mtl_course.record 08 --part further --seeds 10:20``, and the others with
# ``--part photos --seeds 5`` and so on: "photos" before its others, of which "fresh" takes the
# seeds 5:10. "partner" takes 210:218. "rivals" takes the 20 seeds of the first record and of
# "further".
RECORDS = {
    "further": run_further,
    "rivals": run_rivals,
    "photos": ch08_photos.run,
    "budgets": ch08_photos.run_budgets,
    "wide": ch08_photos.run_wide,
    "fresh": ch08_photos.run_fresh,
    "partner": ch08_partner.run,
}


# ------------------------------------------------------------------------------------- for a record
def small_sets(
    seeds: Sequence[int], plan: Plan = SETS, report: Callable[[str], None] = print
) -> dict:
    """The UCI digits with two partners, at 5 and at 50 labels per class.

    Also how far names are carried over, and the two passes.
    """
    rows, single, carried = {}, {}, {}
    for few in (5, 50):
        for partner in PARTNERS:
            draws = {seed: label_sets(partner, few, seed, plan) for seed in seeds}
            # What the network of this task alone depends on: it is trained once.
            keys = {"uci": few, "mnist": partner}
            done = {name: single[key] for name, key in keys.items() if key in single}
            case = f"{few} labels, {partner}"
            rows[case], models = compare(draws, plan, done, wide=few == 5)
            report(f"{case}: {one_line(rows[case])}")
            single |= {keys[name]: row for name, row in singles(rows[case]).items()}
            if (few, partner) == (5, "same digits"):
                same = draws
                carried["MNIST alone"] = models["mnist"]
                carried["joint, same digits"] = models["joint"]
                carried["untrained"] = {
                    seed: network(plan, draws[seed].classes, seed) for seed in seeds
                }
            elif few == 5:
                carried["joint, other digits"] = models["joint"]
    names = {
        way: [names_carried(by_seed[seed], same[seed]) for seed in seeds]
        for way, by_seed in carried.items()
    }
    draws = {seed: label_sets("same digits", 50, seed, plan) for seed in seeds}
    failure = norm_failure(draws, plan, rows["50 labels, same digits"]["joint"]["rate"])
    means = ", ".join(f"{way} {np.mean(by_task['uci']):.3f}" for way, by_task in failure.items())
    report(f"UCI digits in two passes: {means}")
    return {"label sets": rows, "names carried": names, "two passes": failure}


def small_image(
    seeds: Sequence[int], plan: Plan = DIGITS, report: Callable[[str], None] = print
) -> dict:
    """Two digits in one image, as two and as three tasks; where the heads look.

    Also two tasks for a trunk that averages over all places.
    """
    draws = {seed: one_image(seed, plan) for seed in seeds}
    pair = {seed: draw.only(["left", "right"], plan.batch)[0] for seed, draw in draws.items()}
    rows = {}
    rows["two tasks"], models = compare(pair, plan)
    rows["three tasks"], _ = compare(draws, plan, singles(rows["two tasks"]), wide=False)
    row, _ = tuned(pair, ["left", "right"], replace(plan, pool=1))
    rows["mean over all places"] = {"joint": row}
    for case, methods in rows.items():
        report(f"one image, {case}: {one_line(methods)}")
    looks = {"left": [], "right": []}
    for seed, draw in pair.items():
        whole = draw.parts["test"].whole()
        labels = {name: y for name, (_, y) in whole.targets.items()}
        for name, pixels in gaze(models["joint"][seed], whole.x, labels).items():
            looks[name].append(upper_left(pixels))
    return {"one image": rows, "gaze, upper left": looks}


def run(
    profile: str,
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Mapping[str, Plan] | None = None,
) -> dict:
    """The experiments of a profile: small sets on a CPU, CIFAR on a GPU. Plain JSON.

    plan: experiment -> its sizes; an experiment that it lacks is not run.
    """
    plan, results = plan or PLANS[profile], {}
    if "label sets" in plan:
        results |= small_sets(seeds, plan["label sets"], report)
    if "one image" in plan:
        results |= small_image(seeds, plan["one image"], report)
    if "CIFAR" in plan:
        results |= full_size(seeds, plan["CIFAR"], fastest(), report)
    return results
