"""Labels at several horizons, and the test of Diebold and Mariano."""

import numpy as np
import pytest
from scipy import stats

from mtl_course.training import diebold_mariano, means_ahead


# ------------------------------------------------------------------------------------------- labels
@pytest.mark.parametrize("shape", [(9,), (9, 2), (9, 2, 3)])
def test_a_label_is_the_mean_of_what_comes(shape):
    series = np.random.default_rng(0).normal(size=shape)
    labels = means_ahead(series, [1, 3, 20])
    assert labels.shape == (*shape, 3)
    for t in range(9):
        np.testing.assert_equal(labels[t, ..., 0], series[t + 1] if t < 8 else np.nan)
        want = series[t + 1 : t + 4].mean(0) if t < 6 else np.full(shape[1:], np.nan)
        np.testing.assert_allclose(labels[t, ..., 1], want)
    assert np.isnan(labels[..., 2]).all(), "longer than the series: never known"


def test_a_label_knows_nothing_of_its_own_row_and_the_series_stays_as_it_is():
    series = np.arange(6.0)
    before = series.copy()
    first = means_ahead(series, [2])
    other = series.copy()
    other[2] = 99
    assert means_ahead(other, [2])[2] == first[2] and means_ahead(other, [2])[1] != first[1]
    assert np.array_equal(series, before)


@pytest.mark.parametrize(
    ("series", "horizons", "match"),
    [
        ([1.0, np.nan, 2.0], [1], "row 1"),
        ([[1.0, 2.0], [3.0, np.inf]], [1], "row 1"),
        ([1.0, 2.0], [], "horizons"),
        ([1.0, 2.0], [0], "horizons"),
        ([1.0, 2.0], [1.5], "horizons"),
        ([1.0, 2.0], [np.nan], "horizons"),
        (3.0, [1], "rows"),
        ([], [1], "rows"),
        (np.ones((3, 0)), [1], "rows"),
    ],
)
def test_gaps_and_odd_horizons_are_refused(series, horizons, match):
    with pytest.raises(ValueError, match=match):
        means_ahead(series, horizons)


# --------------------------------------------------------------------------------------------- test
def losses(N, seed=0):
    a, b = np.random.default_rng(seed).gamma(2.0, size=(2, N))
    return a, b + 0.1


def test_at_one_step_it_is_the_t_test():
    a, b = losses(30)
    there = stats.ttest_rel(a, b)
    np.testing.assert_allclose(diebold_mariano(a, b), (there.statistic, there.pvalue))


@pytest.mark.parametrize("h", [1, 2, 5, 12])
def test_it_is_equation_5(h):
    """Against a sum over all pairs of weeks, as Newey and West write it."""
    a, b = losses(40, seed=h)
    d, N = a - b, 40
    total = sum(
        max(0.0, 1 - abs(i - j) / h) * (d[i] - d.mean()) * (d[j] - d.mean())
        for i in range(N)
        for j in range(N)
    )
    statistic = d.mean() / np.sqrt(total / N**2)
    statistic *= np.sqrt((N + 1 - 2 * h + h * (h - 1) / N) / N)
    p = 2 * stats.t.sf(abs(statistic), N - 1)
    np.testing.assert_allclose(diebold_mariano(a, b, h), (statistic, p))


def test_units_and_order_are_what_they_should_be():
    a, b = losses(25)
    statistic, p = diebold_mariano(a, b, 3)
    for unit in (1e-200, 1e-6, 1e200):
        np.testing.assert_allclose(diebold_mariano(unit * a, unit * b, 3), (statistic, p))
    np.testing.assert_allclose(diebold_mariano(b, a, 3), (-statistic, p))
    assert diebold_mariano(a, a, 3) == (0.0, 1.0)


def test_under_no_difference_one_in_twenty_is_below_5_percent():
    """Losses that are alike for ten weeks: with h = 1 far too many would be."""
    rng = np.random.default_rng(0)
    low = {1: 0, 12: 0}
    for _ in range(300):
        noise = np.convolve(rng.normal(size=411), np.ones(12), "valid")
        for h in low:
            low[h] += diebold_mariano(noise, np.zeros(400), h)[1] < 0.05
    assert low[12] / 300 < 0.15 < 0.4 < low[1] / 300, low


@pytest.mark.parametrize(
    ("first", "second", "h", "match"),
    [
        ([1.0], [2.0], 1, "two or more"),
        ([1.0, 2.0], [1.0, 2.0, 3.0], 1, "two or more"),
        ([[1.0, 2.0]], [[1.0, 3.0]], 1, "two or more"),
        ([1.0, np.nan, 3.0], [1.0, 2.0, 4.0], 1, "Row 1"),
        ([1.0, 2.0, 3.0], [1.0, np.inf, 4.0], 1, "Row 1"),
        ([1.0, 2.0, 3.0], [2.0, 2.0, 1.0], 3, "horizon"),
        ([1.0, 2.0, 3.0], [2.0, 2.0, 1.0], 0, "horizon"),
        ([1.0, 2.0, 3.0], [2.0, 2.0, 1.0], 1.5, "horizon"),
        ([1.0, 2.0, 3.0], [2.0, 3.0, 4.0], 1, "same"),
    ],
)
def test_what_cannot_be_compared_is_refused(first, second, h, match):
    with pytest.raises(ValueError, match=match):
        diebold_mariano(first, second, h)
