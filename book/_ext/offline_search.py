"""The search works from ``file://``, and shows where on a page the words stand.

Sphinx's search fetches each page that it finds, which browsers forbid for files. Here each page's
text is a small script, ``_static/text/<page>.js``, with one entry per section; the search page
loads those of the pages it found, shows the sections with the words, and links them.
"""

import json
import re
from html import unescape
from pathlib import Path

SHOWN = "DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;"  # course_search.js shows more
SCRIPT = "course_search.js"
FOLDER = Path("_static", "text")

SECTION = re.compile(r'<section\b[^>]*\bid="([^"]+)"[^>]*>')
HEADING = re.compile(r"<h[1-6]\b[^>]*>(.*?)</h[1-6]>", re.S)
NO_TEXT = re.compile(
    r'<(script|style|svg|dialog)\b.*?</\1>|<a class="headerlink".*?</a>'
    r'|<div class="highlight-.*?</pre></div>\s*</div>|<div class="math\b.*?</div>',
    re.S,
)


def plain(html: str) -> str:
    text = unescape(re.sub(r"<[^>]+>", " ", html))
    text = re.sub(r"\\[()]", "", text)  # of formulas in a line
    return re.sub(r"\s+([.,;:)])", r"\1", " ".join(text.split()))


def sections(html: str) -> list[list[str]]:
    """[id, heading, text] of each section of a page, without its code and displayed formulas."""
    begin, end = html.find("<article"), html.rfind("</article>")
    article = NO_TEXT.sub(" ", html[begin:end])
    parts = SECTION.split(article)
    found = []
    for id, content in zip(parts[1::2], parts[2::2], strict=True):
        heading = HEADING.search(content)
        title = plain(heading[1]) if heading else ""
        found.append([id, title, plain(HEADING.sub(" ", content, count=1))])
    return found


def write(app, exception):
    if exception is not None or app.builder.format != "html":
        return
    root = Path(app.outdir)
    written = set()
    for docname in sorted(app.env.found_docs):
        page, target = root / f"{docname}.html", root / FOLDER / f"{docname}.js"
        written.add(target)
        if not page.exists() or (
            target.exists() and target.stat().st_mtime >= page.stat().st_mtime
        ):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        told = json.dumps(sections(page.read_text(encoding="utf-8")), ensure_ascii=False)
        target.write_text(f"courseText({json.dumps(docname)}, {told});\n", encoding="utf-8")
    for path in (root / FOLDER).rglob("*.js"):
        if path not in written:  # of a page that is no longer in the book
            path.unlink()


def add_script(app, pagename, templatename, context, doctree):
    if pagename == "search":
        app.add_js_file(SCRIPT, loading_method="defer")


def setup(app):
    app.add_js_file(None, body=SHOWN)
    app.connect("html-page-context", add_script)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
