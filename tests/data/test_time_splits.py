"""Splits in time: nothing from after a cut before it; windows and scalers of the past alone."""

import numpy as np
import pytest

from mtl_course.data import Scaler, rolling_origins, split_in_time, windows


# ------------------------------------------------------------------------------------------- splits
@pytest.mark.parametrize("gap", [0, 1, 3, 2.5])
def test_the_parts_are_what_the_times_say_in_any_order_of_rows(gap):
    time = np.random.RandomState(0).permutation(40).astype(float)
    parts = split_in_time(time, cuts=[12, 30], gap=gap)
    expected = [(-np.inf, 12 - gap), (12, 30 - gap), (30, np.inf)]
    for rows, (start, end) in zip(parts, expected, strict=True):
        assert rows.dtype == np.int64 and sorted(time[rows]) == time[rows].tolist()
        assert {*rows} == {row for row in range(40) if start <= time[row] < end}


@pytest.mark.parametrize("horizon", [1, 4])
def test_no_label_of_a_part_is_from_after_its_cut(horizon):
    """What a gap is for: with one as long as the horizon no training label is a test number."""
    series = np.arange(30.0)
    _, y, origin = windows(series, steps=3, horizons=[1, horizon])
    train, test = split_in_time(origin, cuts=[20], gap=horizon)
    assert y[train].max() < 20 <= origin[test].min() < y[test].min()
    leaky, _ = split_in_time(origin, cuts=[20])
    assert y[leaky].max() == 19 + horizon


def test_rows_at_the_same_time_stay_together():
    train, test = split_in_time([3, 1, 2, 2, 1, 3], cuts=[2])
    assert train.tolist() == [1, 4] and test.tolist() == [2, 3, 0, 5]


@pytest.mark.parametrize(
    "time, cuts, gap, message",
    [
        ([0, 1, np.nan], [1], 0, "Row 2 has the time nan"),
        ([0, 1, 2], [2, 1], 0, r"cuts must rise, .* they are \[2.0, 1.0\]"),
        ([0, 1, 2], [], 0, "cuts must rise, and there must be one at least"),
        ([0, 1, 2], [1], -1, "gap must not be negative"),
        ([0, 1, 2], [1], 5, "Part 0, from -inf to 1 with a gap of 5, has no row"),
        ([0, 1, 2], [9], 0, "Part 1, from 9 to inf .* the times run from 0 to 2"),
        ([[0, 1]], [1], 0, "one number per row"),
    ],
)
def test_splits_that_cannot_be_made(time, cuts, gap, message):
    with pytest.raises(ValueError, match=message):
        split_in_time(time, cuts, gap)
    with pytest.raises(ValueError, match=message):
        list(rolling_origins(time, cuts, gap))


def test_rolling_origins_learn_from_all_before_and_are_judged_up_to_the_next():
    pairs = list(rolling_origins(range(20), origins=[5, 9, 15], gap=2))
    assert [(len(train), test.tolist()) for train, test in pairs] == [
        (3, [5, 6, 7, 8]),
        (7, [*range(9, 15)]),
        (13, [*range(15, 20)]),
    ]
    assert all(train.tolist() == [*range(len(train))] for train, _ in pairs)


# ------------------------------------------------------------------------------------------ windows
def test_windows_are_the_stretches_and_what_came_after():
    series = np.random.RandomState(0).randn(12, 2)
    x, y, origin = windows(series, steps=4, horizons=[1, 3], time=np.arange(100, 112))
    assert x.shape == (6, 4, 2) and y.shape == (6, 2, 2) and origin.tolist() == [3, 4, 5, 6, 7, 8]
    for row, last in enumerate(origin):
        assert (x[row] == series[last - 3 : last + 1]).all()
        assert (y[row] == series[[last + 1, last + 3]]).all()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"series": [[1.0, 2], [3, np.nan], [5, 6]]}, "has nan in row 1, column 1"),
        ({"series": [1, 2, np.inf, 4]}, "has inf in row 2, column 0"),
        ({"time": [3, 4, 6, 7]}, "a gap before row 2: time goes from 4 to 6"),
        ({"time": [3, 4, 4, 5]}, "a gap before row 2: time goes from 4 to 4"),
        ({"time": [3, 4, 5]}, "4 rows and 3 times"),
        ({"steps": 4}, "need 5 rows; the series has 4"),
        ({"steps": 0}, "must be 1 or more"),
        ({"horizons": [0]}, "must be 1 or more"),
        ({"horizons": []}, "must be 1 or more"),
    ],
)
def test_series_that_give_no_windows(change, message):
    arguments = {"series": [1.0, 2, 3, 4], "steps": 2, "horizons": [1]} | change
    with pytest.raises(ValueError, match=message):
        windows(**arguments)


# ------------------------------------------------------------------------------------------- scaler
def test_the_scaler_does_not_see_what_comes_later():
    series = np.random.RandomState(0).randn(30, 3) * [1, 10, 0.1] + [0, 5, 2]
    scaler = Scaler(series, past=20)
    scaled = scaler(series)
    np.testing.assert_allclose(scaled[:20].mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(scaled[:20].std(0), 1)
    later = series.copy()
    later[20:] += 1e6
    assert (Scaler(later, past=20)(series) == scaled).all()
    np.testing.assert_allclose(scaler.back(scaled), series)


def test_the_scaler_leaves_padding_as_it_is():
    x = np.random.RandomState(0).randn(5, 4, 2)
    x[1, 2:] = np.nan
    scaler = Scaler(x, past=3)
    scaled = scaler(x)
    assert (np.isnan(scaled) == np.isnan(x)).all()
    rows = scaled[:3].reshape(-1, 2)
    np.testing.assert_allclose(np.nanmean(rows, 0), 0, atol=1e-12)
    np.testing.assert_allclose(np.nanstd(rows, 0), 1)


@pytest.mark.parametrize(
    "series, past, message",
    [
        (np.eye(4), 5, "past must be 2 to 4"),
        (np.eye(4), 1, "past must be 2 to 4"),
        ([[1.0, 3], [2, 3], [5, 9]], 2, "Column 1 is the same in all of the past"),
        ([[np.nan, 3], [np.nan, 2], [5, 9]], 2, "Column 0 is the same in all of the past, or miss"),
    ],
)
def test_series_that_cannot_be_scaled(series, past, message):
    with pytest.raises(ValueError, match=message):
        Scaler(series, past)


def test_a_scaler_takes_its_own_columns_only():
    with pytest.raises(ValueError, match=r"has 2 columns; these values have the shape \[4, 3\]"):
        Scaler(np.random.RandomState(0).randn(4, 2), past=3)(np.zeros((4, 3)))
