"""A formula in a line of text keeps the signs beside it: no line begins with a comma."""

import re
import types
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

pytest.importorskip("docutils")
from docutils import nodes
from docutils.utils import new_document

ROOT = Path(__file__).resolve().parents[2]
FORMULA = r'<span class="math[^"]*">\\\((?:(?!</span>).)*</span>'


@pytest.fixture
def unbroken():
    path = ROOT / "book" / "_ext" / "unbroken.py"
    spec = spec_from_file_location("book_ext_unbroken", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bound(module, *parts, builder="html"):
    """The paragraph of texts and formulas (``$x$``), with what may not break in brackets."""
    document = new_document("page")
    paragraph = nodes.paragraph()
    for part in parts:
        formula = part.startswith("$")
        paragraph += nodes.math("", part.strip("$")) if formula else nodes.Text(part)
    document += paragraph
    app = types.SimpleNamespace(builder=types.SimpleNamespace(format=builder))
    module.bind(app, document, "page")
    return "".join(
        f"<{part.astext()}>" if isinstance(part, nodes.inline) else part.astext()
        for part in paragraph.children
    )


@pytest.mark.parametrize(
    ("parts", "shown"),
    [
        (("so ", "$x$", ", and"), "so <x,> and"),
        (("in (", "$x$", "). So"), "in <(x).> So"),
        (("the ", "$k$", "th step"), "the <kth> step"),
        (("the ", "$k$", "-dimensional one"), "the <k->dimensional one"),
        (("a pair ", "$a$", "/", "$b$", "; it"), "a pair <a/><b;> it"),
        ((" (", "b) and", " (", "$x$", ")"), " (b) and <(x)>"),
        (("so ", "$x$", " and"), "so x and"),
        (("$x$",), "x"),
    ],
)
def test_signs_stay_with_their_formula(unbroken, parts, shown):
    assert bound(unbroken, *parts) == shown


def test_a_builder_of_another_format_gets_the_page_as_it_is(unbroken):
    assert bound(unbroken, "so ", "$x$", ", and", builder="latex") == "so x, and"


def test_no_formula_of_the_book_stands_apart_from_its_sign(built_book):
    page = (built_book / "notebooks/01_mtl_objective.html").read_text(encoding="utf-8")
    kept = re.compile(rf'<span class="unbroken">[^<]*{FORMULA}[^<]*</span>', re.S)
    assert len(kept.findall(page)) > 20
    assert re.findall(rf"{FORMULA}[.,;:)]", kept.sub("", page), re.S) == []
    style = (ROOT / "book/_static/course.css").read_text(encoding="utf-8")
    assert re.search(r"\.unbroken \{\s*white-space: nowrap;", style)
