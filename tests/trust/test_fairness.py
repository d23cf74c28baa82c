"""Rates of groups by counting, cuts per group, and groups of which nothing is known."""

import pytest
import torch
from sklearn.metrics import confusion_matrix

from mtl_course import trust

NAMES = ("a", "b", "c")


def people(seed=0, n=120):
    g = torch.Generator().manual_seed(seed)
    return (
        torch.randint(2, (n,), generator=g),
        torch.randint(2, (n,), generator=g),
        torch.randint(3, (n,), generator=g),
    )


def test_rates_are_those_of_a_confusion_matrix():
    said, truth, groups = people()
    rates = trust.group_rates(said, truth, groups, NAMES)
    assert list(rates) == list(NAMES)
    for k, name in enumerate(NAMES):
        ours = groups == k
        tn, fp, fn, tp = confusion_matrix(truth[ours], said[ours]).ravel()
        assert rates[name].rows == int(ours.sum())
        assert rates[name].true_positive == pytest.approx(tp / (tp + fn))
        assert rates[name].false_positive == pytest.approx(fp / (fp + tn))
        assert rates[name].yes == pytest.approx((tp + fp) / int(ours.sum()))
    assert rates == trust.group_rates(said > 0, truth.float(), groups, NAMES)


def test_the_gap_is_the_larger_difference_over_all_groups():
    said, truth, groups = people(3)
    rates = trust.group_rates(said, truth, groups, NAMES)
    pairs = [
        abs(getattr(rates[a], kind) - getattr(rates[b], kind))
        for kind in ("true_positive", "false_positive")
        for a in NAMES
        for b in NAMES
    ]
    assert trust.odds_gap(rates) == pytest.approx(max(pairs))
    assert trust.odds_gap(trust.group_rates(truth, truth, groups, NAMES)) == 0.0


@pytest.mark.parametrize("rate", [0.1, 0.6, 1.0])
def test_a_cut_is_the_highest_that_finds_enough(rate):
    _, truth, groups = people(5)
    scores = torch.randn(len(truth), generator=torch.Generator().manual_seed(2))
    cuts = trust.group_cuts(scores, truth, groups, NAMES, rate)
    for k, name in enumerate(NAMES):
        best = scores[(groups == k) & (truth == 1)]
        assert float((best >= cuts[name]).double().mean()) >= rate
        assert float((best > cuts[name]).double().mean()) < rate
    own = torch.tensor([cuts[name] for name in NAMES])[groups]
    gap = [r.true_positive for r in trust.group_rates(scores >= own, truth, groups, NAMES).values()]
    assert max(gap) - min(gap) < 0.1


def test_a_rate_that_rounding_lifts_asks_for_no_more():
    scores, truth = torch.arange(20.0), torch.tensor([1, 1, 1, 1, 1, 1, 1, 1, 1, 0] * 2)
    groups = torch.arange(20) // 10
    # a third of nine is three
    cuts = trust.group_cuts(scores, truth, groups, ["a", "b"], 1 / 3)
    assert cuts == {"a": 6.0, "b": 16.0}


def test_a_group_without_an_example_is_a_clear_error():
    said, truth, groups = people()
    nobody = groups.clamp(max=1)
    with pytest.raises(ValueError, match="'c' has no example, so nothing is known"):
        trust.group_rates(said, truth, nobody, NAMES)
    with pytest.raises(ValueError, match="'c' has no example"):
        trust.group_cuts(said.float(), truth, nobody, NAMES, 0.5)
    only = truth.clone()
    only[groups == 1] = 0
    with pytest.raises(ValueError, match="'b' has no example of a true yes: its true positive"):
        trust.group_rates(said, only, groups, NAMES)
    only[groups == 1] = 1
    with pytest.raises(ValueError, match="'b' has no example of a true no: its false positive"):
        trust.group_rates(said, only, groups, NAMES)


def test_other_bad_input_is_said():
    said, truth, groups = people()
    for call, words in (
        (lambda: trust.group_rates(said[:5], truth, groups, NAMES), r"must be \[N\]"),
        (lambda: trust.group_rates(2 * said, truth, groups, NAMES), "cut the scores first"),
        (lambda: trust.group_rates(said, 2 * truth, groups, NAMES), "truth must be 0 or 1"),
        (lambda: trust.group_rates(said, truth, groups, NAMES[:2]), "numbered from 0 to 1"),
        (lambda: trust.group_rates(said, truth, groups, ["a", "a", "b"]), "name of its own"),
        (lambda: trust.group_rates(said, truth, 0 * groups, ["a"]), "two groups"),
        (lambda: trust.group_cuts(said.float(), truth, groups, NAMES, 0.0), "rate must be"),
        (lambda: trust.group_cuts(said / 0.0, truth, groups, NAMES, 0.5), "NaN"),
        (lambda: trust.odds_gap({}), "two groups"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
