"""The pages that answer: what they say of a chapter stands in it, where they say that it does."""

import re
from functools import cache

import pytest

from mtl_course import chapters
from mtl_course.dev.notebooks import ROOT
from mtl_course.dev.notebooks import read as notebook

APPENDIX = ROOT / "book" / "appendix"
SECTION = re.compile(r"\]\(\.\./\.\./(notebooks/\w+\.ipynb)#([\w-]+)\)")


def page(name: str) -> str:
    return (APPENDIX / f"{name}.md").read_text(encoding="utf-8")


@cache
def cells(path: str) -> list:
    return notebook(ROOT / path).cells


@cache
def headings(path: str) -> frozenset[str]:
    """The addresses that the book gives to a notebook's headings, down to the third level."""
    text = "\n".join(c.source for c in cells(path) if c.cell_type == "markdown")
    text = re.sub(r"(?s)```.*?```", "", text)
    titles = re.findall(r"^#{2,3} (.+)$", text, re.M)
    return frozenset(re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles)


def wrong_sections(text: str) -> list[str]:
    return [f"{path}#{id}" for path, id in SECTION.findall(text) if id not in headings(path)]


def subject() -> dict[str, str]:
    """Question of the FAQ -> its answer, for those about the subject."""
    groups = re.findall(r"^## The subject.*?(?=^## )", page("faq"), re.M | re.S)
    parts = [part for group in groups for part in re.split(r"^### ", group, flags=re.M)[1:]]
    return dict(part.split("\n", 1) for part in parts)


def test_each_question_about_the_subject_is_answered_with_its_evidence():
    questions = subject()
    assert len(questions) >= 45
    for question, answer in questions.items():
        assert re.search(r"[?.]$", question), question
        text, evidence = answer.strip().rsplit("\n\n", 1)
        assert 15 <= len(text.split()) <= 170, question
        assert evidence.startswith("*Evidence:* chapter ") and SECTION.search(evidence), question


def test_a_link_to_a_section_of_a_chapter_leads_there():
    pages = {path.stem: path.read_text(encoding="utf-8") for path in APPENDIX.glob("*.md")}
    assert sum(len(SECTION.findall(text)) for text in pages.values()) >= 100
    assert {name: wrong for name, text in pages.items() if (wrong := wrong_sections(text))} == {}


def test_a_link_to_a_section_that_is_not_there_is_seen():
    path = chapters.find(1).notebook
    good, bad = (f"[a](../../{path}#{id})" for id in ("when-it-fails", "when-it-works"))
    assert wrong_sections(good) == [] and wrong_sections(bad) == [f"{path}#when-it-works"]
