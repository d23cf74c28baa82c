"""Gradient balancing against closed forms, optimality conditions and torchjd. All in float64."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from promises import KEPT, who
from torch import nn
from torchjd import aggregation

# Not exported: the one way to switch its epsilons off.
from torchjd._linalg._dual_cone import QuadprogProjector

from mtl_course.data.batches import Table
from mtl_course.multitask import balancing
from mtl_course.multitask.balancing import (
    METHODS,
    PCGrad,
    aligned_mtl,
    cagrad,
    dualproj,
    fairgrad,
    gram,
    imtl_g,
    mgda,
    nash_mtl,
    pcgrad,
    upgrad,
)
from mtl_course.multitask.fit import fit_tasks
from mtl_course.multitask.sharing import HardSharing
from mtl_course.training.tasks import regression

EVERY = pytest.mark.parametrize("name", METHODS)
GOLDEN = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)


def direction(method, J):
    return method(gram(J)) @ J


@pytest.mark.parametrize(
    "method, expected",
    [
        (mgda, [0.0, 1.0, 1.0]),
        (pcgrad, [0.5848, 3.8012, 3.8012]),
        # for two tasks half of PCGrad's, exactly
        (upgrad, [0.2924, 1.9006, 1.9006]),
        (imtl_g, [0.0767, 1.0, 1.0]),
        (aligned_mtl, [0.2133, 0.9673, 0.9673]),
        (cagrad, [0.1835, 1.2041, 1.2041]),
    ],
)
def test_golden_case(method, expected):
    np.testing.assert_allclose(direction(method, GOLDEN), expected, atol=1e-4)


@st.composite
def jacobians(draw):
    """Gradients of every awkward kind: few or many tasks, scales over twelve orders, zero,
    parallel, opposite, rank-deficient.
    """
    T = draw(st.sampled_from([2, 3, 8, 32]))
    P = draw(st.sampled_from([1, T // 2 + 1, 3 * T]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    J = rng.normal(size=(T, P)) * 10 ** rng.uniform(-6, 6, size=(T, 1)) ** draw(st.booleans())
    kind = draw(st.sampled_from(["generic", "zero", "parallel", "opposite"]))
    if kind != "generic":
        J[0] = {"zero": 0.0, "parallel": 3.0, "opposite": -2.0}[kind] * J[1]
    return torch.from_numpy(J)


def conflict(method, J):
    """Smallest cosine between the update and a task's gradient, per unit of the weighted gradients
    that were added up.
    """
    G = gram(J)
    w, norms = method(G), G.diagonal().sqrt()
    size = (w.abs() * norms).sum().clamp_min(1e-100)
    return ((G @ w) / (norms.clamp_min(1e-100) * size)).min()


@EVERY
@settings(max_examples=40, deadline=None)
@given(J=jacobians())
def test_weights_are_finite_and_one_a_task(name, J):
    w = named(name)(gram(J))
    assert w.shape == (len(J),) and w.dtype == torch.float64 and torch.isfinite(w).all()


# -------------------------------------------------------------- the table of promises (promises.py)
def named(name):
    """The method of this name; "sum" has ones, and PCGrad the orders of seed 0."""
    if name == "sum":
        return lambda G: torch.ones(len(G), dtype=torch.float64)
    return balancing.method(name)


def test_a_method_that_is_added_must_say_what_it_promises():
    assert list(KEPT) == ["sum", *METHODS], "tests/promises.py has a row for every method"


@st.composite
def generic(draw, signs=True, tasks=(2, 3, 8, 32), decades=0.0):
    """Gradients [T, 2T] in general position; without signs none conflict; lengths over `decades`
    orders of magnitude.
    """
    T = draw(st.sampled_from(tasks))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    J = rng.normal(size=(T, 2 * T)) * 10 ** rng.uniform(-decades / 2, decades / 2, size=(T, 1))
    return torch.from_numpy(J if signs else np.abs(J))


def same(a, b, tolerance=1e-3):
    return float((a / a.norm() - b / b.norm()).norm()) < tolerance


@pytest.mark.parametrize("name", who("no conflict, 2 tasks"))
@settings(max_examples=60, deadline=None)
@given(J=generic(tasks=(2,), decades=12))
def test_update_of_two_tasks_conflicts_with_neither(name, J):
    assert conflict(named(name), J) > -1e-7


@pytest.mark.parametrize("name", who("no conflict, any"))
@settings(max_examples=60, deadline=None)
@given(J=jacobians())
def test_update_conflicts_with_no_task(name, J):
    assert conflict(named(name), J) > -1e-7


@pytest.mark.parametrize("name", who("any order"))
@settings(max_examples=25, deadline=None)
@given(J=generic(decades=2), seed=st.integers(0, 10**6))
def test_order_of_the_tasks_does_not_matter(name, J, seed):
    order = torch.randperm(len(J), generator=torch.Generator().manual_seed(seed))
    assert same(direction(named(name), J[order]), direction(named(name), J))


@pytest.mark.parametrize("name", who("scale-free"))
@settings(max_examples=40, deadline=None)
@given(J=generic(), seed=st.integers(0, 10**6))
def test_unit_of_a_loss_does_not_turn_the_update(name, J, seed):
    generator = torch.Generator().manual_seed(seed)
    unit = 10 ** (12 * torch.rand(len(J), 1, dtype=torch.float64, generator=generator) - 6)
    assert same(direction(named(name), unit * J), direction(named(name), J))


@pytest.mark.parametrize("name", who("sum if none conflicts"))
@settings(max_examples=25, deadline=None)
@given(J=generic(signs=False, decades=12))
def test_without_conflict_it_is_the_sum(name, J):
    assert same(direction(named(name), J), J.sum(0))


def stuck(J, seed):
    """The gradients but the first, and one more that makes a positive mixture of them zero."""
    generator = torch.Generator().manual_seed(seed)
    p = 0.2 + torch.rand(len(J) - 1, 1, dtype=torch.float64, generator=generator)
    return torch.cat([J[1:], -(p * J[1:]).sum(0, keepdim=True)])


@pytest.mark.parametrize("name", who("rests on the front"))
@settings(max_examples=40, deadline=None)
@given(
    J=generic(tasks=(3, 8, 32)),
    seed=st.integers(0, 10**6),
    away=st.sampled_from([1e-3, 1e-4, 1e-5]),
)
def test_update_is_short_near_the_front(name, J, seed, away):
    # nearer to the front Aligned-MTL takes the smallest singular value for zero: see below
    assume(name != "aligned_mtl" or away > 1e-5)
    near = stuck(J, seed) + away * J[0]
    assert direction(named(name), near).norm() < 100 * away * near.norm(dim=1).mean()


REST_ON_IT = [name for name in who("rests on the front") if name != "aligned_mtl"]


@pytest.mark.parametrize("name", REST_ON_IT)
@settings(max_examples=40, deadline=None)
@given(J=generic(tasks=(3, 8, 32)), seed=st.integers(0, 10**6))
def test_update_vanishes_on_the_front(name, J, seed):
    assert direction(named(name), stuck(J, seed)).norm() < 1e-4 * J.norm(dim=1).mean()


def test_aligned_mtl_jumps_on_the_front_itself():
    """There a singular value is zero, so the smallest that is not zero is another one: what its
    docstring says.
    """
    J = stuck(torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), 0)
    noise = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert (
        direction(aligned_mtl, J + 1e-5 * noise).norm() < 1e-3
        and direction(aligned_mtl, J).norm() > 1e-2
    )


@EVERY
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_common_scale_only_scales_the_update(name, scale):
    J = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    # Nash: w ~ 1 / scale, so d = w J does not change at all; FairGrad: w = (G w)^-2.
    factor = {"nash_mtl": 1.0, "fairgrad": scale ** (-1 / 3)}.get(name, scale)
    scaled, plain = direction(named(name), scale * J), direction(named(name), J)
    torch.testing.assert_close(scaled, factor * plain, rtol=1e-5, atol=1e-5 * factor)


@settings(max_examples=60, deadline=None)
@given(J=jacobians())
def test_mgda_is_the_shortest_convex_combination(J):
    G = gram(J)
    w = mgda(G)
    assert (w >= 0).all() and abs(w.sum() - 1) < 1e-12
    # KKT: G w >= w^T G w for every task, with equality where w > 0, relative to the sizes involved
    length, norms = w @ G @ w, G.diagonal().sqrt()
    slack = (G @ w - length) / norms.clamp_min(1e-100) / (w * norms).sum().clamp_min(1e-100)
    assert slack.min() > -1e-6


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), T=st.sampled_from([2, 3, 8, 32]))
def test_nash_weights_solve_the_bargaining_equation(seed, T):
    g = torch.Generator().manual_seed(seed)
    J = torch.randn(T, 3 * T, dtype=torch.float64, generator=g)
    J = J * 10 ** (6 * torch.rand(T, 1, generator=g) - 3)
    G = gram(J)
    w = nash_mtl(G)
    assert (w > 0).all()
    torch.testing.assert_close(w * (G @ w), torch.ones(T, dtype=torch.float64), rtol=1e-6, atol=0)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    T=st.sampled_from([1, 2, 3, 8, 32]),
    alpha=st.sampled_from([0.5, 1.0, 2.0, 5.0, 20.0]),
)
def test_fairgrads_weights_solve_its_equation(seed, T, alpha):
    g = torch.Generator().manual_seed(seed)
    J = torch.randn(T, 3 * T, dtype=torch.float64, generator=g)
    J = J * 10 ** (2 * torch.rand(T, 1, generator=g) - 1)
    w = fairgrad(gram(J), alpha)
    assert (w > 0).all()
    torch.testing.assert_close((gram(J) @ w).log(), -w.log() / alpha, rtol=1e-6, atol=1e-6)


def test_fairgrad_is_between_dualproj_nash_and_mgda():
    J = torch.randn(4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    J = J * torch.tensor([[1.0], [3.0], [0.2], [1.0]])
    G = gram(J)
    torch.testing.assert_close(fairgrad(G, 1.0), nash_mtl(G), rtol=1e-9, atol=0)
    for alpha, limit in ((0.01, dualproj), (100.0, mgda)):
        assert same(direction(lambda G, a=alpha: fairgrad(G, a), J), direction(limit, J), 0.03), (
            alpha
        )
    J_agree = J.abs()
    assert same(direction(lambda G: fairgrad(G, 0.01), J_agree), J_agree.sum(0), 0.03)
    gains = [G @ fairgrad(G, alpha) for alpha in (0.5, 1.0, 2.0, 5.0)]
    shares = [float(gain.min() / gain.sum()) for gain in gains]
    assert shares == sorted(shares), "the larger alpha, the more for the task that gains least"


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("factor", [1e-3, 30.0, 1e3])
def test_fairgrads_unit_of_a_loss_where_gradients_are_at_right_angles(alpha, factor):
    """Chapter 6: the part |w_t g_t| goes as |g_t|^((1 - alpha) / (1 + alpha))."""
    lengths = torch.tensor([factor, 1.0], dtype=torch.float64)
    parts = fairgrad(lengths.square().diag(), alpha) * lengths
    wanted = lengths ** ((1 - alpha) / (1 + alpha))
    torch.testing.assert_close(parts, wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_fairgrads_power_is_a_positive_number(alpha):
    with pytest.raises(ValueError, match="it is a positive number"):
        fairgrad(gram(GOLDEN), alpha)


@pytest.mark.parametrize("alpha, slope", [(0.5, 1 / 3), (1.0, 0.0), (2.0, -1 / 3)])
def test_fairgrads_update_towards_the_front(alpha, slope):
    """Two unit gradients at an angle of pi - delta: the length goes as a power of delta."""

    def length(delta):
        J = torch.tensor([[1.0, 0.0], [-np.cos(delta), np.sin(delta)]], dtype=torch.float64)
        return float(direction(lambda G: fairgrad(G, alpha), J).norm())

    found = np.log(length(1e-2) / length(1e-3)) / np.log(10)
    assert found == pytest.approx(slope, abs=0.01)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_imtl_g_projects_equally_on_every_unit_gradient(seed):
    J = torch.randn(4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    projections = (J / J.norm(dim=1, keepdim=True)) @ direction(imtl_g, J)
    torch.testing.assert_close(projections, projections.mean().expand(4), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("angle", [1e-1, 1e-4, 1e-6, 1e-8, 0.0])
def test_imtl_g_of_two_tasks_is_the_bisector_up_to_opposite_gradients(angle):
    J = torch.tensor([[1.0, 0.0], [-3 * np.cos(angle), 3 * np.sin(angle)]], dtype=torch.float64)
    torch.testing.assert_close(
        imtl_g(gram(J)), torch.tensor([0.75, 0.25], dtype=torch.float64), rtol=1e-3, atol=0
    )


def test_aligned_mtl_makes_the_system_orthogonal():
    J = torch.randn(4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values, vectors = torch.linalg.eigh(gram(J))
    aligned = values.min().sqrt() * vectors @ torch.diag(values.rsqrt()) @ vectors.T @ J
    torch.testing.assert_close(
        aligned @ aligned.T, values.min() * torch.eye(4, dtype=torch.float64)
    )
    torch.testing.assert_close(direction(aligned_mtl, J), aligned.mean(0))


@pytest.mark.parametrize("c", [0.1, 0.5, 0.9])
def test_cagrad_is_the_best_for_the_worst_task_in_its_ball(c):
    J = torch.tensor([[-2.0, 0.3], [1.0, 1.0]], dtype=torch.float64)
    mean = J.mean(0)
    angle = torch.linspace(0, 2 * torch.pi, 200_001, dtype=torch.float64)
    ring = mean + c * mean.norm() * torch.stack([angle.cos(), angle.sin()], dim=1)
    best = (ring @ J.T).min(dim=1).values.max()
    d = direction(lambda G: cagrad(G, c), J)
    assert abs((d - mean).norm() - c * mean.norm()) < 1e-6
    assert (J @ d).min() == pytest.approx(best.item(), rel=1e-5)


def test_cagrad_with_radius_zero_is_the_mean():
    torch.testing.assert_close(direction(lambda G: cagrad(G, 0.0), GOLDEN), GOLDEN.mean(0))
    with pytest.raises(ValueError, match="cannot be negative"):
        cagrad(gram(GOLDEN), -0.1)


def naive_pcgrad(J, orders):
    """Algorithm 1 of the paper, on the gradients themselves."""
    projected = J.clone()
    for i, order in enumerate(orders):
        for j in order:
            dot = projected[i] @ J[j]
            if j != i and dot < 0:
                projected[i] -= dot / (J[j] @ J[j]) * J[j]
    return projected.sum(0)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), T=st.sampled_from([2, 3, 8]))
def test_pcgrad_equals_the_algorithm_on_the_gradients(seed, T):
    rng = np.random.default_rng(seed)
    J = torch.from_numpy(rng.normal(size=(T, T + 1)))
    orders = np.stack([rng.permutation(T) for _ in range(T)])
    expected = naive_pcgrad(J, orders)
    torch.testing.assert_close(pcgrad(gram(J), torch.from_numpy(orders)) @ J, expected)
    others = [[j for j in order if j != i] for i, order in enumerate(orders)]
    torch.testing.assert_close(pcgrad(gram(J), others) @ J, expected)


def test_pcgrad_needs_an_order_for_every_task():
    with pytest.raises(ValueError, match="1 orders for 2 tasks"):
        pcgrad(gram(GOLDEN), [[1]])


def test_a_gradient_too_short_to_be_squared_is_not_projected_upon():
    """A square of 1e-340 is zero in float64, and the dot product with a long gradient is not."""
    w = pcgrad(gram(torch.tensor([[1.0, 0.0], [-1e-170, 0.0]], dtype=torch.float64)))
    torch.testing.assert_close(w, torch.tensor([1.0, 1.0], dtype=torch.float64))


def test_pcgrads_orders_come_from_its_own_generator():
    J = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    first, same, other = PCGrad(0), PCGrad(0), PCGrad(1)
    torch.manual_seed(0)
    draws = [first(gram(J)) for _ in range(4)]
    torch.manual_seed(1)
    assert all(torch.equal(same(gram(J)), w) for w in draws)
    assert not torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], other(gram(J)))
    assert torch.equal(balancing.method("pcgrad", seed=1)(gram(J)), PCGrad(1)(gram(J)))


def test_pcgrad_without_orders_draws_them_from_torchs_generator():
    J = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    draws = []
    for seed in (0, 0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            draws.append(pcgrad(gram(J)))
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_pcgrads_state_dict_goes_on_with_the_same_orders():
    J = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    whole, resumed = PCGrad(0), PCGrad(5)
    whole(gram(J))
    resumed.load_state_dict(whole.state_dict())
    assert all(torch.equal(whole(gram(J)), resumed(gram(J))) for _ in range(4))


def test_an_unknown_method_is_told_the_known_ones():
    with pytest.raises(ValueError, match="no method 'pc_grad'; there are mgda, pcgrad, cagrad"):
        balancing.method("pc_grad")


def test_without_conflict_projections_change_nothing():
    J = torch.eye(3, dtype=torch.float64) + 0.1
    torch.testing.assert_close(pcgrad(gram(J)), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(upgrad(gram(J)), torch.full((3,), 1 / 3, dtype=torch.float64))
    torch.testing.assert_close(dualproj(gram(J)), torch.full((3,), 1 / 3, dtype=torch.float64))


@EVERY
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_gradients_are_named(name, bad):
    G = gram(GOLDEN)
    G[1, 1] = bad
    with pytest.raises(FloatingPointError, match="task 1 is not finite"):
        named(name)(G)
    with pytest.raises(ValueError, match=r"\[T, T\]"):
        named(name)(torch.zeros(2, 3))


def test_norms_and_cosines_of_a_tensor_and_of_an_array_are_the_same():
    J = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    G = torch.stack([gram(J), gram(2 * J)])
    norms, cosines = balancing.normalised(G)
    assert norms.tolist() == [[5, 1, 1], [10, 1, 2]]
    assert cosines[0].tolist() == cosines[1].tolist() == [[1, 0, 0.6], [0, 0, 0], [0.6, 0, 1]]
    for tensor, array in zip((norms, cosines), balancing.normalised(G.numpy()), strict=True):
        assert isinstance(array, np.ndarray) and tensor.tolist() == array.tolist()


# ------------------------------------------------------------------------------- against torchjd
def shifted(T):
    """Gradients [T, 3T] in general position, with some conflicts."""
    generator = torch.Generator().manual_seed(T)
    return torch.randn(T, 3 * T, dtype=torch.float64, generator=generator) - 0.3


@pytest.mark.parametrize("T", [2, 3, 8, 32])
def test_against_torchjd(T):
    projector = QuadprogProjector(norm_eps=0, reg_eps=0)
    J = shifted(T)
    for method, oracle in [
        (upgrad, aggregation.UPGrad(projector=projector)),
        (dualproj, aggregation.DualProj(projector=projector)),
        (imtl_g, aggregation.IMTLG()),
        (aligned_mtl, aggregation.AlignedMTL()),
    ]:
        torch.testing.assert_close(direction(method, J), oracle(J), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("T", [2, 3, 8, 32])
def test_pcgrad_equals_torchjds_with_the_same_permutations(T):
    J = shifted(T)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        orders = torch.stack([torch.randperm(T) for _ in range(T)])
        torch.manual_seed(5)
        expected = aggregation.PCGrad()(J)
    torch.testing.assert_close(pcgrad(gram(J), orders) @ J, expected)


@pytest.mark.parametrize("T", [2, 3, 8, 32])
@pytest.mark.parametrize("c", [0.2, 0.5])
def test_cagrad_equals_torchjds(T, c):
    J = shifted(T)
    expected = aggregation.CAGrad(c=c, norm_eps=0.0)(J)
    torch.testing.assert_close(
        direction(lambda G: cagrad(G, c), J), expected, rtol=0, atol=1e-4 * float(expected.norm())
    )


@pytest.mark.parametrize("T", [2, 3, 8, 32])
def test_nash_equals_torchjds_fairgrad_on_normalised_gradients(T):
    J = shifted(T)
    J = J / J.norm(dim=1, keepdim=True)
    torch.testing.assert_close(
        direction(nash_mtl, J), aggregation.FairGrad(alpha=1.0)(J), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("T", [1, 2, 3, 8])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_fairgrad_equals_torchjds(T, alpha):
    J = shifted(T)
    J = J / J.norm(dim=1, keepdim=True) * (1 + torch.arange(T)[:, None])
    torch.testing.assert_close(
        direction(lambda G: fairgrad(G, alpha), J),
        aggregation.FairGrad(alpha=alpha)(J),
        rtol=1e-4,
        atol=1e-4,
    )


# ------------------------------------------------------------------------------------- in training
def test_a_run_with_pcgrad_goes_on_from_its_checkpoint_with_the_same_orders(tmp_path):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(48, 4, generator=g)
    tasks = {name: regression(name) for name in "abc"}
    data = Table(x, {name: torch.randn(48, 1, generator=g) for name in tasks})

    def trained(epochs, method, checkpoint=None):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = HardSharing(nn.Linear(4, 2), {name: nn.Linear(2, 1) for name in tasks})
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        options = {"epochs": epochs, "batch": 16, "progress": False, "checkpoint": checkpoint}
        fit_tasks(model, tasks, data, data, optimizer, method, **options)
        return model.trunk.weight.detach()

    whole = trained(4, PCGrad(0))
    trained(2, PCGrad(0), tmp_path / "run.pt")
    assert torch.equal(trained(4, PCGrad(0), tmp_path / "run.pt"), whole)
    assert not torch.equal(trained(4, PCGrad(1)), whole), "the orders matter here"
