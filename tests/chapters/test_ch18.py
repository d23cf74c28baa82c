"""Chapter 18: right answers to its exercises; its experiment at a tiny size, on real data; its
record.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from data_tools import need

from mtl_course import data, records
from mtl_course.experiments import ch18, ch18_deeper
from mtl_course.meta.few_shot import interval


# --------------------------------------------------------------------------------------- experiment
def tiny(plan, **options):
    return replace(plan, **{"steps": 4, "every": 2, "judged": 6, "tried": 2, "width": 8, **options})


@pytest.fixture
def on_cpu(monkeypatch):
    """The same way on any machine, and few trials of each kind."""
    monkeypatch.setattr(ch18, "fastest", lambda: torch.device("cpu"))
    monkeypatch.setattr(ch18, "RATES", (1e-3, 1e-2))
    monkeypatch.setattr(ch18, "TUNE", ((2, 0.1), (2, 1.0)))
    monkeypatch.setattr(ch18, "ADAPT", ((1, 0.4), (2, 0.4)))


def test_glyphs_are_parted_by_script_and_leaves_by_species():
    glyphs = ch18.domain("glyphs", ch18.CPU)
    scripts = np.array(data.load("glyphs")["scripts"])
    used = {part: set(scripts[classes].tolist()) for part, classes in glyphs.parts.items()}
    assert used == {"train": {0, 2}, "validation": {1}, "test": {3, 4}}
    assert sum(map(len, glyphs.parts.values())) == len(scripts) and glyphs.x.shape[1:] == (
        1,
        16,
        16,
    )
    leaves = ch18.leaves(0)
    known = torch.isin(leaves.y, torch.tensor(leaves.parts["train"]))
    torch.testing.assert_close(
        leaves.x[known].mean(0), torch.zeros(leaves.x.shape[1]), atol=1e-4, rtol=0
    )
    assert leaves.x[~known].mean(0).abs().max() > 1e-2


def test_omniglot_is_parted_by_alphabet(data_root):
    need("omniglot_small")
    ds = data.load("omniglot_small")
    where = ch18.domain("omniglot_small", ch18.CPU)
    alphabets = {
        part: {int(np.array(ds["alphabet"])[c]) for c in classes}
        for part, classes in where.parts.items()
    }
    assert [len(alphabets[part]) for part in ("train", "validation", "test")] == [4, 2, 2]
    assert len(set.union(*alphabets.values())) == 8


def test_every_method_has_as_many_trials():
    assert len(ch18.TUNE) == len(ch18.ADAPT) and len(set(ch18.TUNE)) == len(ch18.TUNE)


@pytest.mark.parametrize("method", ch18.METHODS)
def test_training_sees_training_classes_only(method, monkeypatch, on_cpu):
    """Pictures of all other classes are made not to be numbers: the weights stay finite."""
    plan = tiny(ch18.CPU)
    where = ch18.domain("glyphs", plan)
    allowed = where.parts["train"] + where.parts["validation"]
    other = ~torch.isin(where.y, torch.tensor(allowed))
    spoiled = replace(where, x=where.x.masked_fill(other[:, None, None, None], float("nan")))
    a, b = (ch18.train(method, d, plan, 1e-2, 0) for d in (where, spoiled))
    start = ch18.trunk(where, plan, 0)
    trunk = a.trunk if hasattr(a, "trunk") else a
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert any(
        not torch.equal(p, q) for p, q in zip(trunk.parameters(), start.parameters(), strict=True)
    )


def test_anil_with_features_computed_once_is_anil():
    """The inner loop on the head alone, through chapter 17's code with the trunk in it, gives the
    same gradients.
    """
    from mtl_course import meta
    from mtl_course.meta.functional import Functional
    from mtl_course.networks.trunks import Classifier

    plan = tiny(ch18.CPU)
    where = ch18.domain("glyphs", plan)
    episodes = where.source("train").classification(3, 5, 1, 5, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    model = Classifier(ch18.trunk(where, plan, 0), plan.width, 5)
    losses = ch18._episodic("ANIL", model, 5)(episodes, True)
    mine = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    f = Functional(model)
    again = meta.meta_backward(
        f, f.parameters(), episodes, torch.nn.functional.cross_entropy, *ch18.INNER, only="head"
    )
    torch.testing.assert_close(losses, again, rtol=1e-4, atol=1e-5)
    for p, g in zip(model.parameters(), mine, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_the_cpu_profile_runs_at_a_tiny_size(on_cpu, data_root):
    need("omniglot_small")
    found = ch18.run("cpu", [0, 1], lambda line: None, plan=tiny(ch18.CPU))
    json.dumps(found)
    assert found.keys() == {"omniglot_small", "glyphs"}
    table = found["omniglot_small"]["tests"]["omniglot_small"]
    assert list(table) == [*ch18.FLOORS, *ch18.METHODS]
    assert set(table["MAML"]) == {"5-way 1-shot", "5-way 5-shot"} and len(table["ProtoNet"]) == 4
    assert found["glyphs"]["tests"].keys() == {"glyphs", "omniglot_small"}
    assert all(0 <= a <= 1 for row in table.values() for s in row.values() for a in s["accuracy"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["omniglot", "cifar_fs"])
def test_the_gpu_profile_runs_at_a_tiny_size(name, on_cpu, data_root):
    """Four convolutions with BatchNorm, on what the data root has of the sets."""
    need("cifar100_partial" if name == "cifar_fs" else "omniglot_small")
    plan = tiny(ch18.GPU, sets=(name,), images=60, settings={name: ((5, 1), (5, 5))}, elsewhere={})
    found = ch18.run("gpu", [0], lambda line: None, plan=plan)
    (result,) = found.values()
    (table,) = result["tests"].values()
    assert list(table) == [*ch18.FLOORS, *ch18.METHODS] and all(
        len(row) == 2 for row in table.values()
    )


def test_a_seed_of_the_record_comes_out_again(data_root):
    """Prototypes on Omniglot, trained anew, within what the record's own trainings and episodes
    spread.
    """
    need("omniglot_small")
    record = records.load("18", "cpu").results["omniglot_small"]
    where = ch18.domain("omniglot_small", ch18.CPU)
    assert record["classes"] == {part: len(classes) for part, classes in where.parts.items()}
    rate = float(max(record["rates"]["ProtoNet"], key=record["rates"]["ProtoNet"].get))
    again = ch18.compare("ProtoNet", where, ch18.CPU, rate, 0, {"same": where}, ((5, 1),))["same"][
        "5-way 1-shot"
    ]
    kept = record["tests"]["omniglot_small"]["ProtoNet"]["5-way 1-shot"]
    assert (
        abs(again["accuracy"] - kept["accuracy"][0])
        < 4 * np.std(kept["accuracy"], ddof=1) + kept["half"][0]
    )
    pixels = ch18.compare("pixels", where, ch18.CPU, 0.0, 0, {"same": where}, ((5, 1),))["same"][
        "5-way 1-shot"
    ]
    assert pixels["accuracy"] == pytest.approx(
        record["tests"]["omniglot_small"]["pixels"]["5-way 1-shot"]["accuracy"][0], abs=2e-3
    )


def test_settings_at_the_edge_of_a_grid_are_those_that_the_text_names():
    results = records.load("18", "cpu").results
    ends = min(ch18.RATES), max(ch18.RATES)
    best = {
        (where, m): float(max(rates, key=rates.get))
        for where, r in results.items()
        for m, rates in r["rates"].items()
        if rates
    }
    assert {key: rate for key, rate in best.items() if rate in ends} == {
        ("glyphs", "Baseline++"): max(ch18.RATES)
    }
    assert all(
        len(rates) == len(ch18.RATES)
        for r in results.values()
        for rates in r["rates"].values()
        if rates
    )
    chosen = {
        m: [c for s in row.values() for c in s["choice"]]
        for m, row in results["omniglot_small"]["tests"]["omniglot_small"].items()
    }
    most = max(steps for steps, _ in ch18.ADAPT)
    assert [[steps for steps, _ in chosen[m]].count(most) for m in ("MAML", "ANIL")] == [2, 4]
    rates = [rate for _, rate in ch18.TUNE]
    low_high = {
        m: [[rate for _, rate in chosen[m]].count(edge(rates)) for edge in (min, max)]
        for m in ("Baseline", "Baseline++")
    }
    assert (
        low_high == {"Baseline": [0, 0], "Baseline++": [0, 3]} and len(chosen["Baseline++"]) == 12
    )


# ------------------------------------------------------------------------- with four convolutions
SMALL = ch18_deeper.Plan(side=16, width=4, steps=2, searched=1, judged=10, tried=4)


def test_turned_characters_are_classes_of_their_own_in_training_only(data_root):
    need("omniglot_small")
    where, flat = ch18_deeper.characters(SMALL), ch18.domain("omniglot_small", ch18.CPU)
    assert where.x.shape[1:] == (1, 16, 16)
    assert len(where.parts["train"]) == 4 * len(flat.parts["train"])
    assert [where.parts[p] for p in ("validation", "test")] == [
        flat.parts[p] for p in ("validation", "test")
    ]
    first, count = flat.parts["train"][0], int(flat.y.max()) + 1
    upright, turned = (where.x[where.y == first + k * count] for k in (0, 2))
    torch.testing.assert_close(turned, torch.rot90(upright, 2, (2, 3)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", ch18_deeper.LEARNED)
def test_deeper_training_sees_training_classes_only(method):
    where = ch18.domain("glyphs", ch18.CPU)
    hidden = ~torch.isin(where.y, torch.tensor(where.parts["train"]))
    spoiled = replace(where, x=where.x.masked_fill(hidden[:, None, None, None], float("nan")))
    a, b = (ch18_deeper.train(method, d, SMALL, 1e-2, 0) for d in (where, spoiled))
    start = ch18_deeper.trunk(where, SMALL, 0)
    trunk = a.trunk if hasattr(a, "trunk") else a
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert any(
        not torch.equal(p, q) for p, q in zip(trunk.parameters(), start.parameters(), strict=True)
    )


def test_the_nearest_neighbour_is_the_nearest():
    where = ch18.domain("glyphs", ch18.CPU)
    tasks = where.source("test").classification(3, 5, 2, 5, torch.Generator().manual_seed(0))
    said = ch18_deeper.judge("neighbour", None, None)(tasks).argmax(-1)
    (x, y), (query, _) = tasks.support, tasks.query
    for t in range(3):
        for q in range(25):
            away = (x[t] - query[t, q]).square().flatten(1).sum(1)
            assert said[t, q] == y[t, away.argmin()]


def test_a_frozen_embedding_counts_directions_and_nothing_of_the_other_queries():
    where = ch18.domain("glyphs", ch18.CPU)
    net = ch18.trunk(where, ch18.CPU, 0)
    tasks = where.source("test").classification(2, 5, 1, 5, torch.Generator().manual_seed(0))

    class Scaled(torch.nn.Module):
        def forward(self, x):
            return 100 * net(x)

    said, scaled = (
        ch18_deeper.judge("frozen embedding", m, (5, 1.0))(tasks) for m in (net, Scaled())
    )
    torch.testing.assert_close(said, scaled, atol=1e-4, rtol=1e-4)
    alone = data.episodes.Episodes(tasks.support, tuple(p[:, :1] for p in tasks.query))
    torch.testing.assert_close(
        ch18_deeper.judge("frozen embedding", net, (5, 1.0))(alone),
        said[:, :1],
        atol=1e-4,
        rtol=1e-4,
    )


def test_as_many_choices_at_test_time_for_all():
    assert len({len(choices) for choices in ch18_deeper.CHOICES.values()}) == 1


def test_a_part_of_the_deeper_records_comes_out_again(data_root):
    """What learns nothing, to a few queries; the network from scratch, on some of its tasks,
    within what its trainings and tasks spread.
    """
    need("omniglot_small")
    need("cifar100_partial")
    plan = ch18_deeper.Plan()
    for name, make in (("characters", ch18_deeper.characters), ("photos", ch18_deeper.photos)):
        record, where = records.load("18", name).results, make(plan)
        assert record["classes"] == {part: len(classes) for part, classes in where.parts.items()}
        for method in ("pixels", "neighbour"):
            again = ch18_deeper.compare(method, where, plan, 0.0, 4)
            for shots, row in record["tests"][method].items():
                assert again[shots]["accuracy"] == pytest.approx(row["accuracy"][4], abs=0.1)
        kept = record["tests"]["scratch"]["1"]
        net = ch18_deeper.trunk(where, plan, 0)
        model = ch18_deeper.seeded(
            lambda net=net, where=where: ch18_deeper.Classifier(
                net, ch18_deeper.features(net, where), 5
            ),
            1000,
        )
        logits = ch18_deeper.judge("scratch", model, kept["choice"][0])
        right = ch18_deeper.episode_accuracy(
            logits, where.source("test"), 5, 1, plan.queries, 8, seed=100, at_once=25
        )
        mean, half = interval(100 * right)
        assert abs(mean - kept["accuracy"][0]) < half + 2 * np.std(kept["accuracy"], ddof=1)


@pytest.mark.slow
def test_the_headlines_short_training_comes_out_again(data_root):
    """The training of 100 steps that chose the headline's rate, on the same validation tasks."""
    need("omniglot_small")
    plan, rates = ch18_deeper.Plan(), records.load("18", "characters").results["rates"]
    assert max(rates["ProtoNet"], key=rates["ProtoNet"].get) == "0.003"
    where = ch18_deeper.characters(plan)
    net = ch18_deeper.train("ProtoNet", where, plan, 3e-3, 12345, plan.searched)
    reached, _ = ch18_deeper.best_choice("ProtoNet", net, where, plan, 1)
    pixels, _ = ch18_deeper.best_choice("pixels", net, where, plan, 1)
    assert abs(reached - rates["ProtoNet"]["0.003"]) < 4 and reached > pixels + 13


def test_the_deeper_records_choices_at_an_edge_are_those_that_the_text_names():
    """Rates of training: the middle of three. At test time: counted per method over both sets."""
    chosen = {}
    for name in ("characters", "photos"):
        results = records.load("18", name).results
        rates = {m: max(r, key=r.get) for m, r in results["rates"].items() if r}
        assert set(rates.values()) == {"0.003"} and sorted(ch18_deeper.RATES)[1] == 3e-3
        for method, table in results["tests"].items():
            rows = [tuple(c) for row in table.values() for c in row["choice"] if c]
            chosen.setdefault(method, []).extend(rows)
            assert all(len(row["accuracy"]) == 5 for row in table.values())
    edge = {
        "MAML": [(5, 0.4), (10, 0.1)],
        "scratch": [(50, 0.1)],
        "frozen embedding": [(50, 1.0)],
    }
    found = {m: (sum(c in ends for c in chosen[m]), len(chosen[m])) for m, ends in edge.items()}
    assert found == {"MAML": (9, 10), "scratch": (15, 20), "frozen embedding": (5, 20)}
    assert {steps for steps, _ in chosen["scratch"]} == {50}


def test_the_longer_records_choices_at_an_edge_are_those_that_the_text_names():
    """The largest rate of training for all; the most steps at its rate in all choices of MAML."""
    results = records.load("18", "longer").results
    assert set(results) == {str(steps) for steps in ch18_deeper.LENGTHS}
    for made in results.values():
        rates = {max(scores, key=scores.get) for scores in made["rates"].values()}
        assert rates == {f"{max(ch18_deeper.RATES):g}"}
        rows = [tuple(c) for row in made["tests"]["MAML"].values() for c in row["choice"]]
        assert len(rows) == 6 and set(rows) <= {(5, 0.4), (10, 0.1)}


def test_the_loop_of_the_text_is_that_of_the_experiment():
    """Its cell, run as it stands, gives the weights of `ch18.train` of a single round."""
    import json as reader
    from pathlib import Path

    path = Path(__file__).parents[2] / "notebooks" / "18_few_shot.ipynb"
    cells = reader.loads(path.read_text("utf-8"))["cells"]
    (cell,) = ["".join(c["source"]) for c in cells if "def learn(" in "".join(c["source"])]
    plan = replace(ch18.CPU, steps=5, every=5)
    where = ch18.domain("glyphs", plan)
    from mtl_course.meta import few_shot

    names = {"torch": torch, "few_shot": few_shot}
    exec(cell[: cell.index("before =")], names)
    mine = names["learn"](ch18.trunk(where, plan, 0), where.source("train"), steps=5)
    theirs = ch18.train("ProtoNet", where, plan, 1e-3, 0)
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q)


@pytest.mark.slow
def test_the_parts_run_at_a_tiny_size(data_root, monkeypatch):
    need("omniglot_small")
    need("cifar100_partial")
    monkeypatch.setattr(ch18_deeper, "CHOICES", {m: c[:1] for m, c in ch18_deeper.CHOICES.items()})
    for make, methods in (
        (ch18_deeper.run_characters, (*ch18_deeper.WITHOUT, *ch18_deeper.LEARNED)),
        (ch18_deeper.run_photos, (*ch18_deeper.WITHOUT, "ProtoNet", "frozen embedding")),
    ):
        found = make([0, 1], lambda line: None, plan=SMALL)
        json.dumps(found)
        assert tuple(found["tests"]) == methods
        rows = [row for table in found["tests"].values() for row in table.values()]
        assert all(len(row["accuracy"]) == 2 for row in rows)
        assert all(0 <= a <= 100 for row in rows for a in row["accuracy"])
        # one shot: the nearest prototype is the nearest neighbour
        one = [found["tests"][m]["1"]["accuracy"] for m in ("pixels", "neighbour")]
        assert one[0] == pytest.approx(one[1], abs=0.5)
        if "picture" in found:
            assert len(found["picture"]["after"]) == len(found["picture"]["y"]) == 120


@pytest.mark.slow
def test_longer_training_differs_by_its_length_alone(data_root, monkeypatch):
    need("omniglot_small")
    monkeypatch.setattr(ch18_deeper, "LEARNED", ("ProtoNet",))
    assert ch18_deeper.BEYOND[0] == max(ch18_deeper.RATES) < ch18_deeper.BEYOND[1]
    beyond = ch18_deeper.run_rates([3, 4], lambda line: None, plan=SMALL)
    assert list(beyond) == ["ProtoNet"] and list(beyond["ProtoNet"]) == ["0.01", "0.03"]
    assert all(len(scores) == 2 for scores in beyond["ProtoNet"].values())
    found = ch18_deeper.run_longer([0], lambda line: None, plan=SMALL, lengths=(1, 2))
    assert {steps: tuple(rows["tests"]) for steps, rows in found.items()} == dict.fromkeys(
        ("1", "2"), ch18_deeper.LEARNED
    )
    assert found["1"]["rates"] == found["2"]["rates"]  # searched with as many steps
    where = ch18_deeper.characters(SMALL)
    rates = found["2"]["rates"]["ProtoNet"]
    again = ch18_deeper.compare("ProtoNet", where, SMALL, float(max(rates, key=rates.get)), 0)
    assert found["2"]["tests"]["ProtoNet"]["1"]["accuracy"] == [again["1"]["accuracy"]]


def test_no_method_gains_by_a_rate_beyond_that_of_the_longer_record():
    """As the fine print says."""
    longer, beyond = (records.load("18", part).results for part in ("longer", "rates"))
    taken, next_one = (f"{rate:g}" for rate in ch18_deeper.BEYOND)
    for method, rates in longer["2000"]["rates"].items():
        assert max(rates, key=rates.get) == taken
        assert np.mean(beyond[method][next_one]) < np.mean(beyond[method][taken])


def test_the_heads_of_the_text_are_those_of_the_experiments():
    """Its cell, run as it stands: Baseline's head, and the frozen embedding's."""
    import json as reader
    from pathlib import Path

    path = Path(__file__).parents[2] / "notebooks" / "18_few_shot.ipynb"
    cells = reader.loads(path.read_text("utf-8"))["cells"]
    (cell,) = ["".join(c["source"]) for c in cells if "def head_on(" in "".join(c["source"])]
    from mtl_course.meta import few_shot

    names = {"torch": torch, "few_shot": few_shot}
    imports, function = cell[: cell.index("letters =")], cell[cell.index("def head_on(") :]
    exec(imports + function, names)
    where = ch18.domain("glyphs", ch18.CPU)
    net = ch18.trunk(where, ch18.CPU, 0)
    with torch.no_grad():
        seen = replace(where, x=net(where.x))
    tasks, features = (
        d.source("test").classification(3, 5, 1, 5, torch.Generator().manual_seed(0))
        for d in (where, seen)
    )
    for judge, unit, method in (
        (ch18.judge("Baseline", net, 5, (50, 0.3)), False, "drawn"),
        (ch18_deeper.judge("frozen embedding", net, (50, 0.3)), True, "zero"),
    ):
        mine = names["head_on"](unit, method == "zero", 0.3)(features)
        torch.testing.assert_close(mine, judge(tasks), atol=1e-4, rtol=1e-4)
