"""CLIP's loss against loops, its limits, and what it refuses."""

import math

import pytest
import torch

from mtl_course import transfer


def by_loops(a, b, temperature):
    total, B = 0.0, len(a)
    for i in range(B):
        for one, others in ((a[i], b), (b[i], a)):
            cosines = [
                float(one @ other / one.norm() / other.norm()) / temperature for other in others
            ]
            total += math.log(sum(map(math.exp, cosines))) - cosines[i]
    return total / (2 * B)


def sides(n=5, d=3):
    g = torch.Generator().manual_seed(0)
    return (torch.randn(n, d, generator=g, dtype=torch.float64) for _ in range(2))


@pytest.mark.parametrize("tau", [0.07, 0.5, 3.0])
def test_it_is_the_mean_over_both_sides(tau):
    a, b = sides()
    assert float(transfer.pair_loss(a, b, tau)) == pytest.approx(by_loops(a, b, tau), abs=1e-12)


def test_only_directions_and_pairs_count():
    a, b = sides()
    loss, order = transfer.pair_loss(a, b), torch.tensor([3, 0, 4, 1, 2])
    for other in (
        transfer.pair_loss(b, a),
        transfer.pair_loss(a[order], b[order]),
        transfer.pair_loss(1e-6 * a, 1e6 * b),
    ):
        torch.testing.assert_close(other, loss)
    assert transfer.pair_loss(a, b[order]) != pytest.approx(float(loss))


def test_its_limits():
    same, apart = torch.ones(4, 2), torch.eye(4)
    assert float(transfer.pair_loss(same, same)) == pytest.approx(math.log(4), abs=1e-6)
    assert float(transfer.pair_loss(apart, apart, 0.01)) == pytest.approx(0, abs=1e-6)


def test_its_gradients():
    a, b = sides(3)
    assert torch.autograd.gradcheck(transfer.pair_loss, (a.requires_grad_(), b.requires_grad_()))


@pytest.mark.parametrize(
    "a,b,tau,words",
    [
        (torch.ones(3, 2), torch.ones(2, 2), 0.1, "two sides have shapes"),
        (torch.ones(3), torch.ones(3), 0.1, "both are"),
        (torch.ones(1, 2), torch.ones(1, 2), 0.1, "no other pairs"),
        (torch.ones(2, 2), torch.ones(2, 2), 0.0, "temperature"),
        (torch.ones(2, 2), torch.ones(2, 2), math.nan, "temperature"),
        (torch.ones(2, 2), torch.zeros(2, 2), 0.1, "Row 0 of the second side is zero"),
    ],
)
def test_what_says_nothing_is_refused(a, b, tau, words):
    with pytest.raises(ValueError, match=words):
        transfer.pair_loss(a, b, tau)
