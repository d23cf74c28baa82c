"""Chapter 9: its experiments at tiny size, the records, and what the chapter derives."""

import ast
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmark_tools import load
from sklearn.metrics import roc_auc_score, roc_curve
from torch import nn

from mtl_course import data, multitask, records
from mtl_course.dev import notebooks
from mtl_course.exercises import ch09 as exercises
from mtl_course.experiments import ch09
from mtl_course.experiments import ch09_census as census
from mtl_course.networks import parameters

TINY = replace(
    ch09.PLANS["cpu"],
    sizes=(300, 600),
    steps=4,
    every=2,
    batch=64,
    alone=((0.01, 0.1),),
    joint=((0.1, 0.1),),
    pairs=128,
    whole_steps=2,
    whole_rates=(0.01,),
)
SMALL = replace(census.PLAN, sizes=(60,), held=300, test=500, steps=4, stops=2, rates=(0.01,))


def cell(name, **space):
    """A function of the chapter, out of the cell that defines it."""
    ((_, path),) = notebooks.find(["09"])
    (source,) = (c.source for c in notebooks.read(path).cells if f"def {name}(" in c.source)
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    space |= {"np": np, "torch": torch, "nn": nn, "ch09": ch09}
    exec(compile(tree, "notebook", "exec"), space)
    return space[name]


# ---------------------------------------------------------------------- what the chapter derives
def test_the_loop_in_plain_sight_is_train():
    """With partial labels in one batch, as with two losses in two."""
    loop = cell("train_together", table=ch09.ratings())
    rows = ch09.parts(3)[0][:600]
    plan = replace(TINY, joint_rate=0.02)
    kept = []
    ch09.train(plan, rows, (0.3, 0.1), 3, lambda m: kept.append(m), torch.arange(100_000))
    theirs = kept[-1]
    ours = ch09.seeded(lambda: ch09.Pairs(plan.width), 3)
    g = torch.Generator().manual_seed(3)
    loss = exercises.partial_cross_entropy.reference
    loop(ours, rows, 4, 0.3, g, loss, size=64)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("rows", [1, 6, 30])
def test_top_one_of_the_notebook_is_the_packages(rows):
    top_one = cell("top_one")
    torch.manual_seed(rows)
    experts = nn.ModuleList(nn.Linear(5, 4) for _ in range(3))
    gates = {"a": nn.Linear(5, 3), "b": nn.Linear(5, 3)}
    x = torch.randn(rows, 5)
    z = multitask.TopOne(experts, gates)(x)
    for task, gate in gates.items():
        torch.testing.assert_close(top_one(x, gate, experts), z[task])


def test_exercises_are_the_packages_functions():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 9, generator=g)
    seen, liked = torch.randint(2, (2, 9), generator=g)
    torch.testing.assert_close(
        exercises.product_loss.reference(a, b, seen, liked),
        multitask.esmm_loss(a, b, seen, liked),
    )
    logits = torch.randn(9, 4, generator=g)
    torch.testing.assert_close(
        exercises.balance_penalty.reference(logits), multitask.balance_loss(logits.softmax(1))
    )
    chances = torch.rand(50, generator=g)
    labels = torch.randint(2, (50,), generator=g)
    from mtl_course.training import calibration_error

    ours = float(exercises.calibration_gap.reference(chances, labels, 7))
    assert ours == pytest.approx(float(calibration_error(chances, labels, 7)), abs=1e-6)


def test_the_numbers_by_hand():
    from mtl_course.training import auc, calibration_error, precision_recall_f1

    assert float(auc(torch.tensor([0.9, 0.4, 0.4, 0.1]), torch.tensor([1, 1, 0, 0]))) == 0.875
    called = torch.tensor([1] * 8 + [0] * 6)
    truth = torch.tensor([1] * 6 + [0] * 2 + [1] * 4 + [0] * 2)
    cut = precision_recall_f1(called, truth)
    assert cut == pytest.approx((6 / 8, 6 / 10, 12 / 18))
    said, labels = torch.tensor([0.1, 0.1, 0.8, 0.6]), torch.tensor([0, 1, 1, 1])
    assert float(calibration_error(said, labels, 2)) == pytest.approx(0.35)
    for rows, loss in (([[0.75, 0.25], [0.25, 0.75]], 1.0), ([[0.75, 0.25]] * 2, 1.5)):
        assert float(multitask.balance_loss(torch.tensor(rows))) == pytest.approx(loss)
    z = torch.zeros(4)
    labels = {"seen": torch.tensor([1, 1, 0, 0]), "liked": torch.tensor([1, -1, -1, -1])}
    one = {"seen": 1.0, "liked": 1.0}
    total = exercises.partial_cross_entropy.reference({"seen": z, "liked": z}, labels, one)
    assert float(total) == pytest.approx(2 * np.log(2))


# -------------------------------------------------------------------------------------- the films
def test_no_rating_is_on_two_sides_and_larger_draws_hold_the_smaller():
    pool, validation, test = (set(rows.tolist()) for rows in ch09.parts(5))
    assert not (pool & validation or pool & test or validation & test)
    assert [len(pool), len(validation), len(test)] == [76_000, 4_000, 20_000]
    train, held, judged = ch09.whole_parts(5)
    together = torch.cat([train, held, judged]).sort().values
    assert torch.equal(together, torch.arange(943 * 1682))


def test_all_pairs_hold_each_rating_once():
    pairs, table = ch09.everything(), ch09.ratings()
    assert float(pairs["seen"].sum()) == 100_000, "nobody rates a film twice"
    assert float(pairs["liked"].sum()) == float(table["liked"].sum())
    row = 4321
    place = int(table["user"][row]) * ch09.FILMS + int(table["film"][row])
    assert int(pairs["user"][place]) == int(table["user"][row])
    assert int(pairs["film"][place]) == int(table["film"][row])
    assert float(pairs["liked"][place]) == float(table["liked"][row])
    stars = torch.from_numpy(np.array(data.load("movielens")["rating"]))
    assert torch.equal(table["liked"] == 1, stars >= 4)


def test_shrunk_means_are_a_loop_and_see_the_known_ratings_only():
    table, rows = ch09.ratings(), ch09.parts(0)[0][:500]
    means = ch09.shrunk(rows, "film", 3)
    liked, film = table["liked"][rows], table["film"][rows]
    for f in (int(film[0]), int(film[7])):
        some = liked[film == f]
        want = float((some - liked.mean()).sum() / (len(some) + 3))
        assert float(means[f]) == pytest.approx(want, abs=1e-6)
    unseen = sorted(set(range(ch09.FILMS)) - set(film.tolist()))[0]
    assert float(means[unseen]) == 0
    assert len(ch09.shrunk(rows, "user", 1)) == ch09.USERS


def test_the_curve_is_scikit_learns_and_its_area_the_auc():
    g = torch.Generator().manual_seed(0)
    scores = torch.randn(500, generator=g)
    labels = (torch.rand(500, generator=g) < torch.sigmoid(scores)).float()
    ours = ch09.roc(scores, labels)
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert ours[0] == pytest.approx(float(true[false == 0].min()), abs=0.1)
    area = np.trapezoid(ours, ch09.GRID)
    assert area == pytest.approx(roc_auc_score(labels, scores), abs=0.01)


def test_both_networks_have_the_same_tries_and_start(monkeypatch):
    plan = ch09.PLANS["cpu"]
    assert len(plan.alone) == len(plan.joint)
    calls = []

    def watched(plan, rows, setting, seed, judge, known=None, device="cpu"):
        calls.append((setting, len(rows), seed, known is None))

    monkeypatch.setattr(ch09, "train", watched)
    rows = ch09.parts(0)[0][:50]
    for settings, known in ((plan.alone, None), (plan.joint, torch.arange(9))):
        ch09.searched(plan, rows, 2, settings, known)
    alone, joint = (
        [c for c in calls if c[3]],
        [c for c in calls if not c[3]],
    )
    assert [c[0] for c in alone] == list(plan.alone) and len(joint) == len(alone)
    assert all(c[1:3] == (50, 2) for c in calls)


def test_validation_chooses_and_the_test_only_judges(monkeypatch):
    """With test labels turned around, the same setting and stop are chosen."""
    table = ch09.ratings()
    rows = ch09.parts(1)[0][:300]
    settings = ((0.01, 0.1), (0.05, 1.0))
    first = ch09.searched(TINY, rows, 1, settings)
    turned = dict(table)
    turned["liked"] = table["liked"].clone()
    turned["liked"][ch09.parts(1)[2]] = 1 - table["liked"][ch09.parts(1)[2]]
    monkeypatch.setattr(ch09, "ratings", lambda device="cpu": turned)
    again = ch09.searched(TINY, rows, 1, settings)
    assert (first["setting"], first["stop"]) == (again["setting"], again["stop"])
    assert torch.equal(first["scores"], again["scores"])


def test_what_is_not_known_to_be_seen_is_never_drawn_as_seen():
    known = torch.arange(5)
    model, drawn = ch09.Pairs(4), []

    def watched(user, film, task):
        drawn.append((user, film))
        return ch09.Pairs.forward(model, user, film, task)

    ch09.seen_loss(watched, known, 64, torch.Generator().manual_seed(0))
    table, ((user, film),) = ch09.ratings(), drawn
    allowed = set(zip(table["user"][:5].tolist(), table["film"][:5].tolist(), strict=True))
    assert set(zip(user[:64].tolist(), film[:64].tolist(), strict=True)) <= allowed


@pytest.mark.parametrize("way", ch09.WAYS)
def test_each_way_learns_from_the_rows_that_it_says(way):
    model = ch09.seeded(lambda: ch09.Pairs(4), 0)
    unseen = (ch09.everything()["seen"] == 0).nonzero()[:50, 0]
    seen = (ch09.everything()["seen"] == 1).nonzero()[:50, 0]
    ch09.whole_step(way, model, unseen, seen).backward()
    grads = {task: head.weight.grad for task, head in model.heads.items()}
    assert (grads["seen"] is None) == (way in ("seen only", "one head"))
    rows = model.users.weight.grad.abs().sum(1) > 0
    theirs = set(ch09.everything()["user"][unseen].tolist())
    learned = set(rows.nonzero()[:, 0].tolist())
    assert (theirs <= learned) == (way != "seen only") or theirs & set(
        ch09.everything()["user"][seen].tolist()
    )
    said = ch09.chances(way, model, seen)
    assert ("liked" in said) == (way != "one head")
    if way in ("two losses", "ESMM"):
        assert (said["both"] < said["liked"]).all()


def test_run_gives_plain_json_and_a_seed_decides_it():
    lines = []
    results = json.loads(json.dumps(ch09.run("cpu", [0, 1], lines.append, plan=TINY)))
    assert len(results["few"]) == len(results["whole"]) == len(results["unseen"]) == 2
    assert len(lines) == 6 and set(results["few"][0]) == {"300", "600"}
    ways = {"alone", "joint", "means", "means + counts", "alone + means", "joint + means"}
    assert set(results["few"][0]["300"]) == ways
    assert ch09.few_matrix(results["few"], "joint").shape == (2, 2)
    shuffled = [dict(reversed(row.items())) for row in results["few"]]
    np.testing.assert_array_equal(
        ch09.few_matrix(shuffled, "joint"), ch09.few_matrix(results["few"], "joint")
    )
    again = json.loads(json.dumps(ch09.run("cpu", [1], lines.append, plan=TINY)))
    assert again["few"][0] == results["few"][1] and again["whole"][0] == results["whole"][1]


# ------------------------------------------------------------------------------------- the census
def test_people_are_adults_and_the_table_does_not_tell_its_tasks():
    train, test, numbers, levels = census.people()
    assert train["x"].shape == (143_531, len(numbers) + len(levels)) and len(levels) == 29
    assert len(test["x"]) == 72_043
    assert float(train["x"][:, numbers.index("age")].min()) >= 18
    assert not set(levels) & set(census.LEFT_OUT)
    codes = train["x"][:, len(numbers) :]
    assert float(codes.min()) >= 1
    assert all(float(c.max()) <= n for c, n in zip(codes.T, levels.values(), strict=True))
    assert train["y"].mean(0).tolist() == pytest.approx([0.086, 0.213], abs=0.001)


def test_a_draw_scales_by_its_training_rows_and_codes_what_is_new_as_nothing():
    small, large = (census.draw(SMALL, n, 0) for n in (60, 600))
    n = len(census.people()[2])
    x = large["train"][0]
    assert float(x[:, 0].mean()) == pytest.approx(0, abs=0.05)
    assert torch.equal(small["train"][1], large["train"][1][:60])
    assert (small["train"][0][:, n:] > 0).all()
    assert (small["test"][0][:, n:] == 0).any(), "some categories are new"
    assert torch.equal(small["test"][1], large["test"][1])
    held = {tuple(row) for row in small["held"][0].tolist()}
    assert len(held) > 250


@pytest.mark.parametrize("method", census.METHODS)
def test_all_methods_have_the_same_budget_and_take_one_row(method):
    tasks = census.TASKS[:1] if method == "single" else census.TASKS
    model = census.network(method, census.PLAN, 0, tasks)
    share = census.PLAN.budget * len(tasks) // 2
    assert 0.93 * share < parameters(model.pattern) <= share
    x, _ = census.draw(SMALL, 60, 0)["train"]
    assert model(x[:1]).shape == (1, len(tasks))
    torch.testing.assert_close(model(x)[:1], model(x[:1]), atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="no method"):
        census.pattern("top-2", 5, 4)


def test_the_census_run_gives_plain_json_and_a_seed_decides_it():
    results = json.loads(json.dumps(ch09.run_census([0], lambda line: None, plan=SMALL)))
    assert census.census_matrix(results["seeds"], "PLE").shape == (1, 1, 2)
    row = results["seeds"][0]["60"]
    assert list(row) == list(census.METHODS) and row["single"]["gates"] is None
    for method in ("MMoE", "top-1", "PLE"):
        for task in census.TASKS:
            gate = row[method]["gates"][task]
            assert sum(gate["weights"]) == pytest.approx(1, abs=1e-4)
            assert sum(gate["share"]) == pytest.approx(1, abs=1e-4)
    again = json.loads(json.dumps(ch09.run_census([0], lambda line: None, plan=SMALL)))
    assert again == results


def test_the_balance_loss_reaches_the_training(monkeypatch):
    calls = []
    plain = multitask.TopOne.balance
    monkeypatch.setattr(
        multitask.TopOne, "balance", lambda self, x: calls.append(len(x)) or plain(self, x)
    )
    for method in ("top-1", "top-1, balanced"):
        census.one_method(method, SMALL, 60, 0)
        assert len(calls) == (4 if "balanced" in method else 0)


# ------------------------------------------------------------------------------- record, benchmark
def test_one_piece_of_the_record_is_within_its_spread():
    """Seed 0, 1,000 ratings, with the settings that were chosen; the rest would take minutes."""
    record = records.load("09", "cpu")
    there = [run["1000"] for run in record.results["few"]]
    plan = ch09.PLANS["cpu"]
    rows = ch09.parts(0)[0][:1000]
    truth = ch09.ratings()["liked"][ch09.parts(0)[2]]
    for way, known in (("alone", None), ("joint", torch.arange(100_000))):
        best = ch09.searched(plan, rows, 0, [there[0][way]["setting"]], known)
        again = float(ch09.auc(best["scores"], truth))
        spread = np.std([run[way]["test"] for run in there], ddof=1)
        assert abs(again - there[0][way]["test"]) < max(3 * spread, 0.01)
    means, counted, _ = ch09.means_and_counts(plan, rows, 0)
    for way, scores in (("means", means), ("means + counts", counted)):
        again = float(ch09.auc(scores[ch09.parts(0)[2]], truth))
        assert again == pytest.approx(there[0][way]["test"], abs=1e-6)


def test_longer_training_is_plain_json_and_the_record_has_a_thousand_steps():
    results = ch09.run_longer([3], lambda line: None, plan=TINY)
    assert json.loads(json.dumps(results)) == results and results["steps"] == 2
    assert set(results["seeds"][0]) == {"two losses", "ESMM"}
    record = records.load("09", "longer")
    assert record.results["steps"] == 1000 and len(record.results["seeds"]) >= 5


def test_one_piece_of_the_census_record_is_within_its_spread():
    seeds = records.load("09", "census").results["seeds"]
    there = seeds[0]["500"]["shared"]
    plan = replace(census.PLAN, rates=(there["rate"],))
    again = census.one_method("shared", plan, 500, 0)
    for t, task in enumerate(census.TASKS):
        spread = census.census_matrix(seeds, "shared")[:, 0, t].std(ddof=1)
        assert abs(again["test"][task] - there["test"][task]) < max(3 * spread, 0.01)
    assert again["parameters"] == there["parameters"]


def test_the_ways_of_the_benchmark_do_the_same_work_and_its_record_is_whole():
    bench = load("experts")
    steps, sizes = bench.ways(16, features=6, budget=900)
    assert all(500 < size <= 900 for size in sizes.values())
    for name in bench.BY_HAND:
        torch.testing.assert_close(steps[name](), steps[f"{name}, by hand"](), atol=1e-5, rtol=1e-4)
    rows = bench.measure(steps, 1)
    assert set(steps) == set(rows) and rows["shared"]["to shared"] == 1
    assert all(row["ms"] > 0 for row in rows.values())
    record = records.load("09", "timing").results
    assert set(record) == set(map(str, bench.BATCHES))
    for batch in record.values():
        for name in bench.BY_HAND:
            assert batch["ways"][name]["to by hand"] < 1.15, "never slower than a loop by hand"
