"""For teachers: grading a submitted notebook, and the export for nbgrader."""

import json
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from sample_exercises import SAMPLES

# Registers the course's own exercises, before the samples take their place.
import mtl_course.exercises  # noqa: F401
from mtl_course import grade
from mtl_course.checks.exercise import BLANK, REGISTRY
from mtl_course.dev import export

# A kernel knows only the course's exercises, so the first cell of a test's notebook registers the
# samples.
FIRST = f"""# Run this first.
import sys, torch, numpy as np
from torch import nn
sys.path.insert(0, {str(Path(__file__).parent)!r})
import sample_exercises
from mtl_course import check
import mtl_course.checks
mtl_course.checks.REGISTRY.clear()
mtl_course.checks.REGISTRY.update(sample_exercises.SAMPLES)
"""


@pytest.fixture(autouse=True)
def samples(monkeypatch):
    before = dict(REGISTRY)
    REGISTRY.clear()
    REGISTRY.update(SAMPLES)
    yield
    REGISTRY.clear()
    REGISTRY.update(before)


def submission(folder, answers: dict, extra=()):
    """Path of a notebook with these answers (name -> source)."""
    cells = [new_markdown_cell("# A chapter"), new_code_cell(FIRST)]
    for name, source in answers.items():
        cells += [new_code_cell(f"# EXERCISE {name}\n{source}"), new_code_cell(f'check("{name}")')]
    path = folder / "submission.ipynb"
    nbformat.write(new_notebook(cells=[*cells, *map(new_code_cell, extra)]), path)
    return path


def test_a_submission_is_graded(tmp_path):
    answers = {name: SAMPLES[name].solution for name in ("project", "centred", "Shared")}
    answers["weighted"] = (
        "def weighted(losses, log_vars):\n    return (torch.exp(-log_vars) * losses).sum()"
    )
    answers["spread"] = SAMPLES["spread"].stub
    path = submission(
        tmp_path,
        answers,
        extra=["1 / 0", "from mtl_course.exercises import ch01", "%time 1\nprint("],
    )
    assert (
        grade.main([str(path), str(tmp_path / "results.json"), "--seed", "3", "--rounds", "2"]) == 0
    )
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    tests = {test["name"]: test for test in results["tests"]}
    assert set(tests) == {*SAMPLES, "for the teacher"}
    for name in ("project", "centred", "Shared"):
        assert (
            tests[name]["score"] == tests[name]["max_score"] == SAMPLES[name].points
            and tests[name]["status"] == "passed"
        )
    assert (
        0 < tests["weighted"]["score"] < 2
        and "The regulariser is missing." in tests["weighted"]["output"]
    )
    assert tests["spread"]["score"] == 0 and "not started" in tests["spread"]["output"]
    assert tests["mended"]["score"] == 0 and "not found" in tests["mended"]["output"], (
        "a deleted cell earns nothing"
    )
    assert (
        "exercises" in tests["for the teacher"]["output"]
        and tests["for the teacher"]["visibility"] == "hidden"
    )
    assert results["score"] == pytest.approx(sum(test.get("score", 0) for test in results["tests"]))


def test_a_submission_that_kills_its_kernel_scores_nothing_and_says_so(tmp_path):
    path = submission(
        tmp_path, {"project": SAMPLES["project"].solution}, extra=["import os; os._exit(1)"]
    )
    results = grade.grade(path, only=["project"], rounds=1)
    assert (
        results["score"] == 0
        and "stopped" in results["tests"][0]["output"]
        and "the run stopped" in results["tests"][1]["output"]
    )


def test_what_cannot_be_graded_is_said_to_the_student(tmp_path):
    broken, empty = tmp_path / "broken.ipynb", tmp_path / "empty.ipynb"
    broken.write_text("{")
    nbformat.write(new_notebook(), empty)
    for path, words in (
        (broken, "cannot be read"),
        (empty, "no exercise"),
        (tmp_path / "missing.ipynb", "cannot be read"),
    ):
        assert grade.main([str(path), str(tmp_path / "results.json")]) == 0
        results = json.loads((tmp_path / "results.json").read_text())
        assert results["score"] == 0 and words in results["output"]
    with pytest.raises(ValueError, match="no exercise nothing"):
        grade.grade(submission(tmp_path, {"project": "pass"}), only=["nothing"])


def test_missing_tools_are_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "nbclient", None)
    assert grade.main(["a.ipynb", str(tmp_path / "r.json")]) == 2
    assert "pip install" in capsys.readouterr().err


def learner_notebook():
    cells = [new_markdown_cell("# A chapter"), new_code_cell(FIRST)]
    for name in ("project", "mended"):
        cells += [
            new_code_cell(f"# EXERCISE {name}\n{SAMPLES[name].stub}"),
            new_code_cell(f'check("{name}")'),
        ]
    return new_notebook(cells=cells)


def test_nbgrader_export_marks_solutions_and_points():
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


@pytest.mark.parametrize("solved,points", [(True, 3.0), (False, 0.0)])
def test_an_exported_check_cell_ends_in_its_points(tmp_path, solved, points):
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


def test_nbgrader_command(tmp_path, monkeypatch, capsys):
    from mtl_course import chapters

    target = tmp_path / "learner.ipynb"
    nbformat.write(learner_notebook(), target)
    monkeypatch.setattr(
        export.notebooks, "find", lambda numbers, root: [(chapters.find("01"), target)]
    )
    monkeypatch.setattr(export.sync, "load_exercises", lambda chapter: SAMPLES)
    assert export.main(["01", "--out", str(tmp_path / "source")]) == 0
    assert "BEGIN SOLUTION" in (tmp_path / "source" / "learner.ipynb").read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        export.main(["01", "--out", str(tmp_path)])
