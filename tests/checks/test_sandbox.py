"""The sandbox: endless loops are stopped, nothing leaks, whatever is raised becomes a row."""

import asyncio
import logging
import os
import random
import sys
import threading
import time
import warnings

import numpy as np
import pytest
import torch
from sample_exercises import SAMPLES, written

from mtl_course.checks import check, sandbox
from mtl_course.checks.exercise import REGISTRY, Exercise

pytestmark = pytest.mark.usefixtures("course")


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
        "while True:\n        try:\n            while True:\n"
        "                try: time.sleep(0.001)\n                except: pass\n"
        "        except: pass"
    ),
    "finally": "while True:\n        try: time.sleep(0.01)\n        finally: continue",
    "prints": "while True: print('x' * 1000)",
    "finalizers": (
        "class Thing:\n        def __del__(self): sum(range(1000))\n    while True: Thing()"
    ),
    "sleep": "time.sleep(3)",
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("where", ["child", "main thread", "other thread", "no SIGALRM"])
def test_endless_loops_are_stopped(loop, where, monkeypatch, capfd):
    answer = written(f"def loop(losses, log_vars):\n    {LOOPS[loop]}\n", "loop")
    own = Exercise("weighted", SAMPLES["weighted"].reference, SAMPLES["weighted"].inputs, limit=0.3)
    monkeypatch.setitem(REGISTRY, "weighted", own)
    monkeypatch.setenv("MTL_COURSE_SANDBOX", "child" if where == "child" else "kernel")
    if where == "no SIGALRM":
        monkeypatch.delattr("signal.setitimer")
    results = []
    sandbox.import_before_the_clock()
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


@pytest.mark.usefixtures("sandboxed")
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


@pytest.mark.slow
@pytest.mark.usefixtures("sandboxed")
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
        "hook": sys.unraisablehook,
    }


@pytest.mark.usefixtures("sandboxed")
def test_no_state_leaks(tmp_path, capfd):
    def messy(losses, log_vars):
        random.seed(1)
        np.random.seed(1)
        np.seterr(all="raise")
        torch.manual_seed(1)
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_num_threads(torch.get_num_threads() + 1)
        os.chdir(tmp_path)
        warnings.simplefilter("error")
        logging.warning("heard?")
        sys.stdout = sys.stderr = None
        sys.unraisablehook = print
        return losses.sum()

    before = everything()
    check("weighted", messy)
    check("weighted", lambda a, b: torch.rand(3) + float(np.random.rand()) + random.random())
    assert everything() == before
    said = capfd.readouterr()
    assert said.out == "" and said.err == ""


@pytest.mark.usefixtures("sandboxed")
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


@pytest.mark.usefixtures("sandboxed")
def test_what_the_answer_prints_is_shown_with_a_wrong_answer_only(capfd):
    def talks(losses, log_vars):
        print("losses are", losses.shape)
        print("to stderr", file=sys.stderr)
        warnings.warn("a warning", stacklevel=1)
        return (torch.exp(-log_vars) * losses + log_vars).sum()

    assert "losses are" not in repr(check("weighted", talks))
    wrong = check("weighted", lambda a, b: talks(a, b) * 1.37)
    assert repr(wrong).count("losses are torch.Size") == 1 and "to stderr" in repr(wrong)
    said = capfd.readouterr()
    assert said.out == "" and said.err == ""


class Lasting:
    """Whose finalizer fails."""

    def __del__(self):
        raise ValueError("not let go of")


def test_an_error_in_a_finalizer_is_heard_and_meets_no_hook_of_somebody_else(monkeypatch):
    met = []
    monkeypatch.setattr("sys.unraisablehook", met.append)
    outcome = sandbox.run(lambda: [Lasting()].clear(), limit=5.0)
    assert "not let go of" in outcome.printed and not met
    Lasting()
    assert len(met) == 1, "the hook is put back"


class OddError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class SilentError(Exception):
    def __str__(self):
        while True:
            pass


def raises(error):
    def answer(*args):
        raise error

    return answer


@pytest.mark.usefixtures("sandboxed")
@pytest.mark.parametrize(
    "error",
    [
        OddError(),
        SilentError(),
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


@pytest.mark.usefixtures("sandboxed")
def test_endless_recursion_is_an_error_and_short():
    result = check("weighted", written("def f(a, b):\n    return f(a, b)\n", "f"))
    assert (
        result.state == "error"
        and "RecursionError" in repr(result)
        and len(repr(result).split("\n")) < 20
    )


@pytest.mark.usefixtures("sandboxed")
def test_coroutines_are_closed(capfd, recwarn):
    async def answer(losses, log_vars):
        await asyncio.sleep(0)

    assert check("weighted", answer).state == "wrong"
    assert not [w for w in recwarn if "never awaited" in str(w.message)]


def test_sandbox_returns_values_and_errors():
    assert sandbox.run(lambda: 3, 1.0).value == 3
    assert isinstance(sandbox.run(lambda: 1 / 0, 1.0).error, ZeroDivisionError)
    numbers = {sandbox.run(lambda: torch.rand(()).item(), 1.0, seed=5).value for _ in range(2)}
    assert len(numbers) == 1


def test_a_sleep_counts_half_and_work_in_full():
    clock = sandbox.Clock()
    time.sleep(0.2)
    assert 0.09 < clock.seconds() < 0.2
    clock.restart()
    while time.thread_time() - clock._used < 0.1:
        pass
    assert clock.seconds() >= 0.1


SLOW_IMPORT = "import time\nwhile time.monotonic() < {end}: pass\n"


@pytest.mark.parametrize("thread", [False, True])
def test_an_import_is_not_broken_off(thread, tmp_path, monkeypatch):
    """It would stay half done, and every later use of the module in this process would fail."""
    module = f"slow_to_import_{thread}"
    monkeypatch.syspath_prepend(tmp_path)
    if thread:
        monkeypatch.delattr("signal.setitimer")
    source = SLOW_IMPORT.format(end=time.monotonic() + 0.6) + "VALUE = 3\n"
    (tmp_path / f"{module}.py").write_text(source)
    outcome = sandbox.run(lambda: __import__(module).VALUE, 0.1)
    assert outcome.value == 3 and not outcome.stopped


@pytest.mark.parametrize("thread", [False, True])
def test_an_import_that_never_ends_is_stopped(thread, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sandbox, "IMPORTS", 3)
    if thread:
        monkeypatch.delattr("signal.setitimer")
    (tmp_path / f"endless_{thread}.py").write_text(SLOW_IMPORT.format(end="float('inf')"))
    started = time.monotonic()
    assert sandbox.run(lambda: __import__(f"endless_{thread}"), 0.1).stopped
    assert time.monotonic() - started < 3


def test_a_call_that_was_stopped_inside_a_transform_leaves_none_behind():
    def stops():
        torch._C._functorch._grad_increment_nesting()
        raise ValueError

    assert isinstance(sandbox.run(stops, 1.0).error, ValueError)
    assert not torch._C._functorch.get_interpreter_stack()
    inner = torch.func.grad(lambda x: x**2)(torch.tensor(3.0))
    assert inner == 6
