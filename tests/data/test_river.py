"""The river record, cleaned: what is left out, and that every hour keeps its place."""

import numpy as np
import pytest

from mtl_course import data
from mtl_course.data import door, river


def test_missing_and_impossible_readings_are_left_out_and_hours_keep_their_place(monkeypatch):
    def load(name):
        assert name == "rf1"
        x = {half: np.zeros((count, 3)) for half, count in (("train", 5), ("test", 4))}
        y = {half: np.ones((len(values), 8)) for half, values in x.items()}
        x["train"][0] = np.nan  # no reading
        y["train"][3, 5] = np.nan
        y["train"][2, 1] = 78.9  # the impossible one
        y["test"][1, 0] = 78.9  # possible at another gauge
        for half, first in (("train", 0), ("test", 10)):
            x[half][:, 1] = first + np.arange(len(x[half]))
        return {f"x_{h}": v for h, v in x.items()} | {f"y_{h}": v for h, v in y.items()}

    monkeypatch.setattr(door, "load", load)
    hours = river.river_hours()
    assert hours.x[:, 1].tolist() == [1, 4, 10, 11, 12, 13]
    assert hours.hour.tolist() == [1, 4, 0, 1, 2, 3]
    assert hours.half.tolist() == [0, 0, 1, 1, 1, 1]
    assert len(hours.y) == len(hours.x)


def test_the_real_record_is_finite_and_in_order():
    try:
        hours = river.river_hours()
    except data.DataError as error:
        pytest.skip(f"rf1 cannot be had here: {error}")
    assert hours.x.shape[1] == 64 and hours.y.shape == (len(hours.x), len(river.GAUGES))
    assert np.isfinite(hours.x).all() and np.isfinite(hours.y).all() and hours.y[:, 1].max() < 6
    place = hours.half * 10_000 + hours.hour
    assert (np.diff(place) > 0).all()
