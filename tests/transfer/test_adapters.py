"""Adapters and BitFit: what trains, what stands still, what is refused."""

import copy

import pytest
import torch
from torch import nn

from mtl_course import transfer
from mtl_course.networks.trunks import Classifier, cnn


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Classifier(cnn(8, (4, 6), 10, norm=True), 10, 3)


def train(model, steps=3):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, weight_decay=0.1)
    g = torch.Generator().manual_seed(1)
    for _ in range(steps):
        model.train()
        optimizer.zero_grad()
        x = torch.randn(9, 1, 8, 8, generator=g)
        nn.functional.cross_entropy(model(x), torch.arange(9) % 3).backward()
        optimizer.step()


def moved(model, start):
    return {n for n, value in model.state_dict().items() if not torch.equal(value, start[n])}


def test_adapters_change_nothing_at_first_and_alone_are_trained(model):
    x = torch.randn(4, 1, 8, 8)
    before = model.eval()(x)
    transfer.add_adapters(model, ["trunk.0", "trunk.7", "trunk.*"], width=3)
    assert torch.equal(model.eval()(x), before)
    layers = {n for n, m in model.named_modules() if isinstance(m, transfer.AdapterLayer)}
    assert layers == {"trunk.0", "trunk.3", "trunk.7"}
    start = copy.deepcopy(model.state_dict())
    train(model)
    assert moved(model, start) == {n for n in start if ".up." in n or ".down." in n}


def test_an_adapter_is_the_formula(model):
    layer = transfer.AdapterLayer(nn.Linear(5, 4), width=2, activation=nn.Tanh).double()
    nn.init.normal_(layer.up.weight)
    nn.init.normal_(layer.up.bias)
    x = torch.randn(3, 5).double()
    y = x @ layer.base.weight.T + layer.base.bias
    z = torch.tanh(y @ layer.down.weight.T + layer.down.bias)
    torch.testing.assert_close(layer(x), y + z @ layer.up.weight.T + layer.up.bias)
    conv = transfer.AdapterLayer(nn.Conv2d(2, 4, 3), width=2)
    nn.init.normal_(conv.up.weight)
    nn.init.normal_(conv.up.bias)
    y = conv.base(torch.ones(1, 2, 3, 3))[:, :, 0, 0]
    z = torch.relu(y @ conv.down.weight[:, :, 0, 0].T + conv.down.bias)
    expected = y + z @ conv.up.weight[:, :, 0, 0].T + conv.up.bias
    torch.testing.assert_close(conv(torch.ones(1, 2, 3, 3))[:, :, 0, 0], expected)


def test_bitfit_trains_the_biases_norms_included_and_nothing_else(model):
    start = copy.deepcopy(model.state_dict())
    names = transfer.bitfit(model, "trunk.*")
    assert names == [f"trunk.{k}.bias" for k in (0, 1, 3, 4, 7)]
    assert [n for n, p in model.named_parameters() if p.requires_grad] == names
    train(model)
    assert moved(model, start) == set(names), "statistics of the norms stand still"


def test_bitfit_knows_the_biases_of_attention():
    model = nn.TransformerEncoderLayer(8, 2, 16)
    assert "self_attn.in_proj_bias" in transfer.bitfit(model)


def test_the_state_of_a_task_alone_goes_back(model):
    transfer.add_adapters(model, "trunk.7", width=3)
    transfer.unfreeze(model.head)
    twin = copy.deepcopy(model)
    train(model)
    state = transfer.trainable_state(model)
    assert set(state) == {
        *(f"trunk.7.{part}.{kind}" for part in ("down", "up") for kind in ("weight", "bias")),
        "head.weight",
        "head.bias",
    }
    twin.load_state_dict(state, strict=False)
    x = torch.randn(4, 1, 8, 8)
    assert torch.equal(twin.eval()(x), model.eval()(x))
    start = {name: value.clone() for name, value in state.items()}
    train(model)
    assert all(torch.equal(state[n], start[n]) for n in state), "copies"


def test_what_does_not_fit_is_named(model):
    free = [p.requires_grad for p in model.parameters()]
    with pytest.raises(ValueError, match=r"'top\.\*' matches no layer .*has trunk\.0"):
        transfer.add_adapters(model, "top.*", width=2)
    with pytest.raises(ValueError, match="at least 1; it is 0"):
        transfer.add_adapters(model, "trunk.*", width=0)
    with pytest.raises(
        ValueError, match=r"'trunk\.2\*' matches no bias; the model has trunk\.0\.bias"
    ):
        transfer.bitfit(model, ["trunk.*", "trunk.2*"])
    assert free == [p.requires_grad for p in model.parameters()]
    with pytest.raises(ValueError, match="matches no bias; the model has none"):
        transfer.bitfit(nn.Sequential(nn.Linear(2, 2, bias=False)))
    transfer.add_adapters(model, "trunk.7", width=2)
    with pytest.raises(ValueError, match=r"'trunk\.7' has an adapter already"):
        transfer.add_adapters(model, "trunk.*", width=2)
    with pytest.raises(
        ValueError, match=r"'self_attn\.out_proj' belongs to an nn\.MultiheadAttention"
    ):
        transfer.add_adapters(nn.TransformerEncoderLayer(8, 2, 16), "*", width=2)
    with pytest.raises(TypeError, match="not for ReLU"):
        transfer.AdapterLayer(nn.ReLU(), 2)
    with pytest.raises(ValueError, match="at least 1; it is -1"):
        transfer.AdapterLayer(nn.Linear(2, 2), -1)
