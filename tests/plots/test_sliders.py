"""Sliders: their frames, their text, their size, and how they move in a browser."""

import base64
import doctest
import html
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")
import matplotlib.pyplot as plt
from PIL import Image

from mtl_course import plots
from mtl_course.dev import browser
from mtl_course.plots import sliders

SLOPES = [0.5, 1.0, 2.0, 4.0]
ALT = "a line of slope {value} & <more>"


def line(slope, size=(4, 2)):
    figure, ax = plt.subplots(figsize=size)
    ax.plot([0, 1], [0, slope])
    ax.set_ylim(0, 4)
    return figure


def output(draw=line, values=SLOPES, label="slope β", alt=ALT, **options):
    return sliders._output(draw, values, label, alt, **options)


class Elements(HTMLParser):
    """The elements of a page, as (tag, attributes), and its text by tag."""

    def __init__(self, page):
        super().__init__()
        self.all, self.text, self.open = [], {}, []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.all.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        key = self.open[-1] if self.open else ""
        self.text[key] = self.text.get(key, "") + data

    def first(self, tag):
        return next(attributes for name, attributes in self.all if name == tag)


def pictures(page):
    """The frames of a slider in order, as PIL images: the page's own and those in the script."""
    shown = Elements(page).first("img")["src"].removeprefix("data:image/png;base64,")
    stored = re.search(r"const frames = (\[.*?\]), texts", page)[1]
    frames = re.findall(r'null|"([\w+/=]+)"', stored)
    return [Image.open(io.BytesIO(base64.b64decode(frame or shown))) for frame in frames]


def test_one_palette_picture_per_value_on_one_canvas():
    frames = pictures(output(dpi=100).html)
    assert [(frame.mode, frame.size) for frame in frames] == [("P", (400, 200))] * 4
    assert len({frame.tobytes() for frame in frames}) == 4
    assert frames[0].convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_a_tight_setting_does_not_cut_the_pictures():
    with plt.rc_context({"savefig.bbox": "tight"}):
        frames = pictures(output(dpi=100).html)
    assert {frame.size for frame in frames} == {(400, 200)}


def test_a_small_mark_keeps_its_colour():
    def marks(_):
        figure, ax = plt.subplots(figsize=(7, 3.4))
        for place, colour in enumerate(plots.COLORS):
            ax.plot(np.sin(np.arange(50) + place), "o", color=plots.COLORS[0], alpha=0.7)
            ax.plot(10 * place, 2, "s", color=colour)
        return figure

    with plt.rc_context():
        plt.rcdefaults()  # whatever another test has set
        here = np.asarray(pictures(output(marks, [1, 2]).html)[0].convert("RGB")).astype(int)
    for colour in plots.COLORS:
        wanted = np.array(mpl.colors.to_rgb(colour)) * 255
        assert (np.abs(here - wanted).max(axis=2) <= 4).sum() > 60, colour


def test_pictures_stand_in_the_order_of_the_values():
    def shade(level):
        figure = plt.figure(figsize=(1, 1), facecolor="white")
        figure.add_axes([0, 0, 1, 1], facecolor=str(level)).set(xticks=[], yticks=[])
        return figure

    frames = pictures(output(shade, [0.9, 0.1, 0.5], start=1, dpi=50).html)
    assert [round(f.convert("L").getpixel((25, 25)) / 255, 1) for f in frames] == [0.9, 0.1, 0.5]


def test_control_label_and_first_frame():
    page = Elements(output(start=2).html)
    dial, image = page.first("input"), page.first("img")
    assert (dial["type"], dial["min"], dial["max"], dial["value"]) == ("range", "0", "3", "2")
    assert dial["aria-valuetext"] == "2" and page.first("label")["for"] == dial["id"]
    assert page.text["label"] == "slope β"
    assert image["alt"] == "a line of slope 2 & <more>"
    assert (image["width"], image["height"]) == ("384", "192")  # 4 by 2 inches, at any resolution


def test_without_scripts_the_dial_is_hidden_and_the_page_says_why():
    page = Elements(output().html)
    hidden = [attributes for _, attributes in page.all if "hidden" in attributes]
    assert {attributes["class"] for attributes in hidden} == {"name", "dial"}
    assert "disabled" in page.first("input")
    assert "One of 4 pictures, for slope β = 0.5." in page.text["p"]


def test_every_frame_has_a_text_of_its_own():
    for alt in (ALT, lambda slope: f"a line of slope {slope:g} & <more>"):
        told = re.search(r"alts = (\[.*?\]);", output(alt=alt).html)[1]
        assert told.count("a line of slope") == 4
        for slope in ("0.5", "1", "2", "4"):
            assert f"a line of slope {slope} & \\u003cmore>" in told


@pytest.mark.parametrize("alt", ["a line", "", lambda slope: "", lambda slope: "always so"])
def test_texts_that_do_not_tell_frames_apart_are_refused(alt):
    with pytest.raises(ValueError, match="what it shows"):
        output(alt=alt)


@pytest.mark.parametrize(
    ("values", "text", "shown"),
    [
        ([1, 10], "", "slope β = 1"),
        ([0.1, 1e-6], "", "slope β = 0.1"),
        ([float("inf"), 1], "", "slope β = ∞"),
        (["low", "high"], "", "slope β: low"),
        ([(1, 2), (3, 4)], "", "slope β = (1, 2)"),
        ([0.25, 0.5], "{:.0%}", "slope β = 25%"),
        ([0.25, 0.5], lambda value: f"{value} m", "slope β = 0.25 m"),
        (np.array([1.5, 2.5]), "", "slope β = 1.5"),
    ],
)
def test_values_are_written_as_asked(values, text, shown):
    shown_by = output(lambda _: line(1), values, text=text)
    assert f", for {shown}." in html.unescape(shown_by.html)
    assert shown_by.text.startswith(f"[slider] {shown}: a line of slope ")


def test_plain_text_says_that_there_is_more():
    text = output().text
    assert "The other pictures, up to slope β = 4, show in" in text
    assert max(map(len, text.split("\n"))) <= 76


def test_draws_on_the_current_figure_too_and_leaves_no_figure_open():
    mine = plt.figure()

    def here(slope):
        plt.plot([0, 1], [0, slope])

    before = plt.get_fignums()
    frames = pictures(output(here).html)
    assert len({frame.tobytes() for frame in frames}) == 4
    output()
    with pytest.raises(ZeroDivisionError):
        output(lambda slope: plt.plot([0, slope / 0]))
    assert plt.get_fignums() == before and not mine.axes
    plt.close(mine)


@pytest.mark.parametrize("count", [0, 1, 13])
def test_too_few_or_too_many_values(count):
    with pytest.raises(ValueError, match=f"2 to 12 values, and these are {count}"):
        output(values=range(count))


@pytest.mark.parametrize("start", [-1, 4])
def test_start_outside(start):
    with pytest.raises(ValueError, match="no index of 4"):
        output(start=start)


def test_an_empty_picture_and_another_size_are_refused():
    with pytest.raises(ValueError, match=r"draw\(0\.5\) has drawn nothing"):
        output(lambda slope: None)
    with pytest.raises(ValueError, match=r"for 0\.5 is 4 by 2 inches, the one for 2 4 by 3 inches"):
        output(lambda slope: line(slope, (4, 3) if slope == 2 else (4, 2)))


@pytest.mark.slow
def test_too_large_says_how_large_and_what_to_do():
    noise = np.random.default_rng(0)

    def speckles(_):
        figure, ax = plt.subplots(figsize=(6, 4))
        ax.imshow(noise.random((400, 600)), aspect="auto")
        return figure

    with pytest.raises(ValueError, match=r"is \d{3,4} KB, and 400 KB are the limit: give it fewer"):
        output(speckles)
    small = output(lambda slope: line(slope, (7, 3.6)), values=range(1, 13))
    assert len(small.html.encode()) < 250_000, "lines on twelve frames fit easily"


def test_same_bytes_again_and_ids_of_their_own():
    one, again = output(), output()
    assert one.html == again.html
    pages = [one, output(label="slope γ"), output(values=SLOPES[::-1]), output(dpi=50)]
    ids = [Elements(page.html).first("figure")["id"] for page in pages]
    assert len(set(ids)) == 4 and all(re.fullmatch(r"slider-slope-[0-9a-f]{8}", i) for i in ids)


def test_nothing_is_asked_from_another_place_and_no_text_ends_the_script():
    page = output(alt="</script><b>{value}</b>", label="</script>").html
    assert page.count("</script>") == 1
    for address in re.findall(r'(?:src|href)="([^"]*)"|url\(|fetch|import|http', page):
        assert address.startswith("data:image/png;base64,")


def test_is_shown_as_html_and_text(monkeypatch):
    shown = []
    monkeypatch.setattr(sliders, "show", shown.append)
    plots.slider(line, SLOPES, "slope β", ALT)
    assert shown[0]._repr_html_() == output().html and repr(shown[0]) == output().text


def test_the_example_runs():
    ran = doctest.testmod(sliders)
    assert ran.attempted and not ran.failed


# ------------------------------------------------------------------------------------- in a browser
in_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(browser.missing() is not None, reason=f"{browser.missing()}"),
]


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield browser.launch(playwright)


@pytest.fixture
def reader(chromium):
    """Opens a page of a file in a browser without a network; nothing may go wrong on it."""
    wrong, contexts = [], []

    def opened(path, width=700, **options):
        context = chromium.new_context(viewport={"width": width, "height": 600}, **options)
        contexts.append(context)
        context.set_offline(True)
        page = context.new_page()
        page.on("console", lambda told: told.type == "error" and wrong.append(told.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request",
            lambda asked: (
                asked.url.startswith(("file:", "data:", "about:")) or wrong.append(asked.url)
            ),
        )
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def written(folder, body, name="page.html"):
    path = folder / name
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Sliders</title>'
        f"<main><h1>Sliders</h1>{body}</main></html>",
        encoding="utf-8",
    )
    return path


def moves(place, page):
    """Moves a slider by keyboard, in a page or a frame, and sees picture and label follow."""
    dial, image = place.locator("input"), place.locator("img")
    seen = [image.get_attribute("src")]
    assert place.locator("p.name").inner_text() == "slope β = 0.5"
    assert not place.locator(".note").count(), "the line for pages without scripts has gone"
    dial.focus()
    for key, value in [("ArrowRight", "1"), ("ArrowUp", "2"), ("End", "4"), ("Home", "0.5")]:
        page.keyboard.press(key)
        assert place.locator("p.name").inner_text() == f"slope β = {value}"
        assert dial.get_attribute("aria-valuetext") == value
        assert image.get_attribute("alt") == f"a line of slope {value} & <more>"
        assert image.evaluate("i => i.decode().then(() => [i.naturalWidth, i.width])") == [576, 384]
        seen.append(image.get_attribute("src"))
    assert len(set(seen)) == 4 and seen[0] == seen[-1]


class TestBrowser:
    pytestmark = in_browser

    def test_moves_by_keyboard_from_a_file(self, reader, tmp_path):
        page = reader(written(tmp_path, output().html))
        moves(page, page)

    def test_moves_in_the_sandboxed_frame_of_a_colab_output(self, reader, tmp_path):
        inside = html.escape(output().html)
        frame = (
            '<iframe title="output" width="600" height="400" sandbox="allow-scripts"'
            f' srcdoc="{inside}"></iframe>'
        )
        page = reader(written(tmp_path, frame))
        moves(page.frame_locator("iframe"), page)

    def test_moves_where_jupyterlab_runs_the_scripts_of_an_output(self, reader, tmp_path):
        # It sets innerHTML and then puts each script in once more; here two views of one output.
        page = reader(written(tmp_path, '<div class="view"></div><div class="view"></div>'))
        page.evaluate(
            """page => {
                for (const view of document.querySelectorAll(".view")) view.innerHTML = page;
                for (const old of document.querySelectorAll(".view script")) {
                    const script = document.createElement("script");
                    script.textContent = old.textContent;
                    old.replaceWith(script);
                }
            }""",
            output().html,
        )
        for view in page.locator(".view").all():
            moves(view, page)

    def test_two_of_a_page_move_apart(self, reader, tmp_path):
        page = reader(written(tmp_path, output().html + output(label="slope γ").html))
        page.locator("input").nth(1).focus()
        page.keyboard.press("End")
        told = [name.inner_text() for name in page.locator("p.name").all()]
        assert told == ["slope β = 0.5", "slope γ = 4"]

    def test_by_mouse(self, reader, tmp_path):
        page = reader(written(tmp_path, output().html))
        box = page.locator("input").bounding_box()
        page.mouse.click(box["x"] + box["width"] - 3, box["y"] + box["height"] / 2)
        assert page.locator("p.name").inner_text() == "slope β = 4"

    def test_first_picture_without_scripts(self, reader, tmp_path):
        page = reader(written(tmp_path, output().html), java_script_enabled=False)
        assert page.locator("img").is_visible() and page.locator(".note").is_visible()
        assert not page.locator("input").is_visible() and not page.locator("p.name").is_visible()

    def test_print_shows_picture_and_value_and_no_dial(self, reader, tmp_path):
        page = reader(written(tmp_path, output().html))
        page.emulate_media(media="print")
        assert page.locator("img").is_visible() and page.locator("p.name").is_visible()
        assert not page.locator("input").is_visible()

    def test_on_a_phone_words_stay_legible_and_the_picture_scrolls_alone(self, reader, tmp_path):
        wide = output(lambda slope: line(slope, (7, 3.5)), dpi=60).html
        page = reader(written(tmp_path, wide + output(label="small").html))
        frames = page.locator(".frame")
        assert [frame.evaluate("f => f.tabIndex") for frame in frames.all()] == [-1, -1]
        page.set_viewport_size({"width": 390, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        sizes = page.locator("img").evaluate_all("all => all.map(i => [i.width, i.height])")
        assert sizes[0] == [524, 262]  # of 672, so that 10 points are 10 pixels
        assert sizes[1][0] <= 374 and sizes[1][0] == 2 * sizes[1][1]
        page.wait_for_function("document.querySelector('.frame').tabIndex === 0")
        assert frames.nth(1).evaluate("f => f.tabIndex") == -1
        frames.first.focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function("document.querySelector('.frame').scrollLeft > 0")

    def test_axe_finds_nothing(self, reader, tmp_path):
        import axe_playwright_python

        wide = output(lambda slope: line(slope, (7, 3.5)), dpi=60).html
        page = reader(written(tmp_path, wide), width=390)
        page.wait_for_function("document.querySelector('.frame').tabIndex === 0")
        page.add_script_tag(path=Path(axe_playwright_python.__file__).with_name("axe.min.js"))
        found = page.evaluate("axe.run().then(result => result.violations)")
        assert [violation["id"] for violation in found] == []
