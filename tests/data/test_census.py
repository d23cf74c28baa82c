"""The census as three tasks: what the labels mean, and that the inputs are all there."""

import numpy as np
import pytest

from mtl_course import data
from mtl_course.data import census, door


class Rows(dict):
    """A table with names for its columns, as a `Dataset` has them."""

    __getattr__ = dict.__getitem__


def small_table(name):
    assert name == "adult"
    return Rows(
        names=np.array(["age", "capital-gain", "capital-loss"]),
        x=np.array([[30.0, 0.0, 0.0], [40.0, 99_999.0, 0.0], [50.0, 0.0, 1.0]]),
        hours=np.array([40.0, 55.0, 20.0]),
        income=np.array([0, 1, 0]),
        marital=np.array([0, 2, 1]),
        marital_names=np.array(["Married-civ-spouse", "Divorced", "Married-AF-spouse"]),
    )


def test_labels_and_the_logarithm_of_capital(monkeypatch):
    monkeypatch.setattr(door, "load", small_table)
    census.census_tasks.cache_clear()
    try:
        x, labels = census.census_tasks()
    finally:
        census.census_tasks.cache_clear()
    assert tuple(labels) == census.TASKS
    assert labels["hours"].tolist() == [0.0, 1.5, -2.0]
    assert labels["income"].tolist() == [0, 1, 0]
    assert labels["married"].tolist() == [1, 1, 0]
    np.testing.assert_allclose(x[:, 0], [30, 40, 50])
    np.testing.assert_allclose(x[:, 1:], np.log([[1, 1], [100_000, 1], [1, 2]]))


def test_the_real_census_has_every_row():
    try:
        x, labels = census.census_tasks()
    except data.DataError as error:
        pytest.skip(f"adult cannot be had here: {error}")
    assert x.shape == (48_842, 35)
    assert all(len(values) == len(x) for values in labels.values())
    assert 0.2 < labels["income"].mean() < 0.3 and set(labels["married"].tolist()) == {0, 1}
