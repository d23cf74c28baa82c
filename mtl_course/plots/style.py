"""Figures of the course: one style, colours for everybody, and curves with their spread."""

import os
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

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
# A colour's marker and dash: lines are told apart in grey too, and alike in every panel.
MARKS = {
    BLUE: ("o", "-"),
    VERMILION: ("s", "--"),
    GREEN: ("^", "-."),
    PURPLE: ("D", (0, (4, 1.5, 1, 1.5, 1, 1.5))),
    SKY: ("v", (0, (6, 1.5))),
    AMBER: ("P", (0, (2, 1))),
    BLACK: ("X", ":"),
    ROLES["frozen"]: ("d", (0, (1, 2.5))),
}


def use_style() -> None:
    """Set matplotlib's defaults for the course.

    The background is opaque, so that figures read in dark mode too. Words are large enough for a
    figure on a phone. A notebook stores its figures with two dots per pixel of the page.
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
            "figure.figsize": (6.4, 3.5),
            "font.size": 11.5,
            "axes.titlesize": 11.5,
            "axes.labelsize": 11.5,
            "axes.axisbelow": True,
            "xtick.labelsize": 10.5,
            "ytick.labelsize": 10.5,
            "legend.fontsize": 10.5,
            "grid.alpha": 0.3,
            "legend.frameon": False,
            "lines.linewidth": 1.8,
            "savefig.dpi": 220,
            "savefig.facecolor": "white",
        }
    )
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if getattr(shell, "kernel", None) is not None:
        # Twice as many dots on the same width: the output says how wide it is to be shown.
        shell.run_line_magic("config", "InlineBackend.figure_format = 'retina'")
        if os.environ.get("MTL_COURSE_PHONE") == "1":
            plt.switch_backend(mpl.get_backend())  # sets its printer of figures, else in due course
            _store_for_phones(shell.display_formatter.formatters["image/png"])


def _store_for_phones(formatter) -> None:
    """Let a notebook's output hold, in its metadata, each figure as a phone shows it as well."""
    from .phone import twin

    plain = formatter.lookup_by_type(Figure)

    def both(figure):
        stored = plain(figure)
        if stored is not None and (narrow := twin(figure, figure.dpi)) is not None:
            picture, size = stored
            stored = picture, {**size, "phone": plain(narrow)[0]}
        return stored

    formatter.for_type(Figure, both)


def marks(color) -> tuple:
    """The marker and the dash of a colour of the course; those of black for any other."""
    for known, pair in MARKS.items():
        if mpl.colors.same_color(known, color):
            return pair
    return MARKS[BLACK]


def tell_apart(ax) -> None:
    """Give the labelled plain lines of a plot the dash of their colour.

    A line that has a dash or a marker already keeps it, and so does one without a label. Call it
    before the legend is made.

    Args:
        ax: matplotlib's axes, with its lines.

    Example:
        >>> figure, ax = plt.subplots()
        >>> lines = [ax.plot([0, 1], color=color, label=color)[0] for color in COLORS[:2]]
        >>> tell_apart(ax)
        >>> [line.get_linestyle() for line in lines]
        ['-', '--']
        >>> plt.close(figure)
    """
    for line in ax.get_lines():
        labelled = not line.get_label().startswith("_")
        if labelled and line.get_linestyle() == "-" and line.get_marker() in ("None", ""):
            line.set_linestyle(marks(line.get_color())[1])


def band(ax, x, runs, label: str, **line):
    """Draw the mean over runs as a line and ± one standard deviation as a band.

    The line has the marker and the dash of its colour, unless it is given others.

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
    (drawn,) = ax.plot(x, mean, label=label, **{"markersize": 4.5, **line})
    marker, dash = marks(drawn.get_color())
    if "marker" not in line:
        drawn.set_marker(marker)
    if not {"linestyle", "ls"} & set(line):
        drawn.set_linestyle(dash)
    low, high = mean - spread, mean + spread
    ax.fill_between(x, low, high, color=drawn.get_color(), alpha=0.18, linewidth=0)
    return drawn
