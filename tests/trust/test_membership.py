"""Confidence, calibration, and what is caught at few false alarms."""

import pytest
import torch
from torch.nn import functional as F

from mtl_course import trust


def test_confidence_is_the_log_odds_of_the_right_label():
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 8, generator=g, dtype=torch.float64)
    labels = torch.randint(2, (8,), generator=g)
    p = logits.sigmoid()
    right = torch.where(labels == 1, p, 1 - p)
    sure = trust.confidence(logits, labels)
    torch.testing.assert_close(sure, (right / (1 - right)).log())
    losses = F.binary_cross_entropy_with_logits(
        logits, labels.double().expand_as(logits), reduction="none"
    )
    torch.testing.assert_close(losses, F.softplus(-sure))
    assert torch.equal(sure, trust.confidence(logits, labels.double()))


def test_calibration_takes_off_the_mean_of_the_others_that_did_not_see_the_row():
    g = torch.Generator().manual_seed(1)
    scores = torch.randn(7, 9, generator=g, dtype=torch.float64)
    member = torch.rand(7, 9, generator=g).argsort(0) < 3
    result = trust.calibrated(scores, member)
    for r in range(7):
        for n in range(9):
            others = [scores[k, n] for k in range(7) if k != r and not member[k, n]]
            assert float(result[r, n]) == pytest.approx(
                float(scores[r, n] - sum(others) / len(others))
            )


def test_an_easy_row_is_no_member_for_being_easy():
    scores = torch.tensor([[9.0, 0.0], [9.0, 0.0], [9.0, 0.0]])
    member = torch.tensor([[True, False], [False, True], [False, False]])
    assert torch.equal(trust.calibrated(scores, member), torch.zeros(3, 2))


def test_what_is_caught_is_counted_beyond_the_alarms():
    scores = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0, 0.0])
    member = torch.tensor([True, True, False, True, False, False])
    assert trust.caught(scores, member, 0.0) == pytest.approx(2 / 3)
    assert trust.caught(scores, member, 0.34) == 1.0
    # ties with an outsider are no catch
    assert trust.caught(torch.zeros(6), member, 0.0) == 0.0
    g = torch.Generator().manual_seed(0)
    guess = trust.caught(torch.rand(20_000, generator=g), torch.arange(20_000) % 2 == 0, 0.1)
    assert guess == pytest.approx(0.1, abs=0.02)


def test_bad_input_is_said():
    scores, member = torch.zeros(2, 3), torch.tensor([[True, False, True], [True, False, False]])
    for call, words in (
        (lambda: trust.confidence(torch.zeros(2, 3), torch.zeros(4)), "do not belong together"),
        (lambda: trust.confidence(torch.zeros(3), torch.tensor([0, 1, 2])), "0 or 1"),
        (lambda: trust.calibrated(scores, member), "nothing to compare with"),
        (lambda: trust.calibrated(scores, member.float()), "bool mask"),
        (lambda: trust.calibrated(scores, member[:, :2]), "bool mask"),
        (lambda: trust.caught(scores[0], member[0].float()), "bool mask"),
        (lambda: trust.caught(scores[0], member[0], 1.0), "alarms"),
        (lambda: trust.caught(scores[0], torch.ones(3) > 0), "members and outsiders"),
        (lambda: trust.caught(torch.tensor([0.0, float("nan")]), member[0, :2]), "NaN"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
