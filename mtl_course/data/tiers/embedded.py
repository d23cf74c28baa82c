"""Tier E: tables inside the course's wheel, what scikit-learn ships, and what is drawn from
matplotlib's fonts.
"""

import csv
import gzip
import io

import numpy as np

from .. import cache
from ..manifest import FOLDER, Info


def load(info: Info) -> tuple[dict, str]:
    """The arrays of this set, and in words where they came from. DataError if a table is missing or
    altered.
    """
    return {"exam": exam, "digits": digits, "glyphs": glyphs, "flavia": flavia, "macro": macro}[
        info.name
    ](info)


def table(info: Info) -> tuple[list[str], list[list[str]], str]:
    """Header and rows of the embedded table of this set, and where it stands. DataError if it is
    missing or altered.
    """
    (path,) = info.files
    text = gzip.decompress(cache.verified(FOLDER / path, info.files[path])).decode("utf-8")
    header, *rows = csv.reader(io.StringIO(text))
    return header, rows, f"mtl_course/data/{path}"


def exam(info: Info) -> tuple[dict, str]:
    """`x` [4059, 9] and `y` [4059] float64, `task` [4059] int64: the school from 0 to 64, `names`
    [9] of the features.
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
    """`x` [1872, 17] float64, the measurements `names` [17]; `y` [1872] int64, the species from 0
    to 31, and `species` [32].
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
    """`x` [203, 12] float64, a row a quarter, with the `names` [12] of the series; `year` [203] and
    `quarter` [203], 1 to 4, int64.
    """
    header, rows, origin = table(info)
    numbers = np.array(rows, dtype=np.float64)
    year, quarter = numbers[:, :2].astype(np.int64).T
    return {
        "x": numbers[:, 2:],
        "names": np.array(header[2:]),
        "year": year,
        "quarter": quarter,
    }, origin


def digits(info: Info) -> tuple[dict, str]:
    """`x` [1797, 8, 8] uint8 with values 0 to 16, `y` [1797] int64."""
    import sklearn
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return {
        "x": bunch.images.astype(np.uint8),
        "y": bunch.target.astype(np.int64),
    }, f"scikit-learn {sklearn.__version__}"


def glyphs(info: Info) -> tuple[dict, str]:
    """Printed characters; the arrays are described in glyphs.py."""
    import matplotlib

    from .. import glyphs

    return glyphs.load(), f"drawn from the fonts of matplotlib {matplotlib.__version__}"
