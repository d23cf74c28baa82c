"""Labels out of follow-up times, and a loss over what is known."""

import pytest
import torch
from torch.nn import functional as F

from mtl_course.training import died_by, known_losses

NAN = float("nan")
TIME, DIED = torch.tensor([10.0, 30.0, 30.0, 20.0, 90.0]), torch.tensor([1, 1, 0, 0, 0])


def test_every_kind_of_follow_up():
    assert died_by(TIME, DIED, 30).tolist()[:3] == [1, 1, 0]
    assert died_by(TIME, DIED, 30)[3].isnan() and died_by(TIME, DIED, 30)[4] == 0
    both = died_by(TIME, DIED.bool(), [30, 100])
    assert both.shape == (5, 2) and both[:, 1].tolist()[:2] == [1, 1] and both[2:, 1].isnan().all()
    torch.testing.assert_close(both[:, 0], died_by(TIME, DIED, 30), equal_nan=True)


def test_a_later_day_never_contradicts_an_earlier_one():
    g = torch.Generator().manual_seed(0)
    time = torch.randint(1, 60, (500,), generator=g).double()
    died = torch.randint(0, 2, (500,), generator=g)
    early, late = died_by(time, died, (20, 40)).T
    both = ~early.isnan() & ~late.isnan()
    assert (early[both] <= late[both]).all()
    assert (late[early == 1] == 1).all()  # dead stays dead, and known


def test_the_share_of_deaths_is_that_of_kaplan_and_meier_where_nobody_is_lost():
    time, died = torch.tensor([1.0, 2, 3, 4, 5]), torch.tensor([1, 1, 0, 1, 0])
    assert float(died_by(time, died, 2).mean()) == pytest.approx(1 - 4 / 5 * 3 / 4)


@pytest.mark.parametrize(
    ("time", "died", "horizons", "says"),
    [
        ([1.0, NAN], [1, 0], 3, "Row 1 has the time nan"),
        ([1.0, float("inf")], [1, 0], 3, "Row 1 has the time inf"),
        ([-1.0, 2.0], [1, 0], 3, "Row 0 has the time -1"),
        ([1.0, 2.0], [1.0, NAN], 3, "Row 1 says nan for whether the patient died"),
        ([1.0, 2.0], [1, 2], 3, "Row 1 says 2"),
        ([1.0, 2.0], [1], 3, "both must be"),
        ([], [], 3, "no rows"),
        ([1.0], [1], 0, "positive"),
        ([1.0], [1], [3, NAN], "positive"),
        ([1.0], [1], [], "a day or a list"),
    ],
)
def test_missing_or_impossible_follow_up_is_said(time, died, horizons, says):
    with pytest.raises(ValueError, match=says):
        died_by(torch.tensor(time), torch.tensor(died), horizons)


def test_each_task_has_the_mean_over_its_known_rows():
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 3, generator=g, dtype=torch.float64, requires_grad=True)
    labels = (torch.rand(7, 3, generator=g) < 0.5).double()
    labels[0, 0], labels[3:, 1], labels[:, 2] = NAN, NAN, NAN
    losses = known_losses(logits, labels)
    for task in (0, 1):
        known = ~labels[:, task].isnan()
        want = F.binary_cross_entropy_with_logits(logits[known, task], labels[known, task])
        torch.testing.assert_close(losses[task], want)
    assert losses[2] == 0
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert gradient.isfinite().all() and (gradient[labels.isnan()] == 0).all()


def test_nothing_that_is_said_of_unknown_rows_counts_not_even_nan():
    labels = torch.tensor([[1.0, NAN], [0.0, 1.0]])
    logits = torch.tensor([[0.3, NAN], [0.2, 1.0]], requires_grad=True)
    known_losses(logits, labels).sum().backward()
    assert logits.grad.isfinite().all()
    assert known_losses(torch.tensor([[NAN]]), torch.tensor([[1.0]])).isnan()


def test_labels_that_are_no_labels_are_said():
    with pytest.raises(ValueError, match="Row 1 has the label 2 for task 0"):
        known_losses(torch.zeros(2, 1), torch.tensor([[1.0], [2.0]]))
    with pytest.raises(ValueError, match="both must be"):
        known_losses(torch.zeros(2), torch.zeros(2))
