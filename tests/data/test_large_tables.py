"""The census of two years and the ratings of films, against what their sources publish."""

import numpy as np
import pytest
from data_tools import load_or_skip

from mtl_course.data.tiers import tables

# the second row of the training file
ROW = (
    "58, Self-employed-not incorporated, 4, 34, Some college but no degree, 0, Not in universe,"
    " Divorced, Construction, Precision production craft & repair, White, All other, Male,"
    " Not in universe, Not in universe, Children or Armed Forces, 0, 0, 0, Head of household,"
    " South, Arkansas, Householder, Householder, 1053.55, MSA to MSA, Same county, Same county,"
    " No, Yes, 1, Not in universe, United-States, United-States, United-States,"
    " Native- Born in the United States, 0, Not in universe, 2, 52, 94, {}"
)


@pytest.fixture(scope="module")
def census():
    return load_or_skip("census_income")


@pytest.fixture(scope="module")
def films():
    return load_or_skip("movielens")


def column(census, name: str, part: str = "train") -> np.ndarray:
    """A column of categories as words."""
    number = census.code_names.tolist().index(name)
    words = np.split(census.level_names, np.cumsum(census.levels)[:-1])[number]
    return words[census[f"codes_{part}"][:, number]]


def as_row(census, number: int, part: str = "train") -> list[str]:
    """A row as it stands in the file, without its weight and income."""
    values = dict(zip(census.number_names, census[f"numbers_{part}"][number], strict=True))
    values |= {name: column(census, name, part)[number] for name in census.code_names}
    return [str(values[name]) for name in tables.COLUMNS if name not in tables.LEFT_OUT]


def test_the_census_has_the_counts_of_its_description(census):
    for part, rows, above in (("train", 199_523, 12_382), ("test", 99_762, 6_186)):
        assert len(census[f"numbers_{part}"]) == rows and census[f"income_{part}"].sum() == above
        assert (census[f"codes_{part}"] < census.levels).all()
        assert (census[f"numbers_{part}"] >= 0).all()
        assert census[f"income_{part}"].dtype == np.int64
    assert census.codes_train.dtype == np.uint8 and census.numbers_train.dtype == np.int32
    assert census.levels.sum() == len(census.level_names)
    assert dict(zip(*np.unique(column(census, "sex"), return_counts=True), strict=True)) == {
        "Female": 103_984,
        "Male": 95_539,
    }
    assert (column(census, "marital status") == "Never married").sum() == 86_485
    age = census.numbers_train[:, census.number_names.tolist().index("age")]
    assert age.min() == 0 and age.max() == 90


def test_a_row_of_the_census_is_that_of_the_file(census):
    expected = [field.strip() for field in ROW.split(",")]
    assert as_row(census, 1) == expected[:24] + expected[25:41]


def test_repeated_rows_of_the_census_are_as_many_as_the_note_says(census):
    train, test = (
        [row.tobytes() for row in np.column_stack([census[f"numbers_{p}"], census[f"codes_{p}"]])]
        for p in ("train", "test")
    )
    different = set(train)
    assert len(train) - len(different) == 46_716
    assert sum(row in different for row in test) == 26_851


def test_categories_of_both_parts_are_known_in_both():
    """A word that stands in one part only has its code in both; numerals have the order of
    numbers."""
    train = "\n".join([ROW.format("- 50000."), ROW.replace("Male", "Zebra").format("50000+.")])
    test = ROW.replace("4, 34", "10, 34").replace("Divorced", "Alone").format("50000+.")
    arrays = tables.census_income(train.encode(), test.encode())
    names = arrays["code_names"].tolist()
    words = np.split(arrays["level_names"], np.cumsum(arrays["levels"])[:-1])
    for name, expected in (
        ("sex", ["Male", "Zebra"]),
        ("marital status", ["Alone", "Divorced"]),
        ("industry", ["4", "10"]),
    ):
        assert words[names.index(name)].tolist() == expected
    assert arrays["codes_train"][:, names.index("sex")].tolist() == [0, 1]
    assert arrays["codes_train"][:, names.index("industry")].tolist() == [0, 0]
    assert arrays["codes_test"][:, names.index("industry")].tolist() == [1]
    assert arrays["codes_test"][:, names.index("marital status")].tolist() == [0]
    assert arrays["income_train"].tolist() == [0, 1] and arrays["income_test"].tolist() == [1]
    assert arrays["numbers_train"][0].tolist() == [58, 0, 0, 0, 0, 1, 52]


def test_every_column_of_the_census_is_used_once():
    assert len(tables.COLUMNS) == len(set(tables.COLUMNS)) == 42
    assert set(tables.NUMBERS) | set(tables.LEFT_OUT) < set(tables.COLUMNS)


def test_films_have_the_counts_of_their_description(films):
    assert np.bincount(films.rating).tolist() == [0, 6110, 11_370, 27_145, 34_174, 21_201]
    assert len(set(zip(films.user.tolist(), films.film.tolist(), strict=True))) == 100_000
    assert set(films.user.tolist()) == set(range(943))
    assert set(films.film.tolist()) == set(range(1682))
    assert np.bincount(films.user).min() == 20
    assert np.bincount(films.female).tolist() == [670, 273]
    assert films.age.min() == 7 and films.age.max() == 73
    counts = np.bincount(films.occupation)
    assert films.occupation_names[counts.argmax()] == "student" and counts.max() == 196


def test_films_and_people_are_those_of_the_source(films):
    # the first line of the ratings: user 196 gave film 242 three stars
    first = films.user[0], films.film[0], films.rating[0], films.time[0]
    assert first == (195, 241, 3, 881_250_949)
    assert films.titles[0] == "Toy Story (1995)" and films.year[0] == 1995
    genres = films.genre_names[films.genres[0] == 1].tolist()
    assert genres == ["Animation", "Children's", "Comedy"]
    assert films.titles[films.year == 0].tolist() == ["unknown"]
    assert films.genres.any(axis=1).all() and set(np.unique(films.genres)) == {0, 1}
    known = films.year > 0
    said = [title[-5:-1] == str(year) for title, year in zip(films.titles, films.year, strict=True)]
    assert np.mean(np.array(said)[known]) > 0.8
    # what is well known to be liked
    star_wars = films.titles.tolist().index("Star Wars (1977)")
    assert films.rating[films.film == star_wars].mean() > 4.3


def test_a_split_by_time_meets_new_people(films):
    """The note says so."""
    cut = np.quantile(films.time, 0.8)
    before, after = (
        set(films.user[rows].tolist()) for rows in (films.time <= cut, films.time > cut)
    )
    assert len(after - before) / len(after) > 0.5
