"""Chapter 20: its experiment at tiny size, the record, and what the chapter derives."""

import ast
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from data_tools import load_or_skip
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import DotProduct, WhiteKernel
from torch import nn

from mtl_course import meta, networks, records
from mtl_course.dev import notebooks
from mtl_course.exercises import ch20 as exercises
from mtl_course.experiments import ch20

TINY = replace(
    ch20.PLANS["cpu"],
    width=16,
    layers=1,
    steps=4,
    tasks=4,
    most=12,
    questions=6,
    orders=2,
    labels=(20,),
    draws=1,
    test=40,
    maml_steps=2,
    inner=(1, 2),
    inner_rates=(0.1, 0.3),
    line_steps=4,
)


def cell(name):
    """The function or class of the cell of the chapter that defines this one."""
    ((_, path),) = notebooks.find(["20"])
    (source,) = (
        c.source
        for c in notebooks.read(path).cells
        if c.cell_type == "code"
        and (f"def {name}(" in c.source or f"class {name}(" in c.source)
        and not c.source.startswith("# EXERCISE")
    )
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    space = {"torch": torch, "nn": nn, "networks": networks, "meta": meta}
    space["as_episode"] = exercises.episode.reference
    exec(compile(tree, "notebook", "exec"), space)
    return space[name]


# ---------------------------------------------------------------------- what the chapter derives
def test_the_network_of_the_notebook_is_the_packages():
    torch.manual_seed(0)
    ours = cell("Reader")(features=2)
    theirs = meta.InContext(2, None, width=32, layers=2)
    theirs.load_state_dict(ours.state_dict())
    tasks = meta.linear_tasks(3, 5, 4, torch.Generator().manual_seed(0), features=2)
    torch.testing.assert_close(
        ours(*tasks.support, tasks.query[0]), theirs(*tasks.support, tasks.query[0])
    )


def test_the_loop_in_plain_sight_is_train():
    ours, theirs = (ch20.seeded(ch20.line_network, 3) for _ in range(2))
    losses = cell("train")(ours, meta.linear_tasks, steps=5, seed=7)
    plan = replace(ch20.PLANS["cpu"], tasks=64, most=16, questions=8, rate=3e-3)
    ch20.train(theirs, meta.linear_tasks, plan, 7, steps=5, least=1)
    assert len(losses) == 5
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_equations_3_and_4_are_a_gaussian_process_with_a_linear_kernel():
    g = torch.Generator().manual_seed(0)
    x, new = (torch.randn(m, 3, generator=g, dtype=torch.float64) for m in (5, 4))
    y = torch.randn(5, generator=g, dtype=torch.float64)
    noise, spread = 0.7, 1.3
    mean, deviation = exercises.line_answer.reference(x, y, new, noise, spread)
    kernel = spread**2 * DotProduct(sigma_0=1e-8) + WhiteKernel(noise**2)
    process = GaussianProcessRegressor(kernel, optimizer=None, alpha=0.0).fit(x.numpy(), y.numpy())
    theirs, sd = process.predict(new.numpy(), return_std=True)
    np.testing.assert_allclose(mean, theirs, rtol=1e-6)
    np.testing.assert_allclose(deviation, sd, rtol=1e-6)
    ones = torch.ones(5, 1, dtype=torch.float64)
    with_level, _ = exercises.line_answer.reference(
        torch.cat([ones, x], 1), y, torch.cat([ones[:4], new], 1), noise, 1.0
    )
    torch.testing.assert_close(with_level, meta.ridge(x, y, new, noise**2))


def test_equation_6_is_what_answer_does():
    torch.manual_seed(0)
    net = meta.InContext(4, 3, width=8, layers=1, heads=2)
    g = torch.Generator().manual_seed(1)
    x, y, new = torch.randn(9, 4, generator=g), torch.arange(9) % 3, torch.randn(5, 4, generator=g)
    draws = torch.Generator().manual_seed(0)
    columns, names = [], []
    for k in range(4):
        columns.append(torch.randperm(4, generator=draws))
        names.append(torch.randperm(3, generator=draws))
        if k == 0:
            columns[0], names[0] = torch.arange(4), torch.arange(3)
    ours = exercises.ask_in_orders.reference(partial(meta.answer, net), x, y, new, columns, names)
    torch.testing.assert_close(ours, meta.answer(net, x, y, new, orders=4))


def test_the_coins_and_the_line_by_hand():
    weights = np.array([0.25**2, 0.75**2])
    assert weights @ [0.25, 0.75] / weights.sum() == pytest.approx(0.7)
    one = torch.ones(1, 1, dtype=torch.float64)
    mean, _ = exercises.line_answer.reference(one, 3 * one[0], one, 1.0, 1.0)
    assert float(mean) == 1.5


# --------------------------------------------------------------------------------- the experiment
def test_every_table_is_there_and_has_two_classes():
    load_or_skip("uci_tables")
    for name in (*ch20.TABLES, *ch20.WIDE):
        x, y = ch20.two_classes(name)
        assert set(np.unique(y)) == {0, 1} and len(x) == len(y) >= 99 and np.isfinite(x).all()
        assert (x.shape[1] <= ch20.PLANS["cpu"].features) == (name in ch20.TABLES)
    assert set(ch20.LARGE) < set(ch20.TABLES)
    assert all(len(ch20.two_classes(name)[1]) >= 600 for name in ch20.LARGE)
    _, y = ch20.table("vehicle")
    assert np.bincount(y).tolist() == [218, 212, 217, 199]
    assert len(ch20.two_classes("vehicle")[1]) == 218 + 217


def test_scikit_learns_tables_are_those_of_the_package_but_for_what_the_text_says():
    ds = load_or_skip("uci_tables")
    assert "wine_x" not in ds, "scikit-learn's is taken"
    x, y = ch20.table("wine")
    assert x.shape == (178, 13) and np.bincount(y).tolist() == [59, 71, 48]


def test_no_row_is_labelled_and_judged():
    x = np.arange(200.0)[:, None]
    y = (np.arange(200) % 5 == 0).astype(np.int64)
    some = ch20.draw(x, y, 10, 100, (1, 2))
    assert not set(some.x[:, 0]) & set(some.new[:, 0]) and len(some.new) == 100
    assert np.bincount(some.y, minlength=2).min() >= 2
    again, other = (ch20.draw(x, y, 10, 100, (1, k)) for k in (2, 3))
    assert (again.x == some.x).all() and not (other.x == some.x).all()


def test_scores_are_scikit_learns():
    from sklearn.metrics import accuracy_score, log_loss

    g = np.random.default_rng(0)
    p, truth = g.dirichlet([1, 1, 1], 50), g.integers(3, size=50)
    got = ch20.scores(p, truth)
    assert got["accuracy"] == accuracy_score(truth, p.argmax(1))
    assert got["log loss"] == pytest.approx(log_loss(truth, p), abs=1e-2)
    sure = ch20.scores(np.array([[1.0, 0.0]]), np.array([1]))
    assert sure["log loss"] == pytest.approx(-np.log(0.001 / 1.001))


def test_pairs_of_classes_vote():
    class Knows(meta.InContext):
        def forward(self, x, y, new):
            """Says of each new row which class mean is nearer, both classes given."""
            means = torch.stack([x[0][y[0] == c].mean(0) for c in (0, 1)])
            return -100 * torch.cdist(new[0], means)[None]

    g = np.random.default_rng(0)
    y = np.repeat(np.arange(4), 5)
    x = 10 * np.eye(4)[y] + g.normal(size=(20, 4))
    some = ch20.Draw(x, y, 10 * np.eye(4), np.arange(4))
    p = ch20.one_against_one(Knows(4, 2, 8, 1, 2), some)
    assert p.argmax(1).tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(p.sum(1), 1)


def test_main_directions_are_scikit_learns():
    from sklearn.decomposition import PCA

    g = np.random.default_rng(0)
    some = ch20.Draw(g.normal(size=(30, 6)), np.zeros(30, int), g.normal(size=(5, 6)), None)
    ours = ch20.main_directions(some, 2)
    scaled = (some.x - some.x.mean(0)) / some.x.std(0)
    theirs = PCA(2).fit_transform(scaled)
    np.testing.assert_allclose(np.abs(ours.x), np.abs(theirs), atol=1e-5)


def test_inner_steps_are_gradient_descent():
    model = ch20.inner_network(TINY, 0)
    episodes = meta.table_tasks(2, 8, 3, torch.Generator().manual_seed(0), features=20)
    one, two = ch20.after_steps(model, episodes, (1, 3), 0.2)
    for t in range(2):
        net = ch20.inner_network(TINY, 0)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.2)
        (x, y), new = (v[t] for v in episodes.support), episodes.query[0][t]
        for step in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
            if step == 0:
                torch.testing.assert_close(one[t], net(new), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(two[t], net(new), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_the_experiment_is_plain_json_and_a_seed_fixes_it():
    load_or_skip("uci_tables")
    told = []
    results = ch20.run("cpu", [5], told.append, plan=TINY)
    plain = json.loads(json.dumps(results))
    assert len(told) == 2 and plain["lines"] == results["lines"]
    again = ch20.lines(TINY, 5)
    assert json.loads(json.dumps(again)) == results["lines"][0]
    [seed] = plain["seeds"]
    rows = seed["tables"]["20"]
    assert list(rows) == list(ch20.TABLES)
    assert set(rows["iris"]) == {ch20.OURS, ch20.ONE_ORDER, *ch20.RIVALS, *ch20.INNER}
    assert ch20.method_scores([seed], 20, ch20.OURS).shape == (1, 16)


# -------------------------------------------------------------------------------------- the record
@pytest.mark.slow
def test_one_seed_of_the_record_is_within_its_spread():
    """Lines of seed 0, and logistic regression on three tables, are those of the record."""
    load_or_skip("uci_tables")
    record = records.load("20", "cpu")
    plan = ch20.PLANS["cpu"]
    fresh = ch20.against_ridge(ch20.train_lines(plan, 0.5, 0), 0.5, 0)
    kept = np.array([seed["0.5"]["network"] for seed in record.results["lines"]])
    low, high = kept.min(0), kept.max(0)
    room = np.maximum(high - low, 0.02)
    assert ((fresh["network"] > low - room) & (fresh["network"] < high + room)).all()
    for name in ("iris", "haberman", "glass"):
        number = ch20.TABLES.index(name)
        x, y = ch20.two_classes(name)
        got = [
            ch20.scores(
                ch20.rival_answers(
                    "logistic regression", ch20.draw(x, y, 20, plan.test, (0, k, number, 20))
                ),
                ch20.draw(x, y, 20, plan.test, (0, k, number, 20)).truth,
            )["accuracy"]
            for k in range(plan.draws)
        ]
        there = record.results["seeds"][0]["tables"]["20"][name]["logistic regression"]
        assert np.mean(got) == pytest.approx(there["accuracy"], abs=0.02)
