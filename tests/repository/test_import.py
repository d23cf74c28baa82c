"""Importing the package is quick, needs no torch, and every module of it can be imported."""

import json
import pkgutil
import subprocess
import sys
from importlib import import_module

import pytest

import mtl_course
from mtl_course.dev.notebooks import ROOT

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(mtl_course.__path__, "mtl_course.")
    if not module.name.endswith("__main__")
)


def fresh(code: str):
    """What `code` prints (JSON) in a Python of its own."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_import_is_quick_and_brings_no_torch():
    code = "import json, numpy, sys, time\nstart = time.perf_counter()\n"
    code += "import mtl_course\nseconds = time.perf_counter() - start\n"
    code += (
        "print(json.dumps([seconds, sorted({'torch', 'matplotlib', 'sklearn'} &"
        " set(sys.modules))]))"
    )
    seconds, heavy = zip(*[fresh(code) for _ in range(3)], strict=True)
    assert heavy == ([], [], []) and min(seconds) <= 1


@pytest.mark.parametrize("name", MODULES)
def test_every_module_can_be_imported(name):
    assert import_module(name).__doc__, "and says what it is for"


def test_the_developer_tools_need_no_torch():
    tools = [name for name in MODULES if name.startswith("mtl_course.dev.")]
    code = "import json, sys\nsys.modules['torch'] = None\n"
    code += f"for name in {tools}: __import__(name)\nprint(json.dumps(len(sys.modules)))"
    assert fresh(code) > 0


def test_the_verbs_are_there():
    for name in ("check", "claim", "hint", "progress", "setup", "solution", "use"):
        assert (
            callable(getattr(mtl_course, name))
            and name in dir(mtl_course)
            and name in mtl_course.__all__
        )


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'mtl_course' has no attribute 'chek'"):
        mtl_course.chek  # noqa: B018
    with pytest.raises(ImportError):
        from mtl_course import chek  # noqa: F401
