"""Both chapters as Colab runs them: its IPython, an empty folder, the notebook alone, the package
installed by the first cell.
"""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mtl_course import chapters
from mtl_course.dev import notebooks, sync

pytestmark = pytest.mark.colab

ROOT = notebooks.ROOT
# Colab's versions of what runs a notebook. Its torch, NumPy and so on are those that are installed
# here.
KERNEL = ["ipython==7.34.0", "ipykernel==6.17.1"]
WIDGETS = [
    "ipywidgets==7.7.1",
    "ipython_genutils",
]  # without dependencies: its server side brings a whole Jupyter
COLAB = {
    "__init__.py": "from . import drive\n",
    "drive.py": "def mount(path, **_):\n    raise RuntimeError('no Drive in this test')\n",
}


def python_of(venv: Path) -> Path:
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def environment(**more) -> dict[str, str]:
    """The environment without what could let this project's own Python shine through."""
    hidden = (
        "PYTHONPATH",
        "PYTHONHOME",
        "VIRTUAL_ENV",
        "MTL_COURSE_DATA",
        "MTL_COURSE_CHECKS",
        "MTL_COURSE_STRICT",
        "MTL_COURSE_SPEC",
    )
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return {
        **kept,
        "PYTHONNOUSERSITE": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        **more,
    }


def run(*command, **env) -> str:
    done = subprocess.run(
        list(map(str, command)), env=environment(**env), capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def runtime_packages() -> set[Path]:
    """What the package's declared dependencies, and theirs, put into this environment's
    site-packages. Not the package itself.
    """
    found, seen, queue = set(), set(), [("mtl-course", "")]
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
            parts = {Path(file).parts[0] for file in distribution.files or []} - {
                "..",
                "__pycache__",
            }
            found |= {Path(distribution.locate_file(part)) for part in parts}
    return {path for path in found if path.exists() and path.suffix != ".pth"}


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
    """Python of a virtual environment with Colab's kernel and nothing else; kept in build/ for the
    next run.
    """
    version = "-".join(["py{}{}".format(*sys.version_info[:2]), *KERNEL, *WIDGETS]).replace(
        "==", ""
    )
    folder = ROOT / "build" / "colab" / version
    if not (folder / "whole").exists():
        shutil.rmtree(folder, ignore_errors=True)
        run(sys.executable, "-m", "venv", folder)
        run(python_of(folder), "-m", "pip", "install", "-q", *KERNEL)
        run(python_of(folder), "-m", "pip", "install", "-q", "--no-deps", *WIDGETS)
        (folder / "whole").touch()
    return python_of(folder)


@pytest.fixture(scope="session")
def path(tmp_path_factory):
    """PYTHONPATH with the runtime dependencies and a `google.colab`, and without the package: Colab
    before the first cell.
    """
    links, stubs = tmp_path_factory.mktemp("links"), tmp_path_factory.mktemp("stubs")
    for package in runtime_packages():
        link(package, links / package.name)
    (stubs / "google" / "colab").mkdir(parents=True)
    for name, text in COLAB.items():
        (stubs / "google" / "colab" / name).write_text(text, encoding="utf-8")
    return os.pathsep.join(map(str, (links, stubs)))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """A wheel of the package as it stands, built from a copy: a stale build/ beside the sources
    would get into it.
    """
    copy = tmp_path_factory.mktemp("source")
    shutil.copytree(
        ROOT / "mtl_course", copy / "mtl_course", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        copy / "dist",
        copy,
    )
    [built] = (copy / "dist").glob("*.whl")
    return built


@pytest.fixture
def colab(twin, path, tmp_path):
    """Run cells in a fresh kernel of the twin, without the package at first: ``colab(nb, spec)``
    gives the folder it ran in.
    """
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    run(twin, "-m", "pip", "uninstall", "-q", "-y", "mtl-course")
    kernel = tmp_path / "kernels" / "colab"
    kernel.mkdir(parents=True)
    command = {
        "argv": [str(twin), "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Colab",
        "language": "python",
    }
    (kernel / "kernel.json").write_text(json.dumps(command), encoding="utf-8")
    content = tmp_path / "content"
    content.mkdir()

    def execute(nb, spec):
        kernels = KernelSpecManager(kernel_dirs=[str(kernel.parent)], ensure_native_kernel=False)
        manager = AsyncKernelManager(kernel_name="colab", kernel_spec_manager=kernels)
        env = environment(
            PYTHONPATH=path,
            COLAB_RELEASE_TAG="release-colab",
            MPLBACKEND="module://matplotlib_inline.backend_inline",
            MTL_COURSE_HOME=str(tmp_path / "home"),
            MTL_COURSE_PROFILE="cpu",
            MTL_COURSE_SPEC=str(spec),
        )
        NotebookClient(
            nb, km=manager, timeout=600, resources={"metadata": {"path": str(content)}}
        ).execute(env=env, cleanup_kc=True)
        return content

    return execute


def printed(cell) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


WHERE = """\
import google.colab, IPython, ipykernel, ipywidgets
print(mtl_course.__file__, IPython.__version__, ipykernel.__version__, ipywidgets.__version__)"""


@pytest.mark.parametrize("chapter", chapters.CHAPTERS.values(), ids=lambda chapter: chapter.number)
def test_chapter_runs_to_its_end(chapter, colab, twin, wheel):
    nb = notebooks.read(ROOT / chapter.notebook)
    for cell in notebooks.code_cells(nb):
        cell.outputs, cell.execution_count = [], None
    nb.cells.append(nbformat.v4.new_code_cell(WHERE))
    content = colab(nb, wheel)
    *cells, last = notebooks.code_cells(nb)
    assert f"Chapter {chapter.number} on " in printed(cells[0])
    file, *versions = printed(last).split()
    assert Path(file).is_relative_to(twin.parents[1]) and versions == ["7.34.0", "6.17.1", "7.7.1"]
    assert all(cell.execution_count for cell in cells)
    assert list(content.iterdir()) == [], "a notebook writes nothing into the reader's folder"


def first_cell() -> str:
    return sync.first_cell(chapters.find(1), "https://github.com/OWNER/mtl-course")


def test_the_package_is_not_there_before_the_first_cell(colab, wheel):
    probe = nbformat.v4.new_code_cell(
        "import importlib.util, torch, google.colab\nprint(importlib.util.find_spec('mtl_course'))"
    )
    again = nbformat.v4.new_code_cell(first_cell().replace("%pip", "1 / 0 #"))
    nb = nbformat.v4.new_notebook(cells=[probe, nbformat.v4.new_code_cell(first_cell()), again])
    colab(nb, wheel)
    assert printed(nb.cells[0]) == "None\n"
    assert "Chapter 01" in printed(nb.cells[2]), (
        "where the package is, the first cell installs nothing"
    )


def test_the_first_cell_fails_early_and_clearly_without_the_package(colab, tmp_path):
    from nbclient.exceptions import CellExecutionError

    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(first_cell())])
    spec = tmp_path / "mtl_course-0.0-py3-none-any.whl"
    with pytest.raises(CellExecutionError, match="ImportError") as stop:
        colab(nb, spec)
    message = " ".join(str(stop.value).split())
    assert f"could not be installed from {spec}: see above." in message
