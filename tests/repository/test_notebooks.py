"""Every notebook passes every lint; and each lint catches a small bad notebook made for it."""

import types

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from mtl_course import chapters
from mtl_course.dev import check, new, normalise, notebooks, sync

URL, BRANCH = "https://github.com/someone/somewhere", "main"
CHAPTER = chapters.Chapter("99", "throw_away", "A throw-away chapter", "Does it work?", 31, 2, 7)


@pytest.mark.parametrize(
    "chapter", [*chapters.CHAPTERS.values(), *chapters.LABS.values()], ids=lambda c: c.number
)
def test_notebook_has_no_problem(chapter):
    assert check.lint(check.page(chapter, notebooks.ROOT / chapter.notebook)) == []


def test_there_is_no_notebook_without_a_chapter():
    every = [*chapters.CHAPTERS.values(), *chapters.LABS.values()]
    listed = {chapter.notebook for chapter in every}
    assert {
        f"notebooks/{path.name}" for path in (notebooks.ROOT / "notebooks").glob("*.ipynb")
    } == listed


def test_no_two_figures_of_the_book_have_one_name():
    """They are labels of one book: the second would have no number and no link."""
    paths = (notebooks.ROOT / "notebooks").glob("*.ipynb")
    cells = [cell for path in paths for cell in notebooks.read(path).cells]
    figures = [cell.metadata.get("mystnb", {}).get("figure", {}) for cell in cells]
    names = [figure["name"] for figure in figures if figure]
    assert len(names) > 50 and sorted(names) == sorted(set(names))


EXERCISE = types.SimpleNamespace(
    name="root",
    stub='def root(x):\n    raise NotImplementedError("your answer goes here")',
    solution="def root(x):\n    guess = x ** 0.5\n    return guess",
    reference=sync.synced,
    starter=None,
)
MEND = types.SimpleNamespace(
    name="mend",
    stub="def mend(x):\n    y = x.abs()\n    return y - 1",
    solution="def mend(x):\n    y = x.abs()\n    # the sign was wrong\n    return y + 1",
    reference=sync.synced,
    starter=print,
)
EXERCISES = {"root": EXERCISE, "mend": MEND}


HEADING = "### Exercise {n}. A root\n\n*Difficulty: ★★☆ · about 10 minutes*\n\nWrite it."


def good():
    """A notebook without a problem, as `check` sees it; the tests below spoil it one way each."""
    cells = [
        new_markdown_cell(
            "# 99. A throw-away chapter\nDoes it work? 31 minutes to read, 2 to run, 7 on a GPU. "
            "<!-- colab --><!-- /colab -->\nSee [a paper](https://doi.org/10.1000/a)."
        ),
        new_code_cell(notebooks.FIRST),
        new_markdown_cell(
            "Text with $x_1$, `code{x}`.\n\n$$y ="
            f" 2$$\n\n<details><summary>Yes</summary>Right.</details>\n\n{HEADING.format(n=1)}"
        ),
        new_code_cell(
            "plot()",
            metadata={
                "mystnb": {
                    "image": {"alt": "A line"},
                    "figure": {"caption": "A line.", "name": "fig-line"},
                }
            },
        ),
        new_code_cell("# EXERCISE root"),
        new_code_cell('check("root")'),
        new_markdown_cell(HEADING.format(n=2)),
        new_code_cell("# EXERCISE mend"),
        new_code_cell('check("mend")'),
        new_code_cell("def plus(y):\n    return y + 1"),
        new_code_cell('step = use("root")\n%pip install -q "some-package>=1"'),
        new_code_cell('# @title What we saw\nclaim("It works", True)', metadata={"tags": ["fold"]}),
        new_markdown_cell(f"## Quiz\n\n{new.quiz()}"),
        new_markdown_cell("## Take-aways\n\n<details><summary>Fine print</summary>x</details>"),
    ]
    nb = sync.synced(new_notebook(cells=cells), CHAPTER, EXERCISES, URL, BRANCH)
    nb.cells[3].outputs = [new_output("display_data", data={"image/png": "aGVsbG8="})]
    return nb


def page(nb, run=True):
    if run:
        for count, cell in enumerate(notebooks.code_cells(nb), 1):
            cell.execution_count = count
        nb.metadata["mtl_course"] = {"code": normalise.code_hash(nb)}
    return check.Page(
        nb, CHAPTER, EXERCISES, sync.synced(nb, CHAPTER, EXERCISES, URL, BRANCH), {"10.1000/a"}
    )


def test_a_good_notebook_has_no_problem():
    assert check.lint(page(good())) == []


def source(index, text):
    return lambda nb: nb.cells[index].update(source=text)


def add(*cells):
    return lambda nb: nb.cells.extend(cells)


def markdown(text):
    return add(new_markdown_cell(text))


def code(text):
    return add(new_code_cell(text))


def output(kind="stream", **fields):
    return add(new_code_cell("show()", outputs=[new_output(kind, **fields)]))


def spoil_quiz(old, new_text):
    """The first of these in the quiz becomes something else."""
    return lambda nb: nb.cells[12].update(source=nb.cells[12].source.replace(old, new_text, 1))


def look(**mystnb):
    return lambda nb: nb.cells[3].metadata.update(mystnb=mystnb)


IMAGE, FIGURE = {"alt": "A line"}, {"caption": "A line.", "name": "fig-line"}
ROOT_SHOWN = "holds the answer of the exercise root"
RESULT = new_output("execute_result", data={"text/plain": "[1]"})
PICTURE = {"image/png": "aGVsbG8="}
BAD = {
    "stale stub": (source(4, "# EXERCISE root\ndef root(y): ..."), "exercise root"),
    "stale first cell": (
        source(1, "# Run this first.\nimport mtl_course"),
        "first cell (cell 1) is stale",
    ),
    "first cell not folded": (
        lambda nb: nb.cells[1].update(metadata={}),
        "first cell (cell 1) is stale",
    ),
    "stale fold": (source(11, "# @title Another\nclaim('x', True)"), "fold (cell 11) is stale"),
    "fold without what it stands for": (
        lambda nb: nb.cells[11].metadata.pop("cellView"),
        "fold (cell 11) is stale",
    ),
    "fold without a title": (
        source(11, "claim('x', True)"),
        "does not begin with a line `# @title",
    ),
    "folded text": (
        add(new_markdown_cell("Text.", metadata={"tags": ["fold"]})),
        "does not begin with a line `# @title",
    ),
    "folded exercise": (
        lambda nb: nb.cells[4].metadata.update(tags=["fold"]),
        "cell 4 is folded, but a reader works",
    ),
    "hidden without fold": (
        add(new_code_cell("1", metadata={"tags": ["hide-input"]})),
        "has the tag hide-input without fold",
    ),
    "a verb bound": (code("use = 3"), "binds use anew"),
    "a verb bound by a loop": (code("for hint in range(3):\n    pass"), "binds hint anew"),
    "a function named as a verb": (code("def claim(x):\n    return x"), "binds claim anew"),
    "the session bound": (code("with timer() as session:\n    pass"), "binds session anew"),
    "wide output": (output(text="short\n" + "a" * 77), "shows a line of 77 characters"),
    "wide result": (
        output("execute_result", data={"text/plain": "b" * 90, "text/html": "b"}),
        "shows a line of 90 characters",
    ),
    "claims in sight": (code('claim("a", True)\nclaim("b", True)'), "has only claims"),
    "no heading": (source(6, "Write it."), "the exercise mend has no heading"),
    "heading without exercise": (markdown(HEADING.format(n=3)), "there are 3 headings"),
    "gap in the numbers": (source(6, HEADING.format(n=3)), "the next one is `### Exercise 2."),
    "heading without title": (
        source(6, HEADING.format(n=2).replace(". A root", "")),
        "the next one is `### Exercise 2.",
    ),
    "no difficulty": (source(6, "### Exercise 2. A root\n\nWrite."), "stands no line such as"),
    "four stars": (source(6, HEADING.format(n=2).replace("★★☆", "★★★★")), "stands no line such as"),
    "no quiz": (lambda nb: nb.cells.pop(12), "no section `## Quiz`"),
    "short quiz": (
        source(12, "## Quiz\n\n" + new.quiz().split("**3.")[0]),
        "the quiz has 2 questions",
    ),
    "option without a class": (spoil_quiz('<details class="right">', "<details>"), "lacks class"),
    "option of another class": (spoil_quiz('class="right"', 'class="yes"'), "lacks class"),
    "option without summary": (
        spoil_quiz("<summary>An option, as a sentence.</summary>", "An option."),
        "has no <summary>",
    ),
    "explanation that does not say right": (spoil_quiz("Right.", "Yes."), 'begins with "Right."'),
    "explanation that does not say wrong": (spoil_quiz("Not quite.", "No."), '"Not quite."'),
    "two right": (
        spoil_quiz('class="wrong"', 'class="right"'),
        "question 1 of the quiz has 2 right options",
    ),
    "none right": (
        spoil_quiz('class="right"', 'class="wrong"'),
        "question 1 of the quiz has 0 right options",
    ),
    "one option": (
        source(12, '## Quiz\n\n1\n<details class="right"><summary>a</summary>Right.</details>'),
        "has 1 option;",
    ),
    "right ones in one place": (
        source(12, "## Quiz\n\n" + "\n\n".join([new.quiz().split("\n\n**2.")[0]] * 3)),
        "all stand in the same place",
    ),
    "stale Colab link": (
        source(0, good().cells[0].source.replace("someone", "nobody")),
        "Colab link (cell 0) is stale",
    ),
    "check cell without its tag": (
        lambda nb: nb.cells[5].update(metadata={}),
        "exercise root (cell 5) is stale",
    ),
    "wrong title": (
        source(0, "# Another\nDoes it work? <!-- colab --><!-- /colab -->"),
        "title card",
    ),
    "no question": (
        source(0, "# 99. A throw-away chapter\n<!-- colab --><!-- /colab -->"),
        "does not ask",
    ),
    "other minutes": (
        source(0, good().cells[0].source.replace("31", "30")),
        "does not name the 31 minutes",
    ),
    "no Colab link": (source(0, "# A throw-away chapter\nDoes it work?"), "no `<!-- colab -->"),
    "first cell not first": (
        lambda nb: nb.cells.insert(1, nb.cells.pop(2)),
        "cell 1 is not the generated first cell",
    ),
    "exercise not there": (
        lambda nb: nb.cells.__delitem__(slice(4, 6)),
        "no cell `# EXERCISE root`",
    ),
    "unknown exercise": (
        add(new_code_cell("# EXERCISE cube"), new_code_cell('check("cube")')),
        "does not define",
    ),
    "exercise not checked": (lambda nb: nb.cells.pop(5), "not followed by a cell `check"),
    "check before exercise": (
        lambda nb: nb.cells.insert(4, nb.cells.pop(5)),
        "not followed by a cell `check",
    ),
    "check of nothing": (code('check("cube")'), "has no exercise cell"),
    "name = use(name)": (code('root = use("root")'), "binds root anew"),
    "exercise bound in a loop": (code("for root in range(3):\n    pass"), "binds root anew"),
    "exercise bound by import": (code("from os import path as root"), "binds root anew"),
    "exercise defined elsewhere": (code("def root(x):\n    return 1"), "binds root anew"),
    "answer key in code": (code("def mine(x):\n    guess = x**0.5\n    return guess"), ROOT_SHOWN),
    "answer key in text": (markdown("Write\n\n    guess = x ** 0.5\n    return guess"), ROOT_SHOWN),
    "answer key with other comments": (
        code("def mine(x):\n    guess = x**0.5  # the root\n    return guess"),
        ROOT_SHOWN,
    ),
    "answer key in an output": (
        output(text="def root(x):\n    guess = x ** 0.5\n    return guess\n"),
        ROOT_SHOWN,
    ),
    "mended bug": (
        code("def mine(x):\n    y = x.abs()\n    return y + 1"),
        "the answer of the exercise mend",
    ),
    "solution marker": (code("### BEGIN SOLUTION"), "solution marker"),
    "directive": (markdown("```{note}\nLook\n```"), "a directive"),
    "colon fence": (markdown(":::{note}\nLook\n:::"), "a colon fence"),
    "role": (markdown("See {cite}`kurin2022`."), "a role"),
    "role with a domain": (markdown("See {prf:ref}`a`."), "a role"),
    "target": (markdown("(here)=\n## Title"), "a target"),
    "labelled equation": (markdown("$$y = x$$ (eq-y)"), "a labelled equation"),
    "attribute block": (markdown("{.class}\nText"), "an attribute block"),
    "comment": (markdown("% hidden"), "a comment"),
    "block break": (markdown("+++"), "a block break"),
    "substitution": (markdown("We use {{ name }}."), "a substitution"),
    "unknown paper": (
        markdown("See [b](https://arxiv.org/abs/1705.07115)."),
        "references.bib does not have",
    ),
    "unknown paper, old address": (
        markdown("See <http://dx.doi.org/10.1000/b>."),
        "references.bib does not have",
    ),
    "long line": (code("x = 1  " + "#" * 66), "line 1 has 73 characters"),
    "long cell": (code("\n".join(["x = 1"] * 26)), "has 26 lines"),
    "too many cells": (add(*[new_markdown_cell("a") for _ in range(47)]), "has 61 cells"),
    "literal seeds": (code("seeds = [0, 1, 2]"), "takes its seeds from [0, 1, 2]"),
    "unquoted pip": (code("%pip install -q numpy>=2"), "without quotes"),
    "unquoted pip in a shell": (
        code("if True:\n    !pip install a 'b>2'"),
        "gives pip a without quotes",
    ),
    "semicolon": (code("plot();"), "ends in `;`"),
    "cell that nbval skips": (
        add(new_code_cell("1", metadata={"tags": ["nbval-skip"]})),
        "has the tag nbval-skip",
    ),
    "cell that may fail": (
        add(new_code_cell("1", metadata={"tags": ["raises-exception"]})),
        "has the tag raises-exception",
    ),
    "absolute path": (code('open("/home/me/data.csv")'), "a place of one machine"),
    "absolute path in output": (output(text="File /root/a.py"), "a place of one machine"),
    "absolute path on Windows": (markdown(r"Open C:\Users\me."), "a place of one machine"),
    "error": (
        output("error", ename="KeyError", evalue="x", traceback=[]),
        "holds an error: KeyError",
    ),
    "stderr": (output(name="stderr", text="UserWarning"), "writes to stderr"),
    "no alt text": (look(figure=FIGURE), "without alt text"),
    "empty alt text": (look(image={"alt": " "}, figure=FIGURE), "without alt text"),
    "no caption": (look(image=IMAGE, figure={"name": "fig-line"}), "without a caption"),
    "no name": (look(image=IMAGE, figure={"caption": "A line."}), "without a name"),
    "two figures": (
        lambda nb: nb.cells[3].outputs.append(new_output("display_data", data=PICTURE)),
        "has 2 figures",
    ),
    "text of an object": (lambda nb: nb.cells[3].outputs.append(RESULT), "text of an object"),
    "alt text without figure": (
        lambda nb: nb.cells[3].update(outputs=[]),
        "alt text but no figure",
    ),
    "long output": (output(text="a\n" * 61), "prints 61 lines"),
    "long result": (output("execute_result", data={"text/plain": "a\n" * 70}), "prints 70 lines"),
    "big output": (output("display_data", data={"text/html": "a" * 300_000}), "output of 300 kB"),
    "big slider": (
        output("display_data", data={"text/html": '<input type="range">' + "a" * 420_000}),
        "output of 420 kB",
    ),
    "memory address": (
        output("execute_result", data={"text/plain": "<function f at 0x7f0983effba0>"}),
        "memory address",
    ),
    "progress bar": (output(text="\r 10%"), "progress bar"),
    "widget": (output("display_data", data={normalise.WIDGET: {}}), "widget"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_notebook_is_caught(name):
    spoil, message = BAD[name]
    nb = good()
    spoil(nb)
    assert any(message in problem for problem in check.lint(page(nb))), check.lint(page(nb))


def test_code_edited_after_the_run_is_caught():
    nb = page(good()).nb
    nb.cells[3].source = "plot(2)"
    assert any(
        "outputs are not those of this code" in problem
        for problem in check.lint(page(nb, run=False))
    )


@pytest.mark.parametrize(
    "counts", [[None, *range(1, 9)], [1, 2, 4, 3, 5, 6, 7, 8, 9], [*range(2, 11)]]
)
def test_missing_or_mixed_counts_are_caught(counts):
    nb = page(good()).nb
    for cell, count in zip(notebooks.code_cells(nb), counts, strict=True):
        cell.execution_count = count
    assert any("execution counts" in problem for problem in check.lint(page(nb, run=False)))


def test_every_rule_has_a_bad_notebook():
    caught = set()
    for spoil, message in BAD.values():
        nb = good()
        spoil(nb)
        seen = page(nb)
        caught |= {
            rule for rule in check.RULES if any(message in problem for problem in rule(seen))
        }
    apart = {check.stale_outputs, check.execution_counts, check.lab_cells}
    assert set(check.RULES) - caught == apart, "these three have tests of their own"


LAB = chapters.Lab("lab_3", "a", "A lab", "How far?", 90, 1, None, 2, ("naive", "ours"))


def lab(*cells, stars="★★☆"):
    """A lab's notebook, as `check` sees it: a card, the first cell, and these."""
    card = (
        f"# Lab 3. A lab\n\nHow far?\n\n*Difficulty: {stars} · about 90 minutes*\n\n1 minute. "
        "<!-- colab --><!-- /colab -->"
    )
    first = [new_markdown_cell(card), new_code_cell(notebooks.FIRST)]
    nb = sync.synced(new_notebook(cells=[*first, *cells]), LAB, {}, URL, BRANCH)
    for count, cell in enumerate(notebooks.code_cells(nb), 1):
        cell.execution_count = count
    nb.metadata["mtl_course"] = {"code": normalise.code_hash(nb)}
    return check.Page(nb, LAB, {}, sync.synced(nb, LAB, {}, URL, BRANCH))


def test_a_lab_has_a_cell_to_write_in_and_its_score():
    answer, score = new_code_cell("# LAB lab_3"), new_code_cell('score("lab_3", learn)')
    whole = lab(answer, score)
    assert check.lint(whole) == [], "it needs no quiz"
    assert "def learn(train):" in whole.nb.cells[2].source, "the stub is the lab's own"
    assert whole.nb.cells[3].metadata["tags"] == [sync.EXACT]
    for page, message in [
        (lab(score), "there is no cell `# LAB lab_3`"),
        (lab(answer), "cell 2 is not followed by a cell that scores lab_3"),
        (lab(score, answer), "cell 3 is not followed by a cell that scores"),
        (lab(answer, score, stars="★☆☆"), "does not show the 2 stars"),
        (lab(answer, score, stars="easy"), "cell 0 has no line such as `*Difficulty:"),
    ]:
        assert any(message in problem for problem in check.lint(page)), check.lint(page)
    whole.nb.cells[2].source = "# LAB lab_3\ndef learn(train):\n    return 1"
    assert "the lab's cell (cell 2) is stale" in check.lint(whole)[0]


@pytest.mark.parametrize(
    "text",
    [
        "It took 3:4.",
        "https://example.org/home/a",
        "~/.mtl_course",
        "notebooks/work/x",
        "a/b/tmp/c",
        "1/home",
        "P(a|b)",
        "x: \\alpha",
        r"$C:\,x$",
    ],
)
def test_no_false_alarm_about_paths(text):
    assert list(check.paths(page(new_notebook(cells=[new_markdown_cell(text)])))) == []


@pytest.mark.parametrize(
    "text",
    [
        "$$\\{x\\}_{i}$$",
        "a `{note}` b",
        "$x_{1}$ `y`",
        "[a](b)\n(c)",
        "50 % of\n100 %",
        "`{{x}}`",
        "$$a$$\n(the loss)",
    ],
)
def test_no_false_alarm_about_myst(text):
    assert list(check.myst(page(new_notebook(cells=[new_markdown_cell(text)])))) == []


@pytest.mark.parametrize(
    "address, key",
    [
        ("https://arxiv.org/abs/1705.07115v3", "1705.07115"),
        ("https://arxiv.org/pdf/1705.07115.pdf", "1705.07115"),
        ("10.48550/arXiv.1705.07115", "1705.07115"),
        ("1705.07115", "1705.07115"),
        ("https://arxiv.org/abs/cs/0501001", "cs/0501001"),
        ("https://doi.org/10.1007/BF00993379", "10.1007/bf00993379"),
        ("10.1007/BF00993379", "10.1007/bf00993379"),
        ("https://www.jmlr.org/papers/v6/a05.html", "jmlr.org/papers/v6/a05.html"),
    ],
)
def test_one_paper_has_one_key(address, key):
    assert check.paper(address) == key


def test_bibliography_reads_doi_url_and_eprint():
    text = (
        "@article{a,\n  doi = {10.1000/A},\n "
        ' url={https://arxiv.org/abs/1705.07115},\n}\n@misc{b,\n  eprint = "1603.05279",\n}'
    )
    assert check.bibliography(text) == {"10.1000/a", "1705.07115", "1603.05279"}


def test_a_slider_may_be_larger_than_other_outputs():
    nb = good()
    output("display_data", data={"text/html": '<input type="range">' + "a" * 390_000})(nb)
    assert list(check.big_outputs(page(nb))) == []


def test_a_question_may_have_more_than_one_right_option_if_it_says_so():
    nb = good()
    spoil_quiz('class="wrong"', 'class="right"')(nb)
    spoil_quiz("Not quite.", "Right.")(nb)
    assert list(check.quiz(page(nb))) == [
        'question 1 of the quiz has 2 right options; it has one, or says "more than one"'
    ]
    spoil_quiz("an idea?", "an idea? More than one is right.")(nb)
    assert list(check.quiz(page(nb))) == []


def test_a_pending_chapter_is_spared_the_rules_of_form_and_no_others(monkeypatch):
    nb = good()
    markdown("+++")(nb)
    code("use = 3")(nb)
    assert len(check.lint(page(nb))) == 2
    monkeypatch.setattr(check, "PENDING", {CHAPTER.number})
    assert len(check.lint(page(nb))) == 1
    assert set(check.FORM) <= set(check.RULES)


def test_every_chapter_has_the_form():
    assert not check.PENDING, "these chapters of dev/check.py are not in the form of the book yet"
