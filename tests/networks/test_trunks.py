"""Networks for several tasks: shapes, what is shared, and that they are the chapters' formulas."""

import pytest
import torch
from torch import nn

from mtl_course.multitask.sharing import HardSharing
from mtl_course.networks.trunks import Classifier, cnn, mlp


def test_mlp_is_the_formula_of_the_trunk():
    trunk, x = mlp([4, 3]), torch.randn(5, 4)
    assert torch.allclose(trunk(x), torch.relu(x @ trunk[0].weight.T + trunk[0].bias))


def test_mlp_layers_and_activation():
    trunk = mlp([4, 3, 2], nn.Tanh)
    assert [type(layer) for layer in trunk] == [nn.Linear, nn.Tanh, nn.Linear, nn.Tanh]
    assert trunk(torch.randn(5, 4)).shape == (5, 2)
    with pytest.raises(ValueError, match="input and an output"):
        mlp([4])


def test_hard_sharing_shares_the_trunk_and_nothing_else():
    net = HardSharing(mlp([4, 3]), {"a": nn.Linear(3, 1), "b": nn.Linear(3, 2)})
    out = net(torch.randn(5, 4))
    assert {name: tuple(y.shape) for name, y in out.items()} == {"a": (5, 1), "b": (5, 2)}
    out["a"].sum().backward()
    assert net.trunk[0].weight.grad is not None and net.heads["a"].weight.grad is not None
    assert net.heads["b"].weight.grad is None
    alone = net.trunk[0].weight.grad.clone()
    net(torch.randn(5, 4))["b"].sum().backward()  # the second task's gradient adds to the trunk's
    assert not torch.equal(net.trunk[0].weight.grad, alone)


def test_hard_sharing_has_one_trunk_in_its_parameters():
    trunk = mlp([4, 3])
    names = [
        name
        for name, _ in HardSharing(
            trunk, {"a": nn.Linear(3, 1), "b": nn.Linear(3, 1)}
        ).named_parameters()
    ]
    assert names == [
        "trunk.0.weight",
        "trunk.0.bias",
        "heads.a.weight",
        "heads.a.bias",
        "heads.b.weight",
        "heads.b.bias",
    ]


def test_cnn_and_classifier_shapes():
    trunk = cnn(8, (4, 8), 6, norm=True)
    assert Classifier(trunk, 6, 10)(torch.randn(3, 1, 8, 8)).shape == (3, 10)
    with pytest.raises(ValueError, match="halved"):
        cnn(6, (4, 8), 6)
