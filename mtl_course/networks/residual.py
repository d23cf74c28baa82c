"""Residual networks for small images, in the form of a trunk: images in, one vector of features an
image out, and no head.

The blocks are those of torchvision's ResNet-18 and -34, so weights can be copied over; what differs
is the stem, which for 32x32 images must not shrink them before the first block has seen them.
Sources: He, Zhang, Ren and Sun, "Deep residual learning for image recognition", CVPR 2016, section
3 and, for 32x32 images, section 4.2;
initialisation: He et al., "Delving deep into rectifiers", ICCV 2015.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut around them: ``relu(shortcut(x) + f(x))``, x [B, before,
    H, W] -> [B, width, H', W'].

    With `stride` 2 the map is halved (rounded up). The shortcut is the identity where the shape
    stays, else a 1x1 convolution.
    """

    def __init__(self, before: int, width: int, stride: int = 1):
        super().__init__()
        self.conv1, self.bn1 = (
            nn.Conv2d(before, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.conv2, self.bn2 = (
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.relu = nn.ReLU(inplace=True)
        same = stride == 1 and before == width
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(
                nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """A stem, stages of blocks, and means over the last map: x [B, in_channels, H, W] -> features
    [B, self.features].

    Every stage but the first halves the map. `maps` gives the map after each stage, which a head
    for every pixel needs.
    """

    def __init__(self, stem: nn.Module, stages: Sequence[nn.Module], width: int, pool: int = 1):
        super().__init__()
        self.stem, self.stages, self.pool, self.features = (
            stem,
            nn.ModuleList(stages),
            pool,
            width * pool**2,
        )

    def maps(self, x: Tensor) -> list[Tensor]:
        """The map after each stage, [B, width, H', W'], from the finest to the coarsest."""
        x, found = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        last = self.maps(x)[-1]
        return (
            last.mean(dim=(2, 3))
            if self.pool == 1
            else F.adaptive_avg_pool2d(last, self.pool).flatten(1)
        )


def resnet(
    depths: Sequence[int] = (2, 2, 2),
    widths: Sequence[int] = (64, 128, 256),
    in_channels: int = 3,
    stem: str = "small",
    pool: int = 1,
) -> ResNet:
    """A residual trunk: `depths` blocks and `widths` channels a stage. `.features` is
    ``widths[-1]`` times ``pool**2``.

    stem: "small", one 3x3 convolution at full resolution, for images of about 32 pixels; or
        "large", a 7x7 convolution and a max-pool
        that leave a quarter of the side, for images of about 224 pixels. ``resnet((2, 2, 2, 2),
        (64, 128, 256, 512), stem="large")`` is torchvision's resnet18 without its last layer.
    pool: side of the grid of means that the last map becomes. 1, one mean over all places, forgets
        where a thing was; 2 keeps the quarter. ValueError for lists of different lengths, an empty
        stage or another stem.
    """
    if len(depths) != len(widths) or not depths or min(depths) < 1:
        raise ValueError(
            f"Give one depth of at least 1 and one width a stage; got depths {list(depths)} and"
            f" widths {list(widths)}."
        )
    first = widths[0]
    if stem == "small":
        layers = [
            nn.Conv2d(in_channels, first, 3, padding=1, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(inplace=True),
        ]
    elif stem == "large":
        layers = [
            nn.Conv2d(in_channels, first, 7, 2, padding=3, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(inplace=True),
        ]
        layers.append(nn.MaxPool2d(3, 2, padding=1))
    else:
        raise ValueError(
            f"The stem is {stem!r}; it must be 'small' (images of about 32 pixels) or 'large'"
            " (about 224)."
        )
    stages, before = [], first
    for number, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        blocks = [
            Block(before if k == 0 else width, width, stride=2 if number and k == 0 else 1)
            for k in range(depth)
        ]
        stages.append(nn.Sequential(*blocks))
        before = width
    model = ResNet(nn.Sequential(*layers), stages, before, pool)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model
