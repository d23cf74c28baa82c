"""The role ``zh``: Chinese words in an English page, marked for screen readers and fonts."""

from docutils import nodes


def chinese(name, rawtext, text, lineno, inliner, options=None, content=()):
    # docutils writes a class `language-x` as the attribute lang="x"
    return [nodes.inline(rawtext, text, classes=["language-zh-Hans"])], []


def setup(app):
    app.add_role("zh", chinese)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
