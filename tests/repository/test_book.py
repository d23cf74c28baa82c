"""The built book without a browser: whole, strict, self-contained, and true to its sources."""

import base64
import io
import json
import re
import subprocess
import sys
import types
import zipfile
from html.parser import HTMLParser
from importlib.util import module_from_spec, spec_from_file_location
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup
from PIL import Image
from sphinx.errors import ExtensionError

from mtl_course.data import manifest
from mtl_course.dev import book, diagrams, docstrings, sync

ROOT = book.ROOT
TOC = book.toc_pages(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
PAGES = [*TOC, "search", "genindex"]
LABS = [page for page in TOC if page.startswith("notebooks/lab_")]
NOTEBOOKS = [page for page in TOC if page.startswith("notebooks/") and page not in LABS]
LOADED = {
    **dict.fromkeys(("script", "img", "source", "iframe", "embed", "video", "audio"), "src"),
    "object": "data",
}
NOT_LOADED = {
    "index",
    "search",
    "next",
    "prev",
    "canonical",
    "author",
    "license",
}  # <link rel=...> that only names a page


class Page(HTMLParser):
    """The tags of a page, its title and its text outside scripts."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.title, self.text, self.inside = [], "", "", []
        self.feed(html)
        self.ids = {attributes["id"] for _, attributes in self.tags if attributes.get("id")}

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, {key: value or "" for key, value in attributes}))
        self.inside.append(tag)

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        if "script" not in self.inside and "style" not in self.inside:
            self.text += data
        if "title" in self.inside and "svg" not in self.inside:
            self.title += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def loads(self):
        """Addresses that a browser fetches to show the page."""
        found = [
            attributes[key]
            for tag, key in LOADED.items()
            for attributes in self.all(tag)
            if key in attributes
        ]
        sets = [
            image["srcset"]
            for tag in ("img", "source")
            for image in self.all(tag)
            if image.get("srcset")
        ]
        found += [part.split()[0] for value in sets for part in value.split(",")]
        return found + [
            link["href"]
            for link in self.all("link")
            if not set(link.get("rel", "").split()) & NOT_LOADED
        ]


@pytest.fixture(scope="module")
def pages(built_book):
    return {name: Page((built_book / f"{name}.html").read_text(encoding="utf-8")) for name in PAGES}


def extension(name):
    """One of the book's Sphinx extensions, as a module."""
    spec = spec_from_file_location(f"book_ext_{name}", ROOT / "book" / "_ext" / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# The build


def test_every_page_of_the_table_of_contents_is_built(built_book):
    assert len(TOC) == len(set(TOC)) >= 10
    assert book.html_pages(built_book) == set(TOC)


@pytest.fixture
def small_book(tmp_path):
    (tmp_path / "_config.yml").write_text(
        "title: Small\nauthor: A\nlogo: ''\nonly_build_toc_files: true\n", encoding="utf-8"
    )
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: one\nchapters:\n- file: two\n- file: three\n", encoding="utf-8"
    )
    for name in ("one", "two", "three"):
        (tmp_path / f"{name}.md").write_text(f"# {name}\n\nText.\n", encoding="utf-8")
    return tmp_path


@pytest.mark.slow
def test_a_broken_reference_stops_the_build_each_time(small_book):
    page = small_book / "two.md"
    whole = page.read_text(encoding="utf-8")
    book.build(small_book)
    page.write_text(whole + "See [this](nowhere.md).\n", encoding="utf-8")
    for _ in range(2):  # also where Sphinx has seen the page before and would not read it again
        with pytest.raises(book.BookError, match=r"two\.md.*nowhere\.md"):
            book.build(small_book)
    page.write_text(whole, encoding="utf-8")
    assert book.html_pages(book.build(small_book)) == {"one", "two", "three"}


def test_a_page_taken_out_of_the_contents_leaves_the_book(small_book):
    book.build(small_book)
    toc = small_book / "_toc.yml"
    toc.write_text(toc.read_text(encoding="utf-8").replace("- file: three\n", ""), encoding="utf-8")
    assert book.html_pages(book.build(small_book)) == {"one", "two"}


@pytest.mark.slow
def test_a_changed_style_reaches_the_book(small_book):
    config = small_book / "_config.yml"
    sphinx = "sphinx: {config: {html_css_files: [a.css], html_static_path: [book/_static]}}\n"
    config.write_text(config.read_text(encoding="utf-8") + sphinx, encoding="utf-8")
    style = small_book / "book" / "_static" / "a.css"
    style.parent.mkdir(parents=True)
    for text in ("p {color: red}", "p {color: blue}"):
        style.write_text(text, encoding="utf-8")
        html = book.build(small_book)
        assert (html / "_static" / "a.css").read_text(encoding="utf-8") == text


def test_another_jupyter_book_is_refused(monkeypatch):
    monkeypatch.setattr(book.metadata, "version", lambda name: "2.1.0")
    with pytest.raises(book.BookError, match=r"2\.1\.0 cannot build"):
        book.require_tools()

    def missing(name):
        raise book.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(book.metadata, "version", missing)
    with pytest.raises(book.BookError, match="make book"):
        book.require_tools()


def test_building_needs_neither_torch_nor_numpy():
    extensions = ", ".join(sorted(path.stem for path in (ROOT / "book" / "_ext").glob("*.py")))
    absent = ["torch", "numpy", "matplotlib", "sklearn", "nbformat", "playwright"]
    program = f"""
import sys
sys.modules.update(dict.fromkeys({absent}))
sys.path.insert(0, "book/_ext")
import mtl_course.dev.__main__, mtl_course.dev.book
import {extensions}
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_zip(built_book, tmp_path):
    for name in ("a", "b"):
        book.pack(built_book, tmp_path / f"{name}.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        names = archive.namelist()
    inside = {name.removeprefix("mtl-course-book/") for name in names}
    assert all(name.startswith("mtl-course-book/") for name in names) and names == sorted(names)
    assert {f"{page}.html" for page in PAGES} | {
        "index.html",
        "searchindex.js",
        "_static/mathjax/tex-svg.js",
    } <= inside
    assert not [name for name in inside if name.endswith((".map", ".buildinfo", ".pickle"))]


# The pages


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_loaded_from_another_host(name, pages):
    assert pages[name].loads()
    assert not [address for address in pages[name].loads() if urlsplit(address).netloc]


def test_styles_load_nothing_from_another_host(built_book):
    styles = list(built_book.rglob("*.css"))
    assert styles
    for path in styles:
        found = re.findall(
            r"(?:url\(\s*['\"]?|@import\s+['\"])(?:https?:)?//[^)'\"]*",
            path.read_text(encoding="utf-8"),
        )
        assert not found, path.name


@pytest.mark.parametrize("name", PAGES)
def test_local_addresses_exist(name, pages, built_book):
    here = built_book / f"{name}.html"
    wrong = []
    for address in [
        *pages[name].loads(),
        *(link["href"] for link in pages[name].all("a") if "href" in link),
    ]:
        parts = urlsplit(address)
        if parts.scheme or parts.netloc:
            continue
        target = (here.parent / unquote(parts.path)).resolve() if parts.path else here
        page = (
            target.relative_to(built_book.resolve() if parts.path else built_book)
            .with_suffix("")
            .as_posix()
        )
        if not target.is_file() or (
            page in pages and parts.fragment and unquote(parts.fragment) not in pages[page].ids
        ):
            wrong.append(address)
    assert not wrong


@pytest.mark.parametrize("name", PAGES)
def test_no_page_names_this_machine_or_starts_a_kernel(name, built_book):
    html = (built_book / f"{name}.html").read_text(encoding="utf-8")
    assert str(ROOT) not in html
    assert "thebe" not in html.lower()


@pytest.mark.parametrize("name", TOC)
def test_title_and_language(name, pages):
    page = pages[name]
    assert page.title.strip()
    assert len(page.all("h1")) == 1
    assert page.all("html")[0]["lang"] == "en"


@pytest.mark.parametrize("name", PAGES)
def test_head_of_a_page(name, pages):
    page = pages[name]
    named = [meta for meta in page.all("meta") if "name" in meta]
    assert [meta["name"] for meta in named].count("viewport") == 1
    [description] = [meta["content"] for meta in named if meta["name"] == "description"]
    assert 40 <= len(description) <= 180
    card = {meta["property"]: meta["content"] for meta in page.all("meta") if "property" in meta}
    assert card["og:description"] == description and card["og:title"]
    # Without an address, a card's picture could not be found.
    assert ("og:image" in card) == bool(CONFIG["html"]["baseurl"])
    icons = [link for link in page.all("link") if "icon" in link.get("rel", "")]
    assert {link["type"] for link in icons} == {"image/svg+xml", "image/png"}


def test_pages_describe_themselves(pages):
    described = [
        meta["content"]
        for name in TOC
        for meta in pages[name].all("meta")
        if meta.get("name") == "description"
    ]
    assert len(set(described)) > 0.8 * len(TOC)


def test_a_card_has_full_addresses_once_the_book_has_one():
    finish = extension("page").finish
    page = {"name": "book/intro", "title": 'A "title"', "description": "What it is."}
    html = '<html data-content_root="../"><title>T &#8212; T</title><article></article>'
    assert "og:image" not in finish(html, page)
    made = finish(html, page, "https://example.org/course/")
    assert 'property="og:image" content="https://example.org/course/_static/card.png"' in made
    assert 'property="og:url" content="https://example.org/course/book/intro.html"' in made
    assert "A &quot;title&quot;" in made and "<title>T</title>" in made


def test_a_page_loads_only_what_it_needs(built_book, pages):
    for name in PAGES:
        html = (built_book / f"{name}.html").read_text(encoding="utf-8")
        loads = " ".join(pages[name].loads())
        assert ("mathjax" in loads) == bool(re.search(r'class="[^"]*\bmath\b', html)), name
        assert ("searchindex.js" in loads) == (name == "search"), name
        assert "fontawesome" not in loads and "pydata-sphinx-theme.css" not in loads, name
    light = [name for name in TOC if "mathjax" not in " ".join(pages[name].loads())]
    assert 3 < len(light) < len(TOC)


def test_each_part_stands_once_in_the_contents(built_book):
    html = (built_book / f"{TOC[0]}.html").read_text(encoding="utf-8")
    contents = html[html.index('<nav class="bd-links') : html.index("<main")]
    parts = [page.split("/")[1] for page in TOC if re.fullmatch(r"book/part\d+", page)]
    assert len(parts) >= 4
    for part in parts:
        assert len(re.findall(rf"{part}\.html", contents)) == 1
        assert re.search(rf'class="caption-text"><a [^>]*href="{part}\.html"', contents)


def test_every_icon_is_drawn(built_book):
    style = (built_book / "_static" / "book.css").read_text(encoding="utf-8")
    shown = {
        name
        for page in PAGES
        for name in re.findall(
            r'class="[^"]*\bfa-(?!solid|regular|brands|lg)([a-z-]+)',
            (built_book / f"{page}.html").read_text(encoding="utf-8"),
        )
    }
    assert len(shown) > 8
    assert not [name for name in shown if f".fa-{name}{{--icon:" not in style]
    assert "@font-face" not in style


def test_styles_are_thinned_to_what_occurs():
    styles = extension("styles")
    css = """@charset "UTF-8"; /* .gone{} */ a{color:red} .used,.gone>b{x:"}{"} .gone{y:z}
    @media print{.gone{a:b} .used:not(.gone){c:url(data:;{)}} @media screen{.gone{a:b}}
    .a\\:b{c:d} [class*="gone"]{e:f} #gone{g:h} .fa-bars:before{content:"x"}"""
    made = styles.slim(css, {"used", "a:b", "fa-bars"})
    assert made == (
        'a{color:red}.used{x:"}{"}@media print{.used:not(.gone){c:url(data:;{)}}'
        '.a\\:b{c:d}[class*="gone"]{e:f}'
    )
    script = 'x={"arrow-up":[384,512,[8593],"f062","M1 2z"],bars:[8,9,["navicon"],"f0c9","M3z"]}'
    assert styles.icons(script, {"fa-navicon"}).startswith(".fa-navicon{--icon:url(")
    assert "fa-bars" not in styles.icons(script, {"fa-navicon"})


def test_pictures_of_the_book_fit_their_drawings(tmp_path):
    assert diagrams.stale_pictures() == []
    for source, _, _ in diagrams.PICTURES.values():
        assert diagrams.foreign((diagrams.STATIC / source).read_text(encoding="utf-8")) == []
        (tmp_path / source).write_text("<svg/>", encoding="utf-8")
    for name, (_, width, height) in diagrams.PICTURES.items():
        png = (diagrams.STATIC / name).read_bytes()
        assert Image.open(io.BytesIO(png)).size == (width, height)
        (tmp_path / name).write_bytes(png)
    (tmp_path / "card.png").unlink()
    assert diagrams.stale_pictures(tmp_path) == [
        "favicon.png does not fit logo.svg, which changed",
        "card.png is missing",
    ]


# Links that nobody writes


NOT_RUNNING = "a, pre, code, h1, h2, h3, h4, summary, svg, script, style, .math, .cell_output"


def running_text(html):
    """The text of an article, without what is no running text and without what is linked."""
    article = BeautifulSoup(html, "html.parser").find("article")
    for element in article.select(NOT_RUNNING):
        element.decompose()
    return article.get_text(" ")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_chapter_links_what_it_names(name, pages, built_book):
    text = running_text((built_book / f"{name}.html").read_text(encoding="utf-8"))
    own = int(name.split("/")[1][:2])
    there = {int(page.split("/")[1][:2]) for page in NOTEBOOKS} - {own}
    named = {int(number) for number in re.findall(r"[Cc]hapters?\s(\d+)", text)}
    assert not named & there
    equations = {id[9:] for id in pages[name].ids if id.startswith("equation-")}
    assert equations
    unscoped = re.findall(r"[Ee]quation\s(\d+)(?!\d| of| in the paper)", text)
    assert not set(unscoped) & equations
    classes = [link.get("class", "").split()[0:1] for link in pages[name].all("a")]
    assert ["to-chapter"] in classes and ["to-equation"] in classes
    terms = [
        link["href"].split("#")[1]
        for link in pages[name].all("a")
        if "to-term" in link.get("class", "")
    ]
    assert len(terms) >= 5 and len(set(terms)) == len(terms)


LINKED = """# 1. One

A task has a head, and heads have more. See chapters 5, 7 and\n9, chapter 12 and chapter 1.
By equations 1 and 2, equation\n(2), equation 3 and equation 1 of chapter 5; chapter 5's equation 1.
Exercises 1 to 2 are here, exercise 3 is not. `chapter 5`, [chapter 5](05_two.md), 5 chapters.
Gradient surgery comes first; Surgery of a Headless kind, a pre-head and MAML-like things do not.

$$a \\tag{1}$$

$$b = \\text{chapter 5} \\tag{2}$$

## A head in chapter 5

<details class="right"><summary>As in chapter 5</summary>Right: see chapter 5, a head & equation 2.
</details>

### Exercise 1. A head

Nothing.

## Exercises

**2. The other.** See exercise 1. Its **Exercise 7.** does not begin the line.
"""


@pytest.fixture(scope="module")
def linked_book(tmp_path_factory):
    """A small book with the course's extension for links, and the page in which they are made."""
    root = tmp_path_factory.mktemp("linked")
    for folder in ("notebooks", "book/appendix", "book/_ext"):
        (root / folder).mkdir(parents=True)
    (root / "book/_ext/links.py").write_bytes((ROOT / "book/_ext/links.py").read_bytes())
    (root / "_config.yml").write_text(
        "title: Small\nauthor: A\nlogo: ''\nonly_build_toc_files: true\n"
        "parse: {myst_enable_extensions: [amsmath, dollarmath]}\n"
        "sphinx: {local_extensions: {links: book/_ext}}\n",
        encoding="utf-8",
    )
    (root / "_toc.yml").write_text(
        "format: jb-book\nroot: notebooks/01_one\nchapters:\n- file: notebooks/05_two\n"
        "- file: notebooks/07_three\n- file: book/appendix/glossary\n",
        encoding="utf-8",
    )
    (root / "notebooks/01_one.md").write_text(LINKED, encoding="utf-8")
    (root / "notebooks/05_two.md").write_text("# 5. Two\n\n$$c \\tag{1}$$\n", encoding="utf-8")
    (root / "notebooks/07_three.md").write_text("# 7. Three\n\nText.\n", encoding="utf-8")
    (root / "book/appendix/glossary.md").write_text(
        "# Glossary\n\n```{glossary}\nhead\n  A layer of one task.\n\ntask\n  What is learned.\n\n"
        "gradient surgery\n  Changes gradients of a head.\n\nsurgery\n  A word.\n\n"
        "MAML\n  A method.\n```\n",
        encoding="utf-8",
    )
    html = book.build(root) / "notebooks" / "01_one.html"
    return html.read_text(encoding="utf-8")


def test_words_become_links(linked_book):
    article = linked_book[linked_book.index("<article") : linked_book.index("</article>")]
    links = re.findall(
        r'<a class="to-(\w+) reference internal" href="([^"]*)"[^>]*>([^<]*)<', article
    )
    two, three, terms = "05_two.html", "07_three.html", "../book/appendix/glossary.html#term-"
    assert [(kind, words, address) for kind, address, words in links] == [
        ("term", "head", terms + "head"),
        ("chapter", "chapters 5", two),
        ("chapter", "7", three),
        ("equation", "equations 1", "#equation-1"),
        ("equation", "2", "#equation-2"),
        ("equation", "equation\n(2)", "#equation-2"),
        ("equation", "equation 1", two + "#equation-1"),
        ("chapter", "chapter 5", two),
        ("chapter", "chapter 5", two),
        ("equation", "equation 1", two + "#equation-1"),
        ("exercise", "Exercises 1", "#exercise-1-a-head"),
        ("exercise", "2", "#exercise-2"),
        ("term", "Gradient surgery", terms + "gradient-surgery"),
        ("chapter", "chapter 5", two),
        ("equation", "equation 2", "#equation-2"),
        ("exercise", "exercise 1", "#exercise-1-a-head"),
    ]
    assert 'title="A layer of one task."' in article
    assert '<p id="exercise-2">' in article and '<strong id="exercise-7">' in article
    assert "a head &amp; " in article, "the text of a quiz stays what it is"


# Figures


@pytest.mark.parametrize("name", TOC)
def test_figures_are_numbered_by_chapter(name, built_book):
    html = (built_book / f"{name}.html").read_text(encoding="utf-8")
    numbers = re.findall(r'class="caption-number">([^<]*)<', html)
    front = f"{int(name.split('/')[1][:2])}." if name in NOTEBOOKS else ""
    figures = [number.strip() for number in numbers if number.startswith("Figure")]
    assert figures == [f"Figure {front}{n}" for n in range(1, len(figures) + 1)]
    assert bool(figures) or name not in NOTEBOOKS
    assert len(re.findall(r"<figcaption", html)) >= len(figures)


def test_numbers_of_figures_restart():
    numbers = {"figure": {"b": (12,), "a": (11,)}, "table": {"c": (3,)}}
    renumber = extension("figures").renumber
    assert renumber(numbers, "notebooks/05_x") == {
        "figure": {"a": (5, 1), "b": (5, 2)},
        "table": {"c": (5, 1)},
    }
    assert renumber(numbers, "book/intro")["figure"] == {"a": (1,), "b": (2,)}


def test_only_the_picture_of_a_cell_is_in_its_figure():
    apart = extension("figures").apart
    picture, text = {"data": {"image/png": ""}}, {"data": {"text/html": ""}}
    notes = {"figure": {"name": "f"}, "image": {"alt": "a"}}
    cell = {
        "id": "a",
        "source": "plot()",
        "metadata": {"tags": ["fold", "hide-input"], "mystnb": notes},
        "outputs": [{"text": "x"}, picture, text, text],
    }
    parts = apart(cell)
    assert [part["outputs"] for part in parts] == [[{"text": "x"}], [picture], [text, text]]
    assert ["figure" in part["metadata"]["mystnb"] for part in parts] == [False, True, False]
    assert [part["source"] for part in parts] == ["plot()", "# above", "# above"]
    assert [part["metadata"]["tags"][-1] for part in parts] == ["hide-input"] + 2 * ["remove-input"]
    assert len({part["id"] for part in parts}) == 3
    for whole in ([picture], [text], [picture, picture], []):
        assert apart({**cell, "outputs": whole}) == [{**cell, "outputs": whole}]


def test_no_table_has_an_empty_head(built_book):
    for name in TOC:
        html = (built_book / f"{name}.html").read_text(encoding="utf-8")
        for head in re.findall(r"(?s)<thead.*?</thead>", html):
            assert re.sub(r"<[^>]+>|\s", "", head), name
        assert name not in NOTEBOOKS or "course-card" in html


def test_small_formulas_need_no_mathjax():
    as_words = extension("figures").as_words
    assert "".join(str(node) for node in as_words(r"L_t^{\mathrm{S}}")) == (
        "<emphasis>L</emphasis><subscript>t</subscript><superscript>S</superscript>"
    )
    assert as_words(r"\Delta_m")[0].astext() == "Δ"
    for formula in (r"\frac12", "ab", "a+b", r"x_{\hat y}", "", r"\hat y"):
        assert as_words(formula) is None


# Search


def test_each_page_gives_the_search_its_text(built_book, pages):
    for name in TOC:
        script = (built_book / "_static" / "text" / f"{name}.js").read_text(encoding="utf-8")
        page, told = re.fullmatch(r"courseText\((\".*?\"), (.*)\);\n", script, re.S).groups()
        sections = json.loads(told)
        assert json.loads(page) == name
        assert sections and {id for id, _, _ in sections} <= pages[name].ids
        assert all(title for _, title, _ in sections)
    assert not list((built_book / "_static" / "text").rglob("*.part"))


def test_text_of_sections():
    sections = extension("offline_search").sections
    html = """<article><section id="a"><h1>One<a class="headerlink">#</a></h1>
    <p>Words &amp; <b>more</b>.</p>
    <div class="highlight-python notranslate"><div class="highlight"><pre>code</pre></div>
    </div><section id="b"><h2>Two</h2><p>\\(x\\) end</p></section></section></article>"""
    assert sections(html) == [["a", "One", "Words & more."], ["b", "Two", "x end"]]


def test_titles_differ(pages):
    titles = [pages[name].title for name in TOC]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("name", TOC)
def test_images_have_alt_text(name, pages):
    for image in pages[name].all("img"):
        alt = image.get("alt", "").strip()
        assert alt and not alt.lower().endswith((".png", ".svg")), image["src"]


REPOSITORY = CONFIG["repository"]


@pytest.mark.parametrize("name", NOTEBOOKS + LABS)
def test_colab_button(name, pages):
    path = urlsplit(REPOSITORY["url"]).path.strip("/")
    address = (
        f"https://colab.research.google.com/github/{path}/blob/{REPOSITORY['branch']}/{name}.ipynb"
    )
    links = [link.get("href") for link in pages[name].all("a")]
    assert (address in links) == sync.published(REPOSITORY["url"])


@pytest.mark.parametrize("name", PAGES)
def test_without_an_address_no_link_leads_nowhere(name, pages):
    links = [link.get("href", "") for link in pages[name].all("a")]
    assert not [link for link in links if "/OWNER" in link]


@pytest.mark.parametrize(
    "url, shown",
    [("https://github.com/OWNER/mtl-course", False), ("https://github.com/me/course", True)],
)
def test_buttons_are_shown_where_they_lead_somewhere(url, shown):
    address = extension("address")
    assert sync.published(url) == (address.PLACEHOLDER not in f"{url}/") == shown
    options = {
        "repository_url": url,
        **dict.fromkeys(address.BUTTONS, True),
        "launch_buttons": {"colab_url": "https://colab", "notebook_interface": "classic"},
        "navbar_start": [],
    }
    config = types.SimpleNamespace(html_theme_options=dict(options))
    address.hide_buttons(None, config)
    made = config.html_theme_options
    assert all(made[button] == shown for button in address.BUTTONS)
    assert bool(made["launch_buttons"]["colab_url"]) == bool(made["repository_url"]) == shown
    assert made["navbar_start"] == [] and made["launch_buttons"]["notebook_interface"] == "classic"


# Pages made from data


def test_data_appendix_shows_every_entry(pages):
    page = pages["book/appendix/datasets"]
    text = " ".join(page.text.replace("’", "'").split())
    links = {link.get("href") for link in page.all("a")}
    assert manifest.names()
    for info in manifest.read().values():
        assert f"data-{info.name}".replace("_", "-") in page.ids
        assert f'data.load("{info.name}")' in text
        assert info.title in text and " ".join(info.licence.replace("’", "'").split()) in text
        assert info.source in links or info.source in text


@pytest.mark.parametrize("room", docstrings.ROOMS)
def test_every_name_of_a_room_stands_on_its_page(room, pages, built_book):
    page = pages[f"book/appendix/api/{room}"]
    text = " ".join(page.text.split())
    links = {link.get("href") for link in page.all("a")}
    for name in docstrings.public(room):
        anchor = f"api-{room}-{name.name}"
        assert anchor in page.ids and f"#{anchor}" in links
        assert f"Defined in mtl_course/{room}/{name.module.replace('.', '/')}.py" in text
        last = name.section("Example").strip().split("\n")[-1].split()
        assert " ".join(last) in text, f"the example of {name.name} is not shown whole"
    size = (built_book / f"book/appendix/api/{room}.html").stat().st_size
    assert size < 1_000_000, f"{size} bytes: a page of its own for some of its names"


def listed(source, tmp_path):
    """The one public name of a made-up room, whose module holds this source."""
    room = tmp_path / "attic"
    room.mkdir()
    init = '__getattr__, __dir__, __all__ = exports(__name__, {"thing": "things"})'
    (room / "__init__.py").write_text(init, encoding="utf-8")
    (room / "things.py").write_text(source, encoding="utf-8")
    return next(docstrings.public("attic"))


def test_a_name_without_a_docstring_stops_the_build(tmp_path, monkeypatch):
    monkeypatch.setattr(docstrings, "PACKAGE", tmp_path)
    name = listed("def thing(x):\n    return x\n", tmp_path)
    with pytest.raises(ExtensionError, match=r"attic/things\.py: thing has no docstring"):
        extension("api").entry(name, docstrings)


THING = '''
class thing(Base):
    """Adds *two* [x](y) and $a$, as `f(x)` does.

    - one_
    - two, which
      goes on

        indented(code)

    Args:
        x: the first, ``[T, d]``.
        more: the rest.

    Raises:
        ValueError: never, or
            hardly.
        KeyError: often.

    Example:
        >>> thing(1)
        2
    """

    def __init__(self, x: Tensor, *more: int, at_least: float = 1e-3, a_long_name: str = "yes"):
        pass
'''


def test_an_entry_shows_what_a_docstring_says_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.setattr(docstrings, "PACKAGE", tmp_path)
    name = listed(THING, tmp_path)
    shown = extension("api").entry(name, docstrings)
    code = [node.astext() for node in shown if node.tagname == "literal_block"]
    assert code[0].split("\n") == [
        "thing(",
        "    x: Tensor,",
        "    *more: int,",
        "    at_least: float = 0.001,",
        "    a_long_name: str = 'yes',",
        ")",
    ]
    assert code[1:] == ["indented(code)", ">>> thing(1)\n2"]
    paragraphs = [node.astext() for node in shown if node.tagname == "paragraph"]
    assert paragraphs[0] == "Adds *two* [x](y) and $a$, as f(x) does."
    [items] = [node for node in shown if node.tagname == "bullet_list"]
    assert [item.astext() for item in items] == ["one_", "two, which goes on"]
    arguments, errors = [node for node in shown if node.tagname == "definition_list"]
    assert [term.astext() for term in errors] == [
        "ValueError\n\nnever, or hardly.",
        "KeyError\n\noften.",
    ]
    assert [term.astext() for term in arguments] == ["x\n\nthe first, [T, d].", "more\n\nthe rest."]
    assert [node.astext() for node in shown if node.tagname == "rubric"] == [
        "Arguments",
        "Raises",
        "Example",
    ]


def test_bibliography_lists_every_entry_once(pages, built_book):
    entries = re.findall(
        r"^@\w+\{\s*([^,\s]+)", (ROOT / "book" / "references.bib").read_text(encoding="utf-8"), re.M
    )
    assert entries and len(set(entries)) == len(entries)
    citations = [
        div
        for page in TOC
        for div in pages[page].all("div")
        if div.get("class", "").split() == ["citation"]
    ]
    assert len(citations) == len(entries), (
        "an entry of references.bib is not in the bibliography, or is there twice"
    )
    assert {div.get("role") for div in citations} == {"listitem"}


def test_chinese_terms_are_marked(pages, built_book):
    html = (built_book / "book" / "appendix" / "glossary.html").read_text(encoding="utf-8")
    terms = re.findall(r"[\u4e00-\u9fff]+", pages["book/appendix/glossary"].text)
    assert len(terms) > 20
    assert all(f'<span lang="zh">{term}</span>' in html for term in terms)
    mend = extension("accessible").mend
    context = {"body": '<img alt="任务"><p>任务, task</p>'}
    mend(None, "", "", context, None)
    assert context["body"] == '<img alt="任务"><p><span lang="zh">任务</span>, task</p>'


def notebook(tmp_path, *cells):
    path = tmp_path / "notebooks" / "01_mtl_objective.ipynb"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"cells": list(cells)}), encoding="utf-8")


def test_cover_figure_comes_from_the_chapter(tmp_path):
    cover = extension("cover")
    app = type("App", (), {"srcdir": str(tmp_path)})
    with pytest.raises(ExtensionError, match="not there"):
        cover.write_cover(app)
    tagged = {"cell_type": "code", "metadata": {"tags": ["cover"]}, "outputs": []}
    notebook(tmp_path, {"cell_type": "code", "metadata": {}, "outputs": []})
    with pytest.raises(ExtensionError, match="it has 0"):
        cover.write_cover(app)
    notebook(tmp_path, tagged, tagged)
    with pytest.raises(ExtensionError, match="it has 2"):
        cover.write_cover(app)
    notebook(tmp_path, tagged)
    with pytest.raises(ExtensionError, match="no figure"):
        cover.write_cover(app)
    figure = base64.b64encode(b"a picture").decode()
    notebook(
        tmp_path,
        {
            **tagged,
            "outputs": [
                {"data": {"text/plain": "x"}},
                {"data": {"image/png": [figure[:4], figure[4:]]}},
            ],
        },
    )
    cover.write_cover(app)
    target = tmp_path / cover.TARGET
    assert target.read_bytes() == b"a picture"
    written = target.stat().st_mtime_ns
    cover.write_cover(app)
    assert target.stat().st_mtime_ns == written
    assert cover.width(tagged) == ""
    sized = {"data": {}, "metadata": {"image/png": {"width": 716, "height": 397}}}
    assert cover.width({"outputs": [{"output_type": "stream"}, sized]}) == "716px"


# What the notebooks show, the pages show


@pytest.mark.parametrize("page", NOTEBOOKS + LABS)
def test_a_page_shows_every_output_of_its_notebook(built_book, page):
    html = (built_book / f"{page}.html").read_text(encoding="utf-8")
    shown = BeautifulSoup(html, "html.parser")
    outputs = [
        output
        for cell in json.loads((ROOT / f"{page}.ipynb").read_text(encoding="utf-8"))["cells"]
        for output in cell.get("outputs", [])
    ]
    rich = ["".join(o.get("data", {}).get("text/html", "")) for o in outputs]
    for kind in ("mtl-claim", "mtl-table", "mtl-card", "mtl-slider", "mtl-drawing"):
        stored = sum(len(BeautifulSoup(h, "html.parser").select(f".{kind}")) for h in rich)
        assert len(shown.select(f".{kind}")) == stored, kind
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(shown.select(".cell_output img, figure .cell_output img, figure > img")) >= len(
        pictures
    )
    words = " ".join(shown.get_text().split())
    no_record = extension("figures").NO_RECORD
    for output in outputs:
        if output["output_type"] == "stream":
            text = no_record.sub("", "".join(output["text"]))
            assert " ".join(text.split())[:200] in words


def test_a_reader_is_told_nothing_of_a_record_that_is_not_there(monkeypatch, tmp_path, capsys):
    from mtl_course import records

    monkeypatch.setenv("MTL_COURSE_RECORDS", str(tmp_path))
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    assert records.load("01", say=True) is None
    line = capsys.readouterr().out
    fold = {"metadata": {"tags": ["fold"]}, "source": 'full = records.load("01", say=True)'}
    stream = {"output_type": "stream", "name": "stdout", "text": [line]}
    more = {**stream, "text": ["seconds: 3\n", line]}
    figures = extension("figures")
    assert figures.without_absent_records([{**fold, "outputs": [stream]}]) == []
    assert figures.without_absent_records([{**fold, "outputs": []}]) == []
    [cell] = figures.without_absent_records([{**fold, "outputs": [more]}])
    assert cell["outputs"][0]["text"] == "seconds: 3\n"
    plain = {"metadata": {}, "source": "x = 1", "outputs": []}
    assert figures.without_absent_records([plain]) == [plain]


def test_a_numbered_formula_of_several_lines_keeps_its_number(built_book):
    """Sphinx would put it into ``split``, where MathJax shows an error in place of the formula."""
    several = 0
    for name in TOC:
        html = (built_book / f"{name}.html").read_text(encoding="utf-8")
        for formula in re.findall(r'(?s)<div class="math[^"]*"[^>]*>(.*?)</div>', html):
            if "\\tag{" in formula:
                assert r"\begin{split}" not in formula, (name, formula[:80])
                several += r"\\" in formula
    assert several, "no page has such a formula: nothing was tested"


# The front


def course_map(lines, root=ROOT):
    """The HTML of a map with this content."""
    front = extension("front")
    uri = types.SimpleNamespace(get_relative_uri=lambda here, there: f"../{there}.html")
    env = types.SimpleNamespace(
        srcdir=str(root),
        docname="book/intro",
        note_dependency=lambda path: None,
        app=types.SimpleNamespace(builder=uri),
    )
    made = type("Alone", (front.CourseMap,), {"__init__": lambda self: None, "env": env})()
    made.content = lines
    [node] = made.run()
    return node.astext()


def numbers_of(root=ROOT):
    return [str(int(number)) for number in extension("front").read_chapters(root)]


def test_the_map_links_what_is_here_and_frames_what_is_planned():
    html = course_map(
        ["Part I. All of it (part1)", *numbers_of(), "Part II. Later", "99. Beyond: what <then>?"]
    )
    assert html.count("<li><a href=") == len(NOTEBOOKS)
    assert all(f'href="../{page}.html"' in html for page in NOTEBOOKS)
    assert '<a href="../book/part1.html">Part I. All of it</a>' in html
    planned = html[html.index("map-part-ii") :]
    assert "map-planned" in planned and "what &lt;then&gt;?" in planned and "<a " not in planned


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda numbers: numbers[1:], "lacks the chapters 01"),
        (lambda numbers: [*numbers, "98"], "98 is not here: course-map needs its title"),
        (
            lambda numbers: [*numbers, "1. Title: question?"],
            "1 is here: course-map needs its number",
        ),
        (lambda numbers: [*numbers, "what is this"], "cannot read this line: what is this"),
    ],
    ids=["missing", "unknown", "twice", "nonsense"],
)
def test_the_map_says_what_is_wrong(change, message):
    with pytest.raises(ExtensionError, match=message):
        course_map(["Part I. All of it", *change(numbers_of())])


def test_the_facts_of_the_cover_are_counted():
    front = extension("front")
    chapters = front.read_chapters(ROOT)
    cells = [
        "".join(cell["source"])
        for page in NOTEBOOKS
        for cell in json.loads((ROOT / f"{page}.ipynb").read_text(encoding="utf-8"))["cells"]
    ]
    facts = {what: number for number, what in front.facts(ROOT, chapters)}
    assert facts["chapters"] == str(len(NOTEBOOKS))
    assert facts["exercises that check themselves"] == str(
        sum(cell.startswith("# EXERCISE ") for cell in cells)
    )
    minutes = sum(chapter.read for chapter in chapters.values())
    assert abs(60 * int(facts["to read"].split()[0]) - minutes) <= 30


def test_the_cover_leads_to_reading_running_and_teaching(built_book):
    page = Page((built_book / "book" / "intro.html").read_text(encoding="utf-8"))
    buttons = [a["href"] for a in page.all("a") if "hero-button" in a.get("class", "")]
    read, run, teach = buttons
    assert read == "../notebooks/01_mtl_objective.html" and teach == "appendix/teaching.html"
    if sync.published(CONFIG["repository"]["url"]):
        assert run.startswith("https://colab.research.google.com/github/")
    else:
        target = Page((built_book / "book" / run.split("#")[0]).read_text(encoding="utf-8"))
        assert run.split("#")[1] in target.ids


# The diagrams


def test_diagrams_fit_their_sources():
    assert list(diagrams.FOLDER.glob("*.mmd"))
    assert diagrams.stale() == []


@pytest.mark.parametrize("path", sorted(diagrams.FOLDER.glob("*.svg")), ids=lambda path: path.stem)
def test_a_diagram_is_a_picture_and_nothing_else(path):
    svg = path.read_text(encoding="utf-8")
    assert diagrams.foreign(svg) == []
    assert re.search(r"<title[^>]*>\w", svg)
    assert re.search(r'<svg[^>]* width="\d+"', svg) and re.search(r'<svg[^>]* height="\d+"', svg)


@pytest.mark.parametrize("path", sorted(diagrams.FOLDER.glob("*.svg")), ids=lambda path: path.stem)
def test_a_diagram_reads_on_a_phone_and_is_light(path):
    svg = path.read_text(encoding="utf-8")
    width = int(re.search(r'<svg [^>]*\bwidth="(\d+)"', svg)[1])
    assert 16 * 345 / width > 9.8, f"{width} pixels wide: break its labels into shorter lines"
    assert len(svg) < 20_000, "what no picture shows is left out (diagrams.DRAW)"


def test_a_stale_a_missing_and_an_orphaned_diagram_are_found(tmp_path):
    source = "flowchart TB\n  A --> B\n"
    for name in ("fits", "changed", "missing"):
        (tmp_path / f"{name}.mmd").write_text(source, encoding="utf-8")
        (tmp_path / f"{name}.svg").write_text(
            f'<svg data-source-sha256="{diagrams.digest(source)}"/>', encoding="utf-8"
        )
    (tmp_path / "fits.mmd").write_bytes(
        b"flowchart TB\r\n  A --> B\r\n"
    )  # as git may check it out on Windows
    (tmp_path / "changed.mmd").write_text("flowchart TB\n  A --> C\n", encoding="utf-8")
    (tmp_path / "missing.svg").unlink()
    (tmp_path / "orphan.svg").write_text("<svg/>", encoding="utf-8")
    words = " | ".join(diagrams.stale(tmp_path))
    assert (
        "changed.svg does not fit" in words
        and "missing.svg is missing" in words
        and "orphan.svg has no source" in words
    )
    assert "fits" not in words.replace("does not fit", "")


@pytest.mark.parametrize(
    "bad",
    [
        "<script>x</script>",
        "<foreignObject/>",
        "<style>@import 'x.css';</style>",
        "<image href='https://example.org/x.png'/>",
        "<style>@font-face{src:url(x.woff)}</style>",
    ],
)
def test_what_a_diagram_must_not_hold_is_found(bad):
    assert diagrams.foreign(f'<svg xmlns="http://www.w3.org/2000/svg">{bad}</svg>')


def test_a_drawing_is_a_figure_with_a_number_and_a_caption(pages, built_book):
    path = built_book / "book" / "appendix" / "flowcharts.html"
    soup = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    figures = soup.select("figure.mtl-drawing")
    assert len(figures) >= 16
    for figure in figures:
        assert figure.get("id") and figure.select_one("svg[role=img] desc")
        assert re.match(r"Figure \d+ \S", figure.figcaption.get_text(" ", strip=True))
    wide, narrow = soup.select(".mtl-wide svg, .mtl-narrow svg")[:2]
    assert wide.title["id"] != narrow.title["id"]
    assert sum(len(figure.select("style")) for figure in figures) == 1, "a page needs it once"
    with pytest.raises(ExtensionError, match=r"no drawing 'nothing'.*joint_step"):
        extension("drawings").svg(ROOT, "nothing")


def test_what_rendering_lacks_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(diagrams.browser, "find", lambda: None)
    with pytest.raises(diagrams.DiagramError, match="CHROMIUM"):
        diagrams.render([])
    monkeypatch.setattr(diagrams, "TOOLS", tmp_path)
    monkeypatch.setattr(diagrams.shutil, "which", lambda name: None)
    with pytest.raises(diagrams.DiagramError, match="npm is missing"):
        diagrams.mermaid_script()
