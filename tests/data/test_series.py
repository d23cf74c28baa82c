"""Spoken vowels and prices of stocks, against what their sources publish."""

import gzip

import numpy as np
import pytest
from data_tools import load_or_skip

from mtl_course.data.tiers import series


def test_vowels_have_the_counts_of_their_description():
    vowels = load_or_skip("japanese_vowels")
    train = vowels.train
    assert np.bincount(vowels.speaker[train]).tolist() == [30] * 9
    assert np.bincount(vowels.speaker[~train]).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    assert vowels.length.min() == 7 and vowels.length.max() == 29
    assert train[:270].all() and not train[270:].any()
    there = np.arange(29) < vowels.length[:, None]
    assert not vowels.x[~there].any() and vowels.x[there].any(axis=1).all()
    assert vowels.x[0, 0, :2].tolist() == [1.860936, -0.207383] and vowels.length[0] == 20


def test_vowels_tell_their_speakers():
    """The nearest training utterance, by the mean of its steps, is mostly of the same speaker."""
    vowels = load_or_skip("japanese_vowels")
    mean = vowels.x.sum(axis=1) / vowels.length[:, None]
    train, test = mean[vowels.train], mean[~vowels.train]
    nearest = ((test[:, None] - train[None]) ** 2).sum(axis=2).argmin(axis=1)
    guessed = vowels.speaker[vowels.train][nearest]
    assert np.mean(guessed == vowels.speaker[~vowels.train]) > 0.85


def test_a_file_of_series_becomes_steps_and_zeros():
    text = "#words\n@dimensions 2\n@data\n1,2,3:4,5,6:2\n7:8:1\n"
    arrays = series.japanese_vowels(text.encode(), b"@data\n0,1:2,3:1\n\n")
    assert arrays["x"][0].tolist() == [[1, 4], [2, 5], [3, 6]]
    assert arrays["x"][1].tolist() == [[7, 8], [0, 0], [0, 0]]
    assert arrays["x"][2].tolist() == [[0, 2], [1, 3], [0, 0]]
    assert arrays["length"].tolist() == [3, 1, 2] and arrays["speaker"].tolist() == [1, 0, 0]
    assert arrays["train"].tolist() == [True, True, False]


def test_stocks_are_days_in_order():
    stocks = load_or_skip("stocks")
    days = np.array(stocks.date, dtype="datetime64[D]")
    assert (np.diff(days) > np.timedelta64(0)).all()
    assert np.is_busday(days).all() and np.diff(days).max() <= np.timedelta64(7)
    assert stocks.date[0] == "1990-01-02" and stocks.date[-1] == "2022-12-28"
    assert (
        np.isfinite(stocks.prices).all() and (stocks.prices > 0).all() and (stocks.index > 0).all()
    )
    first = dict(zip(stocks.names.tolist(), stocks.prices[0].tolist(), strict=True))
    assert first["AAPL"] == 0.264 and first["XOM"] == 4.068 and stocks.index[0] == 359.69


def test_stocks_move_with_their_index():
    """Prices are adjusted: but for the day that the note names, the worst one is Apple's warning of
    September 2000. All go with the index."""
    stocks = load_or_skip("stocks")
    returns, market = np.diff(np.log(stocks.prices), axis=0), np.diff(np.log(stocks.index))
    size = np.abs(returns)
    day, stock = np.unravel_index(size.argmax(), size.shape)
    assert (stocks.names[stock], stocks.date[day + 1]) == ("RRC", "1990-04-10")
    size[day, stock] = 0
    day, stock = np.unravel_index(size.argmax(), size.shape)
    assert (stocks.names[stock], stocks.date[day + 1]) == ("AAPL", "2000-09-29")
    assert min(np.corrcoef(column, market)[0, 1] for column in returns.T) > 0.2
    crash = stocks.date[1:].tolist().index("2020-03-16")
    assert market[crash] < -0.12 and np.median(returns[crash]) < -0.08


def test_prices_and_index_of_different_days_are_refused():
    one, other = (
        gzip.compress(f"Date,A\n{day},1\n".encode()) for day in ("1990-01-02", "1990-01-03")
    )
    assert series.stocks(one, one)["prices"].tolist() == [[1]]
    with pytest.raises(ValueError, match="of different days"):
        series.stocks(one, other)
