"""Chapter 3: three optimizers on a real network, batch size against noise, and rates.

Every run sees the same number of images, whatever its batch: many small steps or few large ones.
Needs no Jupyter.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from ..networks.trunks import cnn
from ..records.pieces import kept
from .common import seeded

MAKE = {
    "SGD": lambda p, rate: torch.optim.SGD(p, rate),
    "momentum": lambda p, rate: torch.optim.SGD(p, rate, momentum=0.9),
    "Adam": lambda p, rate: torch.optim.Adam(p, rate),
}
RATES = {
    "SGD": (0.01, 0.03, 0.1, 0.3, 1.0),
    "momentum": (0.001, 0.003, 0.01, 0.03, 0.1),
    "Adam": (0.0003, 0.001, 0.003, 0.01, 0.03),
}


@dataclass(frozen=True)
class Plan:
    """Sizes of the comparison.

    Args:
        images: to train on; the largest batch is all of them.
        validation: images that choose the rate.
        batches: images per step.
        epochs: passes over the images.
    """

    images: int = 1024
    validation: int = 1000
    batches: tuple[int, ...] = (16, 128, 1024)
    epochs: int = 8


Images = tuple[Tensor, Tensor]  # x [N, 1, 28, 28] and y [N]


def parts(digits: Images, seed: int, plan: Plan) -> tuple[Images, Images]:
    """Images to train on and images that choose the rate, drawn anew for each seed."""
    x, y = digits
    order = torch.tensor(np.random.RandomState(seed).permutation(len(y)))
    ends = plan.images, plan.images + plan.validation
    return tuple((x[rows], y[rows]) for rows in (order[: ends[0]], order[ends[0] : ends[1]]))


def network(seed: int) -> nn.Module:
    """The small network of this chapter."""
    return seeded(lambda: nn.Sequential(cnn(28, (8, 16), 32), nn.Linear(32, 10)), seed)


def descend(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    batch: int,
    seed: int,
) -> Iterator[None]:
    """Train, epoch after epoch; each `next` is one epoch in a new order."""
    order = torch.Generator().manual_seed(seed)
    while True:
        for rows in torch.randperm(len(y), generator=order).split(batch):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
        yield


@torch.no_grad()
def right(model: nn.Module, images: Images) -> float:
    """Share of images that are classified rightly."""
    return (model(images[0]).argmax(1) == images[1]).float().mean().item()


def noise_scale(model: nn.Module, x: Tensor, y: Tensor, chunk: int = 128) -> dict[str, float]:
    """How noisy the gradient of one example is, on the images x [N, 1, s, s] with labels y [N].

    Returns:
        "signal", the squared length of the mean gradient; "noise", the mean squared distance of an
        example's gradient from it; and "ratio", noise over signal: the batch at which both are
        equally large.

    Source:
        McCandlish et al. 2018, "An empirical model of large-batch training": the simple noise
        scale, the trace of the covariance over the squared length of the mean.
    """
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(p, image, label):
        return F.cross_entropy(functional_call(model, p, (image[None],)), label[None])

    each = vmap(grad(loss), in_dims=(None, 0, 0))
    total, squares = 0.0, 0.0
    for some, labels in zip(x.split(chunk), y.split(chunk), strict=True):
        g = torch.cat([v.flatten(1) for v in each(parameters, some, labels).values()], dim=1)
        total, squares = total + g.sum(0), squares + g.square().sum().item()
    signal = (total / len(y)).square().sum().item()
    noise = squares / len(y) - signal
    return {"signal": signal, "noise": noise, "ratio": noise / signal}


def one(
    name: str,
    batch: int,
    rate: float,
    seed: int,
    train: Images,
    others: Sequence[Images],
    epochs: int,
) -> list[float]:
    """Accuracy on the other images after one training run."""
    model = network(seed)
    steps = descend(model, MAKE[name](model.parameters(), rate), *train, batch, seed)
    for _ in range(epochs):
        next(steps)
    return [right(model, images) for images in others]


def compare(seed: int, digits: Images, test: Images, plan: Plan, batch: int) -> dict:
    """Optimizer -> accuracy on validation and test images for each rate, with one batch size."""
    train, choosing = parts(digits, seed, plan)
    return {
        name: [one(name, batch, r, seed, train, (choosing, test), plan.epochs) for r in rates]
        for name, rates in RATES.items()
    }


def noise_on_the_way(seed: int, digits: Images, plan: Plan, rate: float = 0.1) -> list[dict]:
    """`noise_scale` at the start and after each epoch of SGD with a batch of 16."""
    train, _ = parts(digits, seed, plan)
    model = network(seed)
    steps = descend(model, MAKE["SGD"](model.parameters(), rate), *train, 16, seed)
    found = [noise_scale(model, *train)]
    for _ in range(plan.epochs):
        next(steps)
        found.append(noise_scale(model, *train))
    return found


def run(
    digits: Images,
    test: Images,
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    plan: Plan | None = None,
) -> dict:
    """Accuracy of optimizer x batch x rate, and the noise on the way, per seed. Plain JSON."""
    plan = plan or Plan()
    runs = {str(batch): [] for batch in plan.batches}
    for seed in seeds:
        for batch in plan.batches:
            key = f"batch {batch}, seed {seed}"
            found = kept(key, compare, seed, digits, test, plan, batch)
            runs[str(batch)].append(found)
            best = {name: max(values)[1] for name, values in found.items()}
            report(f"{key}: " + ", ".join(f"{n} {v:.3f}" for n, v in best.items()))
    noise = [kept(f"noise, seed {s}", noise_on_the_way, s, digits, plan) for s in seeds]
    rates = {name: list(values) for name, values in RATES.items()}
    return {"rates": rates, "runs": runs, "noise": noise, "epochs": plan.epochs}
