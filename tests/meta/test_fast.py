"""The fast step is the plain one: for thin layers and thick ones, tasks together and one by one.

All in float64.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtl_course import meta
from mtl_course.data.episodes import Episodes
from mtl_course.meta import _fast
from mtl_course.meta.functional import Functional
from mtl_course.multitask.sharing import HardSharing

WIDE = 24  # two inputs and three steps are thin beside it


class Penalised(nn.Sequential):
    """The first layer's weight also occurs outside the layer."""

    def forward(self, x):
        return super().forward(x) + self[0].weight.sum()


class Tied(nn.Module):
    """Two layers, one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(WIDE, WIDE), nn.Linear(WIDE, WIDE)
        self.second.weight = self.first.weight
        self.head = nn.Linear(WIDE, 3)

    def forward(self, x):
        return self.head(self.second(self.first(x).tanh()).tanh())


class Twice(nn.Module):
    """One layer, called two times."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(WIDE, WIDE), nn.Linear(WIDE, 3)

    def forward(self, x):
        return self.head(self.layer(self.layer(x).tanh()).tanh())


class Tokens(nn.Module):
    """A layer on [n, 4, WIDE / 4], then one on matrices."""

    def __init__(self):
        super().__init__()
        self.token, self.head = nn.Linear(WIDE // 4, WIDE), nn.Linear(WIDE, 3)

    def forward(self, x):
        return self.head(self.token(x.unflatten(1, (4, -1))).tanh().mean(1))


def mlp(bias=True, kind=nn.Sequential):
    wide = nn.Linear(WIDE, WIDE, bias=bias), nn.Tanh(), nn.Linear(WIDE, WIDE, bias=bias), nn.Tanh()
    return kind(*wide, nn.Linear(WIDE, 3))


MODELS = {
    "thin layers": (mlp, {"0", "2"}),
    "no bias": (lambda: mlp(bias=False), {"0", "2"}),
    "a weight outside its layer": (lambda: mlp(kind=Penalised), {"2"}),
    "two layers, one weight": (Tied, set()),
    "one layer, two calls": (Twice, set()),
    "a layer on tokens": (Tokens, set()),
    "a layer alone": (lambda: nn.Linear(WIDE, WIDE), {""}),
}


def problem(model, tasks=3, shots=2, classes=3):
    g = torch.Generator().manual_seed(1)
    x, query = (torch.randn(tasks, n, WIDE, dtype=torch.float64, generator=g) for n in (shots, 5))
    y, truth = (torch.randint(classes, (tasks, n), generator=g) for n in (shots, 5))
    return Functional(model), Episodes((x, y), (query, truth))


def build(name):
    torch.manual_seed(0)
    return MODELS[name][0]().double()


def plain(f, params, episodes, loss, steps, rate, **options):
    """Query losses [T] after `maml.adapt`, task by task."""
    value = meta.objective(f, loss)
    return torch.stack(
        [
            value(meta.adapt(value, params, (x, y), steps, rate, **options), query, truth)
            for x, y, query, truth in zip(*episodes.support, *episodes.query, strict=True)
        ]
    )


def assert_same(f, episodes, loss, steps, rate, learned=(), **options):
    """Losses and gradients, those of the rates that learn among them."""
    params = f.parameters()
    wanted = [*params.values(), *learned]
    both = []
    for losses_of in (meta.meta_losses, plain):
        losses = losses_of(f, params, episodes, loss, steps, rate, **options)
        gradients = torch.autograd.grad(losses.mean(), wanted, allow_unused=True)
        both.append([losses, *gradients])
    for fast, slow in zip(*both, strict=True):
        assert (fast is None) == (slow is None)
        if fast is not None:
            torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-12)


def thin(f, episodes, steps, rate=0.3, names=None):
    params = f.parameters()
    names = list(params) if names is None else names
    layers = _fast.thin_layers(f, params, names, episodes.support[0][0], steps, rate)
    return {layer.name for layer in layers}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("first_order", [False, True])
def test_the_fast_step_is_the_plain_one(name, steps, first_order):
    f, episodes = problem(build(name))
    assert_same(f, episodes, F.cross_entropy, steps, 0.3, first_order=first_order)


@pytest.mark.parametrize("name", MODELS)
def test_a_step_is_kept_as_factors_where_the_layer_does_nothing_but_its_product(name):
    f, episodes = problem(build(name))
    assert thin(f, episodes, 3) == MODELS[name][1]


def test_steps_that_are_not_thin_are_formed():
    """Two factors of rank steps x n cost steps x n (in + out) products per example."""
    f, episodes = problem(build("thin layers"))
    assert thin(f, episodes, 6) == {"0", "2"} and thin(f, episodes, 7) == set()
    _, many = problem(f.model, shots=13)
    assert thin(f, many, 1) == set()
    assert_same(f, many, F.cross_entropy, 2, 0.3)


@pytest.mark.parametrize("first_order", [False, True])
def test_a_rate_that_learns_gets_the_same_gradient(first_order):
    f, episodes = problem(build("thin layers"))
    rate = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert thin(f, episodes, 2, rate) == {"0", "2"}
    assert_same(f, episodes, F.cross_entropy, 2, rate, [rate], first_order=first_order)


def test_a_rate_for_each_parameter_is_no_matter_of_factors():
    f, episodes = problem(build("thin layers"))
    rates = meta.learned_rates(f.parameters(), 0.2)
    assert thin(f, episodes, 2, rates) == set()
    assert_same(f, episodes, F.cross_entropy, 2, rates, rates.values())


@pytest.mark.parametrize("only", ["2", ("0", "4"), "0.weight"])
def test_parts_that_stay_are_left_alone(only):
    f, episodes = problem(build("thin layers"))
    assert_same(f, episodes, F.cross_entropy, 2, 0.3, only=only)


@pytest.mark.parametrize("frozen", ["0.bias", "0.weight", "2.weight"])
def test_frozen_parameters_do_not_move(frozen):
    model = build("thin layers")
    model.get_parameter(frozen).requires_grad_(False)
    f, episodes = problem(model)
    assert frozen.split(".")[0] not in thin(f, episodes, 2)
    assert_same(f, episodes, F.cross_entropy, 2, 0.3)


def test_a_head_without_a_loss_keeps_its_parameters():
    torch.manual_seed(0)
    heads = {"size": nn.Linear(WIDE, WIDE), "kind": nn.Linear(WIDE, 3)}
    f, episodes = problem(HardSharing(nn.Linear(WIDE, WIDE), heads).double())
    assert "heads.size" in thin(f, episodes, 2)
    assert_same(f, episodes, lambda outputs, y: F.cross_entropy(outputs["kind"], y), 2, 0.3)


def test_the_look_at_the_layers_draws_no_random_number():
    """A run that goes on from a checkpoint looks again; dropout must not draw then."""
    f, episodes = problem(nn.Sequential(nn.Dropout(0.5), build("thin layers")))
    state = torch.get_rng_state()
    assert thin(f, episodes, 2) == {"1.0", "1.2"}
    assert torch.equal(torch.get_rng_state(), state)


def test_dropout_draws_anew_for_every_task_in_thin_layers():
    torch.manual_seed(0)
    f = Functional(nn.Sequential(nn.Linear(WIDE, WIDE), nn.Dropout(0.5), nn.Linear(WIDE, 3)))
    x, y = torch.randn(1, 2, WIDE).expand(3, 2, WIDE), torch.zeros(3, 2, dtype=torch.int64)
    episodes = Episodes((x, y), (x, y))
    assert "0" in thin(f, episodes, 1)
    losses = meta.meta_losses(f, f.parameters(), episodes, F.cross_entropy, 1, 0.01)
    assert len(set(losses.tolist())) == 3


@pytest.mark.parametrize("at_once", [1, 2, 3])
@pytest.mark.parametrize("rate", ["number", "tensor", "learned"])
def test_adapted_parameters_are_the_plain_ones(at_once, rate):
    """As Reptile and the few-shot methods use them, which keep whole parameters."""
    f, episodes = problem(build("thin layers"))
    params, value = f.parameters(), meta.objective(f, F.cross_entropy)
    number = torch.tensor(0.3, dtype=torch.float64)
    rate = {"number": 0.3, "tensor": number, "learned": dict.fromkeys(params, number)}[rate]

    def fast(x, y, *_):
        ends = _fast.adapted(value, params, list(params), (x, y), 2, rate, at_once=at_once)
        return tuple(ends.values())

    ends = _fast.over_tasks(fast, episodes, at_once)
    for t in range(len(episodes)):
        support = tuple(part[t] for part in episodes.support)
        expected = meta.adapt(value, params, support, 2, rate)
        for mine, wanted in zip(ends, expected.values(), strict=True):
            torch.testing.assert_close(mine[t], wanted, rtol=1e-10, atol=1e-12)


def test_at_once_can_be_said():
    x = torch.zeros(2, WIDE)
    assert [Functional(mlp(), at_once=n).at_once(x) for n in (1, 7)] == [1, 7]
    with pytest.raises(ValueError, match="at_once is 0; at least one task"):
        Functional(mlp(), at_once=0)
