"""Slides: every chapter has a whole deck, which loads nothing and prints a page per slide."""

import json
import re
from collections import Counter
from functools import cache
from urllib.parse import urlsplit

import pytest
from bs4 import BeautifulSoup

from mtl_course import chapters
from mtl_course.dev import __main__ as tools
from mtl_course.dev import browser, slides
from mtl_course.dev.notebooks import ROOT

NUMBERS = list(chapters.CHAPTERS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("slides")
    slides.make(list(chapters.CHAPTERS.values()), out)
    return out


@cache
def parsed(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@pytest.fixture(params=NUMBERS)
def deck(request, folder):
    [path] = folder.glob(f"{request.param}_*.html")
    return chapters.find(request.param), path, parsed(path)


def test_a_deck_has_all_that_a_lecture_needs(deck):
    chapter, _, page = deck
    assert page.h1.get_text() == chapter.heading and len(page.find_all("h1")) == 1
    assert page.select_one(".question").get_text() == chapter.question
    shown = page.find_all("section")
    kinds = Counter(section["class"][0] for section in shown)
    assert 15 <= len(shown) <= 45
    for kind in ("title", "answer", "goals", "drawing", "objective", "claims", "takeaways"):
        assert kinds[kind] >= 1, kind
    assert kinds["quiz"] >= 3 and kinds["answers"] == 1
    assert kinds["figure"] >= 1
    assert kinds["figure"] + kinds["dial"] + kinds["table"] >= 4, "little to show"
    # The experiment in which the method works: something to see, and what was claimed of it.
    main = [
        s for s in shown if re.search("headline|experiment", s.h2.get_text() if s.h2 else "", re.I)
    ]
    assert {"figure", "dial", "table"} & {s["class"][0] for s in main}
    assert any(s["class"][0] == "claims" for s in main)
    empty = [s["id"] for s in shown if not s.select_one(".body").get_text(strip=True)]
    assert [id for id in empty if not page.find(id=id).select("img, svg")] == []


def test_a_deck_says_what_its_notebook_says(deck):
    chapter, _, page = deck
    cells = json.loads((ROOT / chapter.notebook).read_text(encoding="utf-8"))["cells"]
    html = [
        "".join(output.get("data", {}).get("text/html", ""))
        for cell in cells
        for output in cell.get("outputs", [])
    ]
    made = BeautifulSoup("".join(html), "html.parser")
    claimed = [c.get_text() for c in made.select(".mtl-claim.mtl-good .mtl-title")]
    assert [li.get_text() for li in page.select(".held > li")] == claimed
    for kind in ("mtl-drawing", "mtl-slider"):
        assert len(page.select(f"figure.{kind}")) == len(made.select(f"figure.{kind}"))
    text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    exercises = re.findall(r"^### (Exercise \d+)\.", text, re.M)
    told = " ".join(section.get_text() for section in page.select("section.exercises"))
    assert re.findall(r"Exercise \d+", told) == exercises
    assert len(page.select("section.quiz")) == len(re.findall(r"^\*\*\d+\. ", text, re.M))
    assert len(page.select("section.takeaways li")) >= 3
    # What an exercise asks for stands in no slide.
    assert not page.select("section.quiz details, section.quiz .right")


def test_a_deck_loads_nothing_from_elsewhere_and_is_light(deck, folder):
    _, path, page = deck
    loads = [
        tag.get(key, "")
        for name, key in (("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"))
        for tag in page.find_all(name)
    ]
    local = [address for address in loads if address and not address.startswith("data:")]
    assert local == [f"mathjax/{slides.MATHJAX}"] and (folder / local[0]).stat().st_size > 1e6
    assert not [address for address in loads if urlsplit(address).scheme not in ("", "data")]
    assert not re.search(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", path.read_text("utf-8"))
    assert path.stat().st_size < 2_000_000


def test_a_deck_is_accessible(deck):
    _, _, page = deck
    assert page.html["lang"] == "en" and page.title.get_text().strip()
    ids = [tag["id"] for tag in page.find_all(id=True)]
    assert len(set(ids)) == len(ids)
    for image in page.find_all("img"):
        assert len(image["alt"]) > 20
    for drawing in page.select("figure.mtl-drawing svg[role=img]"):
        assert drawing.title.get_text() and drawing.desc.get_text()
    for section in page.find_all("section"):
        assert section["aria-label"] and section.find(["h1", "h2"]).get_text(strip=True)
    for link in page.select("nav a"):
        assert page.find(id=link["href"][1:]) and link["aria-label"]


def test_formulas_are_left_to_mathjax_whole(deck):
    _, _, page = deck
    for section in page.find_all("section"):
        text = section.get_text()
        assert text.count(r"\(") == text.count(r"\)") and text.count(r"\[") == text.count(r"\]")
        assert "$" not in text, section["id"]
    assert r"\tag{1}" in page.get_text() or r"\[" in page.get_text()


def test_a_wrong_number_is_a_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        tools.main(["slides", "99", "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    assert "There is no chapter '99'" in told and "Traceback" not in told
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_a_sentence(tmp_path, monkeypatch, capsys):
    with pytest.raises(slides.SlidesError, match=r"01_mtl_objective\.ipynb is missing"):
        slides.make([chapters.find(1)], tmp_path, root=tmp_path)
    monkeypatch.setattr(slides, "find_spec", lambda name: None)
    with pytest.raises(slides.SlidesError, match="sphinx-mathjax-offline"):
        slides.make([chapters.find(1)], tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "markdown_it", None)
    with pytest.raises(slides.SlidesError, match="make slides"):
        slides.renderer()


def test_one_chapter_alone(tmp_path, capsys):
    assert tools.main(["slides", "5", "--out", str(tmp_path)]) == 0
    assert "1 deck:" in capsys.readouterr().out
    assert {path.name for path in tmp_path.glob("*.html")} == {
        "05_loss_weighting.html",
        "index.html",
    }


def test_parts_of_nearly_one_length():
    assert slides.pieces(list(range(7)), 3) == [[0, 1], [2, 3], [4, 5, 6]]
    assert slides.pieces([], 3) == [] and slides.pieces([1], 3) == [[1]]


@pytest.mark.slow
def test_keys_move_a_slide_is_never_too_full_and_prints_as_a_page(folder):
    playwright = pytest.importorskip("playwright.sync_api")
    [path] = folder.glob("06_*.html")
    with playwright.sync_playwright() as started:
        try:
            chromium = browser.launch(started)
        except browser.BrowserError as error:
            pytest.skip(str(error))
        page = chromium.new_page(viewport={"width": 1280, "height": 720}, reduced_motion="reduce")
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_function("window.MathJax.startup && document.querySelector('mjx-container')")
        page.evaluate("MathJax.startup.promise")
        assert {urlsplit(address).scheme for address in asked} <= {"file", "data"}
        assert page.locator("mjx-merror").count() == 0
        count = page.locator("section").count()
        for key, place in (("ArrowRight", 2), (" ", 3), ("ArrowLeft", 2), ("End", count)):
            page.keyboard.press(key)
            assert (
                page.evaluate("location.hash") == f"#s{place}"
                and page.evaluate("here()") == place - 1
            )
        assert page.evaluate("slides().filter(s=>full(s.querySelector('.body'))).length") == 0
        printed = page.pdf(prefer_css_page_size=True, print_background=True)
        assert len(re.findall(rb"/Type\s*/Page\b(?!s)", printed)) == count
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        chromium.close()
