"""Figures numbered chapter by chapter, tables without an empty head, folds with their names.

Sphinx numbers figures through the whole book. Here chapter 5 has Figure 5.1, 5.2, ..., and every
other page begins with Figure 1.

The card at the top of a chapter is a Markdown table, which cannot do without a head: an empty one
is taken out. A folded cell shows the title in its first line (``# @title Draw the curves``).
"""

import itertools
import json
import re

from docutils import nodes

CHAPTER_PAGE = re.compile(r"notebooks/(\d\d)_")
TITLE = re.compile(r"#\s*@title\s+(.+)")
GREEK = {
    "\\alpha": "α",
    "\\beta": "β",
    "\\eta": "η",
    "\\lambda": "λ",
    "\\mu": "μ",
    "\\theta": "θ",
    "\\Delta": "Δ",
}
INDEX = r"(?:[A-Za-z0-9]|\{[A-Za-z0-9]+\}|\{\\mathrm\{[A-Za-z]+\}\})"
SIMPLE = re.compile(
    rf"(?P<letter>[A-Za-z]|{'|'.join(map(re.escape, GREEK))})"
    rf"(?:_(?P<below>{INDEX}))?(?:\^(?P<above>{INDEX}))?"
)
# What a cell prints where there is no record to show (`mtl_course.records.load`).
NO_RECORD = re.compile(
    r"`python -m mtl_course\.record [^`]*` makes the record that this cell shows\.\n?"
)
BEFORE, AFTER = 400, 600  # Sphinx numbers in between


def renumber(numbers: dict, docname: str) -> dict:
    """Numbers of a page's figures: kind -> id -> (chapter, n), or (n,) outside the chapters."""
    chapter = CHAPTER_PAGE.match(docname)
    front = (int(chapter[1]),) if chapter else ()
    return {
        kind: {id: (*front, n) for n, id in enumerate(sorted(ids, key=ids.get), 1)}
        for kind, ids in numbers.items()
    }


def show_plain(app, env):
    """Give Sphinx back its own numbers: it compares, and writes again what changed."""
    env.toc_fignumbers = getattr(env, "course_fignumbers", env.toc_fignumbers)
    return []


def show_by_chapter(app, env):
    env.course_fignumbers = env.toc_fignumbers
    env.toc_fignumbers = {
        docname: renumber(numbers, docname) for docname, numbers in env.toc_fignumbers.items()
    }
    return []


def is_picture(output: dict) -> bool:
    return any(kind.startswith("image/") for kind in output.get("data", {}))


def apart(cell: dict) -> list[dict]:
    """A cell as several, so that only its picture is in the figure, and not the claim below it.

    MyST-NB makes a figure, with caption and name, of each output of a cell that has a picture.
    """
    outputs = cell.get("outputs", [])
    notes = cell.get("metadata", {}).get("mystnb", {})
    if "figure" not in notes or not any(map(is_picture, outputs)) or all(map(is_picture, outputs)):
        return [cell]
    plain = {**cell["metadata"], "mystnb": {k: v for k, v in notes.items() if k != "figure"}}
    cells = []
    for picture, run in itertools.groupby(outputs, is_picture):
        part = {**cell, "outputs": list(run), "metadata": cell["metadata"] if picture else plain}
        if cells:  # the code is shown once; MyST-NB leaves out a cell without any
            part |= {"source": "# above", "id": f"{cell.get('id', 'cell')}-{len(cells)}"}
            tags = [tag for tag in part["metadata"].get("tags", []) if not tag.startswith("hide-")]
            part["metadata"] = {**part["metadata"], "tags": [*tags, "remove-input"]}
        cells.append(part)
    return cells


def without_absent_records(cells: list[dict]) -> list[dict]:
    """The cells for a reader, to whom nothing is said of a record that is not there.

    The line that says so is for those who run the cell; a folded cell that shows nothing else goes.
    """
    left = []
    for cell in cells:
        outputs = []
        for output in cell.get("outputs", []):
            if output["output_type"] == "stream":
                text = NO_RECORD.sub("", "".join(output["text"]))
                output = {**output, "text": text}
            if output.get("text") != "":
                outputs.append(output)
        folded = "fold" in cell.get("metadata", {}).get("tags", [])
        if not (folded and not outputs and "records.load(" in "".join(cell["source"])):
            left.append({**cell, "outputs": outputs} if "outputs" in cell else cell)
    return left


def take_apart(app, docname, source):
    if not app.env.doc2path(docname).endswith(".ipynb"):
        return
    notebook = json.loads(source[0])
    cells = without_absent_records(notebook["cells"])
    notebook["cells"] = [part for cell in cells for part in apart(cell)]
    source[0] = json.dumps(notebook)


def mend(app, doctree):
    for head in list(doctree.findall(nodes.thead)):
        if not head.astext().strip():
            table = head.parent.parent
            head.parent.remove(head)
            table["classes"].append("course-card")
    for cell in doctree.findall(nodes.container):
        if "{type}" in cell.get("prompt_show", ""):  # nobody has named it
            code = next(iter(cell.findall(nodes.literal_block)), None)
            match = TITLE.match(code.astext()) if code is not None else None
            cell["prompt_show"] = f"Show code: {match[1].strip()}" if match else "Show code"
        if "prompt_show" in cell:
            cell["prompt_hide"] = cell["prompt_show"].replace("Show", "Hide", 1)


def as_words(tex: str):
    """A formula of one letter, with at most one index and power, as nodes; None for any other."""
    match = SIMPLE.fullmatch(tex.strip())
    if match is None:
        return None
    letter = GREEK.get(match["letter"], match["letter"])
    made = [nodes.emphasis("", letter)]
    for kind, name in ((nodes.subscript, "below"), (nodes.superscript, "above")):
        if match[name]:
            made.append(kind("", re.sub(r"\\mathrm|[{}]", "", match[name])))
    return made


def without_mathjax(app, doctree, docname):
    """A page with nothing but such formulas needs no 2 MB of MathJax to show them."""
    formulas = list(doctree.findall(nodes.math))
    shown = [as_words(formula.astext()) for formula in formulas]
    if all(shown) and not any(doctree.findall(nodes.math_block)):
        for formula, made in zip(formulas, shown, strict=True):
            formula.replace_self(made)


def setup(app):
    app.connect("env-get-updated", show_plain, priority=BEFORE)
    app.connect("env-get-updated", show_by_chapter, priority=AFTER)
    app.connect("source-read", take_apart)
    app.connect("doctree-read", mend)
    app.connect("doctree-resolved", without_mathjax)
    return {"version": "1", "env_version": 1, "parallel_read_safe": True}
