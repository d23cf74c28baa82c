"""Every exercise of the course is tested: its answer passes, its stub is not started, and every
mistake is found out.

Chapter authors put into ``tests/answers/chNN.py``: ``RIGHT = {exercise: [source, source]}``, at least
two right answers that are written differently from the reference; and, where a mutant provably
computes the same, ``EQUIVALENT = {exercise: {mutant: one-line proof}}``, the mutant described as
the failing test prints it.
"""

import ast
import textwrap
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from exercise_tools import ODD, answer_from, mutants, survivors, unlisted

import mtl_course.exercises
from mtl_course.checks import check
from mtl_course.checks.exercise import REGISTRY, source_of

ALL = sorted(REGISTRY)
MISTAKES = [(name, i) for name in ALL for i in range(len(REGISTRY[name].mistakes))]
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


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """A home of its own, and the mode of a learner."""
    monkeypatch.setenv("MTL_COURSE_HOME", str(tmp_path))
    monkeypatch.delenv("MTL_COURSE_CHECKS", raising=False)


def test_every_chapter_has_exercises():
    chapters = {
        path.stem[2:] for path in Path(mtl_course.exercises.__file__).parent.glob("ch[0-9]*.py")
    }
    assert chapters == {REGISTRY[name].chapter for name in ALL}
    assert set(RIGHT) | set(EQUIVALENT) <= set(ALL), "an entry for an exercise that does not exist"


@pytest.mark.parametrize("name", ALL)
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


@pytest.mark.parametrize("name", ALL)
def test_reference_passes(name):
    answer = answer_from(
        REGISTRY[name], REGISTRY[name].solution
    )  # the text that a learner sees, not the object
    for seed in range(30):
        result = check(name, answer, seed=seed, rounds=1)
        assert result.state == "solved" and result.score == REGISTRY[name].points, result
    assert check(name, answer).state == "solved"


@pytest.mark.parametrize("name", ALL)
def test_stub_is_not_started(name):
    result = check(name, answer_from(REGISTRY[name], REGISTRY[name].stub))
    assert result.state == "blank" and result.hint and result.score == 0, result


@pytest.mark.parametrize("name", ALL)
def test_the_courses_own_object_does_not_count(name):
    assert (
        check(name, REGISTRY[name]).state
        == check(name, REGISTRY[name].reference).state
        == "missing"
    )


@pytest.mark.parametrize("name", [n for n in ALL if REGISTRY[n].starter])
def test_the_bug_of_a_starter_is_listed(name):
    """A learner who changes something else and leaves the bug hears what it is."""
    exercise = REGISTRY[name]
    tree = ast.parse(exercise.stub)
    at = 1 if ast.get_docstring(tree.body[0]) else 0
    tree.body[0].body.insert(at, ast.parse("_ = 0").body[0])
    result = check(name, answer_from(exercise, ast.unparse(ast.fix_missing_locations(tree))))
    assert result.state != "solved" and result.hint in [text for _, text in exercise.mistakes], (
        result
    )


@pytest.mark.parametrize("name,i", MISTAKES)
def test_known_mistake_fails_with_its_own_hint(name, i):
    wrong, hint = REGISTRY[name].mistakes[i]
    for seed in range(10):
        result = check(name, wrong, seed=seed)
        assert result.state != "solved" and result.hint == hint, f"seed {seed}: {result!r}"
    assert check(name, wrong, rounds=10).hint == hint


@pytest.mark.parametrize("name", ALL)
def test_no_mutant_passes(name):
    alive, made = survivors(REGISTRY[name])
    excused = EQUIVALENT.get(name, {})
    assert made >= 5, "too few mutants to say anything"
    loose = [m for m in alive if m not in excused]
    assert not loose, (
        f"{len(loose)} of {made} mutants of {name} pass. Strengthen inputs or laws, or prove them"
        " equivalent:\n" + "\n".join(loose)
    )
    assert all(excused.values()) and set(excused) <= set(alive), (
        f"not a mutant that passes: {set(excused) - set(alive)}"
    )


@pytest.mark.parametrize("name", ALL)
def test_two_different_right_answers_pass(name):
    exercise, sources = REGISTRY[name], RIGHT.get(name, [])
    texts = {_shape(source) for source in [*sources, exercise.solution]}
    assert len(sources) >= 2 and len(texts) == len(sources) + 1, (
        f"RIGHT[{name!r}] needs two right answers, written differently"
    )
    for source in sources:
        for seed in range(5):
            result = check(name, answer_from(exercise, source), seed=seed)
            assert result.state == "solved", f"{result!r}\n{source}"


def _shape(source: str) -> str:
    """The code without comments, docstrings and layout."""
    tree = ast.parse(textwrap.dedent(source))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


@pytest.mark.parametrize("name", ALL)
def test_a_wrong_answer_that_nobody_listed_gets_a_counterexample_and_no_hint(name):
    for wrong in unlisted(REGISTRY[name]):
        result = check(name, wrong, seed=0)
        assert result.state in ("wrong", "error") and result.hint is None, result
        assert any(row.ok is False and "for " in row.detail for row in result.rows), result


@pytest.mark.parametrize("name", ALL)
def test_odd_answers_get_a_row_and_leave_no_trace(name, capfd):
    def state():
        return (
            torch.get_rng_state().tolist(),
            str(np.random.get_state()),
            torch.is_grad_enabled(),
            torch.get_default_dtype(),
        )

    before = state()
    for what, answer in ODD.items():
        result = check(name, answer, rounds=1)
        assert result.state in ("wrong", "error", "blank"), f"{what}: {result!r}"
        if result.state != "blank":
            assert any(row.ok is False and row.detail for row in result.rows), what
        assert "the check runs" not in [row.name for row in result.rows], f"{what}: {result!r}"
        assert repr(result) and "<script>" not in result._repr_html_(), what
    assert state() == before
    assert capfd.readouterr().err == ""


def test_mutants_are_many_kinds():
    """The machine that makes mutants does make them (a guard for the tests above)."""
    assert all(len(mutants(REGISTRY[name])) > 0 for name in ALL)
