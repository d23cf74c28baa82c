"""Linear multi-task learning against independent oracles: stacked least squares, scikit-learn's
ridge, finite differences.
"""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from mtl_course.multitask.linear import mean_regularised, normal_equations, ridge

SIZES = (3, 7, 5, 9)  # examples of each task, all different
D = 3


@pytest.fixture
def tasks():
    draw = np.random.default_rng(0)
    xs, ys = [draw.normal(size=(n, D)) for n in SIZES], [draw.normal(size=n) for n in SIZES]
    pairs = zip(xs, ys, strict=True)
    statistics = [normal_equations(torch.tensor(x), torch.tensor(y)) for x, y in pairs]
    a, b = (torch.stack(values) for values in zip(*statistics, strict=True))
    return xs, ys, a, b


def stacked(xs, ys, lam, mu):
    """w_0 and W by one least squares problem over all unknowns (w_0, v_1, ..., v_T), penalties as
    extra rows.
    """
    count = len(xs)
    top = [
        np.hstack([x, *(x if s == t else np.zeros_like(x) for s in range(count))])
        for t, x in enumerate(xs)
    ]
    penalties = np.diag(np.sqrt([mu] * D + [lam] * D * count))
    solution = np.linalg.lstsq(
        np.vstack([*top, penalties]), np.concatenate([*ys, np.zeros(len(penalties))]), rcond=None
    )[0].reshape(-1, D)
    return solution[0], solution[0] + solution[1:]


@pytest.mark.parametrize("lam,mu", [(1.0, 0.0), (0.03, 2.0), (50.0, 0.5)])
def test_mean_regularised_equals_stacked_least_squares(tasks, lam, mu):
    xs, ys, a, b = tasks
    w_0, w = mean_regularised(a, b, lam, mu)
    want_0, want = stacked(xs, ys, lam, mu)
    np.testing.assert_allclose(w_0, want_0, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(w, want, rtol=1e-8, atol=1e-10)


def test_mean_regularised_is_stationary(tasks):
    """Central differences of the objective vanish at the solution, in every direction."""
    xs, ys, a, b = tasks
    lam, mu = 0.7, 0.2
    w_0, w = (values.numpy() for values in mean_regularised(a, b, lam, mu))

    def objective(flat):
        common, V = flat[:D], flat[D:].reshape(-1, D)
        fit = sum(((x @ (common + v) - y) ** 2).sum() for x, y, v in zip(xs, ys, V, strict=True))
        return fit + lam * (V**2).sum() + mu * (common**2).sum()

    at = np.concatenate([w_0, (w - w_0).ravel()])
    slopes = [(objective(at + h) - objective(at - h)) / 2e-5 for h in 1e-5 * np.eye(len(at))]
    assert np.abs(slopes).max() < 1e-6


def test_limits_are_single_task_pooled_and_ridge(tasks):
    xs, ys, a, b = tasks
    alone = [np.linalg.lstsq(x, y, rcond=None)[0] for x, y in zip(xs, ys, strict=True)]
    np.testing.assert_allclose(mean_regularised(a, b, 1e-9)[1], np.stack(alone), atol=1e-5)
    w_0, w = mean_regularised(a, b, 1e9, 2.0)
    pooled = Ridge(alpha=2.0, fit_intercept=False).fit(np.concatenate(xs), np.concatenate(ys)).coef_
    np.testing.assert_allclose(w_0, pooled, atol=1e-6)
    np.testing.assert_allclose(w, np.tile(pooled, (len(SIZES), 1)), atol=1e-6)
    far = mean_regularised(a, b, 1.5, 1e12)[1]
    for row, x, y in zip(far, xs, ys, strict=True):
        expected = Ridge(alpha=1.5, fit_intercept=False).fit(x, y).coef_
        np.testing.assert_allclose(row, expected, atol=1e-8)


def test_without_mu_w_0_is_the_mean_of_the_tasks(tasks):
    _, _, a, b = tasks
    w_0, w = mean_regularised(a, b, 3.0)
    assert torch.allclose(w.mean(0), w_0)


def test_ridge_equals_scikit_learn(tasks):
    xs, ys, a, b = tasks
    for row, x, y in zip(ridge(a, b, 0.4), xs, ys, strict=True):
        expected = Ridge(alpha=0.4, fit_intercept=False).fit(x, y).coef_
        np.testing.assert_allclose(row, expected, atol=1e-10)


def test_leading_dimensions_are_solved_together(tasks):
    _, _, a, b = tasks
    twice_a, twice_b = torch.stack([a, 2 * a]), torch.stack([b, b])  # two seeds
    lams = torch.tensor([0.1, 1.0, 10.0], dtype=a.dtype)
    w_0, w = mean_regularised(twice_a, twice_b, lams[:, None], 0.3)
    own = ridge(twice_a, twice_b, lams[:, None, None])
    assert w_0.shape == (3, 2, D) and w.shape == own.shape == (3, 2, len(SIZES), D)
    for i, lam in enumerate(lams.tolist()):
        for s in range(2):
            one_0, one = mean_regularised(twice_a[s], twice_b[s], lam, 0.3)
            assert torch.allclose(w_0[i, s], one_0) and torch.allclose(w[i, s], one)
            assert torch.allclose(own[i, s], ridge(twice_a[s], twice_b[s], lam))


def test_one_task_with_one_feature():
    a, b = torch.full((1, 1, 1), 4.0), torch.full((1, 1), 2.0)
    assert torch.allclose(
        ridge(a, b, torch.tensor([[0.0], [4.0]])), torch.tensor([[[0.5]], [[0.25]]])
    )


def test_too_few_examples_without_strength_raise():
    with pytest.raises(torch.linalg.LinAlgError):
        ridge(torch.zeros(2, 2), torch.zeros(2), 0.0)
    with pytest.raises(torch.linalg.LinAlgError):
        mean_regularised(torch.zeros(3, 2, 2), torch.zeros(3, 2), 1.0)


def test_is_differentiable(tasks):
    _, _, a, b = tasks
    lam = torch.tensor(0.5, dtype=a.dtype, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda strength: mean_regularised(a, b, strength, 0.1)[1], (lam,)
    )
