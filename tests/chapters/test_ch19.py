"""Chapter 19: right answers to its exercises; its experiment, its record, the full-size one at tiny
size; the drifting series.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from data_tools import need

from mtl_course import data, records, streams
from mtl_course.experiments import ch19, ch19_drift, ch19_photos

# --------------------------------------------------------------------------------------- the digits
TINY = replace(
    ch19.CPU,
    sizes=(10, 5, 5),
    epochs=1,
    buffers=(4,),
    samples=5,
    tuning=2,
    rates=(0.01, 0.1),
    ewc=((0.1, 10.0), (0.1, 1e6)),
    distillation=((0.1, 1.0),),
    dark=((0.1, 0.1), (0.1, 1e6)),
)
QUIET = {"report": lambda said: None}


@pytest.fixture(scope="module")
def digits():
    return ch19.parts(TINY)


def test_every_method_has_the_same_number_of_trials():
    for plan in (ch19.CPU, *ch19.GPU):
        methods = ch19.methods(plan, True) + [*ch19.RELATIVES] * (plan is ch19.CPU)
        assert {len(ch19.trials(method, plan)) for method in methods} == {len(plan.rates)}


def test_no_image_is_in_two_parts_and_all_have_every_digit_equally_often(digits):
    pixels = [
        {tuple(image.tolist()) for image in digits[part][0].flatten(1)}
        for part in ("train", "validation", "test")
    ]
    assert not (pixels[0] & pixels[1] or pixels[0] & pixels[2] or pixels[1] & pixels[2])
    assert [digits[part][1].bincount().tolist() for part in ("train", "validation", "test")] == [
        [n] * 10 for n in TINY.sizes
    ]


def test_settings_are_chosen_on_other_orders_and_other_images_than_the_test(digits, monkeypatch):
    seen = []
    monkeypatch.setattr(
        ch19, "stream", lambda *rest, real=ch19.stream: seen.append(rest[-2:]) or real(*rest)
    )
    ch19.tune("fine-tuning", digits, TINY, True)
    assert seen == [(1000, "validation"), (1001, "validation")]
    test = [ch19.stream(digits, TINY, True, seed, "test") for seed in range(5)]
    validation = ch19.stream(digits, TINY, True, 1000, "validation")
    assert all(not torch.equal(validation.train[0][0], tasks.train[0][0]) for tasks in test)


def test_results_have_every_method_with_its_matrix_and_what_it_stores():
    results = ch19.run("cpu", [0, 1], plan=[TINY], **QUIET)
    assert json.loads(json.dumps(results)) and list(results) == ["mnist_5k"]
    size = 196 * 64 + 64 + 64 * 64 + 64 + 64 * 10 + 10
    for scenario, known in ch19.SCENARIOS.items():
        rows = results["mnist_5k"][scenario]
        assert list(rows) == ch19.methods(TINY, known) and ("separate" in rows) == known
        for method, row in rows.items():
            assert len(row["A"]) == len(row["stored"]) == 2 and all(
                0 <= v <= 1 for A in row["A"] for line in A for v in line
            )
            assert [len(A) for A in row["A"]] == 2 * [1 if method == "joint" else 5]
            scores = [np.mean(trial["validation"]) for trial in row["trials"]]
            assert row["setting"] == row["trials"][int(np.argmax(scores))]["setting"]
        stored = {method: row["stored"][0] for method, row in rows.items()}
        separate = {"separate": 4 * size} if known else {}
        expected = {
            "fine-tuning": 0,
            "EWC": 2 * size,
            "distillation": size,
            "replay 4": 4 * 197,
            **separate,
            "joint": 80 * 197,
        }
        assert stored == expected, "an example counts as 196 pixels and a label, whoever keeps it"


def test_a_diverged_trial_counts_as_zero_and_is_not_chosen(digits):
    tried = ch19.tune("EWC", digits, replace(TINY, batch=4, epochs=3), False)
    assert tried[1]["validation"] == [0.0, 0.0] and ch19.best(tried) == (0.1, 10.0)


def test_one_seed_of_the_record_comes_out_again():
    record = records.load("19", "cpu")
    assert (
        "with changes" not in record.provenance["commit"] and len(record.provenance["seeds"]) >= 3
    )
    found = ch19.parts(ch19.CPU)
    for scenario, known in ch19.SCENARIOS.items():
        tasks = ch19.stream(found, ch19.CPU, known, 0, "test")
        rows = record.results["mnist_5k"][scenario]
        assert set(rows) == set(ch19.methods(ch19.CPU, known))
        for method in ("fine-tuning", "EWC", "replay 100", "joint"):
            row = rows[method]
            assert row["setting"] == ch19.best(row["trials"]) and len(row["trials"]) == 16
            again = ch19.one(method, row["setting"], tasks, ch19.CPU, 0)
            reached = [ch19.final(method, A) for A in row["A"]]
            spread = max(np.std(reached, ddof=1), 0.01)
            assert (
                abs(ch19.final(method, again["A"]) - reached[0]) < 2 * spread
                and again["stored"] == row["stored"][0]
            )


def test_further_orders_take_the_settings_that_were_chosen_and_give_the_same_runs():
    chosen = ch19.run("cpu", [0, 1], plan=[TINY], **QUIET)
    again = ch19.run_orders([1], plan=TINY, chosen=chosen, **QUIET)
    assert list(again) == ["mnist_5k"] and list(again["mnist_5k"]) == list(ch19.SCENARIOS)
    for scenario, rows in again["mnist_5k"].items():
        assert list(rows) == list(chosen["mnist_5k"][scenario])
        for method, row in rows.items():
            first = chosen["mnist_5k"][scenario][method]
            assert row["setting"] == first["setting"]
            assert row["A"] == first["A"][1:] and row["stored"] == first["stored"][1:]


def test_the_record_of_further_orders_has_the_first_ones_settings_and_comes_out_again():
    first, further = records.load("19", "cpu"), records.load("19", "orders")
    seeds = further.provenance["seeds"]
    assert len(seeds) == 20 and not {*first.provenance["seeds"], 1000, 1001} & {*seeds}
    assert "with changes" not in further.provenance["commit"]
    digits = ch19.parts(ch19.CPU)
    for scenario, known in ch19.SCENARIOS.items():
        rows, chosen = (r.results["mnist_5k"][scenario] for r in (further, first))
        assert rows.keys() == chosen.keys()
        for method, row in rows.items():
            assert row["setting"] == chosen[method]["setting"] and len(row["A"]) == len(seeds)
        tasks = ch19.stream(digits, ch19.CPU, known, seeds[0], "test")
        for method in ("fine-tuning", "distillation"):
            again = ch19.one(method, rows[method]["setting"], tasks, ch19.CPU, seeds[0])
            reached = [ch19.final(method, A) for A in (again["A"], rows[method]["A"][0])]
            assert abs(reached[0] - reached[1]) < 0.03


def test_relatives_of_replay_are_tuned_alike_and_keep_as_many_images():
    results = ch19.run_relatives([0, 1], plan=TINY, methods=("DER++ 20", "GDumb 20"), **QUIET)
    assert json.loads(json.dumps(results)) and list(results) == ["DER++ 20", "GDumb 20"]
    assert [row["stored"] for row in results.values()] == [2 * [20 * 207], 2 * [20 * 197]]
    dark, alone = results.values()
    assert dark["trials"][1]["validation"] == [0.0, 0.0] and dark["setting"] == (0.1, 0.1)
    assert [len(A) for A in dark["A"]] == [5, 5] and [len(A) for A in alone["A"]] == [1, 1]


def test_gdumb_takes_as_many_steps_as_the_others_and_sees_its_store_only(digits, monkeypatch):
    seen = []

    def learn(model, tasks, sgd, **options):
        seen.append((tasks, options))
        return torch.zeros(1, 1)

    tasks = ch19.stream(digits, TINY, False, 0, "test")
    monkeypatch.setattr(streams, "learn", learn)
    ch19.one("GDumb 20", (0.1, 0.0), tasks, TINY, 0)
    ((alone, options),) = seen
    assert len(alone) == 1 and alone.train[0][1].bincount().tolist() == 10 * [2]
    assert options["epochs"] * 20 == TINY.epochs * sum(len(y) for _, y in tasks.train)


def test_the_record_of_replays_relatives_has_the_same_orders_and_comes_out_again():
    orders, relatives = (records.load("19", part) for part in ("orders", "relatives"))
    seeds = relatives.provenance["seeds"]
    assert seeds == orders.provenance["seeds"]
    assert "with changes" not in relatives.provenance["commit"]
    digits = ch19.parts(ch19.CPU)
    tasks = ch19.stream(digits, ch19.CPU, False, seeds[3], "test")
    assert list(relatives.results) == [*ch19.RELATIVES]
    for method, row in relatives.results.items():
        assert row["setting"] == ch19.best(row["trials"]) and len(row["A"]) == len(seeds)
        assert [tuple(t["setting"]) for t in row["trials"]] == ch19.trials(method, ch19.CPU)
        again = ch19.one(method, row["setting"], tasks, ch19.CPU, seeds[3])
        reached = [ch19.final(method, A) for A in (again["A"], row["A"][3])]
        assert abs(reached[0] - reached[1]) < 0.03 and again["stored"] == row["stored"][3]


# -------------------------------------------------------------------------------------- photographs
@pytest.mark.slow
@pytest.mark.parametrize("plan", ch19.GPU, ids=lambda plan: plan.source)
def test_full_size_experiment_runs_at_tiny_size_on_the_data_roots_pictures(
    plan, monkeypatch, data_root
):
    need(f"{plan.source}_partial")
    part = data.load(f"{plan.source}_partial")

    def whole_cannot_be_had(name):
        if not name.endswith("_partial"):
            raise data.DataError("no network")
        return part

    monkeypatch.setattr("mtl_course.data.door.load", whole_cannot_be_had)
    monkeypatch.setattr(ch19, "fastest", lambda: torch.device("cpu"))
    tiny = replace(
        plan,
        sizes=(1, 1, 1),
        width=8,
        epochs=1,
        buffers=(4,),
        samples=1,
        rates=(0.1,),
        ewc=((0.1, 10.0),),
        distillation=((0.1, 1.0),),
    )
    results = ch19.run("gpu", [0], plan=[tiny], **QUIET)
    (scenarios,) = results.values()
    assert list(results) == [f"{plan.source}_partial"] and list(scenarios) == list(ch19.SCENARIOS)
    for scenario, known in ch19.SCENARIOS.items():
        assert list(scenarios[scenario]) == ch19.methods(tiny, known)
        T = {"cifar10": 5, "cifar100": 10}[plan.source]
        assert all(
            len(row["A"][0][-1]) == T and len(row["trials"]) == 1
            for row in scenarios[scenario].values()
        )


def test_a_partial_set_gives_what_it_has_in_the_plans_proportion(monkeypatch):
    # Real digits in the arrays of a set of photographs: 48 and 24 of each of three classes.
    real = data.load("digits")

    class Part(dict):
        info = data.info("cifar10_partial")

    def photographs(rows):
        return (15 * real.x[rows].astype(int)).astype(np.uint8)[..., None].repeat(
            3, axis=3
        ), real.y[rows]

    train, test = (
        np.concatenate([np.flatnonzero(real.y == c)[part] for c in range(3)])
        for part in (slice(48), slice(48, 72))
    )
    (x, y), (u, v) = photographs(train), photographs(test)
    monkeypatch.setattr(
        data, "load_or_partial", lambda name: Part(x_train=x, y_train=y, x_test=u, y_test=v)
    )
    found = ch19.parts(ch19.GPU[0])
    assert found["name"] == "cifar10_partial"
    assert [found[part][1].bincount().tolist() for part in ("train", "validation", "test")] == [
        [43] * 3,
        [4] * 3,
        [24] * 3,
    ]


# ----------------------------------------------------------------------- photographs, the headline
SMALL = replace(
    ch19_photos.CPU,
    sizes=(12, 4, 6),
    shrink=4,
    channels=(4,),
    features=8,
    epochs=1,
    buffer=20,
    samples=4,
    watched=8,
    rates=(0.03,),
    ewc=((0.03, 1.0),),
    distillation=((0.03, 1.0),),
    dark=((0.03, 0.1),),
    wider=((0.01, 0.1), (0.03, 0.1)),
)


@pytest.fixture(scope="module")
def photos():
    need("cifar10_partial")
    part = data.load("cifar10_partial")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load_or_partial", lambda name: part)
        return ch19_photos.parts(SMALL)


def test_photographs_are_apart_shrunk_and_have_every_class_equally_often(photos):
    assert photos["name"] == "cifar10_partial"
    seen = [{tuple(x.flatten().tolist()) for x in photos[p][0]} for p in ("train", "validation")]
    assert not seen[0] & seen[1]
    for part, n in zip(("train", "validation", "test"), SMALL.sizes, strict=True):
        assert list(photos[part][0].shape) == [10 * n, 3, 8, 8]
        assert photos[part][1].bincount().tolist() == 10 * [n]


def test_every_method_of_the_photographs_has_as_many_trials():
    plan = ch19_photos.CPU
    assert {len(ch19_photos.trials(m, plan)) for m in ch19_photos.METHODS} == {len(plan.rates)}


def test_the_photographs_record_is_plain_and_whole_at_tiny_size(photos, monkeypatch):
    monkeypatch.setattr(ch19_photos, "parts", lambda plan: photos)
    results = ch19_photos.run([0, 1], plan=SMALL, **QUIET)
    assert json.loads(json.dumps(results)) and list(results["methods"]) == [*ch19_photos.METHODS]
    pixels = 3 * 8 * 8 + 1
    stored = {m: row["stored"][0] for m, row in results["methods"].items()}
    assert stored["fine-tuning"] == 0 and stored["joint"] == 96 * pixels
    assert stored["replay"] == stored["GDumb"] == 20 * pixels
    assert stored["DER++"] == 20 * (pixels + 10)
    for method, row in results["methods"].items():
        alone = method in ch19_photos.AT_ONCE
        assert [len(A) for A in row["A"]] == 2 * [1 if alone else 5]
        assert [len(moved) for moved in row["moved"]] == 2 * [0 if alone else 4]


def test_der_plus_plus_with_a_wider_grid_learns_the_same_streams(photos, monkeypatch):
    monkeypatch.setattr(ch19_photos, "parts", lambda plan: photos)
    row = ch19_photos.run_wider([0, 1], plan=SMALL, **QUIET)["DER++"]
    assert json.loads(json.dumps(row)) and len(row["A"]) == 2
    assert [tuple(trial["setting"]) for trial in row["trials"]] == list(SMALL.wider)
    assert row["setting"] == ch19_photos.best(row["trials"])
    tasks = ch19_photos.stream(photos, SMALL, 1, "test")
    assert row["A"][1] == ch19_photos.one("DER++", row["setting"], tasks, SMALL, 1)["A"]


def test_the_record_of_the_wider_grid_has_the_same_orders_and_a_choice_inside_it():
    record, first = records.load("19", "wider"), records.load("19", "photos")
    row, seeds = record.results["DER++"], record.provenance["seeds"]
    assert "with changes" not in record.provenance["commit"]
    assert seeds == first.provenance["seeds"] and len(row["A"]) == len(seeds)
    tried = [tuple(trial["setting"]) for trial in row["trials"]]
    assert tried == list(ch19_photos.CPU.wider)
    assert row["setting"] == ch19_photos.best(row["trials"])
    for k, chosen in enumerate(row["setting"]):
        assert min(t[k] for t in tried) < chosen < max(t[k] for t in tried)


def test_photographs_are_tuned_on_validation_images_in_another_order(photos, monkeypatch):
    seen = []
    monkeypatch.setattr(
        ch19_photos,
        "stream",
        lambda *rest, real=ch19_photos.stream: seen.append(rest[-2:]) or real(*rest),
    )
    ch19_photos.tune("replay", photos, SMALL)
    assert seen == [(1000, "validation")]


def test_one_seed_of_the_photographs_comes_out_again(monkeypatch):
    need("cifar10_partial")
    record, plan = records.load("19", "photos"), ch19_photos.CPU
    seeds, rows = record.provenance["seeds"], record.results["methods"]
    assert "with changes" not in record.provenance["commit"] and len(seeds) >= 5
    assert record.results["set"] == "cifar10_partial" and ch19_photos.VALIDATION not in seeds
    assert set(rows) == set(ch19_photos.METHODS)
    for method, row in rows.items():
        assert [tuple(t["setting"]) for t in row["trials"]] == ch19_photos.trials(method, plan)
        assert row["setting"] == ch19_photos.best(row["trials"]) and len(row["A"]) == len(seeds)
    part = data.load("cifar10_partial")
    monkeypatch.setattr(data, "load_or_partial", lambda name: part)
    examples = ch19_photos.parts(plan)
    assert ch19_photos.class_means(examples) == pytest.approx(
        record.results["class means"], abs=1e-3
    )
    tasks = ch19_photos.stream(examples, plan, seeds[0], "test")
    row = rows["replay"]
    again = ch19_photos.one("replay", row["setting"], tasks, plan, seeds[0])
    reached = [np.mean(A[-1]) for A in (again["A"], row["A"][0])]
    assert abs(reached[0] - reached[1]) < 0.03 and again["stored"] == row["stored"][0]


def test_gdumbs_store_has_as_many_examples_of_each_class(photos):
    tasks = ch19_photos.stream(photos, SMALL, 3, "test")
    x, y = ch19_photos.balanced(tasks, 20, seed=1)
    assert y.bincount().tolist() == 10 * [2]
    for image, label in zip(x, y, strict=True):
        there, labels = tasks.train[int(label) // 2]
        assert any(torch.equal(image, other) for other in there[labels == label])


def test_the_watch_measures_the_divergence_and_changes_no_step():
    old = torch.tensor([[0.0, 0.0]])
    new = torch.log(torch.tensor([[3.0, 1.0]]))
    assert ch19_photos.divergence(old, new) == pytest.approx(0.5 * np.log(4 / 3))
    # A third class that takes half of the chance costs log 2.
    assert ch19_photos.divergence(old, torch.log(torch.tensor([[1.0, 1.0, 2.0]]))) == pytest.approx(
        np.log(2)
    )
    examples = ch19.parts(TINY)
    tasks = ch19.stream(examples, TINY, False, 0, "test")
    runs = {}
    for watch in ([], [ch19_photos.Watch(4)]):
        model = ch19.network(TINY, examples["train"][0], 10, 0)
        sgd = lambda params: torch.optim.SGD(params, lr=0.1)  # noqa: E731
        runs[len(watch)] = streams.learn(model, tasks, sgd, watch, epochs=1)
    assert torch.equal(runs[0], runs[1])
    assert len(watch[0].moved) == 4
    assert all(row[kind] > 0 for row in watch[0].moved for kind in ("old images", "new images"))


# -------------------------------------------------------------------------------------------- drift
def test_inputs_of_a_forecast_are_older_than_its_target():
    values, years = ch19_drift.series()
    x, y, unit = ch19_drift.inputs(values, "unemployment")
    level = values["unemployment"]
    assert x.shape == (200, 8) and len(years) == 202
    np.testing.assert_allclose(unit * y, np.diff(level)[1:])
    later = {name: np.where(np.arange(202) >= 150, 0.0, row) for name, row in values.items()}
    np.testing.assert_array_equal(ch19_drift.inputs(later, "unemployment")[0][:149], x[:149])


def test_the_static_model_fits_the_first_quarters_and_the_naive_forecast_has_weights_zero():
    values, _ = ch19_drift.series()
    x, y, _ = ch19_drift.inputs(values, "GDP")
    made = ch19_drift.learners(8)
    static = made["static"][ch19_drift.FIRST]()
    for inputs, target in zip(x, y, strict=True):
        static.learn(inputs, target)
    n = ch19_drift.FIRST
    np.testing.assert_allclose(
        static.w, np.linalg.solve(x[:n].T @ x[:n] + np.eye(8), x[:n].T @ y[:n]), rtol=1e-6
    )
    found = ch19_drift.compare("GDP")
    np.testing.assert_allclose(found["as last time"]["errors"], np.diff(values["GDP"])[-102:])
    assert {len(made[name]) for name in ("gradient steps", "least squares", "window")} == {7}


def test_a_learners_setting_had_the_least_error_before_the_test():
    for row in ch19_drift.compare("prices").values():
        if row["tuning"]:
            assert row["setting"] == min(row["tuning"], key=row["tuning"].get)
        assert (
            row["rmse"] == pytest.approx(np.sqrt(np.mean(row["errors"] ** 2)))
            and len(row["errors"]) == 102
        )
