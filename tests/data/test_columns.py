"""Tables with names as arrays: what training shows is all that counts, and what is refused."""

import numpy as np
import pytest

from mtl_course import data
from mtl_course.data import Columns

TRAIN = {
    "age": [20, 30, 40, 50],
    "job": ["cook", "smith", "cook", "baker"],
    "town": np.array([7, 9, 7, 7]),
    "unused": [1, 2],
}


def columns(**options):
    return Columns(TRAIN, ["age"], ["job", "town"], **options)


def test_numbers_are_scaled_and_categories_numbered_by_the_training_rows():
    made = columns()
    x = made(TRAIN)
    assert x.dtype == np.float32 and x.shape == (4, 3)
    np.testing.assert_allclose(x[:, 0], (np.array(TRAIN["age"]) - 35) / np.std(TRAIN["age"]))
    assert x[:, 1:].tolist() == [[2, 1], [3, 2], [2, 1], [1, 1]]
    assert made.levels == {"job": 3, "town": 2} and made.numbers == ["age"]
    assert made.categories("job") == ["baker", "cook", "smith"]
    other = made({"age": [60], "job": ["smith"], "town": [9]})
    np.testing.assert_allclose(other, [[(60 - 35) / np.std(TRAIN["age"]), 3, 2]], rtol=1e-6)


def test_a_category_that_training_has_not_seen():
    test = {"age": [30, 30], "job": ["cook", "clerk"], "town": [9, 9]}
    with pytest.raises(
        ValueError, match="Row 1 has 'clerk' in column 'job', which no training row"
    ):
        columns()(test)
    assert columns(unknown="zero")(test)[:, 1].tolist() == [2, 0]
    with pytest.raises(ValueError, match="unknown must be 'refuse' or 'zero'; it is 'drop'"):
        columns(unknown="drop")


def test_a_data_set_is_a_table_too():
    macro = data.load("macro")
    assert Columns(macro, ["year"], ["quarter"])(macro).shape == (203, 2)


def test_a_data_frame_is_a_table_too():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({name: TRAIN[name] for name in ("age", "job", "town")})
    assert (Columns(frame, ["age"], ["job", "town"])(frame) == columns()(TRAIN)).all()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"age": None}, "has no column 'age'; it has 'job', 'town'"),
        ({"job": None, "town": None}, "has no column 'job', 'town'"),
        ({"job": ["cook"] * 3}, "Column 'job' has 3 rows and 'age' has 4"),
        ({"age": [1, 2, np.nan, 3]}, "Row 2 has nan in column 'age'"),
        ({"age": [1, np.inf, 2, 3]}, "Row 1 has inf in column 'age'"),
        ({"age": ["a", "b", "c", "d"]}, "Column 'age' is no column of numbers"),
        ({"job": ["cook", float("nan"), "cook", "cook"]}, "Row 1 has nan in column 'job'"),
        ({"age": [], "job": [], "town": []}, "The table has no rows"),
    ],
)
def test_tables_that_cannot_be_read(change, message):
    table = {k: v for k, v in (TRAIN | change).items() if v is not None and k != "unused"}
    if "nan in column 'job'" in message:  # numpy makes texts of a mixed list
        table["job"] = np.array(table["job"], dtype=object)
    for call in (columns(), lambda table: Columns(table, ["age"], ["job", "town"])):
        with pytest.raises(ValueError, match=message):
            call(table)


def test_columns_that_cannot_be_learned_from():
    with pytest.raises(ValueError, match="Column 'age' is 5 in all training rows"):
        Columns({"age": [5, 5, 5]}, ["age"])
    with pytest.raises(ValueError, match="Column 'age' is among the numbers and the categories"):
        Columns(TRAIN, ["age"], ["age"])
    with pytest.raises(ValueError, match="Name at least one column"):
        Columns(TRAIN)


def test_one_row():
    assert columns()({"age": [30], "job": ["cook"], "town": [7]}).shape == (1, 3)
