"""Chapter 4: the trained dial, and 20,000 people."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mtl_course import data, records
from mtl_course.experiments import ch04, ch04_census, ch04_dial, ch09_census
from mtl_course.experiments.common import seeded
from mtl_course.networks import parameters

SMALL = replace(
    ch04_dial.PLAN,
    few=20,
    many=60,
    held=40,
    test=100,
    side=7,
    features=3,
    shares=(0.0, 1.0),
    steps=6,
    stops=2,
    batch=15,
    rates=(0.01, 0.03),
    strengths=(0.1,),
)


@pytest.fixture(autouse=True)
def _images():
    try:
        data.load("mnist_5k")
    except data.DataError as error:
        pytest.skip(f"mnist_5k cannot be had here: {error}")


def test_a_draw_shares_no_image_and_permutes_those_below_p():
    given = ch04_dial.draw(3, SMALL)
    rows = torch.cat(list(given.rows.values()))
    assert len(rows) == len(rows.unique()) == 220
    many = given.rows["many"]
    none, half, every = given.at(many, torch.tensor([0.0, 0.5, 1.0]))
    assert torch.equal(none, given.x[many]) and torch.equal(every, given.permuted[many])
    assert torch.equal(every.sort(1).values, none.sort(1).values) and not torch.equal(every, none)
    moved = given.chance[many] < 0.5
    assert 10 < moved.sum() < 50
    assert torch.equal(half[moved], every[moved]) and torch.equal(half[~moved], none[~moved])
    # what is permuted at a small p is permuted at a larger one
    assert not torch.equal(ch04_dial.draw(4, SMALL).rows["many"], many)


def plain(way, seed, p, rate, strength, plan):
    """Validation losses of both tasks at the end of one run, by PyTorch's own loop."""
    given = ch04_dial.draw(seed, plan)
    model = seeded(lambda: ch04_dial.build(way, given.x.shape[1], plan.features), seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    order, p = torch.Generator().manual_seed(seed), torch.tensor([p])
    few, many, held = (given.rows[part] for part in ("few", "many", "held"))
    for _ in range(plan.steps):
        a = few[torch.randperm(len(few), generator=order)[: plan.batch]]
        b = many[torch.randperm(len(many), generator=order)[: plan.batch]]
        weight = 1 if way == "equal weights" else plan.few / plan.many
        loss = weight * F.cross_entropy(model(given.x[a])["few"], given.y[a])
        loss = loss + F.cross_entropy(model(given.at(b, p)[0])["many"], given.y[b])
        if way == "soft":
            loss = loss + strength * model.pattern.spread()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        said = model(given.x[held])["few"], model(given.at(held, p)[0])["many"]
    return [float(F.cross_entropy(y, given.y[held])) for y in said]


@pytest.mark.parametrize("way", ch04_dial.WAYS)
def test_stacked_training_is_the_plain_loop(way):
    plan = replace(SMALL, stops=1)
    rows = ch04_dial.train(way, 1, plan)
    assert len(rows) == 2
    strength = 0.1 if way == "soft" else 0.0
    for row, p in zip(rows, plan.shares, strict=True):
        ends = np.array([plain(way, 1, p, rate, strength, plan) for rate in plan.rates])
        assert np.allclose(list(row["validation"].values()), ends.min(0), rtol=1e-3)
        chosen = [plan.rates[k] for k in ends.argmin(0)]
        assert np.allclose(list(row["rate"].values()), chosen)
        assert set(row["stop"].values()) == {6}


def test_the_few_of_own_trunks_do_not_see_the_dial_and_those_of_one_trunk_do():
    own, one = (ch04_dial.train(way, 0, SMALL) for way in ("own trunks", "one trunk"))
    assert own[0]["accuracy"]["few"] == own[1]["accuracy"]["few"]
    assert own[0]["validation"]["few"] == pytest.approx(own[1]["validation"]["few"], rel=1e-4)
    assert one[0]["validation"]["few"] != pytest.approx(one[1]["validation"]["few"], rel=1e-3)


def test_twice_as_wide_has_the_trunks_of_two_and_an_unknown_way_is_named():
    own, wide = (ch04_dial.build(way, 30, 4).pattern for way in ("own trunks", "twice as wide"))
    assert parameters(own) == parameters(wide) == 2 * (30 * 4 + 4)
    with pytest.raises(ValueError, match="no way 'magic'"):
        ch04_dial.build("magic", 30, 4)


def test_accuracy_of_a_task_or_of_both():
    rows = [[{"accuracy": {"few": 40.0, "many": 80.0}}, {"accuracy": {"few": 20.0, "many": 90.0}}]]
    assert ch04_dial.accuracy(rows, "few").tolist() == [[40.0, 20.0]]
    assert ch04_dial.accuracy(rows).tolist() == [[60.0, 55.0]]


def test_the_dial_as_a_record(monkeypatch):
    said, tiny = [], replace(SMALL, steps=2, rates=(0.01,))
    results = ch04_dial.run_dial([0], said.append, plan=tiny)
    json.dumps(results)
    assert tuple(results) == ch04_dial.WAYS and len(said) == 1
    assert all(len(rows) == 1 and len(rows[0]) == 2 for rows in results.values())
    assert ch04.RECORDS["dial"] is ch04_dial.run_dial


def test_people_are_asked_of_chapter_nines_methods(monkeypatch):
    asked = []

    def spy(method, plan, size, seed):
        asked.append((method, size, seed))
        return {"test": {"income": 0.75, "never married": 0.95}}

    monkeypatch.setattr(ch09_census, "one_method", spy)
    results = ch04.RECORDS["census"]([0, 1], lambda line: None)
    assert tuple(results) == ch04_census.METHODS
    assert asked == [(m, 20_000, seed) for seed in (0, 1) for m in ch04_census.METHODS]
    assert ch04_census.auc(results["PLE"]).tolist() == pytest.approx([0.85, 0.85])


def test_one_seed_of_the_dials_record_again():
    """Both ends of the dial, every rate of the record: within its spread over seeds, since other
    machines round otherwise.
    """
    ends = replace(ch04_dial.PLAN, shares=(0.0, 1.0))
    results = records.load("04", "dial").results
    for way in ("one trunk", "equal weights"):
        found = ch04_dial.accuracy(results[way], "few")[:, [0, -1]]
        again = ch04_dial.accuracy([ch04_dial.train(way, 0, ends)], "few")[0]
        assert (abs(again - found[0]) < found.std(0, ddof=1)).all(), (way, again, found[0])


def test_one_piece_of_the_record_of_people_again():
    """One trunk, seed 0, at the rate that it chose."""
    try:
        data.load("census_income")
    except data.DataError as error:
        pytest.skip(f"census_income cannot be had here: {error}")
    runs = records.load("04", "census").results["shared"]
    plan = replace(ch04_census.PLAN, rates=(runs[0]["rate"],))
    again = ch09_census.one_method("shared", plan, ch04_census.PEOPLE, 0)
    assert again["parameters"] == runs[0]["parameters"]
    for task, value in again["test"].items():
        spread = np.std([run["test"][task] for run in runs], ddof=1)
        assert abs(value - runs[0]["test"][task]) < max(3 * spread, 0.01)


def test_the_records_of_the_dial_and_of_people_are_whole():
    dial, people = (records.load("04", part).results for part in ("dial", "census"))
    assert set(dial) == set(ch04_dial.WAYS) and set(people) == set(ch04_census.METHODS)
    for rows in dial.values():
        assert len(rows) >= 8 and all(len(row) == len(ch04_dial.PLAN.shares) for row in rows)
    assert all(len(rows) >= 5 for rows in people.values())
