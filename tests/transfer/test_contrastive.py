"""NT-Xent against explicit loops, its gradient, its limits, and bad input."""

import math

import pytest
import torch

from mtl_course import transfer


def by_loops(a, b, tau):
    """Equation 1 of Chen et al. (2020), view by view."""
    views = [*a, *b]
    B, total = len(a), 0.0
    for i in range(2 * B):
        partner = (i + B) % (2 * B)
        similar = [
            float(views[i] @ views[k] / (views[i].norm() * views[k].norm())) / tau
            for k in range(2 * B)
        ]
        below = sum(math.exp(s) for k, s in enumerate(similar) if k != i)
        total -= math.log(math.exp(similar[partner]) / below)
    return total / (2 * B)


@pytest.mark.parametrize("tau", [0.1, 0.5, 2.0])
def test_it_is_the_formula_by_loops(tau):
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 5, 3, generator=g, dtype=torch.float64)
    assert float(transfer.nt_xent(a, b, tau)) == pytest.approx(by_loops(a, b, tau), abs=1e-12)


def test_only_directions_count_and_order_and_sides_do_not():
    g = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 6, 4, generator=g, dtype=torch.float64)
    loss = transfer.nt_xent(a, b)
    order = torch.randperm(6, generator=g)
    for other in (
        transfer.nt_xent(b, a),
        transfer.nt_xent(a[order], b[order]),
        transfer.nt_xent(1e-6 * a, 1e6 * b),
    ):
        torch.testing.assert_close(other, loss)
    assert transfer.nt_xent(a, b[order]) != pytest.approx(float(loss))


def test_its_gradient_agrees_with_finite_differences():
    g = torch.Generator().manual_seed(2)
    a, b = torch.randn(2, 3, 4, generator=g, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda a, b: transfer.nt_xent(a, b, 0.3), (a.requires_grad_(), b.requires_grad_())
    )


def test_its_limits():
    same = torch.ones(4, 3)
    assert float(transfer.nt_xent(same, same)) == pytest.approx(math.log(7), abs=1e-6)
    apart = torch.eye(4)
    assert float(transfer.nt_xent(apart, apart, 0.01)) == pytest.approx(0, abs=1e-6)
    # a high temperature makes all views alike
    assert float(transfer.nt_xent(apart, apart, 1e4)) == pytest.approx(math.log(7), abs=1e-3)


def test_a_step_down_brings_the_partners_together():
    g = torch.Generator().manual_seed(3)
    a, b = torch.randn(2, 8, 5, generator=g)
    a.requires_grad_()
    before = torch.cosine_similarity(a, b).mean()
    (slope,) = torch.autograd.grad(transfer.nt_xent(a, b), a)
    assert torch.cosine_similarity(a - 5 * slope, b).mean() > before


def test_what_does_not_fit_is_named():
    a = torch.randn(4, 3)
    for b in (a[:3], a[:, :2], a[0]):
        with pytest.raises(ValueError, match="two views have shapes"):
            transfer.nt_xent(a, b)
    with pytest.raises(ValueError, match="A batch of 1 has no other images"):
        transfer.nt_xent(a[:1], a[:1])
    for tau in (0, -1.0, math.nan):
        with pytest.raises(ValueError, match="temperature is"):
            transfer.nt_xent(a, a, tau)
