"""The stability index against a count by hand, and the alarm against its own promise."""

import numpy as np
import pytest

from mtl_course.serving import DriftAlarm, psi


def test_the_index_of_classes_is_the_formula_by_hand():
    reference, window = [0, 0, 0, 1], [0, 1, 1, 1, 1, 1]
    p = np.array([3.5, 1.5]) / 5
    q = np.array([1.5, 5.5]) / 7
    assert psi(reference, window) == pytest.approx(((q - p) * np.log(q / p)).sum())


def test_the_index_of_numbers_bins_by_quantiles_of_the_reference():
    rng = np.random.default_rng(0)
    reference, window = rng.normal(size=200), rng.normal(1, 2, size=70)
    edges = np.quantile(reference, [0.25, 0.5, 0.75])
    p, q = (
        (np.histogram(v, [-np.inf, *edges, np.inf])[0] + 0.5) / (len(v) + 2)
        for v in (reference, window)
    )
    assert psi(reference, window, bins=4) == pytest.approx(((q - p) * np.log(q / p)).sum())
    assert psi(100 * reference, 100 * window) == pytest.approx(psi(reference, window))
    assert psi(reference, reference) == 0


def test_without_drift_the_index_is_what_theory_expects():
    """(bins - 1) (1 / n + 1 / m), to a tenth, for large samples."""
    rng = np.random.default_rng(1)
    m, n, bins = 4000, 1000, 10
    found = [psi(rng.normal(size=m), rng.normal(size=n), bins) for _ in range(300)]
    assert np.mean(found) == pytest.approx((bins - 1) * (1 / n + 1 / m), rel=0.1)


def test_a_class_that_the_reference_never_saw_is_counted():
    assert psi([0, 1] * 50, [0, 1] * 20 + [7] * 40) > psi([0, 1] * 50, [0, 1] * 40)


@pytest.mark.parametrize(
    ("reference", "window", "bins", "words"),
    [
        ([], [1.0], 10, "The reference"),
        ([1.0], [], 10, "The window"),
        ([1.0, np.nan], [1.0], 10, "not finite"),
        ([1.0], [[1.0]], 10, "shape"),
        ([1.0], [1.0], 1, "2 bins"),
    ],
)
def test_what_has_no_index_is_refused(reference, window, bins, words):
    with pytest.raises(ValueError, match=words):
        psi(reference, window, bins)


def _signals(rng, n, shift=0.0):
    return {"stars": rng.normal(shift, 1, n), "kind": rng.integers(0, 4, n)}


def test_the_alarm_keeps_its_rate_and_sees_a_shift():
    rng = np.random.default_rng(2)
    alarm = DriftAlarm(_signals(rng, 2000), _signals(rng, 4000), 100, rate=0.05)
    calm = np.mean([alarm.rings(_signals(rng, 100)) for _ in range(400)])
    assert 0.01 < calm < 0.12
    assert np.mean([alarm.rings(_signals(rng, 100, 1.5)) for _ in range(50)]) == 1
    window = _signals(rng, 100)
    assert alarm.score(window) == max(alarm.scores(window).values())


def test_the_score_of_a_signal_is_its_index():
    rng = np.random.default_rng(3)
    reference, window = _signals(rng, 300), _signals(rng, 60)
    alarm = DriftAlarm(reference, _signals(rng, 300), 60)
    for name, found in alarm.scores(window).items():
        assert found == pytest.approx(psi(reference[name], window[name]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rate": 0}, "between 0 and 1"),
        ({"window": 51}, "cannot be drawn"),
        ({"window": 0}, "cannot be drawn"),
        ({"calibration": {"other": [1.0] * 50}}, "same signals"),
    ],
)
def test_an_alarm_that_cannot_be_is_refused(change, words):
    settings = {"reference": {"a": [1.0, 2.0]}, "calibration": {"a": [1.0] * 50}, "window": 5}
    with pytest.raises(ValueError, match=words):
        DriftAlarm(**settings | change)
