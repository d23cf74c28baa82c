"""L2-SP against sums by hand, its gradient, and the closed form of ridge regression."""

import pytest
import torch

from mtl_course.transfer.penalties import l2_sp


def test_l2_sp_is_the_sum_by_hand():
    p = {"trunk": torch.tensor([1.0, 2.0]), "head": torch.tensor([[3.0]])}
    source = {"trunk": torch.tensor([0.0, 4.0])}
    assert l2_sp(p, source, 0.5, new=0.1).item() == pytest.approx(0.5 * (1 + 4) + 0.1 * 9)
    assert l2_sp(p, p, 3.0).item() == 0


def test_l2_sp_gradient_is_twice_the_distance_and_agrees_with_finite_differences():
    g = torch.Generator().manual_seed(0)
    p = {
        k: torch.randn(s, generator=g, dtype=torch.float64).requires_grad_()
        for k, s in {"a": (3, 2), "b": (4,)}.items()
    }
    source = {"a": torch.randn(3, 2, generator=g, dtype=torch.float64)}
    grads = torch.autograd.grad(l2_sp(p, source, 0.7, new=0.2), list(p.values()))
    assert torch.allclose(grads[0], 1.4 * (p["a"] - source["a"])) and torch.allclose(
        grads[1], 0.4 * p["b"]
    )
    assert torch.autograd.gradcheck(
        lambda a, b: l2_sp({"a": a, "b": b}, source, 0.7, new=0.2), tuple(p.values())
    )


def test_minimising_with_l2_sp_gives_the_closed_form_of_ridge_towards_the_source():
    g = torch.Generator().manual_seed(0)
    X, y, source = (
        torch.randn(20, 3, generator=g).double(),
        torch.randn(20, generator=g).double(),
        torch.randn(3, generator=g).double(),
    )
    theta = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [theta],
        max_iter=200,
        tolerance_grad=1e-12,
        tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        loss = ((X @ theta - y) ** 2).mean() + l2_sp({"t": theta}, {"t": source}, 0.3)
        loss.backward()
        return loss

    optimizer.step(closure)
    want = torch.linalg.solve(X.T @ X / 20 + 0.3 * torch.eye(3), X.T @ y / 20 + 0.3 * source)
    assert torch.allclose(theta.detach(), want, atol=1e-6)


def test_l2_sp_says_what_does_not_fit():
    with pytest.raises(ValueError, match=r"head has shape \(2,\) but \(3,\) in the source"):
        l2_sp({"head": torch.zeros(2)}, {"head": torch.zeros(3)}, 1.0)
    with pytest.raises(ValueError, match="The source has old"):
        l2_sp({"new": torch.zeros(2)}, {"old": torch.zeros(2)}, 1.0)
