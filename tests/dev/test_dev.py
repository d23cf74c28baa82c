"""The developer tools on small throw-away notebooks: sync, solve, normalise, execute."""

import base64
import io
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from mtl_course import chapters
from mtl_course.dev import __main__ as cli
from mtl_course.dev import execute, normalise, notebooks, solve, sync

CHAPTER = chapters.Chapter("99", "throw_away", "A throw-away chapter", "Does it work?", 1, 1, 1)
URL, BRANCH = "https://github.com/someone/somewhere", "main"
SOURCE = '''
from math import sqrt, tau
import numpy as np
from ..training.tasks import delta_m
from ..checks.exercise import exercise

def _inputs(generator):
    return (4.0,)

@exercise([_inputs], hints=("look at the name",))
def throw_away_root(x: float, base=np.e) -> float:
    """The root of x."""
    ### BEGIN SOLUTION
    root = sqrt(x)
    return root
    ### END SOLUTION

def _buggy_gain(multi, single):
    """The gain."""
    return delta_m(single, multi, {})

@exercise([_inputs], starter=_buggy_gain)
def throw_away_gain(multi, single):
    ### BEGIN SOLUTION
    return delta_m(multi, single, {})
    ### END SOLUTION
'''


@pytest.fixture
def exercises(tmp_path, monkeypatch):
    """Exercises of the throw-away chapter, in a module that exists for one test."""
    from mtl_course import exercises as package
    from mtl_course.checks import exercise

    (tmp_path / "ch99.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    monkeypatch.setattr(exercise, "REGISTRY", dict(exercise.REGISTRY))
    monkeypatch.delitem(sys.modules, "mtl_course.exercises.ch99", raising=False)
    yield sync.load_exercises(CHAPTER)
    sys.modules.pop("mtl_course.exercises.ch99", None)


def learner():
    return new_notebook(
        cells=[
            new_markdown_cell(
                "# 99. A throw-away chapter\nDoes it work?\n<!-- colab --><!-- /colab -->"
            ),
            new_code_cell("import numpy as np"),
            new_code_cell("# EXERCISE throw_away_root"),
            new_code_cell('check("throw_away_root")'),
            new_code_cell("# EXERCISE throw_away_gain"),
            new_code_cell('check("throw_away_gain")'),
        ]
    )


def test_sync_writes_first_cell_stubs_and_link(exercises):
    nb = sync.synced(learner(), CHAPTER, exercises, URL, BRANCH)
    assert nb.cells[1].source.startswith("# @title Set up the course\n# Run this first.")
    assert nb.cells[1].metadata["cellView"] == "form"
    assert f'"git+{URL}"' in nb.cells[1].source and 'mtl_course.setup("99")' in nb.cells[1].source
    assert max(map(len, nb.cells[1].source.split("\n"))) <= 72
    link = "https://colab.research.google.com/github/someone/somewhere/blob/main/notebooks/99_throw_away.ipynb"
    assert (
        f"<!-- colab -->[Open this notebook on Colab]({link})<!-- /colab -->" in nb.cells[0].source
    )
    root, gain = nb.cells[3].source, nb.cells[5].source
    assert (
        root == "# EXERCISE throw_away_root\nfrom math import sqrt\nimport numpy as np\n\n"
        "def throw_away_root(x: float, base=np.e) -> float:\n"
        '    """The root of x."""\n    raise NotImplementedError("your answer goes here")'
    )
    assert (
        "from mtl_course.training.tasks import delta_m\n\ndef throw_away_gain(multi, single):"
        in gain
    )
    assert "return delta_m(single, multi, {})" in gain, "the starter's bug is what the learner gets"
    mended = exercises["throw_away_gain"].solution
    assert (
        mended
        == 'def throw_away_gain(multi, single):\n    """The gain."""\n    return delta_m(multi,'
        " single, {})"
    ), "and its docstring"
    assert nb.cells[4].metadata["tags"] == ["nbval-check-output"]


def test_sync_is_idempotent_and_reports_what_is_stale(exercises):
    nb = sync.synced(learner(), CHAPTER, exercises, URL, BRANCH)
    assert sync.differences(nb, sync.synced(nb, CHAPTER, exercises, URL, BRANCH)) == []
    nb.cells[1].source += "\n"
    nb.cells[3].source += "\n    # an edit"
    nb.cells[0].source = nb.cells[0].source.replace("/main/", "/other/")
    nb.cells[4].metadata = {}
    found = sync.differences(nb, sync.synced(nb, CHAPTER, exercises, URL, BRANCH))
    assert [name.split(" (")[0] for name in found] == [
        "the Colab link",
        "the first cell",
        *["the exercise throw_away_root"] * 2,
    ]


def test_sync_clears_the_outputs_of_what_it_changes_and_of_nothing_else(exercises):
    nb = sync.synced(learner(), CHAPTER, exercises, URL, BRANCH)
    for cell in notebooks.code_cells(nb):
        cell.outputs, cell.execution_count = [new_output("stream", text="was here")], 1
    nb.cells[3].source = "# EXERCISE throw_away_root\nold"
    new = sync.synced(nb, CHAPTER, exercises, URL, BRANCH)
    assert [bool(cell.outputs) for cell in notebooks.code_cells(new)] == [
        True,
        True,
        False,
        True,
        True,
        True,
    ]


def fold_cell(*tags, source="# @title Draw it\nplot()", **metadata):
    cell = new_code_cell(source, metadata={"tags": list(tags), **metadata})
    sync.fold(cell)
    return cell.metadata


def test_a_fold_shuts_a_cell_in_the_book_and_on_colab():
    figure = {"figure": {"caption": "A line."}}
    shut = fold_cell("fold", "cover", mystnb=figure)
    assert shut == {
        "tags": ["fold", "cover", "hide-input"],
        "cellView": "form",
        "mystnb": {
            **figure,
            "code_prompt_show": "Show code: Draw it",
            "code_prompt_hide": "Hide code: Draw it",
        },
    }
    cell = new_code_cell("# @title Draw more\nplot()", metadata=shut)
    sync.fold(cell)
    assert cell.metadata["mystnb"]["code_prompt_show"] == "Show code: Draw more"
    assert cell.metadata["tags"] == ["fold", "cover", "hide-input"]
    cell.metadata["tags"].remove("fold")
    sync.fold(cell)
    assert cell.metadata == {"tags": ["cover"], "mystnb": figure}, "and it opens again"


@pytest.mark.parametrize("source", ["plot()", "# @title\nplot()", "\n# @title Draw it\nplot()"])
def test_a_fold_without_a_title_stays_open(source):
    assert fold_cell("fold", source=source) == {"tags": ["fold"]}


def test_an_open_cell_stays_as_it_is():
    assert fold_cell(source="plot()") == {}
    assert fold_cell("nbval-check-output") == {"tags": ["nbval-check-output"]}


def test_the_first_cell_of_an_older_edition_is_known_and_written_anew(exercises):
    nb = learner()
    nb.cells.insert(1, new_code_cell('# Run this first.\nmtl_course.setup("99")'))
    nb.cells[1].outputs = [new_output("stream", text="was here")]
    assert notebooks.is_first(nb.cells[1])
    nb = sync.synced(nb, CHAPTER, exercises, URL, BRANCH)
    assert [notebooks.is_first(cell) for cell in nb.cells].count(True) == 1
    assert notebooks.title_of(nb.cells[1]) == "Set up the course" and nb.cells[1].outputs


def test_sync_folds_and_says_which_fold_was_stale(exercises):
    nb = learner()
    nb.cells.append(new_code_cell("# @title Draw it\nplot()", metadata={"tags": ["fold"]}))
    nb.cells[-1].outputs = [new_output("stream", text="was here")]
    new = sync.synced(nb, CHAPTER, exercises, URL, BRANCH)
    assert new.cells[-1].metadata["cellView"] == "form" and new.cells[-1].outputs
    new.cells[-1].metadata.pop("cellView")
    assert sync.differences(new, sync.synced(new, CHAPTER, exercises, URL, BRANCH)) == [
        "the fold (cell 7) is stale"
    ]


def test_normalise_keeps_a_fold():
    nb = learner()
    nb.cells[1].metadata = dict(fold_cell("fold", mystnb={}), collapsed=True)
    normalise.normalise(nb)
    assert nb.cells[1].metadata["cellView"] == "form" and "collapsed" not in nb.cells[1].metadata
    assert nb.cells[1].metadata["tags"] == ["fold", "hide-input"]


def test_an_exercise_may_not_need_what_a_learner_cannot_import(exercises):
    lost = types.SimpleNamespace(
        name="lost",
        stub="def lost(x):\n    pass",
        solution="def lost(x):\n    return _inputs(x)",
        reference=exercises["throw_away_root"].reference,
    )
    with pytest.raises(ValueError, match="'lost' uses _inputs"):
        sync.imports_of(lost)


def test_solved_edition_is_short_and_runs(exercises):
    nb = solve.solved(sync.synced(learner(), CHAPTER, exercises, URL, BRANCH), exercises)
    assert [cell.id for cell in nb.cells] == [
        "setup",
        "exercise-throw_away_root",
        "check-throw_away_root",
        "exercise-throw_away_gain",
        "check-throw_away_gain",
    ]
    names = {}
    exec(nb.cells[1].source, names)
    assert names["throw_away_root"](9.0) == 3
    assert not any(
        "SOLUTION" in cell.source or "NotImplementedError" in cell.source for cell in nb.cells
    )
    assert all(cell.outputs == [] and cell.metadata == {} for cell in nb.cells)


def png(colors, mode="RGB"):
    image = Image.effect_noise((64, 64), 80).convert("RGB").quantize(colors).convert(mode)
    out = io.BytesIO()
    image.save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def messy():
    nb = learner()
    nb.metadata = {
        "widgets": {"state": 1},
        "kernelspec": {"name": "mine", "display_name": "Mine"},
        "vscode": {},
    }
    first, second = nb.cells[1], nb.cells[2]
    first.execution_count, second.execution_count = 17, 42
    first.metadata = {
        "tags": ["keep"],
        "execution": {"iopub.status.busy": "2026-01-01"},
        "mystnb": {"image": {"alt": "x"}},
        "id": "a",
    }
    first.outputs = [
        new_output("stream", name="stdout", text="a\n"),
        new_output("stream", name="stdout", text="\x1b[31mb\x1b[0m\n 10%|#   \r100%|####"),
        new_output("stream", name="stderr", text="\r 50%|##  | 1/2 [00:01]\r" + 22 * " " + "\r"),
        new_output("stream", name="stdout", text="\nc"),
        new_output(
            "display_data",
            data={"application/vnd.jupyter.widget-view+json": {}, "text/plain": "HBox()"},
        ),
        new_output(
            "display_data",
            data={"image/png": png(256), "text/plain": "<Figure>"},
            metadata={
                "needs_background": "light",
                "image/png": {"width": 100, "height": 60, "x": 1},
            },
        ),
    ]
    second.outputs = [new_output("execute_result", data={"text/plain": "1"}, execution_count=42)]
    return nb


def test_normalise_drops_what_is_volatile():
    nb = messy()
    big = len(nb.cells[1].outputs[-1].data["image/png"])
    normalise.normalise(nb)
    first, second = nb.cells[1], nb.cells[2]
    assert set(nb.metadata) == {"accelerator", "colab", "kernelspec", "language_info"}
    assert first.metadata == {"tags": ["keep"], "mystnb": {"image": {"alt": "x"}}}
    assert (first.execution_count, second.execution_count, second.outputs[0].execution_count) == (
        1,
        2,
        2,
    )
    assert [output.output_type for output in first.outputs] == ["stream", "display_data"]
    assert first.outputs[0].text == "a\nb\n100%|####\nc"
    picture = first.outputs[1]
    # It keeps how large it is shown: it has two dots per pixel.
    assert picture.metadata == {"image/png": {"width": 100, "height": 60}}
    assert len(picture.data["image/png"]) < big
    assert Image.open(io.BytesIO(base64.b64decode(picture.data["image/png"]))).mode == "P"
    nbformat.validate(nb)


def test_normalise_keeps_the_picture_for_a_phone_and_makes_it_small():
    nb = messy()
    output = nb.cells[1].outputs[-1]
    output.metadata["image/png"] = {"width": 100, "height": 60, "phone": png(180, "RGB")}
    normalise.normalise(nb)
    kept = nb.cells[1].outputs[1].metadata["image/png"]
    assert set(kept) == {"width", "height", "phone"} and len(kept["phone"]) < len(png(180, "RGB"))
    assert Image.open(io.BytesIO(base64.b64decode(kept["phone"]))).mode == "P"


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_normalise_is_idempotent(mode):
    nb = messy()
    nb.cells[1].outputs[-1].data["image/png"] = png(200, mode)
    normalise.normalise(nb)
    once = nbformat.writes(nb)
    normalise.normalise(nb)
    assert nbformat.writes(nb) == once


def test_ids_are_unique_and_survive_a_new_cell():
    nb = learner()
    nb.cells += [new_code_cell("1"), new_code_cell("1")]
    normalise.normalise(nb)
    before = [cell.id for cell in nb.cells]
    assert len(set(before)) == len(before)
    nb.cells.insert(2, new_markdown_cell("new"))
    normalise.normalise(nb)
    assert [cell.id for i, cell in enumerate(nb.cells) if i != 2] == before


def test_transparent_pictures_are_put_on_white():
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.putpixel((0, 0), (255, 0, 0, 255))
    out = io.BytesIO()
    image.save(out, "PNG", pnginfo=None, compress_level=0)
    small = Image.open(
        io.BytesIO(base64.b64decode(normalise.small_png(base64.b64encode(out.getvalue()).decode())))
    ).convert("RGB")
    assert small.getpixel((4, 4)) == (255, 255, 255)


def test_a_colour_bar_stays_smooth():
    figure, axes = plt.subplots(1, 3, figsize=(7.8, 3.4))
    axes[0].plot(np.sin(np.arange(40)))
    shown = axes[1].imshow(np.sin(np.arange(64).reshape(8, 8)), cmap="RdBu", vmin=-3, vmax=3)
    bar = figure.colorbar(shown, ax=axes[1])
    axes[2].plot(np.cos(np.arange(40)), "o")
    out = io.BytesIO()
    figure.savefig(out, dpi=110)
    box = bar.ax.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
    plt.close(figure)
    middle, low, high = (round(110 * v) for v in (box.x0 + box.width / 2, box.y0, box.y1))
    picture = base64.b64encode(out.getvalue()).decode()
    bars = []
    for encoded in (picture, normalise.small_png(picture)):
        image = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
        bars.append(np.asarray(image).astype(int)[::-1][low + 3 : high - 3, middle])
    before, after = bars
    assert np.abs(np.diff(before, axis=0)).max() <= 5
    assert np.abs(np.diff(after, axis=0)).max() <= 25  # the median cut jumps by 70
    assert np.abs(after - before).max() <= 15


def test_normalise_does_not_vouch_for_code_that_was_not_run():
    nb = messy()
    nb.metadata["mtl_course"] = {"code": "of another day"}
    normalise.normalise(nb)
    assert nb.metadata["mtl_course"] == {"code": "of another day"}


def saved(path, *sources):
    notebooks.write(
        new_notebook(cells=[new_markdown_cell("# Title"), *map(new_code_cell, sources)]), path
    )
    return path


def test_execute_runs_normalises_and_stamps(tmp_path):
    path = saved(
        tmp_path / "a.ipynb",
        "import os, sys\nx = 6",
        "print(x * 7)",
        "print(os.listdir('.'), os.environ['MTL_COURSE_CHECKS'], sys.executable)",
    )
    lines = []
    assert execute.execute(path, report=lines.append)
    nb = notebooks.read(path)
    assert nb.cells[2].outputs[0].text == "42\n"
    assert nb.cells[3].outputs[0].text == f"[] blank {sys.executable}\n"
    assert nb.metadata["mtl_course"]["code"] == normalise.code_hash(nb)
    assert [cell.get("execution_count") for cell in nb.cells] == [None, 1, 2, 3]
    assert "slowest" in lines[-1] and list(tmp_path.iterdir()) == [path]


def test_execute_reports_long_cells(tmp_path):
    lines = []
    assert execute.execute(
        saved(tmp_path / "a.ipynb", "import time\ntime.sleep(1.1)"), report=lines.append
    )
    assert any("cell  1 of 2" in line and "import time" in line for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    "source",
    ["1 / 0", "import os\nos._exit(3)", "import time\ntime.sleep(60)"],
    ids=["error", "dead kernel", "timeout"],
)
def test_execute_keeps_the_old_notebook_when_a_cell_fails(tmp_path, source):
    path = saved(tmp_path / "a.ipynb", "print(1)", source)
    before, lines = path.read_bytes(), []
    assert not execute.execute(path, timeout=5, report=lines.append)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    assert "the file is unchanged" in lines[-1]


def test_execute_keeps_the_old_notebook_when_interrupted(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.ipynb", "print(1)")
    before = path.read_bytes()
    monkeypatch.setattr(
        execute.normalise, "normalise", lambda nb: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        execute.execute(path, report=lambda line: None)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.ipynb", "1")
    before = path.read_bytes()
    monkeypatch.setattr(
        notebooks.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full"))
    )
    with pytest.raises(OSError, match="disk full"):
        notebooks.write(new_notebook(), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("command", ["sync", "execute", "normalise", "check", "lab"])
def test_an_unknown_chapter_is_named_with_those_there_are(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "77"])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "There is no chapter '77'" in said and "01, 02" in said


def test_lab_without_a_chapter_says_how(capsys):
    with pytest.raises(SystemExit):
        cli.main(["lab"])
    assert "make run NB=01" in capsys.readouterr().err


def test_solve_wants_chapters_or_all(capsys, tmp_path):
    with pytest.raises(SystemExit):
        cli.main(["solve", "--out", str(tmp_path)])
    assert "--all" in capsys.readouterr().err


def test_an_unknown_command_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["frobnicate"])
    assert stop.value.code == 2 and "invalid choice" in capsys.readouterr().err


def test_every_command_has_its_module():
    from importlib.util import find_spec

    for module, _ in cli.COMMANDS.values():
        assert find_spec(f"mtl_course.dev.{module}"), module


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return (
        b"\nState:\tZ" not in Path(f"/proc/{pid}/status").read_bytes()
        if Path("/proc/self/status").exists()
        else True
    )


@pytest.mark.skipif(
    sys.platform == "win32",
    reason="os.kill ends a process on Windows, instead of asking whether it is there",
)
@pytest.mark.parametrize("last", ["print(1)", "1 / 0"])
def test_execute_leaves_no_kernel_behind(tmp_path, last):
    sign = tmp_path / "pid"
    path = saved(
        tmp_path / "a.ipynb",
        f"import os, pathlib\npathlib.Path({str(sign)!r}).write_text(str(os.getpid()))",
        last,
    )
    execute.execute(path, report=lambda line: None)
    assert not alive(int(sign.read_text()))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_ctrl_c_stops_the_command_and_its_kernel(tmp_path):
    sign = tmp_path / "pid"
    path = saved(
        tmp_path / "a.ipynb",
        "import os, pathlib,"
        f" time\npathlib.Path({str(sign)!r}).write_text(str(os.getpid()))\ntime.sleep(600)",
    )
    before = path.read_bytes()
    code = (
        "import pathlib; from mtl_course.dev import execute;"
        f" execute.execute(pathlib.Path({str(path)!r})); print('went on')"
    )
    command = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        wait(lambda: sign.exists() and sign.read_text())
        command.send_signal(signal.SIGINT)
        said, _ = command.communicate(timeout=30)
    finally:
        command.kill()
    assert command.returncode != 0 and "went on" not in said and "KeyboardInterrupt" in said, said
    assert path.read_bytes() == before
    wait(lambda: not alive(int(sign.read_text())))


def wait(condition, seconds=60):
    for _ in range(seconds * 10):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s")
