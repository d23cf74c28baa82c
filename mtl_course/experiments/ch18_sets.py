"""The sets of chapter 18, with their classes parted: by script, by alphabet, by a published split.

Needs no Jupyter.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import data
from ..data import cifar_fs
from ..data.episodes import EpisodeSource, require_disjoint, split_classes


@dataclass(frozen=True)
class Domain:
    """A data set whose classes are parted.

    Args:
        name: of the set that was really loaded.
        x: all inputs.
        y: all labels, on the same device.
        parts: part -> classes.
    """

    name: str
    x: Tensor
    y: Tensor
    parts: dict[str, list[int]]

    def source(self, part: str) -> EpisodeSource:
        """Where the episodes of a part come from."""
        return EpisodeSource(self.x, self.y, self.parts[part])


def parted(name: str, small: bool, device: torch.device | str = "cpu") -> Domain:
    """A set by its name, with its classes parted.

    Characters are parted by script or alphabet, so that no neighbour of a test class was trained
    on; CIFAR-FS by its published split. small: characters have 16 x 16 pixels.
    """
    if name == "cifar_fs":
        return photographs(data.load_or_partial("cifar100"), device)
    try:
        ds = data.load(name)
    except data.DataError:
        if name != "omniglot":
            raise
        ds = data.load("omniglot_small")
    if name == "glyphs":
        # Latin, Greek, Cyrillic, Armenian, Georgian
        groups, part_of = np.array(ds["scripts"]), ("train", "validation", "train", "test", "test")
    else:
        groups = np.array(ds["alphabet"])
        background = (
            np.array(ds["background"]) if "background" in ds else np.ones(len(groups), dtype=bool)
        )
        order = sorted(set(groups[background].tolist()))
        # the reduced set: half of its alphabets to train on, a quarter each for validation and test
        if background.all():
            half, quarter = len(order) // 2, len(order) // 4
            rest = len(order) - half - quarter
            at = ["train"] * half + ["validation"] * quarter + ["test"] * rest
        else:
            # the official split; the last five alphabets of the background set are for validation
            at = ["train"] * (len(order) - 5) + ["validation"] * 5
        evaluation = dict.fromkeys(set(groups[~background].tolist()), "test")
        part_of = dict(zip(order, at, strict=True)) | evaluation
    parts = {
        part: [c for c, g in enumerate(groups.tolist()) if part_of[g] == part]
        for part in ("train", "validation", "test")
    }
    require_disjoint(parts)
    return Domain(
        ds.info.name,
        pictures(ds["x"], small).to(device),
        torch.from_numpy(np.array(ds["y"])).to(device),
        parts,
    )


def pictures(x: np.ndarray, small: bool = True) -> Tensor:
    """uint8 [N, 28, 28] -> [N, 1, 28, 28] in [0, 1].

    small: halved, with a margin of one pixel, [N, 1, 16, 16], which halves often enough.
    """
    images = torch.from_numpy(np.array(x))[:, None].float() / 255
    return F.pad(F.avg_pool2d(images, 2), (1, 1, 1, 1)) if small else images


def photographs(ds: data.Dataset, device: torch.device | str = "cpu") -> Domain:
    """CIFAR-100, or the part of it that there is, in the published parts of CIFAR-FS."""
    x = np.concatenate([np.array(ds["x_train"]), np.array(ds["x_test"])])
    y = torch.from_numpy(np.concatenate([np.array(ds["y_train"]), np.array(ds["y_test"])]))
    parts = cifar_fs.classes(ds["names"])
    require_disjoint(parts)
    images = torch.from_numpy(x).to(device).permute(0, 3, 1, 2).float() / 255
    return Domain(
        "cifar_fs" + ds.info.name.removeprefix("cifar100"),
        (images - 0.48) / 0.26,
        y.to(device),
        parts,
    )


def leaves(seed: int) -> Domain:
    """Leaf measurements [N, d], standardised by the training species.

    16 species to train on, 6 for validation, 10 to be tested on.
    """
    ds = data.load("flavia")
    y = torch.from_numpy(np.array(ds["y"]))
    parts = split_classes(y, {"train": 16, "validation": 6, "test": 10}, seed)
    x, known = (
        torch.from_numpy(np.array(ds["x"])).float(),
        torch.isin(y, torch.tensor(parts["train"])),
    )
    return Domain("flavia", (x - x[known].mean(0)) / x[known].std(0), y, parts)


def features(net: nn.Module, where: Domain) -> int:
    """How many features a trunk has."""
    net.eval()
    with torch.no_grad():
        return net(where.x[:1]).shape[1]
