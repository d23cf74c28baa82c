"""Mend what the theme would leave in the browser's console.

Thebe: Jupyter Book adds it to every page. Nothing here starts a kernel in the page, its settings
name another host, and they are declared twice, which is an error. Colour mode: without a default
the theme complains and then takes "auto".
"""

from docutils import nodes

LATE = 900  # after sphinx-thebe and the theme have added theirs


def is_thebe(text: str) -> bool:
    return "thebe" in text.lower() or "kernelName =" in text


def drop_settings(app, doctree, docname):
    for node in list(doctree.findall(nodes.raw)):
        if is_thebe(node.astext()):
            node.parent.remove(node)


def mend_head(app, pagename, templatename, context, doctree):
    for kind in ("script_files", "css_files"):
        context[kind] = [
            file
            for file in context[kind]
            if not is_thebe(
                f"{getattr(file, 'filename', file)}"
                f" {getattr(file, 'attributes', {}).get('body', '')}"
            )
        ]
    context["default_mode"] = context.get("default_mode") or "auto"


def setup(app):
    app.connect("doctree-resolved", drop_settings, priority=LATE)
    app.connect("html-page-context", mend_head, priority=LATE)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
