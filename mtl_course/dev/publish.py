"""Give the course its address, in every place: ``python -m mtl_course.dev publish URL``.

No notebook is executed: the first cells and the Colab links change, the outputs stay, and what a
first cell prints does not depend on the address.
"""

import argparse
import re
from pathlib import Path

from . import notebooks, sync

ADDRESS = re.compile(r"https://github\.com/[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+")
README = re.compile(r"<!-- address -->.*?<!-- /address -->", re.S)


def cleaned(url: str) -> str:
    """The address without a slash or ``.git`` at its end; ValueError for one that is none."""
    url = url.strip().rstrip("/").removesuffix(".git")
    if not ADDRESS.fullmatch(url) or not sync.published(url):
        raise ValueError(
            f"{url!r} is not the address of a repository, which looks like"
            " https://github.com/someone/mtl-course. Colab opens notebooks from there."
        )
    return url


def in_config(text: str, url: str) -> str:
    """``_config.yml`` with this address."""
    return re.sub(r"(?m)^(repository:\n(?:[ #].*\n)*?  url: ).*$", rf"\g<1>{url}", text, count=1)


def in_readme(text: str, url: str) -> str:
    """The README with the address between its markers."""
    line = f"<!-- address -->The course lives at <{url}>.<!-- /address -->"
    return README.sub(lambda _: line, text, count=1)


def in_citation(text: str, url: str) -> str:
    """``CITATION.cff`` with the address as the place of the code."""
    text = re.sub(r"(?m)^repository-code: .*\n", "", text)
    return re.sub(r"(?m)^license: .*\n", rf'\g<0>repository-code: "{url}"\n', text, count=1)


def in_project(text: str, url: str) -> str:
    """``pyproject.toml`` with the address among the project's links."""
    text = re.sub(r"(?m)^\[project\.urls\]\n(?:\w.*\n)*\n?", "", text)
    links = f'[project.urls]\nRepository = "{url}"\nIssues = "{url}/issues"\n\n'
    return text.replace(
        "[project.optional-dependencies]\n", links + "[project.optional-dependencies]\n", 1
    )


PLACES = {
    "_config.yml": in_config,
    "README.md": in_readme,
    "CITATION.cff": in_citation,
    "pyproject.toml": in_project,
}


def publish(url: str, root: Path = notebooks.ROOT) -> list[str]:
    """Write the address into every place of the repository; returns the files that changed.

    ValueError for what is no address, and for a file that has no place for it; nothing is written
    then.
    """
    return in_place(cleaned(url), root)


def in_place(url: str, root: Path) -> list[str]:
    """Write the address as it is given, checked or not."""
    texts, changed = {}, []
    for name, edit in PLACES.items():
        texts[root / name] = edit((root / name).read_text(encoding="utf-8"), url)
        if url not in texts[root / name]:
            raise ValueError(f"{name} has no place for the address: see {Path(__file__).name}.")
    for path, text in texts.items():
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8", newline="\n")
            changed.append(path.name)
    branch = notebooks.repository(root)[1]
    for chapter, path in notebooks.find([], root, labs=True):
        nb = notebooks.read(path)
        if sync.address(nb, chapter, url, branch):
            notebooks.write(nb, path)
            changed.append(chapter.notebook)
    return changed


def main(arguments: list[str]) -> int:
    """Publish at the address that the command line gives."""
    parser = argparse.ArgumentParser(prog="python -m mtl_course.dev publish", description=__doc__)
    parser.add_argument(
        "url", metavar="URL", help="the repository, such as https://github.com/someone/mtl-course"
    )
    try:
        changed = publish(parser.parse_args(arguments).url)
    except ValueError as error:
        parser.error(str(error))
    print(*[f"{name}: written" for name in changed] or ["Every place has this address."], sep="\n")
    return 0
