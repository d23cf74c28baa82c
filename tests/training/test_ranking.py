"""Order, calibration and cuts, against scikit-learn; what cannot be judged is refused."""

import numpy as np
import pytest
import torch
from sklearn import calibration, metrics

from mtl_course.training import auc, calibration_curve, calibration_error, precision_recall_f1

NAN = float("nan")


def drawn(seed, n=200, ties=False):
    g = torch.Generator().manual_seed(seed)
    chances = torch.rand(n, generator=g)
    if ties:
        chances = (chances * 5).floor() / 5
    labels = (torch.rand(n, generator=g) < 0.2 + 0.5 * chances).long()
    return chances, labels


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_auc_is_scikit_learns(seed, ties):
    chances, labels = drawn(seed, ties=ties)
    want = metrics.roc_auc_score(labels, chances)
    assert float(auc(chances, labels)) == pytest.approx(want, abs=1e-12)
    assert float(auc(-chances, labels)) == pytest.approx(1 - want, abs=1e-12)
    assert float(auc(torch.logit(chances.double(), 1e-9), labels.bool())) == pytest.approx(
        want, abs=1e-12
    ), "only the order matters"


def test_auc_is_the_share_of_pairs_in_order():
    scores, labels = torch.tensor([3.0, 1.0, 1.0, 2.0, 0.0]), torch.tensor([1, 1, 0, 0, 0])
    pairs = [
        (a > b) + 0.5 * (a == b)
        for a, y in zip(scores, labels, strict=True)
        for b, z in zip(scores, labels, strict=True)
        if y == 1 and z == 0
    ]
    assert float(auc(scores, labels)) == pytest.approx(float(np.mean(pairs)))
    assert float(auc(torch.full((5,), 7.0), labels)) == 0.5
    infinite = torch.tensor([torch.inf, 1.0, 1.0, 2.0, -torch.inf])
    assert float(auc(infinite, labels)) == float(auc(scores, labels))


@pytest.mark.parametrize("seed", range(5))
def test_cuts_are_scikit_learns(seed):
    chances, labels = drawn(seed)
    called = chances > 0.4
    want = metrics.precision_recall_fscore_support(labels, called, average="binary")[:3]
    assert precision_recall_f1(called, labels) == pytest.approx(want)
    assert precision_recall_f1(called.long(), labels.float()) == pytest.approx(want)


@pytest.mark.parametrize("bins", [1, 4, 10])
@pytest.mark.parametrize("seed", range(3))
def test_reliability_is_scikit_learns(seed, bins):
    chances, labels = drawn(seed)
    chances[0], chances[1] = 0.0, 1.0
    share, said = calibration.calibration_curve(labels, chances, n_bins=bins)
    ours = calibration_curve(chances, labels, bins)
    np.testing.assert_allclose(ours.shares, share)
    np.testing.assert_allclose(ours.chances, said, rtol=1e-6)
    assert int(ours.counts.sum()) == len(labels)
    want = np.average(np.abs(share - said), weights=ours.counts)
    assert float(calibration_error(chances, labels, bins)) == pytest.approx(want, rel=1e-6)


def test_calibration_of_one_row_of_the_share_of_yes_and_of_empty_bins():
    assert float(calibration_error(torch.tensor([0.25]), torch.tensor([1]))) == pytest.approx(0.75)
    labels = torch.tensor([1, 0, 0, 0])
    assert float(calibration_error(torch.full((4,), 0.25), labels)) == pytest.approx(0)
    assert (
        len(calibration_curve(torch.tensor([0.05, 0.95, 1.0]), torch.tensor([0, 1, 1])).counts) == 2
    )


def test_a_border_belongs_to_the_upper_bin():
    ours = calibration_curve(torch.tensor([0.5, 0.25]), torch.tensor([1, 0]), 2)
    assert ours.counts.tolist() == [1, 1] and ours.shares.tolist() == [0, 1]


JUDGES = {
    "auc": auc,
    "precision_recall_f1": precision_recall_f1,
    "calibration_curve": calibration_curve,
    "calibration_error": calibration_error,
}


@pytest.mark.parametrize("judge", JUDGES.values(), ids=JUDGES)
def test_what_cannot_be_compared_is_refused(judge):
    yes, no = torch.tensor([1.0, 0.0]), torch.tensor([1, 0])
    for bad, words in (
        ((yes, no[:1]), r"\[2\]"),
        ((yes[:, None], no[:, None]), r"\[N\]"),
        ((yes[:0], no[:0]), "no rows"),
        ((torch.tensor([0.0, NAN]), no), "Row 1"),
        ((yes, torch.tensor([1.0, NAN])), "Row 1"),
        ((yes, torch.tensor([1, 2])), "Row 1 has the label 2"),
    ):
        with pytest.raises(ValueError, match=words):
            judge(*bad)


def test_what_has_no_value_is_refused():
    two = torch.tensor([0.1, 0.9])
    for labels in (torch.zeros(2), torch.ones(2)):
        with pytest.raises(ValueError, match="alike"):
            auc(two, labels)
    with pytest.raises(ValueError, match="precision"):
        precision_recall_f1(torch.zeros(2), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="recall"):
        precision_recall_f1(torch.ones(2), torch.zeros(2))
    with pytest.raises(ValueError, match=r"0\.1"):
        precision_recall_f1(two, torch.tensor([0, 1]))
    for judge in (calibration_curve, calibration_error):
        with pytest.raises(ValueError, match="logits"):
            judge(torch.tensor([0.5, 1.5]), torch.tensor([0, 1]))
        with pytest.raises(ValueError, match="one bin"):
            judge(two, torch.tensor([0, 1]), 0)
