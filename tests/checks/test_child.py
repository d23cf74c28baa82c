"""A check in a process of its own: what hostile answers do there ends there, and is told."""

import contextlib
import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_exercises import SAMPLES, written

from mtl_course.checks import check, child, hint, progress, sandbox, use
from mtl_course.checks.exercise import REGISTRY, Exercise

pytestmark = [
    pytest.mark.usefixtures("course"),
    pytest.mark.skipif(not child.is_possible(), reason="checks have no process of their own here"),
]
RIGHT = "(torch.exp(-log_vars) * losses + log_vars).sum()"
BODY = f"""
import ctypes, os, signal, subprocess, sys, threading, time
def weighted(losses, log_vars):
    {{}}
    return {RIGHT}
"""


@pytest.fixture
def short(monkeypatch):
    """The sample exercise with half a second for each call."""
    own = SAMPLES["weighted"]
    quick = Exercise("weighted", own.reference, own.inputs, limit=0.5, laws=own.laws)
    monkeypatch.setitem(REGISTRY, "weighted", quick)
    monkeypatch.setattr(child, "BETWEEN", 0.5)
    sandbox.import_before_the_clock()


def kernel():
    """What an answer could change around it."""
    sandbox.import_before_the_clock()  # some of which sets environment variables
    child.collect()  # what is on its way out
    return {
        "python": random.getstate(),
        "numpy": str(np.random.get_state()),
        "torch": torch.get_rng_state().tolist(),
        "settings": (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()),
        "variables": dict(os.environ),
        "path": list(sys.path),
        "recursion": sys.getrecursionlimit(),
        "interrupt": signal.getsignal(signal.SIGINT),
        "alarm": (signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)),
        "folder": os.getcwd(),
        "streams": (sys.stdin, sys.stdout, sys.stderr, input),
        "files": sorted(os.listdir("/proc/self/fd"))[:-1],
        "children": children(),
    }


def children():
    own = str(os.getpid())
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[path.parent.name] = path.read_text().rpartition(")")[2].split()[1]
    return sorted(process for process, parent in parents.items() if parent == own)


ENDLESS = {
    "a sum in C": "sum(range(10**11))",
    "a decomposition": "torch.linalg.svd(torch.randn(6000, 6000))",
    "another program": "os.system('sleep 30')",
    "a pipe that nobody writes to": "os.read(os.pipe()[0], 1)",
    "a sleep that swallows all": (
        "while True:\n        try: time.sleep(1)\n        except BaseException: pass"
    ),
    "no alarms": "signal.signal(signal.SIGALRM, signal.SIG_IGN)\n    while True: pass",
    "alarms held back": (
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])\n    while True: pass"
    ),
    "a thread": (
        "t = threading.Thread(target=lambda: sum(range(10**11)))\n    t.start()\n    t.join()"
    ),
    "a lock": "threading.Lock().__enter__() and threading.Event().wait()",
}


@pytest.mark.parametrize("what", ENDLESS)
def test_what_does_not_come_back_is_ended(what, short, capfd):
    kernel()
    before, started = kernel(), time.monotonic()
    result = check("weighted", written(BODY.format(ENDLESS[what]), "weighted"))
    assert time.monotonic() - started < 4
    assert result.state == "timeout" and result.score == 0
    assert result.rows[0].ok is False and "Stopped after 0.5 s" in result.rows[0].detail
    assert "losses = [" in result.rows[0].detail
    assert kernel() == before
    assert capfd.readouterr() == ("", "")


DEADLY = {
    "os._exit": ("os._exit(0)", "status 0"),
    "a signal": ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
    "its group": ("os.killpg(0, signal.SIGTERM)", "SIGTERM"),
    "a wild pointer": ("ctypes.string_at(0)", "SIGSEGV"),
    "a recursion that eats memory": (
        "sys.setrecursionlimit(10**9)\n    def f(n): return f(n + 1) + 1\n    f(0)",
        "",
    ),
    "blocks without end": ("held = [bytearray(10**8) for _ in range(10**6)]", ""),
    "a huge list": ("held = [None] * 10**10", "MemoryError"),
    "a huge tensor": ("torch.ones(10**10)", "memory"),
}


@pytest.mark.parametrize("what", DEADLY)
def test_what_ends_python_or_fills_the_memory_is_told(what, short, capfd):
    body, told = DEADLY[what]
    before, started = kernel(), time.monotonic()
    result = check("weighted", written(BODY.format(body), "weighted"))
    assert time.monotonic() - started < 10
    assert result.state in ("error", "timeout") and result.score == 0
    assert result.rows[0].ok is False and told in result.rows[0].detail, result
    assert kernel() == before
    assert capfd.readouterr() == ("", "")


LOOK = """
    class Answer:
        def __call__(self, losses, log_vars):
            return losses.sum()
        def {name}(self, name):
            {does}
    weighted = Answer()
"""


@pytest.mark.parametrize("sandboxed", ["child", "kernel"])
@pytest.mark.parametrize("name", ["__getattr__", "__getattribute__"])
@pytest.mark.parametrize("does", ["while True: pass", "raise SystemExit(3)"])
def test_an_object_that_cannot_even_be_looked_at_has_a_row(
    name, does, sandboxed, short, monkeypatch
):
    monkeypatch.setenv("MTL_COURSE_SANDBOX", sandboxed)
    before = kernel()
    result = check("weighted", written(LOOK.format(name=name, does=does), "weighted"))
    state, told = ("timeout", "Stopped") if "while" in does else ("error", "SystemExit")
    assert result.state == state and told in result.rows[0].detail
    assert kernel() == before


def test_a_later_row_that_does_not_come_back_is_the_one_that_fails(short):
    code = f"""
        def weighted(losses, log_vars):
            if losses.requires_grad:
                sum(range(10**11))
            return {RIGHT}
    """
    result = check("weighted", written(code, "weighted"))
    rows = {row.name: row for row in result.rows}
    assert result.state == "wrong" and 0 < result.score < 2
    assert rows["right values"].ok and rows["gradients flow"].ok is False
    assert "Stopped after 0.5 s" in rows["gradients flow"].detail
    assert rows["does not depend on the order of the tasks"].ok is None


def test_an_answer_that_hangs_when_it_is_compared_with_mistakes_keeps_its_verdict(
    monkeypatch, tmp_path
):
    """On the mistakes' own inputs, drawn to tell two of them apart."""
    mark = tmp_path / "calls"

    def weighted(losses, log_vars):
        with mark.open("a") as file:
            file.write(".")
        if mark.stat().st_size > 6:
            sum(range(10**11))
        return losses.sum()

    own = Exercise(
        "weighted", SAMPLES["weighted"].reference, SAMPLES["weighted"].inputs, limit=0.5, grad=False
    )
    for hint_text in ("first", "second"):
        own.mistake(hint_text)(lambda losses, log_vars: losses.sum())
    monkeypatch.setitem(REGISTRY, "weighted", own)
    result = check("weighted", weighted)
    assert result.state == "wrong" and result.hint is None
    assert {row.name: row.ok for row in result.rows}["right values"] is False


def test_nothing_reaches_the_kernel(capfd, tmp_path):
    mine = []

    def messy(losses, log_vars):
        os.environ["MTL_COURSE_MESS"] = "1"
        os.environ.pop("HOME", None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.setrecursionlimit(12345)
        sys.path.insert(0, "/nowhere")
        sys.path = [*sys.path]
        gone = tmp_path / "gone"
        gone.mkdir(exist_ok=True)
        os.chdir(gone)
        gone.rmdir()
        mine.append(losses)
        torch.set_num_threads(3)
        os.write(1, b"written")
        os.write(2, b"written")
        print("printed", file=sys.__stdout__)
        subprocess.run(["echo", "by a child"], check=True, cwd="/")
        SAMPLES["weighted"].limit = 99
        return (torch.exp(-log_vars) * losses + log_vars).sum()

    before = kernel()
    assert check("weighted", messy).state == "solved"
    assert kernel() == before and mine == [] and SAMPLES["weighted"].limit == 3.0
    assert capfd.readouterr() == ("", "")


def test_in_the_kernel_the_settings_of_the_process_are_put_back(monkeypatch, tmp_path):
    monkeypatch.setenv("MTL_COURSE_SANDBOX", "kernel")
    mine = []

    def messy(losses, log_vars):
        os.environ["MTL_COURSE_MESS"] = "1"
        os.environ.pop("MTL_COURSE_HOME", None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.setrecursionlimit(12345)
        sys.path.insert(0, "/nowhere")
        sys.path = [*sys.path]
        gone = tmp_path / "gone"
        gone.mkdir(exist_ok=True)
        os.chdir(gone)
        gone.rmdir()
        mine.append(os.getpid())
        return (torch.exp(-log_vars) * losses + log_vars).sum()

    before = kernel()
    assert check("weighted", messy).state == "solved"
    assert kernel() == before and set(mine) == {os.getpid()}


def test_what_an_answer_started_ends_with_its_check(short):
    seconds = f"60{os.getpid()}"
    code = f"subprocess.Popen(['sleep', '{seconds}'], start_new_session=True)"
    answer = written(BODY.format(code), "weighted")
    assert check("weighted", answer).state == "solved"
    assert check("weighted", written(BODY.format(code + "; os._exit(0)"), "weighted"))
    assert check("weighted", written(BODY.format(code + "; sum(range(10**11))"), "weighted"))
    running = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            running.append(path.read_bytes())
    # What left the session of a process that ended itself cannot be found any more.
    assert sum(seconds.encode() in line for line in running) <= 1


@pytest.mark.slow
def test_of_fifty_checks_one_process_at_most_is_on_its_way_out():
    weighted = written(SAMPLES["weighted"].solution, "weighted")
    child.collect()
    before = children()
    for _ in range(50):
        assert check("weighted", weighted, rounds=1).state == "solved"
        new = set(children()) - set(before)
        assert len(new) <= 1 and all(child._is_exiting(int(process)) for process in new)
    child.collect()
    assert children() == before


@pytest.mark.parametrize("forged", [False, True])
def test_a_child_that_sends_its_card_and_stays_is_ended(forged, monkeypatch):
    """By a fault of the way out, or with an answer that sends a card of its own making."""
    pipes, pipe, seconds = [], os.pipe, f"61{os.getpid()}"

    def seen():
        pipes.append(pipe())
        return pipes[-1]

    def work(board):
        if forged:
            way = pipes[-1][1]
            subprocess.Popen(["sleep", seconds], start_new_session=True)
            os.write(way, b'{"solved": true, "leaves": true}\n')
            while True:
                time.sleep(1)
        return {"solved": True}

    monkeypatch.setattr(os, "pipe", seen)
    if not forged:
        monkeypatch.setattr(os, "_exit", lambda status: time.sleep(600))
    before, started = kernel(), time.monotonic()
    assert child.run(work, 1.0, 20.0).result == {"solved": True}
    assert time.monotonic() - started < 10
    assert kernel() == before
    running = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            running.append(path.read_bytes())
    assert not any(seconds.encode() in line for line in running)


def test_a_child_that_somebody_else_waited_for_is_let_go():
    before = kernel()
    assert child.run(lambda board: {}, 1.0, 20.0).result == {}
    for process in child._leaving:
        os.waitpid(process, 0)
    assert child.run(lambda board: {}, 1.0, 20.0).result == {}
    assert kernel() == before


def test_ctrl_c_ends_the_child_and_is_told(monkeypatch):
    own = SAMPLES["weighted"]
    monkeypatch.setitem(REGISTRY, "weighted", Exercise("weighted", own.reference, own.inputs))
    for does in ("time.sleep(60)", "sum(range(10**11))"):
        weighted = written(BODY.format(does), "weighted")
        before = kernel()
        timer = threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        result = check("weighted", weighted)
        timer.join()
        assert result.state == "error" and result.rows[0].detail == "Interrupted."
        timer = threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            use("weighted")
        timer.join()
        assert kernel() == before


def test_use_does_not_take_what_does_not_come_back(short, capsys):
    weighted = written(BODY.format("sum(range(10**11))"), "weighted")
    assert use("weighted") is REGISTRY["weighted"].reference and weighted
    assert "course's weighted" in capsys.readouterr().out


@pytest.mark.slow
def test_the_results_are_the_same_as_in_the_kernel(monkeypatch):
    for name, own in SAMPLES.items():
        answers = [written(own.solution, name), written(own.stub, name), lambda *args: 1 / 0]
        for answer in [*answers, *(wrong for wrong, _ in own.mistakes), 3]:
            shown = []
            for sandboxed in ("child", "kernel"):
                monkeypatch.setenv("MTL_COURSE_SANDBOX", sandboxed)
                result = check(name, answer, seed=5)
                shown.append((repr(result), result._repr_html_(), result.score, result.rows))
            assert shown[0] == shown[1]


def test_the_switch_is_checked(monkeypatch):
    monkeypatch.setenv("MTL_COURSE_SANDBOX", "off")
    with pytest.raises(ValueError, match="child or kernel"):
        check("weighted")


def test_there_is_no_child_where_a_fork_is_not_safe(monkeypatch):
    seen = []
    thread = threading.Thread(target=lambda: seen.append(child.is_possible()))
    thread.start()
    thread.join()
    assert seen == [False]
    for name in ("cuda.is_available", "cuda.is_initialized", "accelerator.is_available"):
        with monkeypatch.context() as patch:
            patch.setattr(f"torch.{name}", lambda: True)
            assert not child.is_possible()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not child.is_possible()


def test_a_check_stays_in_the_kernel_where_no_process_is_to_be_had(monkeypatch):
    def refuse():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    weighted = written(SAMPLES["weighted"].solution, "weighted")
    assert check("weighted", weighted).state == "solved" and use("weighted") is weighted


def test_a_cut_off_note_does_not_count():
    board = child.Board(1.0)
    board.note({"trying": "a"})
    board.note({"trying": "b" * child.NOTE})
    assert board.read() == {"trying": "a"} and board.clock() == (3, 1.0)
    board.restart(2.5)
    assert board.read() == {"trying": "a"} and board.clock() == (4, 2.5)


# ------------------------------------------------------------- fresh processes

FIRST = """
    import sys
    sys.path.insert(0, {tests!r})
    import torch
    from sample_exercises import SAMPLES
    import mtl_course.exercises
    from mtl_course.checks.exercise import REGISTRY
    REGISTRY.update(SAMPLES)
    from mtl_course.checks import check

    def weighted(losses, log_vars):
        {body}
        return (torch.exp(-log_vars) * losses + log_vars).sum()

    for _ in range(2):
        result = check("weighted", weighted)
        assert result.state == "solved", result
"""
LAZY = {
    "torch.func": "torch.func.hessian(lambda x: (x**2).sum())(torch.ones(2))",
    "torch.optim": "torch.optim.Adam([torch.ones(2, requires_grad=True)])",
    "scipy": "import scipy.stats; scipy.stats.norm.ppf(0.5)",
    "sklearn": "from sklearn.cluster import KMeans; KMeans(2).fit(torch.rand(9, 2).numpy())",
}


def run_script(code, tmp_path, timeout=300, **variables):
    variables = {**os.environ, "MTL_COURSE_HOME": str(tmp_path), **variables}
    variables.pop("MTL_COURSE_CHECKS", None)
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr or done.returncode
    return done


@pytest.mark.slow
@pytest.mark.parametrize("sandboxed", ["child", "kernel"])
@pytest.mark.parametrize("module", LAZY)
def test_a_right_answer_passes_as_the_first_check_of_a_process_on_a_busy_core(
    module, sandboxed, tmp_path
):
    code = FIRST.format(tests=str(Path(__file__).parents[1]), body=LAZY[module])
    core = min(os.sched_getaffinity(0))
    code = f"import os\nos.sched_setaffinity(0, [{core}])\n" + textwrap.dedent(code)
    burn = f"import os\nos.sched_setaffinity(0, [{core}])\nwhile True: pass"
    others = [subprocess.Popen([sys.executable, "-c", burn]) for _ in range(2)]
    try:
        done = run_script(code, tmp_path, MTL_COURSE_SANDBOX=sandboxed)
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert done.stdout == done.stderr == ""


BUSY = """
    import os, sys, threading
    sys.path.insert(0, {tests!r})
    import numpy as np
    import torch
    from sample_exercises import SAMPLES
    import mtl_course.exercises
    from mtl_course.checks.exercise import REGISTRY
    REGISTRY.update(SAMPLES)
    from mtl_course.checks import check, child

    torch.set_num_threads(2)
    def weighted(losses, log_vars):
        x = torch.randn(300, 300, requires_grad=True)
        (x @ x).sum().backward()
        np.ones((300, 300)) @ np.ones((300, 300))
        return (torch.exp(-log_vars) * losses + log_vars).sum()

    def works():
        while True:
            {works}

    child.REST = 0.1
    a, t = np.ones((200, 200)), torch.ones(200, 200)
    threading.Thread(target=works, daemon=True).start()
    for number in range({checks}):
        torch.ones(500, 500) @ torch.ones(500, 500)
        np.ones((300, 300)) @ np.ones((300, 300))
        result = check("weighted", weighted, rounds=1)
        assert result.state == "solved", (number, result)
    os._exit(0)
"""
BESIDE = {
    "idle pools of threads": "threading.Event().wait()",
    "a thread inside NumPy": "a @ a",
    "a thread inside torch": "t @ t",
}


@pytest.mark.slow
@pytest.mark.parametrize("what", BESIDE)
def test_no_check_hangs_beside(what, tmp_path):
    """The pools of torch and NumPy have run before each check, or are running while it begins."""
    checks = int(os.environ.get("MTL_COURSE_TEST_CHECKS", "100"))
    if what != "idle pools of threads":  # these take turns with the other thread, which costs time
        checks //= 10
    tests = str(Path(__file__).parents[1])
    code = BUSY.format(tests=tests, checks=checks, works=BESIDE[what])
    run_script(code, tmp_path, 30 * checks, OMP_NUM_THREADS="2", OPENBLAS_NUM_THREADS="2")


DEADLOCK = """
    import ctypes, os
    kernel = os.getpid()
    def weighted(losses, log_vars):
        if os.getpid() != kernel:
            with open({mark!r}, "a+") as file:
                file.write(str(os.getpid()) + " ")
                file.seek(0)
                tries = len(set(file.read().split()))
            if tries <= {tries}:  # a mutex of C, locked twice: no signal ends the wait for it
                mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
                libc.pthread_mutex_lock(mutex)
                libc.pthread_mutex_lock(mutex)
        return (torch.exp(-log_vars) * losses + log_vars).sum()
"""


@pytest.mark.slow
@pytest.mark.parametrize("tries", [2, 99])
def test_a_child_that_waits_for_a_lock_of_c_is_made_anew_and_in_the_end_spared(
    tries, monkeypatch, tmp_path
):
    monkeypatch.setattr(child, "STILL", 0.3)
    monkeypatch.setattr(child, "ANSWER", 0.2)
    mark = tmp_path / "processes"
    weighted = written(DEADLOCK.format(mark=str(mark), tries=tries), "weighted")
    before = kernel()
    assert check("weighted", weighted).state == "solved"
    assert len(set(mark.read_text().split())) == child.CHILDREN
    assert use("weighted") is weighted
    assert kernel() == before


WAITS = {
    "a lock of Python's": "threading.Event().wait()",
    "a sleep": "time.sleep(99)",
    "a thread that computes": (
        "t = threading.Thread(target=lambda: sum(range(10**11)))\n    t.start()\n    t.join()"
    ),
    "another program": "os.system('sleep 30')",
}


@pytest.mark.parametrize("what", WAITS)
def test_an_answer_that_waits_by_itself_has_one_child(what, short, monkeypatch, tmp_path):
    """Even where the question comes long before its time is up."""
    monkeypatch.setattr(child, "STILL", 0.1)
    monkeypatch.setattr(child, "ANSWER", 0.2)
    forks, fork = [], os.fork

    def counted():
        forks.append(1)
        return fork()

    monkeypatch.setattr(os, "fork", counted)
    result = check("weighted", written(BODY.format(WAITS[what]), "weighted"))
    assert result.state == "timeout" and "Stopped after 0.5 s" in result.rows[0].detail
    assert len(forks) == 1


def test_a_check_stays_in_the_kernel_while_another_thread_computes(monkeypatch):
    monkeypatch.setattr(child, "REST", 0.05)
    processes, at_work = [], threading.Event()

    def weighted(losses, log_vars):
        processes.append(os.getpid())
        return (torch.exp(-log_vars) * losses + log_vars).sum()

    def works():  # in C, and without Python's lock
        at_work.set()
        while at_work.is_set():
            hashlib.sha256(block).digest()

    block = bytes(10**8)
    thread = threading.Thread(target=works)
    thread.start()
    at_work.wait()
    try:
        assert check("weighted", weighted).state == "solved"
    finally:
        at_work.clear()
        thread.join()
    assert set(processes) == {os.getpid()}
    processes.clear()
    assert check("weighted", weighted).state == "solved" and processes == []


NOTEBOOK = """
import os, sys
sys.path.insert(0, {tests!r})
import torch
from sample_exercises import SAMPLES
import mtl_course.exercises
from mtl_course.checks.exercise import REGISTRY
REGISTRY.update(SAMPLES)
from mtl_course.checks import check, use
kept = sys.stdout
from IPython.display import display, HTML
def weighted(losses, log_vars):
    display(HTML("displayed"))
    print("printed")
    print("kept", file=kept)
    kept.flush()
    os.system("echo by a child")
    get_ipython().user_ns["weighted"] = None
    try:
        input("asked")
    except EOFError:
        pass
    return (torch.exp(-log_vars) * losses + log_vars).sum()
"""


@pytest.mark.slow
def test_in_a_notebook_nothing_but_the_card_appears(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    monkeypatch.setenv("MTL_COURSE_HOME", str(tmp_path))
    cells = [
        NOTEBOOK.format(tests=str(Path(__file__).parents[1])),
        'check("weighted")',
        'weighted is use("weighted")',
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    client.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = [cell.outputs for cell in notebook.cells]
    assert outputs[0] == []
    assert [o.output_type for o in outputs[1]] == ["execute_result"]
    assert "solved" in outputs[1][0].data["text/plain"]
    assert [o.get("text") or o.data["text/plain"] for o in outputs[2]] == [
        "Going on with your own weighted.",
        "True",
    ]


# -------------------------------------------------------------------- consoles


@pytest.mark.parametrize("encoding", ["gbk", "cp1252", "ascii", "shift_jis", "utf-8", "unheard-of"])
def test_every_console_can_print_what_the_verbs_say(encoding, monkeypatch):
    def weighted(losses, log_vars):
        raise ValueError("✓ \ud800 θ")

    written_to = io.BytesIO()
    stream = io.TextIOWrapper(written_to, "utf-8" if encoding == "unheard-of" else encoding)
    if encoding == "unheard-of":
        stream = mock_encoding(stream, encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    print(check("weighted", weighted))
    print(check("weighted", written(SAMPLES["weighted"].solution, "weighted")))
    print(progress())
    hint("weighted")
    stream.flush()
    text = written_to.getvalue().decode("utf-8" if encoding == "unheard-of" else encoding)
    assert ("✓" in text) == (encoding == "utf-8")
    assert "x runs on fresh" in text or "✗ runs on fresh" in text


def mock_encoding(stream, name):
    class Odd(io.TextIOBase):
        encoding = name
        write, flush = stream.write, stream.flush

    return Odd()
