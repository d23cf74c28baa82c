"""Learning one example at a time: least squares, windows, the order of testing and learning."""

import numpy as np
import pytest

from mtl_course.streams.online import Linear, OnlineSgd, Rls, Window, prequential


def series(T=40, d=3, seed=0):
    rng = np.random.RandomState(seed)
    x = rng.randn(T, d)
    return x, x @ rng.randn(d) + 0.1 * rng.randn(T)


@pytest.mark.parametrize("forgetting", [1.0, 0.9])
@pytest.mark.parametrize("ridge", [0.1, 3.0])
def test_recursive_least_squares_is_weighted_least_squares_after_every_example(forgetting, ridge):
    x, y = series()
    start = np.array([0.5, -1.0, 2.0])
    learner = Rls(start, forgetting, ridge)
    for n in range(1, len(y) + 1):
        learner.learn(x[n - 1], y[n - 1])
        weights = forgetting ** np.arange(n - 1, -1, -1)
        A = (weights[:, None] * x[:n]).T @ x[:n] + forgetting**n * ridge * np.eye(3)
        rhs = (weights[:, None] * x[:n]).T @ y[:n] + forgetting**n * ridge * start
        np.testing.assert_allclose(learner.w, np.linalg.solve(A, rhs), rtol=1e-7)
        np.testing.assert_allclose(learner.P, np.linalg.inv(A), rtol=1e-6)


def test_a_window_that_holds_everything_is_recursive_least_squares_without_forgetting():
    x, y = series()
    window, rls = Window(np.ones(3), 100, ridge=0.5), Rls(np.ones(3), 1.0, ridge=0.5)
    np.testing.assert_allclose(prequential(window, x, y), prequential(rls, x, y), rtol=1e-8)


def test_a_window_knows_its_last_examples_only():
    x, y = series()
    old, fresh = Window(np.zeros(3), 10), Window(np.zeros(3), 10)
    for t in range(40):
        old.learn(x[t], y[t] if t >= 30 else 1e3)
    for t in range(30, 40):
        fresh.learn(x[t], y[t])
    np.testing.assert_allclose(old.w, fresh.w)


def test_a_forecast_is_made_before_its_target_is_learned():
    x, y = series()
    errors = prequential(Rls(np.zeros(3)), x, y)
    assert errors[0] == y[0], "nothing is known at the first"
    altered = y.copy()
    altered[20] += 5
    again = prequential(Rls(np.zeros(3)), x, altered)
    np.testing.assert_array_equal(again[:20], errors[:20])
    assert again[20] == pytest.approx(errors[20] + 5)


def test_a_static_model_never_learns_and_a_gradient_step_shrinks_the_error_by_its_share():
    x, y = series()
    static = Linear(np.ones(3))
    prequential(static, x, y)
    assert (static.w == 1).all()
    sgd = OnlineSgd(np.zeros(3), 0.5)
    before = y[0] - sgd.predict(x[0])
    sgd.learn(x[0], y[0])
    share = 1 - 0.5 * (x[0] @ x[0]) / (1 + x[0] @ x[0])
    assert y[0] - sgd.predict(x[0]) == pytest.approx(share * before)


def test_learners_that_forget_follow_a_change_that_others_average_over():
    x, y = series(T=200)
    y[100:] -= 3 * x[100:, 0]
    w = np.zeros(3)
    learners = {
        "all": Rls(w),
        "forgetting": Rls(w, 0.9),
        "window": Window(w, 20),
        "sgd": OnlineSgd(w, 0.5),
    }
    late = {
        name: np.abs(prequential(learner, x, y)[130:]).mean() for name, learner in learners.items()
    }
    assert max(late["forgetting"], late["window"], late["sgd"]) < 0.5 * late["all"]


@pytest.mark.parametrize("options", [{"forgetting": 0.0}, {"forgetting": 1.1}, {"ridge": 0.0}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(ValueError, match="forgetting must lie"):
        Rls(np.zeros(2), **options)


def test_a_learner_that_diverges_is_named_with_its_example_and_its_rate():
    x, y = np.ones((2000, 1)), np.ones(2000)
    message = r"error of example (\d+) is not finite with a rate of 100\. Lower the rate"
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match=message):
        prequential(OnlineSgd(np.zeros(1), 100.0), x, y)
    y[3] = np.nan
    with pytest.raises(FloatingPointError, match=r"example 3 is not finite\. .*look for inputs"):
        prequential(Rls(np.zeros(1)), x, y)
