"""Trunks and heads upon them: shapes, counts by hand, and that they are the chapters' formulas."""

import pytest
import torch
from torch import nn

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


def test_cnn_and_classifier_shapes():
    trunk = cnn(8, (4, 8), 6, norm=True)
    assert Classifier(trunk, 6, 10)(torch.randn(3, 1, 8, 8)).shape == (3, 10)
    with pytest.raises(ValueError, match="halved"):
        cnn(6, (4, 8), 6)


def test_cnn_halves_the_image_and_has_the_parameters_that_it_says():
    trunk = cnn(16, (4, 8), 5, in_channels=3)
    assert trunk(torch.randn(2, 3, 16, 16)).shape == (2, 5)
    assert (
        sum(p.numel() for p in trunk.parameters())
        == (3 * 9 + 1) * 4 + (4 * 9 + 1) * 8 + (8 * 16 + 1) * 5
    )
    with pytest.raises(ValueError, match="12 pixels cannot be halved 3 times"):
        cnn(12, (4, 4, 4), 5)


def test_mlp_trunk_under_a_classifier():
    assert Classifier(mlp([3, 4]), 4, 2)(torch.randn(5, 3)).shape == (5, 2)
