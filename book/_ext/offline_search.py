"""Let the search page work from ``file://``.

It shows the beginning of each page it finds, which it would fetch. Browsers forbid that for files,
so there it lists titles only.
"""

SCRIPT = 'if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;'


def setup(app):
    app.add_js_file(None, body=SCRIPT)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
