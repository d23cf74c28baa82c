"""Chapter 12 on photographs: CIFAR-10 and CIFAR-100 with a residual network, run after run.

Needs no Jupyter.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import data
from ..data.augment import compose, crop, flip
from ..data.corruptions import STRENGTHS, corrupt
from ..networks.residual import resnet
from ..networks.trunks import Classifier
from ..records.pieces import kept
from ..runtime import device as fastest
from ..training.evaluation import evaluate
from ..training.loop import fit
from ..training.precision import default_precision
from ..training.tasks import accuracy
from ..transfer.checkpoints import load_source
from ..transfer.penalties import l2_sp
from ..transfer.schedules import gradual_unfreezing, layer_groups, layers, lp_ft, open_top
from .ch12_rates import DECAY, METHODS, PROBE_RATE
from .common import seeded


@dataclass(frozen=True)
class Photos:
    """Sizes of the experiment on CIFAR-10 and CIFAR-100, and the settings to try.

    Args:
        pairs: source and target.
        depths: residual blocks of each stage.
        widths: channels of each stage.
        source_epochs: over all training images of the source.
        source_rate: at the peak of the schedule.
        batch: images per step.
        shots: labels per class; more than there are means all of them.
        held_out: images per class for validation, at most a tenth of them.
        epochs: on the target.
        updates: in an epoch, at least: small sets are gone through several times.
        severity: of the corruptions in the test.
        rates: that every method but L2-SP may try.
        pulls: rate and strength of L2-SP: as many.
    """

    pairs: tuple[tuple[str, str], ...] = (("cifar10", "cifar100"), ("cifar100", "cifar10"))
    depths: tuple[int, ...] = (2, 2, 2)
    widths: tuple[int, ...] = (32, 64, 128)
    source_epochs: int = 30
    source_rate: float = 0.1
    batch: int = 128
    shots: tuple[int, ...] = (1, 5, 20, 100, 500)
    held_out: int = 40
    epochs: int = 12
    updates: int = 50
    severity: int = 3
    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1)
    pulls: tuple[tuple[float, float], ...] = (
        (0.01, 1e-3),
        (0.01, 1e-2),
        (0.03, 1e-3),
        (0.03, 1e-2),
    )


def photos(name: str, device: torch.device, held_out: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Part -> images [N, 3, 32, 32] and labels; and "name", the set's name.

    That is the partial set's where the whole cannot be had. A validation part of `held_out` images
    per class, at most a tenth of a class, is taken from the training images. Both are `centred`;
    the test images lie in [0, 1], to be corrupted first.
    """
    ds = data.load_or_partial(name)
    held_out = min(held_out, int(np.bincount(ds["y_train"]).min()) // 10)
    validates = np.zeros(len(ds["y_train"]), dtype=bool)
    validates[data.per_class(ds["y_train"], held_out, seed=0)] = True
    parts = {"name": ds.info.name}
    for part, x, y in (
        ("train", ds["x_train"][~validates], ds["y_train"][~validates]),
        ("validation", ds["x_train"][validates], ds["y_train"][validates]),
        ("test", ds["x_test"], ds["y_test"]),
    ):
        images = torch.from_numpy(np.array(x)).to(device).permute(0, 3, 1, 2).float() / 255
        images = images.to(memory_format=torch.channels_last)
        labels = torch.from_numpy(np.array(y)).to(device)
        parts[part] = images if part == "test" else centred(images), labels
    return parts


def centred(x: Tensor) -> Tensor:
    """Pixels in [0, 1] to about mean 0 and deviation 1, the same numbers for both sets."""
    return (x - 0.48) / 0.26


def photo_network(plan: Photos, classes: int, seed: int, device: torch.device) -> Classifier:
    """A freshly drawn residual network with a head of `classes` outputs."""

    def build() -> Classifier:
        return Classifier(resnet(plan.depths, plan.widths), plan.widths[-1], classes)

    return seeded(build, seed).to(device, memory_format=torch.channels_last)


def photo_source(plan: Photos, parts: dict, seed: int, device: torch.device) -> Classifier:
    """A network trained on all of a set, with flips and crops and a rate that rises and falls."""
    model = photo_network(plan, int(parts["train"][1].max()) + 1, seed, device)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=plan.source_rate, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    updates = plan.source_epochs * math.ceil(len(parts["train"][1]) / plan.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.source_rate, total_steps=updates)
    fit(
        model,
        parts["train"],
        parts["validation"],
        F.cross_entropy,
        optimizer,
        epochs=plan.source_epochs,
        batch=plan.batch,
        patience=plan.source_epochs,
        augment=compose(flip, crop(4)),
        schedule=schedule,
        precision=default_precision(device),
        seed=seed,
        progress=False,
    )
    return model


def tune_photos(
    method: str,
    rate: float,
    strength: float,
    model: Classifier,
    train: tuple,
    validation: tuple,
    plan: Photos,
    seed: int,
) -> tuple[float, list[dict]]:
    """Tune a network in place by a method and a setting.

    Returns:
        Its validation accuracy, and the losses by epoch, a dict for each phase.
    """
    x, y = train
    again = max(1, plan.updates * plan.batch // len(y))  # so that an epoch has enough updates
    train = x.repeat(again, 1, 1, 1), y.repeat(again)
    optimizer = partial(torch.optim.SGD, lr=0.0, momentum=0.9)
    options = {
        "batch": plan.batch,
        "patience": plan.epochs,
        "augment": compose(flip, crop(4)),
        "precision": default_precision(x.device),
        "seed": seed,
        "progress": False,
    }
    count = len(layers(model))
    if method == "LP-FT":
        half = plan.epochs // 2
        rates, epochs = (PROBE_RATE, rate), (half, plan.epochs - half)
        phases = lp_ft(
            model, train, validation, F.cross_entropy, optimizer, rates, epochs, **options
        )
    elif method == "gradual":
        stages = [1] * (count - 1) + [max(1, plan.epochs - count + 1)]
        phases = gradual_unfreezing(
            model, train, validation, F.cross_entropy, optimizer, rate, stages, **options
        )
    else:
        open_top(model, 1 if method == "linear probe" else count)
        trunk = {name: p for name, p in model.named_parameters() if name.startswith("trunk")}
        start = {name: p.detach().clone() for name, p in trunk.items()}

        def pull(tuned: nn.Module) -> Tensor:
            return l2_sp(dict(tuned.named_parameters()), start, strength)

        decay = DECAY if method == "layer-wise" else 1.0
        sgd = optimizer(layer_groups(model, rate, decay))
        options |= {"epochs": plan.epochs, "penalty": pull if method == "L2-SP" else None}
        phases = [fit(model, train, validation, F.cross_entropy, sgd, **options)]
    return evaluate(model, validation, accuracy), [asdict(phase) for phase in phases]


def compare_photos(
    source: Classifier,
    parts: dict,
    shots: int,
    plan: Photos,
    seed: int,
    methods: Sequence[str] = METHODS,
) -> dict[str, dict]:
    """Every method with `shots` labels per class, at its best setting on validation images.

    Returns:
        Method -> test accuracy: "own", under each corruption, and "corrupted", their mean;
        "validation", "setting", and "history", the losses by epoch.
    """
    x, y = parts["train"]
    labels = y.cpu().numpy()
    shots = min(shots, int(np.bincount(labels).min()))
    rows = torch.from_numpy(data.per_class(labels, shots, seed)).to(y.device)
    device, classes = x.device, int(labels.max()) + 1
    test, answers = parts["test"]
    results = {}
    for method in methods:
        best = None
        rates = [(rate, 0.0) for rate in plan.rates]
        for rate, strength in list(plan.pulls) if method == "L2-SP" else rates:
            model = photo_network(plan, classes, 1000 + seed, device)
            if method != "scratch":
                load_source(model, source.state_dict())
            reached, history = tune_photos(
                method, rate, strength, model, (x[rows], y[rows]), parts["validation"], plan, seed
            )
            if best is None or reached > best[0]:
                best = reached, (rate, strength), model, history
        reached, setting, model, history = best
        g = torch.Generator(device).manual_seed(1)
        row = {"own": evaluate(model, (centred(test), answers), accuracy)}
        for name in STRENGTHS:
            images = centred(corrupt(test, name, plan.severity, g))
            row[name] = evaluate(model, (images, answers), accuracy)
        row["corrupted"] = float(np.mean([row[name] for name in STRENGTHS]))
        results[method] = row | {"validation": reached, "setting": setting, "history": history}
    return results


def one_source(
    source_parts: dict,
    target_parts: dict,
    plan: Photos,
    seed: int,
    device: torch.device,
    report: Callable[[str], None] = print,
) -> dict[str, dict[str, dict]]:
    """Train a source and tune it: labels per class (as text) -> what `compare_photos` gives."""
    source = photo_source(plan, source_parts, seed, device)
    reached = evaluate(source, source_parts["validation"], accuracy)
    report(f"{source_parts['name']}, seed {seed}: validation {reached:.3f}")
    results = {}
    for shots in plan.shots:
        rows = compare_photos(source, target_parts, shots, plan, seed)
        line = ", ".join(f"{method} {row['own']:.3f}" for method, row in rows.items())
        report(f"{target_parts['name']}, {shots} per class: {line}")
        results[str(shots)] = rows
    return results


def full_size(seeds: Sequence[int], plan: Photos, report: Callable[[str], None] = print) -> dict:
    """Pair of sets -> labels per class -> method -> what `compare_photos` gives. Plain JSON.

    Each is a list with one value per seed.
    """
    device, results = fastest(), {}
    for pair in plan.pairs:
        source_parts, target_parts = (photos(name, device, plan.held_out) for name in pair)
        names = f"{source_parts['name']} to {target_parts['name']}"
        lists = {str(shots): {method: {} for method in METHODS} for shots in plan.shots}
        for seed in seeds:
            of_seed = kept(
                f"{names}, seed {seed}",
                one_source,
                source_parts,
                target_parts,
                plan,
                seed,
                device,
                report,
            )
            for shots, rows in of_seed.items():
                for method, row in rows.items():
                    for key, value in row.items():
                        lists[shots][method].setdefault(key, []).append(value)
        results[names] = lists
    return results
