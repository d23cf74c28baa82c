"""Layers, groups with rates, opening and closing layers, and the two schedules."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtl_course.networks.residual import resnet
from mtl_course.networks.trunks import Classifier, cnn, mlp
from mtl_course.transfer.freezing import freeze
from mtl_course.transfer.schedules import gradual_unfreezing, layer_groups, layers, lp_ft, open_top

sgd = partial(torch.optim.SGD, momentum=0.9)


def convolutional():
    return Classifier(cnn(8, (2, 3), 4, norm=True), 4, 5)


def residual():
    return Classifier(resnet((1, 2), (4, 8)), 8, 5)


def kinds(model):
    return [[type(m).__name__ for m in layer] for layer in layers(model)]


def test_layers_go_from_the_input_to_the_head_and_norms_belong_to_the_layer_before():
    assert kinds(convolutional()) == [
        ["Conv2d", "BatchNorm2d"],
        ["Conv2d", "BatchNorm2d"],
        ["Linear"],
        ["Linear"],
    ]
    model = convolutional()
    assert layers(model)[-1][0] is model.head


def test_a_residual_block_is_one_layer():
    assert kinds(residual()) == [
        ["Conv2d", "BatchNorm2d"],
        ["Block"],
        ["Block"],
        ["Block"],
        ["Linear"],
    ]


def test_a_trunk_of_one_layer_is_a_layer():
    assert kinds(Classifier(nn.Linear(3, 2), 2, 2)) == [["Linear"], ["Linear"]]


def test_a_norm_before_any_layer_is_a_layer():
    assert kinds(
        Classifier(nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2), nn.LayerNorm(2)), 2, 2)
    ) == [["BatchNorm1d"], ["Linear", "LayerNorm"], ["Linear"]]


def test_a_parameter_in_no_layer_is_named():
    model = convolutional()
    model.scale = nn.Parameter(torch.ones(()))
    with pytest.raises(ValueError, match="scale"):
        layers(model)


@pytest.mark.parametrize("make", [convolutional, residual])
@pytest.mark.parametrize("decay", [1.0, 2.6])
def test_every_trainable_parameter_is_in_exactly_one_group(make, decay):
    model = make()
    next(iter(layers(model)[1].parameters())).requires_grad_(False)
    groups = layer_groups(model, 0.1, decay)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert len(grouped) == len(set(grouped)) and set(grouped) == {
        id(p) for p in model.parameters() if p.requires_grad
    }
    assert [g["lr"] for g in groups] == pytest.approx(
        [0.1 / decay**k for k in range(len(groups))][::-1]
    )
    assert [id(p) for p in groups[-1]["params"]] == [id(p) for p in model.head.parameters()]


def test_a_frozen_layer_has_no_group_and_still_counts():
    model = convolutional()
    freeze(layers(model)[2][0])
    assert [g["lr"] for g in layer_groups(model, 1.0, 2.0)] == [0.125, 0.25, 1.0]


def test_a_shared_parameter_is_in_the_highest_layer_that_uses_it():
    model = Classifier(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), 4, 4)
    model.trunk[0].weight = model.head.weight
    groups = layer_groups(model, 1.0, 2.0)
    assert [len(g["params"]) for g in groups] == [1, 2, 2]
    assert any(p is model.head.weight for p in groups[-1]["params"])
    torch.optim.SGD(groups)


@pytest.mark.parametrize(("rate", "decay"), [(-0.1, 2.0), (0.1, 0.0), (0.1, -1.0)])
def test_bad_rates_are_refused(rate, decay):
    with pytest.raises(ValueError, match="rate must not be negative"):
        layer_groups(convolutional(), rate, decay)


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(before, module):
    return {
        name for name, value in module.state_dict().items() if not torch.equal(value, before[name])
    }


def train_once(model):
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    x, y = (
        torch.randn(16, 3 if isinstance(model.trunk, type(residual().trunk)) else 1, 8, 8),
        torch.arange(16) % 5,
    )
    F.cross_entropy(model(x), y).backward()
    optimizer.step()


@pytest.mark.parametrize("make", [convolutional, residual])
def test_open_top_moves_what_is_open_and_nothing_else_up_and_down(make):
    torch.manual_seed(0)
    model = make()
    parts = layers(model)
    freeze(model.trunk)  # also a hook on the whole trunk
    for count in (1, 2, len(parts), 2):
        open_top(model, count)
        before = [state(layer) for layer in parts]
        train_once(model)
        moved = [changed(b, layer) for b, layer in zip(before, parts, strict=True)]
        closed, opened = moved[: len(parts) - count], moved[len(parts) - count :]
        assert not any(closed)
        for names, layer in zip(opened, before[len(parts) - count :], strict=True):
            assert names >= {
                name for name in layer if name.endswith(("weight", "running_mean", "running_var"))
            }


@pytest.mark.parametrize("count", [0, 5])
def test_open_top_refuses_a_count_that_the_model_does_not_have(count):
    with pytest.raises(ValueError, match="between 1 and 4"):
        open_top(convolutional(), count)


def two_gaussians(n=60):
    g = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 2
    return torch.randn(n, 4, generator=g) + 2 * y[:, None], y


def small():
    torch.manual_seed(0)
    return Classifier(nn.Sequential(*mlp([4, 6, 5])), 5, 2)


def test_lp_ft_probes_on_the_frozen_trunk_and_goes_on_from_there():
    data, model, probe = two_gaussians(), small(), small()
    before = state(model.trunk)
    first, second = lp_ft(
        model, data, data, F.cross_entropy, sgd, rates=(0.1, 0.0), epochs=(3, 2), progress=False
    )
    assert not changed(before, model.trunk)  # a rate of 0 in the second phase: what the probe left
    open_top(probe, 1)
    lp_ft(probe, data, data, F.cross_entropy, sgd, rates=(0.1, 0.05), epochs=(3, 0), progress=False)
    torch.testing.assert_close(probe.head.weight, model.head.weight)
    third, fourth = lp_ft(
        probe, data, data, F.cross_entropy, sgd, rates=(0.0, 0.05), epochs=(1, 3), progress=False
    )
    assert changed(before, probe.trunk) and fourth.validation[-1] < third.validation[-1]
    assert (
        all(p.requires_grad for p in probe.parameters())
        and len(first.train) == 3
        and len(second.train) == 2
    )


def test_gradual_unfreezing_opens_one_layer_a_stage():
    data, model = two_gaussians(), small()
    moved = []

    def watch(m):
        moved.append([any(p.requires_grad for p in layer.parameters()) for layer in layers(m)])
        return torch.zeros(())

    histories = gradual_unfreezing(
        model,
        data,
        data,
        F.cross_entropy,
        sgd,
        0.05,
        epochs=(1, 1, 2),
        batch=60,
        penalty=watch,
        progress=False,
    )
    assert moved == [
        [False, False, True],
        [False, True, True],
        [True, True, True],
        [True, True, True],
    ]
    assert [len(h.train) for h in histories] == [1, 1, 2]


def test_gradual_unfreezing_wants_a_number_of_epochs_for_every_layer():
    with pytest.raises(ValueError, match="3 layers"):
        gradual_unfreezing(
            small(), two_gaussians(), two_gaussians(), F.cross_entropy, sgd, 0.1, epochs=(1, 1)
        )
