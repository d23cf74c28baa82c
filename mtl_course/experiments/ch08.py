"""Chapter 8: one residual network for two label sets, against one network a set at equal compute and at equal parameters.

Every method gets the same rates to choose from. They are judged on the validation data of the first two seeds; the test images are
the same for all seeds and no choice sees them. Needs no Jupyter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from .. import data
from ..cost import flops, parameters
from ..data import two_digits
from ..data.augment import Augment, compose, crop, flip
from ..data.batches import Separate, Table
from ..data.splits import per_class
from ..models import HardSharing
from ..precision import short_type
from ..resnet import resnet
from ..runtime import device as fastest
from ..tasks import classification, delta_m
from ..train import evaluate_tasks, fit_tasks, predict
from .ch02 import images_of

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Plan:
    """Sizes of one experiment, the network, and the rates that every method may try."""

    side: int = 12  # pixels
    channels: int = 1
    depths: tuple[int, ...] = (1, 1)
    widths: tuple[int, ...] = (8, 16)
    pool: int = 1
    epochs: int = 8
    batch: int = 64
    rates: tuple[float, ...] = (0.1, 0.3, 0.9)
    augment: Augment | None = field(default=None, repr=False)
    limit: int | None = None  # take no more images than this of each part: for a run that is to be quick

    @property
    def wide(self) -> "Plan":
        """The plan with a network of about twice the parameters and twice the multiply-adds: both grow with the square of the width."""
        return replace(self, widths=tuple(round(2**0.5 * width) for width in self.widths))


SETS = Plan()
DIGITS = Plan(side=14, pool=2, epochs=4)
CIFAR = Plan(
    side=32, channels=3, depths=(2, 2, 2), widths=(64, 128, 256), epochs=15, batch=256, augment=compose(flip, crop(4))
)  # fmt: skip


@dataclass(frozen=True)
class Data:
    """Part -> batches, and task -> number of classes."""

    parts: Mapping[str, Table | Separate]
    classes: Mapping[str, int]

    def steps(self, batch: int) -> int:
        """Steps of an epoch: it ends when the longest set has been seen once."""
        train = self.parts["train"]
        longest = len(train.x) if isinstance(train, Table) else max(len(y) for _, y in train.sets.values())
        return -(-longest // batch)

    def only(self, names: Sequence[str], batch: int) -> tuple["Data", int]:
        """These tasks alone, and a batch size for them, such that they see as many batches of as many rows as among all tasks.

        So the shorter of two separate sets is repeated until it is as long as the longer one, which is what the joint network sees of it.
        """
        found, steps = {}, self.steps(batch)
        for part, held in self.parts.items():
            if isinstance(held, Table):
                found[part] = Table(held.x, {name: held.targets[name] for name in names})
            else:
                found[part] = Separate({name: held.sets[name] for name in names})
        if isinstance(held, Separate):
            longest = max(len(y) for _, y in found["train"].sets.values())
            batch = min(batch, longest)
            if -(-longest // batch) < steps:
                rows = torch.arange(steps * batch)
                found["train"] = Separate({name: (x[rows % len(x)], y[rows % len(x)]) for name, (x, y) in found["train"].sets.items()})
        return Data(found, {name: self.classes[name] for name in names}), batch


# --------------------------------------------------------------------------------------------------- two small label sets
PARTNERS = {"same digits": (6, 7, 8, 9), "other digits": (0, 1, 2, 3, 4, 5)}  # of MNIST
TARGET = (6, 7, 8, 9)  # of the UCI digits


@cache
def _images(name: str, side: int) -> tuple[Tensor, Tensor]:
    return images_of(name, side)


def drawn(x: Tensor, y: Tensor, keep: Sequence[int], shares: Sequence[int], seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Part -> (images, labels from 0) of the classes `keep`, with shares of training, validation and test images a class.

    The test images do not depend on the seed, so that no seed's choices can have seen another's.
    """
    new = torch.full((int(y.max()) + 1,), -1)
    new[list(keep)] = torch.arange(len(keep))
    rows = torch.isin(y, torch.tensor(keep)).nonzero().squeeze(1)
    x, y = x[rows], new[y[rows]]
    test = per_class(y, shares[2], seed=0)
    rest = np.setdiff1d(np.arange(len(y)), test)
    own = two_digits.parts(y[rest].numpy(), {"train": shares[0], "validation": shares[1]}, seed + 1)
    return {part: (x[r], y[r]) for part, r in {**{part: rest[r] for part, r in own.items()}, "test": test}.items()}


def label_sets(partner: str, few: int, seed: int, plan: Plan = SETS) -> Data:
    """The UCI digits 6 to 9 with `few` labels a class, and 960 MNIST images of the same digits or of others, each with a head of its own."""
    keep = PARTNERS[partner]
    sets = {
        "mnist": drawn(*_images("mnist_5k", plan.side), keep, (960 // len(keep), 50, 200), seed),
        "uci": drawn(*_images("digits", plan.side), TARGET, (few, 25, 90), seed),
    }
    return Data({part: Separate({name: held[part] for name, held in sets.items()}) for part in PARTS}, {"mnist": len(keep), "uci": len(TARGET)})


# ----------------------------------------------------------------------------------------------- two digits in one image
def one_image(seed: int, plan: Plan = DIGITS, tasks: Sequence[str] = ("left", "right", "sum"), pairs=(1984, 1000, 2000)) -> Data:
    """Two MNIST digits in an image: the left one, the right one, and their sum, 19 classes. The test images are the same for every seed."""
    ds = data.load("mnist_5k")
    y = np.array(ds.y)
    test = per_class(y, 100, seed=0)
    rest = np.setdiff1d(np.arange(len(y)), test)
    rows = {part: rest[r] for part, r in two_digits.parts(y[rest], {"train": 300, "validation": 100}, seed + 1).items()} | {"test": test}
    found = {}
    for k, (part, n) in enumerate(zip(PARTS, pairs, strict=True)):
        x, labels = two_digits.pairs(ds.x[rows[part]], y[rows[part]], n, seed=2 if part == "test" else 3 * (seed + 1) + k, size=plan.side)
        labels["sum"] = labels["left"] + labels["right"]
        found[part] = Table((x - 0.15) / 0.3, {name: labels[name] for name in tasks})
    return Data(found, {name: {"sum": 19}.get(name, 10) for name in tasks})


# -------------------------------------------------------------------------------------------------------- full size: CIFAR
def cifar_pair(seed: int, plan: Plan = CIFAR, device: torch.device | str = "cpu") -> tuple[Data, dict[str, str]]:
    """CIFAR-10 and CIFAR-100, and which sets were loaded: the partial ones of a data root where the whole cannot be had.

    A tenth of the training images of every class is for validation.
    """
    found, names = {}, {}
    for task in ("cifar10", "cifar100"):
        try:
            ds = data.load(task)
        except data.DataError:
            ds = data.load(f"{task}_partial")
        names[task] = ds.info.name
        found[task] = colour_parts({key: ds[key] for key in ("x_train", "y_train", "x_test", "y_test")}, seed, plan.limit, device)
    return Data({part: Separate({task: held[part] for task, held in found.items()}) for part in PARTS}, {"cifar10": 10, "cifar100": 100}), names


def colour_parts(
    arrays: Mapping[str, np.ndarray], seed: int, limit: int | None = None, device: torch.device | str = "cpu"
) -> dict[str, tuple[Tensor, Tensor]]:
    """Part -> (images [N, 3, H, W] with mean 0 and variance 1 a channel over the training images, labels [N]), on the device.

    arrays: x_train, x_test uint8 [N, H, W, 3] and y_train, y_test. limit: at most as many images of each part.
    """
    y = np.asarray(arrays["y_train"])
    counts = np.bincount(y)
    order = np.random.RandomState(seed).permutation(len(y))
    place = np.empty(len(y), dtype=np.int64)  # of an image among those of its class, in this order
    for label in np.flatnonzero(counts):
        mine = order[y[order] == label]
        place[mine] = np.arange(len(mine))
    held = place < counts[y] // 10
    rows = {"train": order[~held[order]][:limit], "validation": order[held[order]][:limit], "test": np.arange(len(arrays["y_test"]))[:limit]}
    pixels = {part: torch.from_numpy(arrays["x_test" if part == "test" else "x_train"][r]).to(device) for part, r in rows.items()}
    scale = [f(pixels["train"].float(), dim=(0, 1, 2)) for f in (torch.mean, torch.std)]
    found = {}
    for part, r in rows.items():
        x = ((pixels[part].float() - scale[0]) / scale[1]).permute(0, 3, 1, 2)  # strides of channels-last already
        found[part] = x, torch.from_numpy(np.asarray(arrays["y_test" if part == "test" else "y_train"])[r]).to(device)
    return found


# ------------------------------------------------------------------------------------------------------ network and training
def network(plan: Plan, classes: Mapping[str, int], seed: int) -> HardSharing:
    """A fresh trunk and one linear head a task. A seed always gives the same trunk for the same plan."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk = resnet(plan.depths, plan.widths, plan.channels, pool=plan.pool)
        return HardSharing(trunk, {name: nn.Linear(trunk.features, n) for name, n in classes.items()})


def cost(plan: Plan, classes: Mapping[str, int]) -> tuple[int, int]:
    """Parameters of the network, and its multiply-adds for one image."""
    model = network(plan, classes, 0)
    return parameters(model), flops(model, torch.zeros(1, plan.channels, plan.side, plan.side)) // 2


def optimizer(model: nn.Module, rate: float, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """SGD with Nesterov momentum and weight decay; the rate rises to `rate` and falls to nearly 0 within `steps`."""
    sgd = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=5e-4)
    return sgd, torch.optim.lr_scheduler.OneCycleLR(sgd, max_lr=rate, total_steps=steps, pct_start=0.25)


def train(held: Data, plan: Plan, rate: float, seed: int, batch: int | None = None) -> tuple[HardSharing, float, dict[str, list[float]]]:
    """One network on these tasks; returns it, its mean validation accuracy at the best epoch (0 if it never learned), and all by epoch.

    The last is a dict, task -> validation accuracies.
    """
    batch = batch or plan.batch
    on = held.parts["validation"].whole().x.device
    model = network(plan, held.classes, seed).to(on)
    precision = None
    if on.type == "cuda":
        model.to(memory_format=torch.channels_last)
        model.compile()
        precision = short_type(on)
    sgd, schedule = optimizer(model, rate, plan.epochs * held.steps(batch))
    history = fit_tasks(
        model, tasks_of(held), held.parts["train"], held.parts["validation"], sgd, epochs=plan.epochs, batch=batch, patience=plan.epochs,
        augment=plan.augment, schedule=schedule, precision=precision, seed=seed, progress=False,
    )  # fmt: skip
    return model, float(np.mean(list(history.best.values()))) if history.best_epoch else 0.0, history.metrics


def tasks_of(held: Data) -> dict:
    return {name: classification(name) for name in held.classes}


def accuracy(model: HardSharing, held: Data) -> dict[str, float]:
    """Test accuracy of each task."""
    return evaluate_tasks(model, tasks_of(held), held.parts["test"])[1]


def tuned(draws: Mapping[int, Data], names: Sequence[str], plan: Plan) -> tuple[dict, dict[int, HardSharing]]:
    """Train on these tasks for every seed of `draws`, at the rate that did best on the validation data of the first two seeds.

    Returns the row (rate; validation accuracies of the trials; test accuracy, and validation accuracies by epoch, of each task, a seed)
    and the networks by seed.
    """
    own = {seed: held.only(names, plan.batch) for seed, held in draws.items()}
    judges = list(draws)[:2]
    trials = tqdm([(seed, rate) for seed in judges for rate in plan.rates], desc=f"{' + '.join(names)}, widths {plan.widths}", disable=None)
    runs = {(seed, rate): train(own[seed][0], plan, rate, seed, own[seed][1]) for seed, rate in trials}
    trials = {rate: [runs[seed, rate][1] for seed in judges] for rate in plan.rates}
    rate = max(trials, key=lambda r: np.mean(trials[r]))
    chosen = {seed: runs[seed, rate] if seed in judges else train(own[seed][0], plan, rate, seed, own[seed][1]) for seed in draws}
    found = {seed: accuracy(run[0], own[seed][0]) for seed, run in chosen.items()}
    row = {
        "rate": rate, "validation": {str(r): v for r, v in trials.items()}, "accuracy": {n: [found[s][n] for s in draws] for n in names},
        "history": {n: [np.round(run[2][n], 4).tolist() for run in chosen.values()] for n in names},
    }  # fmt: skip
    return row, {seed: run[0] for seed, run in chosen.items()}


# --------------------------------------------------------------------------------------------------------- the comparison
def compare(draws: Mapping[int, Data], plan: Plan, alone: Mapping[str, dict] | None = None, wide: bool = True) -> tuple[dict[str, dict], dict]:
    """Method -> row of `tuned`, with cost: "alone" (a network a task), "joint" (the same network for all), "joint, wide" (see `Plan.wide`).

    alone: task -> row, for tasks whose single network was trained before. Also returns method -> seed -> network, for the joint methods
    and, by the task's name, for networks alone that were trained now.
    """
    classes = next(iter(draws.values())).classes
    single, models = dict(alone or {}), {}
    for name in classes:
        if name not in single:
            single[name], models[name] = tuned(draws, [name], plan)
    single = {name: single[name] for name in classes}
    costs = {name: cost(plan, {name: n}) for name, n in classes.items()}
    rows = {
        "alone": {
            "rate": {name: row["rate"] for name, row in single.items()},
            "validation": {name: row["validation"] for name, row in single.items()},
            "accuracy": {name: row["accuracy"][name] for name, row in single.items()},
            "history": {name: row["history"][name] for name, row in single.items()},
            "parameters": sum(c[0] for c in costs.values()), "multiply-adds": sum(c[1] for c in costs.values()),
        }
    }  # fmt: skip
    for method, own in {"joint": plan, **({"joint, wide": plan.wide} if wide else {})}.items():
        row, models[method] = tuned(draws, list(classes), own)
        size, each = cost(own, classes)
        rows[method] = row | {"parameters": size, "multiply-adds": each}
    return rows, models


def singles(rows: Mapping[str, dict]) -> dict[str, dict]:
    """The networks alone among these rows, task -> row as `tuned` gives it, to be used again."""
    alone = rows["alone"]
    return {
        name: {"rate": alone["rate"][name], "validation": alone["validation"][name]} | {part: {name: alone[part][name]} for part in ("accuracy", "history")}
        for name in alone["rate"]
    }


def gains(rows: Mapping[str, dict], method: str = "joint") -> np.ndarray:
    """Delta-m of a method over the networks alone, in per cent, one value a seed."""
    alone, joint = rows["alone"]["accuracy"], rows[method]["accuracy"]
    up = dict.fromkeys(alone, True)
    return np.array([delta_m({n: joint[n][k] for n in alone}, {n: alone[n][k] for n in alone}, up) for k in range(len(next(iter(alone.values()))))])


# ------------------------------------------------------------------------------------------------- what the trunk has learned
def names_carried(model: HardSharing, held: Data) -> float:
    """Share of the UCI test images whose features are nearest to the mean of *their own digit* among MNIST's training images.

    Nobody told the network that the two sets have digits in common. The features of each set are first centred on the set's mean. For
    the partner "same digits" only, where the label numbers agree.
    """
    features = {}
    for name, part in (("mnist", "train"), ("uci", "test")):
        x, y = held.parts[part].sets[name]
        z = predict(model.trunk, x)
        features[name] = z - z.mean(dim=0), y
    z, y = features["mnist"]
    means = torch.stack([z[y == label].mean(dim=0) for label in range(held.classes["mnist"])])
    z, y = features["uci"]
    return float((torch.cdist(z, means).argmin(dim=1) == y).float().mean())


def gaze(model: HardSharing, x: Tensor, labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Where each head looks: task -> mean over the images of |d logit of the true class / d pixel|, [H, W], summing to 1.

    x: [N, 1, H, W]. Source: Simonyan, Vedaldi and Zisserman, "Deep inside convolutional networks", 2014, section 3.
    """
    model.eval()
    found = {}
    for name in model.heads:
        pixels = x.clone().requires_grad_()
        logits = model(pixels)[name]
        (grad,) = torch.autograd.grad(logits.gather(1, labels[name][:, None]).sum(), pixels)
        found[name] = grad.abs().mean(dim=(0, 1))
        found[name] /= found[name].sum()
    return found


def upper_left(pixels: Tensor) -> float:
    """Share of a map [S, S] that lies above its falling-to-the-left diagonal, half of the diagonal with it: 0.5 for an even map."""
    place = torch.arange(len(pixels))
    total = place[:, None] + place
    weight = (total < len(pixels) - 1).float() + 0.5 * (total == len(pixels) - 1)
    return float((pixels * weight).sum() / pixels.sum())


# ------------------------------------------------------------------------------------------ a failure: two passes, one norm
def in_two_passes(held: Data, plan: Plan, rate: float, seed: int) -> HardSharing:
    """As `train`, but each set goes through the network by itself, and the two losses are added: the same examples in each step.

    BatchNorm then scales each set by its own batch, and keeps one running mean over both for later. No epoch is chosen: the last counts.
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
    """Test accuracy of each set when BatchNorm scales it by the set's own mean and variance, over all its test images at once."""
    kept = {name: t.clone() for name, t in model.state_dict().items()}
    found = {}
    with torch.no_grad():
        for name, (x, y) in held.parts["test"].sets.items():
            model.train()
            found[name] = float((model(x)[name].argmax(dim=1) == y).float().mean())
            model.load_state_dict(kept)
    model.eval()
    return found


def norm_failure(draws: Mapping[int, Data], plan: Plan, rate: float) -> dict[str, dict[str, list[float]]]:
    """How it was trained and judged -> test accuracy of each task, one value a seed."""
    found = {"one batch": [], "two passes": [], "two passes, own statistics": []}
    for seed, held in draws.items():
        found["one batch"].append(accuracy(train(held, plan, rate, seed)[0], held))
        model = in_two_passes(held, plan, rate, seed)
        found["two passes"].append(accuracy(model, held))
        found["two passes, own statistics"].append(own_statistics(model, held))
    return {way: {name: [row[name] for row in rows] for name in rows[0]} for way, rows in found.items()}


# ------------------------------------------------------------------------------------------------------------ for a record
def small_sets(seeds: Sequence[int], plan: Plan = SETS) -> dict:
    """The UCI digits with two partners, at 5 and at 50 labels a class; how far names are carried over; the two passes."""
    rows, single = {}, {}
    for few in (5, 50):
        for partner in PARTNERS:
            draws = {seed: label_sets(partner, few, seed, plan) for seed in seeds}
            keys = {"uci": few, "mnist": partner}  # what the network of this task alone depends on: it is trained once
            case = f"{few} labels, {partner}"
            rows[case], models = compare(draws, plan, {name: single[key] for name, key in keys.items() if key in single}, wide=few == 5)
            single |= {keys[name]: row for name, row in singles(rows[case]).items()}
            if (few, partner) == (5, "same digits"):
                same, carried = draws, {"MNIST alone": models["mnist"], "joint, same digits": models["joint"]}
                carried["untrained"] = {seed: network(plan, draws[seed].classes, seed) for seed in seeds}
            elif few == 5:
                carried["joint, other digits"] = models["joint"]
    failure = "50 labels, same digits"
    draws = {seed: label_sets("same digits", 50, seed, plan) for seed in seeds}
    return {
        "label sets": rows,
        "names carried": {way: [names_carried(by_seed[seed], same[seed]) for seed in seeds] for way, by_seed in carried.items()},
        "two passes": norm_failure(draws, plan, rows[failure]["joint"]["rate"]),
    }


def small_image(seeds: Sequence[int], plan: Plan = DIGITS) -> dict:
    """Two digits in one image: two tasks, three tasks, and two tasks for a trunk that averages over all places; where the heads look."""
    draws = {seed: one_image(seed, plan) for seed in seeds}
    pair = {seed: held.only(["left", "right"], plan.batch)[0] for seed, held in draws.items()}
    found = {}
    found["two tasks"], models = compare(pair, plan)
    found["three tasks"], _ = compare(draws, plan, singles(found["two tasks"]), wide=False)
    found["mean over all places"] = {"joint": tuned(pair, ["left", "right"], replace(plan, pool=1))[0]}
    looks = {"left": [], "right": []}
    for seed, held in pair.items():
        whole = held.parts["test"].whole()
        maps = gaze(models["joint"][seed], whole.x, {name: y for name, (_, y) in whole.targets.items()})
        for name, pixels in maps.items():
            looks[name].append(upper_left(pixels))
    return {"one image": found, "gaze, upper left": looks}


def full_size(seeds: Sequence[int], plan: Plan = CIFAR, device: torch.device | str = "cpu") -> dict:
    """CIFAR-10 and CIFAR-100: the comparison, and the names of the sets that were there."""
    draws, names = {}, {}
    for seed in seeds:
        draws[seed], names = cifar_pair(seed, plan, device)
    return {"sets": names, "label sets": {"CIFAR-10 and CIFAR-100": compare(draws, plan)[0]}}


def run(profile: str, seeds: Sequence[int]) -> dict:
    """The experiments of a profile, as plain JSON: the small sets on a CPU, the CIFAR pair on a GPU."""
    if profile == "gpu":
        return full_size(seeds, device=fastest())
    return small_sets(seeds) | small_image(seeds)
