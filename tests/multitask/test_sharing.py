"""Sharing patterns against their equations written as loops over examples; shapes, limits, who gets
a gradient, and clear errors.
"""

import math

import pytest
import torch
from torch import nn

from mtl_course.data.batches import Separate, Table
from mtl_course.multitask.balancing import upgrad
from mtl_course.multitask.experts import CGC, PLE, MMoE, mix
from mtl_course.multitask.fit import fit_tasks
from mtl_course.multitask.sharing import (
    MTAN,
    Cascade,
    Cooperative,
    CrossStitch,
    HardSharing,
    Network,
    OwnTrunks,
    Parallel,
    Shared,
)
from mtl_course.multitask.weighting import Penalised
from mtl_course.networks.cost import flops, parameters
from mtl_course.networks.trunks import cnn, mlp
from mtl_course.training.tasks import classification, regression

TASKS, B, D, K = ("a", "b", "c"), 5, 4, 3


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def x():
    return torch.randn(B, D)


def heads(k=K):
    return Parallel({"a": nn.Linear(k, 1), "b": nn.Linear(k, 2), "c": nn.Linear(k, 4)})


def level(d, private=1, shared=2, last=True, k=K):
    gates = {t: nn.Linear(d, private + shared) for t in TASKS}
    total = nn.Linear(d, len(TASKS) * private + shared)
    return CGC(
        {t: [mlp([d, k]) for _ in range(private)] for t in TASKS},
        [mlp([d, k]) for _ in range(shared)],
        gates,
        None if last else total,
    )


def patterns(d=D, k=K):
    return {
        "shared": Shared(mlp([d, k]), TASKS),
        "own": OwnTrunks({t: mlp([d, k]) for t in TASKS}),
        "cross-stitch": CrossStitch({t: [mlp([d, k]), mlp([k, k])] for t in TASKS}),
        "mtan": MTAN(
            [mlp([d, k]), mlp([k, k])], {t: [nn.Linear(d, k), nn.Linear(2 * k, k)] for t in TASKS}
        ),
        "mmoe": MMoE([mlp([d, k]) for _ in range(4)], {t: nn.Linear(d, 4) for t in TASKS}),
        "ple": PLE([level(d, last=False, k=k), level(k, k=k)]),
    }


def kinds_of_heads(k=K):
    return {
        "parallel": heads(k),
        "cascade": Cascade(
            {"a": nn.Linear(k, 1), "b": nn.Linear(k + 1, 2), "c": nn.Linear(k + 3, 4)}
        ),
        "cooperative": Cooperative(
            dict(heads(k)), {"a": nn.Linear(6, 1), "b": nn.Linear(5, 2), "c": nn.Linear(3, 4)}
        ),
    }


@pytest.mark.parametrize("pattern", patterns())
@pytest.mark.parametrize("kind", kinds_of_heads())
def test_any_pattern_goes_with_any_heads_and_every_parameter_learns(pattern, kind, x):
    net = Network(patterns()[pattern], kinds_of_heads()[kind])
    out = net(x)
    assert {t: tuple(y.shape) for t, y in out.items()} == {"a": (B, 1), "b": (B, 2), "c": (B, 4)}
    # at a generic point every parameter moves some output, but where a ReLU is off for all examples
    for module in net.modules():
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.constant_(module.bias, 0.5)
    sum(y.square().sum() for y in net(x).values()).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("pattern", ["own", "cross-stitch", "mtan", "mmoe", "ple", "shared"])
def test_who_gets_a_gradient_from_one_task(pattern, x):
    """The private parts of other tasks do not, whatever is shared does."""
    net = Network(patterns()[pattern], heads())
    net(x)["a"].square().sum().backward()
    reached = {name for name, p in net.named_parameters() if p.grad is not None and p.grad.any()}
    for other in ("b", "c"):
        private = {
            "own": f"pattern.{other}.",
            "mtan": f"pattern.attention.{other}.",
            "mmoe": f"pattern.gates.{other}.",
            "ple": f"pattern.levels.1.private.{other}.",
        }
        assert not any(
            name.startswith((f"heads.{other}.", private.get(pattern, "-"))) for name in reached
        ), reached
    shared = {
        "shared": "pattern.trunk",
        "cross-stitch": "pattern.columns.b.0",
        "mtan": "pattern.blocks.0",
        "mmoe": "pattern.experts.3",
        "ple": "pattern.levels.1.shared",
    }
    assert pattern == "own" or any(name.startswith(shared[pattern]) for name in reached), reached


# ------------------------------------------------------------------------------------ hard sharing
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
    net = HardSharing(trunk, {"a": nn.Linear(3, 1), "b": nn.Linear(3, 1)})
    assert [name for name, _ in net.named_parameters()] == [
        "trunk.0.weight",
        "trunk.0.bias",
        "heads.a.weight",
        "heads.a.bias",
        "heads.b.weight",
        "heads.b.bias",
    ]


# ------------------------------------------------------------------------------- equations as loops
def test_shared_is_hard_sharing(x):
    trunk, head = mlp([D, K]), heads()
    ours, theirs = Network(Shared(trunk, TASKS), head)(x), HardSharing(trunk, dict(head))(x)
    assert all(torch.equal(ours[t], theirs[t]) for t in TASKS)


def test_cross_stitch_is_its_equation(x):
    net = CrossStitch({t: [mlp([D, K]), mlp([K, K])] for t in TASKS})
    with torch.no_grad():
        for alpha in net.stitches:
            alpha.copy_(torch.randn(3, 3))
    features = net(x)
    for i in range(B):
        z = dict.fromkeys(TASKS, x[i])
        for j in range(2):
            y = {t: net.columns[t][j](z[t]) for t in TASKS}
            z = {
                t: sum(net.stitches[j][m, n] * y[s] for n, s in enumerate(TASKS))
                for m, t in enumerate(TASKS)
            }
        for t in TASKS:
            assert torch.allclose(features[t][i], z[t], atol=1e-6)


def test_cross_stitch_with_identity_is_separate_networks(x):
    columns = {t: [mlp([D, K]), mlp([K, K])] for t in TASKS}
    features = CrossStitch(columns, diagonal=1.0)(x)
    assert all(torch.allclose(features[t], nn.Sequential(*columns[t])(x), atol=1e-7) for t in TASKS)


def test_stitches_start_at_their_diagonal_and_rows_sum_to_one():
    (alpha,) = CrossStitch({t: [mlp([D, K])] for t in TASKS}, diagonal=0.8).stitches
    assert torch.allclose(alpha, torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]))
    (alone,) = CrossStitch({"a": [mlp([D, K])]}, diagonal=1.0).stitches
    assert alone.tolist() == [[1.0]]


def test_mmoe_is_its_equation(x):
    net = MMoE([mlp([D, K]) for _ in range(4)], {t: nn.Linear(D, 4) for t in TASKS})
    features, weights = net(x), net.weights(x)
    for t in TASKS:
        for i in range(B):
            logits = net.gates[t](x[i]).tolist()
            total = sum(math.exp(v) for v in logits)
            z = sum(math.exp(v) / total * net.experts[e](x[i]) for e, v in enumerate(logits))
            assert torch.allclose(features[t][i], z, atol=1e-6)
            assert torch.allclose(
                weights[t][i], torch.tensor([math.exp(v) / total for v in logits]), atol=1e-6
            )


def test_mmoe_with_one_expert_is_hard_sharing(x):
    trunk = mlp([D, K])
    features = MMoE([trunk], {t: nn.Linear(D, 1) for t in TASKS})(x)
    assert all(torch.allclose(features[t], trunk(x)) for t in TASKS)


def test_ple_is_its_equation(x):
    net = PLE([level(D, private=2, shared=1, last=False), level(K, private=1, shared=2)])
    features, weights = net(x), net.weights(x)

    def softmax(v):
        return torch.tensor([math.exp(a) for a in v]) / sum(math.exp(a) for a in v)

    for i in range(B):
        z, s = dict.fromkeys(TASKS, x[i]), x[i]
        for lv in net.levels:
            own = {t: [e(z[t]) for e in lv.private[t]] for t in TASKS}
            common = [e(s) for e in lv.shared]
            w = {t: softmax(lv.gates[t](z[t]).tolist()) for t in TASKS}
            new = {
                t: sum(a * out for a, out in zip(w[t], own[t] + common, strict=True)) for t in TASKS
            }
            if lv.shared_gate is not None:
                everyone = own["a"] + own["b"] + own["c"] + common
                s = sum(
                    a * out
                    for a, out in zip(softmax(lv.shared_gate(s).tolist()), everyone, strict=True)
                )
            z = new
        assert all(torch.allclose(features[t][i], z[t], atol=1e-6) for t in TASKS)
        assert all(torch.allclose(weights[t][i], w[t], atol=1e-6) for t in TASKS)


def test_ple_without_shared_experts_is_separate_networks(x):
    levels = [level(D, private=1, shared=0, last=True), level(K, private=1, shared=0)]
    features = PLE(levels)(x)
    for t in TASKS:
        assert torch.allclose(
            features[t], levels[1].private[t][0](levels[0].private[t][0](x)), atol=1e-7
        )
    with pytest.raises(ValueError, match="shared gate"):
        PLE([level(D, last=True), level(K)])


def test_mtan_is_its_equation(x):
    net = MTAN(
        [mlp([D, K]), mlp([K, K])], {t: [nn.Linear(D, K), nn.Linear(2 * K, K)] for t in TASKS}
    )
    features = net(x)
    for i in range(B):
        p1 = net.blocks[0](x[i])
        p2 = net.blocks[1](p1)
        for t in TASKS:
            z1 = p1 / (1 + torch.exp(-net.attention[t][0](x[i])))
            z2 = p2 / (1 + torch.exp(-net.attention[t][1](torch.cat([p1, z1]))))
            assert torch.allclose(features[t][i], z2, atol=1e-6)


def test_mtan_with_open_masks_is_hard_sharing(x):
    blocks = [mlp([D, K]), mlp([K, K])]
    attention = {t: [nn.Linear(D, K), nn.Linear(2 * K, K)] for t in TASKS}
    for layers in attention.values():
        for layer in layers:
            nn.init.zeros_(layer.weight)
            nn.init.constant_(layer.bias, 40.0)
    features = MTAN(blocks, attention)(x)
    assert all(torch.allclose(features[t], nn.Sequential(*blocks)(x)) for t in TASKS)


def test_spread_is_the_squared_distance_from_the_mean():
    own = OwnTrunks({t: mlp([D, K]) for t in TASKS})
    mean = {
        n: sum(dict(own[t].named_parameters())[n] for t in TASKS) / 3
        for n, _ in own["a"].named_parameters()
    }
    expected = sum(
        (p - mean[n]).pow(2).sum().item() for t in TASKS for n, p in own[t].named_parameters()
    )
    assert math.isclose(float(own.spread().detach()), expected, rel_tol=1e-5)
    own.load_state_dict({f"{t}.{n}": p for t in TASKS for n, p in own["a"].state_dict().items()})
    assert float(own.spread().detach()) < 1e-12
    with pytest.raises(ValueError, match="a, b"):
        OwnTrunks({"a": mlp([D, K]), "b": mlp([D, 2 * K])}).spread()


def test_cascade_and_cooperative_are_their_equations(x):
    z = {t: torch.randn(B, K) for t in TASKS}
    kinds = kinds_of_heads()
    h, out = kinds["cascade"], kinds["cascade"](z)
    assert torch.equal(out["a"], h["a"](z["a"]))
    assert torch.equal(out["b"], h["b"](torch.cat([z["b"], out["a"]], 1)))
    assert torch.equal(out["c"], h["c"](torch.cat([z["c"], out["a"], out["b"]], 1)))
    team = kinds["cooperative"]
    u, out = {t: team.drafts[t](z[t]) for t in TASKS}, team(z)
    assert torch.allclose(out["b"], u["b"] + team.exchange["b"](torch.cat([u["a"], u["c"]], 1)))
    for part in team.exchange.values():
        nn.init.zeros_(part.weight), nn.init.zeros_(part.bias)
    out = team(z)
    assert all(torch.equal(out[t], u[t]) for t in TASKS)


def test_a_cascade_passes_later_gradients_to_earlier_heads(x):
    cascade = kinds_of_heads()["cascade"]
    cascade(dict.fromkeys(TASKS, x[:, :K]))["c"].sum().backward()
    assert cascade["a"].weight.grad.any() and cascade["b"].weight.grad.any()
    cascade.zero_grad()
    cascade(dict.fromkeys(TASKS, x[:, :K]))["a"].sum().backward()
    assert cascade["b"].weight.grad is None and cascade["c"].weight.grad is None


# ---------------------------------------------------------------------- any layers, training, costs
def test_convolutions_work_inside():
    """Feature maps are stitched, mixed and masked like rows."""
    x, t = torch.randn(B, 1, 8, 8), ("a", "b")

    def conv(i, o):
        return nn.Sequential(nn.Conv2d(i, o, 3, stride=2, padding=1), nn.ReLU())

    def gate(e):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, e))

    features = {
        "stitch": CrossStitch({n: [conv(1, 3), conv(3, 4)] for n in t})(x),
        "mmoe": MMoE(
            [nn.Sequential(conv(1, 3), conv(3, 4)) for _ in range(2)], {n: gate(2) for n in t}
        )(x),
        "mtan": MTAN(
            [conv(1, 3), conv(3, 4)],
            {n: [nn.Conv2d(1, 3, 3, 2, 1), nn.Conv2d(6, 4, 3, 2, 1)] for n in t},
        )(x),
    }
    assert all(z[n].shape == (B, 4, 2, 2) for z in features.values() for n in t)
    out = Network(Shared(cnn(8, (3,), 6), t), Parallel({n: nn.Linear(6, 1) for n in t}))(x)
    assert out["b"].shape == (B, 1)


def problem(n=60):
    x = torch.randn(n, D)
    return x, {"a": x[:, :1] * 2, "b": (x[:, 1] > 0).long()}


def two_task(pattern):
    return Network(pattern, Cascade({"a": nn.Linear(K, 1), "b": nn.Linear(K + 1, 2)}))


@pytest.mark.parametrize("kind", ["partly labelled", "two sets of unequal size"])
def test_fit_tasks_trains_a_number_and_a_class_together(kind):
    x, y = problem()
    if kind == "partly labelled":
        rows = Table(x, y, labelled={"a": torch.arange(60) % 3 == 0})
    else:
        rows = Separate({"a": (x[:15], y["a"][:15]), "b": (x, y["b"])})
    model = two_task(MMoE([mlp([D, K]) for _ in range(2)], {t: nn.Linear(D, 2) for t in "ab"}))
    tasks = {"a": regression("a"), "b": classification("b")}
    history = fit_tasks(
        model,
        tasks,
        rows,
        rows,
        torch.optim.Adam(model.parameters(), lr=0.02),
        epochs=15,
        batch=20,
        progress=False,
    )
    assert all(history.losses[t][-1] < 0.8 * history.initial[t] for t in "ab")


def test_the_penalty_draws_the_trunks_together():
    x, y = problem()
    tasks, spreads = {"a": regression("a"), "b": classification("b")}, []
    for strength in (0.0, 1.0):
        torch.manual_seed(1)
        model = two_task(OwnTrunks({t: mlp([D, K]) for t in "ab"}))
        combine = Penalised(lambda: strength * model.pattern.spread())  # noqa: B023 - called in this round only
        fit_tasks(
            model,
            tasks,
            Table(x, y),
            Table(x, y),
            torch.optim.Adam(model.parameters(), lr=0.02),
            combine,
            epochs=15,
            progress=False,
        )
        spreads.append(float(model.pattern.spread().detach()))
    assert spreads[1] < 0.1 * spreads[0]


def test_a_shared_trunk_is_counted_once():
    x, trunk = torch.randn(2, D), mlp([D, K])
    once = Network(Shared(trunk, TASKS), heads())
    own = Network(OwnTrunks({t: mlp([D, K]) for t in TASKS}), heads())
    assert (
        parameters(own) - parameters(once) == 2 * (D * K + K)
        and flops(own, x) - flops(once, x) == 2 * 2 * D * K
    )
    same = Network(OwnTrunks(dict.fromkeys(TASKS, trunk)), heads())
    assert parameters(same) == parameters(once) and flops(same, x) == flops(
        own, x
    )  # one trunk, run three times


# ------------------------------------------------------------------------------------------- errors
def test_mismatches_name_the_task(x):
    with pytest.raises(ValueError, match="a head for task 'c'"):
        Network(Shared(mlp([D, K]), ("a", "b")), heads())(x)
    with pytest.raises(ValueError, match="'d', which have no head"):
        Network(Shared(mlp([D, K]), (*TASKS, "d")), heads())(x)
    with pytest.raises(ValueError, match="as many layers"):
        CrossStitch({"a": [mlp([D, K])], "b": [mlp([D, K]), mlp([K, K])]})
    with pytest.raises(ValueError, match="'b' needs one attention"):
        MTAN([mlp([D, K])], {"a": [nn.Linear(D, K)], "b": []})
    with pytest.raises(ValueError, match="3 outputs for 2 experts"):
        mix(torch.randn(B, 3), [x, x])
    with pytest.raises(ValueError, match="gates for a"):
        CGC({"a": [], "b": []}, [mlp([D, K])], {"a": nn.Linear(D, 1)})
    with pytest.raises(ValueError, match="exchange for a"):
        Cooperative({"a": nn.Linear(K, 1), "b": nn.Linear(K, 1)}, {"a": nn.Linear(1, 1)})


def test_surgery_says_what_it_needs():
    x, y = problem()
    model = two_task(Shared(mlp([D, K]), "ab"))
    with pytest.raises(TypeError, match="trunk"):
        tasks = {"a": regression("a"), "b": classification("b")}
        rows = Table(x, y)
        fit_tasks(
            model,
            tasks,
            rows,
            rows,
            torch.optim.Adam(model.parameters()),
            lambda G: G.new_ones(2),
            epochs=1,
            progress=False,
        )


def test_shared_weights_below_parallel_heads_are_balanced_like_hard_sharing():
    """Step for step, with `balancing.upgrad`; networks of other kinds have no `trunk`."""
    x, y = problem()
    tasks, trained = {"a": regression("a"), "b": classification("b")}, []
    for wrap in (lambda trunk, heads: Network(Shared(trunk, "ab"), Parallel(heads)), HardSharing):
        torch.manual_seed(3)
        model = wrap(mlp([D, K]), {"a": nn.Linear(K, 1), "b": nn.Linear(K, 2)})
        fit_tasks(
            model,
            tasks,
            Table(x, y),
            Table(x, y),
            torch.optim.Adam(model.parameters(), lr=0.02),
            upgrad,
            epochs=3,
            progress=False,
        )
        trained.append([p.detach() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*trained, strict=True))
    assert not hasattr(two_task(Shared(mlp([D, K]), "ab")), "trunk")
    assert not hasattr(
        Network(OwnTrunks({"a": mlp([D, K])}), Parallel({"a": nn.Linear(K, 1)})), "trunk"
    )
