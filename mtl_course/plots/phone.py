"""A figure drawn a second time, for a phone, whose page is half as wide.

Shrunk to a phone, the words of a figure of 7 inches would be 6 pixels high. The command
`python -m mtl_course.dev execute` therefore stores a narrower drawing of the same figure beside it,
with larger words, and the book shows that one on a phone (book/_ext/panels.py). Panels beside each
other need none: the book sets them below each other.
"""

import itertools
import pickle
import textwrap

from matplotlib.legend import Legend
from matplotlib.text import Text

WIDE = (
    600  # pixels of the page, as in book/_ext/panels.py; what is narrower reads on a phone as it is
)
ROOM = 344  # pixels that a figure has on a phone of 390, with its frame in dark mode
LEAST = 9  # pixels that a letter's size has on a phone, at least
INCHES = 5.35
TALLER = (1.08, 1.3)  # times the height, tried in turn


def twin(figure, dpi: float):
    """The figure as a phone shows it: a narrow copy, whose words are large enough and apart.

    Args:
        figure: matplotlib's; it stays as it is.
        dpi: pixels of the page per inch of the figure.

    Returns:
        A new figure, which pyplot does not know; None if this one needs no other, has panels beside
        each other or cannot be copied, or its words would run into each other.
    """
    if figure.get_figwidth() * dpi <= WIDE or _columns(figure) > 1:
        return None
    before = _collisions(figure)
    for taller in TALLER:
        copy = _copy(figure)
        if copy is None:
            return None
        copy.set_size_inches(min(INCHES, WIDE / dpi), figure.get_figheight() * taller)
        least = LEAST / ROOM * copy.get_figwidth() * 72  # in points
        enlarge(copy, least)
        _wrap(copy)
        _stack_legends(copy)
        if _collisions(copy) <= before:
            return copy
    return None


def letters(figure, dpi: float) -> float:
    """The size in points that a figure's words need on a phone; 0 if larger ones have no room.

    Args:
        figure: matplotlib's; it stays as it is.
        dpi: pixels of the page per inch of the figure.
    """
    least = LEAST / ROOM * figure.get_figwidth() * 72
    if figure.get_figwidth() * dpi <= ROOM or (copy := _copy(figure)) is None:
        return 0
    before = _collisions(figure)
    enlarge(copy, least)
    return least if _collisions(copy) <= before else 0


def _columns(figure) -> int:
    """How many panels stand beside each other; a scale of colours is none."""
    figure.draw_without_rendering()
    panels = [ax for ax in figure.axes if ax.axison and not hasattr(ax, "_colorbar")]
    boxes = sorted((ax.get_position().x0, ax.get_position().x1) for ax in panels)
    many, end = 0, -1.0
    for begin, stop in boxes:
        many, end = (many + 1, stop) if begin >= end else (many, min(end, stop))
    return many


def _copy(figure):
    """The figure anew; None if something in it, such as a function, cannot be copied."""
    manager, figure.canvas.manager = figure.canvas.manager, None  # else pyplot would take it up
    try:
        copy = pickle.loads(pickle.dumps(figure))
    except (pickle.PicklingError, AttributeError, TypeError):
        return None
    finally:
        figure.canvas.manager = manager
    return copy


def enlarge(figure, least: float) -> None:
    """No word smaller than this, in points."""
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            for which in ("major", "minor"):  # a tick that is yet to come has the size as well
                labels = axis.get_ticklabels(which=which)
                size = max([least, *(label.get_fontsize() for label in labels)])
                axis.set_tick_params(which=which, labelsize=size)
                for label in labels:
                    if label.get_rotation() % 90:  # aslant they would run into each other
                        label.set(rotation=90, rotation_mode="default", ha="center")
    for text in figure.findobj(Text):
        text.set_fontsize(max(text.get_fontsize(), least))
    for legend in figure.findobj(Legend):  # it has less room beside the lines
        legend.set_frame_on(True)
        legend.get_frame().set(facecolor="white", edgecolor="none", alpha=0.75)


def _wrap(figure) -> None:
    """Titles and names of axes that are longer than the figure in lines that are not."""
    figure.draw_without_rendering()
    wide = figure.bbox.width
    lines = [figure._suptitle]
    for ax in figure.axes:
        lines += [ax.title, ax._left_title, ax._right_title, ax.xaxis.label]
    for text in lines:
        if text is None or not text.get_text() or "$" in text.get_text():
            continue
        box = text.get_window_extent()
        if box.x1 > wide or box.x0 < 0:
            room = wide - max(box.x0, 0)
            fits = max(int(len(text.get_text()) * room / box.width) - 1, 8)
            text.set_text(textwrap.fill(text.get_text(), fits))


def _stack_legends(figure) -> None:
    """A legend that is wider than its axes in fewer columns."""
    figure.draw_without_rendering()
    for ax in figure.axes:
        old = ax.get_legend()
        while old is not None and old._ncols > 1:
            room = ax.get_window_extent()
            box = Legend.get_window_extent(old)
            if box.x0 >= room.x0 - 2 and box.x1 <= room.x1 + 2:
                break
            handles, names = ax.get_legend_handles_labels()
            if names != [text.get_text() for text in old.get_texts()]:
                break  # made by hand
            size, columns = old.get_texts()[0].get_fontsize(), old._ncols - 1
            ax.legend(handles, names, fontsize=size, ncols=columns, loc=old._loc)
            old = ax.get_legend()
            figure.draw_without_rendering()


def _collisions(figure) -> int:
    """How many words run into others, or out of the figure."""
    figure.draw_without_rendering()
    words = [text for text in _words(figure) if text.get_rotation() % 90 == 0]
    boxes = [Text.get_window_extent(text) for text in words]
    slack = 0.02 * figure.dpi
    many = sum(
        a.x0 + slack < b.x1 and b.x0 + slack < a.x1 and a.y0 + slack < b.y1 and b.y0 + slack < a.y1
        for a, b in itertools.combinations(boxes, 2)
    )
    edge = 8 * slack
    return many + sum(box.x0 < -edge or box.x1 > figure.bbox.width + edge for box in boxes)


def _words(figure) -> list:
    """The texts that show, of ticks only those within their axes."""
    labels, shown = set(), []
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                labels |= {tick.label1, tick.label2}
            if ax.axison and ax.get_visible():
                for tick in axis._update_ticks():
                    shown += [tick.label1, tick.label2]
    shown += [text for text in figure.findobj(Text) if text not in labels]
    return [text for text in shown if text.get_visible() and text.get_text().strip()]
