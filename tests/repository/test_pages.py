"""What the book's pages and the README say of the project is so."""

import re
from pathlib import Path

import pytest

from mtl_course import chapters, check
from mtl_course.dev import check as lint
from mtl_course.dev.notebooks import ROOT
from mtl_course.dev.notebooks import read as notebook

BOOK = ROOT / "book"
TEXTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(BOOK.glob("*.md")),
    *sorted(BOOK.glob("appendix/*.md")),
]


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


README = read(ROOT / "README.md")


def test_the_example_of_a_card_is_what_a_check_shows(monkeypatch, tmp_path):
    monkeypatch.setenv("MTL_COURSE_HOME", str(tmp_path))
    monkeypatch.setenv("MTL_COURSE_CHECKS", "learn")
    section = read(BOOK / "how_to_use.md").split("## Do the exercises")[1]
    answer, call = re.findall(r"^```\w+\n(.*?)^```$", section, re.M | re.S)[:2]
    name = re.fullmatch(r'check\("(\w+)"\)\n', call)[1]
    card = read(BOOK / re.search(r"^:file: (\S+)$", section, re.M)[1])  # the one below them
    seed = int(re.search(r"seed=(\d+)", card)[1])
    scope = {}
    exec(answer, scope)
    assert check(name, scope[name], seed=seed)._repr_html_() == card.rstrip("\n")


def test_the_table_of_settings_is_complete():
    rows = set(re.findall(r"^\| `(MTL_COURSE_\w+)`", read(BOOK / "how_to_use.md"), re.M))
    used = {
        name
        for path in (ROOT / "mtl_course").rglob("*.py")
        for name in re.findall(r"MTL_COURSE_[A-Z]+", read(path))
    }
    assert rows == used


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_every_make_command_exists(path):
    targets = set(re.findall(r"^(\w+):.*?##", read(ROOT / "Makefile"), re.M))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", read(path), re.M))
    assert named <= targets


def test_the_map_on_the_cover_has_every_chapter():
    course_map = read(BOOK / "intro.md").split("```{course-map}")[1].split("```")[0]
    here = {number.zfill(2) for number in re.findall(r"^(\d+)$", course_map, re.M)}
    assert here == set(chapters.CHAPTERS), "a chapter that is here stands there by its number"
    numbers = [int(number) for number in re.findall(r"^(\d+)", course_map, re.M)]
    assert numbers == list(range(1, len(numbers) + 1)), "in reading order, none left out"


def test_every_term_of_the_glossary_has_its_chinese():
    terms = re.findall(
        r"^(\S.*)\n  (.*)$", read(BOOK / "appendix" / "glossary.md").split("```{glossary}")[1], re.M
    )
    terms = [(term, text) for term, text in terms if not term.startswith((":", "```"))]
    assert len(terms) >= 60
    assert [
        term
        for term, text in terms
        if not re.match(r"\{zh\}`[^`]*[\u4e00-\u9fff][^`]*`\. \S", text)
    ] == []
    assert len({term.lower() for term, _ in terms}) == len(terms)


def test_the_readme_lists_the_chapters_with_their_questions_and_minutes():
    rows = re.findall(r"^\| \[(.+)\]\((notebooks/.+)\) \| (.+) \| (\d+) min \|$", README, re.M)
    assert rows == [
        (chapter.heading, chapter.notebook, chapter.question, str(chapter.read))
        for chapter in chapters.CHAPTERS.values()
    ]


def test_the_parts_link_their_chapters_by_title():
    named = [
        (title, notebook)
        for path in sorted(BOOK.glob("part?.md"))
        for title, notebook in re.findall(r"^\| \[(.+?)\]\(\.\./(\S+)\) \|", read(path), re.M)
    ]
    there = [(chapter.heading, chapter.notebook) for chapter in chapters.CHAPTERS.values()]
    assert named == there


def test_each_part_links_the_labs_that_end_it():
    links = {
        (title, notebook): path.stem
        for path in sorted(BOOK.glob("part?.md"))
        for title, notebook in re.findall(r"\[(Lab \d, .+?)\]\(\.\./(\S+)\)", read(path))
    }
    there = {
        (lab.heading.replace(". ", ", ", 1), lab.notebook): lab.number.replace("lab_", "part")
        for lab in chapters.LABS.values()
    }
    assert links == there


def test_each_algorithm_has_a_title_to_link_to_and_says_what_goes_in_and_comes_out():
    text = read(BOOK / "appendix" / "pseudocode.md")
    sections = re.split(r"^### Algorithm ", text, flags=re.M)[1:]
    numbers = [section.split(". ")[0] for section in sections]
    assert len(numbers) >= 40 and len(set(numbers)) == len(numbers)
    for number, section in zip(numbers, sections, strict=True):
        [frame] = re.findall(r"^:::\{container\} algorithm\n(.*?)^:::$", section, re.M | re.S)
        assert frame.startswith("**Input:** ") and "\n**Output:** " in frame, number
        lines = len(re.findall(r"^ *\d\. ", frame, re.M))
        named = [int(line) for line in re.findall(r"\blines? (\d+)", section)]
        assert all(line <= lines for line in named), number


def test_the_flow_charts_show_each_chapter_and_every_picture_that_is_there():
    text = read(BOOK / "appendix" / "flowcharts.md")
    assert set(re.findall(r"\(\.\./\.\./(notebooks/\S+)\)", text)) == {
        chapter.notebook for chapter in chapters.CHAPTERS.values()
    }
    charts = {path.stem for path in (BOOK / "diagrams").glob("*.svg")}
    assert set(re.findall(r"^```\{figure\} \.\./diagrams/(\w+)\.svg$", text, re.M)) == charts
    drawn = re.findall(r"^```\{drawing\} (\w+)$", text, re.M)
    assert len(drawn) == len(set(drawn)) >= 16


def test_each_letter_of_the_glossary_leads_to_its_first_term():
    bar, glossary = read(BOOK / "appendix" / "glossary.md").split("```{glossary}")
    terms = sorted(re.findall(r"^(\w.*)\n  \{zh\}", glossary, re.M), key=str.lower)
    first = {}
    for term in terms:
        first.setdefault(term[0].upper(), "term-" + re.sub(r"\W+", "-", term).strip("-"))
    assert len(first) > 20
    assert {letter: id for id, letter in re.findall(r'href="#([^"]+)">(\w)<', bar)} == first


def bibliography() -> list[tuple[str, str]]:
    """(key, fields) of each entry."""
    return re.findall(r"^@\w+\{(\S+),\n(.*?)^\}$", read(BOOK / "references.bib"), re.M | re.S)


def test_each_work_that_a_chapter_cites_has_a_line_among_the_papers():
    texts = [
        cell.source
        for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
        for cell in notebook(path).cells
        if cell.cell_type == "markdown"
    ]
    cited = {lint.paper(link) for text in texts for link in lint.PAPERS.findall(text)}
    lines = re.findall(r"^- .*$", read(BOOK / "appendix" / "papers.md"), re.M)
    named = {key for line in lines for key in re.findall(r"\{cite:t\}`(\w+)`", line)}
    used = {key for key, fields in bibliography() if lint.bibliography(fields) & cited}
    assert len(used) >= 80
    assert used - named == set()


def test_every_reference_can_be_looked_up():
    entries = bibliography()
    assert len(entries) >= 25
    assert len({key for key, _ in entries}) == len(entries)
    for key, fields in entries:
        names = set(re.findall(r"^  (\w+)\s*=", fields, re.M))
        assert {"author", "title", "year"} <= names and names & {"doi", "url", "eprint"}, key
