"""Builds that were interrupted, that run side by side, that have nowhere to write, or that run as
root: each works at once, or says in one sentence what it needs.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mtl_course.dev import book, lab, notebooks

ROOT = Path(__file__).resolve().parents[2]
needs_make = pytest.mark.skipif(not shutil.which("make"), reason="needs make")
# Stands for Jupyter Book: it writes the pages and an index of the search; when it is told to, it is
# killed in the middle of that index, as an interrupt does it. A half index is an error.
BUILDER = """
import os, pathlib, sys
out = pathlib.Path(sys.argv[sys.argv.index("--path-output") + 1]) / "_build"
html, index = out / "html", out / "html" / "searchindex.js"
(out / ".doctrees").mkdir(parents=True, exist_ok=True)
html.mkdir(parents=True, exist_ok=True)
if index.exists() and not index.read_text().endswith(";"):
    sys.exit("WARNING: search index couldn't be loaded")
(html / "one.html").write_text("<p>one</p>")
(out / ".doctrees" / "environment.pickle").write_text("")
whole = "Search.setIndex({});"
if os.environ.get("STOP"):
    index.write_text(whole[:8])
    os.kill(os.getpid(), 9)
index.write_text(whole)
"""


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A book of one page, and the stand-in that builds it."""
    root = tmp_path / "course"
    root.mkdir()
    (root / "_toc.yml").write_text("format: jb-book\nroot: one\n")
    script = tmp_path / "builder.py"
    script.write_text(BUILDER)
    monkeypatch.setattr(book, "JUPYTER_BOOK", [sys.executable, str(script)])
    monkeypatch.setattr(book, "require_tools", lambda: None)
    return root


SCRIPT = """
import sys
from pathlib import Path
from mtl_course.dev import book
book.JUPYTER_BOOK, book.require_tools = [sys.executable, sys.argv[1]], lambda: None
book.build(Path(sys.argv[2]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_build_after_an_interrupt_works_at_once(small):
    command = [sys.executable, "-c", SCRIPT, book.JUPYTER_BOOK[1], str(small)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"STOP": "1"}, capture_output=True)
    assert done.returncode != 0
    index = small / "_build" / "html" / "searchindex.js"
    assert not index.read_text().endswith(";")
    assert book.html_pages(book.build(small)) == {"one"}
    assert index.read_text().endswith(";")
    # And the one after that builds only what changed.
    (small / "_build" / "html" / "left.txt").write_text("")
    book.build(small)
    assert (small / "_build" / "html" / "left.txt").exists()


def test_a_folder_that_cannot_be_written_is_said_in_one_sentence(small, monkeypatch, capsys):
    real = Path.touch

    def read_only(path, *args, **options):
        if "_build" in path.parts:
            raise OSError(30, "Read-only file system", str(path))
        return real(path, *args, **options)

    monkeypatch.setattr(Path, "touch", read_only)
    with pytest.raises(book.BookError, match=r"_build cannot be written \(Read-only file system\)"):
        book.build(small)
    monkeypatch.setattr(book, "ROOT", small)
    monkeypatch.setattr(book.build, "__defaults__", (small, None, False, False))
    assert book.main([]) == 1
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1 and "Traceback" not in said


def test_a_file_where_the_folder_should_be_is_said_too(small):
    (small / "_build").write_text("")
    with pytest.raises(book.BookError, match="cannot be written"):
        book.build(small)


@needs_make
def test_two_targets_at_once_never_run_two_commands_at_once(tmp_path):
    """The real Makefile with commands that say when they begin and end, and with -j4."""
    log = tmp_path / "log"
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    stand_in = venv / "bin" / "python"
    stand_in.write_text(f'#!/bin/sh\necho begin >> "{log}"\nsleep 0.1\necho end >> "{log}"\n')
    stand_in.chmod(0o755)
    (venv / "pyvenv.cfg").write_text("")
    command = ["make", "-j4", f"VENV={venv}", f"PYTHON={stand_in}", "book", "test", "notebooks"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    lines = log.read_text().split()
    assert len(lines) >= 10 and lines == ["begin", "end"] * (len(lines) // 2)


@needs_make
@pytest.mark.skipif(sys.platform == "win32", reason="a script without an ending")
def test_an_environment_that_was_not_made_to_its_end_is_begun_anew(tmp_path):
    venv, stand_in = tmp_path / "venv", tmp_path / "python"
    stand_in.write_text('#!/bin/sh\nmkdir -p "$3" && touch "$3/pyvenv.cfg"\nexit 1\n')
    stand_in.chmod(0o755)
    command = ["make", f"VENV={venv}", f"PYTHON={stand_in}", f"{venv}/pyvenv.cfg"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert done.returncode != 0 and venv.exists() and not (venv / "pyvenv.cfg").exists()


@needs_make
def test_make_run_passes_a_flag_on():
    command = ["make", "--no-print-directory", "-n", "run", "NB=01", "ARGS=--allow-root"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.search(r"-m mtl_course\.dev lab 01 --allow-root$", done.stdout, re.M)


@pytest.mark.parametrize("flags", [[], ["--allow-root"], ["--no-browser", "--port=8900"]])
def test_lab_passes_flags_on_and_says_the_one_that_root_needs(flags, monkeypatch, capsys):
    calls = []

    def refuses(command):
        calls.append(command)
        return 1

    monkeypatch.setattr(lab, "find_spec", lambda name: True)
    monkeypatch.setattr(lab.subprocess, "call", refuses)
    monkeypatch.setattr(lab.os, "geteuid", lambda: 0, raising=False)
    assert lab.main(["01", *flags]) == 1
    said = capsys.readouterr().err
    assert calls[0][-len(flags) :] == flags or not flags
    assert calls[0][4 : 5 + len(flags)][0].endswith(".ipynb")
    assert ("ARGS=--allow-root" in said) == ("--allow-root" not in flags)
    assert notebooks.ROOT == ROOT
