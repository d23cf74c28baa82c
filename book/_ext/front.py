"""The face of the book: the directives ``cover-hero`` and ``course-map`` of the cover.

Both are made from what the course knows of itself, so that a new chapter changes them: the chapters
and their questions and times from `mtl_course/chapters.py`, the exercises from the notebooks, the
drawing from `mtl_course/drawings`.
"""

import json
import re
import sys
from html import escape
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

DRAWINGS = Path("mtl_course", "drawings")
FIRST, RUN, TEACH = "notebooks/01_mtl_objective", "book/how_to_use", "book/appendix/teaching"
COLAB = "https://colab.research.google.com/github/{place}/blob/{branch}/{notebook}"
PART = re.compile(r"(Part [IVX]+)\. (.+?)(?: \((\w+)\))?")
PLANNED = re.compile(r"(\d+)(?:\. (.+?): (.+))?")


def read_chapters(root: Path) -> dict:
    """Number -> chapter, from the package's file: no package is installed here."""
    path = root / "mtl_course" / "chapters.py"
    spec = spec_from_file_location("mtl_course_chapters", path)
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.CHAPTERS


def exercises(root: Path, chapters: dict) -> int:
    """How many cells of the notebooks ask for an answer."""
    count = 0
    for chapter in chapters.values():
        cells = json.loads((root / chapter.notebook).read_text(encoding="utf-8"))["cells"]
        count += sum("".join(cell["source"]).startswith("# EXERCISE ") for cell in cells)
    return count


def facts(root: Path, chapters: dict) -> list[tuple[str, str]]:
    """What the course has, as numbers and their words; hours of reading are rounded."""
    hours = round(sum(chapter.read for chapter in chapters.values()) / 60)
    return [
        (str(len(chapters)), "chapters"),
        (f"{hours} h", "to read"),
        ("1 min", "to run a chapter on a laptop"),
        (str(exercises(root, chapters)), "exercises that check themselves"),
    ]


def drawing(root: Path) -> str:
    """The cover's drawing and its twin for a phone."""
    wide, narrow = (
        (root / DRAWINGS / f"{name}.svg").read_text(encoding="utf-8").strip()
        for name in ("cover", "cover_phone")
    )
    return f'<div class="hero-wide">{wide}</div><div class="hero-narrow">{narrow}</div>'


class Front(SphinxDirective):
    """What both directives need: the root, the chapters, and addresses of pages."""

    has_content = True

    @property
    def root(self) -> Path:
        return Path(self.env.srcdir)

    def page(self, docname: str) -> str:
        """The address of a page, seen from this one."""
        return self.env.app.builder.get_relative_uri(self.env.docname, docname)

    def chapters(self) -> dict:
        chapters = read_chapters(self.root)
        self.env.note_dependency(str(self.root / "mtl_course" / "chapters.py"))
        for chapter in chapters.values():
            self.env.note_dependency(str(self.root / chapter.notebook))
        return chapters


class CoverHero(Front):
    """The first screen: the sentences of the content, three buttons, facts, the drawing."""

    def run(self):
        for name in ("cover", "cover_phone"):
            self.env.note_dependency(str(self.root / DRAWINGS / f"{name}.svg"))
        words = nodes.container(classes=["hero-words"])
        self.state.nested_parse(self.content, self.content_offset, words)
        numbers = "".join(
            f"<li><strong>{escape(number)}</strong> {escape(what)}</li>"
            for number, what in facts(self.root, self.chapters())
        )
        html = (
            f'<p class="hero-buttons">{self.buttons()}</p>\n<ul class="hero-facts">{numbers}</ul>'
        )
        return [
            nodes.raw("", f'<div class="hero">{drawing(self.root)}', format="html"),
            words,
            nodes.raw("", f"{html}</div>", format="html"),
        ]

    def buttons(self) -> str:
        """Read, run, teach; run leads to Colab where the course has an address."""
        options = self.config.html_theme_options
        repository = options.get("repository_url", "")
        run, where = self.page(RUN) + "#run-it-on-your-own-machine", "Run on your machine"
        if repository:
            place = repository.rstrip("/").removeprefix("https://github.com/")
            branch = options.get("repository_branch", "main")
            run = COLAB.format(place=place, branch=branch, notebook=f"{FIRST}.ipynb")
            where = "Run on Colab"
        buttons = [
            ("Read chapter 1", self.page(FIRST)),
            (where, run),
            ("Teach with it", self.page(TEACH)),
        ]
        return "".join(
            f'<a class="hero-button" href="{escape(address)}">{escape(text)}</a>'
            for text, address in buttons
        )


class CourseMap(Front):
    """Parts and their chapters, each a link; on a wide page parts II to IV stand side by side.

    The content has a line for each part, ``Part II. Multi-task networks (part2)`` with the page
    that opens it, if there is one, and below it a line for each chapter: the number of one that is
    here, or ``9. Title: question`` of one that is planned.
    """

    def run(self):
        chapters, parts = self.chapters(), []
        for line in filter(None, map(str.strip, self.content)):
            if part := PART.fullmatch(line):
                parts.append((*part.groups(), []))
            elif (entry := PLANNED.fullmatch(line)) and parts:
                parts[-1][-1].append(self.card(chapters, *entry.groups()))
            else:
                raise ExtensionError(f"course-map cannot read this line: {line}")
        if missing := chapters.keys() - self.shown(self.content):
            raise ExtensionError(
                f"course-map lacks the chapters {', '.join(sorted(missing))}: add their numbers."
            )
        blocks = "\n".join(self.block(*part) for part in parts)
        html = f'<nav class="course-map" aria-label="Map of the course">\n{blocks}\n</nav>'
        return [nodes.raw("", html, format="html")]

    @staticmethod
    def shown(lines) -> set[str]:
        return {entry[1].zfill(2) for entry in map(PLANNED.fullmatch, lines) if entry}

    def card(self, chapters: dict, number: str, title: str | None, question: str | None) -> str:
        """A chapter that is here, as a link; or a planned one, with a dashed frame."""
        chapter = chapters.get(number.zfill(2))
        if chapter and title:
            raise ExtensionError(f"Chapter {number} is here: course-map needs its number alone.")
        if not chapter and not title:
            raise ExtensionError(f"Chapter {number} is not here: course-map needs its title.")
        title, question = (chapter.title, chapter.question) if chapter else (title, question)
        words = (
            f'<span class="map-title"><span class="map-number">{number}</span>'
            f' {escape(title)}</span> <span class="map-question">{escape(question)}</span>'
        )
        if not chapter:
            return f'<li class="map-planned">{words} <span class="map-state">planned</span></li>'
        address = escape(self.page(chapter.notebook.removesuffix(".ipynb")))
        return f'<li><a href="{address}">{words}</a></li>'

    def block(self, part: str, title: str, page: str | None, cards: list[str]) -> str:
        """One part with its chapters."""
        head = f"{part}. {escape(title)}"
        if page:
            head = f'<a href="{escape(self.page(f"book/{page}"))}">{head}</a>'
        name = part.lower().replace(" ", "-")
        items = "\n".join(cards)
        return (
            f'<section class="map-part map-{name}"><p class="map-head">{head}</p>\n'
            f"<ol>\n{items}\n</ol></section>"
        )


def setup(app):
    app.add_directive("cover-hero", CoverHero)
    app.add_directive("course-map", CourseMap)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
