"""Open a chapter in JupyterLab."""

import argparse
import subprocess
import sys
from importlib.util import find_spec

from . import notebooks


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m mtl_course.dev lab", description=__doc__)
    parser.add_argument(
        "chapter", metavar="NN", nargs="?", help="number of the chapter, such as 01"
    )
    chapter = parser.parse_args(arguments).chapter
    if chapter is None:
        parser.error("which chapter? For example: make run NB=01")
    [(_, path)] = notebooks.chosen(parser, [chapter])
    if find_spec("jupyterlab") is None:
        notebooks.say(
            "JupyterLab is not installed here. Install it with: python -m pip install jupyterlab",
            "or use: make run NB=01",
        )
        return 1
    try:
        return subprocess.call([sys.executable, "-m", "jupyter", "lab", str(path)])
    except KeyboardInterrupt:
        return 0
