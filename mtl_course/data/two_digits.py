"""Two digits in one image, two labels: composed on the fly from single digits.

Nothing is stored and nothing leaks: the digits are split into a training, a validation and a test
part *before* they are paired, so no handwriting of one part is in another.

Source of the idea: Sabour, Frosst and Hinton, "Dynamic routing between capsules", NeurIPS 2017,
section 6 (MultiMNIST).
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from .splits import per_class

TASKS = ("left", "right")


def parts(y: NDArray, shares: Mapping[str, int], seed: int = 0) -> dict[str, NDArray]:
    """Disjoint parts with as many digits of every class in each: part -> row numbers.

    y: labels [N], int64; shares: part -> rows per class.
    ValueError if a class has too few rows for all parts together.
    """
    rows, taken, count = {}, np.empty(0, dtype=np.int64), 0
    for part, share in shares.items():
        count += share
        first = per_class(y, count, seed)  # has the rows of every smaller count
        rows[part] = np.setdiff1d(first, taken)
        taken = first
    return rows


def compose(left: Tensor, right: Tensor, shift: int, size: int) -> Tensor:
    """One digit at the top left, one at the bottom right of a canvas.

    left, right: [N, H, W], 0 to 255. The canvas has H + shift and W + shift pixels and is averaged
    down to `size` per side; where the digits overlap the brighter pixel stays.
    Returns float32 [N, 1, size, size] in [0, 1].
    """
    n, height, width = left.shape
    canvas = torch.zeros(n, 1, height + shift, width + shift, device=left.device)
    canvas[:, 0, :height, :width] = left / 255
    canvas[:, 0, shift:, shift:] = torch.maximum(canvas[:, 0, shift:, shift:], right / 255)
    return F.adaptive_avg_pool2d(canvas, size)


def pairs(
    x: NDArray, y: NDArray, n: int, seed: int, *, shift: int = 8, size: int = 18
) -> tuple[Tensor, dict[str, Tensor]]:
    """n images of two digits drawn from x [N, H, W] and y [N], and their labels.

    Returns float32 [n, 1, size, size], and task -> int64 [n]. The two digits are drawn
    independently, so one label says nothing about the other.
    """
    rows = np.random.RandomState(seed).randint(len(x), size=(2, n))
    left, right = (torch.from_numpy(np.asarray(x)[r]).float() for r in rows)
    labels = {task: torch.from_numpy(np.asarray(y)[r]) for task, r in zip(TASKS, rows, strict=True)}
    return compose(left, right, shift, size), labels
