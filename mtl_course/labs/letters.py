"""Pictures of letters for the labs: printed ones, and as if written by hand."""

from functools import cache

import torch
from torch.nn import functional as F

from .. import data

SIDE = 16  # pixels


@cache
def printed() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[str], list[str]]:
    """All printed letters: pictures, letters, faces, and what these are called.

    Returns:
        (pictures [3204, 16, 16], ink 1; letter [3204]; face [3204]; the script of each letter;
        the name of each face). Copy what you give away.
    """
    glyphs = data.load("glyphs")
    scripts = [str(glyphs.script_names[s]) for s in glyphs.scripts]
    x, y, font = (torch.tensor(glyphs[name]) for name in ("x", "y", "font"))
    return small(x), y, font, scripts, [str(name) for name in glyphs.font_names]


def small(x: torch.Tensor) -> torch.Tensor:
    """Grey values of 0 to 255, [N, H, W], as pictures [N, 16, 16] of 0 to 1."""
    return F.interpolate(x[:, None].float() / 255, size=(SIDE, SIDE), mode="area")[:, 0]


def written(x: torch.Tensor, generator: torch.Generator, strength: float = 1.0) -> torch.Tensor:
    """The pictures turned, slanted, scaled, moved, and with noise: no two are the same."""
    flat = x.reshape(-1, SIDE, SIDE)

    def uniform(low, high):
        return low + (high - low) * torch.rand(len(flat), generator=generator)

    turn, slant = uniform(-0.45, 0.45) * strength, uniform(-0.35, 0.35) * strength
    wide = 1 + (uniform(0.8, 1.3) - 1) * strength
    high = 1 + (uniform(0.8, 1.3) - 1) * strength
    across, down = uniform(-0.2, 0.2) * strength, uniform(-0.2, 0.2) * strength
    cos, sin = turn.cos(), turn.sin()
    first = torch.stack([wide * cos, wide * (slant * cos - sin), across], 1)
    second = torch.stack([high * sin, high * (slant * sin + cos), down], 1)
    grid = F.affine_grid(torch.stack([first, second], 1), [len(flat), 1, SIDE, SIDE], False)
    moved = F.grid_sample(flat[:, None], grid, align_corners=False)[:, 0]
    noise = 0.15 * torch.randn(moved.shape, generator=generator)
    return (moved + noise).clamp(0, 1).reshape(x.shape)
