"""Freezing for good, undoing it, and fresh heads."""

import copy
import pickle

import pytest
import torch
from torch import nn

from mtl_course.networks.trunks import Classifier, cnn
from mtl_course.transfer.freezing import freeze, replace_head, unfreeze


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Classifier(nn.Sequential(cnn(8, (4, 8), 16, norm=True), nn.Dropout(0.5)), 16, 10)


def images(n=12):
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_frozen_means_frozen(model):
    before = copy.deepcopy(model.trunk.state_dict())
    assert freeze(model.trunk) is model.trunk
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, weight_decay=0.1)
    head = model.head.weight.detach().clone()
    for _ in range(3):
        model.train()
        model(images()).square().mean().backward()
        optimizer.step()
    assert all(torch.equal(before[k], v) for k, v in model.trunk.state_dict().items())
    assert not torch.equal(head, model.head.weight)


def test_a_frozen_trunk_ignores_the_batch_and_drops_nothing(model):
    freeze(model.trunk)
    model.train()
    x = images()
    assert torch.allclose(model.trunk(x)[:1], model.trunk(x[:1]), atol=1e-6)


def test_without_freeze_the_statistics_do_move(model):
    """The trap that `freeze` is for: no gradient, and yet the trunk changes."""
    model.trunk.requires_grad_(False)
    before = model.trunk.state_dict()["0.1.running_mean"].clone()
    model.train()(images())
    assert not torch.equal(before, model.trunk.state_dict()["0.1.running_mean"])


def test_freezing_survives_copies_and_is_done_once(model):
    freeze(freeze(model.trunk))
    assert len(model.trunk._forward_pre_hooks) == 1
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        before = copy.deepcopy(other.trunk.state_dict())
        other.train()(images())
        assert all(torch.equal(before[k], v) for k, v in other.trunk.state_dict().items())


def test_unfreeze_undoes_freeze(model):
    freeze(model.trunk)
    unfreeze(model.trunk)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    model.trunk[1].p = 0.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    nn.functional.cross_entropy(model.train()(images()), torch.arange(12) % 10).backward()
    optimizer.step()
    moved = {n for n, value in model.state_dict().items() if not torch.equal(value, start[n])}
    # a bias before a BatchNorm has no gradient
    assert moved >= {name for name in start if not name.endswith("bias")}


def test_replace_head_keeps_dtype_bias_and_trunk(model):
    model.double()
    model.head = nn.Linear(16, 10, bias=False, dtype=torch.float64)
    trunk = copy.deepcopy(model.trunk.state_dict())
    new = replace_head(model, 3)
    assert new is model.head and new.bias is None and new.weight.dtype == torch.float64
    assert model(images().double()).shape == (12, 3)
    assert all(
        torch.equal(trunk[k], v)
        for k, v in model.trunk.state_dict().items()
        if "running" not in k and "num" not in k
    )


def test_replace_head_by_a_dotted_name():
    model = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 2)))
    replace_head(model, 5, name="1.1")
    assert model(torch.randn(3, 4)).shape == (3, 5)
    with pytest.raises(TypeError, match="'1' is a Sequential"):
        replace_head(model, 5, name="1")
