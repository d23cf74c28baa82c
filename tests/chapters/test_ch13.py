"""Chapter 13: its experiment, and that its parts are what the text says."""

import copy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mtl_course import records, transfer
from mtl_course.exercises.ch13 import LowRank, edit, fuse, ties_merge
from mtl_course.experiments import ch13

TINY = replace(
    ch13.LIVE,
    width=24,
    source_images=300,
    source_steps=60,
    pool=120,
    labels=100,
    held_out=(80, 120),
    steps=12,
    rates=(1e-3, 1e-2),
    ranks=(1, 4),
    scales=(0.1, 0.3),
    keeps=(0.2,),
    ties_scales=(0.5,),
)


@cache
def study(seed=0):
    return ch13.Study(TINY, seed)


def test_the_whole_experiment_at_tiny_size():
    said = []
    results = ch13.run("cpu", range(2), said.append, plan=TINY)
    assert len(said) == 2 and len(results["seeds"]) == 2
    row = results["seeds"][0]
    assert list(row["methods"]) == list(ch13.methods(TINY))
    for method in row["methods"].values():
        assert method["rate"] in TINY.rates and len(method["test"]) == 6
        best = int(np.argmax(method["validation by rate"]))
        assert method["rate"] == TINY.rates[best]
        assert np.mean(method["test"]) == pytest.approx(method["test by rate"][best], abs=1e-5)
    assert row["methods"][ch13.FULL]["parameters"] == results["parameters"]
    assert row["methods"][ch13.PROBE]["parameters"] == 24 * 10 + 10
    assert set(row["by number"]) == {"1", "2", "3", "6"}
    assert np.shape(row["experts"]) == (6, 6) and set(row["forgetting"]) == set(ch13.TASKS)
    assert all(np.shape(rows) == (6, 11) for rows in row["paths"].values())
    again = ch13.one_seed(TINY, 0)
    assert again["methods"]["LoRA r=4"]["test"] == row["methods"]["LoRA r=4"]["test"]


def test_every_picture_is_in_one_part_only_and_tasks_share_their_test_digits():
    x, y = ch13.digits()
    one = ch13.Study(replace(TINY, source_steps=1), 3)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(3))
    pool, validation, test = (
        set(order[a:b].tolist()) for a, b in ((300, 420), (420, 500), (500, 620))
    )
    assert not (pool & validation or pool & test or validation & test)
    assert torch.equal(one.test[1][0], y[order[500:620]])
    assert (one.test[1] == one.test[1][0]).all() and (
        one.validation[1][0] == y[order[420:500]]
    ).all()
    assert one.train[0].shape == (6, 100, 1, 14, 14)
    assert torch.equal(one.clean[0], ch13.standard(x[order[500:620]]))
    # seen by the source: its own pictures as they are and under six corruptions
    assert len(one.seen) == 300 * 7 and torch.equal(one.seen_labels[:300], y[order[:300]])


@pytest.mark.parametrize("method", list(ch13.methods(TINY)))
def test_methods_train_what_they_say(method):
    model = ch13.methods(TINY)[method](copy.deepcopy(study().network))
    free = {n for n, p in model.named_parameters() if p.requires_grad}
    assert {"head.weight", "head.bias"} <= free
    trunk = {n for n in free if n.startswith("trunk")}
    every = {n for n, _ in model.named_parameters() if n.startswith("trunk")}
    wanted = {
        ch13.FULL: every,
        ch13.PROBE: set(),
        ch13.BITFIT: {n for n in every if n.endswith("bias")},
    }
    marks = (".up.", ".down.") if "adapters" in method else (".A.", ".B.")
    assert trunk == wanted.get(method, {n for n in every if any(m in n for m in marks)})


def plain_loop(net, x, y, rate, steps, batch, seed):
    """The training loop of the notebook."""
    free = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(free, lr=rate)
    falling = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, 2 * (1 - step / steps))
    )
    order = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(y), (batch,), generator=order)
        loss = F.cross_entropy(net(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()
    return net


@pytest.mark.parametrize("method", ["LoRA r=4", ch13.FULL, "adapters m=8"])
def test_the_loop_in_plain_sight_is_that_of_the_experiment(method):
    one = study()
    made = one.tune(method)
    for rate, task in ((0, 2), (1, 5)):
        net = copy.deepcopy(one.network)
        ch13.seeded(lambda net=net: ch13.methods(TINY)[method](net), one.seed)
        x, y = (part[task] for part in one.train)
        plain_loop(net, x, y, TINY.rates[rate], TINY.steps, TINY.batch, one.seed)
        own = made.own(rate, task)
        for name, p in net.named_parameters():
            if p.requires_grad:
                torch.testing.assert_close(p.detach(), own[name], atol=2e-5, rtol=1e-3)
        x, y = (part[task] for part in one.test)
        right = (net(x).argmax(1) == y).float().mean()
        assert float(right) == pytest.approx(float(made.test[rate, task]), abs=0.02)


def test_joint_training_sees_as_many_pictures_of_each_task(monkeypatch):
    seen = []
    monkeypatch.setattr(ch13, "train_many", lambda *given: (seen.append(given), given[1])[1])
    study().joint()
    outputs, start, x, y, rates, steps, batch, _ = seen[0]
    assert x.shape[:3] == (1, 100, 6) and y.shape == (1, 100, 6)
    assert (len(rates), steps, batch) == (2, TINY.steps, TINY.batch)
    rows = x[:, :5].expand(2, *x[:, :5].shape[1:])
    assert outputs(start, rows).shape == (2, 30, 10)


def test_the_exercises_are_the_packages_code():
    """Equations 1, 2, 4 and 5."""
    g = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(6, 5)
    mine, package = LowRank(copy.deepcopy(layer), 2, 3.0), transfer.LoRALayer(copy.deepcopy(layer))
    package.add("a", 2, 3.0)
    with torch.no_grad():
        for name in "AB":
            value = torch.randn(getattr(mine, name).shape, generator=g)
            getattr(mine, name).copy_(value)
            getattr(package, name)["a"].copy_(value)
    x = torch.randn(4, 6, generator=g)
    torch.testing.assert_close(mine(x), package(x))
    package.merge()
    torch.testing.assert_close(mine.merged().weight, package.base.weight)
    one = study()
    full = one.tune(ch13.FULL)
    experts = [full.own(1, t) for t in range(6)]
    vectors = [transfer.task_vector(state, one.source) for state in experts]
    named = dict(zip(ch13.TASKS, experts, strict=True))
    coefficients = {name: 0.1 * k - 0.2 for k, name in enumerate(ch13.TASKS)}
    edited = edit(one.source, named, coefficients)
    added = transfer.add_vectors(one.source, vectors, list(coefficients.values()))
    rows = torch.stack([torch.cat([p.flatten() for p in v.values()]) for v in vectors])
    tied = ties_merge(rows, round(0.2 * rows.shape[1]))
    torch.testing.assert_close(
        tied, torch.cat([p.flatten() for p in transfer.ties(vectors).values()])
    )
    for name, value in added.items():
        torch.testing.assert_close(edited[name], value)
    # an adapter that holds two adds what the two add
    low = one.tune("LoRA r=4")
    parts = [
        (low.own(1, t)["trunk.1.A.default"], low.own(1, t)["trunk.1.B.default"]) for t in (0, 1)
    ]
    A, B = fuse(parts, [0.5, 0.5])
    deltas = ch13.from_lora(one, replace_best(low, 1))
    torch.testing.assert_close(
        B @ A, (deltas[0]["trunk.1.weight"] + deltas[1]["trunk.1.weight"]) / 2
    )


def replace_best(tuned, rate):
    """The same, where this rate is the best."""
    validation = torch.zeros_like(tuned.validation)
    validation[rate] = 1.0
    return ch13.Tuned(tuned.model, tuned.params, validation, tuned.test)


def test_cutting_to_full_rank_changes_nothing_and_the_nearest_matrix_is_nearest():
    one = study()
    full = one.tune(ch13.FULL)
    vectors = [transfer.task_vector(full.own(1, t), one.source) for t in range(6)]
    rows = ch13.truncated(one, vectors, [1, 24])
    assert rows["24"] == pytest.approx(float(full.test[1].mean()), abs=0.01)
    matrix = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    cut = ch13.low_rank(matrix, 2)
    assert torch.linalg.matrix_rank(cut) == 2
    values = torch.linalg.svdvals(matrix)
    assert float((matrix - cut).square().sum()) == pytest.approx(
        float(values[2:].square().sum()), rel=1e-4
    )


def test_near_is_the_lowest_rate_within_a_point_of_the_best():
    validation = torch.tensor([[0.5], [0.845], [0.85], [0.7]]).expand(4, 6)
    tuned = ch13.Tuned(torch.nn.Identity(), {}, validation, validation)
    assert (tuned.best, tuned.near) == (2, 1)


def test_one_seed_of_the_record_is_within_its_spread():
    """The source, and two methods at the rates that the record's search chose."""
    record = records.load("13", "cpu")
    plan, seed = ch13.PLANS["cpu"], record.provenance["seeds"][0]
    one = ch13.Study(plan, seed)
    rows = record.results["seeds"]
    spread = np.std([np.mean(r["source"]) for r in rows], ddof=1)
    again = float(one.accuracies(one.source).mean())
    assert abs(again - np.mean(rows[0]["source"])) < 3 * spread + 0.005
    for method in (ch13.PROBE, "LoRA r=4"):
        values = [np.mean(r["methods"][method]["test"]) for r in rows]
        made = one.tune(method, [rows[0]["methods"][method]["rate"]])
        limit = 3 * np.std(values, ddof=1) + 0.005
        assert abs(float(made.test.mean()) - values[0]) < limit, method
