"""Run learner notebooks in Colab's own environment.

``python -m mtl_course.dev colab [NN ...]``.
Each notebook starts as on Colab: its Python and its versions of torch, NumPy, IPython and so on, an
empty folder, no package of the course until the first cell installs it (a wheel of the package as
it stands here). Claims and checks raise. The environment needs a Python 3.13 on this machine, five
gigabytes, and two minutes once; it is kept in the course's cache.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

from ..data import cache
from . import normalise, notebooks

PYTHON = (3, 13)
# What Colab has, as of its torch 2.11. Other requirements of the package come in their newest form.
VERSIONS = (
    "torch==2.11.*",
    "torchvision==0.26.*",
    "numpy==2.1.3",
    "matplotlib==3.10.0",
    "scikit-learn==1.6.1",
    "ipython==7.34.0",
    "ipykernel==6.17.1",
    # Jupyter's own on Colab; it brings jsonschema, which chapter 24 needs.
    "nbformat>=5.10",
)
# Without dependencies: the server side of the widgets brings a whole Jupyter.
WIDGETS = ("ipywidgets==7.7.1", "ipython_genutils")
NEEDED = 7e9  # bytes, of which two are pip's while it unpacks
STUBS = {
    "google/colab/__init__.py": "from . import drive\n",
    "google/colab/drive.py": "def mount(path, **_):\n    raise RuntimeError('no Drive here')\n",
}
# Variables through which this project's own Python or settings would shine through.
HIDDEN = re.compile(r"PYTHONPATH|PYTHONHOME|VIRTUAL_ENV|MTL_COURSE_(?!CACHE).*")


class ColabError(Exception):
    """The environment could not be had; the message says what to do."""


# -------------------------------------------------------------------------------- the environment
def python_of(folder: Path) -> Path:
    """The Python of a virtual environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def find_python(version: tuple[int, int] = PYTHON) -> Path | None:
    """A Python of this version, from PATH or pyenv, or None."""
    name = "python{}.{}".format(*version)
    roots = [Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser() / "versions"]
    kept = [path for root in roots for path in root.glob("{}.{}.*".format(*version))]
    for path in (*filter(None, [shutil.which(name)]), *map(python_of, sorted(kept, reverse=True))):
        tell = [str(path), "-c", "import sys; print(*sys.version_info[:2])"]
        try:  # pyenv's stand-in on PATH fails where no version is chosen
            done = subprocess.run(tell, capture_output=True, text=True)
        except OSError:
            continue
        if done.returncode == 0 and done.stdout.split() == list(map(str, version)):
            return Path(path)
    return None


def requirements() -> list[str]:
    """What is installed: Colab's versions, and what else the package requires at run time."""
    text = (notebooks.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    given = {_name(requirement) for requirement in VERSIONS}
    needed = tomllib.loads(text)["project"]["dependencies"]
    return [*VERSIONS, *(line for line in needed if _name(line) not in given)]


def _name(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0].lower()


def home() -> Path:
    """Folder of the environment: of these requirements, in the course's cache."""
    digest = hashlib.sha256("\n".join([*requirements(), *WIDGETS]).encode()).hexdigest()[:8]
    return cache.folder() / "colab" / digest


def environment(**more: str) -> dict[str, str]:
    """This process's environment, less what must not reach a notebook on Colab."""
    kept = {name: value for name, value in os.environ.items() if not HIDDEN.fullmatch(name)}
    return {
        **kept,
        "PYTHONNOUSERSITE": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        **more,
    }


def run(*command: str | Path) -> str:
    """What a command prints; ColabError with all of it if it fails."""
    words = list(map(str, command))
    done = subprocess.run(words, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise ColabError(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
    return done.stdout


def make(folder: Path, report=print) -> Path:
    """The environment's Python; made anew unless it is there and whole."""
    python = python_of(folder)
    if (folder / "whole").exists():
        return python
    base = find_python()
    if base is None:
        raise ColabError(
            "Colab has Python {}.{}, and there is none on PATH or in pyenv: install one.".format(
                *PYTHON
            )
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if free < NEEDED:
        raise ColabError(
            f"{folder.parent} has {free / 1e9:.1f} GB free, and the environment needs"
            f" {NEEDED / 1e9:.0f}: make room, or set MTL_COURSE_CACHE to a folder elsewhere."
        )
    report(f"Making Colab's environment in {folder} (some five gigabytes, once) ...")
    run(base, "-m", "venv", folder)
    run(python, "-m", "pip", "install", "-q", *requirements())
    run(python, "-m", "pip", "install", "-q", "--no-deps", *WIDGETS)
    (folder / "whole").touch()
    return python


def build_wheel(folder: Path) -> Path:
    """A wheel of the package as it stands, from a copy: no stale ``build/`` gets into it."""
    source = folder / "source"
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(notebooks.ROOT / "mtl_course", source / "mtl_course", ignore=skip)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(notebooks.ROOT / name, source)
    options = ["-q", "--no-deps", "--no-build-isolation", "-w", folder / "dist"]
    run(sys.executable, "-m", "pip", "wheel", *options, source)
    [built] = (folder / "dist").glob("*.whl")
    return built


# ----------------------------------------------------------------------------------- the notebooks
def execute(nb, python: Path, folder: Path, spec: Path | str, **env: str) -> Path:
    """Run a notebook in place with this Python, without the package at first.

    `spec` is what the first cell installs. `folder` is the run's own; returns the folder in it that
    the notebook ran in. nbclient's errors pass through.
    """
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    run(python, "-m", "pip", "uninstall", "-q", "-y", "mtl-course")
    for name, text in STUBS.items():
        path = folder / "stubs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    kernel = folder / "kernels" / "colab" / "kernel.json"
    kernel.parent.mkdir(parents=True, exist_ok=True)
    command = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    about = {"argv": command, "display_name": "Colab", "language": "python"}
    kernel.write_text(json.dumps(about), encoding="utf-8")
    content = folder / "content"
    content.mkdir()
    kernels = KernelSpecManager(kernel_dirs=[str(folder / "kernels")], ensure_native_kernel=False)
    client = NotebookClient(
        nb,
        km=AsyncKernelManager(kernel_name="colab", kernel_spec_manager=kernels),
        timeout=600,
        resources={"metadata": {"path": str(content)}},
    )
    modules = [str(folder / "stubs"), *filter(None, [env.pop("PYTHONPATH", "")])]
    settings = {
        "PYTHONPATH": os.pathsep.join(modules),
        "COLAB_RELEASE_TAG": "release-colab",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "MTL_COURSE_HOME": str(folder / "home"),
        "MTL_COURSE_PROFILE": "cpu",
        "MTL_COURSE_SPEC": str(spec),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
        **env,
    }
    client.execute(env=environment(**settings), cleanup_kc=True)
    return content


def without_outputs(nb):
    """The notebook as Colab opens it to run it anew: changed in place, and returned."""
    for cell in notebooks.code_cells(nb):
        cell.outputs, cell.execution_count = [], None
    return nb


def attempt(path: Path, python: Path, wheel: Path) -> str:
    """Run one learner notebook; what went wrong, or an empty text."""
    from nbclient.exceptions import CellControlSignal, DeadKernelError

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        strict = {"MTL_COURSE_CHECKS": "blank", "MTL_COURSE_STRICT": "1"}
        nb = without_outputs(notebooks.read(path))
        try:
            content = execute(nb, python, Path(folder), wheel, **strict)
        except (CellControlSignal, DeadKernelError) as error:
            return normalise.as_on_screen(str(error))
        left = sorted(path.name for path in content.iterdir())
        return f"it left files in the reader's folder: {', '.join(left)}" if left else ""


def main(arguments: list[str]) -> int:
    """Make the environment if need be, run the notebooks, one line for each."""
    parser = argparse.ArgumentParser(
        prog="python -m mtl_course.dev colab",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "chapters", nargs="*", metavar="NN", help="numbers of chapters (default: all)"
    )
    parser.add_argument("--rebuild", action="store_true", help="make the environment anew")
    parser.add_argument("--remove", action="store_true", help="remove the environment afterwards")
    options = parser.parse_args(arguments)
    pairs = notebooks.chosen(parser, options.chapters, labs=True)
    folder, failed = home(), 0
    try:
        if options.rebuild:
            shutil.rmtree(folder, ignore_errors=True)
        python = make(folder)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as aside:
            wheel = build_wheel(Path(aside))
            for chapter, path in pairs:
                start = time.perf_counter()
                problem = attempt(path, python, wheel)
                seconds = time.perf_counter() - start
                failed += bool(problem)
                print(f"{chapter.notebook}: {'FAILED' if problem else 'runs'}, {seconds:.0f} s")
                if problem:
                    print(problem)
    except ColabError as error:
        notebooks.say(str(error))
        return 1
    finally:
        if options.remove:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{len(pairs) - failed} passed, {failed} failed")
    return int(failed > 0)
