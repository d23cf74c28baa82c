"""Every name that a room lists says what it takes, gives and raises, and shows a call that runs."""

import ast
import doctest
import time
from importlib import import_module

import pytest

from mtl_course.dev import docstrings
from mtl_course.dev.docstrings import PACKAGE, ROOMS

NAMES = [name for room in ROOMS for name in docstrings.public(room)]
FUNCTIONS = [name for name in NAMES if name.kind != "value"]
# What cannot show a call offline in a tenth of a second: loaders that fetch. At most twenty.
EXEMPT: set[str] = set()


def say(name):
    return f"{name.room}.{name.name}"


@pytest.mark.parametrize("name", NAMES, ids=say)
def test_the_summary_is_one_short_line(name):
    assert name.text, "there is no docstring"
    first, *rest = name.text.split("\n")
    assert len(first) <= 88 and first.endswith("."), f"{len(first)} characters: {first}"
    assert not rest or rest[0] == "", "a blank line follows the summary"


@pytest.mark.parametrize("name", FUNCTIONS, ids=say)
def test_every_argument_is_explained_in_order(name):
    assert list(name.arguments) == name.parameters


@pytest.mark.parametrize("name", FUNCTIONS, ids=say)
def test_returns_and_raises_are_said(name):
    if name.kind == "function" and ast.unparse(name.node.returns or ast.Constant(None)) != "None":
        assert name.section("Returns"), "what does it return, with shape and unit?"
    missing = {e for e in name.raised if e.split(".")[-1] not in name.section("Raises")}
    assert not missing, f"it raises {', '.join(sorted(missing))}, and its docstring does not say so"


@pytest.mark.parametrize("name", FUNCTIONS, ids=say)
def test_there_is_an_example_and_it_runs(name):
    if say(name) in EXEMPT:
        return
    assert ">>>" in name.section("Example"), "show a call, below `Example:`"
    module = import_module(f"mtl_course.{name.room}.{name.module}")
    case = doctest.DocTestParser().get_doctest(name.text, vars(module).copy(), say(name), None, 0)
    case.globs["__name__"] = "__main__"
    seconds, failed = [], None
    for _ in range(3):  # the best of three: imports and other processes are not the example's
        start = time.process_time()
        out = []
        runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
        case.globs = {**vars(module), "__name__": "__main__"}
        failed = runner.run(case, out=out.append, clear_globs=False).failed
        seconds.append(time.process_time() - start)
        if failed or seconds[-1] < 0.1:
            break
    assert not failed, "".join(out)
    assert min(seconds) < 0.1, f"{min(seconds):.2f} s: make the example smaller"


def test_exemptions_are_few_and_real():
    assert len(EXEMPT) <= 20 and {say(name) for name in FUNCTIONS} >= EXEMPT


def test_no_module_bears_the_name_of_what_its_room_lists():
    for room in ROOMS:
        modules = {path.stem for path in (PACKAGE / room).glob("*.py")}
        assert not modules & {name.name for name in NAMES if name.room == room}
