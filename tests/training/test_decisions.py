"""Net benefit and base rates, against counts by hand, a utility and Bayes' rule."""

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix

from mtl_course.training import auc, move_base_rate, net_benefit

NAN = float("nan")


def drawn(n=400, seed=0):
    g = torch.Generator().manual_seed(seed)
    chances = torch.rand(n, generator=g, dtype=torch.float64)
    return chances, (torch.rand(n, generator=g, dtype=torch.float64) < chances).long()


@pytest.mark.parametrize("cut", [0.05, 0.3, 0.5, 0.9])
def test_net_benefit_is_that_of_the_confusion_matrix(cut):
    chances, labels = drawn()
    (_, fp), (_, tp) = confusion_matrix(labels, chances >= cut)
    want = tp / 400 - fp / 400 * cut / (1 - cut)
    assert float(net_benefit(chances, labels, cut)) == pytest.approx(want)
    assert net_benefit(chances, labels, [cut, 0.4])[0] == pytest.approx(want)


def test_right_chances_choose_as_well_as_anything_at_every_cut():
    """With true chances, treating at the cut is the best cut to treat at: its price says so."""
    chances, labels = drawn(200_000)
    for cut in (0.2, 0.6):
        price = cut / (1 - cut)
        worth = torch.where(labels == 1, 1.0, -price)
        best = max(
            float((worth * (chances >= c)).mean()) for c in np.linspace(0.01, 0.99, 50).tolist()
        )
        assert float(net_benefit(chances, labels, cut)) > best - 0.002


def test_nobody_and_everybody():
    _, labels = drawn()
    share = float(labels.double().mean())
    everyone = net_benefit(torch.ones(400), labels, [0.2, share])
    assert float(everyone[0]) == pytest.approx(share - (1 - share) * 0.25)
    assert float(everyone[1]) == pytest.approx(0, abs=1e-12)
    assert float(net_benefit(torch.zeros(400), labels, 0.2)) == 0


def test_an_unknown_outcome_is_said_and_what_to_do():
    chances = torch.tensor([0.2, 0.3, 0.4])
    with pytest.raises(ValueError, match=r"2 of 3 outcomes are not known .* row 1: censored"):
        net_benefit(chances, torch.tensor([0.0, NAN, NAN]), 0.5)
    with pytest.raises(ValueError, match="logits"):
        net_benefit(chances + 1, torch.tensor([0, 1, 1]), 0.5)
    for cut in (0.0, 1.0, NAN, [[0.1]]):
        with pytest.raises(ValueError, match="cut"):
            net_benefit(chances, torch.tensor([0, 1, 1]), cut)


def test_moved_chances_are_those_of_bayes_rule():
    """Two kinds of rows with fixed looks: only how many there are of each changes."""
    looks = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])  # of a no, of a yes

    def bayes(share):
        yes, no = share * looks[1], (1 - share) * looks[0]
        return yes / (yes + no)

    torch.testing.assert_close(move_base_rate(bayes(0.2), 0.2, 0.7), bayes(0.7))


def test_moving_keeps_the_order_and_comes_back():
    chances, labels = drawn()
    moved = move_base_rate(chances, 0.5, 0.9)
    assert float(auc(moved, labels)) == float(auc(chances, labels))
    torch.testing.assert_close(move_base_rate(moved, 0.9, 0.5), chances)
    assert move_base_rate(torch.tensor([0.0, 1.0]), 0.1, 0.9).tolist() == [0, 1]


def test_shares_and_chances_out_of_bounds_are_said():
    with pytest.raises(ValueError, match="now is 1"):
        move_base_rate(torch.tensor([0.5]), 0.5, 1.0)
    with pytest.raises(ValueError, match="before is nan"):
        move_base_rate(torch.tensor([0.5]), NAN, 0.5)
    for bad in (1.5, NAN):
        with pytest.raises(ValueError, match="Chances"):
            move_base_rate(torch.tensor([bad]), 0.5, 0.4)
