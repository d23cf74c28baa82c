"""Draw ``mtl_course/drawings/*.svg`` from the Python beside them.

``python -m mtl_course.dev drawings [--check] [NAME ...]``.
The files are committed: nothing is drawn when a chapter shows one. ``--check`` writes nothing and
lists the files that are not what their source draws.
"""

import argparse
import pkgutil
from importlib import import_module
from pathlib import Path

from .. import drawings
from ..drawings import pen

FOLDER = Path(drawings.__file__).parent


def draw() -> dict[str, str]:
    """Every drawing as its file should be: name -> SVG."""
    for module in pkgutil.iter_modules([str(FOLDER)]):
        import_module(f"{drawings.__name__}.{module.name}")
    return {name: function().svg() for name, function in sorted(pen.DRAWINGS.items())}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m mtl_course.dev drawings", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these drawings")
    parser.add_argument("--check", action="store_true", help="write nothing; list what differs")
    options = parser.parse_args(arguments)
    drawn = draw()
    if unknown := sorted(set(options.names) - set(drawn)):
        parser.error(f"no drawing {', '.join(unknown)}; there are {', '.join(drawn)}")
    changed = []
    for name in options.names or drawn:
        path = FOLDER / f"{name}.svg"
        if not path.exists() or path.read_text(encoding="utf-8") != drawn[name]:
            changed.append(path.name)
            if not options.check:
                path.write_text(drawn[name], encoding="utf-8", newline="\n")
    orphans = [path.name for path in sorted(FOLDER.glob("*.svg")) if path.stem not in drawn]
    for file in changed:
        print(f"{'differs' if options.check else 'drawn'}: {file}")
    for file in orphans:
        print(f"no source draws it: {file}")
    if not changed and not orphans:
        print(f"{len(options.names or drawn)} drawings are as their sources say")
    return int(bool(orphans or (options.check and changed)))
