"""Random changes of training images, a whole batch at once and on its device: ``augment(x,
generator) -> x``.

x: [B, C, H, W], of any dtype and memory format, which are kept; x itself is left alone. generator:
    a `torch.Generator` on the device of x, the only source of chance, so that a seed fixes every
    draw. Nothing loops over the images or waits for the device.

    augment = compose(flip, crop(4), cutout(8))
    train.fit(model, ..., augment=augment)
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Augment = Callable[[Tensor, torch.Generator], Tensor]


def flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image, left to right, with probability 1/2."""
    mirrored = torch.rand(_images(x), generator=generator, device=x.device) < 0.5
    return torch.where(mirrored[:, None, None, None], x.flip(-1), x)


def crop(padding: int, mode: str = "constant") -> Augment:
    """Pad each image by `padding` pixels on every side and cut a random window of the old size out
    of it.

    mode: of `torch.nn.functional.pad`: "constant" pads with zeros, "reflect" mirrors the border.
        ValueError for padding below 1.
    """
    if padding < 1:
        raise ValueError(f"padding is {padding}; a crop needs at least 1 pixel to move by.")

    def cropped(x: Tensor, generator: torch.Generator) -> Tensor:
        down, right = torch.randint(
            2 * padding + 1, (2, _images(x), 1), generator=generator, device=x.device
        )
        rows = down + torch.arange(x.shape[2], device=x.device)
        columns = right + torch.arange(x.shape[3], device=x.device)
        image = torch.arange(len(x), device=x.device)[:, None, None]
        # Indices around a slice put its dimension last: [B, H, W, C].
        window = F.pad(x, (padding,) * 4, mode=mode)[
            image, :, rows[:, :, None], columns[:, None, :]
        ]
        return window.permute(0, 3, 1, 2).contiguous(memory_format=_format(x))

    return cropped


def cutout(size: int) -> Augment:
    """Set a square of `size` pixels to 0 in each image. Its centre is any pixel: at the border a
    part of the square is outside.

    Source: DeVries and Taylor, "Improved regularization of convolutional neural networks with
    cutout", 2017 (arXiv 1708.04552). ValueError for a size below 1.
    """
    if size < 1:
        raise ValueError(f"size is {size}; cutout needs at least 1 pixel.")

    def cut(x: Tensor, generator: torch.Generator) -> Tensor:
        n, inside = _images(x), []
        for length in x.shape[2:]:
            start = torch.randint(length, (n, 1), generator=generator, device=x.device) - size // 2
            place = torch.arange(length, device=x.device)
            inside.append((place >= start) & (place < start + size))
        hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        return torch.where(hole, torch.zeros((), dtype=x.dtype, device=x.device), x)

    return cut


def compose(*parts: Augment) -> Augment:
    """One change after the other, all with the same generator."""

    def all_parts(x: Tensor, generator: torch.Generator) -> Tensor:
        for part in parts:
            x = part(x, generator)
        return x

    return all_parts


def _images(x):
    """Number of images of a batch. ValueError for another shape."""
    if x.ndim != 4:
        raise ValueError(f"x has shape {tuple(x.shape)}; augmentation needs images [B, C, H, W].")
    return len(x)


def _format(x):
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format
