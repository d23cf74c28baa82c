"""The built book as a reader's browser shows it: from ``file://``, without a network, wide and
narrow, light and dark.
"""

import re
import zipfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from mtl_course.dev import book, browser, sample

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(browser.missing() is not None, reason=f"{browser.missing()}"),
]

PAGES = sample.book_pages()
TOC = PAGES[:-2]
NOTEBOOKS = [page for page in TOC if page.startswith("notebooks/")]
READ_BY_AXE = set(sample.axe_pages())  # what changed, and others in turn: `dev test` prints them
SCREENSHOTS = (
    book.ROOT / "build" / "screenshots"
)  # for people to look at: one light, one dark and one of a phone for each page
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}

LIGHT_PAGE = 1_000_000  # bytes that a page loads at most, beside MathJax and sliders

TEXT_WITH_RAW_MATHS = r"""() => {
    const raw = [];
    const walker = document.createTreeWalker(
        document.querySelector("main"), NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        const shown = !node.parentElement.closest("pre, code, script, style, mjx-container");
        if (shown && /\$[^$]+\$|\\\(|\\\[/.test(node.textContent))
            raw.push(node.textContent.trim());
    }
    return raw;
}"""
# Elements beyond the right edge that no box of their own lets you scroll to.
UNREACHABLE = """() => [...document.querySelectorAll("article *")].filter(element => {
    const box = element.getBoundingClientRect();
    if (!box.width || box.right <= innerWidth + 1) return false;
    if (element.closest("mjx-assistive-mml, .visually-hidden")) return false;
    for (let parent = element; parent; parent = parent.parentElement)
        if (["auto", "scroll"].includes(getComputedStyle(parent).overflowX)) return false;
    return true;
}).map(element => element.outerHTML.slice(0, 120))"""

BEGINS_OUTSIDE = """() => [...document.querySelectorAll("article mjx-container")]
    .filter(formula => formula.checkVisibility())
    .filter(formula => formula.getBoundingClientRect().left < 0)
    .map(formula => formula.outerHTML.slice(0, 120))"""

# What a finger must push sideways to read, other than code.
SCROLLS = """() => [...document.querySelectorAll("body *")].filter(element =>
        ["auto", "scroll"].includes(getComputedStyle(element).overflowX)
        && element.scrollWidth > element.clientWidth + 1
        && element.checkVisibility() && !element.closest("pre, mjx-assistive-mml"))
    .map(element => `${element.tagName} ${element.className}: ${element.scrollWidth} px: `
        + (element.ariaLabel || element.textContent).trim().slice(0, 80))"""

# Displayed formulas whose letters are less than 10 pixels high: dots per ex, 9 of 16 pixels.
TINY = """() => [...document.querySelectorAll("article div.math mjx-container svg[height]")]
    .filter(svg => svg.checkVisibility() && svg.getAttribute("height").endsWith("ex"))
    .filter(svg => svg.getBoundingClientRect().height
        < 10 / 16 * 9 * parseFloat(svg.getAttribute("height")))
    .map(svg => svg.closest("div.math").textContent.slice(0, 80))"""

# What a screen reader is told of a stacked table: its roles, and the words of its cells.
STACKED = """() => [...document.querySelectorAll("table.stacked")].map(table => ({
    role: table.role,
    rows: [...table.tBodies[0].rows].map(row => row.role),
    cells: [...table.tBodies[0].rows].flatMap(row => [...row.cells]).map(cell => cell.role),
    bare: [...table.tBodies[0].rows].flatMap(row => [...row.cells].filter((cell, k) =>
        [...table.tHead.rows].at(-1).cells[k].textContent.trim()
        && !cell.querySelector(":scope > .cell-head").innerText.trim())).length,
    copies: table.querySelectorAll(".cell-head a, .cell-head [id]").length,
}))"""

# Outputs, claims, cards and tables of cells that do not fit their box.
CUT = """() => [...document.querySelectorAll(
        "div.cell_output :is(pre, .mtl-claim, .mtl-card, .mtl-table, .mtl-table > *, .text_html)")]
    .filter(box => box.scrollWidth > box.clientWidth + 1)
    .map(box => `${box.className} ${box.innerText.slice(0, 120)}`)"""

# Each pair of text and ground colour in code and outputs, with an example: axe-core would take a
# minute to measure every word.
CODE_COLOURS = """() => {
    const pairs = {}, says = node => node.nodeType === Node.TEXT_NODE && node.textContent.trim();
    for (const element of document.querySelectorAll("article pre, article pre *")) {
        if (![...element.childNodes].some(says) || !element.checkVisibility()) continue;
        let ground = element;
        while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)")
            ground = ground.parentElement;
        const pair = [getComputedStyle(element).color, getComputedStyle(ground).backgroundColor];
        pairs[pair.join(" on ")] = element.textContent;
    }
    return pairs;
}"""


def contrast(pair: str) -> float:
    """WCAG's contrast ratio of two colours, given as ``rgb(r, g, b) on rgb(r, g, b)``."""

    def luminance(colour):
        channels = [
            int(number) / 255
            for number in re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", colour).groups()
        ]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted(map(luminance, pair.split(" on ")))
    return (light + 0.05) / (dark + 0.05)


@pytest.fixture(scope="module")
def chromium():
    # Closed with this module: while it is open, playwright's event loop runs, and no other test
    # could start one of its own.
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield browser.launch(playwright)


class Reader:
    """A browser's page without a network, and all that goes wrong on it."""

    def __init__(self, chromium, **options):
        self.wrong, self.loaded = [], set()
        self.context = chromium.new_context(viewport=DESKTOP, offline=True, **options)
        self.context.route("**/*", self.local_only)
        self.page = self.context.new_page()
        self.page.on(
            "console",
            lambda message: (
                message.type == "error" and self.wrong.append(f"console: {message.text}")
            ),
        )
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("requestfailed", lambda request: self.wrong.append(f"failed: {request.url}"))

    def local_only(self, route):
        if route.request.url.startswith(("file:", "data:", "blob:")):
            self.loaded.add(route.request.url.partition("#")[0].partition("?")[0])
            route.continue_()
        else:
            self.wrong.append(f"request to another host: {route.request.url}")
            route.abort()

    def open(self, path: Path, query: str = ""):
        self.page.goto(path.as_uri() + query)
        self.page.evaluate("() => window.MathJax?.startup?.promise")
        return self.page

    def show(self, theme: str = "light", size: dict = DESKTOP):
        """The page in this colour mode and size, at rest."""
        if self.page.viewport_size != size:
            self.page.set_viewport_size(size)
            # The theme looks for what scrolls 300 ms after a change of size.
            self.page.wait_for_timeout(400)
        self.page.evaluate(
            "theme => Object.assign(document.documentElement.dataset, {theme, mode: theme})", theme
        )
        self.page.evaluate(
            "() => new Promise(resolve => requestAnimationFrame(() =>"
            " requestAnimationFrame(resolve)))"
        )
        self.page.evaluate(
            "() => Promise.all(document.getAnimations().map(animation =>"
            " animation.finished.catch(() => 0)))"
        )
        return self.page

    def picture(self, name: str):
        """A screenshot of the whole page, kept for people to look at, as a PIL image."""
        from PIL import Image

        self.page.evaluate(
            "() => Promise.all([...document.querySelectorAll('img[loading]')].map(image => {"
            " image.loading = 'eager'; return image.decode().catch(() => 0); }))"
        )
        path = SCREENSHOTS / f"{name.replace('/', '-')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path, full_page=True, animations="disabled")
        return Image.open(path)

    def axe(self, context=None, **options) -> list[str]:
        """What axe-core finds (in `context`), one line an element."""
        import axe_playwright_python

        if not self.page.evaluate("() => Boolean(window.axe)"):
            self.page.add_script_tag(
                path=Path(axe_playwright_python.__file__).with_name("axe.min.js")
            )
        options |= {
            "resultTypes": ["violations"],
            "preload": False,
        }  # preloading reads style sheets again, which file:// forbids
        run = (
            "async ([context, options]) => (await axe.run(context ?? document, options)).violations"
        )
        lines = []
        for violation in self.page.evaluate(run, [context, options]):
            for node in violation["nodes"]:
                target = " ".join(map(str, node["target"]))
                lines.append(f"{violation['id']}: {target}: {node['failureSummary']}")
        return lines

    def pale(self, name: str) -> list[str]:
        """Text with too little contrast: in code, and elsewhere on the pages that axe reads."""
        code = self.page.evaluate(CODE_COLOURS)
        low = [
            f"{pair}: {text.strip()[:40]}" for pair, text in code.items() if contrast(pair) < 4.5
        ]
        if name in READ_BY_AXE:
            low += self.axe({"exclude": [["pre"]]}, runOnly=["color-contrast"])
        return low


@pytest.fixture(scope="module", params=PAGES)
def opened(request, chromium, built_book):
    """Each page in turn, opened once for all tests; (its name, the reader)."""
    reader = Reader(chromium)
    page = reader.open(built_book / f"{request.param}.html")
    page.evaluate(
        "() => document.querySelectorAll('details').forEach(details => details.open = true)"
    )
    yield request.param, reader
    reader.context.close()


def test_loads_from_a_folder_without_a_network_or_an_error(opened):
    _, reader = opened
    assert reader.wrong == []


def test_a_page_weighs_at_most_a_megabyte(opened):
    _, reader = opened
    files = [Path(unquote(urlsplit(url).path)) for url in reader.loaded if url.startswith("file:")]
    sizes = {path.name: path.stat().st_size for path in files if path.name != "tex-svg.js"}
    assert "course.css" in sizes and "book.css" in sizes, "the page's files were not counted"
    sliders = sum(
        len(html.encode())
        for html in reader.page.locator(".mtl-slider").evaluate_all(
            "sliders => sliders.map(slider => slider.outerHTML)"
        )
    )
    weight = sum(sizes.values()) - sliders
    heaviest = sorted(sizes.items(), key=lambda item: -item[1])[:4]
    assert weight <= LIGHT_PAGE, f"{weight} bytes, of which {heaviest}"


def test_maths_is_drawn(opened):
    _, reader = opened
    maths, drawn = (
        reader.page.locator(selector).count()
        for selector in (".math", ".math:has(mjx-container svg path)")
    )
    assert drawn == maths
    assert reader.page.locator("[data-mml-node=merror]").count() == 0
    assert reader.page.evaluate(TEXT_WITH_RAW_MATHS) == []
    stops = reader.page.locator("mjx-container[tabindex='0']:not([data-scrolls])")
    assert stops.count() == 0, "a stop of the tab key"


def test_no_output_is_cut_on_a_desktop(opened):
    _, reader = opened
    page = reader.show("light", DESKTOP)
    assert page.evaluate(CUT) == []


def test_accessible_in_light_mode(opened):
    name, reader = opened
    reader.show("light")
    reader.picture(f"{name}-light")
    if name in READ_BY_AXE:
        assert reader.axe(rules={"color-contrast": {"enabled": False}}) == []
    assert reader.pale(name) == []


def test_dark_mode_is_readable(opened):
    from PIL import ImageStat

    name, reader = opened
    reader.show("dark")
    picture = ImageStat.Stat(reader.picture(f"{name}-dark").convert("L"))
    assert picture.median[0] < 80, "the page is not dark"
    assert picture.stddev[0] > 5, "the page is blank"
    assert reader.pale(name) == []


def test_no_sideways_scroll_on_a_phone(opened):
    name, reader = opened
    page = reader.show("light", PHONE)
    reader.picture(f"{name}-phone")
    assert page.evaluate(
        "() => [document.documentElement.scrollWidth, document.body.scrollWidth]"
    ) == [390, 390]
    assert page.evaluate(UNREACHABLE) == []
    assert page.evaluate(BEGINS_OUTSIDE) == [], "cut off on the left, where no scrolling helps"
    assert reader.axe(runOnly=["scrollable-region-focusable"]) == []


def test_nothing_but_code_scrolls_sideways_on_a_phone(opened):
    name, reader = opened
    page = reader.show("light", PHONE)
    assert page.evaluate(SCROLLS) == []
    assert page.evaluate(TINY) == [], "break it over lines (aligned, gathered)"
    assert page.evaluate(TEXT_WITH_RAW_MATHS) == []
    for table in page.evaluate(STACKED):
        assert table["role"] == "table" and set(table["rows"]) == {"row"}
        assert set(table["cells"]) <= {"cell", "rowheader"}
        assert table["bare"] == 0 and table["copies"] == 0
    if name in READ_BY_AXE and page.locator("table.stacked").count():
        assert reader.axe("table.stacked") == []


def test_what_scrolls_sideways_on_a_phone_is_found(chromium, built_book):
    reader = Reader(chromium)
    page = reader.open(built_book / f"{TOC[1]}.html")
    wide = '<div style="overflow-x: auto"><p style="width: 500px">a chart</p></div>'
    code = '<pre style="overflow-x: auto"><code style="display: block; width: 500px">x</code></pre>'
    page.evaluate(
        "html => document.querySelector('article section').insertAdjacentHTML('beforeend', html)",
        wide + code,
    )
    [found] = reader.show("light", PHONE).evaluate(SCROLLS)
    assert "a chart" in found


TABLE = """<table id="wide"><thead><tr><th scope="col" id="a">way <a href="#a">home</a></th>
<th scope="col">score</th><th scope="col">cost</th></tr></thead><tbody><tr><th scope="row">sum</th>
<td><span style="white-space: nowrap">one very long value that no phone holds</span></td>
<td><span style="white-space: nowrap" role="img" aria-label="one">and another one</span></td></tr>
</tbody></table>"""


def test_a_wide_table_is_stacked_on_a_phone_and_only_there(chromium, built_book):
    reader = Reader(chromium)
    page = reader.open(built_book / f"{TOC[1]}.html")
    slim = TABLE.replace("very long value that no phone holds", "").replace("wide", "slim")
    page.evaluate(
        "html => document.querySelector('article section').insertAdjacentHTML('beforeend', html)",
        f"<details id='fold'><summary>More</summary><div>{TABLE}</div></details><div>{slim}</div>",
    )
    table = page.locator("#wide")
    reader.show("light", PHONE)
    page.locator("#fold > summary").click()
    page.wait_for_selector("#wide.stacked")
    assert table.locator("td").first.inner_text().split("\n") == [
        "score",
        "one very long value that no phone holds",
    ]
    assert table.locator(".cell-head a, .cell-head [id]").count() == 0
    assert reader.axe("#wide") == []
    assert page.locator("#slim.stacked").count() == 0
    reader.show("light", DESKTOP)
    page.wait_for_selector("#wide:not(.stacked)")
    assert not page.locator("#wide .cell-head").first.is_visible()
    roles = page.locator("#wide [role], #wide[role]")
    assert roles.evaluate_all("elements => elements.map(element => element.role)") == ["img"]
    assert table.locator("thead").inner_text().split() == ["way", "home", "score", "cost"]


def test_panels_stand_below_each_other_on_a_phone_and_only_there(chromium, built_book):
    reader = Reader(chromium)
    page = reader.open(built_book / "notebooks/06_gradient_conflict.html")
    figure = page.locator("#fig-conflicts img")
    shape = "image => [image.naturalWidth > image.naturalHeight, image.alt, image.currentSrc]"
    wide, alt, _ = figure.evaluate(shape)
    assert wide and alt
    reader.show("light", PHONE)
    page.wait_for_function(
        "() => document.querySelector('#fig-conflicts img').currentSrc.endsWith('-phone.png')"
    )
    figure.evaluate("image => image.decode()")
    tall, same, _ = figure.evaluate(shape)
    assert not tall and same == alt
    page.emulate_media(media="print")
    page.wait_for_function(
        "() => !document.querySelector('#fig-conflicts img').currentSrc.endsWith('-phone.png')"
    )
    assert reader.wrong == []


@pytest.mark.slow
def test_a_lean_drawing_looks_the_same(chromium):
    """On a page of the book a drawing says the same in fewer words."""
    spec = spec_from_file_location("book_ext_drawings", book.ROOT / "book/_ext/drawings.py")
    drawings = module_from_spec(spec)
    spec.loader.exec_module(drawings)
    files = sorted((book.ROOT / drawings.DRAWINGS).glob("*.svg"))
    svgs = [path.read_text(encoding="utf-8") for path in files]
    lean = [drawings.lean(svg) for svg in svgs]
    lean[1:] = map(drawings.without_style, lean[1:])
    assert sum(map(len, lean)) < 0.8 * sum(map(len, svgs))
    page = chromium.new_page(viewport=DESKTOP)
    shots = []
    for shown in (svgs, lean):
        page.set_content(f"<html data-theme='dark'><body>{''.join(shown)}</body></html>")
        shots.append(page.screenshot(full_page=True))
    page.close()
    assert shots[0] == shots[1]


def test_a_flow_chart_has_its_place_before_it_is_loaded_and_is_there_in_print(chromium, built_book):
    reader = Reader(chromium)
    page = reader.open(built_book / "book/appendix/flowcharts.html")
    charts = page.locator("figure img.diagram")
    last = charts.last
    box = "image => [image.getBoundingClientRect().width, image.getBoundingClientRect().height]"
    before, loaded = last.evaluate(box), last.evaluate("image => image.complete")
    assert not loaded and min(before) > 100
    page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    page.wait_for_function(
        "() => [...document.querySelectorAll('img.diagram')].every(image => image.naturalWidth)"
    )
    assert last.evaluate(box) == before
    assert reader.wrong == []


def test_colour_mode_button(chromium, built_book):
    reader = Reader(chromium, color_scheme="light")
    page = reader.open(built_book / f"{TOC[0]}.html")
    ground = "() => getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    for _ in range(3):  # the button goes from one mode to the next
        if page.evaluate("() => document.documentElement.dataset.theme") == "dark":
            break
        page.locator("button.theme-switch-button:visible").first.click()
    page.wait_for_function(f"({ground})() !== '{light}'")
    dark = page.evaluate(ground)
    assert max(map(int, dark.removeprefix("rgb(").removesuffix(")").split(","))) < 60
    reader.open(built_book / f"{TOC[1]}.html")
    assert page.evaluate(ground) == dark, "the choice does not last to the next page"
    assert reader.wrong == []


def test_search_from_a_folder(chromium, built_book):
    reader = Reader(chromium)
    page = reader.open(built_book / f"{TOC[0]}.html")
    page.keyboard.press("Control+k")
    page.locator("#pst-search-dialog input[name=q]").fill("notation")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results li p.context mark")
    assert page.url.startswith("file:") and "q=notation" in page.url
    found = page.locator("#search-results li a").evaluate_all(
        "links => links.map(link => link.getAttribute('href'))"
    )
    assert any("book/notation.html" in link for link in found)
    assert any("#" in link for link in found), "no section is named"
    excerpt = page.locator("#search-results li p.context:has(mark)").first.inner_text()
    assert "notation" in excerpt.lower() and len(excerpt) < 300
    page.locator("#search-results li p.context a").first.click()
    page.wait_for_selector("article .highlighted")
    assert reader.wrong == []


def test_focus_is_seen_on_every_button_and_link_of_the_frame(chromium, built_book):
    reader = Reader(chromium)
    page = reader.open(built_book / f"{sample.in_turn(NOTEBOOKS, 1, sample.commit())[0]}.html")
    seen = {}
    for _ in range(60):
        page.keyboard.press("Tab")
        name, width, style = page.evaluate(
            """() => {
                const element = document.activeElement, look = getComputedStyle(element);
                const label = element.getAttribute("aria-label") || element.title;
                const name = (label || element.innerText).trim();
                return [name, parseFloat(look.outlineWidth), look.outlineStyle];
            }"""
        )
        seen[name] = width >= 2 and style != "none"
    assert {"Toggle primary sidebar", "Download this page", "Fullscreen mode", "Color mode"} <= set(
        seen
    )
    assert [name for name, ring in seen.items() if not ring] == []


QUIZ = """<details class="right"><summary>This</summary><p>Right. Yes.</p></details>
<details class="wrong"><summary>That</summary><p>Not quite. No.</p></details>"""


def test_an_open_option_of_a_quiz_says_right_or_wrong(chromium, built_book):
    reader = Reader(chromium)
    page = reader.open(built_book / f"{TOC[1]}.html")
    page.evaluate("html => document.querySelector('article section').innerHTML = html", QUIZ)
    look = """kind => {
        const summary = document.querySelector(`details.${kind} > summary`);
        const ground = getComputedStyle(document.body).backgroundColor;
        return [getComputedStyle(summary, "::after").content,
                `${getComputedStyle(summary).color} on ${ground}`];
    }"""
    for theme in ("light", "dark"):
        reader.show(theme)
        for kind, sign in (("right", "\u2713"), ("wrong", "\u2717")):
            page.evaluate("() => document.querySelectorAll('details').forEach(d => d.open = false)")
            assert sign not in page.evaluate(look, kind)[0], (
                "it is told before the option is opened"
            )
            page.locator(f"details.{kind} > summary").click()
            content, pair = page.evaluate(look, kind)
            assert sign in content and contrast(pair) >= 4.5
        assert reader.axe("article") == []


PRINTED = """() => {
    const shown = element => element.checkVisibility({contentVisibilityAuto: true});
    const color = getComputedStyle(document.querySelector("article p")).color;
    const ground = getComputedStyle(document.body).backgroundColor;
    return {
        colours: `${color} on ${ground}`,
        title: shown(document.querySelector("article h1")),
        fold: shown(document.querySelector("article details.hide")),
        quiz: document.querySelector("article details:not(.hide) p").getBoundingClientRect().height,
        wide: [...document.querySelectorAll("article :is(pre, div.math svg, table)")]
            .filter(box => box.getBoundingClientRect().right > innerWidth + 1).length,
        frames: [...document.querySelectorAll("article div.cell_input")]
            .map(frame => getComputedStyle(frame).breakInside),
        code: getComputedStyle(document.querySelector("article pre")).breakInside,
        heading: getComputedStyle(document.querySelector("article h2")).breakInside,
    };
}"""


def test_print_is_light_and_whole(chromium, built_book):
    reader = Reader(chromium, color_scheme="dark")
    page = reader.open(built_book / "notebooks/01_mtl_objective.html")
    reader.show("dark", {"width": 690, "height": 1000})  # the width of A4 between its margins
    fold = '<details class="hide"><summary>Show code</summary><pre>x</pre></details>'
    page.evaluate(
        "html => document.querySelector('article section').insertAdjacentHTML('beforeend', html)",
        fold + QUIZ,
    )
    page.emulate_media(media="print")
    page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    printed = page.evaluate(PRINTED)
    assert contrast(printed["colours"]) > 10 and printed["colours"].endswith("rgb(255, 255, 255)")
    assert printed["title"] and not printed["fold"] and printed["quiz"] > 0
    assert printed["wide"] == 0, "cut at the right edge of the paper"
    assert set(printed["frames"]) == {"avoid"} and printed["code"] == "auto"
    assert printed["heading"] == "avoid"
    page.evaluate("() => dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("() => document.documentElement.dataset.theme") == "dark"


def test_unpacked_zip_opens_anywhere(chromium, built_book, tmp_path):
    folder = tmp_path / "a folder, ünïcode & spaces"
    book.pack(built_book, tmp_path / "book.zip")
    with zipfile.ZipFile(tmp_path / "book.zip") as archive:
        archive.extractall(folder)
    unpacked = folder / "mtl-course-book"
    for path in unpacked.rglob("*"):  # so each page is the one that the tests above have opened
        assert path.is_dir() or (
            path.read_bytes() == (built_book / path.relative_to(unpacked)).read_bytes()
        )
    reader = Reader(chromium)
    reader.page.goto((unpacked / "index.html").as_uri())
    reader.page.wait_for_url(f"**/{TOC[0]}.html")
    for name in sample.in_turn(TOC, 4, sample.commit()):
        reader.open(unpacked / f"{name}.html")
    assert reader.wrong == []
