"""Per-example gradients, the private mean, and the accountant against independent oracles."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import nn
from torch.nn import functional as F

from mtl_course import trust

ROWS = 6


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


def loss(logits, y):
    return F.binary_cross_entropy_with_logits(logits, y, reduction="sum")


def batch():
    g = torch.Generator().manual_seed(1)
    return torch.randn(ROWS, 3, generator=g), (torch.rand(ROWS, 2, generator=g) < 0.5).float()


# --------------------------------------------------------------------------------------- gradients
def test_a_gradient_per_row_is_that_of_a_batch_of_one():
    model, (x, y) = network(), batch()
    rows = trust.per_example_gradients(model, loss, x, y)
    for i in range(ROWS):
        model.zero_grad()
        loss(model(x[i : i + 1]), y[i : i + 1]).backward()
        for name, p in model.named_parameters():
            torch.testing.assert_close(rows[name][i], p.grad)


def test_what_does_not_learn_has_no_gradient_and_nothing_is_left_behind():
    model, (x, y) = network(), batch()
    model[0].requires_grad_(False)
    rows = trust.per_example_gradients(model, loss, x, y)
    assert set(rows) == {"2.weight", "2.bias"}
    assert all(p.grad is None for p in model.parameters())
    assert not any(g.requires_grad for g in rows.values())


def test_a_batch_without_rows_gives_noise_alone():
    model, (x, y) = network(), batch()
    rows = trust.per_example_gradients(model, loss, x[:0], y[:0])
    g = torch.Generator().manual_seed(0)
    mean = trust.private_mean(rows, 1.0, 2.0, 4.0, g)
    assert all(mean[n].shape == p.shape for n, p in model.named_parameters())
    flat = torch.cat([m.flatten() for m in mean.values()])
    assert 0.3 < float(flat.std()) < 0.8  # noise * clip / expected = 0.5


def test_bad_input_of_gradients_is_said():
    model, (x, y) = network(), batch()
    with pytest.raises(ValueError, match="6 rows of inputs and 5"):
        trust.per_example_gradients(model, loss, x, y[:5])
    mixes = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    with pytest.raises(ValueError, match="BatchNorm"):
        trust.per_example_gradients(mixes, loss, x, y)


# -------------------------------------------------------------------------------- the private mean
def test_each_row_counts_by_its_whole_length():
    model, (x, y) = network(), batch()
    rows = trust.per_example_gradients(model, loss, x, y)
    flat = torch.cat([g.flatten(1) for g in rows.values()], 1)
    clip = float(flat.norm(dim=1).median())
    want = (flat * (clip / flat.norm(dim=1, keepdim=True)).clamp(max=1)).sum(0) / 4
    mean = trust.private_mean(rows, clip, 0.0, 4)
    torch.testing.assert_close(torch.cat([m.flatten() for m in mean.values()]), want)


def test_a_row_more_moves_the_sum_by_no_more_than_the_clip():
    rows = {"a": torch.randn(5, 3), "b": torch.randn(5, 2, 2)}
    more = {n: torch.cat([g, 1e6 * torch.randn(1, *g.shape[1:])]) for n, g in rows.items()}
    one, other = (trust.private_mean(r, 0.7, 0.0, 1) for r in (rows, more))
    moved = sum(float((one[n] - other[n]).square().sum()) for n in rows) ** 0.5
    assert moved == pytest.approx(0.7, rel=1e-4)


def test_the_noise_has_its_width_and_a_generator_repeats_it():
    rows = {"a": torch.zeros(3, 20_000)}
    one, again = (
        trust.private_mean(rows, 0.5, 3.0, 10, torch.Generator().manual_seed(7)) for _ in range(2)
    )
    assert torch.equal(one["a"], again["a"])
    assert float(one["a"].std()) == pytest.approx(0.15, rel=0.03)


def test_bad_input_of_the_mean_is_said():
    rows = {"a": torch.ones(2, 3)}
    for clip, noise, expected, words in (
        (0.0, 1.0, 2, "clip and expected"),
        (1.0, 1.0, 0, "clip and expected"),
        (1.0, -1.0, 2, "negative"),
        (float("nan"), 1.0, 2, "clip and expected"),
    ):
        with pytest.raises(ValueError, match=words):
            trust.private_mean(rows, clip, noise, expected)
    with pytest.raises(ValueError, match="no gradients"):
        trust.private_mean({}, 1.0, 1.0, 2)
    rows["a"][1, 2] = float("inf")
    with pytest.raises(FloatingPointError, match="row 1"):
        trust.private_mean(rows, 1.0, 1.0, 2)


# ----------------------------------------------------------------------------------- the accountant
@pytest.mark.parametrize(("q", "noise"), [(0.05, 1.0), (0.2, 2.0), (0.5, 0.8), (1.0, 3.0)])
def test_renyi_is_the_integral_over_both_mixtures(q, noise):
    """Against numerical integration of E_0 [(mixture / N(0, s))^order]."""
    for order in (2, 3, 8):

        def density(x, order=order):
            ratio = (1 - q) + q * np.exp((2 * x - 1) / (2 * noise**2))
            return norm.pdf(x, 0, noise) * ratio**order

        top = order + 12 * noise
        value = math.log(quad(density, -12 * noise, top, limit=400)[0]) / (order - 1)
        assert float(trust.renyi(noise, q, [order])[0]) == pytest.approx(value, rel=1e-6)


# dp-accounting 0.6.0: its Renyi accountant with fractional orders, and its accountant of the whole
# privacy loss, which is the sharper one
PUBLIC = [
    (0.05, 1.0, 150, 1e-5, 4.7456, 4.1763),
    (0.05, 2.0, 600, 1e-5, 3.0511, 2.7945),
    (0.01, 0.8, 1000, 1e-5, 3.6956, 3.1410),
    (0.128, 3.0, 100, 1e-4, 1.7151, 1.5305),
    (0.2, 10.0, 200, 1e-6, 1.3261, 1.2296),
    (1.0, 4.0, 1, 1e-5, 1.0126, 0.9263),
]


@pytest.mark.parametrize(("q", "noise", "steps", "delta", "public", "sharp"), PUBLIC)
def test_what_is_spent_is_what_a_public_accountant_says(q, noise, steps, delta, public, sharp):
    ours = trust.spent(noise, steps, delta, q)
    assert ours == pytest.approx(public, rel=0.015)
    assert sharp < ours, "an upper bound"


def test_equations_4_and_5_bound_what_is_spent():
    for noise, steps in ((4.0, 1), (12.0, 150), (20.0, 600)):
        rho = steps / (2 * noise**2)
        epsilon = rho + 2 * math.sqrt(rho * math.log(1e5))
        exact = trust.spent(noise, steps, 1e-5)
        assert 0.7 * epsilon < exact < epsilon
        assert trust.gaussian_delta(exact, noise / steps**0.5) < 1e-5
    assert float(trust.renyi(4.0, orders=[5])[0]) == pytest.approx(5 / 32)


def test_gaussian_delta_is_the_area_between_two_curves():
    for epsilon, noise in ((0.0, 1.0), (0.5, 3.0), (2.0, 0.7)):

        def beyond(x, epsilon=epsilon, noise=noise):
            return max(0.0, norm.pdf(x, 1, noise) - math.exp(epsilon) * norm.pdf(x, 0, noise))

        cross = 0.5 + epsilon * noise**2
        area = quad(beyond, cross, cross + 12 * noise + 2)[0]
        assert trust.gaussian_delta(epsilon, noise) == pytest.approx(area, rel=1e-6)
    assert trust.gaussian_delta(800.0, 0.5) == 0.0
    # the chapter's example: the public accountant's epsilon of one sum
    assert trust.gaussian_delta(0.9263, 4.0) == pytest.approx(1e-5, rel=0.01)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
def test_the_noise_keeps_the_budget_and_no_less_would(epsilon):
    noise = trust.noise_for(epsilon, 150, 1e-5, 0.05)
    assert trust.spent(noise, 150, 1e-5, 0.05) <= epsilon
    assert trust.spent(0.999 * noise, 150, 1e-5, 0.05) > epsilon


def test_more_steps_cost_more_and_fewer_rows_less():
    costs = [trust.spent(2.0, k, 1e-5, 0.05) for k in (1, 10, 100, 1000)]
    assert costs == sorted(costs)
    assert trust.spent(2.0, 10, 1e-5, 0.01) < costs[1] < trust.spent(2.0, 10, 1e-5)


@pytest.mark.parametrize("epsilon", [0.0, 0, -1.0, float("nan")])
def test_a_budget_of_zero_is_a_clear_error(epsilon):
    with pytest.raises(ValueError, match=r"budget epsilon .* must be positive"):
        trust.noise_for(epsilon, 10, 1e-5, 0.1)


def test_bad_input_of_the_accountant_is_said():
    for call, words in (
        (lambda: trust.spent(0.0, 10, 1e-5), "Without noise"),
        (lambda: trust.spent(1.0, 0, 1e-5), "steps"),
        (lambda: trust.spent(1.0, 2.5, 1e-5), "steps"),
        (lambda: trust.spent(1.0, 10, 0.0), "delta"),
        (lambda: trust.spent(1.0, 10, 1.0), "delta"),
        (lambda: trust.renyi(1.0, 0.0), "q is a chance"),
        (lambda: trust.renyi(1.0, 1.5), "q is a chance"),
        (lambda: trust.renyi(1.0, 0.1, [1]), "Orders"),
        (lambda: trust.renyi(1.0, 0.1, [2.5]), "Orders"),
        (lambda: trust.noise_for(1e-6, 10**9, 1e-12, 1.0), "No noise up to"),
        (lambda: trust.gaussian_delta(1.0, 0.0), "Without noise"),
        (lambda: trust.gaussian_delta(-1.0, 1.0), "negative"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
