"""The scripts of `benchmarks/` as modules."""

import sys
from importlib import import_module
from types import ModuleType

from mtl_course.dev.notebooks import ROOT


def load(name: str) -> ModuleType:
    """Import one as it is when it runs as a script: with its neighbours in reach."""
    folder = str(ROOT / "benchmarks")
    if folder not in sys.path:
        sys.path.append(folder)
    return import_module(name)
