"""Figures of the course: one style, colours for everybody, and curves with their spread."""

import matplotlib.pyplot as plt
import numpy as np

# Okabe and Ito's palette (2008), which survives colour blindness, without its yellow, which is too
# light on white.
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
BLUE, VERMILION, GREEN, PURPLE, SKY, AMBER, BLACK = COLORS

# One meaning per colour through the book, in plots and drawings alike.
ROLES = {
    "shared": BLUE,  # what all tasks share, and joint training; the method that a chapter teaches
    "single": BLACK,  # doing without: single-task, from scratch, nothing adapted
    "pooled": AMBER,  # one model for all, as if there were one task
    "source": SKY,
    "target": VERMILION,
    "frozen": "#767676",
}
# The tasks of a multi-task problem, in their order; a fourth and more take what COLORS has left.
TASKS = [VERMILION, GREEN, PURPLE, AMBER, SKY]


def use_style() -> None:
    """Set matplotlib's defaults for the course.

    The background is opaque, so that figures read in dark mode too.
    """
    plt.rcParams.update(
        {
            "axes.prop_cycle": plt.cycler(color=COLORS),
            "axes.grid": True,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "axes.titlelocation": "left",
            "axes.titleweight": "bold",
            "figure.constrained_layout.use": True,
            "figure.dpi": 110,
            "figure.facecolor": "white",
            "figure.figsize": (7.0, 3.6),
            "grid.alpha": 0.3,
            "legend.frameon": False,
            "savefig.facecolor": "white",
        }
    )


def band(ax, x, runs, label: str, **line):
    """Draw the mean over runs as a line and ± one standard deviation as a band.

    Args:
        ax: matplotlib's axes to draw on.
        x: [N], places along the horizontal axis.
        runs: [R, N], one row per seed; two rows or more.
        label: of the line, for a legend.
        line: keyword arguments of `ax.plot`.

    Returns:
        The line.

    Example:
        >>> figure, ax = plt.subplots()
        >>> line = band(ax, [1, 2], [[1.0, 4.0], [3.0, 4.0]], "joint training")
        >>> line.get_ydata().tolist()
        [2.0, 4.0]
        >>> plt.close(figure)
    """
    runs = np.asarray(runs, dtype=float)
    mean, spread = runs.mean(axis=0), runs.std(axis=0, ddof=1)
    (drawn,) = ax.plot(x, mean, label=label, **{"marker": "o", "markersize": 4, **line})
    low, high = mean - spread, mean + spread
    ax.fill_between(x, low, high, color=drawn.get_color(), alpha=0.18, linewidth=0)
    return drawn
