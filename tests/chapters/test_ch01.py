"""Chapter 1: right answers to its exercises in other words, and that its formulas are the package's
code.
"""

import ast
import json

import numpy as np
import pytest
import torch

from mtl_course import data
from mtl_course.dev import notebooks
from mtl_course.exercises import ch01 as exercises
from mtl_course.experiments import ch01, ch01_tasks
from mtl_course.multitask import linear

((_, NOTEBOOK),) = notebooks.find(["01"])


# -------------------------------------------------------- the notebook's code is the package's code
def definitions(name):
    """The functions that the chapter's cell with `name` defines, as name -> function."""
    for cell in notebooks.read(NOTEBOOK).cells:
        if cell.cell_type == "code" and f"def {name}(" in cell.source:
            tree = ast.parse(cell.source)
            tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
            space = {"np": np, "torch": torch}
            exec(compile(tree, name, "exec"), space)
            return space
    raise AssertionError(f"no cell defines {name}")


def function_source(name):
    """The source of that function alone."""
    for cell in notebooks.read(NOTEBOOK).cells:
        if cell.cell_type == "code" and f"def {name}(" in cell.source:
            (node,) = (n for n in ast.parse(cell.source).body if getattr(n, "name", "") == name)
            return ast.get_source_segment(cell.source, node)
    raise AssertionError(f"no cell defines {name}")


def test_closed_form_of_the_notebook_is_the_packages():
    joint_ridge = definitions("joint_ridge")["joint_ridge"]
    draw = np.random.RandomState(0)
    xs, ys = [draw.normal(size=(n, 3)) for n in (2, 5, 9)], [draw.normal(size=n) for n in (2, 5, 9)]
    a, b = (
        torch.stack(part)
        for part in zip(
            *(
                linear.normal_equations(torch.tensor(x), torch.tensor(y))
                for x, y in zip(xs, ys, strict=True)
            ),
            strict=True,
        )
    )
    for lam, mu in [(0.5, 0.0), (20.0, 3.0)]:
        for ours, package in zip(
            joint_ridge(xs, ys, lam, mu), linear.mean_regularised(a, b, lam, mu), strict=True
        ):
            np.testing.assert_allclose(ours, package, rtol=1e-10)


def test_the_experiment_in_plain_sight_is_the_packages(schools):
    """`joint_on_schools` of the notebook against `ch01.compare`, on small schools."""
    x, y, task = schools
    cell = definitions("joint_on_schools")
    small = type("Small", (), {"deal": staticmethod(lambda *a, largest: ch01.deal(*a, 6))})
    cell |= {"x": x, "y": y, "task": task, "ch01": small}
    cell["joint_ridge"] = definitions("joint_ridge")["joint_ridge"]
    # The pupils that choose the strength stand behind the largest training set, here of 6 pupils.
    source = function_source("joint_on_schools").replace("36:48", "6:18").replace("48", "18")
    exec(source, cell)
    found = ch01.compare(x, y, task, [4], sizes=(3, 6))["joint"]
    for i, n in enumerate((3, 6)):
        assert cell["joint_on_schools"](4, n) == pytest.approx(found[0, i])


def test_crossing_finds_the_noise_and_the_spread_that_were_put_in():
    """The notebook's estimates of sigma^2, the spread and n*, on schools that we made."""
    crossing = definitions("crossing")["crossing"]
    draw = np.random.RandomState(5)
    schools, n, d, sigma, tau = 400, 50, 4, 0.7, 0.3
    rows = []
    for _ in range(schools):
        a = draw.normal(size=(n, d))
        b = a @ (tau * draw.normal(size=d)) + sigma * draw.normal(size=n)
        w = np.linalg.lstsq(a, b, rcond=None)[0]
        rows.append((((b - a @ w) ** 2).sum(), ((a @ w) ** 2).mean(), d, n))
    noise, spread, weights, crossed = crossing(rows)
    assert noise == pytest.approx(sigma**2, rel=0.03) and weights == d
    assert spread == pytest.approx(d * tau**2, rel=0.1)
    assert crossed == pytest.approx(d * sigma**2 / (d * tau**2), rel=0.1)


def test_toy_error_is_the_error_of_mean_regularised_learning():
    """Equation 10 against the package's estimator on simulated means; its ends and its minimum."""
    toy_error = definitions("toy_error")["toy_error"]
    tasks, n, sigma, tau, runs = 5, 3, 2.0, 1.5, 20_000
    draw = np.random.RandomState(1)
    truth = torch.tensor(tau * draw.normal(size=(runs, tasks)))
    total = n * truth + sigma * n**0.5 * torch.tensor(draw.normal(size=(runs, tasks)))
    a = torch.full((runs, tasks, 1, 1), float(n), dtype=torch.float64)
    for lam in (0.4, 3.0):
        _, w = linear.mean_regularised(a, total[..., None], lam)
        assert ((w[..., 0] - truth) ** 2).mean() == pytest.approx(
            toy_error(n, lam, tasks, sigma, tau), rel=0.02
        )
    assert toy_error(n, 0.0, tasks, sigma, tau) == pytest.approx(sigma**2 / n)
    best = sigma**2 / tau**2
    assert all(
        toy_error(n, best, tasks, sigma, tau) < toy_error(n, best * k, tasks, sigma, tau)
        for k in (0.9, 1.1)
    )
    assert toy_error(best, 0.0, tasks, sigma, tau) == pytest.approx(
        toy_error(best, 1e12, tasks, sigma, tau)
    )


def test_crossing_point_is_where_the_toys_errors_meet():
    toy_error = definitions("toy_error")["toy_error"]
    for sigma, tau, lam in [(2.0, 1.0, 20.0), (1.0, 1.3, 3.0)]:
        n = exercises.crossing_point(sigma, tau, lam)
        assert toy_error(n, lam, 8, sigma, tau) == pytest.approx(toy_error(n, 0.0, 8, sigma, tau))
    # Twice the best strength still never loses.
    assert exercises.crossing_point(2.0, 1.0, 8.0) == np.inf


def test_coupled_loss_is_the_objective_at_its_best_common_vector():
    """Equation 6 with mu = 0, minimised over w_0, is the exercise's objective without w_0."""
    draw = np.random.RandomState(2)
    xs, ys = (
        [torch.tensor(draw.normal(size=(4, 2))) for _ in range(3)],
        [torch.tensor(draw.normal(size=4)) for _ in range(3)],
    )
    a, b = (torch.stack(part) for part in zip(*map(linear.normal_equations, xs, ys), strict=True))
    w_0, w = linear.mean_regularised(a, b, 0.8)
    full = (
        sum(((x @ v - y) ** 2).sum() for x, y, v in zip(xs, ys, w, strict=True))
        + 0.8 * ((w - w_0) ** 2).sum()
    )
    assert float(
        exercises.coupled_loss(xs, ys, w, torch.full((3,), 4.0, dtype=w.dtype), 0.8)
    ) == pytest.approx(float(full))


def test_examples_needed_is_the_toys_error_turned_round():
    """The exercise against the toy's error with the best strength, which is equation 13."""
    toy_error = definitions("toy_error")["toy_error"]
    for sigma, tau, T, n in [(2.0, 1.0, 8, 3.0), (0.5, 1.5, 2, 7.0), (2.0, 0.4, 30, 1.0)]:
        error = toy_error(n, sigma**2 / tau**2, T, sigma, tau)
        assert exercises.examples_needed(error, T, sigma, tau) == pytest.approx(n)


def test_the_question_of_exercise_5_has_the_answer_that_is_printed():
    toy_error = definitions("toy_error")["toy_error"]
    now, tasks, own = (toy_error(n, 4.0, T) for n, T in [(6, 10), (6, 20), (12, 10)])
    text = "".join(c.source for c in notebooks.read(NOTEBOOK).cells if c.cell_type == "markdown")
    n = exercises.examples_needed(tasks, 10, 2.0, 1.0)
    assert f"from {now:.3f} to {tasks:.3f}" in text and f"take it to {own:.3f}" in text
    assert f"reach {tasks:.3f} with about {n:.1f} examples" in text
    # For tasks that are there, twice their examples always beat twice the tasks.
    assert all(
        toy_error(2 * n, 4.0, T) < toy_error(n, 4.0, 2 * T) for n in (1, 5, 50) for T in (1, 9)
    )


# ----------------------------------------------------------------------------------- the experiment
def small_schools():
    """Two large schools and one that is too small, with one useful feature."""
    draw = np.random.RandomState(3)
    task = np.repeat([0, 1, 2], [40, 45, 9])
    x = draw.normal(size=(len(task), 2))
    return x, x[:, 0] + 0.1 * draw.normal(size=len(task)), task


@pytest.fixture
def schools():
    return small_schools()


def test_deal_keeps_every_pupil_of_the_large_schools_once(schools):
    x, y, task = schools
    dealt, scores, real = ch01.deal(x, y, task, 0, 6)
    assert dealt.shape == (2, 45, 2) and real.sum(1).tolist() == [40, 45]
    for t in range(2):
        assert sorted(scores[t][real[t]].tolist()) == sorted(y[task == t])
    assert not torch.equal(scores, ch01.deal(x, y, task, 1, 6)[1])


def test_compare_learns_what_is_there_and_nothing_else(schools):
    found = ch01.compare(*schools, range(3), sizes=(4, 6))
    assert all(found[name].shape == (3, 2) for name in ("single", "pooled", "joint"))
    assert all((found[name][:, 1] > 0.8).all() for name in ("pooled", "joint"))
    chance = ch01.compare(*schools, range(3), sizes=(4, 6), control="random labels")
    assert all(chance[name].mean() < 0.1 for name in ("single", "pooled", "joint"))
    with pytest.raises(ValueError, match="control must be one of"):
        ch01.compare(*schools, range(3), control="shuffled")


def test_rotation_cannot_be_noticed_by_a_single_task(schools):
    plain, turned = (
        ch01.compare(*schools, range(3), sizes=(4, 6), control=c)
        for c in ("as they are", "rotated")
    )
    np.testing.assert_allclose(turned["single"], plain["single"], atol=1e-10)
    assert (abs(turned["pooled"] - plain["pooled"]) > 1e-3).all()


def test_compare_equals_scikit_learn_on_one_seed(schools):
    """Single-task and pooled R2 of one seed, by hand with another library's ridge."""
    from sklearn.linear_model import Ridge

    x, y, real = ch01.deal(*schools, 0, 6)
    x, y, n = x.numpy(), y.numpy(), 6
    mean, spread = x[:, :n].reshape(-1, 2).mean(0), x[:, :n].reshape(-1, 2).std(0, ddof=1)
    z = np.concatenate([(x - mean) / spread, np.ones((*x.shape[:2], 1))], axis=-1)
    t = y - y[:, :n].mean()
    held = real.numpy().copy()
    held[:, : n + ch01.VALIDATION] = False

    def score(fits):
        predictions = [
            np.stack([fits(t_, s).predict(z[t_]) for t_ in range(2)])
            for s in ch01.STRENGTHS.numpy()
        ]
        best = min(predictions, key=lambda p: ((p - t)[:, n : n + ch01.VALIDATION] ** 2).mean())
        return 1 - ((best - t)[held] ** 2).sum() / ((t[held] - t[held].mean()) ** 2).sum()

    def alone(t_, s):
        return Ridge(alpha=s, fit_intercept=False).fit(z[t_, :n], t[t_, :n])

    def together(t_, s):
        return Ridge(alpha=s, fit_intercept=False).fit(z[:, :n].reshape(-1, 3), t[:, :n].ravel())

    found = ch01.compare(*schools, [0], sizes=(n,))
    assert found["single"][0, 0] == pytest.approx(score(alone))
    assert found["pooled"][0, 0] == pytest.approx(score(together))


def test_networks_learn_and_do_not_depend_on_their_neighbours():
    """A network's score is its own: trained beside another seed's, it is the same."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1400, 4, generator=draw)
    y = torch.stack([x[:, 0], x[:, 1] - x[:, 2]], dim=1)
    error, r2 = ch01.train_networks(x, y, [0, 1], 60, [[0, 1]], 16, 1e-2)
    assert error.shape == (2, 1) and r2.shape == (2, 1, 2) and (r2 > 0.5).all()
    alone, _ = ch01.train_networks(x, y, [1], 60, [[0, 1]], 16, 1e-2)
    assert torch.allclose(alone[0], error[1], rtol=1e-3)
    assert ch01.networks(x, y, [0, 1, 2], 60, 16, joint=False).shape == (3,)


def test_each_seed_gets_the_rate_with_the_lowest_validation_error(monkeypatch):
    errors = {
        rate: torch.tensor([[k % 3, 2.0], [5.0 - k, 5.0 - k]]) for k, rate in enumerate(ch01.RATES)
    }

    def train(x, y, seeds, n, groups, width, rate):
        return errors[rate], torch.full((2, len(groups), 1), rate)

    monkeypatch.setattr(ch01, "train_networks", train)
    nothing = torch.zeros(3, 2)
    scores, rates = ch01.tuned_networks(nothing, nothing, [0, 1], 60, 16, joint=False)
    assert rates.tolist() == [ch01.RATES[0], ch01.RATES[-1]]
    np.testing.assert_allclose(scores, rates, rtol=1e-6)
    assert (ch01.networks(nothing, nothing, [0, 1], 60, 16, joint=False) == scores).all()


def test_columns_that_repeat_the_bias_do_no_harm(schools):
    """Dummy variables of all groups sum to the bias; no common vector is then determined by the
    data alone.
    """
    x, y, task = schools
    group = np.arange(len(y)) % 2
    dummies = np.column_stack([x, group, 1 - group])
    found, plain = (ch01.compare(table, y, task, range(3), sizes=(6,)) for table in (dummies, x))
    assert np.isfinite(found["joint"]).all() and (abs(found["joint"] - plain["joint"]) < 0.1).all()


def test_the_whole_experiment_runs_at_a_tiny_size(monkeypatch):
    """On two small sets of schools, one of which cannot be had, and a few hours of rivers."""

    def load(name):
        raise data.DataError(f"{name} needs a data root")

    monkeypatch.setattr(ch01.data, "load", load)
    monkeypatch.setattr(ch01, "exam", small_schools)
    hours = torch.Generator().manual_seed(0)
    x = torch.randn(1400, 4, generator=hours)
    monkeypatch.setattr(ch01, "river", lambda: (x, x[:, :2] + x[:, 2:]))
    plan = ch01.Plan(sizes=(4, 6), extras=("school_ilea",), hours=(60,), widths=(8, 16))
    lines = []
    results = json.loads(json.dumps(ch01.run("gpu", [0, 1, 2], lines.append, plan=plan)))
    assert results["sizes"] == [4, 6] and list(results["schools"]) == ["exam"]
    assert list(results["schools"]["exam"]) == list(ch01.CONTROLS)
    for scores in results["schools"]["exam"].values():
        assert all(np.shape(scores[method]) == (3, 2) for method in ch01.METHODS)
    assert list(results["river"]) == ["60 hours, width 8", "60 hours, width 16"]
    assert all(len(row["single"]) == len(row["joint"]) == 3 for row in results["river"].values())
    assert lines[0].startswith("Without school_ilea: ") and len(lines) == 1 + 4 + 2


# ---------------------------------------------------------------------------- the number of tasks
def equal_schools(schools=4, tau=0.0):
    """Schools of 70 pupils with nearly the same line."""
    draw = np.random.RandomState(6)
    task = np.repeat(np.arange(schools), 70)
    x = draw.normal(size=(len(task), 3))
    w = 1 + tau * draw.normal(size=(schools, 3))
    return x, (x * w[task]).sum(1) + 2 * draw.normal(size=len(task)), task


def test_one_school_alone_is_ridge_regression():
    """T = 1 against scikit-learn's ridge, whose strength the two knobs combine to."""
    from sklearn.linear_model import Ridge

    x, y, task = equal_schools(2)
    found = ch01_tasks.by_number(x, y, task, [3], n=6, counts=(1, 2))
    x, y, real = ch01.deal(x, y, task, 3, ch01_tasks.LARGEST)
    z, t = (part[0].numpy() for part in ch01._with_bias(x[None], y[None], 6, None))
    start, end = ch01_tasks.LARGEST, ch01_tasks.LARGEST + ch01.VALIDATION
    best = None
    for lam in ch01_tasks.LAMBDAS.tolist():
        for mu in ch01_tasks.MUS.tolist():
            model = Ridge(alpha=1 / (1 / lam + 1 / mu), fit_intercept=False)
            errors = [
                (model.fit(a[:6], b[:6]).predict(a) - b) ** 2 for a, b in zip(z, t, strict=True)
            ]
            chosen = np.mean([e[start:end] for e in errors])
            if best is None or chosen < best[0]:
                best = chosen, np.stack(errors)
    test = real.numpy().copy()
    test[:, :end] = False
    assert found[1][0] == pytest.approx(1 - best[1][test].mean() / t[test].var(), abs=1e-4)


def test_more_schools_help_when_schools_are_alike_and_all_are_tested():
    table = equal_schools(8)
    found = ch01_tasks.by_number(*table, range(3), n=4, counts=(1, 8))
    assert found[8].mean() > found[1].mean() + 0.1
    with pytest.raises(ValueError, match="must divide"):
        ch01_tasks.by_number(*table, [0], counts=(3, 8))
    with pytest.raises(ValueError, match="there are 8"):
        ch01_tasks.by_number(*table, [0], counts=(1, 16))


def test_random_scores_of_one_school_reach_the_others_only_through_what_is_shared():
    """Alone and left out the others never see them; with no others, left out is alone."""
    table = equal_schools(32)
    found = ch01_tasks.one_random(*table, range(3), n=4, counts=(2, 32))
    assert all(found[case].shape == (3, 2) for case in found)
    np.testing.assert_allclose(found["left out"][:, 0], found["alone"][:, 0], atol=1e-10)
    # The more schools there are, the less a random one among them can spoil.
    cost = (found["all real"] - found["one random"]).mean(0)
    assert cost[0] > 0.05 and abs(cost[1]) < 0.02
    assert found["one random"][:, 1].mean() > found["alone"][:, 1].mean() + 0.1


def test_all_schools_real_is_learning_in_groups_without_the_first_of_each():
    """`one_random` fits the groups of `by_number`; it tests and chooses on the others only."""
    x, y, task = equal_schools(4, tau=0.3)
    z, t, tested = ch01_tasks._schools(x, y, task, 5, 4, (2, 4))
    w = ch01_tasks._weights(z[:, :4], t[:, :4], 2)
    everyone = torch.ones(4, dtype=bool)
    whole = ch01_tasks.by_number(x, y, task, [5], n=4, counts=(2, 4))[2][0]
    assert ch01_tasks._score(z, t, w, tested, everyone) == pytest.approx(whole)
    others = torch.tensor([False, True, False, True])
    found = ch01_tasks.one_random(x, y, task, [5], n=4, counts=(2, 4))["all real"][0, 0]
    assert ch01_tasks._score(z, t, w, tested, others) == pytest.approx(found)
    # What the untested schools have for scores beyond training changes nothing.
    altered = torch.where(others[:, None], t, t + 100.0)
    assert ch01_tasks._score(z, altered, w, tested, others) == pytest.approx(found)


def test_the_plane_is_found_when_there_are_enough_tasks():
    errors = ch01_tasks.toy_by_number(range(3), (2, 64))
    assert (errors["together"][:, 1] < 0.15 * errors["alone"][:, 1]).all()
    assert (errors["together"][:, 1] < 2 * errors["plane known"][:, 1]).all()
    assert errors["together"][:, 0].mean() > 0.5 * errors["alone"][:, 0].mean()


def test_shared_plane_stands_at_a_minimum_and_is_the_notebooks():
    """In sight it is the package's; each part is the best given the other (from scratch)."""
    X, Y, truth, _ = ch01_tasks.toy_tasks(0, 40)
    found = ch01_tasks.shared_plane(X, Y, 2, 0.25)
    cell = definitions("shared_plane")["shared_plane"]
    np.testing.assert_allclose(cell(X, Y, 2, 0.25), found, rtol=1e-8, atol=1e-10)
    assert np.linalg.matrix_rank(found, tol=1e-8) == 2
    longer = ch01_tasks.shared_plane(X, Y, 2, 0.25, rounds=60)
    np.testing.assert_allclose(longer, found, atol=0.01)
    assert ((found - truth) ** 2).sum(1).mean() < 0.15
    # Of noiseless tasks the plane is found exactly.
    exact = ch01_tasks.shared_plane(X, (X @ truth[..., None])[..., 0], 2, 1e-8)
    np.testing.assert_allclose(exact, truth, atol=1e-4)
