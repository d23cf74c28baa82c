"""Tier E: tables inside the course's wheel, what scikit-learn ships, and what is drawn from matplotlib's fonts."""

import csv
import gzip
import io

import numpy as np

from . import cache
from .manifest import FOLDER, Info


def load(info: Info) -> tuple[dict, str]:
    """The arrays of this set, and in words where they came from. DataError if a table is missing or altered."""
    return {"exam": exam, "digits": digits, "glyphs": glyphs}[info.name](info)


def exam(info: Info) -> tuple[dict, str]:
    """`x` [4059, 9] and `y` [4059] float64, `task` [4059] int64: the school from 0 to 64, `names` [9] of the features."""
    (table,) = info.files
    text = gzip.decompress(cache.verified(FOLDER / table, info.files[table])).decode("utf-8")
    header, *rows = csv.reader(io.StringIO(text))
    numbers = np.array(rows, dtype=np.float64)
    arrays = {"x": numbers[:, 2:], "y": numbers[:, 1], "task": numbers[:, 0].astype(np.int64) - 1, "names": np.array(header[2:])}
    return arrays, f"mtl_course/data/{table}"


def digits(info: Info) -> tuple[dict, str]:
    """`x` [1797, 8, 8] uint8 with values 0 to 16, `y` [1797] int64."""
    import sklearn
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return {"x": bunch.images.astype(np.uint8), "y": bunch.target.astype(np.int64)}, f"scikit-learn {sklearn.__version__}"


def glyphs(info: Info) -> tuple[dict, str]:
    """Printed characters; the arrays are described in glyphs.py."""
    import matplotlib

    from . import glyphs

    return glyphs.load(), f"drawn from the fonts of matplotlib {matplotlib.__version__}"
