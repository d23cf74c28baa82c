"""A chapter is started in a copy of the repository, passes what it can pass, and is thrown away."""

import ast
import os
import re
import shutil
import subprocess
import sys

import pytest

from mtl_course import chapters
from mtl_course.dev import book, new
from mtl_course.dev.notebooks import ROOT

TAKEN = chapters.find(1)
NAMES = ("mtl_course", "tests", "book", "_config.yml", "_toc.yml", "pyproject.toml")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The repository without its history, environment, built pages and other notebooks."""
    root = tmp_path_factory.mktemp("repository")
    for name in NAMES:
        if (ROOT / name).is_dir():
            skip = shutil.ignore_patterns("__pycache__", "_generated", "diagrams")
            shutil.copytree(ROOT / name, root / name, ignore=skip)
        else:
            shutil.copy(ROOT / name, root)
    (root / "notebooks").mkdir()
    return root


def run(root, *arguments):
    """A Python command in a repository, with that repository's package."""
    hidden = {"MTL_COURSE_CHECKS", "MTL_COURSE_STRICT", "PYTEST_XDIST_WORKER"}
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    env["PYTHONPATH"] = str(root)  # also for the kernel of a notebook, which starts elsewhere
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def dev(root, *arguments):
    return run(root, "-m", "mtl_course.dev", *arguments)


def files(root):
    return {path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def state(root):
    return {path: path.read_bytes() for path in files(root)}


@pytest.mark.slow
def test_a_chapter_is_started_and_accepted(copy):
    before = files(copy)
    code, said = dev(
        copy, "new", "99", "task_routing", "--title", "Routing", "--question", "Where?"
    )
    assert code == 0, said
    made = {path.relative_to(copy).as_posix() for path in files(copy) - before}
    assert made == {
        "notebooks/99_task_routing.ipynb",
        "mtl_course/experiments/ch99.py",
        "mtl_course/exercises/ch99.py",
        "tests/answers/ch99.py",
        "tests/chapters/test_ch99.py",
    }
    # The list of what is left: numbered, and every file that it names is there.
    left = re.findall(r"^ *(\d+)\. (.*)$", said, re.M)
    assert [int(number) for number, _ in left] == list(range(1, len(left) + 1)) and len(left) > 10
    for name in re.findall(r"\b[\w/]+\.(?:py|ipynb|yml|toml|bib|md|mmd)\b", str(left)):
        assert (copy / name).exists() or (ROOT / name).exists(), f"{name} is not there"
    assert f"after that of chapter {int(max(chapters.CHAPTERS))}" in said
    assert re.search(r"book/part\d\.md", said)
    # What is generated is in step (`check` has that rule); that it was not run is all they miss.
    code, said = dev(copy, "check", "99")
    assert code == 1 and len(said.splitlines()) == 2, said
    assert "outputs are not those of this code" in said and "execution counts" in said
    code, said = dev(copy, "execute", "99")
    assert code == 0, said
    assert dev(copy, "check", "99") == (0, "notebooks/99_task_routing.ipynb: no problem found\n")
    # Its exercise and its tests pass, and ruff has nothing to say.
    chosen = ["-k", "task_routing_mean or ch99", "-p", "no:xdist", "-p", "no:cacheprovider"]
    tests = ["tests/exercises", "tests/chapters/test_ch99.py"]
    code, said = run(copy, "-m", "pytest", "-q", *chosen, *tests)
    assert code == 0 and re.search(r"\b1\d passed", said), said
    written = [*sorted(name for name in made if name.endswith(".py")), "mtl_course/chapters.py"]
    for lint in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        code, said = run(copy, "-m", "ruff", *lint, *written)
        assert code == 0, said
    # The number is taken now.
    whole = state(copy)
    code, said = dev(copy, "new", "99", "another")
    assert code == 2 and "There is a chapter 99 already: 99_task_routing." in said
    assert state(copy) == whole


@pytest.mark.parametrize(
    "number, slug, message",
    [
        (TAKEN.number, "new_slug", f"There is a chapter 1 already: 01_{TAKEN.slug}."),
        ("98", TAKEN.slug, f"Chapter 1 has this slug already: 01_{TAKEN.slug}."),
        ("00", "new_slug", "'00' is no number of a chapter"),
        ("100", "new_slug", "'100' is no number"),
        ("9a", "new_slug", "'9a' is no number"),
        ("98", "New", "'New' is no slug"),
        ("98", "new-slug", "'new-slug' is no slug"),
        ("98", "new__slug", "no slug"),
        ("98", "../slug", "no slug"),
    ],
)
def test_what_cannot_be_a_chapter_is_refused_with_a_sentence(number, slug, message, capsys):
    with pytest.raises(SystemExit) as stop:
        new.main([number, slug])
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_a_file_that_is_there_is_not_overwritten(copy):
    chapter = chapters.Chapter("97", "new_slug", "New", "Why?", 35, 1, None)
    there = copy / "tests" / "chapters" / "test_ch97.py"
    there.write_text("mine", encoding="utf-8")
    whole = state(copy)
    with pytest.raises(ValueError, match=r"tests/chapters/test_ch97\.py is there already"):
        new.start(chapter, copy)
    assert state(copy) == whole
    there.unlink()


def without(text, number):
    """The list of chapters without the entry of this one, where it has one."""
    lines = text.split("\n")
    for entry in new.entries(text):
        if entry[0] == number:
            del lines[entry[2].lineno - 1 : entry[2].end_lineno]
    return "\n".join(lines)


@pytest.mark.parametrize("number", ["00", "09", "13", "99"])
def test_the_entry_stands_in_its_order(number):
    text = without((ROOT / "mtl_course" / "chapters.py").read_text(encoding="utf-8"), number)
    chapter = chapters.Chapter(number, "a_slug", 'Its "title"', "Where?", 35, 1, None)
    entries = new.entries(new.entered(text, chapter))
    numbers = [entry[0] for entry in entries]
    assert numbers == sorted(chapters.CHAPTERS | {number: None})
    call = entries[numbers.index(number)][2]
    words = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
    assert chapters.Chapter(**words) == chapter


@pytest.mark.parametrize(
    "number, after, page", [("09", "08", "book/part2"), ("13", "12", "book/part3")]
)
def test_the_page_stands_after_the_chapter_before_it(number, after, page):
    yaml = pytest.importorskip("yaml")
    text = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    chapter = chapters.Chapter(number, "a_slug", "A title", "Where?", 35, 1, None)
    before, of_part = [], []
    pages = book.toc_pages(yaml.safe_load(new.listed(text, chapter, before, of_part)))
    at = pages.index(f"notebooks/{number}_a_slug")
    assert pages[at - 1].startswith(f"notebooks/{before[0]}_") and before[0] <= after
    assert of_part == [page]
    assert pages[:at] + pages[at + 1 :] == book.toc_pages(yaml.safe_load(text))
