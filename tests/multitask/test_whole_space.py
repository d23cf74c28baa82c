"""The product of two chances, and its loss over all rows."""

import pytest
import torch
from torch.nn import functional as F

from mtl_course.multitask import esmm_loss, log_product


def drawn(n=30, scale=2.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    a, b = scale * torch.randn(2, n, generator=g, dtype=torch.float64)
    seen = (torch.rand(n, generator=g) < 0.5).double()
    liked = (torch.rand(n, generator=g) < 0.5).double()
    return a, b, seen, liked


def test_the_logs_are_those_of_the_product_and_of_its_rest():
    a, b, _, _ = drawn()
    p = torch.sigmoid(a) * torch.sigmoid(b)
    log_p, log_rest = log_product(a, b)
    torch.testing.assert_close(log_p, p.log())
    torch.testing.assert_close(log_rest, (-p).log1p())


@pytest.mark.parametrize("a", [-800.0, -1.0, 800.0])
@pytest.mark.parametrize("b", [-800.0, 2.0, 800.0])
def test_nothing_is_lost_where_a_chance_rounds(a, b):
    inputs = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (a, b)]
    logs = log_product(*inputs)
    assert all(v.isfinite() for v in logs)
    sum(logs).backward()
    assert all(v.grad.isfinite() for v in inputs)
    if a == b == 800.0:
        assert float(logs[1]) == pytest.approx(-800 + 0.6931, abs=1e-3)


def test_the_loss_is_two_cross_entropies_over_all_rows():
    a, b, seen, liked = drawn()
    p = torch.sigmoid(a) * torch.sigmoid(b)
    want = F.binary_cross_entropy(torch.sigmoid(a), seen) + F.binary_cross_entropy(p, seen * liked)
    torch.testing.assert_close(esmm_loss(a, b, seen, liked), want)
    unknown = torch.where(seen == 1, liked, torch.nan)
    torch.testing.assert_close(esmm_loss(a, b, seen, unknown), want)
    torch.testing.assert_close(esmm_loss(a, b, seen.long(), liked.bool()), want)


def test_the_second_head_learns_from_rows_that_were_not_seen():
    a, b, _, _ = drawn(3)
    b.requires_grad_()
    esmm_loss(a, b, torch.zeros(3), torch.zeros(3)).backward()
    assert (b.grad > 0).all()


def test_its_least_is_at_the_shares():
    """With one row for all, P(seen) and the product become the shares in the data."""
    seen = torch.tensor([1.0] * 6 + [0.0] * 4)
    liked = torch.tensor([1.0] * 3 + [0.0] * 7)
    a, b = (torch.zeros(1, requires_grad=True) for _ in range(2))
    optimizer = torch.optim.LBFGS([a, b], line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = esmm_loss(a.expand(10), b.expand(10), seen, liked)
        loss.backward()
        return loss

    for _ in range(10):
        optimizer.step(closure)
    assert float(torch.sigmoid(a)) == pytest.approx(0.6, abs=1e-3)
    assert float(torch.sigmoid(b)) == pytest.approx(0.5, abs=1e-3)


def test_what_does_not_fit_is_refused():
    a, b, seen, liked = drawn(4)
    for bad, words in (
        ((a, b[:3], seen, liked), "liked_logit"),
        ((a, b, seen, liked[:2]), "liked"),
        ((a[:0], b[:0], seen[:0], liked[:0]), "at least one row"),
        ((a[:, None], b[:, None], seen[:, None], liked[:, None]), r"\[N\]"),
        ((a, b, torch.tensor([0, 1, 2, 0]), liked), "Row 2 has 2"),
        ((a, b, torch.tensor([0.0, 1.0, 0.0, float("nan")]), liked), "Row 3"),
    ):
        with pytest.raises(ValueError, match=words):
            esmm_loss(*bad)
