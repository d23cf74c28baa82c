"""The verbs `hint`, `solution`, `use`, `progress`; the modes of CI; the text and the card."""

import html
import re
import subprocess
import sys
import textwrap

import pytest
from sample_exercises import SAMPLES, written

import mtl_course
from mtl_course import _output, checks
from mtl_course.checks import CheckFailed, Result, check, hint, progress, solution, use
from mtl_course.checks.rows import Row

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
    assert lines[2].startswith('That is the last one. `solution("project")`')
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


def test_what_use_says_fits_on_a_page(monkeypatch, capsys):
    monkeypatch.setitem(checks.REGISTRY, "project_many_gradients", SAMPLES["project"])
    assert use("project_many_gradients") is SAMPLES["project"].reference
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 76
    said = "Going on with the course's project_many_gradients; yours takes over"
    assert " ".join(lines) == f"{said} once its check passes."


def test_in_a_notebook_what_use_says_breaks_where_the_page_does(monkeypatch):
    monkeypatch.setitem(checks.REGISTRY, "project_many_gradients", SAMPLES["project"])
    shown = []
    monkeypatch.setattr(checks, "show", shown.append)
    use("project_many_gradients")
    assert "\n" in shown[0].text and "\n" not in shown[0].html
    assert "yours takes over once its check passes.</div>" in shown[0].html


def test_binding_the_result_of_use_does_not_solve_the_exercise():
    project = written(SAMPLES["project"].stub, "project")
    project = use("project")
    result = check("project")
    assert project and result.state == "missing" and "course's own" in result.hint


@pytest.mark.slow
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
        ' answer;\n  `hint("project")` helps.'
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


def contrast(a, b):
    """Of two colours such as ``#fff``, as WCAG 2 defines it."""

    def light(colour):
        digits = colour.lstrip("#")
        digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((light(a), light(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_read_on_light_pages_and_on_dark_ones():
    for tone in _output.TONES.values():
        assert contrast(tone, "#fff") >= 4.5, "a white sign on its ground"
        assert min(contrast(tone, "#fff"), contrast(tone, "#1a1a1a")) >= 3, "a border on a page"


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
        assert "<script>" not in card
        for style in re.findall(r'style="([^"]*)"', card):
            colours = dict(part.split(":", 1) for part in style.split(";"))
            ground, text = colours.get("background", ""), colours.get("color", "inherit")
            if ground.startswith("#") or text != "inherit":
                assert ground in _output.TONES.values() and text == "#fff", "both, or the page's"


def words(result):
    """What a page shows of a result."""
    return " ".join(html.unescape(re.sub("<[^>]+>", " ", result._repr_html_())).split())


def test_the_card_tells_its_state_without_colour():
    def endless(losses, log_vars):
        raise ZeroDivisionError

    answers = {
        "○ not started weighted": written(SAMPLES["weighted"].stub, "weighted"),
        "✗ not yet weighted , 0.6 of 2 points ✓ runs": lambda a, b: a.sum(),
        "! stopped with an error weighted": endless,
        "? not found weighted": None,
        "✓ solved weighted , 2 of 2 points ✓ runs": written(
            SAMPLES["weighted"].solution, "weighted"
        ),
    }
    for told, answer in answers.items():
        result = check("weighted", answer)
        assert words(result).replace("weighted,", "weighted ,").startswith(told)
        assert f'role="group" aria-label="{result.headline}"' in result._repr_html_()


def test_each_sign_of_a_row_has_a_name():
    card = check("weighted", lambda a, b: a.sum())._repr_html_()
    signs = re.findall(r'role="img" aria-label="([\w ]+)"[^>]*>(.)<', card)
    assert set(signs) >= {("passed", "✓"), ("not yet", "✗")}
    assert len(signs) == card.count("<li")


def test_hints_and_rows_may_have_markup_and_are_wrapped():
    exercise = SAMPLES["weighted"]
    row = Row("holds for $\\sigma^2 / n$ and `x.T`", False, "expected " + "1, " * 40)
    told = "Print `x.T`, **not** $x^\\top Q x$: it is " + "much " * 20
    result = Result(exercise, "wrong", [row], 0.0, told, 1)
    text, card = repr(result), result._repr_html_()
    assert "✗ holds for σ²/n and `x.T`" in text and "Print `x.T`, not xᵀQx:" in text
    assert max(map(len, text.split("\n"))) <= 76
    assert "<i>σ</i><sup>2</sup>/<i>n</i>" in card and ">x.T</code>, <strong>not</strong>" in card
    assert "<sup>⊤</sup><i>Q</i>" in card and "expected 1, 1, 1" in card


def test_hints_are_rendered_in_a_notebook(monkeypatch):
    outputs = []
    monkeypatch.setattr(checks, "show", outputs.append)
    hint("project", 2)
    page = outputs[0].html
    assert '>solution("project")</code>' in page and "<strong>Hint 2 of 2</strong>" in page
    assert page.startswith('<div class="mtl-hint"') and repr(outputs[0]).startswith("Hint 2 of 2: ")


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
    assert "✓ project" in words(shown) and "– centred" in words(shown)
