"""The pages that answer: what they say of a chapter stands in it, where they say that it does."""

import re
from functools import cache

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
    """The addresses that the book gives to a notebook's headings, down to the third level.

    A heading with a formula has one that is hard to foresee, so nothing may link it.
    """
    text = "\n".join(c.source for c in cells(path) if c.cell_type == "markdown")
    text = re.sub(r"(?s)```.*?```", "", text)
    titles = re.findall(r"^#{2,3} ([^$\n]+)$", text, re.M)
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


# Which method?


def shown(path: str) -> str:
    """All that a notebook says: its texts, and the words of its outputs."""
    texts = []
    for cell in cells(path):
        texts.append(cell.source if cell.cell_type == "markdown" else "")
        for output in cell.get("outputs", []):
            texts.append(output.get("data", {}).get("text/plain", output.get("text", "")))
    return "\n".join(texts)


def rounds_to(number: str, text: str) -> bool:
    """Whether a text has a number that is this one, or is rounded to it; in points or in parts."""
    digits = len(number.split(".")[1])
    for candidate in re.findall(r"[-\u2212]?\d+\.\d+", text):
        value = float(candidate.replace("\u2212", "-"))
        for scale in (1, 100):
            fine = len(candidate.split(".")[1]) >= digits - (2 if scale == 100 else 0)
            if fine and abs(abs(value * scale) - abs(float(number))) <= 0.5000001 * 10**-digits:
                return True
    return False


def without_source(table_rows: list[str]) -> list[str]:
    """The decimals of rows that stand in none of the notebooks that the row links."""
    wrong = []
    for row in table_rows:
        text = "\n".join(shown(path) for path in {path for path, _ in SECTION.findall(row)})
        plain = re.sub(r"\]\([^)]*\)", "]", row)
        wrong += [
            f"{number}: {row[:60]}"
            for number in re.findall(r"-?\d+\.\d+", plain)
            if not rounds_to(number, text)
        ]
    return wrong


def rows_of(text: str) -> list[str]:
    return [row for row in re.findall(r"^\| .* \|$", text, re.M) if "---" not in row]


def test_numbers_of_the_guide_stand_in_the_chapters_that_it_links():
    rows = [row for row in rows_of(page("which_method")) if SECTION.search(row)]
    assert len(rows) >= 25
    assert without_source(rows) == []


def test_a_number_without_a_source_is_seen():
    row = "| schools, $R^2$ of 0.35 ([x](../../notebooks/01_mtl_objective.ipynb#the-objective)) |"
    assert without_source([row]) == []
    assert without_source([row.replace("0.35", "0.3519")]) != []


def test_the_guide_leads_to_every_chapter_with_a_number_and_a_case_against():
    rows = [row for row in rows_of(page("which_method")) if row.count("|") == 5]
    named = {int(n) for row in rows for n in re.findall(r"chapter (\d+)", row)}
    # Chapter 3 is about running the others.
    methods = {int(number) for number in chapters.CHAPTERS if int(number) <= 20} - {3}
    assert methods <= named
    for row in rows[1:]:
        situation, take, worth, against = (part.strip() for part in row.strip("| ").split(" | "))
        if situation == "Your situation":
            continue
        assert re.search(r"chapter \d+", take) and re.search(r"\d", worth) and against, row


# The other pages


def test_the_plan_of_two_terms_has_every_chapter_and_exercises_that_exist():
    text = page("teaching").split("## Two terms")[1].split("## Labs")[0]
    rows = re.findall(r"^\| chapter (\d+) \| .+ \| (.+) \|$", text, re.M)
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    assert len(rows) >= len(chapters.CHAPTERS)
    for number, task in rows:
        if match := re.fullmatch(r"exercise (\d+) of chapter (\d+)", task):
            assert match[2] == number
            path = chapters.find(number).notebook
            assert any(f"### Exercise {match[1]}. " in cell.source for cell in cells(path)), task


def test_each_misconception_is_mended_somewhere():
    text = page("teaching").split("## Common misconceptions")[1].split("\n## ")[0]
    rows = [row.strip("| ").split(" | ") for row in rows_of(text)][1:]
    assert len(rows) >= 30
    for said, so, where in rows:
        assert said.endswith(".") and so.endswith("."), said
        assert re.search(r"chapters? \d+", where), said


def test_each_application_has_its_method_data_work_and_code():
    parts = re.split(r"^### ", page("applications"), flags=re.M)[1:]
    assert len(parts) >= 13
    for part in parts:
        labels = re.findall(r"^- \*\*(.+?)\.\*\* (.+)$", part, re.M)
        assert [label for label, _ in labels] == [
            "The method here",
            "Public data",
            "A work",
            "In the code",
        ], part[:20]
        told = dict(labels)
        assert re.search(r"chapters? \d+", told["The method here"])
        assert "{cite:t}`" in told["A work"] or "no work is cited" in told["A work"]


def test_each_metric_of_the_table_has_a_use_and_a_trap():
    text = page("formulas").split("### Which metric, and its trap")[1]
    rows = [row.strip("| ").split(" | ") for row in rows_of(text)]
    assert len(rows) >= 14 and all(len(row) == 3 and all(row) for row in rows)


def test_each_outlook_says_what_is_known_from_whom_and_what_is_open():
    parts = re.split(r"^## ", page("outlook"), flags=re.M)[1:]
    assert len(parts) >= 7
    for part in parts:
        assert "**What is known.**" in part and "**What is open.**" in part, part[:20]
        assert "{cite:" in part or re.search(r"[Cc]hapter \d+", part), part[:20]
