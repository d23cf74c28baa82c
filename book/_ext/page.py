"""The finished page: what its head says, what it loads, and where a screen reader finds things.

The theme's templates leave to do: three declarations of the same viewport, a second h1 for
printing, a sidebar outside every landmark, scripts for icons and for the search on every page. A
page gets a description, a card for those who share its address (when it has one), an icon, and only
the scripts that it needs: MathJax where there is a formula, the search where one searches.
"""

import re
from base64 import b64encode
from functools import cache
from html import escape, unescape
from pathlib import Path
from urllib.parse import quote

from docutils import nodes

DESCRIPTION = (
    "An executed course on multi-task learning, transfer learning and meta-learning: from the"
    " objective in NumPy to a GPU, every claim checked each time the notebooks run."
)
LONGEST = 160  # characters of a description that search engines show
STATIC = Path(__file__).resolve().parents[1] / "_static"

VIEWPORT = re.compile(r'<meta name="viewport"[^>]*>')
PRINTED_HEAD = re.compile(r'<div id="jb-print-docs-body".*?(?=<div id="searchbox">)', re.S)
ADVERTISEMENT = re.compile(r'<div id="ethical-ad-placement"[^>]*>\s*</div>')
DARK_LOGO = re.compile(r'<img [^>]*class="logo__image only-dark[^>]*>')  # one logo fits both modes
SIDEBAR = '<div id="pst-primary-sidebar" '
EMPTY_HEADER = re.compile(r'<header id="pst-header"[^>]*>\s*</header>')
TITLE = re.compile(r"<title>(.*?) &#8212; (.*?)</title>")
BUNDLED = re.compile(
    r'[ \t]*<link [^>]*href="([^"]*_static/(?:styles/)?(?:theme|pydata-sphinx-theme|pygments'
    r"|sphinx-book-theme|togglebutton|copybutton|mystnb\.[0-9a-f]+|sphinx-design\.min|basic)"
    r'\.css)[^"]*"[^>]*>\n?'
)
FORMULA = re.compile(r'class="[^"]*\bmath\b[^"]*notranslate')


def script(names: str) -> re.Pattern:
    """The elements that load these scripts, or set them up."""
    return re.compile(
        rf'[ \t]*<(?:script|link)\b[^>]*(?:src|href)="[^"]*/(?:{names})["?][^>]*>(?:</script>)?\n?'
    )


def inline(words: str) -> re.Pattern:
    return re.compile(rf"[ \t]*<script[^>]*>[^<]*(?:{words})[^<]*</script>\n?")


# name -> (what a page that needs it shows, the scripts, their settings)
ONLY_WHERE_NEEDED = {
    "formulas": (FORMULA, script(r"tex-svg\.js"), inline(r"window\.MathJax")),
    "copying": (
        re.compile(r'class="highlight\b'),
        script(r"clipboard\.min\.js|copybutton\.js"),
        None,
    ),
    "toggles": (
        re.compile(r'class="[^"]*(?:\btoggle\b|admonition[^"]*\bdropdown\b)'),
        script(r"togglebutton\.js"),
        inline(r"toggleHint|toggleOpenOnPrint|togglebuttonSelector"),
    ),
    "tabs": (re.compile(r'class="[^"]*\bsd-tab'), script(r"design-tabs\.js"), None),
}
ICON_SCRIPT = script(r"fontawesome\.js")
SEARCH = re.compile(
    r'[ \t]*<script src="[^"]*(?:searchtools|language_data|searchindex)\.js[^"]*"></script>\n?'
)


def describe(doctree) -> str:
    """The beginning of a page's text, up to the end of a word, for its description."""
    words = ""
    for paragraph in doctree.findall(nodes.paragraph):
        above, skipped = paragraph.parent, False
        while above is not None:
            skipped |= isinstance(above, nodes.table | nodes.raw | nodes.figure)
            above = above.parent
        text = " ".join(paragraph.astext().split())
        if not skipped and not text.startswith(("\u2190", "Open ")):
            words = f"{words} {text}".strip()
        if len(words) > LONGEST:
            return words[:LONGEST].rsplit(" ", 1)[0] + " …"
    return words


def remember(app, pagename, templatename, context, doctree):
    """What the finished page's head will say; the templates know nothing of it."""
    description = describe(doctree) if doctree else ""
    if pagename == app.config.root_doc or len(description) < 40:
        description = DESCRIPTION
    title = unescape(re.sub(r"<[^>]+>", "", context.get("title") or app.config.html_title))
    context["course_page"] = {"name": pagename, "title": title, "description": description}


@cache
def icons() -> str:
    """The book's mark, for browsers with and without SVG; in the page, so nothing is fetched."""
    svg = re.sub(r">\s+<", "><", (STATIC / "logo.svg").read_text(encoding="utf-8").strip())
    png = b64encode((STATIC / "favicon.png").read_bytes()).decode()
    return (
        f'<link rel="icon" type="image/svg+xml" href="data:image/svg+xml,{quote(svg, " =:/")}" />\n'
        f'<link rel="alternate icon" type="image/png" href="data:image/png;base64,{png}" />'
    )


def head(page: dict, address: str) -> str:
    """The elements that a page's head gets."""
    described = escape(page["description"])
    lines = [
        f'<meta name="description" content="{described}" />',
        icons(),
    ]
    card = {
        "og:type": "website" if not address else "article",
        "og:title": page["title"],
        "og:description": page["description"],
    }
    if address:  # a card's picture and page are found by their full addresses only
        address = address.rstrip("/")
        card |= {
            "og:url": f"{address}/{page['name']}.html",
            "og:image": f"{address}/_static/card.png",
            "og:image:width": "1200",
            "og:image:height": "630",
            "og:image:alt": "One trunk that several tasks share, and the title of the course",
        }
        lines.append('<meta name="twitter:card" content="summary_large_image" />')
    lines += [f'<meta property="{key}" content="{escape(value)}" />' for key, value in card.items()]
    return "\n".join(lines)


def finish(html: str, page: dict, address: str = "") -> str:
    """A page as the templates made it -> as it is written."""
    match = re.search(r'data-content_root="([^"]*)"', html)
    if match is None:  # not one of the theme's pages
        return html
    root = match[1].removeprefix("./")
    first = VIEWPORT.search(html)
    if first:
        html = html[: first.end()] + VIEWPORT.sub("", html[first.end() :])
    html = TITLE.sub(
        lambda title: title[0] if title[1] != title[2] else f"<title>{title[1]}</title>", html
    )
    html = PRINTED_HEAD.sub("", html)
    html = ADVERTISEMENT.sub("", html)
    html = DARK_LOGO.sub("", html).replace('class="logo__image only-light"', 'class="logo__image"')
    html = html.replace(SIDEBAR, SIDEBAR + 'role="region" aria-label="Sidebar" ')
    article = html[html.find("<article") :]
    for shown, scripts, settings in ONLY_WHERE_NEEDED.values():
        if not shown.search(article):
            html = scripts.sub("", html)
            html = settings.sub("", html) if settings else html
    html = ICON_SCRIPT.sub("", html)
    if page["name"] != "search":
        html = SEARCH.sub("", html)
    html = bundle(html, root)
    return html.replace("</title>", f"</title>\n{head(page, address)}", 1)


def bundle(html: str, root: str) -> str:
    """One style sheet in place of the theme's; ``styles.py`` makes it of what the book uses."""
    links = list(BUNDLED.finditer(html))
    for link in reversed(links[1:]):
        html = html[: link.start()] + html[link.end() :]
    if links:
        one = f'<link rel="stylesheet" href="{root}_static/book.css" />\n'
        html = html[: links[0].start()] + one + html[links[0].end() :]
    return html


def wrap_templates(app):
    render = getattr(getattr(app.builder, "templates", None), "render", None)
    if app.builder.format != "html" or render is None:
        return

    def finished(template, context):
        html = render(template, context)
        page = context.get("course_page")
        return finish(html, page, app.config.html_baseurl) if page else html

    app.builder.templates.render = finished


def setup(app):
    app.connect("builder-inited", wrap_templates)
    app.connect("html-page-context", remember, priority=900)
    return {"version": "1", "parallel_read_safe": True}
