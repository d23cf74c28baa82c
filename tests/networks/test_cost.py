"""What a network costs: counts by hand, and that counting leaves no trace."""

import pytest
import torch
from torch import nn

from mtl_course.networks.cost import flops, parameters, widest
from mtl_course.networks.trunks import mlp


def test_a_linear_layer_and_a_convolution_by_hand():
    layer, conv = nn.Linear(6, 4), nn.Conv2d(2, 5, 3, padding=1)
    assert parameters(layer) == 6 * 4 + 4 and flops(layer, torch.randn(7, 6)) == 2 * 6 * 4
    assert (
        parameters(conv) == 2 * 5 * 9 + 5
        and flops(conv, torch.randn(4, 2, 6, 6)) == 2 * 36 * 2 * 5 * 9
    )


def test_one_example_costs_the_same_in_a_batch_of_any_size():
    net = nn.Sequential(mlp([6, 5, 4]), nn.Linear(4, 2))
    assert {flops(net, torch.randn(n, 6)) for n in (1, 2, 9)} == {2 * (30 + 20 + 8)}


def test_what_is_shared_is_learned_once_and_run_twice():
    trunk = nn.Linear(6, 6)
    both = nn.Sequential(trunk, trunk)
    assert parameters(both) == 42 and flops(both, torch.randn(3, 6)) == 2 * 2 * 36


def test_backward_adds_the_gradients_of_weights_and_of_activations():
    net, x = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)), torch.randn(3, 6)
    first, second = 2 * 6 * 5, 2 * 5 * 2
    # nobody asks for the gradient of x
    assert flops(net, x, backward=True) == 2 * first + 3 * second
    net[0].requires_grad_(False)
    assert flops(net, x, backward=True) == first + 2 * second
    with torch.no_grad():
        assert flops(net, x, backward=True) == first + 2 * second


def test_counting_leaves_no_trace():
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(), nn.Flatten(), nn.Linear(12, 2)
    )
    net[1].eval()  # a frozen norm in a model that trains
    state, draws = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()
    for backward in (False, True):
        flops(net, torch.zeros(1, 1, 4, 4), backward)
    assert [m.training for m in net.modules()] == [True, True, False, True, True, True]
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters()) and torch.equal(
        torch.get_rng_state(), draws
    )


def test_a_model_that_fails_gets_its_mode_back():
    net = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))
    with pytest.raises(RuntimeError):
        flops(net, torch.randn(2, 5))
    assert all(m.training for m in net.modules())


def test_widest_is_the_last_width_that_fits():
    for budget in (20, 100, 1001):
        k = widest(lambda k: mlp([4, k, k]), budget)
        sizes = [parameters(mlp([4, w, w])) for w in (k, k + 1)]
        assert sizes[0] <= budget < sizes[1]
    with pytest.raises(ValueError, match="width 1"):
        widest(lambda k: mlp([4, k]), 3)
