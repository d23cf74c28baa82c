"""The generators that exercises share draw what they promise, on every seed."""

import pytest
import torch
from torch import nn

from mtl_course.exercises import inputs

SEEDS = range(40)


def _generators():
    return [torch.Generator().manual_seed(seed) for seed in SEEDS]


def test_numbers_differ_within_a_draw_and_from_draw_to_draw():
    draws = [inputs.different(g, 3, 2, 7) for g in _generators()]
    assert all(len(set(drawn)) == 3 and set(drawn) <= set(range(2, 7)) for drawn in draws)
    assert {n for drawn in draws for n in drawn} == set(range(2, 7))
    assert any(drawn != sorted(drawn) for drawn in draws)


def test_powers_of_ten_reach_both_ends():
    drawn = torch.stack([inputs.powers(g, 3) for g in _generators()])
    assert drawn.min() == 1e-6 and drawn.max() == 1e6
    assert all(len(set(row)) == 3 for row in drawn.tolist())
    assert {inputs.power(g) for g in _generators()} >= {1e-6, 1e6}
    assert all(2 <= inputs.uniform(g, 2, 3) <= 3 for g in _generators())


def test_a_class_does_not_occur_and_it_is_not_always_the_same():
    missing = set()
    for g in _generators():
        drawn = set(inputs.labels(g, 50, 4).tolist())
        assert drawn <= set(range(4)) and len(drawn) < 4
        missing |= set(range(4)) - drawn
    assert missing == set(range(4))
    assert inputs.labels(_generators()[0], 3, 1).tolist() == [0, 0, 0]


@pytest.mark.parametrize("count", [1, 2, 3, 12])
def test_names_do_not_follow_the_alphabet(count):
    for g in _generators():
        names = inputs.task_names(g, count)
        assert len(set(names)) == count
        assert count < 3 or names not in (sorted(names), sorted(names)[::-1])


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
def test_a_shuffled_dict_has_no_entry_more_or_less_and_another_order(count):
    for g in _generators():
        mapping = dict(zip(inputs.task_names(g, count), range(count), strict=True))
        other = inputs.shuffled(g, mapping)
        assert other == mapping
        assert count < 2 or list(other) != list(mapping)
        assert count < 3 or list(other) != list(mapping)[::-1]


def test_vectors_of_every_kind():
    for g in _generators():
        drawn = {kind: inputs.vectors(g, 3, 4, kind) for kind in inputs.VECTORS}
        assert all(v.shape == (3, 4) and v.isfinite().all() for v in drawn.values())
        assert drawn["tiny"].norm() < 1e-4 and drawn["huge"].norm() > 1e4
        assert (drawn["zero"].norm(dim=1) == 0).sum() == 1
        assert (drawn["equal"] == drawn["equal"][0]).all()
        assert torch.equal(drawn["opposite"][0], -drawn["opposite"][1])
    assert inputs.vectors(g, 2, 3, dtype=torch.float16).dtype == torch.float16


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("kind", ["batch", "still", "instance", "group"])
def test_networks_of_every_kind_train_and_predict(dimensions, kind):
    options = {"dropout": True, "frozen": True, "shared": True}
    for g in _generators()[:5]:
        network, channels = inputs.network(
            g, 3, dimensions=dimensions, norms=("batch", kind), **options
        )
        x = inputs.batch(g, 4, channels, dimensions)
        assert len(set(x.shape[2:])) == len(x.shape[2:]), "sides that differ"
        assert network.train()(x).shape == (4, 3)
        # a norm without running statistics needs two numbers per channel
        few = 2 if (kind, dimensions) == ("still", 1) else 1
        assert network.eval()(x[:few]).shape == (few, 3)
        depths = [name.count(".") for name, m in network.named_modules() if not list(m.children())]
        assert max(depths) >= 3, "a layer that lies three deep in the trunk"
        frozen = [p for p in network.parameters() if not p.requires_grad]
        named = list(network.named_parameters(remove_duplicate=False))
        assert frozen and len(named) > len({id(p) for _, p in named})
        assert any(name.endswith("shift") for name, _ in network.named_buffers())


def test_a_seed_repeats_a_module():
    first, again = (
        inputs.trunk(torch.Generator().manual_seed(3), norms=("batch", "group"))[0]
        for _ in range(2)
    )
    pairs = zip(first.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_twin_computes_the_same_and_shares_nothing():
    g = torch.Generator().manual_seed(1)
    network, channels = inputs.network(g, 2, dimensions=2, shared=True, frozen=True)
    x = inputs.batch(g, 4, channels, 2)
    twin = inputs.twin(network)
    assert torch.equal(twin.eval()(x), network.eval()(x))
    for of in (nn.Module.parameters, nn.Module.buffers):
        assert not {t.data_ptr() for t in of(twin)} & {t.data_ptr() for t in of(network)}
        assert [t.requires_grad for t in of(twin)] == [t.requires_grad for t in of(network)]
    names = [name for name, _ in network.named_parameters(remove_duplicate=False)]
    assert [name for name, _ in twin.named_parameters(remove_duplicate=False)] == names
    assert len(list(twin.parameters())) == len(list(network.parameters())), "shared stays shared"
    twin.register_forward_pre_hook(lambda module, args: module.train() and None)
    twin(x)
    assert twin.training and not network.training


def _keeps_a_gradient(x):
    leaf = x.requires_grad_()
    leaf.square().sum().backward()
    return leaf.detach()


@pytest.mark.parametrize(
    "answer, holds",
    [
        (lambda x: 2 * x, True),
        (lambda x: x + torch.rand(2), True),
        (lambda x: x.mul_(2), False),
        (_keeps_a_gradient, False),
    ],
    ids=["pure", "random", "in place", "a .grad that stays"],
)
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_what_an_answer_leaves_behind_is_seen_at_every_scale(answer, holds, size):
    assert inputs.leaves_no_trace(answer, size * torch.tensor([1.0, -2.0])) == holds


def test_a_list_that_gets_shorter_is_seen():
    assert not inputs.leaves_no_trace(lambda items: items.pop(), [1.0, 2.0])
    assert inputs.leaves_no_trace(lambda layer: layer.weight.sum(), nn.Linear(2, 2))
