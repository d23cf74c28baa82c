"""Report what is wrong with the notebooks, without running them.

Each rule is one function that yields sentences; a test feeds each a bad notebook.
"""

import argparse
import ast
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .. import chapters
from . import normalise, notebooks, seeds, sync

# Limits: characters in a line, lines in a cell, cells, lines of output, bytes of an output.
LINE, CELL, CELLS, SCREEN, OUTPUT = 72, 25, 60, 60, 300_000
SLIDER = 420_000  # bytes of an output with a slider
WIDE = 76  # characters in a line of output: a page has room for them
# Chapters that are not yet of the form that the rules in FORM ask for.
PENDING: set[str] = set()
VERBS = {"check", "claim", "hint", "progress", "session", "solution", "use"}  # of the first cell

HOSTS = (
    "doi.org",
    "arxiv.org",
    "openreview.net",
    "jmlr.org",
    "proceedings.mlr.press",
    "proceedings.neurips.cc",
    "papers.nips.cc",
    "openaccess.thecvf.com",
    "aclanthology.org",
)
# Addresses that are citations: each must be in the bibliography.
PAPERS = re.compile(
    rf"https?://(?:www\.|dx\.)?(?:{'|'.join(map(re.escape, HOSTS))})/[^\s)<>\"\]]+", re.I
)
ARXIV = re.compile(
    r"(?:arxiv\.org/(?:abs|pdf|html)/|arxiv\.|^)"
    r"(\d{4}\.\d{4,5}|[a-z-]+/\d{7})(?:v\d+)?(?:\.pdf)?$"
)
# A place of one machine, on Linux, macOS or Windows.
ABSOLUTE = re.compile(
    r"(?<![\w.:/~>-])"
    r"(?:/(?:home|Users|root|work|tmp|content|mnt|var|opt|usr|private)/\w|[A-Za-z]:\\\w)"
)
ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,}")  # of an object in memory
TERMINAL = re.compile(r"\x1b\[|\r")  # colours and progress bars
PIP = re.compile(r"^\s*[%!](?:pip3?|python -m pip) install\s+(.*)$", re.M)
QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
HIDING = {"nbval-skip", "nbval-ignore-output", "raises-exception", "hide-cell", "hide-output"}
EXERCISE = re.compile(r"^### Exercise\b.*$", re.M)
NUMBERED = re.compile(r"### Exercise (\d+)\. \S.*")
DIFFICULTY = re.compile(r"\*Difficulty: (★☆☆|★★☆|★★★) · about \d+ minutes\*")
QUIZ = re.compile(r"^## Quiz\s*$(.*?)(?=^## |\Z)", re.M | re.S)
DETAILS = re.compile(r"<details\b([^>]*)>(.*?)</details>", re.S)
SUMMARY = re.compile(r"\s*<summary>(.*?)</summary>\s*(.*)", re.S)
OPENINGS = {"right": "Right.", "wrong": "Not quite."}
MYST = {
    "a directive": re.compile(r"^ *(?:`{3,}|:{3,}|~{3,})\{", re.M),
    "a colon fence": re.compile(r"^ *:{3,}", re.M),
    "a role": re.compile(r"\{[\w:+.-]+\}\0"),  # a code span is \0 here
    "a target": re.compile(r"^ *\([\w:.-]+\)= *$", re.M),
    "a labelled equation": re.compile(r"\$\$ *\([\w:.-]+\) *$", re.M),
    "an attribute block": re.compile(r"^ *\{[.#]\w[^}]*\} *$", re.M),
    "a block break": re.compile(r"^\+\+\+", re.M),
    "a comment": re.compile(r"^%", re.M),
    "a substitution": re.compile(r"\{\{[^}]*\}\}"),
}
CODE_SPAN = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)", re.S)


@dataclass
class Page:
    """A notebook and what it is held against.

    Args:
        nb: the notebook.
        chapter: its entry in the list of chapters.
        exercises: name -> exercise of the chapter.
        synced: the notebook with its generated parts written anew.
        papers: the bibliography's papers, as `paper` writes them.
    """

    nb: object
    chapter: chapters.Chapter
    exercises: dict = field(default_factory=dict)
    synced: object = None
    papers: set[str] = field(default_factory=set)


Problems = Iterator[str]


# ---------------------------------------------------------------------------------- generated parts
def generated_cells(page: Page) -> Problems:
    """What `sync` writes is as it would write it now."""
    for name in sync.differences(page.nb, page.synced):
        yield f"{name}: run `python -m mtl_course.dev sync {page.chapter.number}`"


def card(page: Page) -> Problems:
    """The first cell is the chapter's title card, with its question, times and Colab link."""
    first, heading = page.nb.cells[0], f"# {page.chapter.heading}"
    written = first.cell_type == "markdown"
    if not written or first.source.split("\n")[0].strip() != heading:
        yield f"cell 0 is not a title card that starts with `{heading}`"
    elif page.chapter.question not in first.source:
        yield f"cell 0 does not ask the chapter's question: {page.chapter.question}"
    text = sync.COLAB.sub("", first.source)
    for minutes in filter(None, (page.chapter.read, page.chapter.cpu, page.chapter.gpu)):
        if not re.search(rf"\b{minutes}\b", text):
            yield f"cell 0 does not name the {minutes} minutes that mtl_course/chapters.py has"
    if written and not sync.COLAB.search(first.source):
        yield "cell 0 has no `<!-- colab --><!-- /colab -->` for the Colab link"


def first_cell(page: Page) -> Problems:
    """The second cell is the generated first cell of code."""
    if len(page.nb.cells) < 2 or not notebooks.is_first(page.nb.cells[1]):
        yield "cell 1 is not the generated first cell"


# ---------------------------------------------------------------------------------------- exercises
def exercises(page: Page) -> Problems:
    """Every exercise has its cell, followed by its check, and no other is there."""
    stubs = _positions(page, notebooks.exercise_of)
    checks = _positions(page, notebooks.checked_by)
    for name in page.exercises.keys() - stubs.keys():
        yield f"the exercise {name} has no cell `# EXERCISE {name}`"
    for name, i in stubs.items():
        if name not in page.exercises:
            number = page.chapter.number
            yield f"cell {i} is an exercise {name!r} that chapter {number} does not define"
        if checks.get(name, -1) < i:
            yield f'cell {i}: the exercise {name} is not followed by a cell `check("{name}")`'
    for name in checks.keys() - stubs.keys():
        yield f"cell {checks[name]} checks {name}, which has no exercise cell"


def _positions(page: Page, name_of: Callable) -> dict[str, int]:
    """Name -> index of the last cell to which a function gives it."""
    named = ((name_of(cell), i) for i, cell in enumerate(page.nb.cells))
    return {name: i for name, i in named if name}


def rebound_exercises(page: Page) -> Problems:
    """No other cell binds an exercise's name, which its check would then see."""
    for i, tree in _trees(page):
        if notebooks.exercise_of(page.nb.cells[i]):
            continue
        for name in sorted(_bound(tree) & page.exercises.keys()):
            yield (
                f'cell {i} binds {name} anew, so check("{name}") would see that object:'
                f' give `use("{name}")` another name'
            )


def answer_keys(page: Page) -> Problems:
    """No cell and no output holds the answer of an exercise."""
    keys = {name: _key(exercise) for name, exercise in page.exercises.items()}
    code = {i: ast.unparse(tree) for i, tree in _trees(page)}
    for i, cell in enumerate(page.nb.cells):
        shown = "\n".join([code.get(i, ""), _shown(cell)])
        if "BEGIN SOLUTION" in shown:
            yield f"cell {i} holds a solution marker"
        shown = _squeeze(shown)
        for name, key in keys.items():
            # A shorter answer, such as `return x + y`, may stand anywhere by chance.
            if len(key) >= 12 and key in shown:
                yield f"cell {i} holds the answer of the exercise {name}"


def _key(exercise) -> str:
    """The answer itself, without comments and spaces.

    That is what a stub leaves out, or, where a bug is mended, the whole body.
    """
    [answer] = ast.parse(exercise.solution).body
    if exercise.starter:
        body = answer.body[1:] if ast.get_docstring(answer) else answer.body
        return _squeeze("".join(map(ast.unparse, body)))
    given = set(ast.unparse(ast.parse(exercise.stub)).split("\n"))
    return _squeeze("".join(line for line in ast.unparse(answer).split("\n") if line not in given))


# ----------------------------------------------------------------------------------------- Markdown
def myst(page: Page) -> Problems:
    """Markdown is plain: Colab shows the directives and roles of MyST as text."""
    for i, text in _prose(page):
        for what, pattern in MYST.items():
            if pattern.search(text if what == "a directive" else CODE_SPAN.sub("\0", text)):
                yield f"cell {i} uses {what} of MyST, which Colab shows as raw text"


def citations(page: Page) -> Problems:
    """Every paper that is cited stands in the bibliography."""
    for i, text in _prose(page):
        for link in PAPERS.findall(text):
            if paper(link) not in page.papers:
                yield f"cell {i} cites {link}, which book/references.bib does not have"


# --------------------------------------------------------------------------------------------- code
def long_code(page: Page) -> Problems:
    """Lines, cells and the notebook keep to their limits."""
    if len(page.nb.cells) > CELLS:
        yield f"the notebook has {len(page.nb.cells)} cells; {CELLS} are the limit"
    for i, cell in _code(page):
        lines = cell.source.split("\n")
        if len(lines) > CELL:
            yield f"cell {i} has {len(lines)} lines; {CELL} are the limit"
        for number, line in enumerate(lines, 1):
            if len(line) > LINE:
                yield f"cell {i}, line {number} has {len(line)} characters; {LINE} are the limit"


def literal_seeds(page: Page) -> Problems:
    """Seeds of repetitions come from `session.seeds`."""
    for i, tree in _trees(page):
        for written in seeds.literal_seeds(tree):
            yield (
                f"cell {i} takes its seeds from {written}: take them from `session.seeds(n)`,"
                " so that its claims can be asked on other seeds"
            )


def pip_specifiers(page: Page) -> Problems:
    """What pip is to install is quoted."""
    for i, cell in _code(page):
        for words in PIP.findall(cell.source):
            for word in QUOTED.sub("", words).split():
                if not word.startswith("-"):
                    yield (
                        f"cell {i} gives pip {word} without quotes:"
                        " a shell reads < and > in it as files"
                    )


def plotting(page: Page) -> Problems:
    """No cell hides its output with a semicolon."""
    for i, cell in _code(page):
        if cell.source.rstrip().endswith(";"):
            yield (
                f"cell {i} ends in `;`, which hides its output from the comparison:"
                " end it with plt.show()"
            )


def tags(page: Page) -> Problems:
    """No cell is skipped, hidden or allowed to fail."""
    for i, cell in enumerate(page.nb.cells):
        for tag in cell.metadata.get("tags", []):
            if tag in HIDING:
                yield f"cell {i} has the tag {tag}: every cell runs, and every reader sees it"


def folds(page: Page) -> Problems:
    """A folded cell is code, has a title and is no exercise; nothing else is shut."""
    for i, cell in enumerate(page.nb.cells):
        tags = cell.metadata.get("tags", [])
        if sync.HIDDEN in tags and sync.FOLD not in tags:
            yield f"cell {i} has the tag {sync.HIDDEN} without {sync.FOLD}, which brings it"
        if sync.FOLD not in tags:
            continue
        if any(f(cell) for f in (notebooks.exercise_of, notebooks.checked_by, notebooks.lab_of)):
            yield f"cell {i} is folded, but a reader works in an exercise and its check"
        elif cell.cell_type != "code" or not notebooks.title_of(cell):
            yield f"cell {i} is folded but does not begin with a line `# @title ...`"


def paths(page: Page) -> Problems:
    """Nothing names a place of one machine."""
    for i, cell in enumerate(page.nb.cells):
        if place := ABSOLUTE.search(_shown(cell)):
            yield f"cell {i} names a place of one machine: {place[0]}..."


# ------------------------------------------------------------------------------------------ outputs
def stale_outputs(page: Page) -> Problems:
    """The outputs belong to the code."""
    ran = page.nb.metadata.get("mtl_course", {}).get("code")
    if ran != normalise.code_hash(page.nb):
        command = f"python -m mtl_course.dev execute {page.chapter.number}"
        yield f"the outputs are not those of this code: run `{command}`"


def execution_counts(page: Page) -> Problems:
    """The code cells were run once, in order."""
    counts = [cell.execution_count for _, cell in _code(page)]
    if counts != list(range(1, len(counts) + 1)):
        yield (
            "the execution counts are not 1, 2, 3, ...: nbval compares nothing in a cell"
            " without one"
        )


def failed_outputs(page: Page) -> Problems:
    """No cell raised or wrote to stderr."""
    for i, output in _outputs(page):
        if output.output_type == "error":
            yield f"cell {i} holds an error: {output.ename}"
        elif output.output_type == "stream" and output.name == "stderr":
            yield f"cell {i} writes to stderr: {output.text.strip()[:60]!r}"


def figures(page: Page) -> Problems:
    """A figure stands alone in its cell, with alt text, caption and name."""
    for i, cell in _code(page):
        pictures = [output for output in cell.outputs if _is_picture(output)]
        if pictures:
            yield from _described(i, cell)
        elif cell.metadata.get("mystnb", {}).get("image"):
            yield f"cell {i} has alt text but no figure"
        if len(pictures) > 1:
            yield f"cell {i} has {len(pictures)} figures; one alt text can describe only one"


def _described(i: int, cell) -> Problems:
    """What a cell with a figure lacks beside it."""
    look = cell.metadata.get("mystnb", {})
    image, figure = look.get("image", {}), look.get("figure", {})
    if not image.get("alt", "").strip():
        yield f"cell {i} has a figure without alt text"
    if not figure.get("caption", "").strip():
        yield f"cell {i} has a figure without a caption"
    if not figure.get("name", "").startswith("fig-"):
        yield f"cell {i} has a figure without a name that starts with fig-"
    results = [output for output in cell.outputs if output.output_type == "execute_result"]
    if not all(map(_is_picture, results)):
        yield (
            f"cell {i} shows the text of an object beside its figure: end the cell with plt.show()"
        )


def _is_picture(output) -> bool:
    """Whether an output is a figure."""
    return any(kind.startswith("image/") for kind in output.get("data", {}))


def _is_slider(output) -> bool:
    """Whether an output is a slider with its frames."""
    return 'type="range"' in "".join(output.get("data", {}).get("text/html", ""))


def long_outputs(page: Page) -> Problems:
    """No cell prints more than a screen."""
    for i, cell in _code(page):
        texts = [text for output in cell.outputs if (text := _text(output))]
        lines = sum(len(text.rstrip("\n").split("\n")) for text in texts)
        if lines > SCREEN:
            yield f"cell {i} prints {lines} lines; a screen has {SCREEN}"


def big_outputs(page: Page) -> Problems:
    """No output is larger than a page can bear."""
    for i, output in _outputs(page):
        size, most = len(json.dumps(output)), SLIDER if _is_slider(output) else OUTPUT
        if size > most:
            limit = f"{most // 1000} kB are the limit"
            yield f"cell {i} has an output of {size // 1000} kB; {limit}"


def volatile_outputs(page: Page) -> Problems:
    """No output changes from run to run by its nature."""
    for i, output in _outputs(page):
        if address := ADDRESS.search(_text(output)):
            yield f"cell {i} prints a memory address ({address[0]}), which differs in every run"
        if normalise.WIDGET in output.get("data", {}) or TERMINAL.search(_text(output)):
            command = f"python -m mtl_course.dev normalise {page.chapter.number}"
            yield f"cell {i} holds a widget or a progress bar: run `{command}`"


# --------------------------------------------------------------------------- the form of a chapter
def rebound_verbs(page: Page) -> Problems:
    """No cell binds a verb of the course anew, which a later cell would then miss."""
    for i, tree in _trees(page):
        if not notebooks.is_first(page.nb.cells[i]):
            for name in sorted(_bound(tree) & VERBS):
                yield f"cell {i} binds {name} anew, a name that the first cell has: take another"


def wide_outputs(page: Page) -> Problems:
    """No line of output is longer than a page is wide."""
    for i, output in _outputs(page):
        if not _is_picture(output):
            for line in _text(output).split("\n"):
                if len(line) > WIDE:
                    yield (
                        f"cell {i} shows a line of {len(line)} characters, {WIDE} are the limit:"
                        f" {line[:40].strip()}... (for results there is `plots.table`)"
                    )


def folded_claims(page: Page) -> Problems:
    """A cell of nothing but claims is folded: what they say stands in its output."""
    for i, tree in _trees(page):
        calls = [getattr(getattr(node, "value", None), "func", None) for node in tree.body]
        claims = calls and all(getattr(call, "id", "") == "claim" for call in calls)
        if claims and sync.FOLD not in page.nb.cells[i].metadata.get("tags", []):
            yield (
                f"cell {i} has only claims: give it the tag {sync.FOLD} and a first line"
                " `# @title ...`"
            )


def exercise_headings(page: Page) -> Problems:
    """Each exercise stands below a numbered heading that says how hard and how long it is."""
    number, cells, below = 0, 0, False
    for i, cell in enumerate(page.nb.cells):
        if notebooks.exercise_of(cell):
            cells += 1
            if not below:
                name = notebooks.exercise_of(cell)
                yield f"cell {i}: the exercise {name} has no heading `### Exercise N. Title` above"
            below = False
        if cell.cell_type != "markdown":
            continue
        for heading in EXERCISE.finditer(cell.source):
            number, below = number + 1, True
            match = NUMBERED.fullmatch(heading[0].rstrip())
            if not match or int(match[1]) != number:
                wanted = f"`### Exercise {number}. Title`"
                yield f"cell {i} has the heading `{heading[0]}`; the next one is {wanted}"
            line = cell.source[heading.end() :].strip().split("\n")[0].strip()
            if not DIFFICULTY.fullmatch(line):
                wanted = "`*Difficulty: ★★☆ · about 10 minutes*`"
                yield f"cell {i}: below `{heading[0]}` stands no line such as {wanted}"
    if number != cells:
        yield f"there are {number} headings `### Exercise N. Title` for {cells} exercises"


def quiz(page: Page) -> Problems:
    """Three questions or more, each option with its explanation, and the right one moves."""
    section = QUIZ.search("\n\n".join(text for _, text in _prose(page)))
    if not section:
        yield "there is no section `## Quiz`"
        return
    questions = _questions(section[1])
    if len(questions) < 3:
        yield f"the quiz has {len(questions)} questions; it has at least three"
    places = set()
    for number, (asked, options) in enumerate(questions, 1):
        where = f"question {number} of the quiz"
        kinds = [re.sub(r'^\s*class="(\w+)"\s*$', r"\1", attributes) for attributes, _ in options]
        for kind, (_, inside) in zip(kinds, options, strict=True):
            parts = SUMMARY.fullmatch(inside)
            shown = " ".join(parts[1].split())[:40] if parts else inside.strip()[:40]
            if kind not in OPENINGS:
                yield f'{where}: the option "{shown}" lacks class="right" or class="wrong"'
            elif not parts:
                yield f'{where}: the option "{shown}" has no <summary>'
            elif not parts[2].startswith(OPENINGS[kind]):
                yield (
                    f'{where}: the explanation of the {kind} option "{shown}" begins with'
                    f' "{OPENINGS[kind]}"'
                )
        right = [place for place, kind in enumerate(kinds) if kind == "right"]
        if len(options) < 2:
            yield f"{where} has {len(options)} option; it has at least two"
        if len(right) != 1 and not (right and "more than one" in asked.lower()):
            yield f'{where} has {len(right)} right options; it has one, or says "more than one"'
        places |= set(right[:1])
    if len(questions) > 2 and len(places) == 1:
        yield "the right options of the quiz all stand in the same place"


def _questions(text: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """(what is asked, options as (attributes, content)) of each question of a quiz."""
    questions, at = [], 0
    for option in DETAILS.finditer(text):
        between = text[at : option.start()].strip()
        if between or not questions:
            questions.append((between, []))
        questions[-1][1].append((option[1], option[2]))
        at = option.end()
    return questions


def lab_cells(page: Page) -> Problems:
    """A lab says how hard it is, and has a cell to write in, followed by its score."""
    if not isinstance(page.chapter, chapters.Lab):
        return
    name = page.chapter.number
    if not DIFFICULTY.search(page.nb.cells[0].source):
        yield "cell 0 has no line such as `*Difficulty: ★★☆ · about 90 minutes*`"
    elif f"Difficulty: {'★' * page.chapter.stars:☆<3} ·" not in page.nb.cells[0].source:
        yield f"cell 0 does not show the {page.chapter.stars} stars that mtl_course/chapters.py has"
    answers = _positions(page, notebooks.lab_of)
    scores = _positions(page, lambda cell: (notebooks.scored_by(cell) or [None])[0])
    if name not in answers:
        yield f"there is no cell `# LAB {name}` to write in"
    elif scores.get(name, -1) < answers[name]:
        yield f"cell {answers[name]} is not followed by a cell that scores {name}"


# What every chapter fulfils once it is no longer PENDING.
FORM = [rebound_verbs, wide_outputs, folded_claims, exercise_headings, quiz]
RULES = [
    *FORM,
    lab_cells,
    generated_cells,
    card,
    first_cell,
    exercises,
    rebound_exercises,
    answer_keys,
    myst,
    citations,
    long_code,
    literal_seeds,
    pip_specifiers,
    plotting,
    tags,
    folds,
    paths,
    stale_outputs,
    execution_counts,
    failed_outputs,
    figures,
    long_outputs,
    big_outputs,
    volatile_outputs,
]


# -------------------------------------------------------------------------------------------- parts
def _code(page: Page) -> list[tuple[int, object]]:
    """(index, cell) of the code cells."""
    return [(i, cell) for i, cell in enumerate(page.nb.cells) if cell.cell_type == "code"]


def _prose(page: Page) -> list[tuple[int, str]]:
    """(index, text) of the Markdown cells."""
    cells = enumerate(page.nb.cells)
    return [(i, cell.source) for i, cell in cells if cell.cell_type == "markdown"]


def _outputs(page: Page) -> list[tuple[int, object]]:
    """(index of its cell, output), of all code cells."""
    return [(i, output) for i, cell in _code(page) for output in cell.outputs]


def _text(output) -> str:
    """What an output shows as plain text."""
    return output.get("text") or output.get("data", {}).get("text/plain") or ""


def _shown(cell) -> str:
    """All the text of a cell that a reader sees: its source and its outputs."""
    return "\n".join([cell.source, *map(_text, cell.get("outputs", []))])


def _squeeze(text: str) -> str:
    """A text without white space."""
    return "".join(text.split())


def _trees(page: Page):
    """(index, syntax tree) of each code cell that parses; the others are said to be stale."""
    for i, cell in _code(page):
        if (tree := notebooks.tree(cell)) is not None:
            yield i, tree


def _bound(tree: ast.AST) -> set[str]:
    """Names that a cell binds at its top level or in a block of it, but not in a function."""
    names, queue = set(), list(tree.body)
    while queue:
        node = queue.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Lambda):
            continue
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).split(".")[0])
        else:
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            queue.extend(ast.iter_child_nodes(node))
    return names


def paper(address: str) -> str:
    """What identifies a paper: DOI, arXiv number without version, or address, in lower case.

    Args:
        address: of a page or a file, or a DOI.
    """
    text = address.strip().rstrip(".,;/").lower()
    text = re.sub(r"^https?://(?:www\.|dx\.)?", "", text)
    if number := ARXIV.search(text):
        return number[1]
    return text.removeprefix("doi.org/").removeprefix("doi:").strip()


def bibliography(text: str) -> set[str]:
    """The papers of a BibTeX file, as `paper` writes them: each field doi, url and eprint."""
    fields = re.findall(r"^\s*(?:doi|url|eprint)\s*=\s*[{\"]+([^}\"]+)", text, re.M | re.I)
    return {paper(value) for value in fields}


def lint(page: Page) -> list[str]:
    """All problems of a notebook, as sentences; those of its form unless it is pending."""
    skipped = FORM if page.chapter.number in PENDING else []
    if isinstance(page.chapter, chapters.Lab):
        skipped = [quiz]
    return [problem for rule in RULES if rule not in skipped for problem in rule(page)]


def page(chapter: chapters.Chapter, path: Path, root: Path = notebooks.ROOT) -> Page:
    """A chapter's notebook with all that it is held against."""
    nb, exercises = notebooks.read(path), sync.load_exercises(chapter)
    synced = sync.synced(nb, chapter, exercises, *notebooks.repository(root))
    references = root / "book" / "references.bib"
    papers = bibliography(references.read_text(encoding="utf-8")) if references.exists() else set()
    return Page(nb, chapter, exercises, synced, papers)


def main(arguments: list[str]) -> int:
    """Print the problems of the chapters; 1 if there is any, else 0."""
    parser = argparse.ArgumentParser(prog="python -m mtl_course.dev check", description=__doc__)
    parser.add_argument(
        "chapters", nargs="*", metavar="NN", help="numbers of chapters (default: all)"
    )
    bad = False
    asked = parser.parse_args(arguments).chapters
    for chapter, path in notebooks.chosen(parser, asked, labs=True):
        problems = lint(page(chapter, path))
        bad |= bool(problems)
        for problem in problems or ["no problem found"]:
            print(f"{chapter.notebook}: {problem}")
    return int(bad)
