"""Colours in light and dark, and letters: their markup and how wide they are."""

import re
from functools import cache
from pathlib import Path

from ..plots.style import ROLES, TASKS

LIGHT = {
    "ink": "#1a1a1a",
    "soft": "#5f5f5f",
    "paper": "#ffffff",
    **ROLES,
    **{f"task{t}": colour for t, colour in enumerate(TASKS[:4], 1)},
}
DARK = {
    "ink": "#ececec",
    "soft": "#b0b0b0",
    "paper": "var(--pst-color-background,var(--colab-primary-surface-color,"
    "var(--jp-layout-color0,#14181e)))",
    "shared": "#4aa3e8",
    "single": "#ececec",
    "pooled": "#f0b23c",
    "source": "#a5dbfa",
    "target": "#f5823f",
    "frozen": "#a0a0a0",
    "task1": "#f5823f",
    "task2": "#2cc598",
    "task3": "#e09cc3",
    "task4": "#f0b23c",
}
SIZE, SMALL = 16, 14
FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"


def style() -> str:
    """The rules that every drawing carries: light by default, dark where a page says so."""
    light = "".join(f".mtl-{r}{{color:var(--mtl-{r},{c})}}" for r, c in LIGHT.items())
    dark = "".join(f"--mtl-{r}:{c};" for r, c in DARK.items())
    pages = "html[data-theme=dark],html[theme=dark],[data-jp-theme-light=false],body.vscode-dark"
    return (
        f".mtl-svg{{color:var(--mtl-ink,{LIGHT['ink']});max-width:100%;height:auto}}{light}"
        f"@media screen{{{','.join(f'{page} .mtl-svg' for page in pages.split(','))}{{{dark}}}}}"
    )


@cache
def _advances() -> tuple[dict, int]:
    """Widths of DejaVu Sans, the widest font that a reader may have: what fits in it fits."""
    import matplotlib
    from fontTools.ttLib import TTFont

    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    with TTFont(path) as font:
        glyphs, widths = font.getBestCmap(), font["hmtx"].metrics
        return {code: widths[glyph][0] for code, glyph in glyphs.items()}, font["head"].unitsPerEm


def pieces(label: str) -> list[tuple[str, str, bool]]:
    """The markup's runs: (text, "" or "_" or "^", italic or not)."""
    found, italic = [], False
    for raised, group, single, star, plain in re.findall(
        r"([_^])(?:\{([^}]*)\}|(.))|(\*)|([^_^*]+)", label
    ):
        if star:
            italic = not italic
        else:
            found.append((group or single or plain, raised, italic and not raised))
    return found


def raised_size(size: float) -> float:
    """Size of sub- and superscripts; they stay legible on a phone."""
    return max(0.75 * size, 12)


def measure(label: str, size: float = SIZE, bold: bool = False) -> float:
    """Width of one line of markup."""
    widths, unit = _advances()
    total = sum(
        widths.get(ord(c), unit) * (raised_size(size) / size if raised else 1)
        for text, raised, _ in pieces(label)
        for c in text
    )
    return total / unit * size * (1.17 if bold else 1)
