"""The one door to every data set: by name, from the first place that has it."""

from importlib import import_module

from .dataset import Dataset
from .manifest import DataError, info, names

_TIERS = {"E": "embedded", "P": "packages", "R": "root", "D": "vision"}


def load(name: str) -> Dataset:
    """The data set of this name, fetched into the cache first if need be. DataError if there is
    none or it cannot be had.
    """
    entry = info(name)
    arrays, origin = import_module(f"mtl_course.data.tiers.{_TIERS[entry.tier]}").load(entry)
    return Dataset(entry, arrays, origin)


def load_or_partial(name: str) -> Dataset:
    """`load(name)`; where that cannot be had, the part of the set that a data root holds, under its
    own name: see `.info.name`.
    """
    try:
        return load(name)
    except DataError:
        if f"{name}_partial" not in names():
            raise
        return load(f"{name}_partial")
