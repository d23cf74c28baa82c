"""Chapter 16: its experiment at tiny size, the record, and what the chapter derives."""

import ast
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmark_tools import load
from torch import nn
from torch.nn import functional as F

from mtl_course import data, records, transfer
from mtl_course.dev import notebooks
from mtl_course.experiments import ch16
from mtl_course.networks import Classifier

TINY = replace(
    ch16.PLANS["cpu"],
    channels=(2, 4),
    features=8,
    images=60,
    source_steps=3,
    source_batch=8,
    pairs=6,
    shots=(1, 2),
    rates=(0.01, 0.1),
    stops=(2, 4),
    batch=8,
    angles=(0, 20),
)


def cell(name):
    """The functions of the cell of the chapter that defines this one."""
    ((_, path),) = notebooks.find(["16"])
    (source,) = (c.source for c in notebooks.read(path).cells if f"def {name}(" in c.source)
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    space = {"np": np, "torch": torch, "nn": nn, "F": F, "ch16": ch16, "transfer": transfer}
    exec(compile(tree, "notebook", "exec"), space)
    return space[name]


# ---------------------------------------------------------------------- what the chapter derives
@pytest.mark.parametrize(("N", "d"), [(25, 4), (40, 12)])
def test_the_best_evidence_of_the_notebook_is_the_packages(N, d):
    best_evidence = cell("best_evidence")
    g = np.random.default_rng(N)
    x = g.normal(size=(N, d))
    y = x @ g.normal(size=d) + g.normal(size=N)
    log, alpha, beta = best_evidence(x, y)
    there = transfer.evidence(x, y)
    assert log == pytest.approx(float(there.log), abs=1e-7)
    assert alpha == pytest.approx(float(there.alpha), rel=1e-3)
    assert beta == pytest.approx(float(there.beta), rel=1e-3)


def test_a_step_of_equation_6_is_mackays_two_updates():
    """alpha = gamma / |m|^2 and beta = (N - gamma) / e, with the posterior written out."""
    g = torch.Generator().manual_seed(0)
    X = torch.randn(20, 3, generator=g, dtype=torch.float64)
    y = X.sum(1) + torch.randn(20, generator=g, dtype=torch.float64)
    alpha, beta = 2.0, 0.7
    A = alpha * torch.eye(3).double() + beta * X.T @ X
    m = beta * torch.linalg.solve(A, X.T @ y)
    gamma = 3 - alpha * torch.linalg.inv(A).trace()
    new = (gamma / (m @ m)) / ((20 - gamma) / (y - X @ m).square().sum())
    U, s, _ = torch.linalg.svd(X, full_matrices=False)
    r, z = alpha / beta, (U.T @ y).square()
    q = r / (r + s**2)
    used, mu = (1 - q).sum(), (s**2 * z / (r + s**2) ** 2).sum()
    error = (q**2 * z).sum() + y @ y - z.sum()
    assert float(used / mu * error / (20 - used)) == pytest.approx(float(new), rel=1e-10)


def test_the_loop_in_plain_sight_is_train_views():
    loop = cell("learn_from_views")
    x, _ = ch16.source_sets(TINY, ["Latin, no labels"])["Latin, no labels"]
    plan = replace(TINY, pairs=128, source_steps=4)
    ours = ch16.seeded(lambda: ch16.network(plan, 10), 3)
    project = ch16.seeded(lambda: ch16.projection(plan.features), 3)
    losses = loop(ours, project, x, torch.Generator().manual_seed(3), transfer.nt_xent, steps=4)
    theirs = ch16.train_views(plan, x, 3)
    assert len(losses) == 4
    for p, q in zip(ours.trunk.parameters(), theirs.trunk.parameters(), strict=True):
        torch.testing.assert_close(p, q)


# ------------------------------------------------------------------------------------ the pictures
def test_sources_share_pictures_where_the_text_says_so_and_no_target_is_among_them():
    sets = ch16.source_sets(ch16.PLANS["cpu"])
    assert tuple(sets) == ch16.SOURCES
    for a, b in (("MNIST digits", "MNIST, no labels"), ("Latin letters", "Latin, which font")):
        assert torch.equal(sets[a][0], sets[b][0])
    assert all((sets[name][1] is None) == (name in ch16.UNLABELLED) for name in sets)
    own, other = ch16.mnist_halves(12)
    assert len(own[1]) == len(other[1]) == 2500
    both = {tuple(row) for row in own[0].flatten(1).tolist()}
    assert not both & {tuple(row) for row in other[0].flatten(1).tolist()}
    levels = ch16.ink(own[0]).bincount()
    assert levels.tolist() == [250] * 10
    writers = data.load("optdigits")["in_digits"]
    assert (writers == 0).sum() >= 2500, "enough digits of writers whom the target has not"


@pytest.mark.parametrize("name", ["UCI digits", "Greek"])
def test_no_image_and_no_face_is_on_two_sides_and_few_labels_are_nested(name):
    target = ch16.target_sets(ch16.PLANS["cpu"], [name])[name]
    parts = target.parts(3)
    rows = [set(part.tolist()) for part in parts]
    assert not (rows[0] & rows[1] or rows[0] & rows[2] or rows[1] & rows[2])
    if target.faces is not None:
        faces = [set(target.faces[part].tolist()) for part in parts]
        assert [len(f) for f in faces] == [5, 3, 4] and len(set.union(*faces)) == 12
    one, three = target.few(1, 3), target.few(3, 3)
    assert set(one.tolist()) < set(three.tolist()) <= rows[0]
    assert target.y[three].bincount().tolist() == [3] * target.classes


def test_a_view_changes_the_picture_and_a_seed_fixes_it():
    x = ch16.mnist_halves(12)[0][0][:8]
    first, again, other = (ch16.view(x, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other) and first.shape == x.shape
    still = ch16.moved(x, torch.Generator().manual_seed(0), angle=0, zoom=0, shift=0)
    torch.testing.assert_close(still, x, atol=1e-4, rtol=0)
    angles = [ch16.moved(x, torch.Generator().manual_seed(0), a, 0, 0) for a in (20, 180)]
    assert not torch.allclose(angles[0], angles[1])


def test_turned_letters_are_each_other_upside_down():
    """Half a turn of the first is nearer to the second than to itself, on average."""
    ds = data.load("glyphs")
    names = [str(c) for c in ds["names"]]
    apart, alike = [], []
    for a, b in ch16.TURNED:
        one, other = (
            torch.as_tensor(np.array(ds["x"][ds["y"] == names.index(c)])).float() / 255
            for c in (a, b)
        )
        upside_down = one.flip((-2, -1))
        alike.append(float((upside_down - other).abs().mean()))
        apart.append(float((one - other).abs().mean()))
    assert all(u < v for u, v in zip(alike, apart, strict=True)), (alike, apart)
    pairs = ch16.other_pairs(10, [(6, 9)])
    assert len(pairs) == 44 and (6, 9) not in pairs
    assert pairs == ch16.other_pairs(10, [(9, 6)])


# ------------------------------------------------------------------------------- scoring and trying
def test_the_held_out_probe_is_ridge_regression_on_standardised_features():
    from sklearn.linear_model import Ridge

    g = torch.Generator().manual_seed(0)
    x, new = torch.randn(30, 5, generator=g), torch.randn(40, 5, generator=g)
    y, truth = torch.randint(3, (30,), generator=g), torch.randint(3, (40,), generator=g)
    accuracy, answers = ch16.held_out_probe(x, y, new, truth)

    def ready(f):
        f = (f - x.mean(0)) / x.std(0)
        return torch.cat([f, torch.ones(len(f), 1)], dim=1).numpy()

    ridge = Ridge(alpha=5, fit_intercept=False).fit(ready(x), F.one_hot(y).numpy())
    want = ridge.predict(ready(new)).argmax(1)
    assert answers.tolist() == want.tolist()
    assert accuracy == pytest.approx(float((torch.as_tensor(want) == truth).float().mean()))


def test_every_start_has_the_same_head_labels_and_budget(monkeypatch):
    target = ch16.target_sets(TINY, ["UCI digits"])["UCI digits"]
    models, seconds = ch16.prepare(TINY, 0, ["MNIST digits", "MNIST, no labels"])
    assert list(models) == [ch16.SCRATCH, "MNIST digits", "MNIST, no labels"]
    assert list(seconds) == ["MNIST digits", "MNIST, no labels"]
    calls = []
    plain = ch16.train_runs

    def watched(model, stack, *args, **options):
        calls.append((stack, options))
        return plain(model, stack, *args, **options)

    monkeypatch.setattr(ch16, "train_runs", watched)
    results = ch16.try_all(TINY, models, target, 2, 0)
    ((stack, options),) = calls
    assert options["rate"].tolist() == pytest.approx(list(TINY.rates) * 3)
    assert all(torch.equal(head, stack["head.weight"][0]) for head in stack["head.weight"])
    assert all(torch.equal(rows, options["rows"][0]) for rows in options["rows"])
    first = stack["trunk.0.weight"]
    assert torch.equal(first[0], first[1]) and not torch.equal(first[0], first[2])
    for row in results.values():
        assert row["rate"] in TINY.rates and row["steps"] in TINY.stops


def test_trying_is_fine_tuning_and_chooses_by_validation_alone(monkeypatch):
    """Against a plain loop of torch's SGD for one start and one rate."""
    plan = replace(TINY, rates=(0.05,), stops=(3,))
    target = ch16.target_sets(plan, ["UCI digits"])["UCI digits"]
    models, _ = ch16.prepare(plan, 0, [])
    result = ch16.try_all(plan, models, target, 2, 4)[ch16.SCRATCH]
    alone = Classifier(models[ch16.SCRATCH].trunk, 8, 10)
    alone.head = ch16.seeded(lambda: nn.Linear(8, 10), 2004)
    optimizer = torch.optim.SGD(alone.parameters(), 0.05, momentum=0.9)
    rows, order = target.few(2, 4), torch.Generator().manual_seed(4)
    for _ in range(3):
        some = rows[torch.randint(len(rows), (plan.batch,), generator=order)]
        loss = F.cross_entropy(alone(target.x[some]), target.y[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    _, validation, test = target.parts(4)
    for name, some in (("validation", validation), ("test", test)):
        right = alone(target.x[some]).argmax(1) == target.y[some]
        assert result[name] == pytest.approx(float(right.float().mean()), abs=0.006)


@pytest.mark.slow
def test_run_gives_plain_json_and_a_seed_decides_it(monkeypatch):
    monkeypatch.setattr(ch16, "TARGETS", ("UCI digits", "Greek"))
    monkeypatch.setattr(ch16.one_seed, "__defaults__", (("UCI digits", "Greek"),))
    lines = []
    results = json.loads(json.dumps(ch16.run("cpu", [0, 1], lines.append, plan=TINY)))
    assert len(results["seeds"]) == len(results["angles"]) == 2 and len(lines) == 4
    gains = ch16.gain_matrix(results["seeds"], "2")
    scores = ch16.score_matrix(results["seeds"], "2", "LEEP")
    assert gains.shape == scores.shape == (2, 8, 2)
    headless = [ch16.SOURCES.index(name) for name in ch16.UNLABELLED]
    assert np.isnan(scores[:, headless]).all() and np.isfinite(np.delete(scores, headless, 1)).all()
    again = ch16.angles(TINY, 0)
    assert again == results["angles"][0] and set(again) == {"0", "20"}
    longer = ch16.run_longer([0], lines.append, plan=replace(TINY, shots=(1,)))
    steps = {
        row["steps"]
        for target in longer["seeds"][0]["results"]["1"].values()
        for row in target.values()
    }
    assert steps <= {2, 4, 8, 16}


def test_matrices_have_the_order_of_the_text_whatever_order_a_record_has():
    start = {"test": 0.5, "validation": 0.5, "scores": {}}
    by_target = {
        name: {ch16.SCRATCH: start}
        | {s: {"test": 0.5 + i + 10 * j, "scores": {"LEEP": i}} for i, s in enumerate(ch16.SOURCES)}
        for j, name in enumerate(ch16.TARGETS)
    }
    seed = json.loads(json.dumps({"results": {"5": by_target}}, sort_keys=True))
    gains = ch16.gain_matrix([seed], "5")
    np.testing.assert_allclose(gains[0], np.arange(8)[:, None] + 10 * np.arange(5))
    np.testing.assert_allclose(ch16.score_matrix([seed], "5", "LEEP")[0, :, 2], np.arange(8))
    del seed["results"]["5"]["MNIST"]
    assert ch16.gain_matrix([seed], "5").shape == (1, 8, 4)


# ------------------------------------------------------------------------------- record, benchmark
def test_one_seed_of_the_record_is_within_its_spread():
    """Seed 0 again for one source and one target; the rest would take a minute."""
    record = records.load("16", "cpu")
    plan = replace(ch16.PLANS["cpu"], shots=(5,))
    target = ch16.target_sets(plan, ["UCI digits"])["UCI digits"]
    models, _ = ch16.prepare(plan, 0, ["MNIST digits"])
    again = ch16.compare(plan, models, target, 5, 0)
    runs = [seed["results"]["5"]["UCI digits"] for seed in record.results["seeds"]]
    for start in again:
        there = runs[0][start]
        spread = np.std([run[start]["test"] for run in runs], ddof=1)
        assert abs(again[start]["test"] - there["test"]) < max(3 * spread, 0.05)
        for name, value in again[start]["scores"].items():
            spread = np.std([run[start]["scores"][name] for run in runs], ddof=1)
            assert abs(value - there["scores"][name]) < max(3 * spread, 0.02), name


def test_the_benchmark_times_every_score_and_a_whole_search():
    bench = load("scores")
    case = bench.Case("UCI digits", TINY)
    seconds = bench.measure(case, 1)
    assert set(ch16.SCORES) < set(seconds) and min(seconds.values()) > 0
    assert set(seconds) == set(records.load("16", "timing").results["Georgian"]["seconds"])
    assert seconds["a search"] > seconds["one trial"]
