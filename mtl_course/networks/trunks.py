"""Small trunks, modules from inputs to one vector of features, and a classifier upon them.

A trunk ends with an activation and has no head. One with a head is a `Classifier` (chapter 2);
below several heads it is shared by tasks, as in `mtl_course.multitask.HardSharing`.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn


def mlp(sizes: Sequence[int], activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Fully connected layers with an activation after each, the last one included.

    So it is a trunk: with two sizes ``f(x) = g(W_f x + b_f)`` (chapter 1, equation 2).

    Args:
        sizes: numbers per example before the first layer and after each one.
        activation: class of the module after each layer.

    Returns:
        Module from x [..., sizes[0]] to features [..., sizes[-1]].

    Raises:
        ValueError: for fewer than two sizes.

    Example:
        >>> import torch
        >>> trunk = mlp([4, 16, 8])
        >>> [type(layer).__name__ for layer in trunk]
        ['Linear', 'ReLU', 'Linear', 'ReLU']
        >>> list(trunk(torch.randn(5, 4)).shape)
        [5, 8]
    """
    if len(sizes) < 2:
        raise ValueError(f"mlp needs at least an input and an output size, got {list(sizes)}.")
    layers = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers)


def cnn(
    size: int, channels: Sequence[int], features: int, in_channels: int = 1, norm: bool = False
) -> nn.Sequential:
    """Convolutional trunk for square images, which every convolution halves.

    A 3x3 convolution of stride 2 for each entry of `channels`, with ReLU after it, and a fully
    connected layer with ReLU at the end.

    Args:
        size: side of the images in pixels.
        channels: channels after each convolution.
        features: numbers per image that the trunk gives.
        in_channels: channels of the images.
        norm: whether BatchNorm stands between convolution and ReLU.

    Returns:
        Module from x [B, in_channels, size, size] to features [B, features].

    Raises:
        ValueError: if `size` cannot be halved once for every entry of `channels`.

    Example:
        >>> import torch
        >>> trunk = cnn(16, (4, 8), features=5, in_channels=3)
        >>> list(trunk(torch.randn(2, 3, 16, 16)).shape)
        [2, 5]
    """
    if size % 2 ** len(channels):
        raise ValueError(
            f"An image of {size} pixels cannot be halved {len(channels)} times;"
            " give fewer channels or another size."
        )
    layers, inputs = [], in_channels
    for outputs in channels:
        layers.append(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1))
        if norm:
            layers.append(nn.BatchNorm2d(outputs))
        layers.append(nn.ReLU())
        inputs = outputs
    side = size // 2 ** len(channels)
    return nn.Sequential(*layers, nn.Flatten(), *mlp([inputs * side**2, features]))


def conv4(
    size: int,
    width: int = 64,
    in_channels: int = 1,
    norm: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
) -> nn.Sequential:
    """The trunk of the few-shot literature: four times a convolution and a 2x2 maximum.

    Every 3x3 convolution is followed by `norm`, ReLU and the maximum, which halves the map.

    Args:
        size: side of the images in pixels.
        width: channels of every convolution.
        in_channels: channels of the images.
        norm: from a number of channels to the layer between convolution and ReLU; None for none.

    Returns:
        Module from x [B, in_channels, size, size] to features [B, width * (size // 16)**2].

    Raises:
        ValueError: for images of fewer than 16 pixels a side.

    Source:
        Vinyals et al., "Matching networks for one shot learning", NeurIPS 2016, section 4.1.1.

    Example:
        >>> import torch
        >>> list(conv4(28, width=8)(torch.randn(2, 1, 28, 28)).shape)
        [2, 8]
    """
    if size < 16:
        raise ValueError(
            f"An image of {size} pixels cannot be halved 4 times; conv4 needs 16 or more."
        )
    layers, inputs = [], in_channels
    for _ in range(4):
        layers.append(nn.Conv2d(inputs, width, 3, padding=1))
        if norm is not None:
            layers.append(norm(width))
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        inputs = width
    return nn.Sequential(*layers, nn.Flatten())


class Classifier(nn.Module):
    """A trunk and a linear head: what transfer keeps, and what it replaces (chapter 2).

    Args:
        trunk: module from inputs [B, ...] to features [B, features].
        features: numbers per example that the trunk gives.
        classes: number of classes. `forward` returns logits [B, classes].

    Example:
        >>> import torch
        >>> model = Classifier(mlp([4, 8]), features=8, classes=3)
        >>> list(model(torch.randn(5, 4)).shape)
        [5, 3]
    """

    def __init__(self, trunk: nn.Module, features: int, classes: int):
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, classes]."""
        return self.head(self.trunk(x))
