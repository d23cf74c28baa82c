"""Chapter 8 at full size: CIFAR-10 and CIFAR-100 as two label sets. Needs no Jupyter."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from .. import data
from ..data.augment import compose, crop, flip
from ..data.batches import Separate
from .ch08_compare import PARTS, Data, Plan, compare

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
    """CIFAR-10 and CIFAR-100, and which sets were loaded: the partial ones of a data root where the
    whole cannot be had.

    A tenth of the training images of every class is for validation.
    """
    found, names = {}, {}
    for task in ("cifar10", "cifar100"):
        ds = data.load_or_partial(task)
        names[task] = ds.info.name
        found[task] = colour_parts(
            {key: ds[key] for key in ("x_train", "y_train", "x_test", "y_test")},
            seed,
            plan.limit,
            device,
        )
    return (
        Data(
            {part: Separate({task: held[part] for task, held in found.items()}) for part in PARTS},
            {"cifar10": 10, "cifar100": 100},
        ),
        names,
    )


def colour_parts(
    arrays: Mapping[str, np.ndarray],
    seed: int,
    limit: int | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, tuple[Tensor, Tensor]]:
    """Part -> (images [N, 3, H, W] with mean 0 and variance 1 a channel over the training images,
    labels [N]), on the device.

    arrays: x_train, x_test uint8 [N, H, W, 3] and y_train, y_test. limit: at most as many images of
        each part.
    """
    y = np.asarray(arrays["y_train"])
    counts = np.bincount(y)
    order = np.random.RandomState(seed).permutation(len(y))
    place = np.empty(len(y), dtype=np.int64)  # of an image among those of its class, in this order
    for label in np.flatnonzero(counts):
        mine = order[y[order] == label]
        place[mine] = np.arange(len(mine))
    held = place < counts[y] // 10
    rows = {
        "train": order[~held[order]][:limit],
        "validation": order[held[order]][:limit],
        "test": np.arange(len(arrays["y_test"]))[:limit],
    }
    pixels = {
        part: torch.from_numpy(arrays["x_test" if part == "test" else "x_train"][r]).to(device)
        for part, r in rows.items()
    }
    scale = [f(pixels["train"].float(), dim=(0, 1, 2)) for f in (torch.mean, torch.std)]
    found = {}
    for part, r in rows.items():
        x = ((pixels[part].float() - scale[0]) / scale[1]).permute(
            0, 3, 1, 2
        )  # strides of channels-last already
        found[part] = (
            x,
            torch.from_numpy(np.asarray(arrays["y_test" if part == "test" else "y_train"])[r]).to(
                device
            ),
        )
    return found


def full_size(seeds: Sequence[int], plan: Plan = CIFAR, device: torch.device | str = "cpu") -> dict:
    """CIFAR-10 and CIFAR-100: the comparison, and the names of the sets that were there."""
    draws, names = {}, {}
    for seed in seeds:
        draws[seed], names = cifar_pair(seed, plan, device)
    return {"sets": names, "label sets": {"CIFAR-10 and CIFAR-100": compare(draws, plan)[0]}}
