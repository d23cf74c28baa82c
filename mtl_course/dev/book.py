"""Build the book strictly, count its pages, pack it for reading offline.

``python -m mtl_course.dev book [--zip]``.
Runs where only ``requirements-book.txt`` is installed, so it imports neither torch nor the
notebooks' tools.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXTRA = {"index", "search", "genindex"}  # pages that Sphinx adds to those of the table of contents
# For builders, or replaced by book.css: no page loads them. Licences of what it holds stand in it.
UNREAD = {
    ".buildinfo",
    "fontawesome.js",
    "pydata-sphinx-theme.css",
    "sphinx-design.min.css",
    "card.svg",
}
# 1.x has no `python -m`.
JUPYTER_BOOK = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]


class BookError(Exception):
    """The book could not be built, or is not whole; the message says what to do."""


def toc_pages(node) -> list[str]:
    """Page names in ``_toc.yml`` (loaded), in order, such as ``"book/intro"``."""
    if isinstance(node, list):
        return [page for item in node for page in toc_pages(item)]
    if not isinstance(node, dict):
        return []
    pages = [node[key] for key in ("root", "file") if key in node]
    return pages + [page for value in node.values() for page in toc_pages(value)]


def html_pages(html: Path) -> set[str]:
    """Names of the pages in a built book, less those that Sphinx and the theme add."""
    names = (path.relative_to(html).with_suffix("") for path in html.rglob("*.html"))
    return {name.as_posix() for name in names if not name.parts[0].startswith("_")} - EXTRA


def require_tools() -> None:
    """BookError if Jupyter Book 1.x is not installed here."""
    try:
        version = metadata.version("jupyter-book")
    except metadata.PackageNotFoundError:
        raise BookError(
            "Jupyter Book is not installed here. Run `make book`, or: pip install -r"
            " requirements-book.txt"
        ) from None
    # 2.x ignores _config.yml and _toc.yml, builds nothing and exits 0.
    if not version.startswith("1."):
        raise BookError(
            f"Jupyter Book {version} cannot build this book, 1.x can: pip install -r"
            " requirements-book.txt"
        )


def fingerprint(root: Path) -> str:
    """Of the extensions, styles and scripts of a book, whose changes Sphinx does not notice."""
    digest = hashlib.sha256()
    for folder in ("_ext", "_static"):
        for path in sorted((root / "book" / folder).glob("*.*")):
            digest.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def build(
    root: Path = ROOT, output: Path | None = None, fresh: bool = False, verbose: bool = False
) -> Path:
    """Build the book of `root` into ``output/_build`` (default: in `root`).

    Returns the folder of its pages.

    Any warning, any broken reference and any page missing from the result is a BookError. Only what
    changed is built again, or all of it if `fresh`.
    """
    import yaml  # comes with Jupyter Book

    require_tools()
    output = output or root
    html = output / "_build" / "html"
    environment = output / "_build" / ".doctrees" / "environment.pickle"
    # There while a build is under way: what an interrupted one left is half written, such as the
    # index of the search.
    under_way = output / "_build" / "under-way"
    fresh = fresh or under_way.exists()
    try:
        under_way.parent.mkdir(parents=True, exist_ok=True)
        under_way.touch()
    except OSError as error:
        raise BookError(
            f"The folder {output / '_build'} cannot be written ({error.strerror})."
            " Build from a copy of the course in a folder that you can write to."
        ) from error
    if fresh:
        shutil.rmtree(html, ignore_errors=True)
        shutil.rmtree(environment.parent, ignore_errors=True)
    expected = toc_pages(yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8")))
    for page in html_pages(html) - set(expected):  # left by an earlier table of contents
        (html / f"{page}.html").unlink()

    command = [
        *JUPYTER_BOOK,
        "build",
        str(root),
        "--path-output",
        str(output),
        "-W",
        "-n",
        "--keep-going",
    ]
    made_by, makers = output / "_build" / "made-by", fingerprint(root)
    if not (made_by.exists() and made_by.read_text(encoding="utf-8") == makers):
        command.append("--all")
    made_by.unlink(missing_ok=True)  # until this build is whole
    result = subprocess.run(
        command,
        cwd=root,
        env={**os.environ, "PYTHONUTF8": "1"},
        stdout=None if verbose else subprocess.PIPE,
        stderr=None if verbose else subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    if result.returncode:
        # Else the next build would skip the pages with warnings, and pass.
        environment.unlink(missing_ok=True)
        # Jupyter Book colours what it prints, wherever it goes. Its own traceback, below Sphinx's
        # message, only hides that one.
        log = re.sub(r"\x1b\[[\d;]*m", "", result.stdout or "")
        log = log.split("\nTraceback (most recent call last):\n")[0]
        faults = [
            line for line in log.splitlines() if re.search(r"\b(WARNING|ERROR|CRITICAL)\b", line)
        ]
        raise BookError("\n".join([log, *faults, "The book was not built."]))
    missing = set(expected) - html_pages(html)
    if missing or len(expected) != len(html_pages(html)):
        raise BookError(
            f"_toc.yml lists {len(expected)} pages, {len(html_pages(html))} were built; missing:"
            f" {sorted(missing)}"
        )
    made_by.write_text(makers, encoding="utf-8")
    under_way.unlink(missing_ok=True)
    return html


def pack(html: Path, target: Path) -> None:
    """Write the built book as a zip; the same pages give the same bytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_suffix(".part")
    with zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as archive:
        files = (path for path in html.rglob("*") if path.is_file())
        for path in sorted(files, key=lambda path: path.relative_to(html).as_posix()):
            name = path.relative_to(html)
            if (
                name.name in UNREAD
                or name.suffix == ".map"
                or name.parts[:2] == ("_static", "locales")
                or "webfonts" in name.parts
            ):
                continue
            # Dated 1980, whenever it was built.
            entry = zipfile.ZipInfo((Path("mtl-course-book") / name).as_posix())
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
    os.replace(aside, target)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m mtl_course.dev book", description="Build the book and say where to open it."
    )
    parser.add_argument(
        "--zip", action="store_true", help="also write dist/mtl-course-book.zip, to read offline"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="build every page anew, not only what changed"
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="show what Jupyter Book prints"
    )
    options = parser.parse_args(arguments)

    print("Building the book (the first time takes about a minute) ...", flush=True)
    start = time.perf_counter()
    try:
        # A zip holds no leftovers.
        html = build(fresh=options.fresh or options.zip, verbose=options.verbose)
    except BookError as error:
        print(error, file=sys.stderr)
        return 1
    index = html / "index.html"
    print(f"{len(html_pages(html))} pages in {time.perf_counter() - start:.0f} s, no warning.")
    print(f"Open {os.path.relpath(index)} in a browser, or go to {index.as_uri()}")
    if options.zip:
        target = ROOT / "dist" / "mtl-course-book.zip"
        pack(html, target)
        size = target.stat().st_size / 1e6
        print(
            f"{os.path.relpath(target)} ({size:.1f} MB): unpack it and open index.html; no network"
            " is needed."
        )
    return 0
