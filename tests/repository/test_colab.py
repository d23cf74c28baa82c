"""The course as Colab runs it: its IPython, an empty folder, the notebook alone, the package
installed by the first cell.

Every chapter's first cell, imports and solved exercises run here, and one chapter whole, which the
commit chooses. ``python -m mtl_course.dev colab`` runs them all, with Colab's torch and NumPy too.
"""

import ast
import importlib.metadata
import os
import pkgutil
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mtl_course
from mtl_course import chapters
from mtl_course.dev import colab as tool
from mtl_course.dev import notebooks, sample, solve, sync

pytestmark = pytest.mark.colab

# Colab's versions of what runs a notebook; torch, NumPy and so on are those installed here.
KERNEL = [line for line in tool.VERSIONS if line.startswith(("ipy", "nbformat"))]
python_of, run = tool.python_of, tool.run


def runtime_packages() -> set[Path]:
    """What the package's declared dependencies, and theirs, put into this site-packages.

    Not the package itself.
    """
    places, seen, queue = set(), set(), [("mtl-course", "")]
    while queue:
        name, extra = queue.pop()
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # needed on another system only, or optional
        for line in distribution.requires or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                new = {(canonicalize_name(needed.name), one) for one in ("", *needed.extras)} - seen
                seen |= new
                queue += new
        if name != "mtl-course":
            parts = {Path(file).parts[0] for file in distribution.files or []}
            parts -= {"..", "__pycache__"}
            places |= {Path(distribution.locate_file(part)) for part in parts}
    return {path for path in places if path.exists() and path.suffix != ".pth"}


def link(source: Path, target: Path) -> None:
    if os.name != "nt":
        target.symlink_to(source)
    elif source.is_dir():
        import _winapi

        _winapi.CreateJunction(str(source), str(target))
    else:
        shutil.copy2(source, target)


@pytest.fixture(scope="session")
def twin():
    """Python of an environment with Colab's kernel and nothing else, kept for the next run."""
    names = ["py{}{}".format(*sys.version_info[:2]), *KERNEL, *tool.WIDGETS]
    version = "-".join(names).replace("==", "").replace(">=", "")
    folder = notebooks.ROOT / "build" / "colab" / version
    if not (folder / "whole").exists():
        shutil.rmtree(folder, ignore_errors=True)
        run(sys.executable, "-m", "venv", folder)
        run(python_of(folder), "-m", "pip", "install", "-q", *KERNEL)
        run(python_of(folder), "-m", "pip", "install", "-q", "--no-deps", *tool.WIDGETS)
        (folder / "whole").touch()
    return python_of(folder)


@pytest.fixture(scope="session")
def path(tmp_path_factory):
    """PYTHONPATH with the runtime dependencies alone: Colab before the first cell."""
    links = tmp_path_factory.mktemp("links")
    for package in runtime_packages():
        link(package, links / package.name)
    return str(links)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """A wheel of the package as it stands."""
    return tool.build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def colab(twin, path, tmp_path):
    """Run a notebook in a fresh kernel of the twin, without the package at first.

    ``colab(nb, spec)`` gives the folder it ran in.
    """
    return lambda nb, spec, **env: tool.execute(nb, twin, tmp_path, spec, PYTHONPATH=path, **env)


def code(*sources):
    """A notebook of code cells."""
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in sources])


def printed(cell) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


WHERE = """\
import google.colab, IPython, ipykernel, ipywidgets
print(mtl_course.__file__, IPython.__version__, ipykernel.__version__, ipywidgets.__version__)"""


def is_colabs(cell, twin) -> bool:
    """`WHERE` shows the twin's versions, and the package as its first cell has installed it."""
    file, *versions = printed(cell).split()
    return Path(file).is_relative_to(twin.parents[1]) and versions == ["7.34.0", "6.17.1", "7.7.1"]


# ------------------------------------------------------------------------------------ every chapter
def imports() -> list[str]:
    """Every module of the package that a reader may import, and every import of a notebook."""
    found = pkgutil.walk_packages(mtl_course.__path__, "mtl_course.")
    modules = [module.name for module in found if not module.name.startswith("mtl_course.dev")]
    lines = {f"import {name}" for name in modules if not name.endswith("__main__")}
    for _, path in notebooks.find([]):
        for cell in notebooks.code_cells(notebooks.read(path)):
            source = "\n".join(line for line in cell.source.split("\n") if line[:1] not in "%!")
            nodes = [] if notebooks.is_first(cell) else ast.walk(ast.parse(source))
            lines |= {ast.unparse(n) for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)}
    return sorted(lines)


def test_every_first_cell_import_and_solved_exercise_runs(colab, twin, wheel):
    """All chapters in one kernel: a cell that fails is shown, and names its exercise or chapter."""
    first = sync.first_cell(chapters.find(1), notebooks.repository()[0])
    nb = code(first, *imports(), WHERE)
    where = nb.cells[-1]
    for chapter, file in notebooks.find([]):
        nb.cells += solve.solved(notebooks.read(file), sync.load_exercises(chapter)).cells
    for i, cell in enumerate(nb.cells):
        cell["id"] = f"cell-{i}"
    content = colab(nb, wheel, MTL_COURSE_CHECKS="strict", MTL_COURSE_STRICT="1")
    assert is_colabs(where, twin)
    assert all(cell.execution_count for cell in nb.cells)
    said = "".join(map(printed, nb.cells))
    assert all(f"Chapter {number} on " in said for number in chapters.CHAPTERS)
    checks = [cell for cell in nb.cells if notebooks.checked_by(cell)]
    assert len(checks) >= 2 * len(chapters.CHAPTERS)
    assert list(content.iterdir()) == []


@pytest.mark.parametrize("number", [sample.colab_chapter()])
def test_the_chapter_that_the_commit_chooses_runs_to_its_end(number, colab, twin, wheel):
    nb = tool.without_outputs(notebooks.read(notebooks.ROOT / chapters.find(number).notebook))
    nb.cells.append(nbformat.v4.new_code_cell(WHERE))
    content = colab(nb, wheel, MTL_COURSE_CHECKS="blank", MTL_COURSE_STRICT="1")
    *cells, last = notebooks.code_cells(nb)
    assert f"Chapter {number} on " in printed(cells[0])
    assert is_colabs(last, twin)
    assert all(cell.execution_count for cell in cells)
    assert list(content.iterdir()) == [], "a notebook writes nothing into the reader's folder"


# ----------------------------------------------------------------------------------- the first cell
URLS = ("https://github.com/OWNER/mtl-course", "https://github.com/someone/mtl-course")


@pytest.mark.parametrize("url", URLS, ids=["without an address", "with an address"])
def test_the_first_cell_installs_the_package_once(url, colab, wheel):
    first = sync.first_cell(chapters.find(1), url)
    probe = (
        "import importlib.util, torch, google.colab\nprint(importlib.util.find_spec('mtl_course'))"
    )
    nb = code(probe, first, first.replace("%pip", "1 / 0 #"))
    colab(nb, wheel)
    assert printed(nb.cells[0]) == "None\n", "the package is not there before"
    assert "Chapter 01" in printed(nb.cells[2]), "where the package is, nothing is installed"


def stopped(colab, url, spec) -> str:
    """What the first cell says as it stops."""
    from nbclient.exceptions import CellExecutionError

    with pytest.raises(CellExecutionError, match="ImportError") as stop:
        colab(code(sync.first_cell(chapters.find(1), url)), spec)
    return " ".join(str(stop.value).split())


def test_the_first_cell_fails_early_and_clearly_without_the_package(colab, tmp_path):
    spec = tmp_path / "mtl_course-0.0-py3-none-any.whl"
    assert f"could not be installed from {spec}: see above." in stopped(colab, URLS[0], spec)


def test_the_first_cell_says_what_to_set_while_the_course_has_no_address(colab):
    assert "This copy of the course has no address yet: set MTL_COURSE_SPEC" in stopped(
        colab, URLS[0], ""
    )


# ---------------------------------------------------------------------------- the tool `dev colab`
def test_the_environment_is_colabs_and_whole():
    lines = tool.requirements()
    assert len({line.lower() for line in lines}) == len(lines)
    names = {Requirement(line).name for line in lines}
    declared = importlib.metadata.requires("mtl-course")
    needed = {Requirement(line) for line in declared if "extra ==" not in line}
    assert {requirement.name for requirement in needed} <= names
    for requirement in needed:
        for pin in (pin for pin in map(Requirement, tool.VERSIONS) if pin.name == requirement.name):
            version = str(next(iter(pin.specifier)).version).replace(".*", ".0")
            assert requirement.specifier.contains(version), f"Colab's {pin} is too old"


def test_a_python_is_found_on_path_or_in_pyenv(tmp_path, monkeypatch):
    here = sys.version_info[:2]
    monkeypatch.setattr(tool.shutil, "which", lambda name: sys.executable)
    assert tool.find_python(here) == Path(sys.executable)
    assert tool.find_python((2, 3)) is None, "a Python of another version is none"
    monkeypatch.setattr(tool.shutil, "which", lambda name: None)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert tool.find_python(here) is None
    kept = tool.python_of(tmp_path / "versions" / "{}.{}.9".format(*here))
    kept.parent.mkdir(parents=True)
    link(Path(sys.executable), kept)
    assert tool.find_python(here) == kept


def test_what_the_environment_lacks_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "find_python", lambda: None)
    with pytest.raises(tool.ColabError, match=r"Colab has Python 3\.13, and there is none"):
        tool.make(tmp_path / "env")
    monkeypatch.setattr(tool, "find_python", lambda: Path(sys.executable))
    monkeypatch.setattr(tool, "NEEDED", 1e18)
    with pytest.raises(tool.ColabError, match="make room"):
        tool.make(tmp_path / "env")
    assert not (tmp_path / "env").exists()


def test_each_notebook_has_its_line_and_one_that_fails_fails_the_command(
    tmp_path, monkeypatch, capsys
):
    made = []
    monkeypatch.setattr(tool, "home", lambda: tmp_path / "env")
    monkeypatch.setattr(tool, "make", lambda folder: made.append(folder.exists()) or folder)
    monkeypatch.setattr(tool, "build_wheel", lambda folder: folder / "a.whl")
    monkeypatch.setattr(tool, "attempt", lambda path, *_: "no" if "02_" in path.name else "")
    (tmp_path / "env").mkdir()
    assert tool.main(["01"]) == 0 and made == [True]
    assert tool.main(["01", "02", "--rebuild"]) == 1 and made == [True, False]
    said = capsys.readouterr().out.splitlines()
    assert said[1] == "1 passed, 0 failed" and said[-1] == "1 passed, 1 failed"
    assert said[2].startswith(f"{chapters.find(1).notebook}: runs, ")
    assert said[3].startswith(f"{chapters.find(2).notebook}: FAILED, ") and said[4] == "no"
    (tmp_path / "env").mkdir()
    assert tool.main(["01", "--remove"]) == 0 and not (tmp_path / "env").exists()
