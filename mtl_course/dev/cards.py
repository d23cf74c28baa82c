"""Write the cards that the page "How to use this book" shows: ``python -m mtl_course.dev cards``.

They are what `check` says of three answers to one exercise, and a test finds stale ones.
"""

import argparse
import os
import tempfile
from pathlib import Path
from unittest import mock

from . import notebooks

FOLDER = Path("book", "cards")
EXERCISE, SEED = "crossing_point", 1
# The answer that the page shows before its card.
WRONG = "def crossing_point(sigma, tau, lam):\n    return sigma**2 / tau**2\n"


def cards() -> dict[str, str]:
    """Name -> HTML of the card: of an answer not begun, of a wrong one and of a right one."""
    from ..checks import check  # brings torch
    from ..checks.exercise import REGISTRY
    from ..exercises import ch01

    exercise = REGISTRY[EXERCISE]
    answers = {"not_started": exercise.stub, "not_yet": WRONG, "solved": exercise.solution}
    shown = {}
    with tempfile.TemporaryDirectory() as home:
        settings = {"MTL_COURSE_HOME": home, "MTL_COURSE_CHECKS": "learn"}
        with mock.patch.dict(os.environ, settings):
            for name, source in answers.items():
                space = {**vars(ch01), "__name__": "__main__"}
                exec(compile(source, f"<{name}>", "exec"), space)
                result = check(EXERCISE, space[EXERCISE], seed=SEED)
                shown[name] = result._repr_html_() + "\n"
    return shown


def main(arguments: list[str], root: Path = notebooks.ROOT) -> int:
    """Write the cards, one file each."""
    parser = argparse.ArgumentParser(prog="python -m mtl_course.dev cards", description=__doc__)
    parser.parse_args(arguments)
    (root / FOLDER).mkdir(parents=True, exist_ok=True)
    for name, html in cards().items():
        path = root / FOLDER / f"{name}.html"
        path.write_text(html, encoding="utf-8", newline="\n")
        print(path.relative_to(root).as_posix())
    return 0
