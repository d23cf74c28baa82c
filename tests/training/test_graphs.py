"""What a graph holds: its operations, and how often each parameter occurs."""

import torch
from torch import nn

from mtl_course.training.graphs import has_looped, uses


def test_an_operation_is_seen_wherever_it_stands_in_the_graph():
    images = torch.zeros(1, 1, 4, 4)
    assert has_looped(nn.Conv2d(1, 2, 3)(images).grad_fn)
    assert not has_looped(nn.Flatten()(images.requires_grad_()).grad_fn)
    assert not has_looped(nn.Linear(4, 2)(images).grad_fn)
    conv = nn.Conv2d(1, 2, 3)(images).square().sum()
    assert has_looped(conv.grad_fn, ("Convolution",)) and not has_looped(conv.grad_fn, ("Rnn",))


def test_every_use_of_a_parameter_counts_over_all_outputs():
    a, b, frozen = (nn.Parameter(torch.ones(2)) for _ in range(3))
    frozen.requires_grad_(False)
    shared = a.exp()
    ends = [(shared * b).grad_fn, (shared + a + frozen).grad_fn, None]
    assert dict(uses(ends)) == {a: 2, b: 1}
