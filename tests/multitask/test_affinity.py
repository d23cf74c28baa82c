"""Task graphs against other ways to compute the same; affinities, groupings and their tests against
cases with a known answer.
"""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import spearmanr
from sklearn.cluster import SpectralClustering

from mtl_course.multitask import affinity, grouping, linear, task_graph
from mtl_course.multitask.linear import mean_regularised, normal_equations, ridge


@pytest.fixture
def tasks():
    """Gram matrices of 5 tasks with 3 features and 2 to 9 examples."""
    draw = np.random.RandomState(0)
    xs = [torch.tensor(draw.normal(size=(n, 3))) for n in (2, 4, 5, 7, 9)]
    ys = [torch.tensor(draw.normal(size=len(x))) for x in xs]
    statistics = [normal_equations(x, y) for x, y in zip(xs, ys, strict=True)]
    a, b = (torch.stack(values) for values in zip(*statistics, strict=True))
    S = torch.tensor(draw.rand(5, 5))
    return xs, ys, a, b, S


# ------------------------------------------------------------------------------------------- graphs
def test_laplacian_counts_every_pair_once(tasks):
    *_, S = tasks
    W = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    by_hand = sum(
        (S[i, j] + S[j, i]) / 2 * ((W[i] - W[j]) ** 2).sum() for i in range(5) for j in range(i)
    )
    assert float((W * (task_graph.laplacian(S) @ W)).sum()) == pytest.approx(float(by_hand))
    with pytest.raises(ValueError, match="negative"):
        task_graph.laplacian(-S)


def test_nearest_keeps_an_edge_that_either_end_chose():
    S = torch.tensor([[9.0, 5, 1, 2], [5, 9, 4, 1], [1, 4, 9, 3], [2, 1, 3, 9]])
    kept = task_graph.nearest(S, 1)
    expected = torch.zeros(4, 4)
    for i, j in ((0, 1), (1, 2), (2, 3)):
        expected[i, j] = expected[j, i] = S[i, j]
    torch.testing.assert_close(kept, expected)
    for k in (0, 4):
        with pytest.raises(ValueError, match="k must be"):
            task_graph.nearest(S, k)


def objective(xs, ys, W, K):
    fit = sum(((x @ w - y) ** 2).sum() for x, y, w in zip(xs, ys, W, strict=True))
    return fit + (W * (K @ W)).sum()


def test_related_ridge_is_the_numerical_optimum(tasks):
    xs, ys, a, b, S = tasks
    K = 1.7 * task_graph.laplacian(S) + 0.1 * torch.eye(5)

    def value(w):
        return float(objective(xs, ys, torch.tensor(w).reshape(5, 3), K))

    optimum = minimize(value, np.zeros(15), tol=1e-12).x
    np.testing.assert_allclose(linear.related_ridge(a, b, K).reshape(-1), optimum, atol=1e-5)


def test_gradient_descent_ends_at_related_ridge(tasks):
    _, _, a, b, S = tasks
    K = 0.5 * task_graph.laplacian(S) + 0.5 * torch.eye(5)
    W = torch.zeros(5, 3, dtype=torch.float64)
    for _ in range(4000):
        W = W - 0.02 * ((a @ W[..., None]).squeeze(-1) - b + K @ W)
    torch.testing.assert_close(linear.related_ridge(a, b, K), W, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("mu", [0.0, 0.7])
def test_known_cases_of_related_ridge(tasks, mu):
    """The complete graph is mean-regularised learning; with mu, its w_0 eliminated by hand; the
    identity is single-task ridge.
    """
    _, _, a, b, _ = tasks
    lam, T = 3.0, 5
    K = lam * (torch.eye(T) - lam / (lam * T + mu) * torch.ones(T, T)).double()
    if mu == 0:
        torch.testing.assert_close(K, lam * task_graph.laplacian(task_graph.complete(T, a)))
    torch.testing.assert_close(linear.related_ridge(a, b, K), mean_regularised(a, b, lam, mu)[1])
    torch.testing.assert_close(
        linear.related_ridge(a, b, lam * torch.eye(T).double()), ridge(a, b, lam)
    )


def test_leading_dimensions_are_solved_together(tasks):
    _, _, a, b, S = tasks
    lams = torch.tensor([0.1, 10.0], dtype=torch.float64)
    Q = task_graph.laplacian(torch.stack([S, S.flip(0), 2 * S]))
    K = lams[:, None, None, None] * Q + 0.2 * torch.eye(5)
    together = linear.related_ridge(torch.stack([a, 2 * a, a]), torch.stack([b, b, -b]), K)
    assert together.shape == (2, 3, 5, 3)
    for i in range(2):
        torch.testing.assert_close(together[i, 1], linear.related_ridge(2 * a, b, K[i, 1]))
    W, omega = task_graph.learn_relation(a, b, lams, 0.3, steps=5)
    for i in range(2):
        one = task_graph.learn_relation(a, b, float(lams[i]), 0.3, steps=5)
        torch.testing.assert_close(W[i], one[0])
        torch.testing.assert_close(omega[i], one[1])


def test_singular_systems_raise(tasks):
    _, _, a, b, _ = tasks
    with pytest.raises(torch.linalg.LinAlgError):
        # two examples, three features
        linear.related_ridge(a, b, torch.zeros(5, 5, dtype=torch.float64))


# ---------------------------------------------------------------------------------- relation matrix
def test_relation_is_the_best_of_trace_one():
    draw = torch.Generator().manual_seed(1)
    W = torch.randn(4, 6, generator=draw, dtype=torch.float64)
    omega = task_graph.relation(W)
    M = W @ W.T
    torch.testing.assert_close(omega @ omega * torch.linalg.matrix_norm(W, "nuc") ** 2, M)

    def cost(omega):
        return float(torch.trace(torch.linalg.solve(omega, M)))

    assert float(omega.trace()) == pytest.approx(1)
    assert cost(omega) == pytest.approx(float(torch.linalg.matrix_norm(W, "nuc")) ** 2)
    for _ in range(50):
        B = torch.randn(4, 4, generator=draw, dtype=torch.float64)
        other = 0.95 * omega + 0.05 * (B @ B.T) / (B @ B.T).trace()
        assert cost(other) > cost(omega)


def test_learned_relation_is_the_optimum_of_the_trace_norm(tasks):
    """With Omega eliminated the problem has the squared trace norm of W, smoothed by the floor; a
    general optimiser finds the same minimum.
    """
    xs, ys, a, b, _ = tasks
    lam, mu, floor = 0.8, 0.3, 1e-2
    eye = torch.eye(5).double()
    smooth = floor * float((linear.related_ridge(a, b, (mu + lam * 5) * eye) ** 2).sum(-1).mean())

    def value(W, smooth=smooth):
        roots = (torch.linalg.eigvalsh(W @ W.T).clamp_min(0) + smooth).sqrt()
        return float(objective(xs, ys, W, mu * eye) + lam * roots.sum() ** 2)

    W, omega = task_graph.learn_relation(a, b, lam, mu, steps=300, floor=floor)
    optimum = minimize(lambda w: value(torch.tensor(w).reshape(5, 3)), np.full(15, 0.1), tol=1e-12)
    assert value(W) == pytest.approx(optimum.fun, rel=1e-8)
    np.testing.assert_allclose(W.flatten(), optimum.x, atol=1e-3)
    assert float(omega.trace()) == pytest.approx(1) and torch.linalg.eigvalsh(omega).min() > 0
    after = [
        value(task_graph.learn_relation(a, b, lam, mu, steps=k, floor=floor)[0])
        for k in (0, 1, 3, 10, 30)
    ]
    assert after == sorted(after, reverse=True)
    sharp = task_graph.learn_relation(a, b, lam, mu, steps=300)[0]
    assert value(sharp, 0) < value(W, 0)  # the default floor is nearer to the trace norm itself


# ----------------------------------------------------------------------------------------- affinity
def test_lookahead_is_the_loss_after_a_real_step():
    torch.manual_seed(0)
    trunk, heads = torch.nn.Linear(3, 4), torch.nn.Linear(4, 3)
    x, y = torch.randn(10, 3), torch.randn(10, 3)

    def losses(shared):
        return ((heads(torch.nn.functional.linear(x, *shared).tanh()) - y) ** 2).mean(0)

    shared = [trunk.weight, trunk.bias]
    before = [p.detach().clone() for p in shared]
    Z = affinity.lookahead(losses, shared, 0.1)
    assert all(torch.equal(p, q) for p, q in zip(shared, before, strict=True))
    for i in range(3):
        copy = torch.nn.Linear(3, 4)
        copy.load_state_dict(trunk.state_dict())
        optimizer = torch.optim.SGD(copy.parameters(), lr=0.1)
        start = losses([copy.weight, copy.bias])
        start[i].backward()
        optimizer.step()
        torch.testing.assert_close(Z[i], (1 - losses([copy.weight, copy.bias]) / start).detach())


def test_cosines_and_closeness():
    J = torch.tensor([[3.0, 0], [0, 2], [1, 1], [0, 0]])
    r = 0.5**0.5
    torch.testing.assert_close(
        affinity.cosines(J @ J.T),
        torch.tensor([[1, 0, r, 0], [0, 1, r, 0], [r, r, 1, 0], [0, 0, 0, 0]]),
    )
    torch.testing.assert_close(affinity.closeness(J)[0], -torch.tensor([0, 13**0.5, 5**0.5, 3]))


def test_gain_is_positive_where_the_error_fell():
    np.testing.assert_allclose(affinity.relative_gain([2.0, 4.0], [1.0, 5.0]), [50, -25])
    np.testing.assert_allclose(affinity.both_ways([[0, 2], [4, 0]]), [[0, 3], [3, 0]])


# ------------------------------------------------------------------------ agreement of two matrices
def noise(draw, T):
    return affinity.both_ways(draw.normal(size=(T, T)))


def test_rank_correlation_is_spearmans():
    draw = np.random.RandomState(0)
    S, G = noise(draw, 7), noise(draw, 7)
    pairs = np.triu_indices(7, 1)
    assert affinity.rank_correlation(S, G) == pytest.approx(spearmanr(S[pairs], G[pairs])[0])
    assert affinity.rank_correlation(S, np.exp(S)) == pytest.approx(1)


def test_mantel_holds_its_level_where_pairs_share_tasks():
    """Both matrices have strong task effects and nothing in common: the usual p-value is far too
    often small, Mantel's is not.
    """
    draw = np.random.RandomState(1)
    usual, permuted = [], []
    for seed in range(120):
        S, G = (np.add.outer(u, u) + 0.3 * noise(draw, 12) for u in draw.normal(size=(2, 12)))
        pairs = np.triu_indices(12, 1)
        usual.append(spearmanr(S[pairs], G[pairs])[1] < 0.05)
        permuted.append(affinity.mantel(S, G, 99, seed) <= 0.05)
    assert np.mean(usual) > 0.2 and np.mean(permuted) < 0.12


def test_mantel_and_bootstrap_see_a_real_agreement():
    draw = np.random.RandomState(2)
    S = noise(draw, 15)
    G = S + 0.3 * noise(draw, 15)
    assert affinity.mantel(S, G, 200) == pytest.approx(1 / 200)
    low, high = affinity.task_bootstrap(S, G, 300)
    assert 0.5 < low < affinity.rank_correlation(S, G) < high + 0.1 <= 1.1
    assert affinity.mantel(S, -G, 200) == pytest.approx(1 / 200)  # two-sided


def test_mantel_of_a_matrix_without_an_order_is_not_a_number():
    S = noise(np.random.RandomState(0), 6)
    assert np.isnan(affinity.mantel(S, np.ones((6, 6)), 50))
    assert np.isnan(affinity.mantel(np.zeros((6, 6)), S, 50))


def test_reliability_is_one_without_noise_and_zero_without_signal():
    draw = np.random.RandomState(3)
    signal = noise(draw, 10)
    assert affinity.reliability([signal] * 6, 5) == pytest.approx(1)
    assert abs(affinity.reliability([noise(draw, 20) for _ in range(8)], 50)) < 0.15


# ----------------------------------------------------------------------------------------- grouping
def test_spectral_groups_are_scikit_learns_where_there_are_groups():
    draw = np.random.RandomState(4)
    for k in (2, 3, 4):
        labels = draw.permutation(np.arange(12) % k)
        S = affinity.both_ways(
            np.where(labels[:, None] == labels, 1.0, 0.1) * (0.5 + draw.rand(12, 12))
        )
        groups = grouping.spectral_groups(torch.tensor(S), k)
        theirs = SpectralClustering(k, affinity="precomputed", random_state=0).fit_predict(S)
        assert groups == sorted(np.flatnonzero(theirs == label).tolist() for label in range(k))
        assert groups == sorted(np.flatnonzero(labels == label).tolist() for label in range(k))
    with pytest.raises(ValueError, match="Task 1 has no tie"):
        grouping.spectral_groups(torch.tensor([[0.0, 0, 1], [0, 0, 0], [1, 0, 1]]), 2)
    with pytest.raises(ValueError, match="k must be"):
        grouping.spectral_groups(torch.ones(3, 3), 4)


def test_partitions_are_all_and_each_once():
    for tasks, bell in ((0, 1), (1, 1), (3, 5), (6, 203), (8, 4140)):
        seen = {frozenset(map(frozenset, p)) for p in grouping.partitions(tasks)}
        assert len(seen) == len(list(grouping.partitions(tasks))) == bell
        assert all(sorted(t for g in p for t in g) == list(range(tasks)) for p in seen)


def test_best_groups_finds_planted_groups():
    label = np.array([0, 1, 0, 2, 1, 0])
    gains = np.where(label[:, None] == label, 2.0, -1.0) + 0.1 * np.random.RandomState(5).rand(6, 6)
    np.fill_diagonal(gains, 50.0)  # means nothing
    groups = grouping.best_groups(gains)
    assert sorted(map(sorted, groups)) == [[0, 2, 5], [1, 4], [3]]
    assert grouping.expected_gain(gains, groups) == pytest.approx(
        sum(gains[i, [j for j in g if j != i]].mean() for g in groups for i in g if len(g) > 1) / 6
    )
    assert len(grouping.best_groups(gains, 2)) == 2
    with pytest.raises(ValueError, match="too many partitions"):
        grouping.best_groups(np.zeros((11, 11)))
