"""Mend the pages' HTML for keyboards and screen readers.

Docutils and the theme leave something to do.

Docutils gives the entries of a bibliography a role that ARIA has withdrawn. The empty corner of a
table heads nothing. Chinese terms are marked as Chinese, so that they are pronounced, and drawn, as
such. The arrow that unfolds a part of the contents has no name. A part stands there twice, as
caption and as page.
"""

import re

MENDS = [
    (re.compile(r' role="doc-biblioentry"'), ' role="listitem"'),
    (re.compile(r'<th class="head">(<p></p>)?</th>'), "<td></td>"),
    # In text, not in a tag's attributes.
    (re.compile(r"[\u3400-\u9fff]+(?![^<]*>)"), r'<span lang="zh">\g<0></span>'),
]


PART = re.compile(r"Part [IVX]+\b")  # how the title of a part's page begins
LATE = 900  # after the theme has added what it draws the contents with


def name_arrows(app, pagename, templatename, context, doctree):
    draw = context.get("generate_toctree_html")
    if draw is None:  # the pages that Sphinx adds without the theme's frame
        return

    def drawn(*arguments, **options):
        contents = draw(*arguments, **options)
        if hasattr(contents, "find_all"):
            for arrow in contents.find_all("summary"):
                arrow["aria-label"] = "Pages below this one"
            link_parts(contents)
        return contents

    context["generate_toctree_html"] = drawn


def link_parts(contents):
    """A part's page is the link of its caption, and no entry of its own below it."""
    for caption in contents.select("p.caption"):
        pages = caption.find_next_sibling("ul")
        entry = pages.find("li") if pages else None
        link = entry.find("a") if entry else None
        if link is None or not PART.match(link.get_text(strip=True)):
            continue
        text = caption.find(class_="caption-text")
        link.string = text.get_text()
        text.clear()
        text.append(link.extract())
        if "current" in entry.get("class", ()):
            link["aria-current"] = "page"
            caption["class"] = [*caption.get("class", ()), "current"]
        entry.decompose()
        if not pages.find("li"):
            pages.decompose()


def mend(app, pagename, templatename, context, doctree):
    for pattern, new in MENDS:
        context["body"] = pattern.sub(new, context.get("body", ""))


def setup(app):
    app.connect("html-page-context", mend)
    app.connect("html-page-context", name_arrows, priority=LATE)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
