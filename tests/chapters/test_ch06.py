"""Chapter 6: the composed images, the table of promises, the record against a run, the benchmark's
ways against each other.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmark_tools import load
from promises import KEPT, PROMISES

from mtl_course import data, records
from mtl_course.data import two_digits
from mtl_course.experiments import ch06, ch06_digits, ch06_scale
from mtl_course.multitask.balancing import METHODS
from mtl_course.networks.cost import parameters


# --------------------------------------------------------------------------------------------- data
def test_source_digits_of_the_parts_are_disjoint_and_balanced():
    y = data.load("mnist_5k").y
    rows = two_digits.parts(y, {"train": 300, "validation": 100, "test": 100}, seed=3)
    assert (
        len(np.unique(np.concatenate(list(rows.values()))))
        == sum(len(r) for r in rows.values())
        == 5000
    )
    assert all(
        (np.bincount(y[rows[part]]) == n).all()
        for part, n in (("train", 300), ("validation", 100), ("test", 100))
    )


def test_left_digit_is_at_the_top_left_and_the_brighter_pixel_stays():
    left, right = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)
    left[0, 0, 0], left[0, 3, 3], right[0, 1, 1], right[0, 3, 3] = 255, 51, 102, 255
    image = two_digits.compose(left, right, shift=2, size=6)[0, 0]
    assert image.shape == (6, 6) and image.dtype == torch.float32
    expected = torch.zeros(6, 6)
    expected[0, 0], expected[3, 3], expected[5, 5] = 1.0, 0.4, 1.0
    torch.testing.assert_close(image, expected)


def test_labels_are_those_of_the_digits_and_independent_of_each_other():
    ds = data.load("mnist_5k")
    # An image that is its label.
    x = np.repeat(ds.y.astype(np.uint8)[:, None, None], 4, axis=1).repeat(4, axis=2)
    images, labels = two_digits.pairs(x, ds.y, 20_000, seed=0, shift=4, size=8)
    torch.testing.assert_close(255 * images[:, 0, 0, 0], labels["left"].float())
    torch.testing.assert_close(255 * images[:, 0, 7, 7], labels["right"].float())
    joint = torch.zeros(10, 10).index_put_(
        (labels["left"], labels["right"]), torch.ones(20_000), accumulate=True
    )
    # Chi-squared with 99 degrees of freedom: 150 has p < 0.001.
    assert float(((joint - 200) ** 2 / 200).sum()) < 150


# ----------------------------------------------------------------------------------------- promises
def test_table_of_promises():
    """Chapter 6's table: a share of 1 exactly where the property tests of `test_balancing` stand
    behind it.
    """
    found = ch06.promises()
    assert {
        method: tuple(share == 1 for share in row.values()) for method, row in found.items()
    } == KEPT
    assert all(tuple(row) == PROMISES for row in found.values())


# --------------------------------------------------------------------------------------- experiment
TINY = replace(
    ch06.CPU,
    digits=(30, 10, 10),
    pairs=(256, 64, 64),
    epochs=2,
    rates=(1e-3, 3e-3, 1e-2),
    ratios=(0.5, 1.0, 2.0),
    radii=(0.2, 0.5, 0.8),
)


def test_every_method_gets_as_many_trials():
    for plan in (ch06.CPU, ch06.GPU):
        assert {
            len(ch06.trials(method, plan)) for method in (*ch06.TASKS, "sum", *ch06.SURGERY)
        } == {9}
        every = ch06.trials("sum, all", plan)
        assert len(every) == 27 and all(trial in every for trial in ch06.trials("sum", plan))
        assert [t["rate"] for t in every if t["ratio"] == 1] == [
            t["rate"] for t in ch06.trials("mgda", plan)
        ]
        assert {
            min(t["rate"] for t in ch06.trials(m, plan)) for m in ("sum", "cagrad", "mgda")
        } == {plan.rates[0]}
        assert {
            max(t["rate"] for t in ch06.trials(m, plan)) for m in ("sum", "cagrad", "mgda")
        } == {plan.rates[-1]}


@pytest.mark.slow
@pytest.mark.parametrize(
    "plan",
    [TINY, replace(TINY, size=36, channels=(4, 8), features=16, pairs=(192, 64, 64))],
    ids=["MLP", "ConvNet"],
)
def test_the_whole_experiment_runs_at_a_tiny_size(plan):
    plan, lines = replace(plan, rates=(1e-3, 2e-3, 3e-3), ratios=(1.0,), radii=(0.5,)), []
    found = ch06.run("cpu", [0, 1, 2], lines.append, plan=plan)
    assert len(lines) == 3 * 3
    assert found["accuracy"].keys() == {
        "single task",
        "sum",
        "sum, equal weights",
        "sum, all",
        *ch06.SURGERY,
    }
    assert all(
        len(row[task]) == 3 and all(0 <= a <= 1 for a in row[task])
        for row in found["accuracy"].values()
        for task in ch06.TASKS
    )
    assert found["left loss x 100"].keys() == {"sum", *ch06.SURGERY}
    assert (
        len(found["conflicts"]["0"]["two tasks"]) == 2 * 2
        and len(found["conflicts"]["0"]["epoch"]) == 2
    )


def test_rows_about_room_have_the_parameters_that_they_promise():
    for plan in (ch06.CPU, ch06.GPU):
        joint = parameters(ch06.network(plan, 0))
        half = ch06.half_cost(plan)
        two = sum(parameters(ch06.network(half, 0, [task])) for task in ch06.TASKS)
        more = ch06.of_width(plan, half.features + 1)
        larger = sum(parameters(ch06.network(more, 0, [task])) for task in ch06.TASKS)
        assert 0.85 * joint < two <= joint < larger
        wide = ch06.of_width(plan, 2 * plan.features)
        assert parameters(ch06.network(wide, 0)) > 2 * joint
        assert wide.channels == tuple(2 * c for c in plan.channels)
        assert replace(wide, features=plan.features, channels=plan.channels) == plan


def test_the_rows_about_room_run_at_a_tiny_size():
    plan, lines = TINY, []
    rows = ch06.run_room([0, 1], lines.append, plan=plan)["accuracy"]
    assert len(lines) == 2 and all(len(row["left"]) == 2 for row in rows.values())
    joint, wide = rows["sum, equal weights"], rows["sum, twice as wide"]
    assert [len(v) for v in joint["validation"]] == [3, 3] and joint["left"] != wide["left"]
    assert len(rows["single task, same cost"]["setting"]) == 4, "one per task and seed"
    again = ch06.search("sum, equal weights", plan, 0, ch06.tables(plan, 0))
    assert joint["validation"][0] == [run["validation"] for run in again]


def test_further_seeds_take_the_settings_that_were_best_in_the_mean():
    rows = {
        "mgda": {"validation": [[0.1, 0.9, 0.5], [0.1, 0.2, 0.5]]},  # means 0.1, 0.55, 0.5
        "sum": {"validation": [[0, 0, 0, 0, 0, 1, 0, 0, 0]]},
        "sum, all": {"validation": [[0.0]]},
    }
    assert ch06.steady(rows, TINY) == {
        "mgda": {"rate": 3e-3},
        "sum": {"rate": 1e-2, "ratio": 1.0},
    }
    lines = []
    found = ch06.run_further([90, 91], lines.append, plan=TINY)
    assert len(lines) == 2
    assert found["settings"].keys() == found["accuracy"].keys()
    assert found["accuracy"].keys() == {"sum", "sum, equal weights", *ch06.SURGERY}
    assert all(len(row["left"]) == len(row["right"]) == 2 for row in found["accuracy"].values())
    with pytest.raises(ValueError, match=r"chosen on the seeds \[4\]"):
        ch06.run_further([4, 5, 6])


def test_networks_of_one_seed_start_alike():
    joint, left = ch06.network(TINY, 5), ch06.network(TINY, 5, ["left"])
    assert all(torch.equal(p, joint.state_dict()[name]) for name, p in left.state_dict().items())


def test_conflicts_are_the_cosines_of_autograd():
    plan = replace(TINY, epochs=1, pairs=(128, 64, 64))
    found = ch06.conflicts(plan, 0, 1e-3)
    table, model = ch06.tables(plan, 0)["train"], ch06.network(plan, 0)
    batch = next(table.batches(plan.batch, torch.Generator().manual_seed(0)))
    gradients = {}
    for part, rows in (("A", slice(0, 64)), ("B", slice(64, 128))):
        for task in ch06.TASKS:
            loss = ch06.TASKS[task].loss(model(batch.x[rows])[task], batch.targets[task][1][rows])
            gradients[task, part] = torch.cat(
                [g.flatten() for g in torch.autograd.grad(loss, list(model.trunk.parameters()))]
            )
    cosine = torch.nn.functional.cosine_similarity
    for name, (a, b) in {
        "two tasks": (("left", "A"), ("right", "A")),
        "two tasks, other images": (("left", "A"), ("right", "B")),
        "same task, other images": (("left", "A"), ("left", "B")),
    }.items():
        assert found[name][0] == pytest.approx(
            float(cosine(gradients[a], gradients[b], dim=0)), abs=1e-5
        )


# ---------------------------------------------------------------------------- records and benchmark
def test_one_seed_of_the_record_is_within_its_spread():
    record = records.load("06", "cpu")
    rows, parts = record.results["accuracy"], ch06.tables(ch06.CPU, 0)
    for method in ("sum", "mgda", "imtl_g"):
        model, _ = ch06.train(method, rows[method]["setting"][0], ch06.CPU, 0, parts)
        accuracy = np.mean(list(ch06.test_accuracy(model, parts).values()))
        recorded = ch06.mean_accuracy(rows[method])
        assert abs(accuracy - recorded[0]) < 3 * recorded.std(ddof=1) + 0.005, method


def test_one_seed_of_the_record_about_room_is_within_its_spread():
    rows, parts = records.load("06", "room").results["accuracy"], ch06.tables(ch06.CPU, 0)
    wide, half = ch06.of_width(ch06.CPU, 2 * ch06.CPU.features), ch06.half_cost(ch06.CPU)
    row = rows["sum, twice as wide"]
    model, _ = ch06.train("sum, equal weights", row["setting"][0], wide, 0, parts)
    accuracy = np.mean(list(ch06.test_accuracy(model, parts).values()))
    recorded = ch06.mean_accuracy(row)
    assert abs(accuracy - recorded[0]) < 3 * recorded.std(ddof=1) + 0.005
    row = rows["single task, same cost"]
    for task, setting in zip(ch06.TASKS, row["setting"], strict=False):
        model, _ = ch06.train(task, setting, half, 0, parts)
        accuracy = ch06.test_accuracy(model, parts)[task]
        assert abs(accuracy - row[task][0]) < 3 * np.std(row[task], ddof=1) + 0.005


def test_one_further_seed_is_within_its_spread():
    record = records.load("06", "further")
    seed = record.provenance["seeds"][0]
    parts = ch06.tables(ch06.CPU, seed)
    for method in ("sum, equal weights", "nash_mtl"):
        row = record.results["accuracy"][method]
        setting = record.results["settings"][method]
        model, _ = ch06.train(method, setting, ch06.CPU, seed, parts)
        accuracy = np.mean(list(ch06.test_accuracy(model, parts).values()))
        recorded = ch06.mean_accuracy(row)
        assert abs(accuracy - recorded[0]) < 3 * recorded.std(ddof=1) + 0.005, method


@pytest.mark.parametrize("kind", ["MLP", "ConvNet"])
def test_the_ways_of_the_benchmark_compute_the_same_step(kind):
    bench = load("balanced_step")
    case = bench.Case(kind, 3)
    expected = bench.gradients(case, "naive loop")
    assert {"torchjd", "torchjd, one task at a time"} < bench.WAYS.keys()
    others = {"sum of losses", "naive loop", bench.APPROXIMATE, bench.FLOOR}
    for way in bench.WAYS.keys() - others:
        found = bench.gradients(case, way)
        assert float((found - expected).norm() / expected.norm()) < 1e-4, way
    heads = sum(p.numel() for p in case.heads.parameters())
    for way in bench.WAYS:  # the heads never enter the balancing
        torch.testing.assert_close(
            bench.gradients(case, way)[-heads:], expected[-heads:], rtol=1e-4, atol=1e-6
        )


def test_a_method_that_is_added_shows_up_everywhere(monkeypatch):
    monkeypatch.setitem(METHODS, "mean", lambda G: torch.full((len(G),), 1 / len(G)).double())
    mean = ch06.promises(rounds=4)["mean"]
    assert mean["any order"] == mean["sum if none conflicts"] == 1 > mean["scale-free"]
    assert load("balanced_step").weights_from_gram(2, rounds=1).keys() == METHODS.keys()


def test_the_floor_of_the_approximate_step_walks_the_trunk_and_every_head_once(monkeypatch):
    bench = load("balanced_step")
    case = bench.Case("MLP", 3)
    z = case.trunk(case.x)
    expected = torch.autograd.grad(case.loss(0, z), case.shared)
    bench.step(case, bench.FLOOR)
    for p, g in zip(case.shared, expected, strict=True):
        torch.testing.assert_close(p.grad, g)
    ticks = iter([0, 9] * len(bench.WAYS) + [x for way in bench.WAYS for x in (0, len(way))])
    monkeypatch.setattr(bench.time, "process_time", lambda: next(ticks))
    cell = bench.measure("MLP", 2, 1)[bench.APPROXIMATE]
    assert cell["over floor"] == len(bench.APPROXIMATE) / len(bench.FLOOR)
    assert cell["ratio"] == len(bench.APPROXIMATE) / len("sum of losses")


@pytest.mark.slow
def test_the_benchmark_prints_its_tables_and_writes_a_record(capsys, tmp_path, monkeypatch):
    bench = load("balanced_step")
    bench.main(["--quick"])
    shown = capsys.readouterr().out
    assert (
        "MLP; 1.00" in shown
        and "balanced_backward" in shown
        and "the approximate step over its floor" in shown
        and "nash_mtl" in shown
        and "written" not in shown
    )
    used = bench.peak(bench.__file__, "MLP", 8, "balanced_backward")
    # Eight gradients of the trunk, at the least.
    assert used > 4 * 8 * sum(p.numel() for p in bench.Case("MLP", 1).shared) / 2**20
    cell = {"seconds": 0.01, "ratio": 1.0, "over floor": 1.0}
    monkeypatch.setattr(bench, "measure", lambda *_: dict.fromkeys(bench.WAYS, cell))
    monkeypatch.setattr(bench, "weights_from_gram", lambda *_: dict.fromkeys(METHODS, 1.0))
    monkeypatch.setattr(bench, "peak", lambda *case: used)
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    bench.main([])
    record = records.load("06", "timing", tmp_path)
    assert record.provenance["command"] == "python benchmarks/balanced_step.py"
    assert record.results["memory"]["MLP"]["torchjd"] == used


# --------------------------------------------------------------------- a loss in an unknown unit
SMALL_SCALE = ch06_scale.ScalePlan(digits=TINY, factors=(1.0, 100.0), weights=(0.01, 1.0))


def test_the_first_losses_carry_the_factor():
    parts = ch06.tables(TINY, 0)
    once, more = (ch06_scale.first_losses(SMALL_SCALE, 0, parts, f) for f in (1.0, 100.0))
    assert more[0] == pytest.approx(100 * once[0]) and more[1] == once[1]
    divided = ch06_scale.combination("by the first loss", SMALL_SCALE, 0, parts, 100.0)
    assert float(divided(torch.tensor(more))) == pytest.approx(2.0)


@pytest.mark.parametrize("method", ["by the first loss", "geometric mean", "nash_mtl", "imtl_g"])
def test_a_method_without_a_unit_trains_the_same_network_whatever_the_factor(method):
    parts, models = ch06.tables(TINY, 0), []
    for factor in (1.0, 64.0):
        combine = ch06_scale.combination(method, SMALL_SCALE, 0, parts, factor)
        models.append(ch06_digits.fit(combine, 1e-3, TINY, 0, parts, factor)[0])
    for a, b in zip(models[0].trunk.parameters(), models[1].trunk.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=0)


def test_the_parameters_of_a_weighting_are_trained():
    parts, combine = (
        ch06.tables(TINY, 0),
        ch06_scale.combination("uncertainty", SMALL_SCALE, 0, {}, 1),
    )
    ch06_digits.fit(combine, 1e-2, TINY, 0, parts)
    assert all(p.detach().abs().sum() > 0 for p in combine.parameters())


def test_the_unknown_scale_runs_at_a_tiny_size():
    found = ch06_scale.run([0], lambda _: None, plan=SMALL_SCALE)
    assert found.keys() == {"1", "100"} and found == json.loads(json.dumps(found))
    row = found["100"][0]
    assert row["weight"] in SMALL_SCALE.weights
    assert row["accuracy"].keys() == {
        ch06_scale.SEARCH,
        *ch06_scale.WEIGHTINGS,
        *ch06_scale.SURGERY,
    }


def test_fairgrad_in_an_unknown_scale_runs_at_a_tiny_size():
    plan, lines = replace(SMALL_SCALE, alphas=(1.0, 2.0)), []
    found = ch06_scale.run_fair([0], lines.append, plan=plan)
    assert found.keys() == {"1", "100"} and found == json.loads(json.dumps(found))
    assert len(lines) == 2 and found["100"][0].keys() == {"1", "2"}
    row = found["100"][0]["1"]
    assert row.keys() == {"left", "right", "mean"}
    # A power of 1 is Nash-MTL, which is in the other record.
    nash = ch06_scale.one_seed(plan, 100.0, 0)["accuracy"]["nash_mtl"]
    assert row["mean"] == pytest.approx(nash["mean"], abs=2)


def test_one_seed_of_fairgrad_is_within_its_spread():
    record, plan = records.load("06", "fair"), ch06_scale.ScalePlan(alphas=(2.0,))
    found = ch06_scale.fair_seed(plan, 1000.0, record.provenance["seeds"][0])
    rows = [row["2"]["mean"] for row in record.results["1000"]]
    assert abs(found["2"]["mean"] - rows[0]) < 3 * np.std(rows, ddof=1) + 1
    assert record.results.keys() == {f"{factor:g}" for factor in plan.factors}


def test_one_seed_of_the_unknown_scale_is_within_its_spread():
    record, plan = records.load("06", "scale"), ch06_scale.ScalePlan()
    seed = record.provenance["seeds"][0]
    parts = ch06.tables(plan.digits, seed)
    for method in ("sum", "geometric mean", "nash_mtl"):
        combine = ch06_scale.combination(method, plan, seed, parts, 30.0)
        model, _ = ch06_digits.fit(combine, plan.rate, plan.digits, seed, parts, 30.0)
        mean = 100 * np.mean(list(ch06.test_accuracy(model, parts).values()))
        rows = [row["accuracy"][method]["mean"] for row in record.results["30"]]
        assert abs(mean - rows[0]) < 3 * np.std(rows, ddof=1) + 1
