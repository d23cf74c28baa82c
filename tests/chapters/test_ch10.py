"""Chapter 10: its experiments at tiny size, the records, and what the chapter derives."""

import ast
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtl_course import data, records
from mtl_course.dev import notebooks
from mtl_course.exercises import ch10 as exercises
from mtl_course.experiments import ch10, ch10_heads, ch10_many, ch10_stocks, ch10_vowels
from mtl_course.experiments.common import seeded
from mtl_course.networks import GRU

TINY = replace(
    ch10.PLANS["cpu"], features=4, shots=(1, 2), rates=(0.01, 0.05), stops=(1, 3), unlabelled=8
)
SMALL = replace(
    ch10.STOCKS,
    features=3,
    history=(52,),
    new=(30,),
    source=60,
    newcomers=2,
    test=8,
    long=20,
    batch=8,
    rates=(0.01, 0.03),
    stops=(0, 2, 4),
    strengths=(0.1, 1.0),
)


@pytest.fixture(scope="module")
def sounds():
    return ch10_vowels.utterances()


@pytest.fixture(scope="module")
def series():
    return ch10_stocks.weeks()


def cell(name, **space):
    """The functions of the cell of the chapter that defines this one."""
    ((_, path),) = notebooks.find(["10"])
    (source,) = (c.source for c in notebooks.read(path).cells if f"def {name}(" in c.source)
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    space |= {"np": np, "torch": torch, "nn": nn, "F": F, "ch10_many": ch10_many}
    exec(compile(tree, "notebook", "exec"), space)
    return space[name]


# ------------------------------------------------------------------------- many GRUs side by side
def test_each_of_many_networks_is_that_network():
    """Against the course's GRU, whose equality with torch's the tests of the networks hold."""
    heads = {"a": 2, "b": 3}
    models = [seeded(lambda: ch10_many.Heads(5, 4, heads), seed) for seed in (0, 1, 2)]
    stack = {
        name: torch.stack([dict(m.named_parameters())[name] for m in models])
        for name, _ in models[0].named_parameters()
    }
    x = torch.randn(3, 6, 7, 5, generator=torch.Generator().manual_seed(0))
    n = torch.tensor([7, 1, 3, 7, 5, 2])
    outputs = ch10_many.states(stack, x)
    ends = ch10_many.last(outputs, n.expand(3, -1))
    for k, model in enumerate(models):
        every, last = model.trunk(x[k], n)
        there = torch.arange(7) < n[:, None]
        torch.testing.assert_close(outputs[k][there], every[there])
        torch.testing.assert_close(ends[k], last)
        for name in heads:
            torch.testing.assert_close(
                ch10_many.head(stack, name, ends)[k], model.heads[name](last)
            )


def test_copies_begin_as_one_network_and_leave_the_stream_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    stack = ch10_many.copies(5, 4, {"a": 2}, 7, 3)
    assert torch.equal(torch.get_rng_state(), before)
    model = seeded(lambda: ch10_many.Heads(5, 4, {"a": 2}), 7)
    for name, p in model.named_parameters():
        assert stack[name].shape == (3, *p.shape)
        assert all(torch.equal(copy, p.detach()) for copy in stack[name])


def test_training_side_by_side_is_adam_on_each():
    start = ch10_many.copies(3, 4, {"a": 2, "idle": 2}, 0, 2)
    x = torch.randn(2, 5, 6, 3, generator=torch.Generator().manual_seed(0))

    def loss(p, x=x):
        return ch10_many.head(p, "a", ch10_many.states(p, x)[:, :, -1]).square().mean((1, 2))

    seen = []
    end = ch10_many.train(start, loss, [0.01, 0.1], (0, 2, 5), lambda k, p: seen.append(k))
    assert seen == [0, 2, 5]
    for g, rate in enumerate((0.01, 0.1)):
        alone = {k: p[g : g + 1].clone().requires_grad_() for k, p in start.items()}
        adam = torch.optim.Adam(alone.values(), rate)
        for _ in range(5):
            adam.zero_grad()
            loss(alone, x[g : g + 1]).sum().backward()
            adam.step()
        for name, p in alone.items():
            torch.testing.assert_close(end[name][g], p[0].detach(), rtol=1e-4, atol=1e-6)
    assert torch.equal(end["heads.idle.weight"], start["heads.idle.weight"])


# ------------------------------------------------------------------------------------------ speech
def test_utterances_are_scaled_by_the_training_part_alone(sounds):
    there = torch.arange(29) < sounds.lengths[:, None]
    frames = sounds.x[sounds.pool][there[sounds.pool]]
    torch.testing.assert_close(frames.mean(0), torch.zeros(12), atol=1e-4, rtol=0)
    torch.testing.assert_close(frames.std(0, correction=0), torch.ones(12), atol=1e-4, rtol=0)
    assert not sounds.x[~there].any() and len(sounds.pool) == 270 and len(sounds.test) == 370


def test_no_utterance_is_on_two_sides_and_few_labels_are_nested(sounds):
    labelled, free, valid = sounds.parts(2, 10, 5)
    more, _, _ = sounds.parts(8, 10, 5)
    sets = [set(rows.tolist()) for rows in (labelled, free, valid, more, sounds.test)]
    assert sets[0] < sets[3] < sets[1] and not sets[1] & sets[2]
    assert not (sets[1] | sets[2]) & sets[4]
    assert sounds.y[labelled].bincount().tolist() == [2] * 9


def test_the_joint_loss_is_equation_2(sounds):
    """Sums over frames, written out for one utterance after the other."""
    p = ch10_many.copies(12, 4, {"speaker": 9, "next": 12}, 0, 1)
    model = seeded(lambda: ch10_many.Heads(12, 4, {"speaker": 9, "next": 12}), 0)
    rows = torch.tensor([3, 80, 200])
    x, n, y = sounds.x[rows], sounds.lengths[rows], sounds.y[rows]
    outputs = ch10_many.states(p, x[None])
    error, count, nll = 0.0, 0, 0.0
    for row, length, who in zip(x, n.tolist(), y, strict=True):
        every, last = model.trunk(row[None, :length])
        guess = model.heads["next"](every[0, :-1])
        error += float((guess - row[1:length]).square().mean(1).sum().detach())
        count += length - 1
        nll -= float(model.heads["speaker"](last).log_softmax(1)[0, who].detach())
    got = ch10_vowels.next_frame_loss(p, x[None], outputs, n[None])
    assert float(got) == pytest.approx(error / count, rel=1e-5)
    last = ch10_many.last(outputs, n[None])
    assert float(ch10_vowels.speaker_loss(p, last, y[None])) == pytest.approx(nll / 3, rel=1e-5)


@pytest.mark.parametrize("joint", [False, True])
def test_the_loop_in_plain_sight_is_learn(sounds, joint):
    loop = cell("learn", sounds=sounds, masked=exercises.known_losses.reference)
    labelled, free, _ = sounds.parts(2, 10, 1)
    rows = free if joint else None
    mine = loop(labelled, rows, 1, 0.01, 4)
    plan = replace(ch10.PLANS["cpu"], rates=(0.01,), stops=(4,))
    package = ch10_vowels.learn(plan, sounds, labelled, rows, 1, lambda *_: None)
    for name, p in mine.named_parameters():
        torch.testing.assert_close(p.detach(), package[name][0], rtol=1e-3, atol=1e-4)


def test_every_way_has_the_same_budget_and_validation_alone_chooses(sounds, monkeypatch):
    calls = []
    plain = ch10_vowels.train

    def watched(start, loss, rates, stops, judge):
        calls.append((tuple(rates), tuple(stops)))
        return plain(start, loss, rates, stops, judge)

    monkeypatch.setattr(ch10_vowels, "train", watched)
    rows = ch10_vowels.compare(TINY, sounds, 1, 0)
    assert set(rows) == {*ch10_vowels.WAYS, *ch10_vowels.BAGS}
    assert set(calls) == {(TINY.rates, TINY.stops)} and len(calls) == 5
    assert all(rows[way]["rate"] in TINY.rates for way in ch10_vowels.WAYS)
    assert json.loads(json.dumps(rows)) == ch10_vowels.compare(TINY, sounds, 1, 0)


def test_a_bag_knows_no_order(sounds):
    other = replace(sounds, x=sounds.x.clone())
    other.x[0, : sounds.lengths[0]] = other.x[0, : sounds.lengths[0]].flip(0)
    torch.testing.assert_close(other.bags, sounds.bags, atol=1e-5, rtol=1e-5)


# ----------------------------------------------------------------------------------------- finance
def test_weeks_have_no_gap_and_one_of_them_is_right(series):
    assert series.level.shape == series.returns.shape == (1356, 20)
    assert set(np.diff(series.date).astype(int)) == {7}
    ds = data.load("stocks")
    day = np.array(ds["date"], dtype="datetime64[D]")
    week = (day >= series.date[700]) & (day < series.date[701])
    k = series.names.index("KO")
    prices = ds["prices"][np.flatnonzero(week)[0] - 1 : np.flatnonzero(week)[-1] + 1, k]
    r = np.diff(np.log(prices))
    assert series.returns[700, k] == pytest.approx(r.sum())
    assert series.level[700, k] == pytest.approx(0.5 * np.log((r**2).mean() + 0.002**2))


def test_another_future_changes_nothing_that_is_trained_on_and_no_window_that_is_asked(series):
    other = replace(series, level=series.level.copy())
    other.level[700:] = 5 - 2 * other.level[700:]
    a, b = (ch10_stocks.volatility(ch10.STOCKS, s, 700, 104, [0, 3]) for s in (series, other))
    for name in ("x", "y", "fit", "valid", "known"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert torch.equal(a.new[:, 0], b.new[:, 0]), "the first forecast is made at the origin"
    assert not torch.equal(a.truth, b.truth) and np.array_equal(a.deviation, b.deviation)


def test_labels_are_known_up_to_the_origin_and_choices_are_made_later_than_fits(series):
    given = ch10_stocks.volatility(ch10.STOCKS, series, 700, 104, range(3))
    # 93 windows of 12 weeks; the last label of horizon h is h weeks before the end
    assert given.known.sum(0).tolist() == [92, 89, 81]
    assert not (given.fit & given.valid).any() and not (given.valid & ~given.known).any()
    for k, h in enumerate(ch10.STOCKS.horizons):
        first, end = given.valid[:, k].nonzero()[0], given.fit[:, k].nonzero()[-1]
        assert int(end) + h <= int(first), "no fitted label reaches into the weeks to choose by"
    past = series.level[596:700, 0]
    row = (series.level[685:697, 0] - past.mean()) / past.std()
    torch.testing.assert_close(given.x[0, -4, :, 0], torch.as_tensor(row).float())
    assert given.y[0, 100 - 11, 1] == 0, "weeks 697 to 700: not known at the origin"
    assert given.truth[0, 0, 0] == pytest.approx(
        float((series.level[700, 0] - past.mean()) / past.std()), rel=1e-5
    )


def test_linear_regressions_are_ridge_regression(series):
    from sklearn.linear_model import Ridge

    plan = replace(ch10.STOCKS, strengths=(3.0,))
    given = ch10_stocks.volatility(plan, series, 700, 104, [2, 5])
    guess, _ = ch10_stocks.ridge(plan, given, ch10_stocks.har_columns)
    x, new = (ch10_stocks.har_columns(a).numpy() for a in (given.x, given.new))
    for s in range(2):
        for k in range(3):
            rows = given.known[:, k].numpy()
            there = Ridge(alpha=3.0).fit(x[s][rows], given.y[s, rows, k].numpy())
            np.testing.assert_allclose(guess[s, :, k], there.predict(new[s]), atol=1e-4)


def test_together_is_one_task_of_all_windows(series):
    given = ch10_stocks.volatility(SMALL, series, 700, 60, range(3))
    pooled = given.together
    assert pooled.x.shape == (1, 3 * given.x.shape[1], 12, 1)
    torch.testing.assert_close(pooled.y[0, : given.y.shape[1]], given.y[0])
    assert torch.equal(pooled.known[given.y.shape[1] :][: given.y.shape[1]], given.known)
    assert torch.equal(pooled.new.view(given.new.shape), given.new)


def test_a_network_per_stock_sees_that_stock_alone(series):
    both = ch10_stocks.volatility(SMALL, series, 700, 60, [0, 7])
    other = replace(both, y=both.y.clone(), x=both.x.clone())
    other.y[1], other.x[1] = -other.y[1], 2 * other.x[1]
    plan = replace(SMALL, rates=(0.02,), stops=(3,))
    (a, _, _), (b, _, _) = (ch10_stocks.gru(plan, t, 0) for t in (both, other))
    assert torch.equal(a[0], b[0]) and not torch.equal(a[1], b[1])


def test_no_step_is_the_past_mean_or_the_source_as_it_is(series):
    given = ch10_stocks.volatility(SMALL, series, 700, 60, [0, 7])
    still = replace(SMALL, stops=(0,))
    guess, choice, _ = ch10_stocks.gru(still, given, 0)
    assert not guess.any() and choice["steps"] == 0
    _, _, source = ch10_stocks.gru(replace(SMALL, stops=(4,)), given.together, 0)
    tuned, _, _ = ch10_stocks.gru(still, given, 0, source)
    spread = {name: p.expand(2, *p.shape[1:]) for name, p in source.items()}
    torch.testing.assert_close(tuned, ch10_stocks.network(spread, given.new))


def test_three_heads_ask_what_the_text_says(series):
    """Level: the mean return ahead; direction: its sign; volatility: as in the rest of the part."""
    origin, weeks = 400, 60
    tasks = ch10_heads.three_tasks(SMALL, series, origin, weeks)
    last = origin - 1  # the first week that a forecast is made in
    for k, h in enumerate(SMALL.horizons):
        ahead = series.returns[last + 1 : last + 1 + h].mean(0)
        past = series.returns[origin - weeks : origin]
        level = (ahead - past.mean(0)) / past.std(0)
        stocks = len(series.names)
        first = tasks["level"].truth[0].view(stocks, -1, 3)[:, 0, k]
        np.testing.assert_allclose(first, level, rtol=1e-4, atol=1e-5)
        up = tasks["direction"].truth[0].view(stocks, -1, 3)[:, 0, k]
        assert np.array_equal(up.numpy(), (ahead > 0).astype(np.float32))
    assert torch.equal(tasks["level"].x, tasks["volatility"].x)
    assert torch.equal(
        tasks["volatility"].truth,
        ch10_stocks.volatility(
            SMALL, series, origin, weeks, range(len(series.names))
        ).together.truth,
    )


def test_a_joint_loss_is_the_sum_and_unknown_labels_do_not_count(series):
    tasks = ch10_heads.three_tasks(SMALL, series, 400, 60)
    heads = dict.fromkeys(tasks, len(SMALL.horizons))
    parameters = ch10_many.copies(2, 4, heads, 0, 2)
    x = tasks["level"].x[:, -5:].expand(2, -1, -1, -1)
    y = {name: each.y[:, -5:].clone() for name, each in tasks.items()}
    masks = {name: each.known[-5:] for name, each in tasks.items()}
    assert not all(mask.all() for mask in masks.values()), "the last weeks have unknown labels"
    losses = ch10_heads.head_losses(parameters, tasks, x, y, masks)
    h = ch10_many.states(parameters, x)[:, :, -1]
    for name, mask in masks.items():
        guess = ch10_many.head(parameters, name, h)
        for g in range(2):
            said, label = guess[g][mask], y[name][0][mask]
            if name == "direction":
                want = F.binary_cross_entropy_with_logits(said, label)
            else:
                want = F.mse_loss(said, label)
            assert losses[name][g].item() == pytest.approx(want.item(), rel=1e-5)
        y[name][:, ~mask] = 7.0
    again = ch10_heads.head_losses(parameters, tasks, x, y, masks)
    assert all(torch.equal(losses[name], again[name]) for name in losses)


def test_the_heads_run_in_small_and_no_step_says_the_past_mean(series, monkeypatch):
    plan = replace(SMALL, stops=(0,))
    rows = json.loads(json.dumps(ch10_heads.three_heads(plan, series, 0, (52,))))["52"]
    assert set(rows["joint"]) == set(rows["alone"]) == set(ch10_heads.HEADS)
    assert rows["joint"] == rows["alone"] and rows["joint"]["level"] == pytest.approx([0] * 3)
    tasks = ch10_heads.three_tasks(SMALL, series, 400, 60)
    said, chosen = ch10_heads.network(replace(SMALL, stops=(4,)), tasks, 0)
    assert chosen["steps"] == 4 and all(each.shape == (160, 3) for each in said.values())
    perfect = {name: each.truth[0] - 0.5 * (name == "direction") for name, each in tasks.items()}
    scores = ch10_heads.judged(tasks, perfect)
    assert scores["level"] == scores["direction"] == [100.0] * 3
    assert scores["volatility"] == [0.0] * 3


def test_runs_give_plain_json_and_a_seed_decides_them(series, monkeypatch):
    monkeypatch.setattr(ch10_stocks, "weeks", lambda: series)
    lines = []
    results, again = (
        json.loads(json.dumps(ch10.run_stocks([0], lines.append, plan=SMALL))) for _ in range(2)
    )
    assert results == again
    (seed,) = results["seeds"]
    assert set(seed["everyone"]["results"]["52"]["errors"]) == set(ch10_stocks.METHODS)
    assert set(seed["newcomers"]["results"]["30"]["errors"]) == set(ch10_stocks.NEW)
    assert np.shape(seed["long_run"]["tests"]["HAR, own"]) == (20, 3, 2)
    speech = ch10.run("cpu", [0], lines.append, plan=replace(TINY, shots=(1,), stops=(1,)))
    assert set(speech["seeds"][0]) == {"1"} and len(lines) == 3
    assert ch10_vowels.accuracies(speech["seeds"], 1, "speaker alone").shape == (1,)


def test_the_networks_refuse_an_empty_series_and_name_its_row():
    with pytest.raises(ValueError, match="Row 1 has length 0"):
        GRU(2, 3)(torch.zeros(2, 4, 2), torch.tensor([4, 0]))
    with pytest.raises(ValueError, match="Series 1"):
        data.pad([[[1.0]], np.zeros((0, 1))])
    with pytest.raises(ValueError, match="gap before row 2"):
        data.windows([1.0, 2.0, 3.0, 4.0], 1, [1], time=[0, 1, 3, 4])


# ------------------------------------------------------------------------------------------ records
def test_a_piece_of_the_record_is_within_its_spread(sounds, series):
    """Two labels per speaker, two of the ways; four new stocks with half a year."""
    record = records.load("10", "cpu")
    labelled, free, valid = sounds.parts(2, 10, 0)
    plan = ch10.PLANS["cpu"]
    best = (0.0, 0.0)

    def judge(step, parameters):
        nonlocal best
        both = (ch10_vowels.accuracy(parameters, sounds, r).tolist() for r in (valid, sounds.test))
        for validation, test in zip(*both, strict=True):
            if validation > best[0]:
                best = validation, test

    ch10_vowels.learn(replace(plan, stops=(50, 100)), sounds, labelled, free, 0, judge)
    there = ch10_vowels.accuracies(record.results["seeds"], 2, "+ next, all")
    assert abs(100 * best[1] - there[0]) < max(3 * there.std(ddof=1), 8)

    market = records.load("10", "stocks").results["seeds"]
    finance = ch10.STOCKS
    origin = ch10_stocks.origin_of(finance, series, 0)
    assert market[0]["everyone"]["origin"] == str(series.date[origin])
    given = ch10_stocks.volatility(finance, series, origin, 416, range(20))
    har, _ = ch10_stocks.ridge(finance, given.together, ch10_stocks.har_columns)
    again = np.mean(ch10_stocks.errors(given, har.view(given.truth.shape)))
    assert again == pytest.approx(
        np.mean(market[0]["everyone"]["results"]["416"]["errors"]["HAR, together"]), rel=1e-3
    )
