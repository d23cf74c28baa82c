"""Every exercise: its answer passes, its stub is not started, and every mistake is found out.

Chapter authors put into ``tests/answers/chNN.py``: ``RIGHT = {exercise: [source, source]}``, at
least two right answers that are written differently from the reference; and, where a mutant
provably computes the same, ``EQUIVALENT = {exercise: {mutant: one-line proof}}``, the mutant
described as the failing test prints it.

The tests of one exercise run one after the other and share its draws (`SharedDraws`); the run
prints the five exercises that took most of the processor's time.
"""

import ast
import collections
import html
import re
import textwrap
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from exercise_tools import ODD, SharedDraws, answer_from, judge_mutants, mutants, unlisted

import mtl_course.exercises
from mtl_course._markup import to_html, to_text
from mtl_course.checks import check, store
from mtl_course.checks.exercise import REGISTRY, source_of
from mtl_course.checks.rows import draw_cases

ALL = sorted(REGISTRY)
MODULES = [
    import_module(f"answers.{path.stem}")
    for path in sorted(Path(__file__).parents[1].glob("answers/ch[0-9]*.py"))
]
RIGHT = {
    name: sources for module in MODULES for name, sources in getattr(module, "RIGHT", {}).items()
}
# exercise -> {mutant: proof that it computes the same}; chapters add theirs in `tests/answers/`
EQUIVALENT: dict[str, dict[str, str]] = {}
for _module in MODULES:
    EQUIVALENT.update(getattr(_module, "EQUIVALENT", {}))


# What a hint shows: a call, an entry, a formula.
SHOWS = re.compile(r"\w\(.*\)|\[.*\]|[=*@^]")
# The least share of its wrong mutants that the card or a hint leads somewhere; .5 for all others.
LEAST = {"saved_run": 0.2}


# What torch imports with its first optimizer, seconds of work, is no exercise's to pay for.
torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0).step()


@pytest.fixture(scope="module", params=ALL)
def name(request):
    """Of an exercise. The scope makes pytest run all tests of one before those of the next."""
    return request.param


@pytest.fixture(scope="module")
def draws(name):
    return SharedDraws(REGISTRY[name])


@pytest.fixture(autouse=True)
def processor_time(request, record_property):
    name = request.getfixturevalue("name") if "name" in request.fixturenames else None
    started = time.process_time()
    yield
    if name is not None:
        record_property("exercise seconds", (name, time.process_time() - started))


@pytest.fixture(autouse=True)
def a_learners_mode(monkeypatch):
    """Checks as in a learner's notebook, but for progress, which is not kept.

    And in this process, where they share the draws of an exercise.
    """
    monkeypatch.delenv("MTL_COURSE_CHECKS", raising=False)
    monkeypatch.setenv("MTL_COURSE_SANDBOX", "kernel")
    monkeypatch.setattr(store, "record", lambda result: None)


@pytest.fixture
def exercise(name, draws, monkeypatch):
    """With its shared draws, and time enough for a right answer on a machine that is busy."""
    draws.use(monkeypatch)
    monkeypatch.setattr(REGISTRY[name], "limit", 60.0)
    return REGISTRY[name]


def test_every_chapter_has_exercises():
    chapters = {
        path.stem[2:] for path in Path(mtl_course.exercises.__file__).parent.glob("ch[0-9]*.py")
    }
    assert chapters == {REGISTRY[name].chapter for name in ALL}
    assert set(RIGHT) | set(EQUIVALENT) <= set(ALL), "an entry for an exercise that does not exist"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_only_the_description_of_a_mutant_is_longer_than_a_line(module):
    """`pyproject.toml` lets ruff pass long lines in `tests/answers/`."""
    lines = Path(module.__file__).read_text(encoding="utf-8").split("\n")
    long = [line for line in lines if len(line) > 100 and "  =>  " not in line]
    assert not long, "\n".join(long)


def test_is_written_as_agreed(name):
    exercise = REGISTRY[name]
    assert exercise.name == exercise.reference.__name__ == name
    tasks = [
        ast.get_docstring(ast.parse(text).body[0]) for text in (exercise.stub, exercise.solution)
    ]
    assert all(tasks), "the docstring is the task: shapes, what to return"
    assert exercise.reference.__doc__ is not None or tasks[0] == tasks[1]
    assert exercise.hints and exercise.mistakes and exercise.points > 0
    assert exercise.starter is not None or "BEGIN SOLUTION" in source_of(exercise.reference)
    assert "SOLUTION" not in exercise.stub + exercise.solution


def test_the_first_hint_asks_and_the_last_one_shows(name):
    hints = REGISTRY[name].hints
    assert len(hints) >= 2, "one that asks, one that shows"
    assert hints[0].endswith("?"), hints[0]
    assert SHOWS.search(hints[-1]), hints[-1]
    assert all(text == " ".join(text.split()) for text in hints)


def test_hints_are_shown_as_they_are_written(name):
    """Markdown takes the marks around words, and no others: powers are in backticks."""
    exercise = REGISTRY[name]
    for text in (
        *exercise.hints,
        *(hint for _, hint in exercise.mistakes),
        *(law for law, _ in exercise.laws),
    ):
        outside = re.sub(r"(`+).+?\1", "", text)
        assert "**" not in outside and "__" not in outside, text
        marked = re.sub(r"(?<![\w*])\*([A-Za-z][a-z ]*)\*(?![\w*])", r"\1", text)
        assert to_text(text) == marked, text
        shown = html.unescape(re.sub(r"<[^>]+>", "", to_html(text)))
        assert shown.split() == marked.replace("`", "").split(), text


def test_parts_are_those_of_the_result(name):
    """A tuple of several things has names for them; a list of many of a kind is counted."""
    exercise = REGISTRY[name]
    for case in draw_cases(exercise, 0, 1):
        want = case.want[0]
        pair = isinstance(want, list) and any(
            isinstance(v, torch.Tensor | np.ndarray) for v in want
        )
        assert len(exercise.parts) == (len(want) if pair else 0)
        for part in exercise.parts:
            assert re.search(rf"\b{part.split()[-1]}\b", exercise.stub), part


def test_reference_passes(exercise):
    # The text that a learner sees, not the object.
    answer = answer_from(exercise, exercise.solution)
    for seed in range(30):
        result = check(exercise.name, answer, seed=seed, rounds=1)
        assert result.state == "solved" and result.score == exercise.points, result
    assert check(exercise.name, answer, seed=0).state == "solved"


def test_stub_is_not_started(exercise):
    result = check(exercise.name, answer_from(exercise, exercise.stub))
    assert result.state == "blank" and result.hint is None and result.score == 0, result
    told = repr(result) + result._repr_html_()
    assert not any(text in told for text in exercise.hints), "a hint before the first try"


def test_the_courses_own_object_does_not_count(exercise):
    for answer in (exercise, exercise.reference):
        assert check(exercise.name, answer).state == "missing"


def test_the_bug_of_a_starter_is_listed(exercise):
    """A learner who changes something else and leaves the bug hears what it is."""
    if exercise.starter is None:
        return
    tree = ast.parse(exercise.stub)
    at = 1 if ast.get_docstring(tree.body[0]) else 0
    tree.body[0].body.insert(at, ast.parse("_ = 0").body[0])
    answer = answer_from(exercise, ast.unparse(ast.fix_missing_locations(tree)))
    result = check(exercise.name, answer, seed=0)
    hints = [text for _, text in exercise.mistakes]
    assert result.state != "solved" and result.hint in hints, result


def test_known_mistakes_fail_with_their_own_hints(exercise):
    """In twelve checks as a learner makes them, and in a long one.

    The rounds of a check are draws 1000 seeds apart. So eight of the short checks take their draws
    from those of the long one, three in a row, and cost little beside it.
    """
    inside_the_long = [(1000 * k, 3) for k in range(8)]
    apart = [(seed, 3) for seed in (1, 1001, 2, 1002)]
    for seed, rounds in [*inside_the_long, *apart, (0, 10)]:
        for wrong, hint in exercise.mistakes:
            result = check(exercise.name, wrong, seed=seed, rounds=rounds)
            told = f"{hint}\nseed {seed}, {rounds} rounds: {result!r}"
            assert result.state != "solved" and result.hint == hint, told


@pytest.mark.slow
def test_no_mutant_passes_and_most_are_led_somewhere(exercise, record_property):
    led_to = judge_mutants(exercise)
    alive = [mutant for mutant, kind in led_to.items() if kind == "solved"]
    excused = EQUIVALENT.get(exercise.name, {})
    assert len(led_to) >= 5, "too few mutants to say anything"
    loose = [mutant for mutant in alive if mutant not in excused]
    assert not loose, (
        f"{len(loose)} of {len(led_to)} mutants of {exercise.name} pass."
        " Strengthen inputs or laws, or prove them equivalent:\n" + "\n".join(loose)
    )
    assert all(excused.values()) and set(excused) <= set(alive), (
        f"not a mutant that passes: {set(excused) - set(alive)}"
    )
    kinds = collections.Counter(kind for kind in led_to.values() if kind != "solved")
    record_property("led somewhere", (exercise.name, dict(kinds)))
    least = LEAST.get(exercise.name, 0.5)
    at_a_loss = [mutant for mutant, kind in led_to.items() if kind == "nothing"]
    assert len(at_a_loss) <= (1 - least) * kinds.total(), "\n".join(at_a_loss)


def test_two_different_right_answers_pass(exercise):
    sources = RIGHT.get(exercise.name, [])
    texts = {_shape(source) for source in [*sources, exercise.solution]}
    assert len(sources) >= 2 and len(texts) == len(sources) + 1, (
        f"RIGHT[{exercise.name!r}] needs two right answers, written differently"
    )
    for source in sources:
        for seed in range(5):
            result = check(exercise.name, answer_from(exercise, source), seed=seed)
            assert result.state == "solved", f"{result!r}\n{source}"


def _shape(source: str) -> str:
    """The code without comments, docstrings and layout."""
    tree = ast.parse(textwrap.dedent(source))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


def test_a_wrong_answer_that_nobody_listed_gets_a_counterexample_and_no_hint(exercise):
    for wrong in unlisted(exercise):
        result = check(exercise.name, wrong, seed=0)
        assert result.state in ("wrong", "error") and result.hint is None, result
        assert any(row.ok is False and "for " in row.detail for row in result.rows), result


def test_odd_answers_get_a_row_and_leave_no_trace(exercise, capfd):
    def state():
        return (
            torch.get_rng_state().tolist(),
            str(np.random.get_state()),
            torch.is_grad_enabled(),
            torch.get_default_dtype(),
        )

    untouched = state()
    for what, answer in ODD.items():
        result = check(exercise.name, answer, seed=0, rounds=1)
        assert result.state in ("wrong", "error", "blank"), f"{what}: {result!r}"
        if result.state != "blank":
            assert any(row.ok is False and row.detail for row in result.rows), what
        assert "the check runs" not in [row.name for row in result.rows], f"{what}: {result!r}"
        assert repr(result) and "<script>" not in result._repr_html_(), what
    assert state() == untouched
    assert capfd.readouterr().err == ""


def test_mutants_are_many_kinds():
    """The machine that makes mutants does make them (a guard for the tests above)."""
    assert all(len(mutants(REGISTRY[name])) > 0 for name in ALL)
