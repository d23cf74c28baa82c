"""Random changes of training images, a whole batch at once: ``augment(x, generator) -> x``.

An `Augment` takes x [B, C, H, W], of any dtype and memory format, which are kept, and a
`torch.Generator` on the device of x. The generator is the only source of chance, so that a seed
fixes every draw. x itself is left alone. Nothing loops over the images or waits for the device.

    augment = compose(flip, crop(4), cutout(8))
    training.fit(model, ..., augment=augment)
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Augment = Callable[[Tensor, torch.Generator], Tensor]


def flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image, left to right, with probability 1/2.

    Args:
        x: images [B, C, H, W].
        generator: on the device of x.

    Returns:
        New images [B, C, H, W].

    Raises:
        ValueError: for x of another shape.

    Example:
        >>> x = torch.arange(12.0).view(2, 1, 2, 3)
        >>> flipped = flip(x, torch.Generator().manual_seed(0))
        >>> [y.equal(image) or y.equal(image.flip(-1)) for y, image in zip(flipped, x, strict=True)]
        [True, True]
    """
    mirrored = torch.rand(_images(x), generator=generator, device=x.device) < 0.5
    return torch.where(mirrored[:, None, None, None], x.flip(-1), x)


def crop(padding: int, mode: str = "constant") -> Augment:
    """Pad each image on every side and cut a random window of the old size out of it.

    Args:
        padding: pixels added on every side.
        mode: of `torch.nn.functional.pad`: "constant" pads with zeros, "reflect" mirrors the
            border.

    Returns:
        A function of images [B, C, H, W] and a generator, which gives new images of that shape. It
        raises ValueError for images of another shape.

    Raises:
        ValueError: for padding below 1.

    Example:
        >>> x = torch.ones(5, 3, 8, 8)
        >>> cropped = crop(2)(x, torch.Generator().manual_seed(0))
        >>> list(cropped.shape), bool((cropped.sum(dim=(2, 3)) >= 6 * 6).all())  # 6 x 6 stay
        ([5, 3, 8, 8], True)
    """
    if padding < 1:
        raise ValueError(f"padding is {padding}; a crop needs at least 1 pixel to move by.")

    def cropped(x: Tensor, generator: torch.Generator) -> Tensor:
        """Images, each moved by up to `padding` pixels in both directions."""
        down, right = torch.randint(
            2 * padding + 1, (2, _images(x), 1), generator=generator, device=x.device
        )
        rows = down + torch.arange(x.shape[2], device=x.device)
        columns = right + torch.arange(x.shape[3], device=x.device)
        image = torch.arange(len(x), device=x.device)[:, None, None]
        padded = F.pad(x, (padding,) * 4, mode=mode)
        # Indices around a slice put its dimension last: [B, H, W, C].
        window = padded[image, :, rows[:, :, None], columns[:, None, :]]
        return window.permute(0, 3, 1, 2).contiguous(memory_format=_format(x))

    return cropped


def cutout(size: int) -> Augment:
    """Set a square of pixels to 0 in each image.

    Its centre is any pixel, so that at the border a part of the square may lie outside.

    Args:
        size: side of the square in pixels.

    Returns:
        A function of images [B, C, H, W] and a generator, which gives new images of that shape. It
        raises ValueError for images of another shape.

    Raises:
        ValueError: for a size below 1.

    Source:
        DeVries and Taylor, "Improved regularization of convolutional neural networks with cutout",
        2017 (arXiv 1708.04552).

    Example:
        >>> x = torch.ones(100, 1, 8, 8)
        >>> holes = (cutout(4)(x, torch.Generator().manual_seed(0)) == 0).sum(dim=(1, 2, 3))
        >>> bool((holes <= 4 * 4).all() and (holes >= 2 * 2).all())  # in a corner a quarter is left
        True
    """
    if size < 1:
        raise ValueError(f"size is {size}; cutout needs at least 1 pixel.")

    def cut(x: Tensor, generator: torch.Generator) -> Tensor:
        """Images, each with a square of zeros."""
        count, inside = _images(x), []
        for length in x.shape[2:]:
            centre = torch.randint(length, (count, 1), generator=generator, device=x.device)
            start = centre - size // 2
            place = torch.arange(length, device=x.device)
            inside.append((place >= start) & (place < start + size))
        hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        return torch.where(hole, torch.zeros((), dtype=x.dtype, device=x.device), x)

    return cut


def compose(*steps: Augment) -> Augment:
    """One change after the other, all with the same generator.

    Args:
        steps: functions of images [B, C, H, W] and a generator, in the order in which they apply.

    Returns:
        A function of the same kind.

    Example:
        >>> augment = compose(flip, crop(1), cutout(2))
        >>> list(augment(torch.ones(5, 3, 8, 8), torch.Generator().manual_seed(0)).shape)
        [5, 3, 8, 8]
    """

    def composed(x: Tensor, generator: torch.Generator) -> Tensor:
        """Images after all steps."""
        for step in steps:
            x = step(x, generator)
        return x

    return composed


def _images(x: Tensor) -> int:
    """Number of images of a batch. ValueError for another shape."""
    if x.ndim != 4:
        raise ValueError(f"x has shape {tuple(x.shape)}; augmentation needs images [B, C, H, W].")
    return len(x)


def _format(x: Tensor) -> torch.memory_format:
    """The memory format of x: channels last where that is what it has, else contiguous."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format
