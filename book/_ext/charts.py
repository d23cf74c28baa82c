"""A flow chart is loaded when it comes near, and has its place from the beginning.

The appendix shows all charts of the course, each a file of its own. A reader who looks one up
loads that one and its neighbours; what is printed is loaded first (course.js).
"""

import re
from pathlib import Path
from urllib.parse import unquote

IMAGE = re.compile(
    r'<img (?=[^>]*class="[^"]*\bdiagram\b)(?=[^>]*src="[^"]*_images/(?P<name>[^"/]+\.svg)")'
)


def later(app, pagename, templatename, context, doctree):
    if app.builder.format != "html":
        return
    sources = {name: source for source, name in app.builder.images.items()}

    def sized(match):
        source = sources.get(unquote(match["name"]))
        if source is None:
            return match[0]
        svg = Path(app.srcdir, source).read_text(encoding="utf-8")
        size = re.findall(r' (width|height)="(\d+)"', svg[: svg.index(">")])
        return match[0] + 'loading="lazy" ' + "".join(f'{side}="{n}" ' for side, n in size)

    context["body"] = IMAGE.sub(sized, context.get("body", ""))


def setup(app):
    app.connect("html-page-context", later)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
