"""Networks for several tasks: a trunk that all tasks share and one head a task."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn


def mlp(sizes: Sequence[int], activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Fully connected layers ``sizes[0] -> ... -> sizes[-1]`` with the activation after each of
    them, the last one included.

    So it is a trunk: ``f(x) = g(W_f x + b_f)`` for two sizes (chapter 1, equation 2). x [...,
    sizes[0]] -> [..., sizes[-1]]. ValueError for fewer than two sizes.
    """
    if len(sizes) < 2:
        raise ValueError(f"mlp needs at least an input and an output size, got {list(sizes)}.")
    layers = []
    for before, after in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers)


def cnn(
    size: int, channels: Sequence[int], features: int, in_channels: int = 1, norm: bool = False
) -> nn.Sequential:
    """Convolutional trunk for square images: x [B, in_channels, size, size] -> [B, features].

    Every 3x3 convolution halves the image, with ReLU after it (and BatchNorm between, if `norm`); a
    fully connected layer ends the trunk. ValueError if `size` cannot be halved once for every entry
    of `channels`.
    """
    if size % 2 ** len(channels):
        raise ValueError(
            f"An image of {size} pixels cannot be halved {len(channels)} times; give fewer channels"
            " or another size."
        )
    layers, before = [], in_channels
    for width in channels:
        layers += [
            nn.Conv2d(before, width, 3, stride=2, padding=1),
            *([nn.BatchNorm2d(width)] if norm else []),
            nn.ReLU(),
        ]
        before = width
    side = size // 2 ** len(channels)
    return nn.Sequential(*layers, nn.Flatten(), *mlp([before * side**2, features]))


def conv4(
    size: int,
    width: int = 64,
    in_channels: int = 1,
    norm: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
) -> nn.Sequential:
    """The trunk of the few-shot literature: x [B, in_channels, size, size] -> [B, width * (size //
    16)**2].

    Four times a 3x3 convolution, `norm` (from a number of channels to a layer; None for none),
    ReLU, and a 2x2 maximum. Source: Vinyals et al., "Matching networks for one shot learning",
    NeurIPS 2016, section 4.1.1. ValueError for fewer than 16 pixels.
    """
    if size < 16:
        raise ValueError(
            f"An image of {size} pixels cannot be halved 4 times; conv4 needs 16 or more."
        )
    layers, before = [], in_channels
    for _ in range(4):
        layers += [
            nn.Conv2d(before, width, 3, padding=1),
            *([] if norm is None else [norm(width)]),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
        before = width
    return nn.Sequential(*layers, nn.Flatten())


class Classifier(nn.Module):
    """A trunk from inputs to `features` numbers, and a linear head: what transfer keeps, and what
    it replaces (chapter 2).
    """

    def __init__(self, trunk: nn.Module, features: int, classes: int):
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))
