"""What a test run looks at in turn, where everything at each run would cost too much.

The commit decides, so that every run of one commit does the same, and the next takes another part.
"""

import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .. import chapters
from . import book
from .notebooks import ROOT

OTHERS = 4  # unchanged pages that axe reads beside the changed ones
# A change of these may change how every page looks.
EVERY_PAGE = ("_config.yml", "requirements-book.txt", "book/_ext/", "book/_static/")


def git(*arguments: str, root: Path = ROOT) -> str:
    """What git prints; an empty text where there is no git, repository or such commit."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def commit(root: Path = ROOT) -> str:
    """The commit that is checked out, in full; empty outside a repository."""
    return git("rev-parse", "HEAD", root=root)


def in_turn(items: Sequence[str], count: int, seed: str) -> list[str]:
    """`count` of the items, in their order, that the seed (a commit) chooses.

    They are ranked by a hash of seed and item, so that each has its turn. All if there are fewer.
    """

    def rank(item: str) -> str:
        return hashlib.sha256(f"{seed} {item}".encode()).hexdigest()

    chosen = set(sorted(items, key=rank)[:count])
    return [item for item in items if item in chosen]


def changed_files(root: Path = ROOT) -> set[str] | None:
    """Files that differ from the commit, or that a commit of its last day touched.

    None outside a repository, and where the history ends within that day (a shallow clone): then
    nothing says what is old.
    """
    head = commit(root)
    if not head:
        return None
    day = int(git("show", "-s", "--format=%ct", head, root=root)) - 24 * 3600
    before = git("rev-list", "-1", f"--before={day}", head, root=root)
    if not before:
        return None
    tracked = git("diff", "--name-only", before, root=root)
    untracked = git("ls-files", "--others", "--exclude-standard", root=root)
    return {*tracked.split("\n"), *untracked.split("\n")} - {""}


def sources(page: str) -> tuple[str, ...]:
    """Beginnings of the names of the files that a page of the book is made from."""
    made = (f"{page}.md", f"{page}.ipynb")
    if page.startswith("book/appendix/api/"):
        made += (f"mtl_course/{page.rsplit('/', 1)[1]}/",)
    return (*made, "mtl_course/data/manifest") if page == "book/appendix/datasets" else made


def pages_to_read(pages: Sequence[str], count: int, root: Path = ROOT) -> list[str]:
    """The pages that axe reads in this run: those that changed, and `count` others."""
    changed = changed_files(root)
    if changed is None or any(name.startswith(EVERY_PAGE) for name in changed):
        return list(pages)
    new = [page for page in pages if any(name.startswith(sources(page)) for name in changed)]
    old = [page for page in pages if page not in new]
    taken = {*new, *in_turn(old, count, commit(root))}
    return [page for page in pages if page in taken]


def this_run(root: Path = ROOT) -> list[str]:
    """What the tests of this commit look at in turn, one sentence per line."""
    name, every, read = commit(root)[:12] or "no commit", book_pages(root), axe_pages(root)
    pages = f"all {len(every)} pages" if read == every else ", ".join(read)
    return [
        f"Axe reads {pages}: what changed in a day, and {OTHERS} others by the commit ({name}).",
        f"The Colab twin runs the whole of chapter {colab_chapter(root)}, by the commit ({name}).",
    ]


def book_pages(root: Path = ROOT) -> list[str]:
    """The pages of the built book: those of the table of contents, and two that Sphinx adds."""
    import yaml

    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    return [*book.toc_pages(toc), "search", "genindex"]


def axe_pages(root: Path = ROOT) -> list[str]:
    """The pages that axe reads in this run."""
    return pages_to_read(book_pages(root), OTHERS, root)


def colab_chapter(root: Path = ROOT) -> str:
    """Number of the chapter that the Colab twin runs whole; `dev colab` runs them all."""
    return in_turn(list(chapters.CHAPTERS), 1, commit(root))[0]
