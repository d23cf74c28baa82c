"""Small experiments in the place of the chapters' own, for this process and those it starts."""

import os
import subprocess
import sys
import textwrap

from mtl_course.dev.notebooks import ROOT

# What a machine with a GPU need not have; the record command must do without.
BLOCKED = (
    "pandas",
    "pyarrow",
    "fontTools",
    "IPython",
    "ipykernel",
    "jupyter_client",
    "nbformat",
    "nbclient",
    "pytest",
    "yaml",
)
SITE = """
import sys, os
for name in BLOCKED:
    sys.modules[name] = None  # importing it fails
import mtl_course.experiments
mtl_course.experiments.__path__.insert(0, os.path.dirname(__file__))
"""


def write(folder, blocked=BLOCKED, **experiments):
    """Put modules such as ``ch01`` into a folder, with the start-up file of other processes.

    There, importing what is blocked fails.
    """
    for name, source in experiments.items():
        text = textwrap.dedent(source)
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    (folder / "sitecustomize.py").write_text(
        SITE.replace("BLOCKED", repr(blocked)), encoding="utf-8"
    )


def start(folder, *arguments):
    """Start the record command in another process, where it finds the folder's experiments."""
    paths = [str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-m", "mtl_course.record", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(folder, *arguments):
    """Exit status and output of the record command."""
    process = start(folder, *arguments)
    out = process.communicate(timeout=300)[0]
    return process.returncode, out
