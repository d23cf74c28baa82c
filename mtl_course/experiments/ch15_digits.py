"""Chapter 15's two collections of digits in one frame, pairs made of them, and its network.

Labels of a target are kept beside its images; `ch15.train` takes the images alone. Needs no
Jupyter.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import data
from ..data.corruptions import gaussian_blur
from ..networks.trunks import Classifier, cnn
from ..transfer.adaptation import adapt_batchnorm
from .ch02 import cut
from .common import seeded

RARE = (0, 1, 2, 3, 4)  # the digits that a shifted target has few of


# ----------------------------------------------------------------------------------------- the data
def framed(images: np.ndarray, brightest: float) -> Tensor:
    """Grey digits on black as the UCI set has them, enlarged: float32 [N, 1, 16, 16] in [0, 1].

    Cut to what is drawn, padded to a square, averaged to 8 x 8 pixels, enlarged.
    """
    squares = [F.adaptive_avg_pool2d(torch.from_numpy(cut(image))[None], 8) for image in images]
    small = torch.stack(squares) / brightest
    return F.interpolate(small, size=(16, 16), mode="bilinear", align_corners=False)


def standard(x: Tensor) -> Tensor:
    """Images with mean 0 and variance 1 over their domain, which needs no label."""
    return (x - x.mean()) / x.std()


@dataclass(frozen=True)
class Domain:
    """Images [N, 1, 16, 16] and labels [N] of a domain, in two parts.

    Args:
        x: images to train on.
        y: their labels; for a target, nothing but `shifted` reads them, to leave images out.
        x_test: images that no training sees.
        y_test: their labels.
    """

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


def split(x: Tensor, y: Tensor, train: int, device: torch.device | None = None) -> Domain:
    """A domain with so many images to train on, the same ones in every call."""
    rows = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    x, y, device = standard(x), y, device or torch.device("cpu")
    first, rest = rows[:train], rows[train:]
    return Domain(*(part.to(device) for part in (x[first], y[first], x[rest], y[rest])))


@cache
def pictures(name: str) -> tuple[Tensor, Tensor]:
    """Framed digits of a set (its training part, if it has any) and their labels."""
    ds = data.load(name)
    x, y = (ds["x_train"], ds["y_train"]) if "x_train" in ds else (ds["x"], ds["y"])
    return framed(x, 16.0 if name == "digits" else 255.0), torch.as_tensor(np.array(y))


def domains(
    source: str, unlabelled: int, held_out: int, device: torch.device | None = None
) -> tuple[Domain, Domain]:
    """The source, all but `held_out` images of it to train on, and the target.

    unlabelled: images of the target to train on; the rest is the test.
    """
    x, y = pictures(source)
    here = split(x, y, len(y) - held_out, device)
    return here, split(*pictures("digits"), unlabelled, device)


def rehearsal(
    source: str, unlabelled: int, held_out: int, device: torch.device | None = None
) -> tuple[Domain, Domain]:
    """A pair whose labels are all at hand: half of the source, and the other half changed.

    The changed half is slanted to the left, all images alike, and blurred.
    """
    x, y = pictures(source)
    rows = torch.randperm(len(y), generator=torch.Generator().manual_seed(1))
    here, there = rows[: len(y) // 2], rows[len(y) // 2 :]
    changed = gaussian_blur(slanted(x[there], 0.5), 0.05)
    held_out //= 2
    return (
        split(x[here], y[here], len(here) - held_out, device),
        split(changed, y[there], min(unlabelled, len(there) - held_out), device),
    )


def slanted(x: Tensor, amount: float) -> Tensor:
    """Images [N, 1, H, W] whose top moves to the left, by `amount` of half the width."""
    rows = torch.tensor([[1.0, -amount, 0.0], [0.0, 1.0, 0.0]]).expand(len(x), 2, 3)
    grid = F.affine_grid(rows, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def shifted(domain: Domain, rare: float) -> Domain:
    """A domain in which only a share `rare` of the `RARE` digits is left, in both parts."""

    def rows(y: Tensor) -> Tensor:
        few = torch.isin(y, torch.tensor(RARE, device=y.device))
        place = few.long().cumsum(0)
        step = round(1 / rare)
        return (~few | (place % step == 0)).nonzero()[:, 0]

    train, test = rows(domain.y), rows(domain.y_test)
    return Domain(domain.x[train], domain.y[train], domain.x_test[test], domain.y_test[test])


def resampled(x: Tensor, y: Tensor, shares: Sequence[float], seed: int) -> tuple[Tensor, Tensor]:
    """As many examples as there are, drawn with replacement so that classes have these shares."""
    weights = torch.tensor(shares) / torch.bincount(y.cpu(), minlength=len(shares))
    g = torch.Generator().manual_seed(seed)
    rows = torch.multinomial(weights[y.cpu()], len(y), replacement=True, generator=g)
    return x[rows.to(x.device)], y[rows.to(x.device)]


def bent(x: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Images, each turned, stretched, slanted and moved at random: up to 15 degrees at strength 1.

    Drawn on the CPU, so that a seed gives the same images everywhere.
    """
    draw = strength * (2 * torch.rand(6, len(x), generator=generator) - 1)
    angle, slant = np.pi / 12 * draw[0], 0.2 * draw[1]
    wide, high = 1 + 0.15 * draw[2], 1 + 0.15 * draw[3]
    cos, sin = angle.cos(), angle.sin()
    rows = (
        torch.stack([cos * wide, slant - sin * wide, 0.1 * draw[4]], dim=1),
        torch.stack([sin * high, cos * high, 0.1 * draw[5]], dim=1),
    )
    grid = F.affine_grid(torch.stack(rows, dim=1).to(x.device), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


# ------------------------------------------------------------------------------------ the network
def network(channels: Sequence[int], features: int, seed: int) -> tuple[Classifier, nn.Module]:
    """A fresh classifier of ten digits, and a fresh discriminator of two domains."""

    def build() -> tuple[Classifier, nn.Module]:
        trunk = cnn(16, channels, features, norm=True)
        discriminator = nn.Sequential(nn.Linear(features, 64), nn.ReLU(), nn.Linear(64, 1))
        return Classifier(trunk, features, 10), discriminator

    return seeded(build, seed)


@torch.no_grad()
def says(model: nn.Module, x: Tensor) -> Tensor:
    """The class that a model gives each image: int64 [N]."""
    return model(x).argmax(dim=1)


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of the images that a model names rightly."""
    return float((says(model, x) == y).float().mean())


def adapted(model: Classifier, x: Tensor) -> Classifier:
    """A copy of a model with the statistics of the images x in its BatchNorm."""
    model = copy.deepcopy(model)
    adapt_batchnorm(model, x)
    return model
