"""The one door to every data set: by name, from the first place that has it."""

from importlib import import_module

from .dataset import Dataset
from .manifest import DataError, info, names

_TIERS = {"E": "embedded", "P": "packages", "N": "npm", "R": "root", "D": "vision"}


def load(name: str) -> Dataset:
    """The data set of this name, fetched into the cache first if need be.

    Args:
        name: one of `names()`.

    Returns:
        Named read-only NumPy arrays; `info(name).shape` has their shapes.

    Raises:
        DataError: if there is no such set or it cannot be had; it says what to do.

    Example:
        >>> exam = load("exam")
        >>> exam.x.shape, exam.y.shape, len(set(exam.task.tolist()))  # pupils of 65 schools
        ((4059, 9), (4059,), 65)
        >>> load("glyph")
        Traceback (most recent call last):
        mtl_course.data.manifest.DataError: There is no data set 'glyph'. Did you mean 'glyphs'? ...
    """
    entry = info(name)
    arrays, origin = import_module(f"mtl_course.data.tiers.{_TIERS[entry.tier]}").load(entry)
    return Dataset(entry, arrays, origin)


def load_or_partial(name: str) -> Dataset:
    """``load(name)``, or the subset that a data root has where that cannot be had.

    The subset goes by its own name, such as "cifar10_partial": see `.info.name`.

    Args:
        name: one of `names()`.

    Returns:
        As `load`.

    Raises:
        DataError: if neither the set nor a subset of it can be had.

    Example:
        >>> load_or_partial("macro").info.name  # it can be had whole
        'macro'
    """
    try:
        return load(name)
    except DataError:
        if f"{name}_partial" not in names():
            raise
        return load(f"{name}_partial")
