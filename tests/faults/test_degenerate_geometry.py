"""Gradients that are singular, opposite, equal, zero, or of very different lengths; and distances
far from zero.

Every method of `balancing.METHODS` is held on 1,000 degenerate Gram matrices against an independent
solver (Clarabel's interior points, quadprog's active sets), or against the equations that define
it.
"""

import clarabel
import numpy as np
import pytest
import quadprog
import torch
from scipy import sparse

from mtl_course import meta, multitask
from mtl_course.multitask import balancing

MATRICES = 1000
OPPOSITE = [[1, -1, 0.2], [-1, 1, -0.2], [0.2, -0.2, 1]]


def gradients(number):
    """Gradients J [T, P] of one of eight degenerate kinds, of one scale or of many."""
    draw = np.random.RandomState(number)
    T, P = draw.randint(2, 7), draw.randint(2, 9)
    J = draw.randn(T, P)
    match number % 8:
        case 0:  # more tasks than directions
            J = draw.randn(T + 3, 2)
        case 1:  # rank one, of both signs
            J = np.outer(draw.randn(T), draw.randn(P))
        case 2:  # two that are opposite
            J[1] = -draw.choice([0.5, 1.0, 3.0]) * J[0]
        case 3:  # opposite but for the last digits
            J[1] = -J[0] * (1 + 10.0 ** -draw.randint(3, 12))
        case 4:  # one without a gradient
            J[draw.randint(T)] = 0
        case 5:  # two that are equal
            J[1] = J[0]
        case 6:  # they sum to zero
            J[-1] = -J[:-1].sum(0)
        case 7:  # every task has its own scale
            J = J * 10.0 ** draw.uniform(-3, 3, size=(len(J), 1))
    return J * 10.0 ** draw.uniform(-6, 6)


def solve(P, q, A, b, cones):
    """(x, z) of min x^T P x / 2 + q x with b - A x in the cones."""
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-11
    matrices = [sparse.csc_matrix(np.asarray(M, dtype=float)) for M in (np.triu(P), A)]
    solver = clarabel.DefaultSolver(matrices[0], q, matrices[1], b, cones, settings)
    solution = solver.solve()
    return np.array(solution.x), np.array(solution.z)


# Every check takes unit gradients' length: J is divided by the longest.
def is_shortest(J, w):
    """MGDA: on the simplex, and no gradient makes the combination shorter."""
    d, lengths = w @ J, np.linalg.norm(J, axis=1)
    assert w.min() >= 0 and abs(w.sum() - 1) < 1e-9
    assert (J @ d >= d @ d - 1e-9 * lengths * (w @ lengths) - 1e-300).all()
    T = len(J)
    A = np.vstack([np.ones((1, T)), -np.eye(T)])
    b = np.append(1.0, np.zeros(T))
    cones = [clarabel.ZeroConeT(1), clarabel.NonnegativeConeT(T)]
    x, _ = solve(2 * J @ J.T, np.zeros(T), A, b, cones)
    assert np.linalg.norm(d) <= np.linalg.norm(x @ J) + 1e-5


def helps_the_worst_most(J, w, c=0.5):
    """CAGrad: in the ball, and its worst task is as well off as in the solver's optimum."""
    T, mean = len(J), J.mean(0)
    d, radius = w @ J, c * np.linalg.norm(mean)
    assert np.linalg.norm(d - mean) <= radius * (1 + 1e-4) + 1e-7
    # max t with J d >= t and |d - mean| <= radius, over x = (d, t)
    P = J.shape[1]
    A = np.block([[-J, np.ones((T, 1))], [np.zeros((1, P + 1))], [-np.eye(P), np.zeros((P, 1))]])
    b = np.concatenate([np.zeros(T), [radius], -mean])
    cones = [clarabel.NonnegativeConeT(T), clarabel.SecondOrderConeT(P + 1)]
    x, _ = solve(np.zeros((P + 1, P + 1)), np.append(np.zeros(P), -1.0), A, b, cones)
    assert (J @ d).min() >= x[-1] - 2e-6


def projection(J, u):
    """The combination sum_t u_t g_t, projected onto what conflicts with no gradient."""
    length = np.linalg.norm(J, axis=1)
    units = J[length > 0] / length[length > 0, None]
    T, P = units.shape
    try:
        return quadprog.solve_qp(np.eye(P), u @ J, units.T, np.zeros(T))[0]
    except ValueError:  # gives up where gradients are opposite but for rounding
        x, _ = solve(np.eye(P), -(u @ J), -units, np.zeros(T), [clarabel.NonnegativeConeT(T)])
        return x


def projects_the_mean(J, w):
    """DualProj."""
    np.testing.assert_allclose(w @ J, projection(J, np.full(len(J), 1 / len(J))), atol=2e-5)


def projects_each(J, w):
    """UPGrad."""
    each = [projection(J, row) for row in np.eye(len(J)) / len(J)]
    np.testing.assert_allclose(w @ J, sum(each), atol=2e-5 * len(J))


def bargains(J, w):
    """Nash-MTL: G w = 1 / w, with the ridge that bounds the weights of opposite gradients."""
    lengths = np.linalg.norm(J, axis=1)
    assert ((w > 0) == (lengths > 0)).all()
    kept = lengths > 0
    y, units = (w * lengths)[kept], J[kept] / lengths[kept, None]
    np.testing.assert_allclose(y * (units @ (y @ units) + 1e-10 * y), 1, rtol=1e-4)


def shares_fairly(J, w, alpha=2.0):
    """FairGrad: (G w)^alpha = 1 / w, with the same ridge; as near as rounding lets it, where sums
    of large terms are small.
    """
    lengths = np.linalg.norm(J, axis=1)
    assert ((w > 0) == (lengths > 0)).all()
    kept = lengths > 0
    y, units = (w * lengths)[kept], J[kept] / lengths[kept, None]
    wanted = np.exp((1 / alpha - 1) * np.log(lengths[kept]) - np.log(y) / alpha)
    rounding = 1e-13 * np.abs(units @ units.T) @ y / wanted
    wrong = np.abs((units @ (y @ units) + 1e-10 * y) / wanted - 1)
    assert (wrong < 1e-4 + rounding).all(), wrong


def projects_equally(J, w):
    """IMTL-G: the same projection on every unit gradient, where there is such a direction."""
    assert np.isfinite(w).all() and abs(w.sum() - 1) < 1e-6 * max(1, np.abs(w).sum())
    lengths = np.linalg.norm(J, axis=1)
    kept = lengths > 0
    units = J[kept] / lengths[kept, None]
    values = np.linalg.eigvalsh(units @ units.T)
    if values[0] > 1e-6:
        on_units = units @ (w @ J)
        np.testing.assert_allclose(on_units, on_units.mean(), atol=1e-6 * np.abs(w @ lengths))


def is_aligned(J, w):
    """Aligned-MTL: by the singular values of the gradients themselves."""
    U, sigma, V = np.linalg.svd(J, full_matrices=False)
    share = sigma / sigma[0]
    if ((share > 1e-8) & (share < 1e-4)).any():
        return  # neither a direction nor a rounding error: which of the two is a convention
    kept = share > 1e-6
    aligned = sigma[kept].min() * U[:, kept] @ V[kept]
    np.testing.assert_allclose(w @ J, aligned.mean(0), atol=1e-5)


def is_surgery(J, w):
    """PCGrad: algorithm 1 on the gradients, in the order of the tasks."""
    total = np.zeros(J.shape[1])
    for i, g in enumerate(J):
        projected = g.copy()
        for j, other in enumerate(J):
            if j != i and projected @ other < 0 < other @ other:
                projected -= projected @ other / (other @ other) * other
        total += projected
    lengths = np.linalg.norm(J, axis=1)
    np.testing.assert_allclose(w @ J, total, atol=1e-6 * (w @ lengths))


CHECKS = {
    "mgda": is_shortest,
    "pcgrad": is_surgery,
    "cagrad": helps_the_worst_most,
    "imtl_g": projects_equally,
    "aligned_mtl": is_aligned,
    "nash_mtl": bargains,
    "fairgrad": shares_fairly,
    "upgrad": projects_each,
    "dualproj": projects_the_mean,
}
UNITS = {"nash_mtl": 1, "fairgrad": 4 / 3}  # 2 alpha / (1 + alpha)


def weights_of(name, J):
    G = torch.from_numpy(J @ J.T)
    if name == "pcgrad":
        return balancing.pcgrad(G, [range(len(J))] * len(J)).numpy()
    return balancing.METHODS[name](G).numpy()


def test_every_method_has_its_check():
    assert CHECKS.keys() == balancing.METHODS.keys()


@pytest.mark.parametrize("name", CHECKS)
def test_a_method_is_right_on_degenerate_gradients(name):
    wrong = {}
    for number in range(MATRICES):
        J = gradients(number)
        w, longest = weights_of(name, J), np.linalg.norm(J, axis=1).max()
        try:
            assert np.isfinite(w).all()
            # Nash's weights are of the unit 1 / gradient, FairGrad's of a power of it, those of all
            # others of none.
            CHECKS[name](J / longest, w * longest ** UNITS.get(name, 0))
        except AssertionError as error:
            wrong[number] = " ".join(str(error).split())[:200]
    kinds = sorted({number % 8 for number in wrong})
    assert not wrong, (
        f"{len(wrong)} of {MATRICES}, of the kinds {kinds}: {dict(list(wrong.items())[:5])}"
    )


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("tasks", [1, 2, 4])
def test_tasks_that_have_no_gradient_at_all(name, tasks):
    assert np.isfinite(weights_of(name, np.zeros((tasks, 3)))).all()
    one = np.zeros((tasks, 3))
    one[0, 1] = 2.0
    assert np.isfinite(weights_of(name, one)).all()


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0, 5.0, 20.0])
def test_fairgrad_with_other_powers(alpha):
    for number in range(160):
        J = gradients(number)
        w = balancing.fairgrad(torch.from_numpy(J @ J.T), alpha).numpy()
        shares_fairly(J, w, alpha)


def test_cagrad_of_two_opposite_tasks_and_a_third():
    G = torch.tensor(OPPOSITE, dtype=torch.float64)
    w = balancing.cagrad(G)
    # The first two stand still, the third gains what the ball allows; no weight is huge.
    assert (G @ w)[:2].abs().max() < 1e-6 and (G @ w)[2] > 0.3 and w.max() < 2


@pytest.mark.parametrize("c", [0.0, 0.2, 0.9, 1.0, 2.0])
def test_cagrad_in_balls_of_every_size(c):
    for number in range(160):
        J = gradients(number)
        J = J / np.linalg.norm(J, axis=1).max()
        w = balancing.cagrad(torch.from_numpy(J @ J.T), c).numpy()
        helps_the_worst_most(J, w, c)


# ---------------------------------------------------------------------------------------- distances
def far(offset, dtype, spread=1.0):
    draw = torch.Generator().manual_seed(0)
    z = offset + spread * torch.randn(2, 5, 6, generator=draw, dtype=torch.float64)
    return z.to(dtype), z[:, :3].flip(1).to(dtype) + torch.tensor(spread, dtype=dtype)


DISTANCES = {
    "distance_logits": lambda z, centres: -meta.distance_logits(z, centres),
    "closeness": lambda z, centres: multitask.closeness(torch.cat([z, centres], 1)).square()[
        :, : z.shape[1], z.shape[1] :
    ],
}


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("offset", [0.0, 1e2, 1e4, 1e6, -1e4])
def test_distances_far_from_zero_keep_their_digits(name, offset):
    z, centres = far(offset, torch.float32)
    true = torch.cdist(
        z.double(), centres.double(), compute_mode="donot_use_mm_for_euclid_dist"
    ).square()
    torch.testing.assert_close(DISTANCES[name](z, centres).double(), true, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("offset, spread", [(300.0, 1.0), (0.0, 200.0)])
def test_logits_of_short_types_are_finite(dtype, offset, spread):
    z, centres = far(offset, dtype, spread)
    true = torch.cdist(
        z.double(), centres.double(), compute_mode="donot_use_mm_for_euclid_dist"
    ).square()
    logits = meta.distance_logits(z, centres)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(-logits.double(), true, rtol=1e-5, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z, centres = far(offset, torch.float32, spread)
        assert torch.equal(
            meta.distance_logits(z, centres).argmax(-1), torch.cdist(z, centres).argmin(-1)
        )


def test_groups_do_not_depend_on_the_unit_of_the_similarities():
    S = torch.full((6, 6), 0.1, dtype=torch.float64)
    S[:3, :3] = S[3:, 3:] = 1.0
    for scale in (1e-12, 1e-6, 1.0, 1e6, 1e12):
        assert multitask.spectral_groups(scale * S, 2) == [[0, 1, 2], [3, 4, 5]]
