"""Chapter 7: right answers to its exercises in other words, and its experiments."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from mtl_course import check, records
from mtl_course.exercises import ch07 as exercises
from mtl_course.experiments import ch07, ch07_clients, ch07_rivers, ch07_schools
from mtl_course.multitask import affinity, grouping, linear, task_graph
from mtl_course.multitask.linear import mean_regularised, normal_equations, ridge


# -------------------------------------------------------------------- exercises against the package
def test_exercises_compute_what_the_package_does():
    draw = torch.Generator().manual_seed(0)
    W, S = (
        torch.randn(5, 3, generator=draw, dtype=torch.float64),
        torch.rand(5, 5, generator=draw, dtype=torch.float64),
    )
    torch.testing.assert_close(
        exercises.laplacian_penalty(W, S), (W * (task_graph.laplacian(S) @ W)).sum()
    )
    x, y, V = (
        torch.randn(s, generator=draw, dtype=torch.float64) for s in ((6, 4), (6, 3), (3, 5))
    )
    W = torch.randn(5, 4, generator=draw, dtype=torch.float64)
    Z = affinity.lookahead(lambda shared: ((x @ shared[0].T @ V.T - y) ** 2).mean(0), [W], 0.1)
    torch.testing.assert_close(exercises.step_affinity(x, y, W, V, 0.1), Z)
    gains, groups = np.random.RandomState(0).normal(size=(5, 5)), [[0, 3], [1], [2, 4]]
    assert float(exercises.promised_gain(torch.tensor(gains), groups)) == pytest.approx(
        grouping.expected_gain(gains, groups)
    )


def test_a_cut_cannot_be_read_off_the_row_of_task_0():
    """Nor from degrees: what needs no eigenvector of D - S must not pass for a cut."""

    def by_row(S):
        return (S[0] < S[0][1:].mean()).long() * (torch.arange(len(S), device=S.device) > 0)

    def above_the_median(S):
        side = torch.linalg.eigh(torch.diag(S.sum(1)) - S).eigenvectors[:, 1]
        return ((side > side.median()) != (side[0] > side.median())).long()

    for wrong in (by_row, above_the_median):
        assert not any(check("cut", wrong, seed=seed).state == "solved" for seed in range(5))


def test_hub_pull_may_be_found_by_going_back_and_forth():
    def hub_pull(n, hub_n, leaves, lam):
        leaf = 0.0
        for _ in range(30_000):
            hub = (hub_n + leaves * lam * leaf) / (hub_n + leaves * lam)
            leaf = lam * hub / (n + lam)
        return leaf

    assert check("hub_pull", hub_pull, seed=0).state == "solved"


def test_hub_pull_is_the_packages_solution():
    n, hub_n, leaves, lam = 5, 40, 6, 3.0
    a = torch.full((leaves + 1, 1, 1), float(n), dtype=torch.float64)
    a[0] = hub_n
    b = torch.zeros(leaves + 1, 1, dtype=torch.float64)
    b[0] = hub_n
    star = torch.zeros(leaves + 1, leaves + 1, dtype=torch.float64)
    star[0, 1:] = star[1:, 0] = 1
    W = linear.related_ridge(a, b, lam * task_graph.laplacian(star))
    np.testing.assert_allclose(W[1:, 0], exercises.hub_pull(n, hub_n, leaves, lam))


# ------------------------------------------------------------------------------------------ schools
@pytest.fixture(scope="module")
def pupils():
    return ch07_schools.schools([0, 1])


def test_parts_of_a_draw_are_disjoint_and_the_test_pupils_fixed(pupils):
    assert pupils.x.shape[:2] == (2, 33)
    assert (
        (pupils.train.sum(-1) == 12).all()
        and (pupils.validation.sum(-1) == ch07_schools.VALIDATION).all()
        and (pupils.test.sum(-1) >= ch07_schools.TEST).all()
    )
    assert not (pupils.train & pupils.test).any() and not (pupils.train & pupils.validation).any()
    # Without the mean of the draw.
    scores = [pupils.y[s] - pupils.y[s][pupils.test[s]][0] for s in range(2)]
    torch.testing.assert_close(scores[0][pupils.test[0]], scores[1][pupils.test[1]])
    assert not torch.allclose(scores[0][pupils.train[0]], scores[1][pupils.train[1]])
    small = ch07_schools.schools([0], n=6)
    assert (small.train.sum(-1) == 6).all()
    torch.testing.assert_close(
        small.x[0, :, :6].mean((0, 1))[:4], torch.zeros(4, dtype=torch.float64), atol=1e-9, rtol=0
    )


def test_camps_turn_every_second_school(pupils):
    turned = ch07_schools.schools([0, 1], structure="two camps")
    torch.testing.assert_close(turned.y[:, ::2], pupils.y[:, ::2])
    torch.testing.assert_close(turned.y[:, 1::2], -pupils.y[:, 1::2])
    with pytest.raises(ValueError, match="structure must be"):
        ch07_schools.schools([0], structure="three camps")


def test_statistics_see_training_pupils_only(pupils):
    a, b = ch07_schools.statistics(pupils)
    x, y = pupils.x[1, 4][pupils.train[1, 4]], pupils.y[1, 4][pupils.train[1, 4]]
    for found, expected in zip((a[1, 4], b[1, 4]), normal_equations(x, y), strict=True):
        torch.testing.assert_close(found, expected)


def test_gain_of_one_pair_by_hand(pupils):
    """One draw, the trial that was taken, one pair of schools, with chapter 1's solver."""
    gains, taken = ch07_schools.school_gains(pupils)
    again, same = ch07_schools.school_gains(pupils, taken)
    np.testing.assert_allclose(gains, again)
    assert torch.equal(taken, same) and gains.shape == (2, 33, 33)
    a, b = ch07_schools.statistics(pupils)
    lam, mu = (float(v[taken[1]]) for v in ch07_schools.strengths(a))
    i, j = 3, 17
    # lam * (distance to the mean) + mu * ridge, as chapter 1's pair (lam', mu'): v is penalised by
    # lam + mu, the mean by mu
    W = mean_regularised(a[1, [i, j]], b[1, [i, j]], lam + mu, 2 * mu * (lam + mu) / lam)[1]
    alone, _ = ch07_schools.choose(pupils, ridge(a, b, ch07_schools.OWN[:, None, None]))

    def rmse(w, t):
        rows = pupils.test[1, t]
        return float(((pupils.x[1, t][rows] @ w - pupils.y[1, t][rows]) ** 2).mean().sqrt())

    assert gains[1, i, j] == pytest.approx(100 * (1 - rmse(W[0], i) / rmse(alone[1, i], i)))
    assert gains[1, j, i] == pytest.approx(100 * (1 - rmse(W[1], j) / rmse(alone[1, j], j)))


def test_every_method_gets_as_many_trials():
    assert len(ch07_schools.OWN) == len(ch07_schools.strengths(ch07_schools.OWN)[0]) == 24


def test_lookahead_of_schools_is_the_packages(pupils):
    weights = ch07_schools.school_methods(pupils)
    found = ch07_schools.school_affinities(pupils, weights, rate=0.05)
    x, y, real = pupils.x[0], pupils.y[0], pupils.train[0].double()
    w = weights["pooled"][0, 0]
    Z = affinity.lookahead(lambda s: (((x @ s[0] - y) ** 2) * real).sum(1) / real.sum(1), [w], 0.05)
    np.testing.assert_allclose(found["lookahead"][0], affinity.both_ways(Z), atol=1e-10)
    assert all(S.shape == (2, 33, 33) for S in found.values())
    assert (
        ch07_schools.r2(pupils, weights["all to all"]).min()
        > ch07_schools.r2(pupils, weights["single task"]).max()
    )


# ------------------------------------------------------------------------------------------- rivers
TINY = replace(ch07_rivers.CPU, hours=60, width=4, steps=20, every=10, batch=20, rates=(1e-2, 2e-2))


def test_hours_of_the_parts_have_nothing_in_common():
    hour = np.arange(4000)
    kept = hour % ch07_rivers.BLOCK >= ch07_rivers.GAP
    part = np.array([0, 1, 0, 2])[hour // ch07_rivers.BLOCK % 4]
    for k in range(3):
        for other in range(k):
            gaps = abs(hour[kept & (part == k)][:, None] - hour[kept & (part == other)])
            assert gaps.min() > 60 + 48 - 1
    first, second = (ch07_rivers.rivers(TINY, seed) for seed in (0, 1))
    assert len(first.train[0]) == 60 and len(first.test[0]) > 1000
    assert not torch.equal(first.train[1], second.train[1])
    assert len(first.test[0]) == len(second.test[0])
    assert all(
        torch.isfinite(t).all()
        for part in (first.train, first.validation, first.test)
        for t in part
    )


def test_networks_side_by_side_are_networks():
    """A network of `Many` is the nn.Sequential of its seed, and trains as if it were alone."""
    nets = ch07_rivers.Many(64, 8, 2, [3, 5])
    torch.manual_seed(5)
    layers = torch.nn.Linear(64, 8), torch.nn.Linear(8, 2)
    x = torch.randn(2, 7, 64)
    torch.testing.assert_close(nets(x)[1], layers[1](layers[0](x[1]).relu()))
    draws = [ch07_rivers.rivers(TINY, seed) for seed in (0, 1)]
    jobs = [ch07_rivers.Job(*job) for job in [(0, (1, 4)), (1, (0, 2)), (1, (1, 4))]]
    together = ch07_rivers.train(draws, jobs, TINY, 1e-2)
    alone = ch07_rivers.train(draws, jobs[1:2], TINY, 1e-2)
    for a, b in zip(together[1], alone[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3)


def test_a_bench_trains_a_network_once_and_takes_each_draws_best_rate(monkeypatch):
    """Errors that depend on draw, group and rate alone, so that the choice can be read off."""
    asked = []

    def train(draws, jobs, plan, rate, watch=None):
        asked.extend((job, rate) for job in jobs)
        assert len({len(job.group) for job in jobs}) == 1, "groups of one size at a time"
        best = {0: 1e-2, 1: 2e-2}
        return [
            ch07_rivers.Errors(np.full(len(g), float(rate != best[s])), np.full(len(g), 10 * rate))
            for s, g in jobs
        ]

    monkeypatch.setattr(ch07_rivers, "train", train)
    bench = ch07_rivers.Bench([None, None], TINY)
    split = [[0, 1], [2], [3, 4, 5, 6, 7]]
    validation, test = ch07_rivers.fit_groups(bench, [split, split])
    assert (validation == 0).all() and validation.shape == (2, 8)
    np.testing.assert_allclose(test, [[0.1] * 8, [0.2] * 8])
    assert len(asked) == len(set(asked)) == 2 * 3 * len(TINY.rates)
    ch07_rivers.fit_groups(bench, [split, [[0, 1], [2, 3], [4, 5, 6, 7]]])
    assert len(asked) == len(set(asked)) == (2 * 3 + 2) * len(TINY.rates), "trained only once"


def test_random_groups_belong_to_their_seed():
    gains = np.random.RandomState(0).normal(size=(3, 8, 8))
    look = {"lookahead": gains, "gradient cosine": gains}
    three = ch07_rivers.groupings(gains, look, [5, 6, 7])["at random"]
    two = ch07_rivers.groupings(gains[:2], {k: v[:2] for k, v in look.items()}, [7, 5])["at random"]
    assert two == [three[2], three[0]] and three[0] != three[1]


def test_one_draw_of_the_record_is_within_its_spread():
    river = records.load("07", "cpu").results["river"]
    again = ch07_rivers.river_study(ch07_rivers.CPU, [0])
    for way, gain in again["delta_m"].items():
        recorded = np.array(river["delta_m"][way])
        assert abs(gain[0] - recorded[0]) < 3 * recorded.std(ddof=1), way
    recorded = np.array(river["gains"])
    close = abs(again["gains"][0] - recorded[0]) < 3 * recorded.std(axis=0, ddof=1) + 0.1
    assert close.mean() > 0.9
    assert again["groups"]["at random"][0] == river["groups"]["at random"][0]


def test_delta_m_is_the_mean_relative_gain():
    alone, together = np.array([[2.0] * 8]), np.array([[1.0] * 4 + [3.0] * 4])
    assert ch07_rivers.river_delta_m(alone, together)[0] == pytest.approx(0)
    assert (
        ch07_rivers.river_delta_m(alone, alone / 2)[0]
        == pytest.approx(50)
        == affinity.relative_gain(alone, alone / 2).mean()
    )


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_the_whole_experiment_runs_at_a_tiny_size(profile):
    lines = []
    plan = replace(ch07.PLANS[profile], rivers=TINY)
    found = ch07.run(profile, [0, 1], lines.append, plan=plan)
    assert len(lines) == len(found["schools"]) + 1 + 1 + 5
    assert len(found["schools"]) == (2 if profile == "cpu" else 6)
    assert np.shape(found["river"]["gains"]) == (2, 8, 8)
    measures = found["river"]["affinities"]
    assert measures.keys() == found["river"]["rank correlation"].keys() and len(measures) == 4
    for S in measures.values():
        assert np.shape(S) == (8, 8) and np.allclose(S, np.transpose(S), atol=1e-3)
    ways = found["river"]["groups"]
    assert ways.keys() == found["river"]["delta_m"].keys() and len(ways) == 5
    for way, splits in ways.items():
        for groups in splits:
            assert sorted(t for g in groups for t in g) == list(range(8)) and len(groups) <= 3, way
    json.dumps(found)


# ------------------------------------------------------------------------------------------ clients
FEW = ch07_clients.Plan(
    images=(5,),
    validation=4,
    components=6,
    networks=(5,),
    hidden=(2, 4),
    steps=20,
    rates=(0.01, 0.03),
    rich=9,
    poor=4,
)


def test_no_image_belongs_to_two_clients_and_answers_are_those_of_the_question():
    c = ch07_clients.clients(3, 8, FEW)
    every = torch.cat([c.x, c.validation[0]], 1).reshape(-1, c.x.shape[-1])
    assert len(torch.unique(every, dim=0)) == len(every) == 12 * 12
    for t, kind in enumerate(ch07_clients.KIND):
        yes = list(ch07_clients.QUESTIONS.values())[kind]
        assert ((c.y[t] > 0).numpy() == np.isin(c.digits[t], yes)).all()
    _, digits, pool, test = ch07_clients.described(FEW.components, FEW.test)
    assert not set(pool) & set(test) and (np.bincount(digits[test]) == FEW.test).all()


def test_clients_tied_firmly_are_one_model_per_group():
    c, plan = ch07_clients.clients(0, 30, FEW), replace(FEW, ties=(1e9,), alone=(0.1,))
    W, _ = ch07_clients.tied(c, [[0, 1], list(range(2, 12))], plan)
    a, b = normal_equations(c.x[:2].reshape(-1, 7), c.y[:2].reshape(-1))
    # Two clients bring their mu along.
    torch.testing.assert_close(W[0], ridge(a, b, 0.2), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(W[0], W[1], atol=1e-5, rtol=1e-5)


def test_kinds_are_found_where_labels_tell_them_and_not_by_inputs():
    row = ch07_clients.compare(0, 80, ch07_clients.Plan(alone=(1.0, 3.0, 10.0), ties=(100.0,)))
    assert row["rand"]["by gradients"] > 0.8 and row["rand"]["by own weights"] > 0.8
    assert row["rand"]["by inputs"] < 0.3
    assert sorted(t for group in row["groups"] for t in group) == list(range(12))


def test_one_draw_of_the_clients_is_the_records():
    record = records.load("07", "clients")
    seed, plan = record.provenance["seeds"][0], ch07_clients.Plan()
    old = record.results["10"]["linear"][0]
    new = ch07_clients.compare(seed, 10, plan)
    assert new["groups"] == old["groups"]
    assert new["accuracy"] == pytest.approx(old["accuracy"], abs=0.5)


def test_one_draw_of_the_client_networks_is_the_records():
    record = records.load("07", "clients")
    seed, results = record.provenance["seeds"][0], record.results["40"]
    old, groups = results["networks"]["2"][0], results["linear"][0]["groups"]
    new = ch07_clients.networks(seed, 40, groups, 2, ch07_clients.Plan())
    assert new["accuracy"] == pytest.approx(old["accuracy"], abs=1)


def test_a_client_network_does_not_see_other_groups():
    """With other data in the second group, the first group's accuracy stays what it was."""
    c = ch07_clients.clients(1, 8, FEW)
    groups, plan = [[0, 1, 2], list(range(3, 12))], replace(FEW, rates=(0.03,))
    x = c.x.clone()
    x[3:] = torch.randn(x[3:].shape, generator=torch.Generator().manual_seed(0))
    seen = []
    answers, stops = torch.zeros_like(c.test[1]), torch.zeros_like(c.validation[1])
    # An answer of 0 is never right and tells no rate from another: only the first group counts.
    answers[:3], stops[:3] = c.test[1][:3], c.validation[1][:3]
    for inputs in (c.x, x):
        same = replace(c, x=inputs, test=(c.test[0], answers))
        same = replace(same, validation=(c.validation[0], stops))
        seen.append(ch07_clients.network(same, groups, 0, 4, plan))
    assert seen[0] == seen[1] and seen[0][0] > 5


def test_rates_side_by_side_are_torchs_adam():
    """Each rate's parameters take the steps of an Adam of their own."""
    draw = torch.Generator().manual_seed(0)
    start, rates = torch.randn(3, 2, generator=draw), torch.tensor([0.001, 0.1])
    together = [start.expand(2, 3, 2).clone()]
    alone = [start.clone().requires_grad_() for _ in rates]
    each = [torch.optim.Adam([p], float(rate)) for p, rate in zip(alone, rates, strict=True)]
    means = [(torch.zeros_like(together[0]), torch.zeros_like(together[0]))]
    for step in range(1, 8):
        g = torch.randn(2, 3, 2, generator=draw) * 10 ** (1.0 - step)
        g[:, 0] = 0  # a unit that no image reaches
        ch07_clients.adam(together, [g], means, rates, step)
        for p, optimizer, own in zip(alone, each, g, strict=True):
            p.grad = own.clone()
            optimizer.step()
    torch.testing.assert_close(together[0], torch.stack([p.detach() for p in alone]))


def test_a_client_network_takes_the_rate_with_the_least_validation_loss():
    """And its score is that of the chosen rate alone, whatever other rates are tried beside it."""
    c, groups = ch07_clients.clients(1, 20, FEW), [list(range(12))]
    both, chosen = ch07_clients.network(c, groups, 0, 4, replace(FEW, rates=(1e-6, 0.03)))
    alone, _ = ch07_clients.network(c, groups, 0, 4, replace(FEW, rates=(0.03,)))
    assert chosen == 1 and both == pytest.approx(alone)


def test_a_client_network_that_learns_nothing_still_answers():
    """Its start, where every answer is 0 and so neither right nor wrong, is not what counts."""
    c, groups = ch07_clients.clients(1, 20, FEW), [list(range(12))]
    steep = replace(FEW, rates=(10.0,))
    assert ch07_clients.network(c, groups, 0, 2, steep)[0] > 20


def test_random_groups_keep_the_sizes():
    groups = [[0, 1, 2, 3, 4], [5, 6, 7], [8, 9, 10, 11]]
    parts = ch07_clients.shuffled(groups, 3)
    assert [len(g) for g in parts] == [5, 3, 4] and parts != groups
    assert sorted(t for g in parts for t in g) == list(range(12))
    assert parts != ch07_clients.shuffled(groups, 4)


def test_directions_of_one_pair_by_hand():
    """A rich and a poor client, solved in NumPy; rows receive and columns give."""
    found = ch07_clients.unequal(2, FEW)
    c, giver, receiver = ch07_clients.clients(2, FEW.rich, FEW), 1, 10
    assert ch07_clients.RICH[giver] and not ch07_clients.RICH[receiver]
    x = [c.x[giver].numpy(), c.x[receiver, : FEW.poor].numpy()]
    y = [c.y[giver].numpy(), c.y[receiver, : FEW.poor].numpy()]
    a, b = [v.T @ v for v in x], [v.T @ w for v, w in zip(x, y, strict=True)]
    d, eye = len(b[0]), np.eye(len(b[0]))
    alone = [np.linalg.solve(m + FEW.ridge * eye, v) for m, v in zip(a, b, strict=True)]
    system = np.block([[a[0], 0 * eye], [0 * eye, a[1]]]) + FEW.ridge * np.eye(2 * d)
    system += FEW.tie * np.block([[eye, -eye], [-eye, eye]])
    tied = np.linalg.solve(system, np.concatenate(b)).reshape(2, d)
    pixels, answers = c.test[0].numpy(), c.test[1].numpy()

    def right(w, t):
        return 100 * (pixels @ w * answers[t] > 0).mean()

    for k, t, other in ((0, giver, receiver), (1, receiver, giver)):
        expected = right(tied[k], t) - right(alone[k], t)
        assert found["gain"][t, other] == pytest.approx(expected)
    kept = 100 * (x[1] @ alone[0] * y[1] > 0).mean()
    assert found["giver's weights"][receiver, giver] == pytest.approx(kept)
    # At zero weights every loss is 1: the mean of squared answers.
    step = 0.01 * 2 * b[0] / FEW.rich
    after = ((x[1] @ step - y[1]) ** 2).mean()
    assert found["lookahead"][receiver, giver] == pytest.approx(1 - after)
    for name in ("gain", "lookahead", "giver's weights"):
        assert not np.allclose(found[name], found[name].T, equal_nan=True), name
    cosine = found["cosine"]
    np.testing.assert_allclose(cosine, cosine.T)
    expected = alone[0][:-1] @ alone[1][:-1]
    expected /= np.linalg.norm(alone[0][:-1]) * np.linalg.norm(alone[1][:-1])
    assert cosine[receiver, giver] == pytest.approx(expected)
    assert all(np.isnan(np.diag(m)).all() for m in found.values())


def test_the_experiment_with_clients_runs_at_a_tiny_size():
    results = json.loads(json.dumps(ch07_clients.run([0, 1], lambda _: None, plan=FEW)))
    assert len(results["5"]["linear"]) == 2 and list(results["5"]["networks"]) == ["2", "4"]
    for rows in results["5"]["networks"].values():
        assert len(rows) == 2 and set(rows[0]["accuracy"]) == set(ch07_clients.NETWORKS)
    assert set(results["5"]["linear"][0]["accuracy"]) == set(ch07_clients.WAYS)
