"""Scores of transferability against loops, brute force, scikit-learn, and bad input."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau, multivariate_normal, spearmanr
from sklearn.covariance import LedoitWolf

from mtl_course import transfer
from mtl_course.transfer import linear_evidence


def draw(seed, N=40, d=6, classes=4, help=1.0):
    """Features that know something of the labels."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(classes, (N,), generator=g)
    means = torch.randn(classes, d, generator=g, dtype=torch.float64)
    return help * means[y] + torch.randn(N, d, generator=g, dtype=torch.float64), y


# -------------------------------------------------------------------------------------- old heads
def test_nce_is_the_sum_by_loops():
    rng = np.random.default_rng(0)
    z, y = rng.integers(0, 5, 60), rng.integers(0, 3, 60)
    total = 0.0
    for a in set(z.tolist()):
        for b in set(y.tolist()):
            both = sum(1 for i, j in zip(z, y, strict=True) if i == a and j == b)
            if both:
                total += both / 60 * math.log(both / sum(1 for i in z if i == a))
    assert transfer.nce(z, y) == pytest.approx(total, abs=1e-12)


def test_leep_is_the_formula_by_loops_and_keeps_its_bounds():
    g = torch.Generator().manual_seed(1)
    theta = torch.rand(30, 4, generator=g, dtype=torch.float64).softmax(dim=1)
    y = torch.randint(3, (30,), generator=g)
    joint = {(b, z): 0.0 for b in range(3) for z in range(4)}
    for i in range(30):
        for z in range(4):
            joint[int(y[i]), z] += float(theta[i, z]) / 30
    total = 0.0
    for i in range(30):
        guess = 0.0
        for z in range(4):
            share = sum(joint[b, z] for b in range(3))
            guess += joint[int(y[i]), z] / share * float(theta[i, z])
        total += math.log(guess) / 30
    assert transfer.leep(theta, y) == pytest.approx(total, abs=1e-12)
    counts = torch.bincount(y) / 30
    assert float(torch.xlogy(counts, counts).sum()) <= transfer.leep(theta, y) <= 0


def test_leep_of_certain_answers_is_nce():
    rng = np.random.default_rng(2)
    z, y = rng.integers(0, 5, 50), rng.integers(0, 4, 50)
    assert transfer.leep(np.eye(5)[z], y) == pytest.approx(transfer.nce(z, y), abs=1e-12)


def test_names_of_the_classes_do_not_matter_nor_do_classes_that_never_occur():
    theta = torch.rand(30, 4, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    x, y = draw(0, N=30)
    other = torch.tensor([90, 7, 3, 12])[y]
    empty = torch.cat([theta, torch.zeros(30, 2)], dim=1)  # two source classes never answered
    for score in (transfer.h_score, transfer.logme):
        assert score(x, y) == pytest.approx(score(x, other), rel=1e-9)
    assert transfer.leep(theta, y) == pytest.approx(transfer.leep(empty, other), abs=1e-9)
    assert transfer.nce(other, y) == transfer.nce(y, other) == 0


# ---------------------------------------------------------------------------------------- features
@pytest.mark.parametrize(("N", "d"), [(200, 3), (30, 10), (8, 20), (5, 1)])
def test_shrunk_covariance_is_scikit_learns(N, d):
    x = torch.randn(N, d, generator=torch.Generator().manual_seed(N)).double()
    x = x * torch.linspace(0.1, 3, d) + 5
    covariance, share = transfer.ledoit_wolf(x)
    want = LedoitWolf().fit(x.numpy())
    np.testing.assert_allclose(covariance, want.covariance_, rtol=1e-9, atol=1e-12)
    if d > 1:  # scikit-learn calls the share of a single feature 0, which changes nothing
        assert share == pytest.approx(want.shrinkage_, abs=1e-9)


def test_h_score_is_the_trace_by_loops_and_with_scikit_learns_covariance():
    x, y = draw(3)
    centred = (x - x.mean(0)).numpy()
    between = np.zeros((6, 6))
    for c in range(4):
        rows = centred[y.numpy() == c]
        between += len(rows) / 40 * np.outer(rows.mean(0), rows.mean(0))
    plain = np.trace(np.linalg.inv(np.cov(centred.T, bias=True)) @ between)
    assert transfer.h_score(x, y, shrunk=False) == pytest.approx(plain, rel=1e-9)
    oracle = LedoitWolf().fit(centred)
    shrunk = (1 - oracle.shrinkage_) * np.trace(np.linalg.inv(oracle.covariance_) @ between)
    assert transfer.h_score(x, y) == pytest.approx(shrunk, rel=1e-9)


def test_plain_h_score_stays_the_same_under_any_linear_map_and_below_its_maximum():
    x, y = draw(4)
    M = torch.randn(6, 6, generator=torch.Generator().manual_seed(0)).double()
    plain = transfer.h_score(x, y, shrunk=False)
    assert transfer.h_score(x @ M + 3, y, shrunk=False) == pytest.approx(plain, rel=1e-7)
    assert 0 <= plain <= 3
    for scale in (1e-6, 1e6):
        assert transfer.h_score(scale * x, y) == pytest.approx(transfer.h_score(x, y), rel=1e-6)


def test_with_more_features_than_rows_the_plain_h_score_is_blind_and_the_shrunk_one_is_not():
    g = torch.Generator().manual_seed(0)
    y = torch.arange(20) % 4
    noise = torch.randn(20, 50, generator=g).double()
    informed = noise + 2 * torch.randn(4, 50, generator=g).double()[y]
    for x in (noise, informed):
        assert transfer.h_score(x, y, shrunk=False) == pytest.approx(3, abs=1e-6)
    assert transfer.h_score(informed, y) > transfer.h_score(noise, y) + 0.5


def test_constant_and_repeated_columns_change_nothing():
    x, y = draw(5)
    wider = torch.cat([x, torch.full((40, 2), 7.0), x[:, :1]], dim=1)
    plain = transfer.h_score(x, y, shrunk=False)
    assert transfer.h_score(wider, y, shrunk=False) == pytest.approx(plain, rel=1e-6)
    assert math.isfinite(transfer.h_score(wider, y)) and math.isfinite(transfer.logme(wider, y))
    zeros = torch.cat([x, torch.zeros(40, 3)], dim=1)
    assert transfer.logme(zeros, y) == pytest.approx(transfer.logme(x, y), abs=1e-9)


@pytest.mark.parametrize(("N", "d", "strength"), [(30, 5, None), (12, 20, 3.0)])
def test_the_probe_left_out_is_a_probe_fitted_again_for_each_example(N, d, strength):
    x, y = draw(N, N=N, d=d, help=0.7)
    f = (x - x.mean(0)) / x.std(0)
    f = torch.cat([f, torch.ones(N, 1).double()], dim=1)
    hot = torch.nn.functional.one_hot(y).double()
    penalty = (strength or d) * torch.eye(d + 1).double()
    right = 0
    for i in range(N):
        rest = [j for j in range(N) if j != i]
        w = torch.linalg.solve(f[rest].T @ f[rest] + penalty, f[rest].T @ hot[rest])
        right += int((f[i] @ w).argmax() == y[i])
    assert transfer.probe_score(x, y, strength) == pytest.approx(right / N)
    wider = torch.cat([1e6 * x, torch.full((N, 2), 3.0)], dim=1)
    assert transfer.probe_score(wider, y, strength or d) == pytest.approx(right / N)


# ---------------------------------------------------------------------------------------- evidence
def log_density(F, y, alpha, beta):
    """Log evidence per example as the density of a multivariate normal."""
    covariance = np.eye(len(F)) / beta + F @ F.T / alpha
    normal = multivariate_normal(np.zeros(len(F)), covariance, allow_singular=False)
    return normal.logpdf(y) / len(F)


@pytest.mark.parametrize("help", [0.3, 1.0, 3.0])
def test_evidence_is_the_density_and_the_best_on_a_grid(help):
    x, y = draw(6, N=25, d=4, classes=2, help=help)
    F, t = x.numpy(), y.numpy().astype(float)
    best = transfer.evidence(F, t)
    assert bool(best.converged)
    at = log_density(F, t, float(best.alpha), float(best.beta))
    assert float(best.log) == pytest.approx(at, abs=1e-8)
    grid = np.geomspace(1e-3, 1e3, 61)
    highest = max(log_density(F, t, a, b) for a in grid for b in grid)
    assert highest - 1e-8 <= float(best.log) <= highest + 0.02


def test_evidence_with_fewer_rows_than_columns_is_the_best_on_a_grid():
    x, y = draw(7, N=8, d=20, classes=2)
    F, t = x.numpy(), y.numpy().astype(float)
    best = transfer.evidence(F, t)
    highest = max(
        log_density(F, t, a, b)
        for a in np.geomspace(1e-2, 1e4, 100)
        for b in np.geomspace(1e-2, 1e6, 100)
    )
    assert bool(best.converged) and float(best.log) >= highest - 1e-6


def best_on_a_grid(F: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The largest log evidence of each column over 20 decades of ratios, with the best beta."""
    values, vectors = torch.linalg.eigh(F @ F.T)
    values, parts = values.clamp_min(0), (vectors.T @ y).square()
    ratios = torch.logspace(-8, 12, 401, dtype=F.dtype)[:, None] * values.max()
    spread = values / ratios + 1
    noise = (parts / spread[..., None]).sum(1) / len(F)
    logs = -(noise.log() + spread.log().sum(1, keepdim=True) / len(F) + math.log(2 * math.pi) + 1)
    return (logs / 2).max(dim=0).values


@pytest.mark.parametrize("one_hot", [True, False])
def test_the_iteration_rests_soon_and_at_the_larger_of_two_maxima(one_hot):
    for seed in range(100):
        g = torch.Generator().manual_seed(seed)
        N, d = (int(torch.randint(*ends, (1,), generator=g)) for ends in ((6, 60), (1, 80)))
        scales = torch.rand(d, generator=g, dtype=torch.float64) ** 4
        F = torch.randn(N, d, generator=g, dtype=torch.float64) * scales
        y = torch.randn(N, 6, generator=g, dtype=torch.float64) + F.mean(1, keepdim=True) * seed
        found = transfer.evidence(F, torch.eye(N, dtype=torch.float64)[:, :6] if one_hot else y)
        assert found.converged.all() and int(found.steps.max()) <= 60, seed
        highest = best_on_a_grid(F, torch.eye(N, dtype=torch.float64)[:, :6] if one_hot else y)
        assert (found.log >= highest - 1e-4).all(), seed


def test_one_example_of_each_class_has_its_evidence_in_a_few_steps():
    x = torch.randn(45, 64, generator=torch.Generator().manual_seed(0)).relu()
    found = transfer.evidence(x, torch.eye(45))
    assert found.converged.all() and int(found.steps.max()) <= 60


def test_features_of_no_use_leave_the_evidence_of_noise_alone():
    F, t = np.array([[1.0], [1.0], [-1.0], [-1.0]]), np.array([1.0, -1.0, 1.0, -1.0])
    useless = transfer.evidence(F, t)
    assert bool(useless.converged)
    assert float(useless.log) == pytest.approx(-0.5 * (math.log(2 * math.pi) + 1), abs=1e-6)


def test_an_exact_fit_with_directions_to_spare_is_infinitely_likely():
    F = torch.tensor([[1.0], [2.0], [3.0]])
    exact = transfer.evidence(F, [2.0, 4.0, 6.0])
    assert float(exact.log) == math.inf and bool(exact.converged)
    both = transfer.evidence(F, torch.tensor([[2.0, 1.0], [4.0, -1.0], [6.0, 1.0]]))
    assert both.log.isinf().tolist() == [True, False]


def test_units_move_all_columns_alike_and_the_order_of_sources_not_at_all():
    x, y = draw(8)
    worse = x + 2 * torch.randn(40, 6, generator=torch.Generator().manual_seed(9)).double()
    for scale in (1e-6, 1.0, 1e6):
        assert transfer.logme(scale * x, y) == pytest.approx(transfer.logme(x, y), abs=1e-6)
        assert transfer.logme(scale * x, y) > transfer.logme(scale * worse, y)
    t = y.double() + 1
    shift = transfer.evidence(x, 1e3 * t).log - transfer.evidence(x, t).log
    assert float(shift) == pytest.approx(-math.log(1e3), abs=1e-7)


def test_columns_are_scored_one_by_one_and_logme_is_their_mean():
    x, y = draw(10)
    hot = torch.nn.functional.one_hot(y).double()
    together = transfer.evidence(x, hot)
    for k in range(4):
        alone = transfer.evidence(x, hot[:, k])
        assert float(alone.log) == pytest.approx(float(together.log[k]), abs=1e-9)
    assert transfer.logme(x, y) == pytest.approx(float(together.log.mean()), abs=1e-12)


def test_an_iteration_that_has_no_time_says_so():
    x, y = draw(11)
    short = transfer.evidence(x, torch.nn.functional.one_hot(y), steps=1)
    assert not short.converged.any() and short.steps.tolist() == [1] * 4
    long = transfer.evidence(x, torch.nn.functional.one_hot(y))
    assert long.converged.all() and 1 < int(long.steps.max()) < 1000


def test_single_precision_and_gradients_come_in_and_no_input_changes():
    x, y = draw(12)
    single = x.float().requires_grad_()
    copy = single.detach().clone()
    assert transfer.logme(single, y) == pytest.approx(transfer.logme(x, y), abs=1e-5)
    assert transfer.h_score(single, y) == pytest.approx(transfer.h_score(x, y), rel=1e-4)
    assert torch.equal(single.detach(), copy) and single.grad is None


# --------------------------------------------------------------------------------------- bad input
def test_what_does_not_fit_is_named():
    x, y = draw(13)
    theta = torch.full((40, 3), 1 / 3)
    spoilt = x.clone()
    spoilt[4, 2] = math.nan
    with pytest.raises(ValueError, match="strength is 0"):
        transfer.probe_score(x, y, 0)
    for score in (transfer.h_score, transfer.logme, transfer.probe_score):
        with pytest.raises(ValueError, match="features is nan in row 4, column 2"):
            score(spoilt, y)
        with pytest.raises(ValueError, match="features has 40 rows, but there are 39"):
            score(x, y[:-1])
        with pytest.raises(ValueError, match="labels has only class 2"):
            score(x, torch.full((40,), 2))
        with pytest.raises(ValueError, match="features has shape \\[40\\]"):
            score(x[:, 0], y)
        with pytest.raises(ValueError, match="it takes whole numbers"):
            score(x, y.double())
    with pytest.raises(ValueError, match="the same for all examples"):
        transfer.h_score(torch.ones(40, 2), y)
    with pytest.raises(ValueError, match="features are all zero"):
        transfer.logme(torch.zeros(40, 2), y)
    with pytest.raises(ValueError, match="Column 1 of targets is zero"):
        transfer.evidence(x, torch.stack([y + 1, 0 * y], dim=1))
    with pytest.raises(ValueError, match="are they logits"):
        transfer.leep(3 * theta, y)
    with pytest.raises(ValueError, match="are they logits"):
        transfer.leep(torch.tensor([[1.5, -0.5]]).repeat(40, 1), y)
    with pytest.raises(ValueError, match="probabilities is nan in row 0"):
        transfer.leep(theta * math.nan, y)
    with pytest.raises(ValueError, match="source_labels has 3 rows"):
        transfer.nce([0, 1, 1], y)
    with pytest.raises(ValueError, match="takes whole numbers"):
        transfer.nce([], [])


def test_a_class_that_does_not_come_to_rest_is_named(monkeypatch):
    x, y = draw(14)

    patient = linear_evidence.evidence

    def hurried(features, targets):
        return patient(features, targets, steps=1)

    monkeypatch.setattr(linear_evidence, "evidence", hurried)
    with pytest.raises(FloatingPointError, match="evidence of class 7"):
        linear_evidence.logme(x, torch.tensor([7, 8, 9, 10])[y])


# ------------------------------------------------------------------------- what a score is worth
def test_rank_correlations_are_scipys_and_pairs_without_a_score_are_left_out():
    rng = np.random.default_rng(0)
    S, G = rng.normal(size=(6, 3)), rng.normal(size=(6, 3))
    for kind, oracle in (("spearman", spearmanr), ("kendall", kendalltau)):
        want = [oracle(S[:, t], G[:, t])[0] for t in range(3)]
        np.testing.assert_allclose(transfer.rank_per_target(S, G, kind), want)
    S[2, 1] = np.nan
    kept = [0, 1, 3, 4, 5]
    assert transfer.rank_per_target(S, G)[1] == pytest.approx(spearmanr(S[kept, 1], G[kept, 1])[0])
    S[:, 0] = 3.0
    S[:4, 2] = np.nan
    values = transfer.rank_per_target(S, G)
    assert np.isnan(values).tolist() == [True, False, True]
    with pytest.raises(ValueError, match="kind is"):
        transfer.rank_per_target(S, G, "pearson")
    with pytest.raises(ValueError, match="of one shape"):
        transfer.regret(S, G[:2])


def test_regret_is_what_the_choice_leaves_behind():
    S = [[2.0, np.nan], [1.0, 0.0], [np.nan, -1.0]]
    G = [[0.1, 0.9], [0.3, 0.2], [0.8, np.nan]]
    np.testing.assert_allclose(transfer.regret(S, G), [0.7, 0.7])
    np.testing.assert_allclose(transfer.regret(np.nan_to_num(G), np.nan_to_num(G)), [0, 0])
    with pytest.raises(ValueError, match="Target 1 has no source"):
        transfer.regret([[1.0, np.nan]], [[1.0, 2.0]])


def test_the_interval_over_tasks_is_the_percentile_of_all_draws():
    values = [0.2, 0.9, 0.4]
    means = sorted(np.mean([a, b, c]) for a in values for b in values for c in values)
    low, high = transfer.task_bootstrap([*values, np.nan], level=0.8, rounds=40000)
    assert low == pytest.approx(np.quantile(means, 0.1), abs=0.07)
    assert high == pytest.approx(np.quantile(means, 0.9), abs=0.07)
    assert transfer.task_bootstrap(values) == transfer.task_bootstrap(values)
    with pytest.raises(ValueError, match="1 task"):
        transfer.task_bootstrap([0.3])


def test_exchanging_targets_tells_a_good_source_from_a_fitting_one():
    rng = np.random.default_rng(0)
    general = np.arange(7.0)[:, None] + 0.1 * rng.normal(size=(7, 5))
    holes = np.where(np.eye(7, 5) > 0, np.nan, general)  # pairs of one set with itself
    assert transfer.permuted(holes, general, "sources", rounds=60) <= 0.04
    assert transfer.permuted(general, general, "sources", rounds=200) <= 0.02
    assert transfer.permuted(general, general, "targets", rounds=200) > 0.2
    fitting = rng.normal(size=(7, 5))
    assert transfer.permuted(fitting, fitting, "targets", rounds=200) <= 0.05
    unrelated = [
        transfer.permuted(rng.normal(size=(7, 5)), fitting, "sources", rounds=100)
        for _ in range(40)
    ]
    assert 0.3 < np.mean(unrelated) < 0.7
    with pytest.raises(ValueError, match="what is"):
        transfer.permuted(fitting, fitting, "pairs")
