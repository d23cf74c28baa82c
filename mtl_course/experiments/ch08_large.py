"""Chapter 8, three tasks at 224 pixels: real handwriting on a large page. Needs no Jupyter."""

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn import functional as F

from .. import data
from ..data.splits import per_class

SIDE = 224
KINDS = ("paper", "even", "odd")  # classes of a pixel


def pages(n: int, seed: int, part: str = "train") -> tuple[Tensor, dict[str, Tensor]]:
    """Pages of one to three MNIST digits, each 84 pixels high, in places of their own.

    Args:
        n: pages.
        seed: of the digits and of their places.
        part: "train" or "test": their digits are other images of MNIST, the same for all seeds.

    Returns:
        x [n, 1, 224, 224] around 0, and the labels of three tasks: "kind", int64 [n, 224, 224], the
        place in `KINDS` of the digit whose ink a pixel shows; "distance", float [n, 224, 224], from
        each pixel to the nearest ink, in hundreds of pixels; "count", int64 [n], the digits less 1.
    """
    ds = data.load("mnist_5k")
    y = np.array(ds.y)
    rows = per_class(y, 100, seed=0)
    rows = rows if part == "test" else np.setdiff1d(np.arange(len(y)), rows)
    g = np.random.RandomState(seed)
    count = g.randint(1, 4, n)
    ink, kind = np.zeros((n, SIDE, SIDE), np.float32), np.zeros((n, SIDE, SIDE), np.int64)
    for page in range(n):
        for quarter in g.permutation(4)[: count[page]]:
            row = g.choice(rows)
            digit = torch.from_numpy(np.array(ds.x[row], np.float32)).view(1, 1, 28, 28)
            digit = F.interpolate(digit, size=84, mode="bilinear")[0, 0].numpy()
            down, right = 112 * (quarter // 2), 112 * (quarter % 2)
            down, right = down + g.randint(29), right + g.randint(29)
            place = page, slice(down, down + 84), slice(right, right + 84)
            ink[place] = digit
            kind[place] = np.where(digit > 0.5 * digit.max(), 1 + y[row] % 2, 0)
    distance = np.stack([distance_transform_edt(one == 0) for one in kind]) / 100
    labels = {
        "kind": torch.from_numpy(kind),
        "distance": torch.from_numpy(distance).float(),
        "count": torch.from_numpy(count - 1).long(),
    }
    return torch.from_numpy(ink)[:, None] / float(ink.max()) / 0.5 - 0.2, labels
