"""What several test modules share: the built book, the data root."""

import os
import time

# As `make test` has it, and before PyTorch is imported, which reads it. Small networks gain nothing
# from more threads. And with several PyTorch 2.14 corrupts its memory in convolutions of channels
# last with an odd batch and channels that are no multiple of 8, as the smallest tests have them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from data_tools import HERE

from mtl_course.dev import book

# Long modules whose tests share work by parameter: the tests of one parameter stay together, those
# of different ones go to different workers.
BY_PARAMETER = ("tests/exercises/test_exercises.py",)
# name of an exercise -> seconds of processor time that its tests took
EXERCISE_SECONDS: dict[str, float] = {}
# name of an exercise -> number of its wrong mutants, by where the card leads their authors
LED_SOMEWHERE: dict[str, dict[str, int]] = {}
# Least shares of all wrong mutants with a row that says where to look or a hint: with the rows of
# broken laws, and without.
LEAST_LED, LEAST_WITHOUT_LAWS = 0.85, 0.72


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
    if report.when == "call":
        LED_SOMEWHERE.update(v for k, v in report.user_properties if k == "led somewhere")


def shares_led() -> tuple[int, float, float] | None:
    """(number of wrong mutants, share that is led somewhere, share without laws) of all exercises.

    None where not all of them were tried.
    """
    from mtl_course.checks.exercise import REGISTRY

    if not LED_SOMEWHERE or set(LED_SOMEWHERE) != set(REGISTRY):
        return None
    made = sum(sum(kinds.values()) for kinds in LED_SOMEWHERE.values())
    lost, laws = (
        sum(kinds.get(kind, 0) for kinds in LED_SOMEWHERE.values()) for kind in ("nothing", "law")
    )
    return made, 1 - lost / made, 1 - (lost + laws) / made


def pytest_sessionfinish(session):
    shares = shares_led()
    if shares and (shares[1] < LEAST_LED or shares[2] < LEAST_WITHOUT_LAWS):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    """The five exercises that cost most (each may cost 5 seconds of processor time), and how many
    wrong answers are led somewhere."""
    dearest = sorted(EXERCISE_SECONDS.items(), key=lambda item: -item[1])[:5]
    if dearest:
        told = ", ".join(f"{name} {seconds:.1f}" for name, seconds in dearest)
        terminalreporter.write_line(f"dearest exercises (CPU seconds, budget 5 each): {told}")
    if (shares := shares_led()) is not None:
        made, led, without = shares
        terminalreporter.write_line(
            f"of {made} wrong answers {led:.1%} get a row that says where to look or a hint"
            f" (at least {LEAST_LED:.0%}), {without:.1%} without broken laws"
            f" (at least {LEAST_WITHOUT_LAWS:.0%})"
        )


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
