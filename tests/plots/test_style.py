"""The figures' style, colours and bands."""

import doctest
import itertools
import sys
import types

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")
import matplotlib.pyplot as plt

from mtl_course import plots
from mtl_course.plots import style


@pytest.fixture
def ax():
    with plt.rc_context():
        plots.use_style()
        figure, ax = plt.subplots()
        yield ax
        plt.close(figure)


def test_band_draws_mean_and_spread(ax):
    x, runs = [1, 2], [[1.0, 4.0], [3.0, 4.0], [2.0, 7.0]]
    line = plots.band(ax, x, runs, "joint", linestyle="--")
    assert np.allclose(line.get_ydata(), [2, 5])
    assert line.get_label() == "joint" and line.get_linestyle() == "--"
    assert line.get_marker() == style.MARKS[plots.COLORS[0]][0]
    [area] = ax.collections
    low, high = area.get_paths()[0].get_extents().intervaly
    assert (low, high) == pytest.approx((1.0, 5 + np.sqrt(3)))
    assert mpl.colors.same_color(area.get_facecolor()[0][:3], line.get_color())


def test_backgrounds_are_opaque_white_for_dark_pages(ax):
    ax.figure.canvas.draw()
    assert np.asarray(ax.figure.canvas.buffer_rgba())[0, 0].tolist() == [255] * 4


def test_lines_take_the_course_colors_in_turn(ax):
    drawn = [ax.plot([0, 1])[0].get_color() for _ in plots.COLORS]
    assert drawn == plots.COLORS


def linear(color):
    """Linear RGB of a colour, [3] in [0, 1] (sRGB, IEC 61966-2-1)."""
    rgb = np.array(mpl.colors.to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def test_first_colors_stand_out_from_white():
    luminances = [linear(color) @ [0.2126, 0.7152, 0.0722] for color in plots.COLORS[:3]]
    contrast = [1.05 / (luminance + 0.05) for luminance in luminances]
    assert min(contrast) >= 3, "WCAG 2.1, 1.4.11"


def test_colors_differ_for_a_deuteranope():
    # Machado, Oliveira and Fernandes (2009), deuteranomaly of severity 1
    seen = np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    )
    colors = [seen @ linear(color) for color in plots.COLORS]
    assert min(np.abs(a - b).max() for a, b in itertools.combinations(colors, 2)) > 0.1


def test_lines_differ_without_their_colours(ax):
    for color in plots.COLORS:
        plots.band(ax, [1, 2], [[1.0, 4.0], [3.0, 4.0]], color, color=color)
    looks = [(line.get_marker(), line._unscaled_dash_pattern) for line in ax.get_lines()]
    assert len({marker for marker, _ in looks}) == len({str(d) for _, d in looks}) == len(looks)


def test_only_plain_labelled_lines_get_a_dash(ax):
    plain, dashed, marked, unnamed = (
        ax.plot([0, 1], color=style.VERMILION, label="a")[0],
        ax.plot([0, 1], ":", color=style.VERMILION, label="b")[0],
        ax.plot([0, 1], "-o", color=style.VERMILION, label="c")[0],
        ax.plot([0, 1], color=style.VERMILION)[0],
    )
    plots.tell_apart(ax)
    seen = [line.get_linestyle() for line in (plain, dashed, marked, unnamed)]
    assert seen == ["--", ":", "-", "-"]


def test_a_notebook_stores_two_dots_per_pixel(monkeypatch):
    monkeypatch.delenv("MTL_COURSE_PHONE", raising=False)
    said = []
    shell = types.SimpleNamespace(kernel=object(), run_line_magic=lambda *words: said.append(words))
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    with plt.rc_context():
        plots.use_style()
        assert said == [("config", "InlineBackend.figure_format = 'retina'")]
        assert 2 * plt.rcParams["figure.dpi"] >= 200 and plt.rcParams["savefig.dpi"] >= 200
        shell.kernel = None
        plots.use_style()
    assert len(said) == 1


def test_the_examples_run():
    examples = doctest.testmod(style)
    assert examples.attempted and not examples.failed
