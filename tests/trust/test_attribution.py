"""Integrated gradients against closed forms, and deletion curves by hand."""

import pytest
import torch
from torch import nn

from mtl_course import trust


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0)).double()


def inputs(rows=5):
    g = torch.Generator().manual_seed(0)
    return torch.randn(rows, 4, generator=g).double(), torch.randn(4, generator=g).double()


def test_the_shares_add_up_to_what_has_changed():
    net, (x, baseline) = network(), inputs()
    shares = trust.integrated_gradients(net, x, baseline, steps=200)
    with torch.no_grad():
        changed = net(x) - net(baseline[None])
    torch.testing.assert_close(shares.sum(1), changed, atol=1e-4, rtol=1e-4)
    assert all(p.grad is None for p in net.parameters())


def test_closed_forms():
    """A linear output: weight times distance. A product: shared evenly from zero."""
    x, baseline = inputs()
    w = torch.tensor([1.0, -2.0, 0.0, 3.0]).double()
    torch.testing.assert_close(
        trust.integrated_gradients(lambda x: x @ w + 7, x, baseline, steps=1), w * (x - baseline)
    )
    cubes = trust.integrated_gradients(lambda x: (x**3).sum(1), x, baseline, steps=400)
    torch.testing.assert_close(cubes, x**3 - baseline**3, atol=1e-3, rtol=1e-3)
    product = trust.integrated_gradients(lambda x: x.prod(1), x, torch.zeros(4).double(), 400)
    torch.testing.assert_close(
        product, (x.prod(1) / 4)[:, None].expand(-1, 4), atol=1e-4, rtol=0.01
    )


def test_it_works_without_gradients_around_it_and_one_row_is_enough():
    net, (x, baseline) = network(), inputs(1)
    with torch.no_grad():
        shares = trust.integrated_gradients(net, x, baseline)
    assert shares.shape == (1, 4) and not shares.requires_grad


def test_a_deletion_curve_is_a_loop_over_columns():
    net, (x, baseline) = network(), inputs()
    scores = torch.randn(5, 4, generator=torch.Generator().manual_seed(3))
    curve = trust.deletion_curve(net, x, baseline, scores)
    for b in range(5):
        row = x[b].clone()
        for k in range(5):
            assert float(curve[b, k]) == pytest.approx(float(net(row[None]).detach()))
            if k < 4:
                column = int(scores[b].argsort(descending=True)[k])
                row[column] = baseline[column]


def test_columns_of_a_group_go_together_and_ties_in_order():
    x, baseline = torch.tensor([[1.0, 2.0, 4.0, 8.0]]), torch.zeros(4)
    groups, scores = torch.tensor([1, 0, 1, 2]), torch.tensor([[0.0, 5.0, 0.0]])
    curve = trust.deletion_curve(lambda x: x.sum(1), x, baseline, scores, groups)
    # group 1 (1 + 4), then 0 (2) before 2 (8)
    assert curve.tolist() == [[15.0, 10.0, 8.0, 0.0]]
    assert x.tolist() == [[1.0, 2.0, 4.0, 8.0]]


def test_bad_input_is_said():
    net, (x, baseline) = network(), inputs()
    scores = torch.zeros(5, 4)
    for call, words in (
        (lambda: trust.integrated_gradients(net, x[0], baseline), "baseline"),
        (lambda: trust.integrated_gradients(net, x, baseline[:3]), "baseline"),
        (lambda: trust.integrated_gradients(net, x, baseline, 0), "steps"),
        (lambda: trust.integrated_gradients(lambda x: x, x, baseline), "one number per row"),
        (lambda: trust.deletion_curve(net, x, baseline, scores[:3]), r"scores \[B, G\]"),
        (
            lambda: trust.deletion_curve(net, x, baseline, scores, torch.zeros(4, dtype=int)),
            "each has a column",
        ),
        (lambda: trust.deletion_curve(net, x, baseline, scores / 0), "NaN"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
