"""Open a chapter in JupyterLab.

What follows the chapter's number goes to Jupyter: ``python -m mtl_course.dev lab 01 --allow-root``.
"""

import argparse
import os
import subprocess
import sys
from importlib.util import find_spec

from . import notebooks


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m mtl_course.dev lab", description=__doc__, allow_abbrev=False
    )
    parser.add_argument(
        "chapter", metavar="NN", nargs="?", help="number of the chapter, such as 01"
    )
    options, extra = parser.parse_known_args(arguments)
    chapter = options.chapter
    if chapter is None:
        parser.error("which chapter? For example: make run NB=01")
    [(_, path)] = notebooks.chosen(parser, [chapter])
    if find_spec("jupyterlab") is None:
        notebooks.say(
            "JupyterLab is not installed here. Install it with: python -m pip install jupyterlab",
            "or use: make run NB=01",
        )
        return 1
    command = [sys.executable, "-m", "jupyter", "lab", str(path), *extra]
    try:
        code = subprocess.call(command)
    except KeyboardInterrupt:
        return 0
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    if code and is_root and "--allow-root" not in extra:
        notebooks.say(
            "As root, Jupyter refuses to start unless it is told to:",
            f"make run NB={chapter} ARGS=--allow-root",
        )
    return code
