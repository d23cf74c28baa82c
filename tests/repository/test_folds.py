"""Folded cells on the book's pages: a button with the title, and the code without it."""

import inspect
from importlib.util import module_from_spec, spec_from_file_location

from docutils import nodes, utils

from mtl_course.dev.notebooks import ROOT, TITLE

spec = spec_from_file_location("book_ext_folds", ROOT / "book" / "_ext" / "folds.py")
folds = module_from_spec(spec)
spec.loader.exec_module(folds)


def page(*codes):
    document = utils.new_document("page")
    for code in codes:
        document += nodes.literal_block(code, code)
    folds.without_titles(None, document)
    blocks = list(document.findall(nodes.literal_block))
    assert all(block.rawsource == block.astext() for block in blocks)
    return [block.astext() for block in blocks]


def test_the_line_with_the_title_is_left_out():
    assert page("# @title Draw it\nplot()\nshow()", "# A comment\nplot()") == [
        "plot()\nshow()",
        "# A comment\nplot()",
    ]


def test_a_cell_of_nothing_else_keeps_it():
    assert page("# @title Draw it", "# @title Draw it\n\n") == [
        "# @title Draw it",
        "# @title Draw it\n\n",
    ]


def test_the_book_knows_a_title_as_the_tools_do():
    assert TITLE.match(f"{folds.TITLE}Draw it")[1] == "Draw it"


def test_a_button_is_called_as_it_reads():
    from myst_nb import sphinx_

    assert folds.ALL_ALIKE in inspect.getsource(sphinx_.visit_HideCellInput)
    context = {"body": f"<details>{folds.ALL_ALIKE}<p>Show code: Draw it</p></summary></details>"}
    folds.named_as_they_read(None, "page", "page.html", context, None)
    assert "<summary><p>Show code" in context["body"] and "aria-label" not in context["body"]
    folds.named_as_they_read(None, "search", "search.html", {}, None)


def test_the_book_uses_it():
    assert "    folds: book/_ext\n" in (ROOT / "_config.yml").read_text(encoding="utf-8")
