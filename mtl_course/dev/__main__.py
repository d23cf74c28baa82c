"""Run one of the course's developer tools: ``python -m mtl_course.dev COMMAND [...]``."""

import argparse
import sys
from importlib import import_module

# command -> (module with `main(arguments) -> exit code`, what it does).
# A module is imported when its command is asked for.
COMMANDS = {
    "sync": (
        "sync",
        "write the generated cells of the notebooks: first cell, exercise stubs, Colab link",
    ),
    "execute": ("execute", "run notebooks from top to bottom, then normalise them"),
    "normalise": ("normalise", "make notebooks readable in a diff"),
    "check": ("check", "report what is wrong with the notebooks, without running them"),
    "numbers": ("numbers", "say where the numbers of the prose come from"),
    "claims": ("claims", "say which claims of chapters hold on other seeds"),
    "solve": (
        "solve",
        "write the solved edition: first cell, exercises with their answers, checks",
    ),
    "test": ("test", "run every test of the project"),
    "lab": ("lab", "open a chapter in JupyterLab"),
    "book": ("book", "build the book"),
    "slides": ("slides", "make slides of the chapters, from what their notebooks show"),
    "diagrams": ("diagrams", "render the diagrams' sources to SVG"),
    "cards": ("cards", "write the cards of checks that the page on how to use the book shows"),
    "drawings": ("drawings", "draw the drawings of mechanisms from their sources"),
    "nbgrader": ("export", "write source notebooks for nbgrader"),
    "new": ("new", "start a chapter: its files, with the parts that it will have"),
    "colab": ("colab", "run the notebooks in Colab's own environment (needs a Python 3.13)"),
    "publish": ("publish", "give the course its address, in every place"),
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command that the arguments name, and give its exit code."""
    listing = "\n".join(f"  {name:10} {text}" for name, (_, text) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m mtl_course.dev",
        description=f"{__doc__}\n\ncommands:\n{listing}",
        epilog="COMMAND --help tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    return import_module(f".{COMMANDS[options.command][0]}", __package__).main(options.rest)


if __name__ == "__main__":
    if hasattr(sys.stdout, "reconfigure"):  # ✓ on a Windows console
        sys.stdout.reconfigure(encoding="utf-8", errors="replace", line_buffering=True)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
