"""Common corruptions of images, computed on the fly: what a model meets that saw clean pictures.

Every function works on a whole batch, on the device of `x`, and draws from the generator, which
must live there too: the same state gives the same pictures.

Names after Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions
and perturbations", ICLR 2019, and Mu and Gilmer, "MNIST-C: a robustness benchmark for computer
vision", 2019 (rotate, translate).
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# Strength at severity 1 to 5. Noise and contrast as in ImageNet-C; blur and geometry are ours, in
# units that do not depend on the size.
STRENGTHS = {
    # standard deviation
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    # share of the values that become 0 or 1
    "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
    # standard deviation as a share of the image's side
    "gaussian_blur": (0.02, 0.03, 0.04, 0.06, 0.08),
    # what is left of the distance to the image's mean
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    # degrees, to either side
    "rotate": (10, 20, 30, 40, 50),
    # share of the side, in a random direction
    "translate": (0.05, 0.1, 0.15, 0.2, 0.25),
}


def corrupt(x: Tensor, name: str, severity: int, generator: torch.Generator) -> Tensor:
    """Corrupt images in one of six ways, mildly (severity 1) to strongly (5).

    Args:
        x: images [N, C, H, W], float in [0, 1].
        name: "gaussian_noise", "impulse_noise", "gaussian_blur", "contrast", "rotate" or
            "translate".
        severity: 1, 2, 3, 4 or 5; `STRENGTHS` has what that means.
        generator: on the device of x.

    Returns:
        New images of the same shape and range.

    Raises:
        ValueError: for another name or severity, or for images that are no floats [N, C, H, W].

    Source:
        Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and
        perturbations", ICLR 2019.

    Example:
        >>> x = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
        >>> faded = corrupt(x, "contrast", 1, torch.Generator())  # 0.4 of the contrast is left
        >>> [round(value, 2) for value in faded.flatten().tolist()]
        [0.3, 0.7]
    """
    if name not in STRENGTHS:
        raise ValueError(f"There is no corruption {name!r}; there are {', '.join(STRENGTHS)}.")
    if severity not in range(1, 6):
        raise ValueError(f"severity must be 1, 2, 3, 4 or 5; it is {severity!r}.")
    if not x.is_floating_point() or x.ndim != 4:
        raise ValueError(
            "Expected float images [N, C, H, W] in [0, 1],"
            f" got {x.dtype} of shape {tuple(x.shape)}."
        )
    kinds = {
        "gaussian_noise": gaussian_noise,
        "impulse_noise": impulse_noise,
        "gaussian_blur": gaussian_blur,
        "contrast": contrast,
        "rotate": rotate,
        "translate": translate,
    }
    return kinds[name](x, STRENGTHS[name][severity - 1], generator)


def gaussian_noise(x: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    """Add normal noise to every value and clip to [0, 1]."""
    noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return (x + deviation * noise).clamp(0, 1)


def impulse_noise(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Set a share of the values to 0 or to 1, each as often as the other (salt and pepper)."""
    u = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return torch.where(u < share / 2, 0.0, torch.where(u < share, 1.0, x))


def gaussian_blur(x: Tensor, width: float, generator: torch.Generator | None = None) -> Tensor:
    """Blur with a Gaussian of standard deviation `width` x height. Nothing is drawn.

    Pixels beyond the edge are those of the edge.
    """
    sigma = width * x.shape[2]
    radius = max(1, math.ceil(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    count, channels, rows, columns = x.shape
    flat = F.pad(x.reshape(count * channels, 1, rows, columns), (radius,) * 4, mode="replicate")
    flat = F.conv2d(F.conv2d(flat, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return flat.view(x.shape)


def contrast(x: Tensor, left: float, generator: torch.Generator | None = None) -> Tensor:
    """Draw every channel of an image towards its mean. Nothing is random.

    A share `left` of the distance from the mean is left.
    """
    mean = x.mean(dim=(2, 3), keepdim=True)
    return (mean + left * (x - mean)).clamp(0, 1)


def rotate(x: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    """Turn every image by `degrees` about its centre, to either side as a coin falls."""
    coins = torch.randint(2, (len(x),), generator=generator, device=x.device).to(x.dtype)
    angle = math.radians(degrees) * (2.0 * coins - 1.0)
    cos, sin = angle.cos(), angle.sin()
    zero = torch.zeros_like(cos)
    return _move(x, [cos, -sin, zero], [sin, cos, zero])


def translate(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Shift every image by `share` of its side in a direction drawn at random."""
    angle = 2 * math.pi * torch.rand(len(x), generator=generator, device=x.device, dtype=x.dtype)
    one, zero = torch.ones_like(angle), torch.zeros_like(angle)
    shift = 2 * share  # the grid of `_move` goes from -1 to 1
    return _move(x, [one, zero, shift * angle.cos()], [zero, one, shift * angle.sin()])


def _move(x: Tensor, first_row: list[Tensor], second_row: list[Tensor]) -> Tensor:
    """Resample x [N, C, H, W] by affine maps, bilinearly; beyond the edge lies the edge.

    Each row of the 2 x 3 maps is three tensors [N].
    """
    affine = torch.stack([torch.stack(first_row, dim=1), torch.stack(second_row, dim=1)], dim=1)
    grid = F.affine_grid(affine, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
