"""Mend roles that screen readers are told about: docutils marks entries of the bibliography with one that ARIA has withdrawn."""


def mend_roles(app, pagename, templatename, context, doctree):
    if "body" in context:
        context["body"] = context["body"].replace(' role="doc-biblioentry"', ' role="listitem"')


def setup(app):
    app.connect("html-page-context", mend_roles)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
