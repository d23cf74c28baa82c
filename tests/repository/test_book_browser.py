"""The built book as a reader's browser shows it: from ``file://``, without a network, wide and
narrow, light and dark.
"""

import re
import zipfile
from pathlib import Path

import pytest

from mtl_course.dev import book, browser, sample

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(browser.missing() is not None, reason=f"{browser.missing()}"),
]

PAGES = sample.book_pages()
TOC = PAGES[:-2]
READ_BY_AXE = set(sample.axe_pages())  # what changed, and others in turn: `dev test` prints them
SCREENSHOTS = (
    book.ROOT / "build" / "screenshots"
)  # for people to look at: one light, one dark and one of a phone for each page
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}

# What axe-core finds in the theme's own frame around the article, and why it stays.
THEIRS = {
    # the book's title above the navigation: the theme puts it outside any landmark
    "region": ".sidebar-primary-item",
}

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
        self.wrong = []
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

        path = SCREENSHOTS / f"{name.replace('/', '-')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path, full_page=True, animations="disabled")
        return Image.open(path)

    def axe(self, context=None, **options) -> list[str]:
        """What axe-core finds (in `context`), less what is `THEIRS`, one line an element."""
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
                if violation["id"] not in THEIRS or THEIRS[violation["id"]] not in target:
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


def test_maths_is_drawn(opened):
    _, reader = opened
    maths, drawn = (
        reader.page.locator(selector).count()
        for selector in (".math", ".math:has(mjx-container svg path)")
    )
    assert drawn == maths
    assert reader.page.locator("[data-mml-node=merror]").count() == 0
    assert reader.page.evaluate(TEXT_WITH_RAW_MATHS) == []


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
    page.wait_for_selector("#search-results li a")
    assert page.url.startswith("file:") and "q=notation" in page.url
    found = page.locator("#search-results li a").evaluate_all(
        "links => links.map(link => link.getAttribute('href'))"
    )
    assert any("book/notation.html" in link for link in found)
    page.locator("#search-results li a").first.click()
    page.wait_for_selector("article h1")
    assert reader.wrong == []


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
