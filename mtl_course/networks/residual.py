"""Residual trunks for images: pictures in, one vector of features per picture out, and no head.

The blocks are those of torchvision's ResNet-18 and -34, so weights can be copied over. What differs
is the stem, which for 32x32 images must not shrink them before the first block has seen them.

Sources: He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR 2016, section
3 and, for 32x32 images, section 4.2. Initialisation: He et al., "Delving deep into rectifiers",
ICCV 2015.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut around them: ``relu(shortcut(x) + f(x))``.

    x [B, in_channels, H, W] -> [B, width, H', W']. The shortcut is the identity where the shape
    stays, else a 1x1 convolution.

    Args:
        in_channels: channels of x.
        width: channels of both convolutions.
        stride: 1 keeps the map's size, 2 halves it (rounded up).

    Source:
        He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR 2016,
        section 3.

    Example:
        >>> import torch
        >>> list(Block(8, 16, stride=2)(torch.randn(2, 8, 9, 9)).shape)
        [2, 16, 5, 5]
        >>> type(Block(8, 8).shortcut).__name__
        'Identity'
    """

    def __init__(self, in_channels: int, width: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        if stride == 1 and in_channels == width:
            self.shortcut = nn.Identity()
        else:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        """The next map, [B, width, H', W']."""
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """A stem, stages of blocks, and means over the last map; `resnet` builds it.

    x [B, C, H, W] -> features [B, self.features]. Every stage but the first halves the map. `maps`
    gives the map after each stage, which a head for every pixel needs.

    Args:
        stem: module from images to the first map.
        stages: modules from map to map.
        width: channels of the last map.
        pool: side of the grid of means that the last map becomes.

    Example:
        >>> import torch
        >>> model = resnet((1, 1), (4, 8))
        >>> x = torch.randn(2, 3, 16, 16)
        >>> [list(z.shape) for z in model.maps(x)]
        [[2, 4, 16, 16], [2, 8, 8, 8]]
        >>> list(model(x).shape), model.features
        ([2, 8], 8)
    """

    def __init__(self, stem: nn.Module, stages: Sequence[nn.Module], width: int, pool: int = 1):
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.pool = pool
        self.features = width * pool**2

    def maps(self, x: Tensor) -> list[Tensor]:
        """The map after each stage, [B, width, H', W'], from the finest to the coarsest."""
        x, maps = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """Features [B, self.features]."""
        last = self.maps(x)[-1]
        if self.pool == 1:
            return last.mean(dim=(2, 3))
        return F.adaptive_avg_pool2d(last, self.pool).flatten(1)


def resnet(
    depths: Sequence[int] = (2, 2, 2),
    widths: Sequence[int] = (64, 128, 256),
    in_channels: int = 3,
    stem: str = "small",
    pool: int = 1,
) -> ResNet:
    """A residual trunk of any depth and width, freshly initialised.

    ``resnet((2, 2, 2, 2), (64, 128, 256, 512), stem="large")`` is torchvision's resnet18 without
    its last layer.

    Args:
        depths: blocks of each stage.
        widths: channels of each stage.
        in_channels: channels of the images.
        stem: "small", one 3x3 convolution at full resolution, for images of about 32 pixels; or
            "large", a 7x7 convolution and a max-pool that leave a quarter of the side, for images
            of about 224 pixels.
        pool: side of the grid of means that the last map becomes. 1, one mean over all places,
            forgets where a thing was; 2 keeps the quarter.

    Returns:
        Module from x [B, in_channels, H, W] to features [B, widths[-1] * pool**2], a number that it
        has as `.features`.

    Raises:
        ValueError: for lists of different lengths, an empty stage, or another stem.

    Source:
        He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR 2016,
        sections 3 and 4.2.

    Example:
        >>> import torch
        >>> model = resnet((1, 1), (4, 8), in_channels=1, pool=2)
        >>> list(model(torch.randn(2, 1, 16, 16)).shape), model.features
        ([2, 32], 32)
    """
    if len(depths) != len(widths) or not depths or min(depths) < 1:
        raise ValueError(
            "Give one depth of at least 1 and one width per stage;"
            f" got depths {list(depths)} and widths {list(widths)}."
        )
    if stem not in ("small", "large"):
        raise ValueError(
            f"The stem is {stem!r}; it must be 'small' (images of about 32 pixels)"
            " or 'large' (about 224)."
        )
    small, first = stem == "small", widths[0]
    kernel, stride = (3, 1) if small else (7, 2)
    stem_layers = [
        nn.Conv2d(in_channels, first, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(first),
        nn.ReLU(inplace=True),
    ]
    if not small:
        stem_layers.append(nn.MaxPool2d(3, 2, padding=1))
    stages, inputs = [], first
    for number, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        # every stage but the first halves the map, in its first block
        blocks = [Block(inputs, width, stride=1 if number == 0 else 2)]
        blocks += [Block(width, width) for _ in range(depth - 1)]
        stages.append(nn.Sequential(*blocks))
        inputs = width
    model = ResNet(nn.Sequential(*stem_layers), stages, inputs, pool)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model
