"""What several test modules share: the built book, the data root."""

import os
import time

import pytest
from data_tools import HERE

from mtl_course.dev import book

# Modules of many long tests that share no fixture: their tests go to the workers one by one.
SINGLY = ("tests/exercises/test_exercises.py",)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Whole modules, the largest first; then the tests of `SINGLY`, so that no worker idles."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return nodeid if nodeid.startswith(SINGLY) else super()._split_scope(nodeid)

    return Scheduler(config, log) if config.getvalue("dist") == "loadscope" else None


@pytest.fixture
def data_root(monkeypatch):
    monkeypatch.setenv("MTL_COURSE_DATA", str(HERE))


@pytest.fixture(scope="session")
def built_book(tmp_path_factory):
    """Folder of the book's pages, built strictly and once a run, however many workers pytest-xdist
    has.

    It is built in ``build/book``, apart from the reader's own ``_build``; what an earlier run left
    there is used again where nothing changed.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (
        base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    )  # new for each run, common to its workers
    output, done = book.ROOT / "build" / "book", shared / "book-is-built"
    try:
        (shared / "book-is-being-built").mkdir()
    except FileExistsError:  # by another worker
        for _ in range(600):
            if done.exists():
                break
            time.sleep(1)
        outcome = (
            done.read_text(encoding="utf-8")
            if done.exists()
            else "The book was not built within ten minutes."
        )
    else:
        outcome = ""
        try:
            book.build(output=output)
        except book.BookError as error:
            outcome = str(error)
        aside = done.with_suffix(".part")
        aside.write_text(outcome, encoding="utf-8")
        os.replace(aside, done)
    if outcome:
        pytest.fail(outcome, pytrace=False)
    return output / "_build" / "html"
