"""Start a chapter: ``python -m mtl_course.dev new NN slug``.

Writes the files that a chapter consists of, each small, whole and passing its tests, and says what
is left for you. Nothing that exists is overwritten.
"""

import argparse
import ast
import re
import subprocess
import sys
import textwrap
from pathlib import Path

from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from .. import chapters
from . import normalise, notebooks, sync

EXPERIMENT = '''\
"""Chapter {number}: {title}. Needs no Jupyter."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Plan:
    """Size of the experiment: how many rows it trains on."""

    rows: int = 20


PLANS = {{"cpu": Plan(), "gpu": Plan(rows=200)}}


def error_of_the_mean(rows: int, seed: int) -> float:
    """Squared error of the mean of `rows` normal numbers, whose true mean is zero."""
    numbers = torch.randn(rows, generator=torch.Generator().manual_seed(seed))
    return float(numbers.mean() ** 2)


def run(
    profile: str,
    seeds: Sequence[int],
    report: Callable[[str], None] = print,
    *,
    plan: Plan | None = None,
) -> dict:
    """The whole experiment: method -> its error on every seed. Plain JSON."""
    plan = plan or PLANS[profile]
    errors = {{"mean": [], "first": []}}
    for seed in seeds:
        errors["mean"].append(error_of_the_mean(plan.rows, seed))
        errors["first"].append(error_of_the_mean(1, seed))
        report(f"seed {{seed}}: {{errors['mean'][-1]:.3f}}")
    return errors
'''

EXERCISES = '''\
"""Exercises of chapter {number}: {title}."""

import torch

from ..checks.exercise import exercise
from .inputs import whole


# ------------------------------------------------------------------------------- 1. weighted mean
def _values_and_weights(g):
    """Values of either sign, and positive weights whose sum is not one."""
    n = whole(g, 2, 7)
    return torch.randn(n, generator=g), torch.rand(n, generator=g) + 0.1


@exercise(
    [_values_and_weights],
    points=1,
    hints=(
        "How would you average three values, if the first counted twice?",
        "Add up weight times value, then divide by the sum of the weights:"
        " `(w * v).sum() / w.sum()`.",
    ),
)
def {exercise}(values, weights):
    """The mean of `values` [n] with `weights` [n], which are
    positive and need not sum to one. Return a scalar tensor.
    """
    ### BEGIN SOLUTION
    return (weights * values).sum() / weights.sum()
    ### END SOLUTION


@{exercise}.law("does not change when all weights are doubled")
def _(answer, values, weights):
    return torch.allclose(answer(values, 2 * weights), answer(values, weights))


@{exercise}.mistake("The weights need not sum to one: divide by their sum.")
def _(values, weights):
    return (weights * values).sum()


@{exercise}.mistake("You leave the weights out: each value counts as its weight says.")
def _(values, weights):
    return values.mean()
'''

ANSWERS = '''\
"""Chapter {number}: right answers in other clothes, and mutants that compute the same."""

RIGHT = {{
    "{exercise}": [
        """
def {exercise}(values, weights):
    shares = weights / weights.sum()
    return shares @ values
""",
        """
def {exercise}(values, weights):
    total = sum(w * v for w, v in zip(weights, values))
    return total / sum(weights)
""",
    ],
}}
'''

TESTS = '''\
"""Chapter {number}: its experiment, and that its parts are what the text says."""

from mtl_course.experiments import ch{number}


def test_the_experiment_has_one_result_per_seed():
    lines = []
    results = ch{number}.run("cpu", range(3), lines.append)
    assert set(results) == {{"mean", "first"}} and len(lines) == 3
    assert all(len(errors) == 3 for errors in results.values())
    assert results == ch{number}.run("cpu", range(3), lines.append), "a seed decides a result"


def test_a_mean_of_many_is_closer_than_one():
    results = ch{number}.run("cpu", range(20), lambda line: None)
    assert sum(results["mean"]) < sum(results["first"])
'''

CARD = """\
# {heading}

**{question}**

Short answer: two or three plain sentences, the success first.

You will be able to

- *write* ...;
- *choose* ...;
- *check* ...

| | |
|---|---|
| You need | chapters ... |
| Time | {read} minutes to read, about {cpu} minute to run on a CPU |
| Run it | <!-- colab --><!-- /colab --> |"""

# The parts of a chapter in their order, each with what stands there.
PARTS = (
    (
        "Look at the data",
        "The first thing run: what a batch looks like, drawn; task labels, balance.",
    ),
    (
        "The idea, drawn",
        "A drawing of the mechanism: what flows where, what is shared, what is frozen.",
    ),
    ("The objective", "The equation, numbered, every symbol named where it first stands."),
    ("A number by hand", "One example small enough for a pencil, for each method recommended."),
    (
        "A toy you can turn",
        "Two dimensions, two tasks, a closed form; a slider where there is a dial.",
    ),
    (
        "From scratch",
        "Each method in at most 25 lines, and one whole training loop of at most 20 on real data."
        " Then: this is `mtl_course...`, equal by a test.",
    ),
    ("Check it", "A shape, a gradient, a limit that must hold: before any training."),
    (
        "The headline",
        "The experiment in which the method clearly works, over at least five seeds. Below the"
        " table: which file and function made it, and which test holds it equal.",
    ),
    (
        "The honest comparison",
        "Against what a sensible practitioner does without the method, with the same budget.",
    ),
    ("When it fails", "A case, run, in which the method does not help: how to notice, what to do."),
    (
        "At full size",
        "The committed record beside the reader's run: device, precision, throughput.",
    ),
    ("Exercises", "Three to five, easy to hard; their answers are used later in the chapter."),
    ("Quiz", "Three or four questions on ideas, each option with its explanation."),
    ("Take-aways", "Three to five sentences to remember, then sources, and where to go next."),
)

EXERCISE = """\
### Exercise 1. A weighted mean

*Difficulty: ★☆☆ · about 5 minutes*

What is to be written, and what it is for: the chapter goes on with the answer."""

QUESTION = "**{number}. A question on an idea?**\n\n{options}"
OPTION = """\
<details class="{kind}"><summary>An option, as a sentence.</summary>

{begin} Why.

</details>"""

LEFT = """\
mtl_course/chapters.py: title, question and minutes of chapter {number}.
{notebook}: write its parts, then `make sync NB={number}` and `make notebooks NB={number}`.
mtl_course/experiments/ch{number}.py: the experiment, as \
`run(profile, seeds, report, *, plan=None)`.
mtl_course/exercises/ch{number}.py and tests/answers/ch{number}.py: the exercises, and two right \
answers to each, written differently.
tests/chapters/test_ch{number}.py: each numbered update rule equals the package's code.
Code that the chapter derives: once, in the package's room, listed in its `__init__`.
mtl_course/records/: `python -m mtl_course.record {number}`; its place in ORDER of \
mtl_course/records/everything.py.
_toc.yml: the line stands after that of chapter {before}; is that the right part?
{page}: what the part's page says of the chapter.
book/intro.md: its number alone on the map; a planned chapter stands there with its title.
book/appendix/: pseudocode, formulas, flow charts, glossary (with its Chinese), papers, and in \
mtl_course/data/manifest.toml the chapters that use a set.
book/references.bib: every paper that the chapter cites, checked at its source.
book/appendix/teaching.md (syllabus), README.md (which chapters there are), CHANGELOG.md.
To see it whole: `python -m mtl_course.dev check {number}`, `make book`, \
`python -m mtl_course.dev claims {number} --seeds 5:10`, `make colab NB={number}`, `make test`."""


def start(chapter: chapters.Chapter, root: Path = notebooks.ROOT) -> list[str]:
    """Write a new chapter's files into the repository; returns what is left to do, in order.

    ValueError, and nothing is written, where a number, a slug or a file is taken.
    """
    words = {
        "number": chapter.number,
        "title": chapter.title,
        "exercise": f"{chapter.slug}_mean",
    }
    texts = {
        f"mtl_course/experiments/ch{chapter.number}.py": EXPERIMENT,
        f"mtl_course/exercises/ch{chapter.number}.py": EXERCISES,
        f"tests/answers/ch{chapter.number}.py": ANSWERS,
        f"tests/chapters/test_ch{chapter.number}.py": TESTS,
    }
    _refuse(chapter, [*texts, chapter.notebook], root)
    for name, text in texts.items():
        (root / name).write_text(text.format(**words), encoding="utf-8", newline="\n")
    nb = skeleton(chapter, words["exercise"], *notebooks.repository(root))
    notebooks.write(nb, root / chapter.notebook)
    edit(root / "mtl_course" / "chapters.py", lambda text: entered(text, chapter))
    before, page = [], []
    edit(root / "_toc.yml", lambda text: listed(text, chapter, before, page))
    filled = LEFT.format(
        notebook=chapter.notebook, before=int(before[0]), page=f"{page[0]}.md", **words
    )
    return filled.split("\n")


def _refuse(chapter: chapters.Chapter, names: list[str], root: Path) -> None:
    if not re.fullmatch(r"\d\d", chapter.number) or chapter.number == "00":
        raise ValueError(f"{chapter.number!r} is no number of a chapter: two digits, such as 09.")
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", chapter.slug):
        raise ValueError(
            f"{chapter.slug!r} is no slug: small letters, digits and single underscores, such as"
            " task_routing."
        )
    text = (root / "mtl_course" / "chapters.py").read_text(encoding="utf-8")
    for number, slug, _ in entries(text):
        if number == chapter.number:
            raise ValueError(f"There is a chapter {int(number)} already: {number}_{slug}.")
        if slug == chapter.slug:
            raise ValueError(f"Chapter {int(number)} has this slug already: {number}_{slug}.")
    for name in names:
        if (root / name).exists():
            raise ValueError(f"{name} is there already, and would be overwritten.")


def edit(path: Path, change) -> None:
    """Write ``change(text)`` in place of a file's text."""
    text = change(path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8", newline="\n")


def entries(text: str) -> list[tuple[str, str, ast.Call]]:
    """Number, slug and syntax tree of each chapter in ``chapters.py``."""
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    made = []
    for call in calls:
        if getattr(call.func, "id", "") == "Chapter":
            named = {word.arg: word.value for word in call.keywords}
            values = [*call.args, *(named[name] for name in ("number", "slug") if name in named)]
            made.append((values[0].value, values[1].value, call))
    return sorted(made, key=lambda entry: entry[2].lineno)


def entered(text: str, chapter: chapters.Chapter) -> str:
    """``chapters.py`` with an entry for the chapter, before the first one of a higher number."""
    entry = textwrap.indent(
        "Chapter(\n"
        f'    number="{chapter.number}",\n    slug="{chapter.slug}",\n'
        f"    title={quoted(chapter.title)},\n    question={quoted(chapter.question)},\n"
        f"    read={chapter.read},\n    cpu={chapter.cpu},\n    gpu={chapter.gpu},\n),\n",
        8 * " ",
    )
    lines, listed = text.splitlines(keepends=True), entries(text)
    after = [call for number, _, call in listed if number > chapter.number]
    at = after[0].lineno - 1 if after else listed[-1][2].end_lineno
    return "".join([*lines[:at], entry, *lines[at:]])


def quoted(text: str) -> str:
    """A string literal in double quotes, as the formatter writes it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def listed(text: str, chapter: chapters.Chapter, before: list[str], page: list[str]) -> str:
    """``_toc.yml`` with the chapter's page after that of the chapter before it.

    `before` gets the number of that chapter, `page` the name of its part's page.
    """
    lines, at, part = text.splitlines(keepends=True), None, ""
    for i, line in enumerate(lines):
        if entry := re.match(r" *- file: (book/part\w+)", line):
            part = entry[1]
        entry = re.match(r" *- file: notebooks/(\d\d)_", line)
        if entry and (at is None or entry[1] < chapter.number):
            at, before[:], page[:] = i, [entry[1]], [part]
    indent = re.match(" *", lines[at])[0]
    page_of_chapter = chapter.notebook.removesuffix(".ipynb")
    return "".join([*lines[: at + 1], f"{indent}- file: {page_of_chapter}\n", *lines[at + 1 :]])


def skeleton(chapter: chapters.Chapter, exercise: str, url: str, branch: str):
    """The learner notebook with a heading for each part, the first cell and one exercise."""
    fields = {"heading": chapter.heading, "question": chapter.question}
    card = CARD.format(read=chapter.read, cpu=chapter.cpu, **fields)
    cells = [new_markdown_cell(card), new_code_cell(notebooks.FIRST)]
    for title, text in PARTS:
        text = quiz() if title == "Quiz" else text
        cells.append(new_markdown_cell(f"## {title}\n\n{text}"))
        if title == "Exercises":
            cells.append(new_markdown_cell(EXERCISE))
            cells.append(new_code_cell(f"# EXERCISE {exercise}\n"))
            cells.append(new_code_cell(f'check("{exercise}")', metadata={"tags": [sync.EXACT]}))
    nb = new_notebook(cells=cells)
    sync.address(nb, chapter, url, branch)
    sync.fold(nb.cells[1])
    normalise.normalise(nb)
    return nb


def quiz() -> str:
    """Three questions in the form that `check` asks for, the right option in another place each."""
    right = OPTION.format(kind="right", begin="Right.")
    wrong = OPTION.format(kind="wrong", begin="Not quite.")
    orders = ([right, wrong, wrong], [wrong, wrong, right], [wrong, right, wrong])
    return "\n\n".join(
        QUESTION.format(number=number, options="\n\n".join(options))
        for number, options in enumerate(orders, 1)
    )


def main(arguments: list[str]) -> int:
    """Start the chapter that the command line names, and list what is left."""
    parser = argparse.ArgumentParser(prog="python -m mtl_course.dev new", description=__doc__)
    parser.add_argument("number", metavar="NN", help="two digits, such as 09")
    parser.add_argument("slug", help="short name in small letters, such as task_routing")
    parser.add_argument("--title", help="title of the chapter (default: from the slug)")
    parser.add_argument(
        "--question",
        default="Which question does this chapter answer?",
        help="the question that a practitioner asks",
    )
    options = parser.parse_args(arguments)
    title = options.title or options.slug.replace("_", " ").capitalize()
    chapter = chapters.Chapter(
        number=options.number.zfill(2),
        slug=options.slug,
        title=title,
        question=options.question,
        read=35,
        cpu=1,
        gpu=None,
    )
    try:
        left = start(chapter)
    except ValueError as error:
        parser.error(str(error))
    # In a process of its own: this one has the chapters and exercises of before.
    sync_it = [sys.executable, "-m", "mtl_course.dev", "sync", chapter.number]
    code = subprocess.call(sync_it, cwd=notebooks.ROOT)
    print(f"Chapter {int(chapter.number)} is started. What needs your hand:")
    print(*[f"{i:2}. {line}" for i, line in enumerate(left, 1)], sep="\n")
    return code
