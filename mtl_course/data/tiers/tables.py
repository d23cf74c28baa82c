"""Large tables for several tasks out of published archives: a census, and ratings of films."""

import numpy as np

# The columns in the order of the file, as the census bureau names them; NUMBERS are amounts, the
# weight says for how many people a row stands, all others are categories.
COLUMNS = [
    "age", "class of worker", "industry", "occupation", "education", "wage per hour",
    "enrolled last week", "marital status", "major industry", "major occupation", "race",
    "hispanic origin", "sex", "member of a union", "reason for unemployment", "full or part time",
    "capital gains", "capital losses", "dividends", "tax filer", "previous region",
    "previous state", "household and family", "household summary", "weight", "migration by msa",
    "migration by region", "migration within region", "same house a year ago",
    "previous home in sunbelt", "people in the firm", "parents present", "country of father",
    "country of mother", "country of birth", "citizenship", "self-employed",
    "veteran's questionnaire", "veteran's benefits", "weeks worked", "year", "income",
]  # fmt: skip
NUMBERS = [
    "age", "wage per hour", "capital gains", "capital losses", "dividends", "people in the firm",
    "weeks worked",
]  # fmt: skip
LEFT_OUT = ["weight", "income"]


def census_income(train: bytes, test: bytes) -> dict:
    """People of a census, as amounts and categories, in the official two parts.

    numbers_train: [199523, 7], numbers_test: [99762, 7] int32; number_names: [7].
    codes_train: [199523, 33], codes_test: [99762, 33] uint8, categories; code_names: [33].
    levels: [33] int64, how many categories a column has, in both parts together.
    level_names: [503], those of the first column, then of the second, and so on.
    income_train, income_test: int64, 1 above 50,000 dollars a year.

    The weight of a row is left out, and so is nothing else: who takes marital status for a task has
    to take it out of the inputs.
    """
    parts = {"train": _columns(train), "test": _columns(test)}
    codes = [name for name in COLUMNS if name not in NUMBERS + LEFT_OUT]
    levels = {
        # numerals in the order of numbers
        name: sorted(
            set().union(*(words for words, _ in (part[name] for part in parts.values()))),
            key=lambda word: (not word.isdigit(), int(word) if word.isdigit() else 0, word),
        )
        for name in codes
    }
    arrays = {
        "number_names": np.array(NUMBERS),
        "code_names": np.array(codes),
        "levels": np.array([len(words) for words in levels.values()], dtype=np.int64),
        "level_names": np.array([word for words in levels.values() for word in words]),
    }
    for part, columns in parts.items():
        numbers = [np.array(columns[name][0], np.int32)[columns[name][1]] for name in NUMBERS]
        words = {name: dict(zip(levels[name], range(256), strict=False)) for name in codes}
        coded = [
            np.array([words[name][word] for word in columns[name][0]], np.uint8)[columns[name][1]]
            for name in codes
        ]
        above = np.array([word == "50000+." for word in columns["income"][0]], np.int64)
        arrays[f"numbers_{part}"] = np.column_stack(numbers)
        arrays[f"codes_{part}"] = np.column_stack(coded)
        arrays[f"income_{part}"] = above[columns["income"][1]]
    return arrays


def _columns(content: bytes) -> dict[str, tuple[list[str], np.ndarray]]:
    """Name -> (the different fields of this column, stripped, and which of them each row has)."""
    import pyarrow
    from pyarrow import csv

    kind = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    table = csv.read_csv(
        pyarrow.BufferReader(content),
        read_options=csv.ReadOptions(column_names=COLUMNS),
        convert_options=csv.ConvertOptions(column_types=dict.fromkeys(COLUMNS, kind)),
    ).unify_dictionaries()
    columns = {}
    for name in COLUMNS:
        column = table.column(name).combine_chunks()
        fields = [field.strip() for field in column.dictionary.to_pylist()]
        columns[name] = fields, column.indices.to_numpy()
    return columns


def movielens(ratings: bytes, films: bytes, people: bytes) -> dict:
    """Ratings that people gave films; people and films are numbered from 0.

    user, film: [100000] int64; rating: [100000] int64, 1 to 5 stars.
    time: [100000] int64, seconds since 1970.
    age: [943] int64; female: [943] int64; occupation: [943] int64; occupation_names: [21].
    titles: [1682]; year: [1682] int64, 0 where it is not known.
    genres: [1682, 19] uint8, 1 for each genre of a film; genre_names: [19].
    """
    import pyarrow
    from pyarrow import parquet

    rated, film, person = (
        parquet.read_table(pyarrow.BufferReader(content)) for content in (ratings, films, people)
    )
    rated, person = rated.to_pydict(), person.to_pydict()
    genre_names = film.column_names[5:]
    film = film.to_pydict()
    occupations, occupation = np.unique(person["occupation"], return_inverse=True)
    whole = {"dtype": np.int64}
    return {
        "user": np.array(rated["user_id"], **whole) - 1,
        "film": np.array(rated["movie_id"], **whole) - 1,
        "rating": np.array(rated["rating"], **whole),
        "time": np.array(rated["timestamp"], **whole),
        "age": np.array(person["age"], **whole),
        "female": np.array([gender == "F" for gender in person["gender"]], **whole),
        "occupation": occupation.astype(np.int64),
        "occupation_names": occupations,
        "titles": np.array(film["movie_title"]),
        "year": np.array([int(date[-4:]) if date else 0 for date in film["release_date"]], **whole),
        "genres": np.column_stack([film[name] for name in genre_names]).astype(np.uint8),
        "genre_names": np.array(genre_names),
    }
