"""Chapter 8, what the trunk has learned.

Digits that two sets have in common, and where each head looks. Needs no Jupyter.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..multitask.sharing import HardSharing
from ..training.evaluation import predict
from .ch08_compare import Data


def names_carried(model: HardSharing, draw: Data) -> float:
    """Share of the UCI test images whose features tell their digit by MNIST's means.

    They are nearest to the mean of *their own digit* among MNIST's training images. Nobody told the
    network that the two sets have digits in common. The features of each set are first centred on
    the set's mean. For the partner "same digits" only, where the label numbers agree.
    """
    features = {}
    for name, part in (("mnist", "train"), ("uci", "test")):
        x, y = draw.parts[part].sets[name]
        z = predict(model.trunk, x)
        features[name] = z - z.mean(dim=0), y
    z, y = features["mnist"]
    means = torch.stack([z[y == label].mean(dim=0) for label in range(draw.classes["mnist"])])
    z, y = features["uci"]
    return float((torch.cdist(z, means).argmin(dim=1) == y).float().mean())


def gaze(model: HardSharing, x: Tensor, labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Where each head looks: the mean over images of |d logit of the true class / d pixel|.

    Args:
        model: of images.
        x: [N, 1, H, W].
        labels: task -> int64 [N].

    Returns:
        Task -> [H, W], summing to 1.

    Source:
        Simonyan, Vedaldi and Zisserman, "Deep inside convolutional networks", 2014, section 3.
    """
    model.eval()
    maps = {}
    for name in model.heads:
        pixels = x.clone().requires_grad_()
        logits = model(pixels)[name]
        (grad,) = torch.autograd.grad(logits.gather(1, labels[name][:, None]).sum(), pixels)
        mean = grad.abs().mean(dim=(0, 1))
        maps[name] = mean / mean.sum()
    return maps


def upper_left(pixels: Tensor) -> float:
    """Share of a map [S, S] that lies above its diagonal that falls to the left.

    Half of the diagonal counts with it: 0.5 for an even map.
    """
    place = torch.arange(len(pixels))
    total = place[:, None] + place
    weight = (total < len(pixels) - 1).float() + 0.5 * (total == len(pixels) - 1)
    return float((pixels * weight).sum() / pixels.sum())
