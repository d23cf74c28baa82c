"""Verdicts of the checker, on throw-away exercises: solved, wrong and why, not started."""

import functools
import linecache

import pytest
import torch
from sample_exercises import SAMPLES, row, written

from mtl_course import checks
from mtl_course.checks import check, hint, learner, rows, solution, use
from mtl_course.checks.exercise import BLANK, REGISTRY, Exercise, exercise

pytestmark = pytest.mark.usefixtures("course")


@pytest.mark.parametrize("name", SAMPLES)
def test_solution_is_solved_and_stub_is_not_started(name):
    result = check(name, written(SAMPLES[name].solution, name))
    assert (
        result.state == "solved" and result.score == SAMPLES[name].points and result.hint is None
    ), result
    result = check(name, written(SAMPLES[name].stub, name))
    assert result.state == "blank" and result.hint is None and result.score == 0, result
    told = repr(result) + result._repr_html_()
    assert not any(text in told for text in SAMPLES[name].hints), "a hint before the first try"


@pytest.mark.parametrize("name", SAMPLES)
def test_the_courses_own_answer_does_not_count(name):
    own = SAMPLES[name]
    for answer in (own, own.reference, functools.partial(own.reference)):
        assert check(name, answer).state == "missing"


def test_wrong_shows_a_counterexample_that_can_be_repeated():
    result = check("weighted", lambda losses, log_vars: losses.sum() * 1.37)
    assert result.state == "wrong" and result.hint is None
    detail = row(result, "right values").detail
    assert "losses = [" in detail and "expected" in detail and "got" in detail
    assert f'check("weighted", seed={result.seed})' in repr(result)
    again = check("weighted", lambda losses, log_vars: losses.sum() * 1.37, seed=result.seed)
    assert repr(again) == repr(result)


@pytest.mark.parametrize(
    "name,i", [(n, i) for n, e in SAMPLES.items() for i in range(len(e.mistakes))]
)
def test_known_mistake_gets_its_own_hint(name, i):
    wrong, text = SAMPLES[name].mistakes[i]
    for rounds in (1, 3, 10):
        assert check(name, wrong, rounds=rounds).hint == text


def test_an_error_shows_the_learners_own_line_and_the_inputs():
    code = "def f(losses, log_vars):\n    x = losses + 1\n    return torch.cat([x[None], x])\n"
    result = check("weighted", written(code, "f"))
    assert result.state == "error" and result.score == 0
    text = repr(result)
    assert "line 3 in f" in text and "RuntimeError" in text and "losses = [" in text
    assert "checks/" not in text and "site-packages" not in text


def test_an_error_is_not_taken_for_a_known_mistake_that_fails_otherwise():
    own = Exercise("weighted", SAMPLES["weighted"].reference, SAMPLES["weighted"].inputs)
    own.mistake("Two arguments cannot be added as text.")(lambda losses, log_vars: "a" + losses)
    cases = rows.draw_cases(own, 0, 3)
    for answer, expected in (
        (lambda a, b: 1 / 0, None),
        (lambda a, b: "a" + a, own.mistakes[0][1]),
    ):
        assert checks.diagnose(own, answer, rows.examine(own, answer, cases), cases) == expected


def test_mistakes_that_are_alike_on_some_inputs_are_told_apart_by_more():
    def often(g):
        return (torch.randint(1, 3, (1,), generator=g).float(),)

    own = Exercise("twice", lambda a: 2 * a, [often])
    first, second = (lambda a: 3 * a + (a == 2)), (lambda a: 3 * a)
    own.mistake("Three, and one more for two.")(first)
    own.mistake("Three.")(second)
    for seed in range(20):
        cases = rows.draw_cases(own, seed, 2)
        assert checks.diagnose(own, second, rows.examine(own, second, cases), cases) == "Three."


def test_partial_credit_by_row():
    whole = SAMPLES["project"].points
    zeros = check("project", lambda g_i, g_j: torch.zeros_like(g_i)).score
    in_place = check("project", SAMPLES["project"].mistakes[2][0]).score
    assert 0 < zeros < in_place < whole
    assert check("project", lambda g_i, g_j: 1 / 0).score == 0


def test_missing_is_said_when_the_name_is_not_defined():
    result = check("project")
    assert result.state == "missing" and "Run the cell" in result.hint


def test_answer_is_taken_from_where_check_is_called():
    project = written(SAMPLES["project"].solution, "project")
    assert check("project").state == "solved" and project
    from sample_exercises import project

    assert check("project").state == "missing"
    project = 3
    result = check("project")
    assert result.state == "error" and "an int, not a function" in repr(result)


def test_unknown_name_has_close_matches():
    for verb in (check, hint, solution, use):
        with pytest.raises(ValueError, match="Did you mean project"):
            verb("projct")
    with pytest.raises(ValueError, match="progress"):
        check("zzzzzz")


def test_spot_the_bug_unchanged_but_for_comments_is_not_started():
    unchanged = """
        def mended(a):
            '''Another docstring.'''
            # a comment

            total = a.mean()
            return 2 * total
    """
    result = check("mended", written(unchanged, "mended"))
    assert result.state == "blank" and "Find the mistake" in repr(result)
    other = check("mended", written(unchanged.replace("2 *", "3 *"), "mended"))
    assert other.state == "wrong" and other.hint is None
    renamed = check("mended", written(unchanged.replace("total", "t"), "mended"))
    assert renamed.state == "wrong" and renamed.hint == "That is the mean."


@pytest.mark.parametrize(
    "body",
    [BLANK, "raise NotImplementedError", "pass", "...", "'''Doc.'''\n    pass", "return None"],
)
def test_an_empty_body_is_not_started(body):
    answer = written(f"def weighted(losses, log_vars):\n    {body}\n", "weighted")
    assert check("weighted", answer).state == "blank"


def test_a_blank_helper_is_named_and_is_not_taken_for_a_blank_answer():
    code = f"""
        def project(a, b):
            {BLANK}
        def weighted(losses, log_vars):
            return project(losses, log_vars).sum()
    """
    result = check("weighted", written(code, "weighted"))
    assert (
        result.state == "error" and "`project`" in repr(result) and 'use("project")' in repr(result)
    )


def test_not_implemented_raised_by_torch_is_an_error_with_the_learners_line():
    code = "def f(a, b):\n    return torch.ones(2).to_sparse().to_mkldnn()\n"
    result = check("weighted", written(code, "f"))
    assert result.state == "error" and "line 2 in f" in repr(result)


def test_one_branch_left_blank_is_an_error_not_a_blank():
    code = """
        def project(g_i, g_j):
            if g_i @ g_j < 0:
                return g_i - g_i @ g_j / (g_j @ g_j) * g_j
            raise NotImplementedError
    """
    assert check("project", written(code, "project")).state == "error"


def test_inputs_have_the_names_of_the_call_that_takes_them(monkeypatch):
    """Not under the function's names, where a `call` makes other arguments of the drawn ones."""

    def call(answer, left, right):
        return answer(left * right)

    twice = Exercise(
        "twice",
        lambda product: 2 * product,
        [lambda g: (3.0, 4.0)],
        call=call,
        grad=False,
        device=False,
    )
    monkeypatch.setitem(REGISTRY, "twice", twice)
    text = repr(check("twice", lambda product: product))
    assert "left = 3" in text and "right = 4" in text and "product =" not in text


def test_check_never_raises_when_the_exercise_itself_is_broken(monkeypatch):
    broken = Exercise("weighted", lambda a, b: 1 / 0, SAMPLES["weighted"].inputs)
    monkeypatch.setitem(REGISTRY, "weighted", broken)
    result = check("weighted", lambda a, b: a.sum())
    assert result.state == "error" and "no fault of yours" in repr(result)
    monkeypatch.setenv("MTL_COURSE_CHECKS", "strict")
    with pytest.raises(RuntimeError):
        check("weighted", lambda a, b: a.sum())


def test_wrong_signature_names_the_arguments():
    result = check("weighted", lambda: 1)
    assert result.state == "error" and "(losses, log_vars)" in repr(result)


def test_a_name_cannot_be_taken_twice():
    def project():
        pass

    project.__module__ = "elsewhere"
    with pytest.raises(ValueError, match="Two exercises"):
        exercise(_no_inputs)(project)


def _no_inputs(generator):
    return ()


def _tanh_sum(x):
    """Twice the tanh."""
    return 2 * torch.tanh(x)


def _tanh_bug(x):
    """Twice the tanh."""
    return 2 + torch.tanh(x)


@pytest.mark.parametrize("imports", ["", "import torch\n"])
@pytest.mark.parametrize(
    "before, after, untouched",
    [
        ("return", "return", True),
        ("    return", "    # what is wrong?\n    return", True),
        ("2 +", "3 +", False),
    ],
)
def test_an_unchanged_starter_is_recognised_whatever_is_imported_around_it(
    imports, before, after, untouched
):
    """`torch.tanh(x)` compiles to other byte code where torch is imported; the source tells."""
    spotted = Exercise(
        "_tanh_sum", _tanh_sum, [lambda g: (torch.randn(3, generator=g),)], starter=_tanh_bug
    )
    source = imports + spotted.stub.replace(before, after)
    file = f"<ipython-input-{abs(hash(source))}>"
    lines = source.splitlines(keepends=True)
    linecache.cache[file] = len(source), None, lines, file  # as IPython keeps its cells
    scope = {"torch": torch}
    exec(compile(source, file, "exec"), scope)
    assert learner.untouched(spotted, scope["_tanh_sum"]) is untouched
