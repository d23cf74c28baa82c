"""What several test modules share: the built book, the data root."""

import os
import time

import pytest
from data_tools import HERE

from mtl_course.dev import book

# Long modules whose tests share work by parameter: the tests of one parameter stay together, those
# of different ones go to different workers.
BY_PARAMETER = ("tests/exercises/test_exercises.py",)
# name of an exercise -> seconds of processor time that its tests took
EXERCISE_SECONDS: dict[str, float] = {}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Whole modules, the largest first; then `BY_PARAMETER`, so that no worker idles."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            if not nodeid.startswith(BY_PARAMETER):
                return super()._split_scope(nodeid)
            module, parameter = nodeid.split("::")[0], nodeid.partition("[")[2]
            return f"{module}[{parameter}" if parameter else nodeid

    return Scheduler(config, log) if config.getvalue("dist") == "loadscope" else None


def pytest_runtest_logreport(report):
    if report.when == "teardown":
        for key, value in report.user_properties:
            if key == "exercise seconds":
                name, seconds = value
                EXERCISE_SECONDS[name] = EXERCISE_SECONDS.get(name, 0.0) + seconds


def pytest_terminal_summary(terminalreporter):
    """The five exercises that cost most: each may cost 5 seconds of processor time."""
    dearest = sorted(EXERCISE_SECONDS.items(), key=lambda item: -item[1])[:5]
    if dearest:
        told = ", ".join(f"{name} {seconds:.1f}" for name, seconds in dearest)
        terminalreporter.write_line(f"dearest exercises (CPU seconds, budget 5 each): {told}")


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
