"""Chapter 8 at full size: CIFAR-10 and CIFAR-100 as two label sets. Needs no Jupyter."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from .. import data
from ..data.augment import compose, crop, flip
from ..data.batches import Separate
from .ch08_compare import PARTS, Data, Plan, compare, one_line

CIFAR = Plan(
    side=32,
    channels=3,
    depths=(2, 2, 2),
    widths=(64, 128, 256),
    epochs=15,
    batch=256,
    augment=compose(flip, crop(4)),
)


def cifar_pair(
    seed: int, plan: Plan = CIFAR, device: torch.device | str = "cpu"
) -> tuple[Data, dict[str, str]]:
    """CIFAR-10 and CIFAR-100, and the names of the sets that were loaded.

    Those are the partial ones of a data root where the whole cannot be had. A tenth of the training
    images of every class is for validation.
    """
    sets, names = {}, {}
    for task in ("cifar10", "cifar100"):
        ds = data.load_or_partial(task)
        names[task] = ds.info.name
        arrays = {key: ds[key] for key in ("x_train", "y_train", "x_test", "y_test")}
        sets[task] = colour_parts(arrays, seed, plan.limit, device)
    parts = {
        part: Separate({task: by_part[part] for task, by_part in sets.items()}) for part in PARTS
    }
    return Data(parts, {"cifar10": 10, "cifar100": 100}), names


def colour_parts(
    arrays: Mapping[str, np.ndarray],
    seed: int,
    limit: int | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, tuple[Tensor, Tensor]]:
    """Part -> (images [N, 3, H, W], labels [N]), on the device.

    Each channel has mean 0 and variance 1 over the training images.

    Args:
        arrays: x_train, x_test uint8 [N, H, W, 3] and y_train, y_test.
        seed: of the split.
        limit: at most as many images of each part.
        device: where the images go.
    """
    y = np.asarray(arrays["y_train"])
    counts = np.bincount(y)
    order = np.random.RandomState(seed).permutation(len(y))
    # Place of an image among those of its class, in this order.
    place = np.empty(len(y), dtype=np.int64)
    for label in np.flatnonzero(counts):
        of_class = order[y[order] == label]
        place[of_class] = np.arange(len(of_class))
    validates = place < counts[y] // 10
    rows = {
        "train": order[~validates[order]][:limit],
        "validation": order[validates[order]][:limit],
        "test": np.arange(len(arrays["y_test"]))[:limit],
    }
    half = {"train": "train", "validation": "train", "test": "test"}
    pixels = {
        part: torch.from_numpy(arrays[f"x_{half[part]}"][r]).to(device) for part, r in rows.items()
    }
    mean = torch.mean(pixels["train"].float(), dim=(0, 1, 2))
    spread = torch.std(pixels["train"].float(), dim=(0, 1, 2))
    parts = {}
    for part, r in rows.items():
        # The strides are those of channels-last already.
        x = ((pixels[part].float() - mean) / spread).permute(0, 3, 1, 2)
        labels = np.asarray(arrays[f"y_{half[part]}"])[r]
        parts[part] = x, torch.from_numpy(labels).to(device)
    return parts


def full_size(
    seeds: Sequence[int],
    plan: Plan = CIFAR,
    device: torch.device | str = "cpu",
    report: Callable[[str], None] = print,
) -> dict:
    """CIFAR-10 and CIFAR-100: the comparison, and the names of the sets that were there."""
    draws, names = {}, {}
    for seed in seeds:
        draws[seed], names = cifar_pair(seed, plan, device)
    rows, _ = compare(draws, plan)
    report(f"{' and '.join(names.values())}: {one_line(rows)}")
    return {"sets": names, "label sets": {"CIFAR-10 and CIFAR-100": rows}}
