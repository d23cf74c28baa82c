"""Gradient balancing against closed forms, optimality conditions and torchjd. All in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from promises import who
from torchjd import aggregation
from torchjd._linalg._dual_cone import (
    QuadprogProjector,  # not exported: the one way to switch its epsilons off
)

from mtl_course.multitask import balancing
from mtl_course.multitask.balancing import (
    aligned_mtl,
    cagrad,
    dualproj,
    gram,
    imtl_g,
    mgda,
    nash_mtl,
    pcgrad,
    upgrad,
)

METHODS = [mgda, pcgrad, cagrad, imtl_g, aligned_mtl, nash_mtl, upgrad, dualproj]
GOLDEN = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)


def direction(method, J):
    return method(gram(J)) @ J


@pytest.mark.parametrize(
    "method, expected",
    [
        (mgda, [0.0, 1.0, 1.0]),
        (pcgrad, [0.5848, 3.8012, 3.8012]),
        (upgrad, [0.2924, 1.9006, 1.9006]),  # for two tasks half of PCGrad's, exactly
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
    w = method(G)
    size = (w.abs() * G.diagonal().sqrt()).sum().clamp_min(1e-100)
    return ((G @ w) / (G.diagonal().sqrt().clamp_min(1e-100) * size)).min()


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)
@settings(max_examples=40, deadline=None)
@given(J=jacobians())
def test_weights_are_finite_and_one_a_task(method, J):
    w = method(gram(J))
    assert w.shape == (len(J),) and w.dtype == torch.float64 and torch.isfinite(w).all()


# -------------------------------------------------------------- the table of promises (promises.py)
def named(name):
    """The method of this name; "sum" has ones, and PCGrad a fixed order."""
    if name == "sum":
        return lambda G: torch.ones(len(G), dtype=torch.float64)
    return (
        (lambda G: pcgrad(G, torch.Generator().manual_seed(0)))
        if name == "pcgrad"
        else getattr(balancing, name)
    )


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
    unit = 10 ** (
        12
        * torch.rand(len(J), 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        - 6
    )
    assert same(direction(named(name), unit * J), direction(named(name), J))


@pytest.mark.parametrize("name", who("sum if none conflicts"))
@settings(max_examples=25, deadline=None)
@given(J=generic(signs=False, decades=12))
def test_without_conflict_it_is_the_sum(name, J):
    assert same(direction(named(name), J), J.sum(0))


def stuck(J, seed):
    """The gradients but the first, and one more that makes a positive mixture of them zero."""
    p = 0.2 + torch.rand(
        len(J) - 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    return torch.cat([J[1:], -(p * J[1:]).sum(0, keepdim=True)])


@pytest.mark.parametrize("name", who("rests on the front"))
@settings(max_examples=40, deadline=None)
@given(
    J=generic(tasks=(3, 8, 32)),
    seed=st.integers(0, 10**6),
    away=st.sampled_from([1e-3, 1e-4, 1e-5]),
)
def test_update_is_short_near_the_front(name, J, seed, away):
    near = stuck(J, seed) + away * J[0]
    assert direction(named(name), near).norm() < 100 * away * near.norm(dim=1).mean()


@pytest.mark.parametrize(
    "name", [name for name in who("rests on the front") if name != "aligned_mtl"]
)
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


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_common_scale_only_scales_the_update(method, scale):
    J = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    seeded = (lambda G: pcgrad(G, torch.Generator().manual_seed(1))) if method is pcgrad else method
    power = (
        -1 if method is nash_mtl else 1
    )  # Nash: w ~ 1 / scale, so d = w J does not change at all
    factor = 1.0 if power == -1 else scale
    torch.testing.assert_close(
        direction(seeded, scale * J), factor * direction(seeded, J), rtol=1e-5, atol=1e-5 * factor
    )


@settings(max_examples=60, deadline=None)
@given(J=jacobians())
def test_mgda_is_the_shortest_convex_combination(J):
    G = gram(J)
    w = mgda(G)
    assert (w >= 0).all() and abs(w.sum() - 1) < 1e-12
    # KKT: G w >= w^T G w for every task, with equality where w > 0, relative to the sizes involved
    length = w @ G @ w
    slack = (
        (G @ w - length)
        / G.diagonal().sqrt().clamp_min(1e-100)
        / (w * G.diagonal().sqrt()).sum().clamp_min(1e-100)
    )
    assert slack.min() > -1e-6


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), T=st.sampled_from([2, 3, 8, 32]))
def test_nash_weights_solve_the_bargaining_equation(seed, T):
    g = torch.Generator().manual_seed(seed)
    J = torch.randn(T, 3 * T, dtype=torch.float64, generator=g) * 10 ** (
        6 * torch.rand(T, 1, generator=g) - 3
    )
    G = gram(J)
    w = nash_mtl(G)
    assert (w > 0).all()
    torch.testing.assert_close(w * (G @ w), torch.ones(T, dtype=torch.float64), rtol=1e-6, atol=0)


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
    w = torch.from_numpy(balancing._pcgrad_in_order(gram(J).numpy(), orders))
    torch.testing.assert_close(w @ J, naive_pcgrad(J, orders))


def test_pcgrad_order_comes_from_the_generator():
    J = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    draws = [pcgrad(gram(J), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_without_conflict_projections_change_nothing():
    J = torch.eye(3, dtype=torch.float64) + 0.1
    torch.testing.assert_close(pcgrad(gram(J)), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(upgrad(gram(J)), torch.full((3,), 1 / 3, dtype=torch.float64))
    torch.testing.assert_close(dualproj(gram(J)), torch.full((3,), 1 / 3, dtype=torch.float64))


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)
def test_bad_gradients_are_named(method):
    G = gram(GOLDEN)
    G[1, 1] = float("nan")
    with pytest.raises(ValueError, match="task 1 is not finite"):
        method(G)
    with pytest.raises(ValueError, match=r"\[T, T\]"):
        method(torch.zeros(2, 3))


@pytest.mark.parametrize("T", [2, 3, 8, 32])
def test_against_torchjd(T):
    projector = QuadprogProjector(norm_eps=0, reg_eps=0)
    J = torch.randn(T, 3 * T, dtype=torch.float64, generator=torch.Generator().manual_seed(T)) - 0.3
    for method, oracle in [
        (upgrad, aggregation.UPGrad(projector=projector)),
        (dualproj, aggregation.DualProj(projector=projector)),
        (imtl_g, aggregation.IMTLG()),
        (aligned_mtl, aggregation.AlignedMTL()),
    ]:
        torch.testing.assert_close(direction(method, J), oracle(J), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("T", [2, 3, 8, 32])
def test_pcgrad_equals_torchjds_with_the_same_permutations(T):
    J = torch.randn(T, 3 * T, dtype=torch.float64, generator=torch.Generator().manual_seed(T)) - 0.3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        orders = np.stack([torch.randperm(T).numpy() for _ in range(T)])
        torch.manual_seed(5)
        expected = aggregation.PCGrad()(J)
    torch.testing.assert_close(
        torch.from_numpy(balancing._pcgrad_in_order(gram(J).numpy(), orders)) @ J, expected
    )


@pytest.mark.parametrize("T", [2, 3, 8, 32])
@pytest.mark.parametrize("c", [0.2, 0.5])
def test_cagrad_equals_torchjds(T, c):
    J = torch.randn(T, 3 * T, dtype=torch.float64, generator=torch.Generator().manual_seed(T)) - 0.3
    expected = aggregation.CAGrad(c=c, norm_eps=0.0)(J)
    torch.testing.assert_close(
        direction(lambda G: cagrad(G, c), J), expected, rtol=0, atol=1e-4 * float(expected.norm())
    )


@pytest.mark.parametrize("T", [2, 3, 8, 32])
def test_nash_equals_torchjds_fairgrad_on_normalised_gradients(T):
    J = torch.randn(T, 3 * T, dtype=torch.float64, generator=torch.Generator().manual_seed(T)) - 0.3
    J = J / J.norm(dim=1, keepdim=True)
    torch.testing.assert_close(
        direction(nash_mtl, J), aggregation.FairGrad(alpha=1.0)(J), rtol=1e-5, atol=1e-6
    )
