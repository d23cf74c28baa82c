"""A figure of one panel has a narrower drawing for phones, with words that can be read there."""

import base64
import io

import matplotlib.pyplot as plt
import pytest
from IPython.core.formatters import PNGFormatter
from PIL import Image

from mtl_course import plots
from mtl_course.plots import phone, style

DPI = 110


@pytest.fixture(autouse=True)
def defaults():
    with plt.rc_context():
        plots.use_style()
        yield
        plt.close("all")


def drawn(figsize=(7, 3.4), title="A title", **legend):
    figure, ax = plt.subplots(figsize=figsize)
    for k in range(3):
        ax.plot([1, 2, 3], [k, k, k], label=f"method {k}")
    ax.set(title=title, xlabel="steps", ylabel="loss")
    ax.legend(**{"fontsize": 8, **legend})
    return figure


def sizes(figure):
    return [text.get_fontsize() for text in phone._words(figure)]


def on_a_phone(figure) -> float:
    """The smallest letters in pixels, where the picture takes the width of a phone."""
    return min(sizes(figure)) / 72 * phone.ROOM / figure.get_figwidth()


def test_every_word_is_at_least_nine_pixels_high_and_the_figure_stays():
    figure = drawn()
    figure.draw_without_rendering()
    before = sizes(figure)
    assert on_a_phone(figure) < 6
    narrow = phone.twin(figure, DPI)
    assert on_a_phone(narrow) >= 9 - 1e-9
    assert narrow.get_figwidth() * DPI <= phone.WIDE
    assert sizes(figure) == before and figure.get_figwidth() == 7
    assert plt.get_fignums() == [figure.number], "pyplot knows no second figure"


def test_ticks_that_come_later_are_as_large():
    narrow = phone.twin(drawn(), DPI)
    narrow.axes[0].set_xlim(0, 50)
    narrow.draw_without_rendering()
    assert on_a_phone(narrow) >= 9 - 1e-9


def test_a_long_title_goes_on_in_a_second_line():
    narrow = phone.twin(
        drawn(title="A title that takes the whole width of a figure this wide"), DPI
    )
    title = narrow.axes[0]._left_title
    assert "\n" in title.get_text()
    assert title.get_window_extent().x1 <= narrow.bbox.width


def test_a_wide_legend_takes_fewer_columns():
    figure = drawn()
    ax = figure.axes[0]
    for line in ax.get_lines():
        line.set_label(f"{line.get_label()} with a name")
    ax.legend(ncols=3, fontsize=8)
    legend = phone.twin(figure, DPI).axes[0].get_legend()
    assert legend._ncols < 3 and len(legend.get_texts()) == 3


def test_names_that_stand_aslant_do_not_run_into_each_other():
    figure, ax = plt.subplots(figsize=(7, 3.2))
    ax.bar(range(10), range(10))
    ax.set_xticks(range(10), [f"method\nno {k}" for k in range(10)], rotation=30, fontsize=8)
    narrow = phone.twin(figure, DPI)
    assert {label.get_rotation() for label in narrow.axes[0].get_xticklabels()} == {90}
    assert phone._collisions(narrow) == 0


def test_words_that_would_run_into_each_other_are_left_as_they_are():
    figure, ax = plt.subplots(figsize=(7, 3))
    for k in range(12):
        ax.text(k / 12, 0.5, "abcdefgh", fontsize=8, transform=ax.transAxes)
    assert phone._collisions(figure) == 0
    assert phone.twin(figure, DPI) is None and phone.letters(figure, DPI) == 0


@pytest.mark.parametrize("columns, figsize", [(1, (5.4, 3)), (2, (8, 3))])
def test_what_reads_as_it_is_and_what_the_book_cuts_has_none(columns, figsize):
    figure, _ = plt.subplots(1, columns, figsize=figsize)
    assert phone.twin(figure, DPI) is None


def test_a_scale_of_colours_is_no_second_panel():
    figure, ax = plt.subplots(figsize=(7, 3))
    figure.colorbar(ax.imshow([[1, 2], [3, 4]]), ax=ax)
    assert phone.twin(figure, DPI) is not None


def test_a_notebook_stores_both():
    formatter = PNGFormatter()

    def plain(figure):
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=DPI)
        return base64.b64encode(out.getvalue()).decode(), {"width": 1, "height": 1}

    formatter.for_type(plt.Figure, plain)
    style._store_for_phones(formatter)
    _, about = formatter.lookup_by_type(plt.Figure)(drawn())
    narrow = Image.open(io.BytesIO(base64.b64decode(about["phone"])))
    assert narrow.width <= phone.WIDE and about["width"] == 1
    _, about = formatter.lookup_by_type(plt.Figure)(drawn(figsize=(5, 3)))
    assert set(about) == {"width", "height"}


def test_words_of_a_slider_are_as_large(monkeypatch):
    from mtl_course.plots import sliders

    seen = []
    picture = sliders._picture
    monkeypatch.setattr(
        sliders, "_picture", lambda f, *rest: seen.append(on_a_phone(f)) or picture(f, *rest)
    )
    sliders._output(lambda k: drawn((5.6, 3)), [1, 2], "k", "{value}")
    assert len(seen) == 2 and min(seen) >= 9 - 1e-9
