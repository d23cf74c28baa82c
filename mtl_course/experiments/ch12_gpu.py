"""Chapter 12 on photographs: CIFAR-10 and CIFAR-100 with a residual network, one run after another.
Needs no Jupyter.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
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


@dataclass(frozen=True)
class Photos:
    """Sizes of the experiment on CIFAR-10 and CIFAR-100."""

    pairs: tuple[tuple[str, str], ...] = (("cifar10", "cifar100"), ("cifar100", "cifar10"))
    depths: tuple[int, ...] = (2, 2, 2)
    widths: tuple[int, ...] = (32, 64, 128)
    source_epochs: int = 30
    source_rate: float = 0.1
    batch: int = 128
    shots: tuple[int, ...] = (
        1,
        5,
        20,
        100,
        500,
    )  # labels a class; more than there are means all of them
    held: int = 40  # images a class for validation, at most a tenth of them
    epochs: int = 12
    updates: int = 50  # in an epoch, at least: small sets are gone through several times
    severity: int = 3
    rates: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1)
    pulls: tuple[tuple[float, float], ...] = (
        (0.01, 1e-3),
        (0.01, 1e-2),
        (0.03, 1e-3),
        (0.03, 1e-2),
    )


def photos(name: str, device: torch.device, held: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Part -> images [N, 3, 32, 32] and labels; "name" -> the set's name, that of the partial set
    where the whole cannot be had.

    A validation part of `held` images a class, at most a tenth of a class, is taken from the
    training images. Both are `centred`; the test images lie in [0, 1], to be corrupted first.
    """
    ds = data.load_or_partial(name)
    held = min(held, int(np.bincount(ds["y_train"]).min()) // 10)
    mine = np.zeros(len(ds["y_train"]), dtype=bool)
    mine[data.per_class(ds["y_train"], held, seed=0)] = True
    parts = {"name": ds.info.name}
    for part, x, y in (
        ("train", ds["x_train"][~mine], ds["y_train"][~mine]),
        ("validation", ds["x_train"][mine], ds["y_train"][mine]),
        ("test", ds["x_test"], ds["y_test"]),
    ):
        images = torch.from_numpy(np.array(x)).to(device).permute(0, 3, 1, 2).float() / 255
        images = images.to(memory_format=torch.channels_last)
        parts[part] = (
            images if part == "test" else centred(images),
            torch.from_numpy(np.array(y)).to(device),
        )
    return parts


def centred(x: Tensor) -> Tensor:
    """Pixels in [0, 1] to about mean 0 and deviation 1, the same numbers for both sets."""
    return (x - 0.48) / 0.26


def photo_network(plan: Photos, classes: int, seed: int, device: torch.device) -> Classifier:
    """A freshly drawn residual network with a head of `classes` outputs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Classifier(resnet(plan.depths, plan.widths), plan.widths[-1], classes)
    return model.to(device, memory_format=torch.channels_last)


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
    """Tune a network in place by a method and a setting; returns its validation accuracy and the
    losses by epoch, a dict for each phase.
    """
    x, y = train
    again = max(1, plan.updates * plan.batch // len(y))  # so that an epoch has enough updates
    train = x.repeat(again, 1, 1, 1), y.repeat(again)
    optimizer = partial(torch.optim.SGD, lr=0.0, momentum=0.9)
    options = dict(
        batch=plan.batch,
        patience=plan.epochs,
        augment=compose(flip, crop(4)),
        precision=default_precision(x.device),
        seed=seed,
        progress=False,
    )
    count = len(layers(model))
    if method == "LP-FT":
        half = plan.epochs // 2
        phases = lp_ft(
            model,
            train,
            validation,
            F.cross_entropy,
            optimizer,
            (PROBE_RATE, rate),
            (half, plan.epochs - half),
            **options,
        )
    elif method == "gradual":
        stages = [1] * (count - 1) + [max(1, plan.epochs - count + 1)]
        phases = gradual_unfreezing(
            model, train, validation, F.cross_entropy, optimizer, rate, stages, **options
        )
    else:
        open_top(model, 1 if method == "linear probe" else count)
        start = {
            name: p.detach().clone()
            for name, p in model.named_parameters()
            if name.startswith("trunk")
        }
        pull = (
            (lambda m: l2_sp(dict(m.named_parameters()), start, strength))
            if method == "L2-SP"
            else None
        )
        held = optimizer(layer_groups(model, rate, DECAY if method == "layer-wise" else 1.0))
        phases = [
            fit(
                model,
                train,
                validation,
                F.cross_entropy,
                held,
                epochs=plan.epochs,
                penalty=pull,
                **options,
            )
        ]
    return evaluate(model, validation, accuracy), [asdict(phase) for phase in phases]


def compare_photos(
    source: Classifier,
    parts: dict,
    shots: int,
    plan: Photos,
    seed: int,
    methods: Sequence[str] = METHODS,
) -> dict[str, dict]:
    """Method -> test accuracy ("own"), under each corruption, and the setting with the best
    validation accuracy, with its losses by epoch.
    """
    x, y = parts["train"]
    labels = y.cpu().numpy()
    rows = torch.from_numpy(
        data.per_class(labels, min(shots, int(np.bincount(labels).min())), seed)
    ).to(y.device)
    device, classes = x.device, int(labels.max()) + 1
    found = {}
    for method in methods:
        best = None
        for rate, strength in (
            list(plan.pulls) if method == "L2-SP" else [(rate, 0.0) for rate in plan.rates]
        ):
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
        test, answers = parts["test"]
        seen = {"own": evaluate(model, (centred(test), answers), accuracy)}
        seen |= {
            name: evaluate(
                model, (centred(corrupt(test, name, plan.severity, g)), answers), accuracy
            )
            for name in STRENGTHS
        }
        found[method] = seen | {
            "corrupted": float(np.mean([seen[name] for name in STRENGTHS])),
            "validation": reached,
            "setting": setting,
        }
        found[method]["history"] = history
    return found


def full_size(seeds: Sequence[int], plan: Photos, report: Callable = print) -> dict:
    """Pair of sets -> labels a class -> method -> what `compare_photos` gives, a list with one
    value a seed. Plain JSON.
    """
    device, results = fastest(), {}
    for source_name, target_name in plan.pairs:
        source_parts, target_parts = (
            photos(name, device, plan.held) for name in (source_name, target_name)
        )
        pair: dict = {}
        names = f"{source_parts['name']} to {target_parts['name']}"
        for seed in seeds:
            seen = kept(
                f"{names}, seed {seed}",
                one_source,
                source_parts,
                target_parts,
                plan,
                seed,
                device,
                report,
            )
            for shots, methods in seen.items():
                for method, values in methods.items():
                    row = pair.setdefault(shots, {}).setdefault(method, {})
                    for key, value in values.items():
                        row.setdefault(key, []).append(value)
        results[names] = pair
    return results


def one_source(
    source_parts: dict,
    target_parts: dict,
    plan: Photos,
    seed: int,
    device: torch.device,
    report: Callable = print,
) -> dict:
    """One source and what is made of it: labels per class -> method -> `compare_photos`."""
    source, results = photo_source(plan, source_parts, seed, device), {}
    reached = evaluate(source, source_parts["validation"], accuracy)
    report(f"{source_parts['name']}, seed {seed}: validation {reached:.3f}")
    for shots in plan.shots:
        results[str(shots)] = seen = compare_photos(source, target_parts, shots, plan, seed)
        accuracies = ", ".join(f"{method} {row['own']:.3f}" for method, row in seen.items())
        report(f"{target_parts['name']}, {shots} per class: {accuracies}")
    return results
