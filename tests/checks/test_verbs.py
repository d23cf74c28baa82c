"""The verbs `hint`, `solution`, `use`, `progress`; the modes of CI; the text and the card."""

import subprocess
import sys
import textwrap

import pytest
from sample_exercises import SAMPLES, written

import mtl_course
from mtl_course.checks import CheckFailed, check, hint, progress, solution, use

pytestmark = pytest.mark.usefixtures("course")


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
    blank = written(SAMPLES["project"].stub, "project")
    right = written(SAMPLES["project"].solution, "project")
    wrong = lambda g_i, g_j: g_i  # noqa: E731
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
        == "project: not started\n  Replace the line `raise NotImplementedError(...)` with your"
        ' answer; hint("project") helps.'
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
    code = "import sys, mtl_course; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_chapters_exercises_are_loaded_on_first_use():
    code = """
        import pathlib
        from mtl_course import checks
        registered = {exercise.chapter for exercise in checks._registry().values()}
        import mtl_course.exercises
        files = pathlib.Path(mtl_course.exercises.__file__).parent.glob("ch*.py")
        chapters = {path.stem[2:] for path in files}
        assert registered == chapters, (registered, chapters)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


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
