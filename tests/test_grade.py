"""For teachers: grading a submitted notebook, and the export for nbgrader."""

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from sample_exercises import SAMPLES

# Registers the course's own exercises, before the samples take their place.
import mtl_course.exercises  # noqa: F401
from mtl_course import grade
from mtl_course.checks.exercise import BLANK, REGISTRY
from mtl_course.checks.rows import draw_cases, examine, share
from mtl_course.dev import export, notebooks, solve
from mtl_course.grading import judge, submission, wire
from mtl_course.grading.pupil import Answerer, Pupil

COURSE = dict(REGISTRY)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="limits and guard of Linux")
FIRST = """# Run this first.
import torch, numpy as np
from torch import nn
x = torch.zeros(3)
"""
# Earns something, but not all.
HONEST = "def project(g_i, g_j):\n    return g_i\n"
SOLVED = "import math\n" + COURSE["crossing_point"].solution
RIGHT = SAMPLES["project"].solution


@pytest.fixture
def samples(monkeypatch):
    before = dict(REGISTRY)
    REGISTRY.clear()
    REGISTRY.update(SAMPLES)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)


def notebook(path, cells) -> Path:
    nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells]), path)
    return path


class NoProcess:
    """Takes the place of a process, for code that is known to do no harm."""

    def __init__(self, *_):
        self.pupil = None

    def begin(self, task):
        self.pupil = Pupil(task)

    def ask(self, message, _=None):
        return json.loads(json.dumps(self.pupil.to(message)))

    def end(self):
        pass


@pytest.fixture
def no_process(monkeypatch):
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.setattr(judge, "Process", NoProcess)


def submitted(folder, answers: dict, extra=()) -> Path:
    """Path of a notebook with these answers (name -> source)."""
    cells = [FIRST]
    for name, source in answers.items():
        cells += [f"# EXERCISE {name}\n{source}", f'check("{name}")']
    return notebook(folder / "submission.ipynb", [*cells, *extra])


def graded(folder, source: str, extra=(), name="project", **options) -> dict:
    """The entry of one exercise."""
    path = submitted(folder, {name: source}, extra)
    return grade.grade(path, only=[name], seed=3, rounds=2, **options)["tests"][0]


# ----------------------------------------------------------------- what is taken


def test_of_a_notebook_only_sources_of_some_cells_are_taken():
    sources = [
        FIRST,
        "import json, os\nimport numpy as np\nprint(1)",
        "def helper(x):\n    return np.abs(x)",
        "%%bash\nrm -rf x",
        "!ls\nclass A: pass",
        "# EXERCISE project\n%time\nlimit = 3\ndef project(a, b):\n    return torch.max(helper(a))",
        "print(",
        "open = 3",
        "# EXERCISE broken\ndef broken(:",
    ]
    kept = submission.pieces(sources)
    assert [(piece.number, piece.exercise, piece.defines_only) for piece in kept] == [
        (1, None, True),
        (2, None, True),
        (3, None, True),
        (4, None, True),
        (6, "project", False),
        (9, "broken", False),
    ]
    assert [piece.source for piece in kept[:2]] == [
        "import torch, numpy as np",
        "import numpy as np",
    ]
    assert "limit = 3" in kept[4].source and "%time" not in kept[4].source


@pytest.mark.parametrize(
    "source,unusual", [("from mtl_course import use", ["use"]), ("x.gc", ["gc"])]
)
def test_the_teacher_is_told_what_an_answer_does_not_need(source, unusual):
    assert submission.suspicious([submission.Piece(1, source, None, True)]) == unusual


@pytest.mark.parametrize(
    "content,words",
    [
        (None, "is not there"),
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ('{"nbformat": 3, "worksheets": []}', "older than 4"),
        ('{"nbformat": 4, "cells": [{"cell_type": "code", "source": 3}]}', "cannot be read"),
        ('{"nbformat": 4, "cells": []}', "no exercise"),
    ],
)
def test_what_cannot_be_graded_is_an_error_and_writes_no_results(tmp_path, capsys, content, words):
    path, results = tmp_path / "submission.ipynb", tmp_path / "results.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert grade.main([str(path), str(results)]) == 2
    assert not results.exists() and words in capsys.readouterr().err


def test_options_are_checked(tmp_path):
    path = submitted(tmp_path, {"crossing_point": "pass"})
    with pytest.raises(ValueError, match="no exercise nothing"):
        grade.grade(path, only=["nothing"])
    for options in ({"rounds": 0}, {"seconds": float("nan")}, {"total": -1}):
        with pytest.raises(ValueError, match="positive"):
            grade.grade(path, **options)


def test_text_that_cannot_be_encoded_is_no_crash(tmp_path):
    cells = [{"cell_type": "code", "source": ["# EXERCISE project\nx = '\ud800\0'"]}]
    (tmp_path / "a.ipynb").write_text(json.dumps({"nbformat": 4, "cells": cells}))
    (source,) = submission.read(tmp_path / "a.ipynb")
    assert submission.pieces([source])[0].exercise == "project"


# ------------------------------------------------------------------------ points


def test_a_submission_is_graded(samples, no_process, tmp_path, capsys):
    answers = {name: SAMPLES[name].solution for name in ("project", "centred", "Shared")}
    answers["weighted"] = (
        "def weighted(losses, log_vars):\n    return (torch.exp(-log_vars) * losses).sum()"
    )
    answers["spread"] = SAMPLES["spread"].stub
    extra = ["1 / 0", "from mtl_course.exercises import ch01", "%time 1\nprint("]
    path, target = submitted(tmp_path, answers, extra), tmp_path / "results.json"
    assert grade.main([str(path), str(target), "--seed", "3", "--rounds", "2"]) == 0
    results = json.loads(target.read_text(encoding="utf-8"))
    tests = {test["name"]: test for test in results["tests"]}
    assert set(tests) == {*SAMPLES, "for the teacher"}
    for name in ("project", "centred", "Shared"):
        worth = SAMPLES[name].points
        assert tests[name]["score"] == tests[name]["max_score"] == worth, tests[name]["output"]
        assert tests[name]["status"] == "passed"
    assert 0 < tests["weighted"]["score"] < 2
    assert "The regulariser is missing." in tests["weighted"]["output"]
    assert tests["spread"]["score"] == 0 and "not started" in tests["spread"]["output"]
    assert tests["mended"]["score"] == 0 and "not found" in tests["mended"]["output"], (
        "a deleted cell earns nothing"
    )
    assert "exercises" in tests["for the teacher"]["output"]
    assert tests["for the teacher"]["visibility"] == "hidden"
    assert results["score"] == pytest.approx(sum(test["score"] for test in results["tests"]))
    assert "judged outside of their process" in capsys.readouterr().out
    as_gradescope_documents(results)


def as_gradescope_documents(results: dict):
    """Holds a results file against the documented format of results.json.

    All keys are optional but these: a score on top or in every test. Unknown ones are not in it.
    """
    when = {"hidden", "after_due_date", "after_published", "visible"}
    formats = {"text", "html", "simple_format", "md", "ansi"}
    top = {"score", "execution_time", "output", "output_format", "test_output_format"}
    top |= {"test_name_format", "visibility", "stdout_visibility", "extra_data", "tests"}
    test_keys = {"score", "max_score", "status", "name", "name_format", "number", "output"}
    test_keys |= {"output_format", "tags", "visibility", "extra_data"}
    number = (int, float)
    assert set(results) <= top | {"leaderboard"}
    assert type(results["score"]) in number and results["stdout_visibility"] in when
    assert isinstance(results["tests"], list)
    for test in results["tests"]:
        assert set(test) <= test_keys
        assert type(test["score"]) in number and 0 <= test["score"] <= test["max_score"]
        assert test.get("status", "passed") in {"passed", "failed"}
        assert test["visibility"] in when and test["output_format"] in formats
        assert isinstance(test["name"], str) and isinstance(test["output"], str)
    hidden = [test for test in results["tests"] if test["visibility"] == "hidden"]
    assert not any(test["score"] for test in hidden), "hidden tests contribute no points"
    json.loads(json.dumps(results, allow_nan=False))


def test_every_learner_edition_as_it_is_earns_nothing(tmp_path):
    for chapter, path in notebooks.find([]):
        results = grade.grade(path)
        assert results["score"] == 0 and results["tests"], chapter.number
        assert all(
            "not started" in test["output"] for test in results["tests"] if test.get("max_score")
        )


@pytest.mark.slow
def test_a_solved_chapter_earns_everything(tmp_path):
    (chapter, path), *_ = notebooks.find(["02"])
    solved = solve.solved(notebooks.read(path), COURSE)
    notebooks.write(solved, tmp_path / "solved.ipynb")
    results = grade.grade(tmp_path / "solved.ipynb", rounds=2)
    assert {test["name"]: test["score"] for test in results["tests"]} == {
        name: exercise.points
        for name, exercise in COURSE.items()
        if exercise.chapter == chapter.number
    }


def test_it_says_of_how_many_exercises_the_values_are_judged_outside():
    here = [name for name in COURSE if judge.judged_here(COURSE[name])]
    print(f"{len(here)} of {len(COURSE)} exercises are judged outside of the answer's process")
    assert len(here) >= 20 and {"joint_gradient", "crossing_point"} <= set(here)


def test_a_mistake_earns_outside_what_it_earns_inside():
    for exercise in filter(judge.judged_here, COURSE.values()):
        for wrong, hint in exercise.mistakes[::3]:
            cases = draw_cases(exercise, 11, 1)
            outside = judge.Remote(judge._Loop(Answerer(wrong, exercise.limit)), exercise)
            inside, seen = examine(exercise, wrong, cases), examine(exercise, outside, cases)
            verdicts = [(s.state, share(s)) for s in (inside, seen)]
            assert verdicts[0] == verdicts[1], (exercise.name, hint)


def test_a_name_that_was_not_taken_along_is_explained(samples, no_process, tmp_path):
    told = graded(tmp_path, "def project(g_i, g_j):\n    return g_i * factor\n", ["factor = 2"])
    assert told["score"] == 0 and "factor" in told["output"]
    assert "nothing but imports, functions and classes" in told["output"]
    helper = "def helper(a):\n    return a"
    source = "def project(g_i, g_j):\n    return helper(g_i)\n"
    assert graded(tmp_path, source, [helper])["score"] == graded(tmp_path, HONEST)["score"] > 0


@pytest.mark.parametrize(
    "source,words",
    [
        ("def project(:", "SyntaxError"),
        ("1 / 0\n" + RIGHT, "ZeroDivisionError"),
        ("project = 3", "no function"),
        ("proyect = 3", "defines no"),
        ("def project(g_i, g_j):\n    return undefined(g_i)", "line 3 in project"),
        ("def project(g_i):\n    return g_i", "is called with (g_i, g_j)"),
        ("def project(g_i, g_j):\n    raise NotImplementedError('still')", "not started"),
        ("def project(g_i, g_j):\n    print('<b>')\n    return '<script>'", "&lt;b&gt;"),
    ],
)
def test_an_answer_that_does_not_run_is_told_why(samples, no_process, tmp_path, source, words):
    told = graded(tmp_path, source)
    assert told["score"] == 0 and words in told["output"] and "<script>" not in told["output"]


@pytest.mark.slow
def test_a_variable_called_open_does_no_harm(samples, tmp_path):
    told = graded(tmp_path, "open = print = json = 3\n" + RIGHT, ["open = 3"])
    assert told["score"] == told["max_score"]


# ------------------------------------------------------------------------ cheats

FORGED = '{"state": "solved", "share": 132.0, "rows": [], "hint": "<script>", "id": 1}'
CHEATS = {
    "replaces json.dump": f"""
        import json
        json.dump = json.dumps = lambda *_, **__: '{FORGED}'
        """,
    "writes the report and dies": f"""
        import os, struct
        for fd in range(3, 64):
            try:
                os.write(fd, struct.pack(">I", {len(FORGED)}) + b'{FORGED}')
            except OSError:
                pass
        os._exit(0)
        """,
    "wraps use": """
        from mtl_course import use
        _r = use("project")
        def project(g_i, g_j):
            return _r(g_i, g_j)
        """,
    "exec of solution()": """
        import contextlib, io
        from mtl_course import solution
        with contextlib.redirect_stdout(io.StringIO()) as said:
            solution("project")
        exec(said.getvalue())
        """,
    "its own check": """
        import mtl_course
        def check(*_, **__):
            return type("R", (), {"state": "solved", "score": 99})()
        mtl_course.check = check
        """,
    "never ends and cannot be stopped": """
        import time
        def project(g_i, g_j):
            while True:
                try:
                    time.sleep(1)
                except BaseException:
                    pass
        """,
    "imports the exercises": """
        from sample_exercises import project as theirs
        def project(g_i, g_j):
            return theirs(g_i, g_j)
        """,
    "reads the exercises": """
        import mtl_course, pathlib
        folder = pathlib.Path(mtl_course.__file__).parent
        text = (folder / "exercises" / "ch01.py").read_text()
        def project(g_i, g_j):
            return g_i if text else None
        """,
    "starts processes": """
        import subprocess
        subprocess.Popen(["sleep", "60"])
        """,
    "passes for everything": """
        class Same:
            __eq__ = lambda *_: True
            __torch_function__ = classmethod(lambda *_, **__: True)
        def project(g_i, g_j):
            return Same()
        """,
}


@pytest.fixture(scope="module")
def honest_score(tmp_path_factory):
    REGISTRY.update(SAMPLES)
    try:
        return graded(tmp_path_factory.mktemp("honest"), HONEST)["score"]
    finally:
        for name in SAMPLES:
            del REGISTRY[name]


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_cheat_gets_no_more_than_an_honest_answer(samples, tmp_path, honest_score, cheat):
    source = textwrap.dedent(CHEATS[cheat])
    if "def project" not in source:
        source += HONEST
    started = time.monotonic()
    told = graded(tmp_path, source, seconds=8)
    assert 0 <= told["score"] <= honest_score < told["max_score"], told["output"]
    assert "<script>" not in told["output"] and time.monotonic() - started < 60


def test_a_forged_infinite_share_is_no_verdict(samples, tmp_path):
    source = """
        import gc
        for thing in gc.get_objects():
            if type(thing).__name__ == "Pupil":
                type(thing)._examine = lambda *_: {
                    "state": "solved", "share": float("inf"), "rows": [["<script>", 1, "<script>"]]
                }
        """
    source = textwrap.dedent(source) + SAMPLES["Shared"].solution
    told = graded(tmp_path, source, name="Shared")
    assert told["score"] == 0 and "<script>" not in told["output"]
    assert judge.points(SAMPLES["Shared"], float("inf")) == 0
    assert judge.points(SAMPLES["Shared"], 1e9) == SAMPLES["Shared"].points


def command(folder, source: str, *flags) -> dict:
    """The results of the command, run in the submission's folder."""
    name = "crossing_point"
    path = submitted(folder, {name: source})
    line = [sys.executable, *flags, "-m", "mtl_course.grade", path.name, "results.json"]
    line += ["--only", name, "--rounds", "2", "--total", "60", "--seconds", "30"]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


@pytest.mark.slow
@LINUX
@pytest.mark.parametrize("guard", ["guarded", "its guard killed"])
def test_nothing_outlives_the_command(tmp_path, guard):
    mark = f"{1000 + os.getpid()}.25"
    lines = [
        "import ctypes, os",
        f"ctypes.CDLL(None).system(b'env -i setsid sleep {mark} &')",
        f"ctypes.CDLL(None).system(b'nohup sleep {mark} &')",
    ]
    if guard != "guarded":
        lines.append("ctypes.CDLL(None).kill(os.getppid(), 9)")
    source = "\n".join([*lines, SOLVED])
    results = command(tmp_path, source, "-P")
    assert (results["score"] > 0) == (guard == "guarded")
    alive = [p for p in Path("/proc").glob("[0-9]*/cmdline") if mark in _read(p)]
    assert not alive


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""


@pytest.mark.slow
@LINUX
@pytest.mark.parametrize(
    "greed",
    ["bytearray(64 * 2**30)", "torch.zeros(2**34)", "[0] * 2**33"],
    ids=["bytes", "torch", "list"],
)
def test_memory_is_limited(samples, tmp_path, greed):
    told = graded(tmp_path, f"def project(g_i, g_j):\n    {greed}\n    return g_i")
    assert told["score"] == 0 and "took too long" not in told["output"]


@pytest.mark.slow
def test_the_whole_run_has_an_end(samples, tmp_path):
    slow = "import time\ndef project(g_i, g_j):\n    time.sleep(2.5)\n    return g_i\n"
    path = submitted(tmp_path, {"project": slow, "centred": SAMPLES["centred"].solution})
    results = grade.grade(path, only=["project", "centred"], total=1, rounds=1)
    assert results["score"] == 0
    assert "took too long" in results["tests"][0]["output"]
    assert "centred" in results["tests"][2]["output"], "the teacher is told what was not checked"


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["-P"], []], ids=["-P", "without"])
def test_nothing_in_the_submissions_folder_is_imported(tmp_path, flags):
    for module in ("nbclient", "torch", "json", "argparse", "nbformat", "numpy"):
        text = f"import pathlib\npathlib.Path({str(tmp_path)!r}, 'ran').touch()\n"
        (tmp_path / f"{module}.py").write_text(text)
    results = command(tmp_path, SOLVED, *flags)
    assert not (tmp_path / "ran").exists()
    assert results["score"] == COURSE["crossing_point"].points, results


# -------------------------------------------------------------------------- wire


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        float("inf"),
        2j,
        "é",
        [1, (2.5, {"a": [None], 3: "b"})],
        np.arange(6.0).reshape(2, 3),
        np.float32(2),
        np.array(["1"]) == "1",
        torch.zeros(0, 3),
        torch.tensor(2.0, dtype=torch.bfloat16),
        torch.tensor([1 + 2j]).conj(),
        torch.arange(6).reshape(2, 3).T,
        torch.arange(6.0).reshape(3, 2)[:1, 0],
    ],
    ids=repr,
)
def test_a_value_arrives_as_it_was_sent(value):
    there, here = [], []
    back = wire.unpack(json.loads(json.dumps(wire.pack(value, there))), here)
    assert len(there) == len(here)
    if isinstance(value, torch.Tensor):
        assert back.dtype == value.dtype and torch.equal(back, value)
    elif isinstance(value, np.ndarray | np.generic):
        assert type(back) is type(value) and back.dtype == value.dtype
        assert np.array_equal(back, value)
    else:
        assert type(back) is type(value) and back == value


@pytest.mark.parametrize(
    "forged",
    [
        {},
        [1],
        {"tensor": "", "shape": [10**12], "dtype": "float32"},
        {"tensor": "", "shape": [-1, 0], "dtype": "float32"},
        {"tensor": "", "shape": [0], "dtype": "eval"},
        {"array": "AAAA", "shape": [3], "dtype": "O1"},
        {"array": "!", "shape": [0], "dtype": "<f8"},
        {"same": 7},
        {"l": 3},
        {"d": [[[1], 2]]},
        {"unknown": 1},
    ],
    ids=repr,
)
def test_what_is_no_value_is_refused(forged):
    with pytest.raises(ValueError):
        wire.unpack(forged, [])


def test_a_message_has_a_limit():
    import io

    for text in (b"", b"\0\0", b"\xff\xff\xff\xff{}", b"\0\0\0\5{}", b"\0\0\0\2[]", b"\0\0\0\1{"):
        assert wire.receive(io.BytesIO(text)) is None
    stream = io.BytesIO()
    wire.send(stream, {"a": float("nan")})
    assert list(wire.receive(io.BytesIO(stream.getvalue()))) == ["a"]


def test_a_call_elsewhere_changes_arguments_and_has_gradients():
    def answer(a, names, b=None):
        names.append("x")
        b["k"] += 1
        return {"same": a, "new": [a * a, torch.tensor(1)]}

    exercise = COURSE["crossing_point"]
    outside = judge.Remote(judge._Loop(Answerer(answer, 3.0)), exercise)
    a, names, table = torch.tensor([2.0, 3.0], requires_grad=True), [], {"k": torch.zeros(2)}
    value = outside(a, names, b=table)
    assert names == ["x"] and torch.equal(table["k"], torch.ones(2)) and value["same"] is a
    (gradient,) = torch.autograd.grad(value["new"][0].sum(), a)
    assert torch.equal(gradient, 2 * a.detach()) and not value["new"][1].requires_grad


# ---------------------------------------------------------------------- nbgrader

# A kernel knows only the course's exercises, so the first cell of a test's notebook registers the
# samples.
KERNEL = f"""# Run this first.
import sys, torch, numpy as np
from torch import nn
sys.path.insert(0, {str(Path(__file__).parent)!r})
import sample_exercises
from mtl_course import check
import mtl_course.checks
mtl_course.checks.REGISTRY.clear()
mtl_course.checks.REGISTRY.update(sample_exercises.SAMPLES)
"""


def learner_notebook():
    cells = [new_markdown_cell("# A chapter"), new_code_cell(KERNEL)]
    for name in ("project", "mended"):
        cells += [
            new_code_cell(f"# EXERCISE {name}\n{SAMPLES[name].stub}"),
            new_code_cell(f'check("{name}")'),
        ]
    return new_notebook(cells=cells)


def test_nbgrader_export_marks_solutions_and_points(samples):
    source = export.to_nbgrader(learner_notebook(), SAMPLES)
    nbformat.validate(source)
    answer, check_cell, bug, check_bug = source.cells[2:]
    assert (
        "### BEGIN SOLUTION" in answer.source
        and "dot / (g_j @ g_j)" in answer.source
        and answer.source.startswith("# EXERCISE project\n")
    )
    assert answer.metadata["nbgrader"]["solution"] and not answer.metadata["nbgrader"]["grade"]
    assert check_cell.metadata["nbgrader"] == {
        "schema_version": 3,
        "grade_id": "check_project",
        "grade": True,
        "solution": False,
        "locked": True,
        "task": False,
        "points": 3,
    }
    assert "nbgrader" not in bug.metadata and "a.mean()  # the bug" in bug.source
    assert check_bug.metadata["nbgrader"]["points"] == 1
    ids = [
        cell.metadata["nbgrader"]["grade_id"]
        for cell in source.cells
        if "nbgrader" in cell.metadata
    ]
    assert len(set(ids)) == len(ids)


@pytest.mark.slow
@pytest.mark.parametrize("solved,points", [(True, 3.0), (False, 0.0)])
def test_an_exported_check_cell_ends_in_its_points(samples, tmp_path, solved, points):
    source = export.to_nbgrader(learner_notebook(), SAMPLES)
    if not solved:  # as nbgrader's release step blanks it
        source.cells[2].source = f"def project(g_i, g_j):\n    {BLANK}"
    source.cells = source.cells[:4]
    NotebookClient(
        source, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = source.cells[3].outputs
    assert [float(o.data["text/plain"]) for o in outputs if o.output_type == "execute_result"] == [
        points
    ]
    assert not [o for o in outputs if o.output_type == "stream" and o.name == "stderr"]


def test_nbgrader_command(samples, tmp_path, monkeypatch, capsys):
    from mtl_course import chapters

    target = tmp_path / "learner.ipynb"
    nbformat.write(learner_notebook(), target)
    monkeypatch.setattr(
        export.notebooks,
        "find",
        lambda numbers, root, labs=False: [(chapters.find("01"), target)],
    )
    monkeypatch.setattr(export.sync, "load_exercises", lambda chapter: SAMPLES)
    assert export.main(["01", "--out", str(tmp_path / "source")]) == 0
    assert "BEGIN SOLUTION" in (tmp_path / "source" / "learner.ipynb").read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        export.main(["01", "--out", str(tmp_path)])
