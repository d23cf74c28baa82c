"""The drawings: as their sources draw them, readable on a phone, and told in words."""

import doctest
import itertools
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import mtl_course
from mtl_course import plots
from mtl_course.dev import browser
from mtl_course.dev import drawings as command
from mtl_course.drawings import balance, pulls, relations
from mtl_course.drawings.pen import DRAWINGS, Pen, drawing
from mtl_course.multitask import balancing
from mtl_course.plots import drawings

DRAWN = command.draw()
SVG = "{http://www.w3.org/2000/svg}"
PHONE = 340  # pixels that a drawing has on a phone of 390


def test_the_files_are_what_the_sources_draw():
    files = {p.stem: p.read_text(encoding="utf-8") for p in command.FOLDER.glob("*.svg")}
    assert files.keys() == DRAWN.keys()
    differ = [name for name in DRAWN if files[name] != DRAWN[name]]
    assert not differ, f"draw them again (python -m mtl_course.dev drawings): {differ}"


@pytest.fixture(params=DRAWN)
def svg(request):
    return ElementTree.fromstring(DRAWN[request.param])


def name_of(svg):
    return svg.find(f"{SVG}title").get("id").removesuffix("-title")


def test_it_says_what_it_shows(svg):
    name = name_of(svg)
    assert svg.get("role") == "img"
    assert svg.get("aria-labelledby") == f"{name}-title {name}-desc"
    assert svg.find(f"{SVG}title").text and svg.find(f"{SVG}desc").get("id") == f"{name}-desc"
    alt = svg.find(f"{SVG}desc").text
    assert 80 <= len(alt) <= 700 and alt.endswith("."), f"{len(alt)} characters"


def test_it_is_small_and_asks_for_nothing(svg):
    text = DRAWN[name_of(svg)]
    assert len(text.encode()) <= 40_000
    assert not re.search(r"<script|<image|<foreignObject|@import|\bon\w+=|href", text)
    assert re.findall(r"(?:https?:)?//[^\"]+", text) == ["http://www.w3.org/2000/svg"]
    assert all(url.startswith("(#") for url in re.findall(r"url(\([^)]*)", text))


def test_its_words_can_be_read_on_a_phone(svg):
    name, width = name_of(svg), float(svg.get("width"))
    scale = 1 if f"{name}_phone" in DRAWN else min(1, PHONE / width)
    sizes = [float(e.get("font-size")) for e in svg.iter() if e.get("font-size")]
    assert sizes and min(sizes) * scale >= 9
    assert not list(svg.iter(f"{SVG}textPath"))
    letters = sum(len("".join(e.itertext())) for e in svg.iter(f"{SVG}text"))
    assert letters > 10, "words are text, not outlines"


def test_ids_are_the_drawings_own():
    found = [i for text in DRAWN.values() for i in re.findall(r'\bid="([^"]+)"', text)]
    assert len(found) == len(set(found))
    for name, text in DRAWN.items():
        own = re.findall(r'\bid="([^"]+)"', text)
        assert all(i.startswith(f"{name}-") for i in own)
        assert set(re.findall(r"url\(#([^)]+)", text)) <= set(own)


def test_all_follow_a_dark_page_with_the_same_rules():
    styles = {re.search("<style>(.*?)</style>", text)[1] for text in DRAWN.values()}
    assert len(styles) == 1, "two drawings of one page would fight"
    (style,) = styles
    for page in ("html[data-theme=dark]", "html[theme=dark]", "[data-jp-theme-light=false]"):
        assert f"{page} .mtl-svg" in style
    roles = {role for text in DRAWN.values() for role in re.findall(r'class="(mtl-\w+)"', text)}
    for role in roles - {"mtl-svg"}:
        assert f".{role}{{color:var(--{role}," in style and f"--{role}:" in style.split("@media")[1]


def test_a_drawing_has_one_twin_that_tells_the_same():
    for name in (n for n in DRAWN if n.endswith("_phone")):
        wide, narrow = (
            float(re.search(r'viewBox="0 0 (\d+)', DRAWN[n])[1])
            for n in (name.removesuffix("_phone"), name)
        )
        assert wide > 520 >= narrow
    for name, text in DRAWN.items():
        width = float(re.search(r'viewBox="0 0 (\d+)', text)[1])
        assert width <= 520 or f"{name}_phone" in DRAWN, f"{name} needs a narrow twin"


def test_the_wheel_has_them():
    package = Path(mtl_course.__file__).parent
    project = tomllib.loads((package.parent / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["mtl_course"]
    for name in DRAWN:
        assert any(fnmatch(f"drawings/{name}.svg", pattern) for pattern in patterns)


def test_a_cell_shows_the_file_and_its_alt_text_elsewhere():
    shown = plots.drawing(
        "joint_step", "Both tasks reach the trunk, a head only its own & no more."
    )
    assert DRAWN["joint_step"].strip() in shown.html
    assert (
        "<figcaption>Both tasks reach the trunk, a head only its own &amp; no more." in shown.html
    )
    ElementTree.fromstring(shown.html)
    text = repr(shown)
    assert text.startswith("Drawing: A batch of task 1") and text.endswith("& no more.")
    assert max(map(len, text.split("\n"))) <= 76


def test_a_page_of_the_book_can_have_one_without_torch_or_matplotlib():
    code = """import sys
sys.modules.update(dict.fromkeys(["torch", "numpy", "matplotlib", "IPython"]))
from mtl_course.plots.drawings import drawing
print(len(drawing("cover").html))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and int(done.stdout) > 10_000, done.stderr


def test_the_example_of_its_docstring_runs():
    assert doctest.testmod(drawings).attempted == 3 and not doctest.testmod(drawings).failed


def test_a_wrong_name_lists_the_right_ones():
    with pytest.raises(ValueError, match=r"no drawing 'joint'. There are: .*joint_step, .*family"):
        plots.drawing("joint")


def test_a_wide_drawing_comes_with_its_narrow_twin(tmp_path, monkeypatch):
    monkeypatch.setattr(drawings, "FOLDER", tmp_path)
    for name in ("wide", "wide_phone", "other"):
        pen = Pen(name, 400, 100, "T", "What it shows.")
        (tmp_path / f"{name}.svg").write_text(pen.svg(), encoding="utf-8")
    both = plots.drawing("wide").html
    assert both.count("<svg") == 2 and "max-width:600px" in both
    assert plots.drawing("other").html.count("<svg") == 1
    with pytest.raises(ValueError, match=r"There are: other, wide\."):
        plots.drawing("wide_phone")


def test_the_command_writes_checks_and_finds_what_nobody_draws(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "FOLDER", tmp_path)
    monkeypatch.setattr(command, "draw", lambda: dict(DRAWN))
    assert command.main(["--check"]) == 1 and not list(tmp_path.iterdir())
    assert command.main([]) == 0
    assert {p.stem for p in tmp_path.glob("*.svg")} == DRAWN.keys()
    assert command.main(["--check"]) == 0
    (tmp_path / "joint_step.svg").write_text("<svg/>", encoding="utf-8")
    assert command.main(["--check"]) == 1 and "differs: joint_step.svg" in capsys.readouterr().out
    assert command.main(["one_family"]) == 0
    assert (tmp_path / "joint_step.svg").read_text(encoding="utf-8") == "<svg/>"
    (tmp_path / "orphan.svg").write_text("<svg/>", encoding="utf-8")
    assert command.main([]) == 1 and "orphan.svg" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main(["nothing"])


# ------------------------------------------------------------------- what the drawings say is true
def test_only_upgrad_hurts_none_of_the_three_tasks():
    either = [[[1, 2], [2, 1]], [[0, 2], [2, 0]], [[0, 1], [1, 0]]]
    for orders in itertools.product(*either):
        gains = balance.effects(list(orders))
        assert gains["sum"].argmin() == 2 and gains["sum"].min() < -0.1
        assert gains["PCGrad"].min() < -0.1, orders
        assert gains["UPGrad"].min() > 0.01
    assert balance.effects(balance.ORDERS)["PCGrad"].argmin() == 0


def test_the_sum_of_the_pair_leaves_the_cone_and_pcgrad_stays():
    J = balance.PAIR
    assert J[0] @ J[1] < 0
    hurt = J @ J.sum(0)
    assert hurt[0] > 0 > hurt[1]
    assert (J @ (balancing.pcgrad(J @ J.T) @ J)).min() > 0


def test_tied_tasks_are_where_chapter_1s_equations_put_them():
    (x, y), own = pulls.tied()
    w = np.array([alone for _, alone in pulls.TASKS])
    n = np.array([[n] for n, _ in pulls.TASKS])
    slope = n * (np.array(own) - w) + pulls.STRENGTH * (np.array(own) - [x, y])
    assert np.abs(slope).max() < 1e-9  # each task's own derivative, and that of the common vector
    assert np.abs((n * (np.array(own) - w)).sum(0)).max() < 1e-9


def test_the_laplacian_is_that_of_the_graph():
    Q = np.array(relations.laplacian())
    assert (Q.sum(0) == 0).all() and (Q == Q.T).all()
    for (i, j), weight in relations.EDGES.items():
        assert Q[i - 1, j - 1] == -weight
    words = [t.text for t in ElementTree.fromstring(DRAWN["task_graph"]).iter(f"{SVG}text")]
    for value in Q.flat:  # every entry is written, as often as it occurs
        words.remove(str(value).replace("-", "−"))


@pytest.mark.slow
@pytest.mark.skipif(browser.missing() is not None, reason=f"{browser.missing()}")
def test_on_a_page_it_fits_a_phone_and_turns_dark():
    look = """() => [...document.querySelectorAll("svg")].map(svg => {
        const box = svg.getBoundingClientRect();
        if (!box.width) return null;  // the other twin is shown
        const words = [...svg.querySelectorAll("text")].map(t => t.getBoundingClientRect());
        const out = words.filter(w => w.left < box.left - 1 || w.right > box.right + 1);
        return [svg.querySelector("title").id, out.length, getComputedStyle(svg).color];
    }).filter(Boolean)"""
    names = [name for name in DRAWN if not name.endswith("_phone")]
    body = "".join(plots.drawing(name).html for name in names)
    dark = {
        "html[data-theme=dark]": ("data-theme=dark", ""),
        "html[theme=dark]": ("theme=dark", ""),
        "jupyterlab": ("", "data-jp-theme-light=false"),
    }
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = browser.launch(playwright)
        page = chromium.new_page(viewport={"width": 390, "height": 800})
        page.set_content(f"<html><body style='margin:8px 16px'>{body}</body></html>")
        found = page.evaluate(look)
        assert len(found) == len(names)
        assert [entry[0] for entry in found if entry[1]] == [], "words leave their drawing"
        assert {entry[2] for entry in found} == {"rgb(26, 26, 26)"}
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        for where, (html, inside) in dark.items():
            page.set_content(f"<html {html}><body {inside}>{body}</body></html>")
            assert {entry[2] for entry in page.evaluate(look)} == {"rgb(236, 236, 236)"}, where
        page.emulate_media(media="print")
        assert {entry[2] for entry in page.evaluate(look)} == {"rgb(26, 26, 26)"}
        chromium.close()


# ------------------------------------------------------------------------------------------ the pen
@pytest.fixture
def pen():
    return Pen("sketch", 200, 100, "T", "What it shows.")


def test_two_modules_do_not_draw_one_name():
    def cover():
        raise AssertionError("it is not drawn")

    with pytest.raises(ValueError, match="Two modules draw cover"):
        drawing(cover)
    assert DRAWINGS["cover"].__module__ != __name__


def test_a_label_that_does_not_fit_is_refused(pen):
    with pytest.raises(ValueError, match="wider than its box"):
        pen.box(10, 10, 30, 20, "a long label")
    with pytest.raises(ValueError, match="wider than its frame"):
        pen.plate(10, 10, 60, 40, "a long label")
    with pytest.raises(ValueError, match="leaves the drawing"):
        pen.text(195, 50, "outside")
    pen.text(100, 50, "here")
    with pytest.raises(ValueError, match="lies on 'here'"):
        pen.text(110, 52, "there")


def test_a_label_is_placed_where_a_moved_panel_has_it(pen):
    with pen.moved(100, 0):
        pen.text(50, 50, "right")
        with pytest.raises(ValueError, match="leaves"):
            pen.text(120, 50, "out")
    pen.text(50, 50, "left")


def test_markup_makes_italics_and_indices(pen):
    pen.text(100, 50, "loss *L*_{12} < 2^n")
    (text,) = ElementTree.fromstring(pen.svg()).iter(f"{SVG}text")
    spans = list(text)
    assert "".join(text.itertext()) == "loss L12 < 2n"
    assert spans[0].get("font-style") == "italic" and spans[1].text == "12"
    down, back, up = (float(s.get("dy")) for s in spans[1:4])
    assert down > 0 and back == pytest.approx(-down) and up < 0


def test_frozen_is_hatched_and_a_gradient_dashed(pen):
    pen.box(10, 10, 80, 40, "trunk", "shared", frozen=True)
    pen.arrow((100, 20), (150, 20))
    assert "dasharray" not in pen.svg() and 'fill="url(#sketch-hatch)"' in pen.svg()
    pen.arrow((150, 40), (100, 40), gradient=True)
    assert pen.svg().count("dasharray") == 1


def test_an_arrow_ends_at_its_tip(pen):
    pen.arrow((10, 10), (100, 70), via=[(60, 10)])
    head = pen.parts[-1]
    assert 'd="M100 70L' in head
