"""Common corruptions of images, computed on the fly: what a model meets that was tuned on clean
pictures.

Names after Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions
and perturbations", ICLR 2019, and Mu and Gilmer, "MNIST-C: a robustness benchmark for computer
vision", 2019 (rotate, translate). Every function works on a whole batch, on the device of `x`, and
draws from the generator, which must live there too: the same state gives the same pictures.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# Strength at severity 1 to 5. Noise and contrast as in ImageNet-C; blur and geometry are ours, in
# units that do not depend on the size.
STRENGTHS = {
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),  # standard deviation
    "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),  # share of the values that become 0 or 1
    "gaussian_blur": (
        0.02,
        0.03,
        0.04,
        0.06,
        0.08,
    ),  # standard deviation as a share of the image's side
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),  # what is left of the distance to the image's mean
    "rotate": (10, 20, 30, 40, 50),  # degrees, to either side
    "translate": (0.05, 0.1, 0.15, 0.2, 0.25),  # share of the side, in a random direction
}


def corrupt(x: Tensor, name: str, severity: int, generator: torch.Generator) -> Tensor:
    """Corrupt images x [N, C, H, W], float in [0, 1], by the corruption `name` at severity 1 to 5;
    new images of the same shape and range.

    Names: the keys of STRENGTHS. ValueError for another name or severity, or for pixels that are no
    floats.
    """
    if name not in STRENGTHS:
        raise ValueError(f"There is no corruption {name!r}; there are {', '.join(STRENGTHS)}.")
    if severity not in range(1, 6):
        raise ValueError(f"severity must be 1, 2, 3, 4 or 5; it is {severity!r}.")
    if not x.is_floating_point() or x.ndim != 4:
        raise ValueError(
            f"Expected float images [N, C, H, W] in [0, 1], got {x.dtype} of shape"
            f" {tuple(x.shape)}."
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
    return (x + deviation * _normal(x, generator)).clamp(0, 1)


def impulse_noise(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Set a share of the values to 0 or 1, as often to the one as to the other (salt and pepper)."""
    u = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return torch.where(u < share / 2, 0.0, torch.where(u < share, 1.0, x))


def gaussian_blur(x: Tensor, width: float, generator: torch.Generator | None = None) -> Tensor:
    """Blur with a Gaussian of standard deviation `width` x height; pixels beyond the edge are those
    of the edge. Nothing is drawn.
    """
    sigma = width * x.shape[2]
    radius = max(1, math.ceil(3 * sigma))
    kernel = torch.exp(
        -0.5 * (torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype) / sigma) ** 2
    )
    kernel = kernel / kernel.sum()
    n, channels, height, width_ = x.shape
    flat = F.pad(x.reshape(n * channels, 1, height, width_), (radius,) * 4, mode="replicate")
    flat = F.conv2d(F.conv2d(flat, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return flat.view(x.shape)


def contrast(x: Tensor, left: float, generator: torch.Generator | None = None) -> Tensor:
    """Draw every channel of an image towards its mean: a share `left` of the distance is left.
    Nothing is drawn.
    """
    mean = x.mean(dim=(2, 3), keepdim=True)
    return (mean + left * (x - mean)).clamp(0, 1)


def rotate(x: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    """Turn every image by `degrees` about its centre, to the left or to the right as a coin falls."""
    angle = math.radians(degrees) * _signs(len(x), x, generator)
    cos, sin = angle.cos(), angle.sin()
    zero = torch.zeros_like(cos)
    return _move(
        x,
        torch.stack(
            [torch.stack([cos, -sin, zero], dim=1), torch.stack([sin, cos, zero], dim=1)], dim=1
        ),
    )


def translate(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Shift every image by `share` of its side in a direction drawn at random."""
    angle = 2 * math.pi * torch.rand(len(x), generator=generator, device=x.device, dtype=x.dtype)
    one, zero = torch.ones_like(angle), torch.zeros_like(angle)
    shift = 2 * share  # the grid of `_move` goes from -1 to 1
    return _move(
        x,
        torch.stack(
            [
                torch.stack([one, zero, shift * angle.cos()], dim=1),
                torch.stack([zero, one, shift * angle.sin()], dim=1),
            ],
            dim=1,
        ),
    )


def _move(x, affine):
    """Resample x [N, C, H, W] by affine maps [N, 2, 3], bilinearly; beyond the edge lies the edge."""
    grid = F.affine_grid(affine, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _normal(x, generator):
    return torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)


def _signs(n, like, generator):
    return (
        2.0 * torch.randint(2, (n,), generator=generator, device=like.device).to(like.dtype) - 1.0
    )
