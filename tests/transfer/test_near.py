"""A logistic regression near given weights, against scikit-learn and its own optimum."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from mtl_course.transfer import logistic_near

NAN = float("nan")


def rows(n=80, d=5, seed=0, scale=1.0):
    g = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(n, d, generator=g, dtype=torch.float64)
    y = (x[:, 0] / scale + torch.randn(n, generator=g, dtype=torch.float64) > 0.4).long()
    return x, y


@pytest.mark.parametrize("strength", [0.01, 1.0, 100.0])
def test_with_centre_zero_it_is_scikit_learns_ridge(strength):
    x, y = rows()
    w, b = logistic_near(x, y, strength)
    peer = LogisticRegression(C=1 / strength, tol=1e-10, max_iter=10_000).fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(w, peer.coef_[0], rtol=1e-4, atol=1e-6)
    assert float(b) == pytest.approx(float(peer.intercept_[0]), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("strength", [0.01, 1.0, 100.0])
def test_the_gradient_of_equation_3_is_zero_there(strength):
    x, y = rows()
    centre = torch.linspace(-3, 3, 5).double()
    w, b = (v.clone().requires_grad_() for v in logistic_near(x, y, strength, centre))
    loss = F.binary_cross_entropy_with_logits(x @ w + b, y.double(), reduction="sum")
    (loss + strength / 2 * (w - centre).square().sum()).backward()
    assert float(w.grad.abs().max()) < 1e-4 and abs(float(b.grad)) < 1e-4


def test_a_huge_strength_fits_the_level_only_and_a_small_one_forgets():
    x, y = rows()
    centre = torch.ones(5)
    w, b = logistic_near(x, y, 1e9, centre)
    torch.testing.assert_close(w, centre.double(), atol=1e-5, rtol=0)
    assert float((x @ w + b).sigmoid().mean()) == pytest.approx(float(y.double().mean()), abs=1e-6)
    one, two = logistic_near(x, y, 1e-6, centre)[0], logistic_near(x, y, 1e-6)[0]
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_wild_centres_separable_rows_and_scales_come_to_rest(scale):
    x, y = rows(scale=scale)
    separable = (x[:, 0] > 0).long()
    for labels in (y, separable):
        w, b = logistic_near(x, labels, 0.1, 40 * torch.ones(5))
        assert w.isfinite().all() and b.isfinite()


def test_few_rows_and_many_columns():
    x, y = rows(n=6, d=40, seed=3)
    y[:2] = torch.tensor([0, 1])
    w, _ = logistic_near(x, y, 1.0)
    assert w.shape == (40,) and w.isfinite().all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": torch.tensor([0.0, 1.0, NAN])}, "row 2 is not known .* censored or missing"),
        ({"labels": torch.tensor([0, 1, 2])}, "Row 2 has the label 2"),
        ({"labels": torch.tensor([1, 1, 1])}, "alike"),
        ({"labels": torch.tensor([0, 1])}, "must be"),
        ({"x": torch.zeros(0, 2), "labels": torch.zeros(0)}, "no rows"),
        ({"x": torch.tensor([[0.0, NAN]] * 3)}, "finite"),
        ({"strength": 0.0}, "positive"),
        ({"strength": NAN}, "positive"),
        ({"centre": torch.zeros(3)}, "2 columns"),
        ({"centre": torch.tensor([0.0, float("inf")])}, "finite"),
    ],
)
def test_bad_input_is_said(change, says):
    sound = {"x": torch.randn(3, 2), "labels": torch.tensor([0, 1, 1]), "strength": 1.0}
    with pytest.raises(ValueError, match=says):
        logistic_near(**sound | change)
