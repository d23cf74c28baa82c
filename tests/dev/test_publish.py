"""The course's address: a copy without one refuses politely, one command sets it everywhere."""

import importlib.util
import re
import shutil

import pytest

from mtl_course import chapters
from mtl_course.dev import __main__ as cli
from mtl_course.dev import check, normalise, notebooks, publish, sync
from mtl_course.dev.notebooks import ROOT

PLACEHOLDER = "https://github.com/OWNER/mtl-course"
NEW = "https://github.com/some-one/a.course"


# ----------------------------------------------------------------------------------- the first cell
@pytest.fixture
def run_first_cell(monkeypatch):
    """Run a first cell where the package is not there and pip brings none."""
    find_spec = importlib.util.find_spec

    def run(url):
        asked = []
        source = sync.first_cell(chapters.find(1), url)
        assert max(map(len, source.split("\n"))) <= check.LINE
        hidden = lambda name, *rest: None if name == "mtl_course" else find_spec(name, *rest)  # noqa: E731
        monkeypatch.setattr(importlib.util, "find_spec", hidden)
        with pytest.raises(ImportError) as stop:
            exec(re.sub(r"%pip.*", "asked.append(spec)", source), {"asked": asked})
        return asked, str(stop.value)

    return run


def test_without_an_address_the_first_cell_says_what_to_set(run_first_cell, monkeypatch):
    monkeypatch.delenv("MTL_COURSE_SPEC", raising=False)
    asked, said = run_first_cell(PLACEHOLDER)
    assert asked == [] and "MTL_COURSE_SPEC" in said and "make publish URL=" in said
    assert said.count(".") - said.count("...") * 3 == 1, "one sentence"


def test_without_an_address_the_first_cell_installs_what_it_is_given(run_first_cell, monkeypatch):
    monkeypatch.setenv("MTL_COURSE_SPEC", "a.whl")
    asked, said = run_first_cell(PLACEHOLDER)
    assert asked == ["a.whl"] and "could not be installed from a.whl" in said


@pytest.mark.parametrize("url", [NEW, "https://github.com/someone/" + "a-long-name" * 9])
def test_with_an_address_the_first_cell_installs_from_there(run_first_cell, monkeypatch, url):
    monkeypatch.delenv("MTL_COURSE_SPEC", raising=False)
    assert run_first_cell(url)[0] == [f"git+{url}"]


def test_where_the_package_is_the_first_cell_asks_for_nothing(monkeypatch, capsys):
    monkeypatch.delenv("MTL_COURSE_SPEC", raising=False)
    source = sync.first_cell(chapters.find(1), PLACEHOLDER)
    exec(re.sub(r"%pip.*", "1 / 0", source), {})
    assert "Chapter 01 on" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------ publish
@pytest.fixture
def copy(tmp_path):
    """The files of the repository that name its address, in a folder of their own."""
    for name in publish.PLACES:
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    (tmp_path / "book").mkdir()
    shutil.copy(ROOT / "book" / "references.bib", tmp_path / "book")
    publish.in_place(PLACEHOLDER, tmp_path)  # also where this repository has an address
    return tmp_path


def problems(root):
    """What the lints say of each notebook, less what is stale before `sync` has run."""
    return {
        chapter.number: check.lint(check.page(chapter, path, root))
        for chapter, path in notebooks.find([], root, labs=True)
    }


@pytest.mark.slow
def test_one_command_sets_the_address_everywhere(copy):
    ran = {path.name: notebooks.read(path) for _, path in notebooks.find([], copy, labs=True)}
    before = problems(copy)
    assert set(publish.publish(f"{NEW}.git/", copy)) == {
        *publish.PLACES,
        *(chapter.notebook for chapter in chapters.CHAPTERS.values()),
        *(lab.notebook for lab in chapters.LABS.values()),
    }
    for path in sorted(copy.rglob("*")):
        assert path.is_dir() or "/OWNER" not in path.read_text(encoding="utf-8"), path.name
    assert f"  url: {NEW}\n" in (copy / "_config.yml").read_text(encoding="utf-8")
    assert f"<{NEW}>" in (copy / "README.md").read_text(encoding="utf-8")
    assert f'repository-code: "{NEW}"' in (copy / "CITATION.cff").read_text(encoding="utf-8")
    assert f'Repository = "{NEW}"' in (copy / "pyproject.toml").read_text(encoding="utf-8")
    for chapter, path in notebooks.find([], copy, labs=True):
        nb, old = notebooks.read(path), ran[path.name]
        first = next(cell for cell in nb.cells if notebooks.is_first(cell))
        assert first.source == sync.first_cell(chapter, NEW)
        assert sync.colab_link(chapter, NEW, "main") in nb.cells[0].source
        assert normalise.code_hash(nb) == normalise.code_hash(old), "nothing need run again"
        for cell, same in zip(notebooks.code_cells(nb), notebooks.code_cells(old), strict=True):
            assert cell.outputs == same.outputs and cell.execution_count == same.execution_count
    assert problems(copy) == before, "`dev check` finds no stale output"


def test_a_second_time_changes_nothing_and_another_address_takes_its_place(copy):
    publish.publish(NEW, copy)
    assert publish.publish(NEW, copy) == []
    other = "https://github.com/another/course"
    once = {name: (copy / name).read_text(encoding="utf-8") for name in publish.PLACES}
    publish.publish(other, copy)
    for name, text in once.items():
        assert (copy / name).read_text(encoding="utf-8") == text.replace(NEW, other)


@pytest.mark.parametrize(
    "url",
    [
        PLACEHOLDER,
        "https://github.com/OWNER",
        "github.com/me/course",
        "https://github.com/me",
        "https://gitlab.com/me/course",
        "https://github.com/me/course/tree/main",
        'https://github.com/me/co"urse',
        "",
    ],
)
def test_what_is_no_address_is_refused(copy, url, monkeypatch, capsys):
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="not the address of a repository"):
        publish.publish(url, copy)
    assert before == {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as stop:
        cli.main(["publish", url])
    assert stop.value.code == 2 and "not the address" in capsys.readouterr().err


def test_a_file_without_a_place_for_the_address_is_named(copy):
    (copy / "README.md").write_text("# Course\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"README\.md has no place"):
        publish.publish(NEW, copy)


def test_every_place_of_this_repository_agrees():
    """What stands in the repository is what `publish` would write, or no address at all."""
    url, _ = notebooks.repository()
    for name, edit in publish.PLACES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        if sync.published(url):
            assert edit(text, url) == text, f"run: make publish URL={url}"
        else:
            assert name == "_config.yml" or "/OWNER" not in text
