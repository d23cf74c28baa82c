"""Tier E: tables in the course's wheel, what scikit-learn ships, and drawings of fonts.

The fonts are those that matplotlib ships.
"""

import csv
import gzip
import io

import numpy as np

from .. import cache
from ..manifest import FOLDER, Info


def load(info: Info) -> tuple[dict, str]:
    """The arrays of this set, and in words where they came from.

    DataError if a table is missing or altered.
    """
    readers = {"exam": exam, "digits": digits, "glyphs": glyphs, "flavia": flavia, "macro": macro}
    return readers[info.name](info)


def table(info: Info) -> tuple[list[str], list[list[str]], str]:
    """Header and rows of the embedded table of this set, and where it stands.

    DataError if it is missing or altered.
    """
    (path,) = info.files
    text = gzip.decompress(cache.verified(FOLDER / path, info.files[path])).decode("utf-8")
    header, *rows = csv.reader(io.StringIO(text))
    return header, rows, f"mtl_course/data/{path}"


def exam(info: Info) -> tuple[dict, str]:
    """Exam results of pupils: a task is a school.

    x: [4059, 9] float64, features; names: [9], what they are.
    y: [4059] float64, the result; task: [4059] int64, the school, from 0 to 64.
    """
    header, rows, origin = table(info)
    numbers = np.array(rows, dtype=np.float64)
    arrays = {
        "x": numbers[:, 2:],
        "y": numbers[:, 1],
        "task": numbers[:, 0].astype(np.int64) - 1,
        "names": np.array(header[2:]),
    }
    return arrays, origin


def flavia(info: Info) -> tuple[dict, str]:
    """Measurements of leaves, by species.

    x: [1872, 17] float64, measurements; names: [17], what they are.
    y: [1872] int64, the species, from 0 to 31; species: [32], their names.
    """
    header, rows, origin = table(info)
    species = list(dict.fromkeys(row[0] for row in rows))  # in the order of the table
    arrays = {
        "x": np.array([row[1:] for row in rows], dtype=np.float64),
        "y": np.array([species.index(row[0]) for row in rows], dtype=np.int64),
        "names": np.array(header[1:]),
        "species": np.array(species),
    }
    return arrays, origin


def macro(info: Info) -> tuple[dict, str]:
    """Quarterly series of an economy.

    x: [203, 12] float64, a row per quarter; names: [12] of the series.
    year: [203] int64; quarter: [203] int64, 1 to 4.
    """
    header, rows, origin = table(info)
    numbers = np.array(rows, dtype=np.float64)
    year, quarter = numbers[:, :2].astype(np.int64).T
    arrays = {
        "x": numbers[:, 2:],
        "names": np.array(header[2:]),
        "year": year,
        "quarter": quarter,
    }
    return arrays, origin


def digits(info: Info) -> tuple[dict, str]:
    """Handwritten digits: `x` [1797, 8, 8] uint8, 0 to 16, and `y` [1797] int64."""
    import sklearn
    from sklearn.datasets import load_digits

    bunch = load_digits()
    arrays = {"x": bunch.images.astype(np.uint8), "y": bunch.target.astype(np.int64)}
    return arrays, f"scikit-learn {sklearn.__version__}"


def glyphs(info: Info) -> tuple[dict, str]:
    """Printed characters; the arrays are described in glyphs.py."""
    import matplotlib

    from .. import glyphs

    return glyphs.load(), f"drawn from the fonts of matplotlib {matplotlib.__version__}"
