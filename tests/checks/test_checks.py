"""The checker, on throw-away exercises: verdicts, what it says, its modes, and that nothing a
learner writes breaks it.
"""

import asyncio
import functools
import linecache
import logging
import os
import random
import subprocess
import sys
import textwrap
import threading
import time
import warnings

import numpy as np
import pytest
import sample_exercises
import torch
from torch import nn

import mtl_course
import mtl_course.exercises  # registers the course's own, before the samples take their place
from mtl_course import checks
from mtl_course.checks import (
    CheckFailed,
    check,
    devices,
    hint,
    learner,
    progress,
    rows,
    sandbox,
    solution,
    use,
    values,
)
from mtl_course.checks.exercise import BLANK, REGISTRY, Exercise, exercise

SAMPLES = sample_exercises.EXERCISES


@pytest.fixture(autouse=True)
def course(tmp_path, monkeypatch):
    """Only the sample exercises, learner's mode, and a home of its own."""
    before = dict(REGISTRY)
    REGISTRY.clear()
    REGISTRY.update(SAMPLES)
    monkeypatch.setenv("MTL_COURSE_HOME", str(tmp_path))
    monkeypatch.delenv("MTL_COURSE_CHECKS", raising=False)
    monkeypatch.setattr(checks, "_hints_given", {})
    yield
    REGISTRY.clear()
    REGISTRY.update(before)


def written(source: str, name: str = None, **names):
    """What a learner defines in a cell."""
    scope = {"torch": torch, "nn": nn, "np": np, "time": time, "__name__": "__main__", **names}
    exec(compile(textwrap.dedent(source), "<ipython-input-1-cell>", "exec"), scope)
    return scope[name] if name else list(scope.values())[-1]


def row(result, name):
    return next(r for r in result.rows if r.name == name)


# -------------------------------------------------------------------- verdicts


@pytest.mark.parametrize("name", SAMPLES)
def test_solution_is_solved_and_stub_is_not_started(name):
    result = check(name, written(SAMPLES[name].solution, name))
    assert (
        result.state == "solved" and result.score == SAMPLES[name].points and result.hint is None
    ), result
    result = check(name, written(SAMPLES[name].stub, name))
    assert result.state == "blank" and result.hint and result.score == 0, result


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
    result = check(
        "weighted",
        written(
            "def f(losses, log_vars):\n    x = losses + 1\n    return torch.cat([x[None], x])\n",
            "f",
        ),
    )
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


# ------------------------------------------------------------------ not started


def test_spot_the_bug_unchanged_but_for_comments_is_not_started():
    unchanged = (
        "def mended(a):\n    '''Another docstring.'''\n    # a comment\n\n    total = a.mean()\n   "
        " return 2 * total\n"
    )
    result = check("mended", written(unchanged, "mended"))
    assert result.state == "blank" and result.hint
    other = check("mended", written(unchanged.replace("2 *", "3 *"), "mended"))
    assert other.state == "wrong" and other.hint is None
    renamed = check("mended", written(unchanged.replace("total", "t"), "mended"))
    assert renamed.state == "wrong" and renamed.hint == "That is the mean."


@pytest.mark.parametrize(
    "body",
    [BLANK, "raise NotImplementedError", "pass", "...", "'''Doc.'''\n    pass", "return None"],
)
def test_an_empty_body_is_not_started(body):
    assert (
        check(
            "weighted", written(f"def weighted(losses, log_vars):\n    {body}\n", "weighted")
        ).state
        == "blank"
    )


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
    result = check(
        "weighted", written("def f(a, b):\n    return torch.ones(2).to_sparse().to_mkldnn()\n", "f")
    )
    assert result.state == "error" and "line 2 in f" in repr(result)


def test_one_branch_left_blank_is_an_error_not_a_blank():
    code = (
        "def project(g_i, g_j):\n    if g_i @ g_j < 0:\n        return g_i - g_i @ g_j / (g_j @"
        " g_j) * g_j\n    raise NotImplementedError\n"
    )
    assert check("project", written(code, "project")).state == "error"


# ------------------------------------------------------------------------- rows


def test_type_shape_and_dtype():
    good = SAMPLES["weighted"].reference
    for change, words in (
        (lambda out: None, "return"),
        (lambda out: out.item(), "torch.Tensor"),
        (lambda out: out[None], "shape ()"),
        (lambda out: out.double(), "dtype"),
        (lambda out: out.detach().numpy(), "torch.Tensor"),
        (lambda out: out.to("meta"), "cpu"),
    ):
        result = check("weighted", lambda a, b, change=change: change(good(a, b)))
        assert result.state == "wrong" and words in row(result, "right type and shape").detail


def test_numpy_answers_have_no_gradient_or_device_row():
    result = check("centred", lambda x: x - np.mean(x, axis=0, keepdims=True))
    assert result.state == "solved" and [r.name for r in result.rows] == [
        "runs on fresh random inputs",
        "right type and shape",
        "right values",
        "leaves its inputs unchanged",
    ]
    assert "NumPy array" in repr(check("centred", lambda x: torch.tensor(x)))
    assert "float64" in repr(check("centred", lambda x: (x - x.mean(0)).astype(np.float32)))

    def in_place(x):
        x -= x.mean(axis=0)
        return x

    assert row(check("centred", in_place), "leaves its inputs unchanged").ok is False


def test_numbers_may_be_pythons_or_numpys():
    for answer in (
        lambda x: np.ptp(x),
        lambda x: x.max() - x.min(),
        lambda x: np.asarray(np.ptp(x)),
    ):
        assert check("spread", answer).state == "solved"
    for answer in (lambda x: x, lambda x: torch.tensor(np.ptp(x)), lambda x: "3", lambda x: True):
        assert row(check("spread", answer), "right type and shape").ok is False


def test_gradient_row():
    cut = check("weighted", lambda a, b: (torch.exp(-b) * a + b).sum().detach())
    assert "No gradient" in row(cut, "gradients flow").detail and cut.hint is None
    part = check("weighted", lambda a, b: (torch.exp(-b.detach()) * a + b).sum())
    assert "differs" in row(part, "gradients flow").detail and part.hint is None


no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: none is pretended")


@no_gpu
def test_device_row_without_a_gpu():
    mixed = check("weighted", lambda a, b: (torch.exp(-b) * a + b + torch.zeros(len(a))).sum())
    assert (
        mixed.state == "wrong" and "mixes CPU and GPU" in row(mixed, "works on any device").detail
    )
    back = check("weighted", lambda a, b: (torch.exp(-b) * a + b).sum().cpu())
    assert "CPU" in row(back, "works on any device").detail
    right = check(
        "weighted",
        lambda a, b: (torch.exp(-b) * a + b + torch.zeros(len(a), device=a.device)).sum(),
    )
    assert right.state == "solved" and row(right, "works on any device").ok
    branching = check(
        "weighted", lambda a, b: (torch.exp(-b) * a + b).sum() if a.sum() > 0 else None
    )
    assert branching.state == "solved" and row(branching, "works on any device").ok


MIXES, COMES_BACK, HOST = "mixes CPU and GPU", "a result is on the CPU", "no .numpy()"
ON_A_GPU = {
    "a + torch.zeros(len(a))": MIXES,
    "torch.eye(len(a)) @ a": MIXES,
    "nn.Linear(len(a), 2)(a)": MIXES,
    "torch.stack([a, torch.ones(len(a))])": MIXES,
    "nn.functional.cross_entropy(a[None], torch.tensor([0]))": MIXES,
    "a.cpu()": COMES_BACK,
    "a.to('cpu')": COMES_BACK,
    "torch.zeros(2)": COMES_BACK,
    "torch.tensor([x.item() for x in a])": COMES_BACK,
    "torch.tensor(a.cpu().numpy())": COMES_BACK,
    "a.numpy()": HOST,
    "a + torch.zeros(len(a), device=a.device)": "",
    "a + torch.zeros(len(a)).to(a)": "",
    "a + torch.zeros(len(a)).to(device=a.device)": "",
    "a + torch.zeros(len(a)).cuda()": "",
    "a + torch.zeros_like(b) + a.new_ones(len(a)) + torch.tensor(2.0)": "",
    "a[torch.arange(len(a))]": "",
    "nn.Linear(len(a), 2).to(a.device)(a)": "",
    "nn.Linear(len(a), 2, device=a.device)(a)": "",
    "nn.Sequential(nn.Linear(len(a), 2), nn.BatchNorm1d(2), nn.Dropout()).cuda()(torch.stack([a, b]))": (
        ""
    ),
    "torch.func.vmap(torch.add)(a, b)": "",
    "torch.autograd.grad((a.requires_grad_() * b).sum(), a)[0]": "",
    "a * 2 if a.is_cuda and a.device.type == 'cuda' and a.sum() > 0 else torch.zeros(1)": "",
    "torch.linalg.solve(torch.outer(a, a) + torch.eye(len(a), device=a.device), b)": "",
    "sum(x * y for x, y in zip(a, b))": "",
}


@no_gpu
@pytest.mark.parametrize("expression", ON_A_GPU)
def test_pretended_gpu(expression):
    case = rows.draw_cases(SAMPLES["weighted"], 0, 1)[0]
    fault = devices.problem(case, written(f"f = lambda a, b: {expression}", "f"), 3.0)
    assert fault == "" if ON_A_GPU[expression] == "" else ON_A_GPU[expression] in fault


@no_gpu
def test_pretended_gpu_in_place_and_optimizer():
    def fills(a, b):
        out = torch.empty_like(a)
        for i in range(len(a)):
            out[i] = a[i] * b[i]
        return out

    def trains(a, b):
        w = torch.zeros(len(a), device=a.device, requires_grad=True)
        optimizer = torch.optim.Adam([w])
        (w - a).square().sum().backward()
        optimizer.step()
        return w

    case = rows.draw_cases(SAMPLES["weighted"], 0, 1)[0]
    assert devices.problem(case, fills, 3.0) == devices.problem(case, trains, 10.0) == ""


def test_modules_are_compared_and_moved():
    result = check("Shared", written(SAMPLES["Shared"].solution, "Shared"))
    assert result.state == "solved" and row(result, "works on any device").ok
    stuck = SAMPLES["Shared"].solution.replace(
        "h = self.trunk(x)", "h = self.trunk(x) + torch.zeros(8)"
    )
    assert check("Shared", written(stuck, "Shared")).state == "wrong"


def test_an_exercise_that_changes_a_model_and_its_optimizer():
    assert check("one_step", written(SAMPLES["one_step"].solution, "one_step")).state == "solved"

    def forgets_the_step(model, optimizer, x):
        return model(x).square().mean().item()

    def changes_the_mode(model, optimizer, x):
        out = SAMPLES["one_step"].reference(model, optimizer, x)
        model.eval()
        return out

    for wrong in (forgets_the_step, changes_the_mode):
        result = check("one_step", wrong)
        assert result.state == "wrong" and row(result, "changes its inputs as asked").ok is False


def test_laws_that_fail_or_raise_are_rows():
    own = Exercise("weighted", SAMPLES["weighted"].reference, SAMPLES["weighted"].inputs)
    own.law("numpy false")(lambda answer, a, b: np.bool_(False))
    own.law("tensor true")(lambda answer, a, b: torch.tensor(True))
    own.law("says nothing")(lambda answer, a, b: None)
    own.law("raises")(lambda answer, a, b: 1 / 0)
    answer = written(SAMPLES["weighted"].solution, "weighted")
    found = {r.name: r.ok for r in rows.examine(own, answer, rows.draw_cases(own, 0, 1)).rows}
    assert (found["numpy false"], found["tensor true"], found["says nothing"], found["raises"]) == (
        False,
        True,
        True,
        False,
    )


# -------------------------------------------------------------------- the sandbox

LOOPS = {
    "plain": "while True: pass",
    "bare except": "while True:\n        try: pass\n        except: pass",
    "bare except around a sleep": (
        "while True:\n        try: time.sleep(0.01)\n        except: pass"
    ),
    "bare except around torch": (
        "while True:\n        try: torch.ones(3).sum().item()\n        except: pass"
    ),
    "nested": (
        "while True:\n        try:\n            while True:\n                try:"
        " time.sleep(0.001)\n                except: pass\n        except: pass"
    ),
    "finally": "while True:\n        try: time.sleep(0.01)\n        finally: continue",
    "prints": "while True: print('x' * 1000)",
    "sleep": "time.sleep(3)",
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("where", ["main thread", "other thread", "no SIGALRM"])
def test_endless_loops_are_stopped(loop, where, monkeypatch, capfd):
    answer = written(f"def loop(losses, log_vars):\n    {LOOPS[loop]}\n", "loop")
    own = Exercise("weighted", SAMPLES["weighted"].reference, SAMPLES["weighted"].inputs, limit=0.3)
    monkeypatch.setitem(REGISTRY, "weighted", own)
    if where == "no SIGALRM":
        monkeypatch.delattr("signal.setitimer")
    results = []
    started = time.monotonic()
    if where == "other thread":
        thread = threading.Thread(target=lambda: results.append(check("weighted", answer)))
        thread.start()
        thread.join(15)
    else:
        results.append(check("weighted", answer))
    assert results and results[0].state == "timeout" and time.monotonic() - started < 6
    used = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - used < 0.15, "the loop is still running"
    assert capfd.readouterr().err == ""


def test_a_timer_of_somebody_else_is_put_back():
    import signal

    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 30)
        check("weighted", lambda a, b: a.sum())
        assert (
            20 < signal.getitimer(signal.ITIMER_REAL)[0] <= 30
            and signal.getsignal(signal.SIGALRM) is not before
        )
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_slow_answers_are_stopped_by_the_time_of_the_whole_check(monkeypatch):
    own = Exercise(
        "weighted", SAMPLES["weighted"].reference, SAMPLES["weighted"].inputs * 10, limit=0.5
    )
    monkeypatch.setitem(REGISTRY, "weighted", own)
    result = check("weighted", lambda a, b: time.sleep(0.15))
    assert result.state == "timeout" and "slow" in repr(result)


def everything():
    return {
        "python": random.getstate(),
        "numpy": str(np.random.get_state()),
        "torch": torch.get_rng_state().tolist(),
        "grad": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "threads": torch.get_num_threads(),
        "folder": os.getcwd(),
        "filters": list(warnings.filters),
        "numpy errors": np.geterr(),
        "handlers": list(logging.getLogger().handlers),
        "streams": (sys.stdout, sys.stderr),
    }


def test_no_state_leaks(tmp_path, capfd):
    def messy(losses, log_vars):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        (
            torch.set_grad_enabled(False),
            torch.set_default_dtype(torch.float64),
            torch.set_default_device("meta"),
        )
        (
            torch.set_num_threads(torch.get_num_threads() + 1),
            os.chdir(tmp_path),
            warnings.simplefilter("error"),
        )
        np.seterr(all="raise"), logging.warning("heard?")
        sys.stdout = sys.stderr = None
        return losses.sum()

    before = everything()
    check("weighted", messy)
    check("weighted", lambda a, b: torch.rand(3) + float(np.random.rand()) + random.random())
    assert everything() == before
    said = capfd.readouterr()
    assert said.out == "" and said.err == ""


def test_the_notebooks_own_settings_do_not_change_the_verdict():
    answer = written(SAMPLES["weighted"].solution, "weighted")
    with torch.no_grad():
        assert check("weighted", answer).state == "solved"
    with torch.inference_mode():
        assert check("weighted", answer).state == "solved"
    with torch.device("meta"):
        assert check("weighted", answer).state == "solved"
    torch.set_default_dtype(torch.float64)
    try:
        assert check("weighted", answer).state == "solved"
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_what_the_answer_prints_is_shown_with_a_wrong_answer_only(capfd):
    def talks(losses, log_vars):
        print("losses are", losses.shape)
        print("to stderr", file=sys.stderr)
        warnings.warn("a warning")
        return (torch.exp(-log_vars) * losses + log_vars).sum()

    assert "losses are" not in repr(check("weighted", talks))
    wrong = check("weighted", lambda a, b: talks(a, b) * 1.37)
    assert repr(wrong).count("losses are torch.Size") == 1 and "to stderr" in repr(wrong)
    said = capfd.readouterr()
    assert said.out == "" and said.err == ""


class Odd(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class Silent(Exception):
    def __str__(self):
        while True:
            pass


def raises(error):
    def answer(*args):
        raise error

    return answer


@pytest.mark.parametrize(
    "error",
    [
        Odd(),
        Silent(),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        RecursionError(),
        ValueError("<b>"),
    ],
)
def test_whatever_is_raised_becomes_a_row(error, monkeypatch):
    monkeypatch.setattr(SAMPLES["weighted"], "limit", 0.3)
    result = check("weighted", raises(error))
    assert result.state == "error" and result.rows[0].ok is False and result.rows[0].detail
    assert repr(result) and "<b>" not in result._repr_html_()


def test_endless_recursion_is_an_error_and_short():
    result = check("weighted", written("def f(a, b):\n    return f(a, b)\n", "f"))
    assert (
        result.state == "error"
        and "RecursionError" in repr(result)
        and len(repr(result).split("\n")) < 20
    )


def test_wrong_signature_names_the_arguments():
    result = check("weighted", lambda: 1)
    assert result.state == "error" and "(losses, log_vars)" in repr(result)


def test_inputs_have_the_names_of_the_call_that_takes_them(monkeypatch):
    """An exercise whose `call` makes other arguments of the drawn ones must not show them under the
    function's names.
    """

    def call(answer, left, right):
        return answer(left * right)

    monkeypatch.setitem(
        REGISTRY,
        "twice",
        Exercise(
            "twice",
            lambda product: 2 * product,
            [lambda g: (3.0, 4.0)],
            call=call,
            grad=False,
            device=False,
        ),
    )
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


# ------------------------------------------------------------ verbs, modes, report


def test_hints_come_one_by_one(capsys):
    for _ in range(3):
        hint("project")
    hint("project", 1)
    hint("project", 99)
    hint("centred")
    lines = capsys.readouterr().out.split("\n")
    assert lines[0] == "Hint 1 of 2: Look at the dot product."
    assert lines[1] == lines[3] == "Hint 2 of 2: Act only when it is negative."
    assert lines[2].startswith('That is the last one. solution("project")')
    assert (
        lines[5] == lines[0]
        and lines[6] == lines[1]
        and lines[8].startswith("centred has no hints")
    )


def test_solution_is_printed_as_a_learner_would_write_it(capsys):
    solution("project")
    text = capsys.readouterr().out
    assert (
        text.startswith("def project(g_i, g_j):")
        and "SOLUTION" not in text
        and "exercise" not in text
    )


def test_use_gives_the_learners_answer_only_if_it_passes(capsys):
    reference = SAMPLES["project"].reference
    assert use("project") is reference
    project = written(SAMPLES["project"].stub, "project")
    assert use("project") is reference
    project = lambda g_i, g_j: g_i  # noqa: E731
    assert use("project") is reference
    assert set(capsys.readouterr().out.splitlines()) == {
        "Going on with the course's project; yours takes over once its check passes."
    }
    project = written(SAMPLES["project"].solution, "project")
    assert use("project") is project
    assert capsys.readouterr().out == "Going on with your own project.\n"


def test_binding_the_result_of_use_does_not_solve_the_exercise():
    project = written(SAMPLES["project"].stub, "project")
    project = use("project")
    result = check("project")
    assert project and result.state == "missing" and "course's own" in result.hint


def test_modes(monkeypatch):
    blank, right, wrong = (
        written(SAMPLES["project"].stub, "project"),
        written(SAMPLES["project"].solution, "project"),
        lambda g_i, g_j: g_i,
    )
    for mode, passes in (
        ("learn", (blank, right, wrong, None)),
        ("blank", (blank,)),
        ("strict", (right,)),
    ):
        monkeypatch.setenv("MTL_COURSE_CHECKS", mode)
        for answer in (blank, right, wrong, None):
            if answer in passes:
                check("project", answer)
            else:
                with pytest.raises(CheckFailed, match=mode):
                    check("project", answer)
    monkeypatch.setenv("MTL_COURSE_CHECKS", "lax")
    with pytest.raises(ValueError, match="learn, blank, strict"):
        check("project", right)


def test_text_of_blank_and_solved_is_exact():
    assert (
        repr(check("project", written(SAMPLES["project"].stub, "project")))
        == "project: not started\n  Hint: Look at the dot product."
    )
    assert repr(check("project", written(SAMPLES["project"].solution, "project"))) == "\n".join(
        [
            "project: solved (3 of 3 points)",
            "  ✓ runs on fresh random inputs",
            "  ✓ right type and shape",
            "  ✓ right values",
            "  ✓ leaves its inputs unchanged",
            "  ✓ gradients flow",
            "  ✓ works on any device",
            "  ✓ the result never conflicts with g_j",
        ]
    )


def test_card_is_escaped_and_has_no_colour_of_page_or_text():
    def script(losses, log_vars):
        print("<script>")
        raise ValueError("<script>alert(1)</script>")

    for answer in (
        script,
        SAMPLES["weighted"].mistakes[0][0],
        written(SAMPLES["weighted"].stub, "weighted"),
    ):
        card = check("weighted", answer)._repr_html_()
        assert (
            "<script>" not in card
            and "background:#" not in card
            and "white;" not in card.replace("white-space", "")
        )
        assert ";color:#" not in card and "color:black" not in card


def test_verbs_are_exported_and_import_is_light():
    assert mtl_course.check is check and mtl_course.use is use
    code = (
        "import sys, mtl_course; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_chapters_exercises_are_loaded_on_first_use():
    code = (
        "import mtl_course.checks as c; n = len(c._registry()); import mtl_course.exercises as e,"
        " pathlib; have = {x.chapter for x in c.REGISTRY.values()}; want = {p.stem[2:] for p in"
        " pathlib.Path(e.__file__).parent.glob('ch*.py')}; assert have == want, (have, want)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------------ values


@pytest.mark.parametrize(
    "got,want,fine",
    [
        ([1, 2], (1, 2), True),
        ([1], (1, 2), False),
        ({"a": 1}, {"a": 1}, True),
        ({"b": 1}, {"a": 1}, False),
        ([1], {"a": 1}, False),
        (1, 1.0, True),
        (1.0, 1, False),
        (True, 1, False),
        (np.int32(3), 3, True),
        (1j, 1.0, False),
        (2.0, 1j, True),
        ("a", "b", True),
        (1, "b", False),
        (None, None, True),
        (1, None, False),
        (np.arange(3, dtype=np.int32), np.arange(3), True),
        (np.arange(3.0), np.arange(3), False),
    ],
)
def test_problem_of_types(got, want, fine):
    assert (values.problem(got, want) is None) == fine


def test_same_of_values():
    nan = float("nan")
    assert values.same(torch.tensor([1.0, nan]), torch.tensor([1.0, nan]), 1e-4, 1e-5)
    assert values.same({"a": [1.0, "x"]}, {"a": [1.00001, "x"]}, 1e-4, 1e-5)
    assert not values.same("x", "y", 1e-4, 1e-5)
    assert not values.same(torch.tensor([1, 2]), torch.tensor([1, 3]), 1, 1)
    assert not values.same(object(), 3, 1, 1)
    assert values.same({1, 2}, {2, 1}, 0, 0) and not values.same({1}, {2}, 0, 0)


def test_brief_is_short_and_runs_no_foreign_code():
    class Loud:
        def __repr__(self):
            raise RuntimeError

    assert values.brief(torch.tensor([[1.0, 2.5], [3, 4]])) == "[[1, 2.5], [3, 4]] (shape (2, 2))"
    assert values.brief(torch.zeros(100)) == "[0, 0, 0, 0, 0, 0, …] (shape (100,))"
    assert values.brief([Loud(), 0.123456, True, np.float64(2)]) == "[a Loud, 0.1235, True, 2]"
    assert len(values.brief(list(range(1000)))) < 60
    assert "26 parameters" in values.brief(nn.Linear(12, 2))


def test_snapshot_is_cut_off_from_later_changes():
    inside = {"t": torch.zeros(2), "a": [np.zeros(2)], "m": nn.Linear(1, 1)}
    copy = values.snapshot(inside)
    inside["t"] += 1
    inside["a"][0] += 1
    nn.init.constant_(inside["m"].weight, 7)
    inside["m"].eval()
    assert copy["t"].sum() == 0 and copy["a"][0].sum() == 0
    assert not values.alike(values.snapshot(inside["m"]), copy["m"], 0, 0)


def test_coroutines_are_closed(capfd, recwarn):
    async def answer(losses, log_vars):
        await asyncio.sleep(0)

    assert check("weighted", answer).state == "wrong"
    assert not [w for w in recwarn if "never awaited" in str(w.message)]


def test_sandbox_returns_values_and_errors():
    assert sandbox.run(lambda: 3, 1.0).value == 3
    assert isinstance(sandbox.run(lambda: 1 / 0, 1.0).error, ZeroDivisionError)
    first, second = (
        sandbox.run(lambda: torch.rand(()).item(), 1.0, seed=5).value for _ in range(2)
    )
    assert first == second


def test_progress_is_shown_for_solved_and_unsolved():
    check("project", written(SAMPLES["project"].solution, "project"))
    check("weighted", lambda a, b: a.sum())
    shown = progress()
    assert (
        "1 of" in repr(shown)
        and "✓ project" in repr(shown)
        and "✗ weighted" in repr(shown)
        and "– centred" in repr(shown)
    )
    assert "✓ project" in shown._repr_html_()


def test_a_name_cannot_be_taken_twice():
    def project():
        pass

    project.__module__ = "elsewhere"
    with pytest.raises(ValueError, match="Two exercises"):
        exercise(_no_inputs)(project)


def _no_inputs(generator):
    return ()


# ------------------------------------------------------------------ unchanged starters


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
    """`torch.tanh(x)` compiles to other byte code in a module that imports torch than in a cell
    that does not; the source tells.
    """
    spotted = Exercise(
        "_tanh_sum", _tanh_sum, [lambda g: (torch.randn(3, generator=g),)], starter=_tanh_bug
    )
    source = imports + spotted.stub.replace(before, after)
    file = f"<ipython-input-{abs(hash(source))}>"
    linecache.cache[file] = (
        len(source),
        None,
        source.splitlines(keepends=True),
        file,
    )  # as IPython keeps its cells
    scope = {"torch": torch}
    exec(compile(source, file, "exec"), scope)
    assert learner.untouched(spotted, scope["_tanh_sum"]) is untouched
