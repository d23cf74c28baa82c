"""Label maps: counts by hand, a map that is known, and clear errors."""

import pytest
import torch
from torch import nn

from mtl_course.transfer.labels import label_map


def test_label_map_counts():
    p = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 1.0, 0.0]])
    M = label_map(p, torch.tensor([0, 1, 1]), classes=2)
    assert torch.allclose(M, torch.tensor([[1 / 1.5, 0.5 / 1.5], [0.0, 1.0], [0.5, 0.5]]))


def test_label_map_recovers_a_known_map():
    g = torch.Generator().manual_seed(0)
    z = torch.randint(4, (500,), generator=g)
    M = label_map(nn.functional.one_hot(z, 4).double(), z % 2, classes=2)
    assert torch.equal(M, torch.tensor([[1, 0], [0, 1], [1, 0], [0, 1]]).double())
    soft = label_map(nn.functional.one_hot(z, 4).double(), z % 2, classes=2, prior=1.0)
    assert torch.allclose(soft.sum(dim=1), torch.ones(4).double()) and 0 < soft[0, 1] < 0.05


def test_label_map_says_what_is_wrong():
    with pytest.raises(ValueError, match="2 rows of probabilities but 1 labels"):
        label_map(torch.ones(2, 2), torch.tensor([0]), 2)
    with pytest.raises(ValueError, match=r"0\.\.1; they go from 0 to 5"):
        label_map(torch.ones(2, 2), torch.tensor([0, 5]), 2)
