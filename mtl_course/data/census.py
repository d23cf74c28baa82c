"""The Adult census as three tasks: working hours, income, marriage. Chapters 4 and 5 use it."""

from functools import lru_cache

import numpy as np

from . import door

TASKS = ("hours", "income", "married")


@lru_cache(maxsize=1)
def census_tasks() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Inputs and the labels of three tasks, for all people of `load("adult")`.

    The two capital columns, which run up to 99,999 and are mostly 0, enter as log(1 + value).

    Returns:
        x: float64 [48842, 35].
        labels: task -> [48842]; "hours": tens of working hours a week above 40, float64; "income":
            1 above 50,000 dollars a year, else 0; "married": 1 with a spouse, else 0.

    Raises:
        DataError: if the set cannot be had.
    """
    table = door.load("adult")
    columns = table.names.tolist()
    x = np.array(table.x)
    for name in ("capital-gain", "capital-loss"):
        x[:, columns.index(name)] = np.log1p(x[:, columns.index(name)])
    with_spouse = ["Married-civ-spouse", "Married-AF-spouse"]
    married = np.isin(table.marital_names[table.marital], with_spouse)
    return x, {
        "hours": (table.hours - 40) / 10,
        "income": np.array(table.income),
        "married": married.astype(np.int64),
    }
